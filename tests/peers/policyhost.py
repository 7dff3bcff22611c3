"""The web server of an MTA-STS policy, on loopback over TLS: what it serves may change while it runs."""

import asyncio
import contextlib
import ssl
from types import TracebackType
from typing import Self

PATH = "/.well-known/mta-sts.txt"


def policy(mode: str, *mx: str, max_age: int = 86400) -> str:
    """Return a policy file (RFC 8461 §3.2)."""
    hosts = "".join(f"mx: {host}\r\n" for host in mx)
    return f"version: STSv1\r\nmode: {mode}\r\n{hosts}max_age: {max_age}\r\n"


class PolicyHost:
    """``async with PolicyHost(address, context) as web``: ``web.files["mta-sts.x.test"] = policy(…)``.

    A name without a file is 404. ``status``, ``kind`` and ``hang`` change every answer; ``asked`` counts requests.
    """

    def __init__(self, context: ssl.SSLContext, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host, self.port = host, port
        self.files: dict[str, str] = {}
        self.status = 200
        self.kind = "text/plain; charset=utf-8"
        self.hang = False
        self.asked: list[str] = []
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
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in lines)
            name = fields["host"].rpartition(":")[0]
            self.asked.append(name)
            if self.hang:
                await asyncio.Event().wait()
            body = self.files.get(name) if first.startswith(f"GET {PATH} ") else None
            status = self.status if body is not None else 404
            where = f"Location: https://{name}:{self.port}{PATH}\r\n" if 300 <= status < 400 else ""
            data = (body or "").encode()
            answer = f"HTTP/1.1 {status} X\r\n{where}Content-Type: {self.kind}\r\nContent-Length: {len(data)}\r\n\r\n"
            writer.write(answer.encode() + data)
            await writer.drain()
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            with contextlib.suppress(OSError, RuntimeError):
                writer.close()
