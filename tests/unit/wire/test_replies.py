"""The reply parser: every division of the stream gives the same, and rubbish gives its own error."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.model.reply import Stage
from arkrelay.wire.replies import Heard, ReplyParser, clean, to_reply

LINE = st.binary(max_size=80).map(lambda octets: octets.replace(b"\n", b"").rstrip(b"\r"))
REPLY = st.tuples(st.integers(200, 599), st.lists(LINE, min_size=1, max_size=8))


def _on_the_wire(code: int, lines: list[bytes]) -> bytes:
    last = len(lines) - 1
    return b"".join(b"%d%s%s\r\n" % (code, b" " if n == last else b"-", line) for n, line in enumerate(lines))


@given(st.lists(REPLY, max_size=6), st.data())
def test_replies_are_the_same_however_the_stream_is_cut(
    replies: list[tuple[int, list[bytes]]], data: st.DataObject
) -> None:
    stream = b"".join(_on_the_wire(*reply) for reply in replies)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parser, heard = ReplyParser(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        heard += parser.feed(stream[start:end])
    assert heard == [Heard(code, tuple(lines)) for code, lines in replies]
    assert parser.broken is None
    assert not parser.pending


@given(st.lists(REPLY, max_size=3))
def test_replies_are_the_same_octet_by_octet(replies: list[tuple[int, list[bytes]]]) -> None:
    parser, heard = ReplyParser(), []
    for octet in b"".join(_on_the_wire(*reply) for reply in replies):
        heard += parser.feed(bytes([octet]))
    assert heard == [Heard(code, tuple(lines)) for code, lines in replies]


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_rubbish_never_raises_and_after_it_nothing_is_heard(parts: list[bytes]) -> None:
    parser = ReplyParser()
    for part in parts:
        was_broken = parser.broken is not None
        heard = parser.feed(part)
        assert not (was_broken and heard)
        for one in heard:
            assert json.dumps(to_reply(one, Stage.DOT).text).isascii()


@pytest.mark.parametrize(
    ("stream", "code", "broken"),
    [
        pytest.param(b"250\r\n", 250, None, id="code-alone"),
        pytest.param(b"250 \r\n", 250, None, id="code-and-space"),
        pytest.param(b"250-a\r\n250\r\n", 250, None, id="last-line-without-text"),
        pytest.param(b"250 ok\n", 250, None, id="lone-LF"),
        pytest.param(b"571 no\r\n", 571, None, id="second-digit-above-5-exists-in-the-wild"),
        pytest.param(b"550-no\r\n250 yes\r\n", None, "a reply with two codes, 550 and 250", id="two-codes"),
        pytest.param(b"2500 ok\r\n", None, "not an SMTP reply: 2500 ok", id="four-digits"),
        pytest.param(b"25 ok\r\n", None, "not an SMTP reply: 25 ok", id="two-digits"),
        pytest.param(b"150 wait\r\n", None, "not an SMTP reply: 150 wait", id="1xx"),
        pytest.param(b"650 hm\r\n", None, "not an SMTP reply: 650 hm", id="6xx"),
        pytest.param(b"250\tok\r\n", None, "not an SMTP reply: 250 ok", id="tab"),
        pytest.param(b"\xb2\xb3\xb5 ok\r\n", None, "not an SMTP reply: \\xb2\\xb3\\xb5 ok", id="other-digits"),
        pytest.param(b"\r\n", None, "not an SMTP reply: ", id="empty-line"),
        pytest.param(b" 250 ok\r\n", None, "not an SMTP reply:  250 ok", id="leading-space"),
        pytest.param(b"HTTP/1.1 400 Bad\r\n", None, "not an SMTP reply: HTTP/1.1 400 Bad", id="http"),
        pytest.param(b"250 " + b"x" * 8300, None, "a reply line of more than 8192 octets", id="line-without-end"),
        pytest.param(b"250 " + b"x" * 8300 + b"\r\n", None, "a reply line of more than 8192 octets", id="giant-line"),
        pytest.param(b"250-x\r\n" * 101, None, "a reply of more than 100 lines or 32768 octets", id="endless"),
        pytest.param(
            b"250-" + b"x" * 2000 + b"\r\n" + (b"250-" + b"x" * 8000 + b"\r\n") * 4,
            None,
            "a reply of more than 100 lines or 32768 octets",
            id="too-many-octets",
        ),
    ],
)
def test_a_reply_is_strict_and_bounded(stream: bytes, code: int | None, broken: str | None) -> None:
    parser = ReplyParser()
    heard = parser.feed(stream)
    assert [one.code for one in heard] == ([] if code is None else [code])
    assert parser.broken == broken


def test_replies_before_the_rubbish_count() -> None:
    parser = ReplyParser()
    assert parser.feed(b"250 taken\r\nrubbish\r\n250 more\r\n") == [Heard(250, (b"taken",))]
    assert parser.broken == "not an SMTP reply: rubbish"


def test_a_long_line_is_kept_in_part() -> None:
    (heard,) = ReplyParser().feed(b"250 " + b"x" * 8000 + b"\r\n")
    assert len(heard.lines[0]) == 2044


@pytest.mark.parametrize(
    ("code", "lines", "enhanced", "text"),
    [
        pytest.param(550, (b"5.1.1 No such user",), "5.1.1", "No such user", id="plain"),
        pytest.param(550, (b"5.1.1 No", b"5.1.1 such user"), "5.1.1", "No such user", id="every-line"),
        pytest.param(550, (b"5.1.1 No", b"such user"), "5.1.1", "No such user", id="first-line"),
        pytest.param(250, (b"5.1.1 what",), None, "5.1.1 what", id="class-of-another-code"),
        pytest.param(550, (b"4.2.1 full",), None, "4.2.1 full", id="class-of-another-refusal"),
        pytest.param(550, (b"5.1.1.7 no",), None, "5.1.1.7 no", id="four-numbers"),
        pytest.param(550, (b"5.7.515 no",), "5.7.515", "no", id="three-digits"),
        pytest.param(250, (b"",), None, "", id="empty"),
        pytest.param(550, (b"a\x00b\x1b[31m\x7f\xc2\x85",), None, "a\ufffdb\ufffd[31m\ufffd ", id="controls"),
        pytest.param(550, ("a\u202eb\u2028c\td".encode(),), None, "a\ufffdb c d", id="direction-and-lines"),
        pytest.param(550, (b"caf\xe9 \xff",), None, "caf\\xe9 \\xff", id="not-utf-8"),
        pytest.param(550, (b"\xed\xa0\x80",), None, "\\xed\\xa0\\x80", id="surrogate"),
        pytest.param(550, ("schön".encode(),), None, "schön", id="utf-8"),
        pytest.param(550, (b"x" * 2000,), None, "x" * 500, id="cut"),
    ],
)
def test_a_reply_is_safe_to_store(code: int, lines: tuple[bytes, ...], enhanced: str | None, text: str) -> None:
    reply = to_reply(Heard(code, lines), Stage.RCPT)
    assert (reply.code, reply.enhanced, reply.text, reply.stage) == (code, enhanced, text, Stage.RCPT)


@given(st.binary(max_size=600))
def test_clean_text_is_printable_valid_and_short(octets: bytes) -> None:
    text = clean(octets)
    assert text.isprintable()
    assert text.encode("utf-8").decode("utf-8") == text
    assert len(text) <= 500
