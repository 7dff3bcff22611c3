"""One TCP or unix connection to a door: its life, its deadlines, its replies, its TLS.

Every trick with bytes and time is dealt with here, once for all doors. A client that floods is paused, one that
drips or sits idle meets a deadline, one that never reads is aborted, and whatever happens within a session the
connection is closed and counted out.
"""

import asyncio
import select
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any, Final, cast

import structlog
from aiosmtpd.smtp import SMTP

from arkrelay.base.sockets import pass_on
from arkrelay.model.settings import Listen
from arkrelay.smtpd.input import Input
from arkrelay.smtpd.limiter import plain_address
from arkrelay.smtpd.reply import Answer
from arkrelay.smtpd.shared import Shared

log = structlog.get_logger()

HANDSHAKE_S: Final = 30.0
CLOSE_S: Final = 5.0  # an orderly close that takes longer is aborted
LINGER_S: Final = 2.0  # for a refused client to read why, before what it still sends resets the connection
LINGER_BYTES: Final = 1024 * 1024
LOOK_AGAIN_S: Final = 60.0  # the timer while there is no deadline


class HangUp(Exception):
    """The conversation is over; what there was to say has been said."""


class _NoHooks:
    """The handler that aiosmtpd wants: it hooks into nothing, and has nothing to inspect."""

    __slots__ = ()

    def __dir__(self) -> list[str]:
        return []


_NO_HOOKS: Final = _NoHooks()


