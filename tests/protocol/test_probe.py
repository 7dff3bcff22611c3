"""A few commands to a host: whatever it does comes back as data, in time."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from arkrelay.model.reply import Failure, FailureKind
from arkrelay.wire.probe import Heard, ask

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def meet(peer: Answer, *commands: str, timeout_s: float = 5.0) -> Heard:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await peer(reader, writer)
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        return await ask("127.0.0.1", server.sockets[0].getsockname()[1], commands, timeout_s=timeout_s)


async def test_commands_are_said_while_they_are_taken_and_the_last_is_the_answer() -> None:
    heard: list[bytes] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220-relay.test\r\n220 ESMTP\r\n")
        for reply in (b"250-relay.test\r\n250 SIZE\r\n", b"550 5.7.1 No\r\n"):
            heard.append(await reader.readline())
            writer.write(reply)
        heard.append(await reader.readline())

    found = await meet(peer, "EHLO a.test", "MAIL FROM:<>", "RCPT TO:<x@y.test>")
    assert [one.code for one in found.replies] == [220, 250, 550]
    assert str(found.last) == "550 5.7.1 No"
    assert heard == [b"EHLO a.test\r\n", b"MAIL FROM:<>\r\n", b"QUIT\r\n"]


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def rubbish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await reader.read()


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for _ in range(10_000):
        writer.write(b"220-" + b"x" * 1000 + b"\r\n")
        await writer.drain()


async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 hello\r\n")


@pytest.mark.parametrize(
    ("peer", "kind"),
    [
        (silent, FailureKind.TIMEOUT),
        (rubbish, FailureKind.PROTOCOL),
        (endless, FailureKind.PROTOCOL),
        (closing, FailureKind.CLOSED),
    ],
)
async def test_whatever_a_peer_does_is_a_failure(peer: Answer, kind: FailureKind) -> None:
    found = await meet(peer, "EHLO a.test", timeout_s=0.5 if peer is silent else 5.0)
    assert isinstance(found.last, Failure)
    assert found.last.kind is kind


async def test_nobody_there_is_refused() -> None:
    found = await ask("127.0.0.1", 1, [], timeout_s=5)
    assert found.failure is not None
    assert found.failure.kind is FailureKind.REFUSED
