"""What callers of sendmail pipe in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.cli.draft import read_draft, render_mailbox, split_addresses
from arkrelay.mail.author import parse_author
from arkrelay.mail.header import scan
from arkrelay.model.address import Address

ANN = Address("ann", "example.com")


@pytest.mark.parametrize(
    ("raw", "dots", "header", "body"),
    [
        pytest.param(b"To: a@b\n\nhi\n", True, b"To: a@b\r\n", b"hi\r\n", id="unix-lines"),
        pytest.param(b"To: a@b\r\n\r\nhi", True, b"To: a@b\r\n", b"hi\r\n", id="last-line-end-added"),
        pytest.param(b"To: a@b\n\na\n.\nb\n", True, b"To: a@b\r\n", b"a\r\n", id="a-dot-ends"),
        pytest.param(b"To: a@b\n\na\n.\nb\n", False, b"To: a@b\r\n", b"a\r\n.\r\nb\r\n", id="a-dot-with-i"),
        pytest.param(b".\nx\n", True, b"", b"", id="a-dot-at-once"),
        pytest.param(b"hello\nthere\n", True, b"", b"hello\r\nthere\r\n", id="no-header"),
        pytest.param(b"\nhello\n", True, b"", b"hello\r\n", id="empty-header"),
        pytest.param(b"From x Mon Jan\nTo: a@b\n\n", True, b"To: a@b\r\n", b"", id="mbox-line"),
        pytest.param(b"To: a@b,\n c@d\nhello\n", True, b"To: a@b,\r\n c@d\r\n", b"hello\r\n", id="folded-then-body"),
        pytest.param(b"", True, b"", b"", id="nothing"),
    ],
)
def test_a_message_is_cut_as_sendmail_cuts_it(raw: bytes, dots: bool, header: bytes, body: bytes) -> None:
    draft = read_draft(raw, dots=dots)
    assert (draft.header, draft.body) == (header, body)


@given(st.binary(), st.booleans())
def test_rubbish_is_a_value_error_or_a_message_with_canonical_lines(raw: bytes, dots: bool) -> None:
    try:
        draft = read_draft(raw, dots=dots)
    except ValueError:
        return
    content = draft.header + b"\r\n" + draft.body
    assert content.replace(b"\r\n", b"").count(b"\n") == 0
    for method in (draft.recipients, draft.author):
        try:
            method()
        except ValueError as error:
            assert str(error)  # noqa: PT017 -- it may also not raise


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a@b", [("", "a@b")]),
        ("a@b, c@d", [("", "a@b"), ("", "c@d")]),
        ("Ann <a@b>, Bob <c@d>", [("Ann", "a@b"), ("Bob", "c@d")]),
        ('"Last, First" <a@b>', [("Last, First", "a@b")]),
        ('"a\\"b" <a@b>', [('a"b', "a@b")]),
        ("root (Cron Daemon)", [("Cron Daemon", "root")]),
        ("undisclosed-recipients:;", []),
        ("friends: a@b, c@d; e@f", [("", "a@b"), ("", "c@d"), ("", "e@f")]),
        ("a@b,,c@d,", [("", "a@b"), ("", "c@d")]),
        ('"odd name"@b.test', [("", '"odd name"@b.test')]),
        ("x@evil.test <a@b>", [("x@evil.test", "a@b")]),
        ("", []),
    ],
)
def test_address_lists_are_split(text: str, found: list[tuple[str, str]]) -> None:
    assert split_addresses(text) == found


@pytest.mark.parametrize("text", ["<a@b> <c@d>", "<a@b> c@d", '"a', "a)b", "(a", "<a@b", "a>b", "a@b (", "((a)) b"])
def test_what_can_be_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|list"):
        split_addresses(text)


@given(st.text())
def test_any_text_is_a_list_or_a_value_error(text: str) -> None:
    try:
        found = split_addresses(text)
    except ValueError:
        return
    assert all(isinstance(spec, str) for _, spec in found)


def test_recipients_come_from_to_cc_and_bcc() -> None:
    draft = read_draft(b"To: a@x.test\nCc: B <b@x.test>\nBcc: c@x.test,\n d@x.test\n\n", dots=True)
    assert draft.recipients() == ["a@x.test", "b@x.test", "c@x.test", "d@x.test"]


def test_resent_fields_replace_the_others() -> None:
    draft = read_draft(b"To: a@x.test\nResent-To: r@x.test\nResent-Bcc: s@x.test\n\n", dots=True)
    assert draft.recipients() == ["r@x.test", "s@x.test"]


@pytest.mark.parametrize("header", [b"From: a@x.test, b@x.test", b"From: a@x.test\nFrom: b@x.test", b"From: a@b@c"])
def test_a_doubtful_author_is_refused(header: bytes) -> None:
    draft = read_draft(header + b"\n\n", dots=True)
    with pytest.raises(ValueError, match="From"):
        draft.author()


@pytest.mark.parametrize(
    ("header", "name", "wanted"),
    [
        (b"Subject: x\n", "", b"From: ann@example.com\r\nSubject: x\r\n"),
        (b"Subject: x\n", "Ann B", b"From: Ann B <ann@example.com>\r\nSubject: x\r\n"),
        (b"From: root (Cron Daemon)\nX: y\n", "", b"From: Cron Daemon <ann@example.com>\r\nX: y\r\n"),
        (b"From: Other <o@x.test>\n", "Ann", b"From: Other <o@x.test>\r\n"),
    ],
)
def test_a_missing_author_is_completed(header: bytes, name: str, wanted: bytes) -> None:
    draft = read_draft(header + b"\nbody\n", dots=True)
    assert draft.complete(ANN, name) == wanted + b"\r\nbody\r\n"


@given(st.text(max_size=60))
def test_any_full_name_makes_a_from_field_that_we_take_or_refuse(name: str) -> None:
    raw = b"From: " + render_mailbox(name, ANN) + b"\r\n"
    fields = scan(raw)
    assert [field.name for field in fields] == [b"from"]
    if name.isalpha():
        assert parse_author(fields) == ANN
