"""What goes on the wire, octet by octet."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.model.message import Envelope
from arkrelay.model.reply import FailureKind
from arkrelay.wire.commands import Extensions, Prepared, parse_extensions, prepare, render_group, unfit, unsafe

ALL = Extensions(pipelining=True, size=0, eight_bit_mime=True, smtputf8=True, dsn=True)


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        pytest.param(b"a\r\n", b"a\r\n.\r\n", id="plain"),
        pytest.param(b"a", b"a\r\n.\r\n", id="no-line-end"),
        pytest.param(b"", b".\r\n", id="empty"),
        pytest.param(b".", b"..\r\n.\r\n", id="a-dot"),
        pytest.param(b".\r\n", b"..\r\n.\r\n", id="a-dot-line"),
        pytest.param(b"a\r\n.\r\n..b\r\nc.\r\n", b"a\r\n..\r\n...b\r\nc.\r\n.\r\n", id="dots"),
        pytest.param(b"a\n.\nb\r\n", b"a\n..\nb\r\n.\r\n", id="a-bare-LF-cannot-end-the-message"),
    ],
)
def test_content_is_stuffed_and_ended(content: bytes, wire: bytes) -> None:
    assert prepare(content).wire == wire


@given(st.lists(st.binary(max_size=40).map(lambda line: re.sub(rb"[\r\n]", b".", line)), max_size=30))
def test_only_the_end_of_the_content_looks_like_one_and_unstuffing_gives_it_back(lines: list[bytes]) -> None:
    content = b"".join(line + b"\r\n" for line in lines)
    prepared = prepare(content)
    assert (b"\r\n" + prepared.wire).index(b"\r\n.\r\n") == len(prepared.wire) - 3
    assert re.sub(rb"(?m)^\.", b"", prepared.wire[:-3]) == content
    assert prepared.size_bytes == len(content)


@pytest.mark.parametrize(
    ("lines", "extensions"),
    [
        pytest.param((b"mx",), Extensions(), id="nothing"),
        pytest.param((b"PIPELINING", b"SIZE"), Extensions(size=0), id="the-first-line-is-a-greeting"),
        pytest.param((b"mx", b"SIZE 1000", b"pipelining"), Extensions(size=1000, pipelining=True), id="any-case"),
        pytest.param((b"mx", b"SIZE 99999999999999999999999"), Extensions(size=0), id="size-beyond-reason"),
        pytest.param((b"mx", b"SIZE \xb2"), Extensions(size=0), id="size-rubbish"),
        pytest.param(
            (b"mx", b"AUTH PLAIN login", b"AUTH=CRAM-MD5"),
            Extensions(auth=frozenset({"PLAIN", "LOGIN", "CRAM-MD5"})),
            id="auth-twice",
        ),
        pytest.param(
            (b"mx", b"LIMITS MAILMAX=20 RCPTMAX=100 RCPTDOMAINMAX=1"),
            Extensions(mail_max=20, rcpt_max=100),
            id="limits",
        ),
        pytest.param((b"mx", b"LIMITS MAILMAX=0 RCPTMAX=x"), Extensions(), id="limits-rubbish"),
        pytest.param(
            (b"mx", b"8BITMIME", b"SMTPUTF8", b"DSN", b"STARTTLS", b"", b"\xff"),
            Extensions(eight_bit_mime=True, smtputf8=True, dsn=True, starttls=True),
            id="rest",
        ),
        pytest.param((b"mx", b"DELIVERBY"), Extensions(by_least=0), id="deliver-by"),
        pytest.param((b"mx", b"DELIVERBY 240,x"), Extensions(by_least=240), id="deliver-by-of-four-minutes"),
    ],
)
def test_extensions_are_understood(lines: tuple[bytes, ...], extensions: Extensions) -> None:
    assert parse_extensions(lines) == extensions


@pytest.mark.parametrize(
    ("envelope", "extensions", "group"),
    [
        pytest.param(
            Envelope("a@x.test", ("b@y.test",), eight_bit=False, ret="HDRS", envid="q", notify=("NEVER",)),
            Extensions(),
            [b"MAIL FROM:<a@x.test>\r\n", b"RCPT TO:<b@y.test>\r\n", b"DATA\r\n"],
            id="nothing-offered",
        ),
        pytest.param(
            Envelope(None, ("b@y.test",)),
            Extensions(size=5),
            [b"MAIL FROM:<> SIZE=3\r\n", b"RCPT TO:<b@y.test>\r\n", b"DATA\r\n"],
            id="null-path",
        ),
        pytest.param(
            Envelope("ä@x.test", ("ö@y.test",), smtputf8=True, eight_bit=True),
            ALL,
            [
                "MAIL FROM:<ä@x.test> SIZE=3 BODY=8BITMIME SMTPUTF8\r\n".encode(),
                "RCPT TO:<ö@y.test>\r\n".encode(),
                b"DATA\r\n",
            ],
            id="utf8",
        ),
        pytest.param(
            Envelope(
                "a@x.test",
                ("b@y.test", "c@y.test"),
                ret="FULL",
                envid="Qq+2B",
                notify=("SUCCESS,FAILURE", None),
                orcpt=(None, "rfc822;C+3Dx@y.test"),
            ),
            ALL,
            [
                b"MAIL FROM:<a@x.test> SIZE=3 RET=FULL ENVID=Qq+2B\r\n",
                b"RCPT TO:<b@y.test> NOTIFY=SUCCESS,FAILURE\r\n",
                b"RCPT TO:<c@y.test> ORCPT=rfc822;C+3Dx@y.test\r\n",
                b"DATA\r\n",
            ],
            id="dsn",
        ),
        *(
            pytest.param(
                Envelope("a@x.test", ("b@y.test",), by=by),
                Extensions(by_least=least),
                [f"MAIL FROM:<a@x.test>{said}\r\n".encode(), b"RCPT TO:<b@y.test>\r\n", b"DATA\r\n"],
                id=f"by-{by}-{least}",
            )
            for by, least, said in (
                ((90, "R"), 0, " BY=90;R"),
                ((90, "R"), 90, " BY=90;R"),
                ((89, "R"), 90, ""),
                ((0, "R"), 0, ""),
                ((-7, "N"), 90, " BY=-7;N"),
                ((90, "R"), None, ""),
                (None, 0, ""),
            )
        ),
        pytest.param(
            Envelope("a@x.test", ("b@y.test",), envid="a b", ret="x\r\nRSET", orcpt=("\x00",)),
            ALL,
            [b"MAIL FROM:<a@x.test> SIZE=3\r\n", b"RCPT TO:<b@y.test>\r\n", b"DATA\r\n"],
            id="parameters-that-would-break-the-line-are-left-out",
        ),
    ],
)
def test_a_group_is_rendered(envelope: Envelope, extensions: Extensions, group: list[bytes]) -> None:
    assert render_group(envelope, list(range(len(envelope.recipients))), prepare(b"a\r\n"), extensions) == group


@pytest.mark.parametrize(
    ("address", "utf8", "safe"),
    [
        pytest.param("a@x.test", False, True, id="plain"),
        pytest.param("a+b%c!d@x.test", False, True, id="odd-atoms"),
        pytest.param('"a b"@x.test', False, True, id="quoted-space"),
        pytest.param('"a\\"> b"@x.test', False, True, id="quoted-quote"),
        pytest.param('"a"> SIZE=1"@x.test', False, False, id="quote-ends-early"),
        pytest.param("a b@x.test", False, False, id="space"),
        pytest.param("a@x> SIZE=1", False, False, id="parameter"),
        pytest.param("a@x\r\nRSET", False, False, id="crlf"),
        pytest.param('"a\r\nb"@x.test', False, False, id="quoted-crlf"),
        pytest.param("a\x00@x.test", False, False, id="nul"),
        pytest.param("<a@x.test>", False, False, id="brackets"),
        pytest.param("", False, False, id="empty"),
        pytest.param("ä@x.test", False, False, id="utf8-not-declared"),
        pytest.param("ä@x.test", True, True, id="utf8"),
        pytest.param("a\u2028b@x.test", True, False, id="line-separator"),
        pytest.param("a\x85b@x.test", True, False, id="c1"),
        pytest.param("a\ud800@x.test", False, False, id="surrogate"),
    ],
)
def test_an_address_is_checked_a_last_time(address: str, utf8: bool, safe: bool) -> None:
    problem = unsafe(address, utf8=utf8)
    assert (problem is None) is safe
    if problem is not None:
        assert problem.kind is FailureKind.INTERNAL
        assert problem.detail.isprintable()


@given(st.text(max_size=40), st.booleans())
def test_an_address_that_passes_stays_inside_its_brackets(address: str, utf8: bool) -> None:
    if unsafe(address, utf8=utf8) is None:
        assert not re.search(r"[\x00-\x1f\x7f]", address)
        assert not re.search(r"[ <>]", re.sub(r'^"(?:[^"\\]|\\.)*"', "", address))


@pytest.mark.parametrize(
    ("envelope", "size", "kind"),
    [
        pytest.param(Envelope("a@x.test", ("b@y.test",)), 0, None, id="size-without-limit"),
        pytest.param(Envelope("a@x.test", ("b@y.test",)), 10, None, id="just-fits"),
        pytest.param(Envelope("a@x.test", ("b@y.test",)), 9, FailureKind.TOO_LARGE, id="too-large"),
        pytest.param(Envelope("a@x.test", ("ü@y.test",), smtputf8=True), 10, FailureKind.NO_SMTPUTF8, id="smtputf8"),
        pytest.param(Envelope("a @x.test", ("b@y.test",)), 10, FailureKind.INTERNAL, id="return-path"),
    ],
)
def test_what_the_peer_cannot_take_is_not_sent(envelope: Envelope, size: int, kind: FailureKind | None) -> None:
    problem = unfit(envelope, Prepared(b"", 10), Extensions(size=size))
    assert (problem.kind if problem else None) is kind
