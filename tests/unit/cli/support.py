"""What the commands' tests share: the program run in its own process, and a daemon that answers as told."""

import asyncio
import stat
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
from aiohttp import web

from arkrelay.cli.main import run


@dataclass
class Ran:
    """What one command line did."""

    code: int
    out: str
    err: str


class Program:
    """The program in a directory of its own: ``program("tenant", "list")``."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self.config = home, home / "arkrelay.toml"
        self._capsys = capsys

    def __call__(self, *words: str) -> Ran:
        self._capsys.readouterr()
        code = run(list(words))
        captured = self._capsys.readouterr()
        return Ran(code, captured.out, captured.err)


@dataclass
class Asked:
    """One request that the daemon's double got."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    key: str


@dataclass
class Double:
    """A real HTTP server on the daemon's unix socket, with answers by "METHOD /path"; others are 404."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    stopped: bool = False

    async def handle(self, request: web.Request) -> web.Response:
        """Note the request, and give the next answer for it."""
        body = await request.json() if request.can_read_body else None
        key = request.headers.get("Authorization", "")
        self.asked.append(Asked(request.method, request.raw_path.partition("?")[0], dict(request.query), body, key))
        answer = self.answers.get(f"{request.method} {request.raw_path.partition('?')[0]}")
        if callable(answer):
            answer = answer(dict(request.query))
        if isinstance(answer, list):
            answer = answer.pop(0)
        if answer is None:
            error = {"code": "not_found", "message": "no such thing here"}
            return web.json_response({"success": False, "error": error}, status=404)
        if isinstance(answer, web.Response):
            return answer
        if isinstance(answer, tuple):
            return web.json_response(answer[1], status=answer[0])
        paged = isinstance(answer, dict) and "totalPages" in answer
        return web.json_response(answer if paged else {"success": True, "data": answer})


class serving:  # noqa: N801 -- used as a context manager, like open
    """Serve ``double`` on a unix socket, or on a TCP port of loopback, from a thread of its own."""

    def __init__(self, double: Double, path: Path | None = None) -> None:
        self.double, self.path, self.port = double, path, 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.double.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        if self.path:
            await web.UnixSite(runner, str(self.path)).start()
        else:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()
        self.double.stopped = not self._thread.is_alive()


def page(rows: list[dict[str, Any]], number: int = 1, pages: int = 1) -> dict[str, Any]:
    """Return one page as the contract has it (§3)."""
    return {"data": rows, "page": number, "perPage": 100, "total": len(rows) * pages, "totalPages": pages}


def mode(path: Path) -> int:
    """Return the permission bits."""
    return stat.S_IMODE(path.stat().st_mode)
