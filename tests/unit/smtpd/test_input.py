"""Bytes that nobody has read yet: lines, bounds, pausing."""

import asyncio

import pytest

from arkrelay.smtpd.input import HIGH, BareLineFeed, Input, LineTooLong


class Transport(asyncio.ReadTransport):
    def __init__(self) -> None:
        super().__init__()
        self.paused = False

    def state(self) -> str:
        return "paused" if self.paused else "reading"

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False


def test_lines_come_whole_however_they_arrive() -> None:
    text = b"EHLO a\r\nMAIL FROM:<a@b>\r\n\r\n"
    source = Input()
    found: list[bytes] = []
    for byte in text:
        source.feed(bytes([byte]))
        while (line := source.take_line(100)) is not None:
            found.append(line)
    assert found == [b"EHLO a", b"MAIL FROM:<a@b>", b""]


@pytest.mark.parametrize(("length", "fits"), [(8, True), (9, False), (4000, False)])
def test_a_line_over_its_limit_is_thrown_away_and_the_next_one_is_read(length: int, *, fits: bool) -> None:
    for step in (1, 3, 10_000):
        source = Input()
        data = b"x" * (length - 2) + b"\r\nNOOP\r\n"
        outcome: list[object] = []
        for start in range(0, len(data), step):
            source.feed(data[start : start + step])
            while True:
                try:
                    line = source.take_line(8)
                except LineTooLong:
                    outcome.append(LineTooLong)
                    continue
                if line is None:
                    break
                outcome.append(line)
            assert len(source.buffer) <= max(step, 8)
        assert outcome == [b"x" * (length - 2) if fits else LineTooLong, b"NOOP"]


@pytest.mark.parametrize("data", [b"NOOP\n", b"\n", b"NOOP\n\r\n", b"\r \n", b"x" * 200 + b"\n"])
def test_a_bare_line_feed_is_told(data: bytes) -> None:
    source = Input()
    source.feed(data)
    with pytest.raises(BareLineFeed):
        source.take_line(100)


def test_a_flood_pauses_the_transport_until_it_is_read() -> None:
    transport, source = Transport(), Input()
    source.attach(transport)
    source.feed(b"x" * HIGH)
    assert transport.state() == "reading"
    source.feed(b"x")
    assert transport.state() == "paused"
    source.feed(b"x")
    assert source.take_all() == b"x" * (HIGH + 2)
    assert transport.state() == "reading"


async def test_waiting_for_more_resumes_a_paused_transport() -> None:
    transport, source = Transport(), Input()
    source.attach(transport)
    source.feed(b"x" * (HIGH + 1))
    assert transport.state() == "paused"
    waiting = asyncio.ensure_future(source.more())
    await asyncio.sleep(0)
    assert transport.state() == "reading"
    source.feed(b"y")
    await waiting


async def test_another_transport_is_paused_when_the_buffer_is_full_already() -> None:
    source = Input()
    source.feed(b"x" * (HIGH + 1))
    transport = Transport()
    source.attach(transport)
    assert transport.state() == "paused"
    source.attach(None)
    assert transport.state() == "reading"


async def test_waiting_ends_with_the_input_and_by_a_wake() -> None:
    source = Input()
    waiting = asyncio.ensure_future(source.more())
    await asyncio.sleep(0)
    source.wake()
    await waiting
    waiting = asyncio.ensure_future(source.more())
    await asyncio.sleep(0)
    source.feed_eof()
    await waiting
    await source.more()
    assert source.eof


async def test_discarding_keeps_nothing_and_ends_at_its_bound() -> None:
    source = Input()
    source.feed(b"before")
    source.discard(10)
    source.feed(b"x" * 10)
    assert not source.buffer
    assert not source.eof
    source.feed(b"x")
    assert not source.buffer
    assert source.eof


def test_bytes_given_back_come_before_what_has_arrived() -> None:
    source = Input()
    source.feed(b"second\r\n")
    source.give_back(b"first\r\n")
    assert source.take_line(100) == b"first"
    assert source.take_line(100) == b"second"
