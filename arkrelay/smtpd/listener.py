"""The sockets of all SMTP doors: bound at start, drained at the end."""

import asyncio
import contextlib
import resource
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from arkrelay.base.metrics import Metrics
from arkrelay.base.sockets import bind, bind_unix, spell
from arkrelay.base.tasks import Tasks
from arkrelay.config.addresses import parse_endpoint
from arkrelay.config.live import Live
from arkrelay.model.errors import ConfigError
from arkrelay.model.settings import Listen
from arkrelay.relay.inbound import Inbound
from arkrelay.relay.rates import RateLimits
from arkrelay.relay.submit import Submitter
from arkrelay.smtpd.bounces import BouncesSession
from arkrelay.smtpd.connection import CLOSE_S, Connection
from arkrelay.smtpd.session import SubmissionSession
from arkrelay.smtpd.shared import Shared
from arkrelay.wire.tls import ServerCertificate

log = structlog.get_logger()

SESSIONS: Final[Mapping[str, type[Connection]]] = {
    "submission": SubmissionSession,
    "submissions": SubmissionSession,
    "bounces": BouncesSession,
}
BACKLOG: Final = 256  # asyncio accepts up to so many in one turn of the loop
SEND_BUFFER_BYTES: Final = 65_536  # replies are short; a client that never reads would be given 4 MB of kernel memory
SOCKET_MODE: Final = 0o660
WILDCARDS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 -- compared with, not bound to
MANY_DESCRIPTORS: Final = 65_536  # where the system sets no limit


