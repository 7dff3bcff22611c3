"""The sockets of the HTTP door: bound at start, and closed when the last answer is given."""

import asyncio
import contextlib
import resource
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path

from aiohttp import web

from arkrelay.api.connection import Connection, Connections, Deadlines, Handler
from arkrelay.api.pages import Pages
from arkrelay.api.parts import Parts
from arkrelay.api.public import Public
from arkrelay.api.routes import make_app
from arkrelay.base.sockets import bind, bind_unix, spell
from arkrelay.base.tasks import Tasks
from arkrelay.config.addresses import parse_endpoint
from arkrelay.model.errors import ConfigError
from arkrelay.model.settings import Listen
from arkrelay.policy.limits import is_trusted
from arkrelay.wire.tls import ServerCertificate

SOCKET = "arkrelay.sock"  # in state_dir: root and the service's user need no key on it
KEEP_ALIVE_S = 75.0  # without a request; a reverse proxy's own is shorter
STOP_S = 5.0  # for requests under way
BACKLOG = 256
MANY_DESCRIPTORS = 65_536  # where the system sets no limit
CONTROL_MODE, SOCKET_MODE = 0o600, 0o660
CONTROL_SERVES = frozenset({"api", "dashboard", "metrics"})


class HttpDoors:
    """Every ``http`` listener, and the control socket."""

    def __init__(
        self,
        parts: Parts,
        certificate: ServerCertificate | None,
        deadlines: Deadlines | None = None,
        public: Public | None = None,
        pages: Pages | None = None,
    ) -> None:
        self._parts = parts
        self._answer_world = public
        self._pages = pages
        self._certificate = certificate
        self._runners: list[web.AppRunner] = []
        self._servers: list[asyncio.Server] = []
        self._paths: list[tuple[Path, int]] = []  # with their inode: another process may have replaced it
        self._tasks = Tasks()
        # An eighth of our descriptors for each: SMTP has half, and delivery and the database need theirs.
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = max(16, (MANY_DESCRIPTORS if limit == resource.RLIM_INFINITY else limit) // 8)
        deadlines = deadlines or Deadlines()
        self._public = Connections(most, deadlines, self._is_trusted)
        self._local = Connections(most, deadlines, self._is_trusted)  # a flood on TCP leaves the command line its way
        self.addresses: list[tuple[str, str]] = []

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._public) + len(self._local)

    async def start(self) -> None:
        """Bind everything; raises OSError or ConfigError with the address when one cannot be bound."""
        snapshot = self._parts.live.snapshot
        self._tasks.spawn("http connections", self._public.watch())
        self._tasks.spawn("control connections", self._local.watch())
        for listen in snapshot.listeners:
            if listen.service == "http":
                await self._listen(listen)
        # last: when it answers, everything else is bound
        control = await self._new_handler(CONTROL_SERVES, control_socket=True)
        await self._serve_unix(snapshot.settings.state_dir / SOCKET, control, CONTROL_MODE)

    async def stop(self) -> None:
        """Close the listeners; requests under way get a few seconds, and who waits for events is answered now."""
        self._parts.events.close()
        for server in self._servers:
            server.close()
        await asyncio.gather(*(runner.cleanup() for runner in self._runners))
        await self._tasks.cancel()
        for connections in (self._public, self._local):
            connections.abort()
        for path, inode in self._paths:
            with contextlib.suppress(OSError):
                if path.stat().st_ino == inode:
                    path.unlink()

    def _is_trusted(self, address: str) -> bool:
        return is_trusted(address, self._parts.live.snapshot.settings.limits.trusted_addresses)

    async def _listen(self, listen: Listen) -> None:
        endpoint = parse_endpoint(listen.address)
        handler = await self._new_handler(frozenset(listen.serve))
        if endpoint.path is not None:
            await self._serve_unix(endpoint.path, handler, SOCKET_MODE)
            return
        context: Callable[[], ssl.SSLContext] | None = None
        if listen.tls == "required":
            if self._certificate is None:
                raise ConfigError(self._parts.live.snapshot.path, "listen", f"https {listen.address} without [tls]")
            context = self._certificate.context
        try:
            sockets = await bind(endpoint.host, endpoint.port)
        except OSError as error:
            raise OSError(error.errno, f"http {listen.address}: {error.strerror or error}") from None
        for sock in sockets:
            server = await asyncio.get_running_loop().create_server(
                partial(Connection, self._public, handler, context), sock=sock, backlog=BACKLOG
            )
            self._servers.append(server)
            self.addresses.append(("http", spell(sock)))

    async def _serve_unix(self, path: Path, handler: Callable[[], web.RequestHandler], mode: int) -> None:
        try:
            sock, inode = bind_unix(path, mode)
        except OSError as error:
            raise OSError(error.errno, f"{path}: {error.strerror or error}") from None
        self._paths.append((path, inode))
        server = await asyncio.get_running_loop().create_unix_server(
            partial(Connection, self._local, handler), sock=sock, backlog=BACKLOG
        )
        self._servers.append(server)
        self.addresses.append(("http", f"unix:{path}"))

    async def _new_handler(
        self, serve: frozenset[str], *, control_socket: bool = False
    ) -> Callable[[], web.RequestHandler]:
        """Return what makes aiohttp's side of one connection."""
        app = make_app(
            self._parts, serve, control_socket=control_socket, public=self._answer_world, pages=self._pages
        )
        runner = web.AppRunner(app, shutdown_timeout=STOP_S, handle_signals=False)
        await runner.setup()
        self._runners.append(runner)
        server = runner.server
        if server is None:
            raise RuntimeError("aiohttp made no server")
        return partial(new_handler, server)


def new_handler(server: web.Server) -> web.RequestHandler:
    """Return aiohttp's side of one connection."""
    return Handler(
        server,
        loop=asyncio.get_running_loop(),
        keepalive_timeout=KEEP_ALIVE_S,
        access_log=None,  # type: ignore[arg-type]  # aiohttp's own way to say none
        auto_decompress=False,  # a small gzip body could cost hundreds of megabytes
    )
