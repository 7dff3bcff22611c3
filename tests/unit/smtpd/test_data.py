"""Where a message ends and which line ends it may have."""

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.model.errors import Refused
from arkrelay.smtpd import data as module
from arkrelay.smtpd.data import END, TooMuch, canonical, read_data
from arkrelay.smtpd.input import Input


def ignore(_: int) -> None:
    """Progress that nobody watches."""


async def read_in_steps(data: bytes, step: int, limit: int = 1_000_000) -> tuple[bytes | None, bytes]:
    """Feed ``data`` in pieces; return what was read and what was left."""
    source = Input()
    reading = asyncio.ensure_future(read_data(source, limit, ignore))
    for start in range(0, len(data), step):
        source.feed(data[start : start + step])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    source.feed_eof()
    content = await reading
    return content, bytes(source.buffer)


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 100_000])
@pytest.mark.parametrize(
    ("wire", "content", "rest"),
    [
        pytest.param(b".\r\n", b"", b"", id="empty"),
        pytest.param(b"a\r\n.\r\n", b"a\r\n", b"", id="one-line"),
        pytest.param(b"..\r\n.\r\n", b".\r\n", b"", id="a-stuffed-dot-first"),
        pytest.param(b"a\r\n..b\r\n...\r\n.\r\n", b"a\r\n.b\r\n..\r\n", b"", id="stuffed-dots"),
        pytest.param(b".a\r\n.\r\n", b"a\r\n", b"", id="an-unstuffed-dot-goes-by-rfc"),
        pytest.param(b"a\r\n.\r\nMAIL FROM:<>\r\n", b"a\r\n", b"MAIL FROM:<>\r\n", id="next-command-behind-the-dot"),
        pytest.param(b"\r\n\r\n.\r\n", b"\r\n\r\n", b"", id="empty-lines"),
        pytest.param(b"a\nb\r\n.\r\n", b"a\r\nb\r\n", b"", id="bare-lf-is-normalised"),
        pytest.param(b"a\n.\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n", b"", id="lf-dot-lf-is-content"),
        pytest.param(b"a\n.\r\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n", b"", id="lf-dot-crlf-is-content"),
        pytest.param(b"a\r\n.\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n", b"", id="crlf-dot-lf-keeps-its-dot"),
        pytest.param(b"a\n..b\n...\nc\r\n.\r\n", b"a\r\n.b\r\n..\r\nc\r\n", b"", id="stuffed-lines-that-end-in-lf"),
        pytest.param(b"a\n.b\r\n..c\n..\r\n.\r\n", b"a\r\n.b\r\n.c\r\n.\r\n", b"", id="mixed-line-ends-and-dots"),
        pytest.param(b"\n\r\n.\r\n", b"\r\n\r\n", b"", id="bare-lf-first"),
        pytest.param(b"x" * 5000 + b"\r\n.\r\n", b"x" * 5000 + b"\r\n", b"", id="a-line-of-5000"),
    ],
)
async def test_content_is_what_stands_before_the_final_dot(
    step: int, wire: bytes, content: bytes, rest: bytes
) -> None:
    stuffed, left = await read_in_steps(wire, step)
    assert stuffed is not None
    assert canonical(stuffed, reject_bare_newline=False) == content
    assert left == rest


@given(st.lists(st.sampled_from([b"a", b".", b"\r\n", b"..", b"xyz", b"\xff"])).map(b"".join))
async def test_what_a_client_stuffs_comes_back_as_it_was(text: bytes) -> None:
    content = text + b"\r\n"
    wire = content.replace(b"\r\n.", b"\r\n..")
    wire = (b"." + wire if wire.startswith(b".") else wire) + b".\r\n"
    stuffed, left = await read_in_steps(wire, 4)
    assert stuffed is not None
    assert canonical(stuffed, reject_bare_newline=False) == content
    assert left == b""


@given(st.binary(), st.booleans())
def test_canonical_content_has_no_line_end_but_crlf(text: bytes, reject: bool) -> None:
    stuffed = b"\r\n" + text.replace(END, b"") + b"\r\n"
    code, content = 250, b""
    try:
        content = canonical(stuffed, reject_bare_newline=reject)
    except Refused as refused:
        code = refused.code
    assert code in (250, 550)
    assert not set(content.replace(b"\r\n", b"")) & {0, 10, 13}


@pytest.mark.parametrize("text", [b"a\0b\r\n", b"a\rb\r\n", b"a\r\r\n", b"\r\r\n", b"a\r\n\rb\r\n"])
def test_nul_and_bare_cr_are_refused(text: bytes) -> None:
    with pytest.raises(Refused) as caught:
        canonical(b"\r\n" + text, reject_bare_newline=False)
    assert (caught.value.code, caught.value.enhanced) == (550, "5.6.0")


def test_bare_lf_is_refused_when_the_setting_says_so() -> None:
    with pytest.raises(Refused):
        canonical(b"\r\na\nb\r\n", reject_bare_newline=True)
    assert canonical(b"\r\na\r\n", reject_bare_newline=True) == b"a\r\n"


@pytest.mark.parametrize("step", [1000, 70_000])
async def test_too_large_a_message_is_read_to_its_end_without_being_held(step: int) -> None:
    wire = b"x" * 300_000 + b"\r\n.\r\nQUIT\r\n"
    assert await read_in_steps(wire, step, limit=10_000) == (None, b"QUIT\r\n")


async def test_an_endless_line_is_not_held_and_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAIN_BYTES", 100_000)
    source = Input()
    reading = asyncio.ensure_future(read_data(source, 10_000, ignore))
    for _ in range(300):
        source.feed(b"x" * 1000)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    with pytest.raises(TooMuch):
        await reading


async def test_a_client_that_leaves_before_the_dot_leaves_nothing() -> None:
    for text in (b"", b"a", b"a\r\n", b"a\r\n.", b"a\r\n.\r"):
        with pytest.raises(EOFError):
            await read_in_steps(text, 1)


async def test_progress_is_told_after_each_block() -> None:
    told: list[int] = []
    source = Input()
    reading = asyncio.ensure_future(read_data(source, 1_000_000, told.append))
    for _ in range(3):
        source.feed(b"x" * 10)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    reading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reading
    assert told == [10, 20, 30]