class Doors:
    """Every SMTP listener of the configuration, and the connections that came in through them."""

    def __init__(
        self,
        live: Live,
        submitter: Submitter,
        inbound: Inbound,
        certificate: ServerCertificate | None,
        metrics: Metrics | None = None,
        rates: RateLimits | None = None,
    ) -> None:
        # Half of our descriptors stay for delivery, the database and REST, whoever knocks here.
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = MANY_DESCRIPTORS if descriptors == resource.RLIM_INFINITY else descriptors
        self._shared = Shared(
            live, submitter, inbound, certificate, metrics, max(16, most // 2), rates or RateLimits()
        )
        self._servers: list[asyncio.Server] = []
        self._unix_paths: list[tuple[Path, int]] = []  # with their inode: another process may have replaced it
        self._bound: list[tuple[Listen, str]] = []

    @property
    def addresses(self) -> list[tuple[str, str]]:
        """The service and bound address of each socket; a port 0 of the configuration is the real one here."""
        return [(listen.service, address) for listen, address in self._bound]

    @property
    def bound(self) -> list[tuple[Listen, str]]:
        """The listener and bound address of each socket."""
        return list(self._bound)

    @property
    def sessions(self) -> int:
        """How many connections are open."""
        return len(self._shared.sessions)

    @property
    def commits(self) -> Tasks:
        """Messages on their way to the disk; some have lost their client."""
        return self._shared.commits

    async def start(self, inherited: Mapping[str, socket.socket] | None = None) -> None:
        """Bind and listen, or raise ``ConfigError`` naming the address, with nothing left bound.

        ``inherited`` are sockets of systemd by name; see ``pair``. One that no listener wants is closed, and said so.
        """
        snapshot = self._shared.live.snapshot
        listeners = [listen for listen in snapshot.listeners if listen.service in SESSIONS]
        given, unused = pair(listeners, inherited or {})
        for name, sock in unused.items():
            log.warning("inherited_socket_unused", name=name, address=spell(sock), advice="add its [[listen]]")
            sock.close()
        try:
            for index, listen in enumerate(listeners):
                passed = given.get(index)
                if passed is None and any(_covers(sock, listen) for sock in given.values()):
                    continue  # the IPv6 socket of the same port takes IPv4 clients too
                try:
                    sockets = [passed] if passed is not None else await self._bind(listen)
                except (OSError, ValueError) as exc:
                    raise ConfigError(snapshot.path, "listen", f"cannot listen on {listen.address}: {exc}") from exc
                for sock in sockets:
                    await self._serve(listen, sock)
        except BaseException:
            self._close_servers()
            raise

    async def drain(self, timeout_s: float) -> None:
        """Stop accepting, let transactions finish for ``timeout_s``, then drop what is left.

        Idle clients hear 421. On return no connection is open; messages that were being committed have been,
        unless even that took longer than ``timeout_s``.
        """
        self._shared.stopping = True
        self._close_servers()
        for session in list(self._shared.sessions):
            session.stop()
        loop = asyncio.get_running_loop()
        end_at = loop.time() + timeout_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(end_at):
                await self._shared.emptied()
        await self._shared.commits.wait(max(0.0, end_at - loop.time()))
        for session in list(self._shared.sessions):
            session.abort()
        with contextlib.suppress(TimeoutError):  # an abort is a matter of one turn of the loop
            async with asyncio.timeout(CLOSE_S):
                await self._shared.emptied()

    async def _bind(self, listen: Listen) -> list[socket.socket]:
        endpoint = parse_endpoint(listen.address)
        if endpoint.path is not None:
            sock, inode = bind_unix(endpoint.path, SOCKET_MODE)
            self._unix_paths.append((endpoint.path, inode))
            return [sock]
        return await bind(endpoint.host, endpoint.port)

    async def _serve(self, listen: Listen, sock: socket.socket) -> None:
        sock.setblocking(False)  # noqa: FBT003 -- the socket module's own signature
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)  # accepted sockets inherit it
        loop, shared, kind = asyncio.get_running_loop(), self._shared, SESSIONS[listen.service]

        def connection() -> Connection:
            return kind(listen, shared)

        if sock.family == socket.AF_UNIX:
            server = await loop.create_unix_server(connection, sock=sock, backlog=BACKLOG)
        else:
            server = await loop.create_server(connection, sock=sock, backlog=BACKLOG)
        bound = spell(sock)
        self._servers.append(server)
        self._bound.append((listen, bound))
        log.info("listening", service=listen.service, address=bound)

    def _close_servers(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()
        for path, inode in self._unix_paths:
            with contextlib.suppress(OSError):
                if path.stat().st_ino == inode:
                    path.unlink()
        self._unix_paths.clear()


def pair(
    listeners: Sequence[Listen], inherited: Mapping[str, socket.socket]
) -> tuple[dict[int, socket.socket], dict[str, socket.socket]]:
    """Return which listener, by its place, each socket serves, and the sockets that serve none.

    A socket serves the listener with the address that it is bound to. What is left goes by name, the listener's
    service; but never a socket that others can reach to a listener on a loopback address or a unix socket, because
    such a one may do without TLS and password.
    """
    left = dict(inherited)
    pairs: dict[int, socket.socket] = {}
    for fits in (_is_bound_there, _is_named_so):
        for index, listen in enumerate(listeners):
            name = next(
                (name for name, sock in left.items() if index not in pairs and fits(listen, name, sock)), None
            )
            if name is not None:
                pairs[index] = left.pop(name)
    return pairs, left


def _is_bound_there(listen: Listen, name: str, sock: socket.socket) -> bool:
    wanted, bound = parse_endpoint(listen.address), parse_endpoint(spell(sock))
    return (
        listen.address == name
        or wanted == bound
        or (wanted.port == bound.port and {wanted.host, bound.host} <= WILDCARDS)
    )


def _is_named_so(listen: Listen, name: str, sock: socket.socket) -> bool:
    if name != listen.service:
        return False
    return not parse_endpoint(listen.address).local or parse_endpoint(spell(sock)).local


def _covers(sock: socket.socket, listen: Listen) -> bool:
    bound, wanted = parse_endpoint(spell(sock)), parse_endpoint(listen.address)
    both = sock.family == socket.AF_INET6 and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return both and bound.port == wanted.port and {bound.host, wanted.host} <= WILDCARDS
