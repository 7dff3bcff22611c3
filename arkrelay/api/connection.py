"""What an HTTP client may do to a connection: how many it may hold, and how long it may be slow.

aiohttp answers requests; it has no deadline for their heads, none for a client that does not read, and no limit
of connections. So each connection is a ``Connection`` with aiohttp's handler inside. It does the TLS handshake
itself, because a connection in its handshake counts too. Time is counted in turns of ``Connections.watch``, one a
second: a moment in which our own loop was busy counts as one, and is not held against the client.
"""

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import structlog
from aiohttp import web
from aiohttp.web_request import BaseRequest

from arkrelay.api.errors import error_response, internal_error, new_request_id
from arkrelay.api.refusal import ApiError
from arkrelay.base.sockets import pass_on
from arkrelay.base.tasks import spawn
from arkrelay.policy.limits import network_of

log = structlog.get_logger()

ADDRESS_SHARE = 2  # one address that is not trusted may hold half of all connections
TOLD_S = 60.0  # a flood is told once a minute


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How slow a client may be, in seconds and bytes per second."""

    handshake_s: float = 10.0
    head_s: float = 10.0  # from its first byte, or from the connection, to the end of a request's head
    read_s: float = 60.0  # a client must have read an answer within this, and longer for a long one:
    read_rate: float = 10_000.0
    shutdown_s: float = 30.0  # for TLS's own goodbye
    turn_s: float = 1.0


class Connections:
    """All open HTTP connections of one kind of listener, and the watch over them."""

    def __init__(self, most: int, deadlines: Deadlines, trusted: Callable[[str], bool]) -> None:
        self.deadlines = deadlines
        self.now = 0.0  # seconds of watching
        self._most = most
        self._trusted = trusted
        self._open: dict[Connection, str] = {}
        self._of_address: Counter[str] = Counter()
        self._told_at = float("-inf")

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: "Connection", address: str) -> bool:
        """Count the connection and return True, or return False when there are too many."""
        key = network_of(address)
        crowded = len(self._open) >= self._most
        greedy = self._of_address[key] * ADDRESS_SHARE >= self._most and bool(address) and not self._trusted(address)
        if crowded or greedy:
            if time.monotonic() - self._told_at > TOLD_S:
                self._told_at = time.monotonic()
                log.warning("too_many_connections", service="http", client=address, open=len(self._open))
            return False
        self._open[connection] = key
        self._of_address[key] += 1
        return True

    def forget(self, connection: "Connection") -> None:
        """Take one back that ``admit`` counted; others are ignored."""
        key = self._open.pop(connection, None)
        if key is None:
            return
        self._of_address[key] -= 1
        if not self._of_address[key]:
            del self._of_address[key]

    async def watch(self) -> None:
        """Cut connections that are too slow, until cancelled."""
        while True:
            await asyncio.sleep(self.deadlines.turn_s)
            self.turn()

    def turn(self) -> None:
        """Count one turn of the watch, and cut who is too slow."""
        self.now += self.deadlines.turn_s
        for connection in list(self._open):
            connection.check(self.now)

    def abort(self) -> None:
        """Cut all that are left."""
        for connection in list(self._open):
            connection.abort()


class Connection(asyncio.Protocol):
    """One connection, from accept to its end; aiohttp's handler sees it once it is set up."""

    def __init__(
        self,
        connections: Connections,
        handler: Callable[[], web.RequestHandler],
        context: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self._all = connections
        self._make_handler = handler
        self._context = context
        self._handler: web.RequestHandler | None = None
        self._raw: asyncio.Transport | None = None
        self._early: list[bytes] = []  # came between the handshake and its task
        self._head_since: float | None = connections.now
        self._busy = False  # a route has the request
        self._unread_until: float | None = None  # the client must have read what we wrote

    # -- asyncio's side --------------------------------------------------------------------------------------------

    def connection_made(self, made: asyncio.BaseTransport) -> None:
        """Count the connection, begin TLS where it is wanted, and hand over to aiohttp."""
        transport = cast("asyncio.Transport", made)  # a server makes no other; uvloop's have their own base
        self._raw = transport
        if not self._all.admit(self, _address(transport)):
            transport.abort()
        elif self._context is None:
            self._begin(transport)
        else:
            transport.pause_reading()
            spawn("https handshake", self._shake_hands(transport, self._context()))

    def data_received(self, data: bytes) -> None:
        """Give it to aiohttp; the first byte after a request begins the next head."""
        if self._handler is None:
            self._early.append(data)
            return
        if self._head_since is None and not self._busy:
            self._head_since = self._all.now
        self._handler.data_received(data)

    def eof_received(self) -> None:
        """Give it to aiohttp, and let the transport close."""
        if self._handler is not None:
            self._handler.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it out."""
        self._all.forget(self)
        if self._handler is not None:
            self._handler.connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads slower than we write: its time runs."""
        self._expect_reading()
        if self._handler is not None:
            self._handler.pause_writing()

    def resume_writing(self) -> None:
        """The client has read."""
        self._unread_until = None
        if self._handler is not None:
            self._handler.resume_writing()

    # -- the route's side ------------------------------------------------------------------------------------------

    def began(self) -> None:
        """The head of a request is complete, and a route has it."""
        self._busy = True
        self._head_since = None

    def ended(self) -> None:
        """The route has answered."""
        self._busy = False

    # -- the watch's side ------------------------------------------------------------------------------------------

    def check(self, now: float) -> None:
        """Cut the connection when its client is too slow."""
        if self._raw is None:
            return
        if self._unread_until is None and self._raw.is_closing():
            self._expect_reading()
        if self._unread_until is not None:
            if now > self._unread_until:
                self.abort()
            return
        since, deadlines = self._head_since, self._all.deadlines
        if since is not None and self._handler is not None and now - since > deadlines.head_s:
            log.debug("http_head_too_slow", client=_address(self._raw))
            self.abort()

    def abort(self) -> None:
        """Cut the connection, whatever is still to be written."""
        if self._raw is not None:
            self._raw.abort()

    def _expect_reading(self) -> None:
        deadlines = self._all.deadlines
        size = 0 if self._raw is None else self._raw.get_write_buffer_size()
        self._unread_until = self._all.now + deadlines.read_s + size / deadlines.read_rate

    def _begin(self, transport: asyncio.Transport) -> None:
        self._head_since = self._all.now
        self._handler = self._make_handler()
        self._handler.connection_made(transport)
        early, self._early = self._early, []
        for data in early:
            self._handler.data_received(data)

    async def _shake_hands(self, raw: asyncio.Transport, context: ssl.SSLContext) -> None:
        deadlines = self._all.deadlines
        loop = asyncio.get_running_loop()
        if early := b"".join(self._early):
            # uvloop reads before our first turn, paused or not. What came is the start of the handshake.
            self._early.clear()
            loop.call_soon(loop.call_soon, pass_on, raw, early)  # after start_tls has connected the two
        transport = None
        try:
            transport = await loop.start_tls(
                raw,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=deadlines.handshake_s,
                ssl_shutdown_timeout=deadlines.shutdown_s,
            )
        except OSError as error:  # ssl.SSLError is one, and so is the timeout
            log.debug("tls_failed", client=_address(raw), error=str(error))
        if transport is None or raw.is_closing():  # lost in the handshake: asyncio tells nobody
            raw.abort()
            self._all.forget(self)
            return
        self._begin(transport)


class Handler(web.RequestHandler):
    """aiohttp's, with our words for what never reaches a route: a head that is not HTTP."""

    __slots__ = ()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 -- it quotes the head, where keys are
    ) -> web.StreamResponse:
        """Return the answer in the contract's form, and close the connection."""
        request_id = new_request_id()
        if status >= 500:
            log.error("request_crashed", request_id=request_id, exc_info=exc)
            error = internal_error()
        else:
            log.debug("request_malformed", request_id=request_id, kind=type(exc).__name__)
            error = ApiError(status, "validation_error", "This is not a well-formed HTTP request.")
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun already")
        response = error_response(error, request_id)
        response.force_close()
        return response


def connection_of(request: web.Request) -> Connection | None:
    """Return the connection of a request; None once the client has gone."""
    protocol = request.transport.get_protocol() if request.transport is not None else None
    return protocol if isinstance(protocol, Connection) else None


def _address(transport: asyncio.Transport) -> str:
    """Return the client's address, empty on a unix socket."""
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""