class Connection(SMTP):
    """One connection; ``converse`` is what is said over it."""

    _verbs: tuple[str, ...] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._verbs = tuple(name for name in dir(cls) if name.startswith("smtp_"))

    def __dir__(self) -> tuple[str, ...]:
        # aiosmtpd walks dir() of each new connection to find its verbs, which would be a third of the cost of a
        # short session; these names are all that it looks for.
        return self._verbs

    def __init__(self, listen: Listen, shared: Shared) -> None:
        self.listen, self.shared = listen, shared
        self.snapshot = shared.live.snapshot
        self.input = Input()
        self.client = ""  # address, or "unix:UID"
        self.address = ""  # address that limits count, "" for a unix socket
        self.tls = False
        self._admitted = False
        self._handshaking = False
        self._linger = False
        self.out: list[bytes] = []  # replies for the next write
        self._blocked: asyncio.Future[None] | None = None  # the client does not read
        self._deadline: float | None = None
        loop = asyncio.get_running_loop()
        super().__init__(_NO_HOOKS, hostname=self.snapshot.settings.hostname, ident="ESMTP arkrelay", loop=loop)

    async def converse(self) -> None:
        """Talk until ``HangUp``."""
        raise NotImplementedError

    def _set_rset_state(self) -> None:
        """Drop the transaction; aiosmtpd calls this for a new connection."""

    def forget(self) -> None:
        """Drop what the client said about itself and its mail (RFC 3207 §4.2)."""

    # The connection.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        self._identify(transport)
        reason = self._refusal()
        if reason is not None:
            if self.shared.limiter.worth_telling(self.address, self.loop.time()):
                log.info("connection_refused", client=self.client, reason=reason)
            if self.listen.service != "submissions":
                transport.write(Answer(421, "4.7.0", f"Refused: {reason}, try again later").render())
            transport.close()
            return
        self._admitted = True
        self.shared.sessions.add(self)
        self.input.attach(transport)
        super().connection_made(transport)
        log.debug("session_opened", client=self.client, service=self.listen.service)

    def connection_lost(self, error: Exception | None) -> None:
        if self._admitted:
            self._end()
            super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        if self._admitted:
            self.input.feed(data)

    def eof_received(self) -> bool:
        """Half of the connection is closed. What came before is still worked off and answered.

        asyncio cannot write to a TLS connection after its end; there it closes.
        """
        self.input.feed_eof()
        return self._admitted and not self.tls

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._blocked is None:
            self._blocked = self.loop.create_future()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._blocked is not None:
            if not self._blocked.done():
                self._blocked.set_result(None)
            self._blocked = None

    def stop(self) -> None:
        """Ask the conversation to end when no transaction is under way; it says 421."""
        self.input.wake()

    def abort(self) -> None:
        """Drop the connection at once, with whatever was not sent."""
        if self.transport is not None:
            self.live_transport().abort()

    def _identify(self, transport: asyncio.Transport) -> None:
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.address = self.client = plain_address(peer[0])
            return
        sock = transport.get_extra_info("socket")
        self.client = f"unix:{peer_uid(sock)}"

    def _refusal(self) -> str | None:
        if self.shared.stopping:
            return "stopping"
        if len(self.shared.sessions) >= self.shared.max_sessions:
            return "too many connections"
        return self.shared.limiter.connect(self.address, self.snapshot.settings.limits, self.loop.time())

    def _end(self) -> None:
        """Take the connection out of all counts; a second call changes nothing."""
        if self in self.shared.sessions:
            self.shared.leave(self)
            self.shared.limiter.disconnect(self.address)
            if self._timeout_handle is not None:
                self._timeout_handle.cancel()
            log.debug("session_closed", client=self.client)

    def live_transport(self) -> asyncio.Transport:
        """Return the transport, which is TLS once that is on; ``HangUp`` when the connection is lost."""
        if self.transport is None:
            raise HangUp
        return cast("asyncio.Transport", self.transport)

    # Deadlines. One timer serves the whole connection: it is not moved, it looks when it fires.

    def _reset_timeout(self, duration: float | None = None) -> None:
        if duration is None:
            duration = self.snapshot.settings.smtp.idle_timeout_s
        self._deadline = self.loop.time() + duration if duration else None
        if self._timeout_handle is None:
            self._timeout_handle = self.loop.call_later(duration or LOOK_AGAIN_S, self._timeout_cb)

    def set_deadline(self, at: float | None) -> None:
        """Drop the client at this time of the loop unless it is moved again; None: wait for ever."""
        self._deadline = at

    def _timeout_cb(self) -> None:
        now = self.loop.time()
        if self._deadline is None or self._deadline > now:
            wait_s = min(self.snapshot.settings.smtp.idle_timeout_s or LOOK_AGAIN_S, LOOK_AGAIN_S)
            self._timeout_handle = self.loop.call_at(
                self._deadline if self._deadline is not None else now + wait_s, self._timeout_cb
            )
            return
        if self.transport is None:
            return
        transport = self.live_transport()
        log.debug("session_timeout", client=self.client)
        if transport.get_write_buffer_size() or self._handshaking:
            transport.abort()  # close() would wait for a client that does not read
            return
        transport.write(b"421 4.4.2 Timeout, closing connection\r\n")
        self._close(transport)

    def _close(self, transport: asyncio.Transport) -> None:
        if not transport.is_closing():  # closed twice, a TLS transport of Python 3.11.2 can no longer be aborted
            transport.close()
        if self._timeout_handle is not None:
            self._timeout_handle.cancel()
        self._timeout_handle = self.loop.call_later(CLOSE_S, transport.abort)

    # Replies.

    def write(self, line: bytes) -> None:
        """Send these bytes before the next wait for the client."""
        self.out.append(line)

    def reply(self, code: int, enhanced: str, text: str) -> None:
        """Answer the command."""
        self.out.append(Answer(code, enhanced, text).render())

    def refuse(self, code: int, enhanced: str, text: str) -> None:
        """Answer the command with a refusal; 421 is the last word (RFC 5321 §3.8)."""
        self.reply(code, enhanced, text)
        if code == 421:
            raise HangUp

    def bye(self, code: int, enhanced: str, text: str) -> None:
        """Answer, and end the conversation; what the client still sends is thrown away."""
        self.reply(code, enhanced, text)
        self._linger = True
        raise HangUp

    async def flush(self) -> None:
        """Hand all replies to the transport, and wait while the client does not read them."""
        transport = self.live_transport()
        if transport.is_closing():
            raise HangUp
        if self.out:
            transport.write(b"".join(self.out))
            self.out.clear()
        if self._blocked is not None:
            await self._blocked

    async def push(self, status: str | bytes) -> None:
        """Send one line; what is left of aiosmtpd's own code answers through this."""
        self.out.append((status if isinstance(status, bytes) else status.encode("ascii", "replace")) + b"\r\n")
        await self.flush()

    # From the first byte to the last.

    async def _handle_client(self) -> None:
        try:
            if self.listen.service == "submissions":
                await self.start_tls_over(self.tls_context_now())
            await self.converse()
        except HangUp:
            await self._last_words()
        except Exception:
            log.exception("session_crashed", client=self.client)
        finally:
            if self._handshaking:
                self._end()  # asyncio tells nobody of a connection that is lost within the handshake
            if self.transport is not None:
                self._close(self.live_transport())

    async def _last_words(self) -> None:
        """Send what is left to say, and give a client that still sends the time to read it."""
        if self.transport is None or self.transport.is_closing():
            return
        transport = self.live_transport()
        if self.out:
            transport.write(b"".join(self.out))
            self.out.clear()
        if not self._linger or not transport.can_write_eof():
            return  # close() lets the transport write what it has, for CLOSE_S
        transport.write_eof()
        self.input.discard(LINGER_BYTES)
        try:
            async with asyncio.timeout(LINGER_S):
                while not self.input.eof:
                    await self.input.more()
        except TimeoutError:
            transport.abort()

    def tls_context_now(self) -> ssl.SSLContext | None:
        """Return the server context, or None where TLS is not offered."""
        if self.shared.certificate is None or (self.listen.tls == "none" and self.listen.service != "submissions"):
            return None
        return self.shared.certificate.context()

    async def start_tls_over(self, context: ssl.SSLContext | None) -> None:
        if context is None:
            raise HangUp
        raw = self.live_transport()
        self.input.attach(None)
        self._handshaking = True
        if early := self.input.take_all():
            # uvloop may read before our first turn; asyncio does not. What came is the start of the handshake.
            self.loop.call_soon(self.loop.call_soon, pass_on, raw, early)  # after start_tls has connected the two
        try:
            transport = await self.loop.start_tls(
                raw,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=CLOSE_S,
            )
        except OSError as exc:  # ssl.SSLError is one, and so is the timeout
            log.debug("tls_failed", client=self.client, error=str(exc))
            raise HangUp from exc
        if transport is None or raw.is_closing():  # lost in the handshake, of which asyncio says nothing
            raise HangUp
        self._handshaking = False
        self.transport = transport
        self.input.attach(transport)
        self.tls = True
        self.forget()


def peer_uid(sock: Any) -> str:
    """Return the user id of the process at the other end of a unix socket (SO_PEERCRED)."""
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except (OSError, AttributeError):
        return "?"
    return str(struct.unpack("3i", raw)[1])


def has_arrived(transport: asyncio.Transport) -> bool:
    """Return whether the client's bytes wait in the kernel; asyncio has not read any before our first pause."""
    fd: Callable[[], int] | None = getattr(transport.get_extra_info("socket"), "fileno", None)
    number = fd() if fd is not None else -1
    if number < 0:
        return False
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(0))
