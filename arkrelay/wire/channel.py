"""One TCP connection to a peer: octets in as replies, octets out, one timer, and one end."""

import asyncio
import fcntl
import math
import ssl
import struct
import termios
from dataclasses import dataclass
from typing import Protocol, cast

from arkrelay.model.peertls import TlsResult
from arkrelay.model.reply import FailureKind
from arkrelay.wire.replies import Heard, ReplyParser

TLS_GOODBYE_S = 2.0  # how long a closed TLS connection may wait for the peer's close_notify
TICK_S = 60.0  # the timer looks at the deadline at least this often while there is one
# what OpenSSL's verification says (x509_vfy.h), in the words of RFC 8460 §4.3
_EXPIRED = frozenset({9, 10})  # not yet valid, has expired
_MISMATCH = frozenset({62, 64})  # host name, IP address
_UNTRUSTED = frozenset({2, 18, 19, 20, 21, 27})  # no issuer, self-signed (alone or in the chain), not trusted


@dataclass(frozen=True, slots=True)
class Insecure:
    """Why there is no TLS: in words, and in those of a report."""

    detail: str
    result: TlsResult = TlsResult.VALIDATION_FAILURE


class Owner(Protocol):
    """Who is talking: the set-up dialogue first, the session afterwards."""

    def heard(self, replies: list[Heard]) -> None:
        """Take what one segment brought; ``channel.parser`` says whether more is there, or rubbish."""

    def lost(self, kind: FailureKind, detail: str) -> None:
        """Know that the connection ended; called once, and nothing is called after it."""

    def writable(self) -> None:
        """Go on writing: the peer has read."""


class Channel(asyncio.Protocol):
    """The transport, its deadline and its end.

    A deadline costs one attribute: a single timer is kept per channel, which looks at the deadline when it fires
    and sets itself again. RFC 5321 §4.5.3.2.5 bounds a block of data, not the message: while a big content is on
    its way, a peer that is slow but has read something since the deadline was set gets the same time again.
    """

    __slots__ = (
        "_deadline",
        "_early",
        "_loop",
        "_timeout_s",
        "_timer",
        "_unsent",
        "closed",
        "ended",
        "owner",
        "parser",
        "paused",
        "source",
        "transport",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.parser = ReplyParser()
        self.owner: Owner | None = None
        self._early: list[bytes] = []  # came before anybody listened: a greeting may be quicker than we are
        self.transport: asyncio.Transport | None = None
        self.paused = False  # the transport's buffer is full
        self.source: str | None = None  # our own address on this connection
        self.ended: tuple[FailureKind, str] | None = None
        self.closed = loop.create_future()  # done when the transport has let go of the socket
        self._deadline = math.inf
        self._timeout_s = math.inf
        self._unsent = 0
        self._timer: asyncio.TimerHandle | None = None

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, and which of our addresses it is from."""
        self.transport = cast("asyncio.Transport", transport)
        own = transport.get_extra_info("sockname")
        if own is not None:
            self.source = str(own[0])

    def data_received(self, data: bytes) -> None:
        """Hand on the replies that ``data`` completes."""
        if self.owner is None:
            if self.ended is None:
                self._early.append(data)
        elif self.ended is None:
            self.owner.heard(self.parser.feed(data))

    def connection_lost(self, exc: Exception | None) -> None:
        """End; the peer closed, or we did and this is the echo."""
        if not self.closed.done():
            self.closed.set_result(None)
        if isinstance(exc, ssl.SSLError):
            self.end(FailureKind.CLOSED, f"TLS broke down: {reason_of(exc)}")
        else:
            how = "the peer reset the connection" if isinstance(exc, ConnectionResetError) else "the peer closed"
            self.end(FailureKind.CLOSED, how)

    def pause_writing(self) -> None:
        """Remember that the peer does not keep up."""
        self.paused = True

    def resume_writing(self) -> None:
        """Let the owner write on."""
        self.paused = False
        if self.ended is None and self.owner is not None:
            self.owner.writable()

    # what the owner calls

    def write(self, data: bytes | memoryview) -> None:
        """Send ``data``, now or when the peer reads."""
        if self.transport is not None:
            self.transport.write(data)

    def listen(self) -> None:
        """Hand the owner what came before there was one."""
        early, self._early = self._early, []
        for data in early:
            self.data_received(data)

    def end(self, kind: FailureKind, detail: str) -> None:
        """Close at once and tell the owner, the first time that it is called."""
        if self.ended is not None:
            return
        self.ended = kind, detail
        self.disarm()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.transport is not None:
            self.transport.abort()  # close() would wait for a peer that does not read
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.lost(kind, detail)

    def arm(self, timeout_s: float, *, while_reading: bool = False) -> None:
        """End with TIMEOUT in ``timeout_s`` unless armed again or disarmed.

        ``while_reading``: a peer that has read something by then gets the same time again.
        """
        now = self._loop.time()
        self._timeout_s = timeout_s
        self._deadline = now + timeout_s
        self._unsent = self._queued() if while_reading else 0
        if self._timer is None or self._timer.when() > self._deadline:
            self._start(now)

    def disarm(self) -> None:
        """Let the connection be idle; nobody is waiting."""
        self._deadline = math.inf

    async def secure(self, context: ssl.SSLContext, hostname: str | None, timeout_s: float) -> Insecure | None:
        """Do the TLS handshake; return what went wrong, or None."""
        if self.transport is None or self.ended is not None:
            return Insecure("the connection is gone")
        self.disarm()
        try:
            async with asyncio.timeout(timeout_s + TLS_GOODBYE_S):  # a second guard behind asyncio's own
                transport = await self._loop.start_tls(
                    self.transport,
                    self,
                    context,
                    server_hostname=hostname,
                    ssl_handshake_timeout=timeout_s,
                    ssl_shutdown_timeout=TLS_GOODBYE_S,
                )
        except (OSError, ValueError) as error:  # SSLError and TimeoutError are OSErrors; ValueError: a bad host name
            return Insecure(f"TLS handshake: {reason_of(error)}", result_of(error))
        if transport is None or transport.is_closing() or self.ended is not None:
            return Insecure("TLS handshake: the peer closed")
        self.transport = transport
        return None

    # the timer

    def _queued(self) -> int:
        """Return how many octets the peer has not yet acknowledged, in our buffer and in the kernel's."""
        if self.transport is None:
            return 0
        try:
            sock = self.transport.get_extra_info("socket")
            (in_kernel,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))
        except (OSError, ValueError):  # the socket is closed already; its end is about to be told
            return 0
        return int(in_kernel) + self.transport.get_write_buffer_size()

    def _start(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(min(self._deadline, now + TICK_S), self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self.ended is not None or self._deadline == math.inf:
            return
        now = self._loop.time()
        if now < self._deadline:
            self._start(now)
        elif self._unsent and self._queued() < self._unsent:
            self.arm(self._timeout_s, while_reading=True)
        else:
            self.end(FailureKind.TIMEOUT, f"nothing within {self._timeout_s:g} s")


def result_of(error: BaseException) -> TlsResult:
    """Return what a failed handshake is in a report (RFC 8460 §4.3.1)."""
    code = error.verify_code if isinstance(error, ssl.SSLCertVerificationError) else 0
    if code in _EXPIRED:
        return TlsResult.EXPIRED
    if code in _MISMATCH:
        return TlsResult.HOST_MISMATCH
    return TlsResult.NOT_TRUSTED if code in _UNTRUSTED else TlsResult.VALIDATION_FAILURE


def reason_of(error: BaseException) -> str:
    """Return an error of TLS or of a socket in the words of the library, without its numbers."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
