"""Content: it arrives octet for octet, however big it is and however slowly the peer reads."""

import asyncio
import random
import re
import socket
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peers.certificates import valid
from peers.dial import PATIENT, QUICK, envelope, session
from peers.mx import HANG, Delay, Mx, Script, Then

from arkrelay.model.reply import Failure, FailureKind, Reply, Stage
from arkrelay.wire.commands import prepare
from arkrelay.wire.session import ONE_WRITE

OK = Reply(250, "2.0.0", "queued", Stage.DOT)
LINE = st.one_of(
    st.sampled_from([b"", b".", b"..", b".x", b"x" * 998, b"y" * 5000, b".\xff.", b"QUIT", b"RSET", b"\x00"]),
    st.binary(max_size=120).map(lambda octets: re.sub(rb"[\r\n]", b".", octets)),
)
BIG = b"".join(b".%d " % n + b"x" * (n % 990) + b"\r\n" for n in range(6000))  # about 3 MB


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(LINE, max_size=12), min_size=1, max_size=4))
def test_what_is_sent_arrives(messages: list[list[bytes]]) -> None:
    contents = [b"".join(line + b"\r\n" for line in lines) for lines in messages]

    async def deliver() -> None:
        async with Mx() as mx, session(mx, PATIENT) as opened:
            for content in contents:
                assert (await opened.send(envelope(eight_bit=True), content)).results == (OK,)
            assert [message.content for message in mx.messages] == contents

    asyncio.run(deliver())


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "tls"])
@pytest.mark.parametrize("size", [ONE_WRITE - 10, ONE_WRITE - 3, ONE_WRITE, ONE_WRITE + 1, 2 * ONE_WRITE, len(BIG)])
async def test_big_content_arrives_and_the_next_group_follows_it(size: int, tls: bool) -> None:
    content = BIG[: size - 2].rstrip(b"\r\n") + b"\r\n"
    script = Script(tls=valid().server_context() if tls else None)
    async with Mx(script) as mx, session(mx, PATIENT) as opened:
        dots: list[int] = []
        first = opened.send(envelope(), prepare(content), on_dot=lambda: dots.append(1))
        second = opened.send(envelope(), content, on_dot=lambda: dots.append(2))
        assert (await first).results == (await second).results == (OK,)
        assert dots == [1, 2]
        assert [message.content for message in mx.messages] == [content, content]


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "tls"])
async def test_content_beyond_what_the_kernel_keeps_is_written_as_the_peer_reads(tls: bool) -> None:
    async with Mx(Script(tls=valid().server_context() if tls else None)) as mx:
        mx.shrink()
        async with session(mx, PATIENT) as opened:
            transport = opened._channel.transport
            assert transport is not None
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            waiting: list[int] = []  # octets in our buffer when the last part is written

            def dot() -> None:
                waiting.append(transport.get_write_buffer_size())

            first, second = opened.send(envelope(), BIG, on_dot=dot), opened.send(envelope(), BIG, on_dot=dot)
            assert (await first).results == (await second).results == (OK,)
            assert max(waiting) < len(BIG) / 4  # never all of it in memory a second time
            assert [message.content == BIG for message in mx.messages] == [True, True]


async def test_two_sessions_upload_side_by_side() -> None:
    async with Mx() as mx, session(mx, PATIENT) as one, session(mx, PATIENT) as other:
        await asyncio.gather(one.send(envelope(), BIG), other.send(envelope(), BIG))
        assert [message.content == BIG for message in mx.messages] == [True, True]


async def test_a_peer_that_reads_slowly_but_steadily_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arkrelay.wire.session.BLOCK_S", 0.4)
    content = random.Random(1).randbytes(300_000).hex().encode() + b"\r\n"  # 600 KB, no dots
    async with Mx(Script(read_rate=600_000)) as mx:
        mx.shrink()
        async with session(mx, QUICK) as opened:
            begun = time.monotonic()
            assert (await opened.send(envelope(), content)).results == (OK,)
            assert time.monotonic() - begun > 0.7  # longer than the block and the final dot may take
            assert mx.messages[0].content == content


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "tls"])
async def test_a_peer_that_stops_reading_is_left_before_the_dot(tls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arkrelay.wire.session.BLOCK_S", 0.3)
    script = Script(upload=Delay(30, None), tls=valid().server_context() if tls else None)
    async with Mx(script) as mx:
        mx.shrink()
        async with session(mx, QUICK) as opened:
            begun = time.monotonic()
            transaction = await opened.send(envelope(), BIG * 5)
            assert time.monotonic() - begun < 5
            assert not transaction.past_dot
            assert transaction.results == (
                Failure(FailureKind.TIMEOUT, Stage.DATA, "nothing within 0.3 s before the end of the content"),
            )


@pytest.mark.parametrize(
    ("act", "result"),
    [
        (Then("552 5.3.4 too big", HANG), Reply(552, "5.3.4", "too big", Stage.DATA)),
        (Then("421 4.3.2 bye", HANG), Reply(421, "4.3.2", "bye", Stage.DATA)),
        (Then("250 taken", HANG), Failure(FailureKind.PROTOCOL, Stage.DATA, "a reply to nothing (250)")),
    ],
)
async def test_a_reply_in_the_middle_of_the_content(act: Then, result: Reply | Failure) -> None:
    async with Mx(Script(upload=act)) as mx:
        mx.shrink()
        async with session(mx, PATIENT) as opened:
            transaction = await opened.send(envelope(), BIG * 5)
            assert transaction.results == (result,)
            assert not transaction.past_dot
            assert not opened.open


async def test_small_segments_do_not_wait_for_each_other() -> None:
    async with Mx() as mx, session(mx) as opened:
        assert opened._channel.transport is not None
        sock = opened._channel.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
