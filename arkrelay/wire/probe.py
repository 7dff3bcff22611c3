"""A few SMTP commands to a host, to hear what it says; never a message, and never DATA."""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from arkrelay.model.reply import Failure, FailureKind, Reply, Stage
from arkrelay.wire.channel import reason_of
from arkrelay.wire.replies import ReplyParser, to_reply

READ_BYTES = 8192
QUIT_S = 2.0


@dataclass(frozen=True, slots=True)
class Heard:
    """What each command was answered, the greeting first; ``failure`` says why there is no more."""

    replies: tuple[Reply, ...]
    failure: Failure | None = None

    @property
    def last(self) -> Reply | Failure:
        """The last thing that is known."""
        return self.failure or self.replies[-1]


async def ask(
    address: str,
    port: int,
    commands: Sequence[str],
    *,
    timeout_s: float,
    source: str | None = None,
    tls: ssl.SSLContext | None = None,
    start_tls: ssl.SSLContext | None = None,
) -> Heard:
    """Connect, hear the greeting, say each command while the answers are 2xx, and QUIT.

    ``timeout_s`` is for all of it. ``tls``: TLS comes before the greeting. ``start_tls``: the first command is said,
    STARTTLS, and then all commands under TLS; these replies stand before the others. Nothing is raised for what the
    peer does.
    """
    replies: list[Reply] = []
    try:
        async with asyncio.timeout(timeout_s):
            await _converse(address, port, commands, replies, source, tls, start_tls)
    except TimeoutError:
        return Heard(
            tuple(replies), Failure(FailureKind.TIMEOUT, _stage(replies), f"no answer within {timeout_s:g} s")
        )
    except ConnectionRefusedError:
        return Heard(tuple(replies), Failure(FailureKind.REFUSED, Stage.CONNECT, "connection refused"))
    except (OSError, EOFError) as error:
        stage = _stage(replies)
        kind = FailureKind.UNREACHABLE if stage is Stage.CONNECT else FailureKind.CLOSED
        detail = "it closed the connection" if isinstance(error, EOFError) else reason_of(error)
        return Heard(tuple(replies), Failure(kind, stage, detail))
    except _NotSmtp as error:
        return Heard(tuple(replies), Failure(FailureKind.PROTOCOL, _stage(replies), str(error)))
    return Heard(tuple(replies))


class _NotSmtp(Exception):
    """The peer speaks something else."""


async def _converse(
    address: str,
    port: int,
    commands: Sequence[str],
    replies: list[Reply],
    source: str | None,
    tls: ssl.SSLContext | None,
    start_tls: ssl.SSLContext | None,
) -> None:
    local = None if source is None else (source, 0)
    reader, writer = await asyncio.open_connection(
        address, port, local_addr=local, ssl=tls, server_hostname="" if tls else None
    )
    parser = ReplyParser()
    try:
        replies.append(await _reply(reader, parser, Stage.GREETING))
        if start_tls is not None:
            await _say(reader, writer, parser, (*commands[:1], "STARTTLS"), replies)
            if replies[-1].code == 220:
                await writer.start_tls(start_tls, server_hostname="")
        await _say(reader, writer, parser, commands, replies)
        writer.write(b"QUIT\r\n")
        async with asyncio.timeout(QUIT_S):
            while await reader.read(READ_BYTES):
                pass
    except TimeoutError:
        if not replies:
            raise
    finally:
        writer.transport.abort()


async def _say(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    parser: ReplyParser,
    commands: Sequence[str],
    replies: list[Reply],
) -> None:
    for command in commands:
        if replies[-1].code >= 300:
            break
        writer.write(command.encode("ascii") + b"\r\n")
        replies.append(await _reply(reader, parser, Stage.RCPT))


async def _reply(reader: asyncio.StreamReader, parser: ReplyParser, stage: Stage) -> Reply:
    while True:
        data = await reader.read(READ_BYTES)
        if not data:
            raise EOFError
        heard = parser.feed(data)
        if parser.broken is not None:
            raise _NotSmtp(parser.broken)
        if heard:
            return to_reply(heard[0], stage)


def _stage(replies: Sequence[Reply]) -> Stage:
    return Stage.RCPT if replies else Stage.GREETING
