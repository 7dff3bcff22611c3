"""A webhook endpoint on loopback, over TLS or plain, that keeps what it gets and behaves as its path says.

``/hang``, ``/close``, ``/redirect``, ``/flood``, ``/extension``, ``/interim``, ``/drip``, ``/rubbish``, ``/zip``,
``/slow`` and ``/<status>`` (with ``?after=N`` it asks to be left alone for N s); any other path is answered with 200
and "taken". A test may decide otherwise for each request (``decide``).
"""

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

FLOOD_BYTES = 10_000_000
ENDLESS_BYTES = 100_000_000  # of one answer without an end: a test ends, also one that fails
ENDLESS = {  # how an answer begins, and what comes for ever: no body (RFC 9112 §7.1.1, RFC 9110 §15.2)
    "extension": (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n5;",
        b"z" * 60_000,
    ),
    "interim": (b"", b"HTTP/1.1 102 P\r\n\r\n" * 3000),
}


@dataclass(frozen=True)
class Request:
    """One request as it came; names of fields are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Receiver:
    """``async with Receiver(…)`` listens; ``connections`` counts TCP connections, of TLS those that shook hands.

    ``open`` are those of them that nobody has ended yet.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, context: ssl.SSLContext | None = None) -> None:
        self.host, self.port = host, port
        self.requests: list[Request] = []
        self.connections = self.open = 0
        self.sent_bytes: Counter[str] = Counter()  # that the kernel took, of a flood or what is endless
        self.taken = b"taken"  # the body of a 200
        self.keeps = False  # connections, for further requests
        self.gone_away = ""  # where a redirect points
        self.decide: Callable[[Request], int | None] = lambda _request: None  # a status, or None: as the path says
        self._context = context
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        try:
            await self._answer(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            with contextlib.suppress(OSError, RuntimeError):
                writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await self._take(reader, writer) and self.keeps:
            pass

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection is good for another."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        request = Request(method, path, headers, body)
        self.requests.append(request)
        if (status := self.decide(request)) is not None:
            writer.write(_response(status, b"as decided"))
            await writer.drain()
            return True
        what = path.partition("?")[0].removeprefix("/")
        await self._behave(what, path.partition("?after=")[2], writer)
        await writer.drain()
        return what not in ("close", "rubbish")

    async def _behave(  # noqa: C901, PLR0912 -- a table
        self, what: str, after: str, writer: asyncio.StreamWriter
    ) -> None:
        match what:
            case "hang":
                await asyncio.Event().wait()
            case "close":
                pass
            case "rubbish":
                writer.write(b"\x00\xff SSH-2.0-rubbish\r\n\r\n")
            case "redirect":
                writer.write(_response(302, b"", f"Location: {self.gone_away}\r\n"))
            case "flood":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % FLOOD_BYTES)
                for _ in range(FLOOD_BYTES // 10_000):
                    writer.write(b"x" * 10_000)
                    await writer.drain()
                    self.sent_bytes[what] += 10_000
            case "extension" | "interim":
                begin, again = ENDLESS[what]
                writer.write(begin)
                for _ in range(ENDLESS_BYTES // len(again)):
                    writer.write(again)
                    await writer.drain()
                    self.sent_bytes[what] += len(again)
            case "drip":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nslow")
                await asyncio.Event().wait()
            case "zip":
                writer.write(_response(200, b"\x1f\x8b\x00bomb", "Content-Encoding: gzip\r\n"))
            case "slow":
                await asyncio.sleep(0.3)
                writer.write(_response(200, self.taken, "Content-Type: text/plain\r\n"))
            case _ if what.isdecimal():
                more = f"Retry-After: {after}\r\n" if after else ""
                writer.write(_response(int(what), b"" if what == "204" else b"as asked", more))
            case _:
                writer.write(_response(200, self.taken, "Content-Type: text/plain\r\n"))


def _response(status: int, body: bytes, more: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body
