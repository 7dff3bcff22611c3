"""From an address to a session: connect, greeting, EHLO, STARTTLS, AUTH.

Everything that a peer does on the way is returned, never raised: a ``Session`` to send on, the ``Reply`` with which
it turned us away, or a ``Failure``. Whether TLS may be given up is the caller's decision: any trouble with it ends
in ``Failure(TLS, STARTTLS)``, and ``Target.in_clear`` says whether a second connection without it is allowed.
"""

import asyncio
import base64
import binascii
import datetime as dt
import ipaddress
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import cast

from arkrelay.model.attempt import TlsInfo
from arkrelay.model.delivery import Timeouts
from arkrelay.model.peertls import Tlsa, TlsResult
from arkrelay.model.reply import Failure, FailureKind, Reply, Stage
from arkrelay.policy.dane import judge
from arkrelay.wire import saslclient
from arkrelay.wire.channel import Channel, reason_of
from arkrelay.wire.commands import Extensions, Prepared, parse_extensions, prepare
from arkrelay.wire.exchange import Transaction
from arkrelay.wire.replies import Heard, to_reply
from arkrelay.wire.session import Session
from arkrelay.wire.tls import chain_of, opportunistic, tls_info, verifying
from arkrelay.wire.transcript import Entry

__all__ = ["Extensions", "Prepared", "Session", "Target", "Transaction", "connect", "prepare"]

HIDDEN = b"***"  # what a transcript has in the place of a secret
LONGEST_COMMAND = 510  # octets without CRLF, RFC 5321 §4.5.3.1.4

_WHERE = {
    Stage.GREETING: "its greeting",
    Stage.EHLO: "the reply to EHLO",
    Stage.STARTTLS: "the reply to STARTTLS",
    Stage.AUTH: "the reply to AUTH",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to connect to, and on which terms."""

    host: str  # name of the MX or smarthost: for SNI, its certificate and people
    address: str  # the IP address to connect to
    port: int
    helo: str  # our own name
    tls: str = "optional"  # "none" | "optional" | "required"
    verify: bool = False  # the certificate must be valid for ``host``
    tlsa: tuple[Tlsa, ...] = ()  # or: one of these must describe its certificate
    tlsa_names: tuple[str, ...] = ()  # for records of usage 2
    requiretls: bool = False  # it must offer REQUIRETLS (RFC 8689), under TLS
    implicit_tls: bool = False  # TLS before the greeting (RFC 8314 §3.3)
    source_address: str | None = None
    username: str = ""  # empty: no AUTH
    secret: str = field(default="", repr=False)
    ca_file: str | None = None  # instead of the system's authorities

    def in_clear(self) -> "Target | None":
        """Return this target without TLS, or None where that would break a promise or show a password."""
        if self.tls != "optional" or self.verify or self.tlsa or self.implicit_tls:
            return None
        if self.username and not _is_loopback(self.address):
            return None
        return replace(self, tls="none")


class _Dialogue:
    """One question and one answer at a time."""

    def __init__(self, channel: Channel, said: list[Entry]) -> None:
        self._channel = channel
        self.said = said
        self.secrets: list[bytes] = []  # that a peer might repeat
        self._waiter: asyncio.Future[Heard | Failure] | None = None
        self._stage = Stage.GREETING
        channel.owner = self

    async def ask(
        self, line: bytes | None, stage: Stage, timeout_s: float, *, shown: bytes | None = None
    ) -> Heard | Failure:
        """Send ``line`` and return the reply to it; None: only listen. ``shown`` is said of it instead of itself."""
        self._stage = stage
        if self._channel.ended is not None:
            return self._failure(*self._channel.ended)
        self._waiter = asyncio.get_running_loop().create_future()
        if line is not None:
            self._channel.write(line + b"\r\n")
            self.said.append((time.perf_counter(), [(shown or line) + b"\r\n"]))
        self._channel.arm(timeout_s)  # the deadline is the channel's: it ends the wait, in ``lost``
        waiter = self._waiter
        self._channel.listen()
        return await waiter

    def heard(self, replies: list[Heard]) -> None:
        waiter, parser = self._waiter, self._channel.parser
        if parser.broken is not None:
            self._channel.end(FailureKind.PROTOCOL, parser.broken)
        elif waiter is None or len(replies) > 1 or (replies and parser.pending):
            self._channel.end(FailureKind.PROTOCOL, "the peer spoke before it was asked")
        elif replies:
            if self._stage is Stage.STARTTLS and self._channel.transport is not None:
                # Nothing that comes behind a 220 in clear text may be read as if it had come inside of TLS.
                self._channel.transport.pause_reading()
            self._channel.disarm()
            self._waiter = None
            reply = replies[0]
            shown = self._without_secrets(reply) if self.secrets else reply
            self.said.append((time.perf_counter(), shown))
            if not waiter.done():
                waiter.set_result(reply if reply.code == 334 else shown)  # a challenge is answered as it came

    def lost(self, kind: FailureKind, detail: str) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(self._failure(kind, detail))

    def _without_secrets(self, heard: Heard) -> Heard:
        """Return a reply without our own secrets, which a peer may repeat in its words about them."""
        lines = list(heard.lines)
        for secret in self.secrets:
            lines = [line.replace(secret, HIDDEN) for line in lines]
        return Heard(heard.code, tuple(lines))

    def writable(self) -> None:
        pass  # no command is long enough to fill the buffer

    def _failure(self, kind: FailureKind, detail: str) -> Failure:
        where = "" if kind is FailureKind.PROTOCOL else f" before {_WHERE[self._stage]}"
        return Failure(kind, self._stage, f"{detail}{where}")


async def connect(
    target: Target,
    timeouts: Timeouts,
    *,
    permit: Callable[[str], str | None] | None = None,
    said: list[Entry] | None = None,
) -> Session | Reply | Failure:
    """Return a session on which mail can be sent, or why there is none; then nothing is left open.

    ``permit`` gets the address before the connection and that of the connected socket after it, before any octet
    is sent; a reason that it returns ends the matter with ``FORBIDDEN``. What is said on the way is put behind what
    ``said`` has, which may be the walk over other hosts.
    """
    said = [] if said is None else said
    result = await _connect(target, timeouts, permit, said)
    if isinstance(result, Failure):
        said.append((time.perf_counter(), str(result)))
    return result


async def _connect(
    target: Target, timeouts: Timeouts, permit: Callable[[str], str | None] | None, said: list[Entry]
) -> Session | Reply | Failure:
    source = "" if target.source_address is None else f" from {target.source_address}"
    said.append((time.perf_counter(), f"connecting to {target.host}, {target.address} port {target.port}{source}"))
    if permit is not None and (reason := permit(target.address)) is not None:
        return Failure(FailureKind.FORBIDDEN, Stage.CONNECT, reason)
    loop = asyncio.get_running_loop()
    channel = Channel(loop)
    result: Session | Reply | Failure | None = None
    try:
        if (failure := await _open(loop, channel, target, timeouts.connect_s)) is not None:
            result = failure
            return result
        peer = cast("asyncio.Transport", channel.transport).get_extra_info("peername") or (
            target.address,
            target.port,
        )
        if permit is not None and (reason := permit(peer[0])) is not None:
            result = Failure(FailureKind.FORBIDDEN, Stage.CONNECT, reason)
            return result
        said.append((time.perf_counter(), "connected"))
        result = await _SetUp(channel, target, timeouts, said).run((peer[0], peer[1]))
        return result
    finally:
        if not isinstance(result, Session):  # also when we were cancelled
            if isinstance(result, Reply):
                channel.write(b"QUIT\r\n")
            channel.end(FailureKind.STOPPED, "we closed the connection")


async def _open(
    loop: asyncio.AbstractEventLoop, channel: Channel, target: Target, timeout_s: float
) -> Failure | None:
    source = None if target.source_address is None else (target.source_address, 0)
    try:
        async with asyncio.timeout(timeout_s):
            # asyncio sets TCP_NODELAY: a small group would otherwise wait for the peer's delayed ACK
            await loop.create_connection(lambda: channel, target.address, target.port, local_addr=source)
    except TimeoutError:
        return Failure(FailureKind.TIMEOUT, Stage.CONNECT, f"no connection within {timeout_s:g} s")
    except ConnectionRefusedError:
        return Failure(FailureKind.REFUSED, Stage.CONNECT, "connection refused")
    except ConnectionResetError:
        return Failure(FailureKind.CLOSED, Stage.CONNECT, "the peer reset the connection")
    except OSError as error:
        return Failure(FailureKind.UNREACHABLE, Stage.CONNECT, reason_of(error))
    return None


class _SetUp:
    """The steps from a connected socket to a session; the first one that fails ends it."""

    def __init__(self, channel: Channel, target: Target, timeouts: Timeouts, said: list[Entry]) -> None:
        self._channel, self._target, self._timeouts, self._said = channel, target, timeouts, said
        self._dialogue = _Dialogue(channel, said)
        self._tls: TlsInfo | None = None
        self._extensions = Extensions()

    async def run(self, peer: tuple[str, int]) -> Session | Reply | Failure:
        target = self._target
        steps = [self._greeting, self._hello, self._start_tls, self._promise, self._authenticate]
        if target.implicit_tls:
            steps = [self._secure, self._greeting, self._hello, self._promise, self._authenticate]
        for step in steps:
            if (end := await step()) is not None:
                return end
        return Session(self._channel, target.host, peer, self._tls, self._extensions, self._timeouts)

    async def _greeting(self) -> Reply | Failure | None:
        heard = await self._dialogue.ask(None, Stage.GREETING, self._timeouts.greeting_s)
        return _unless_ok(heard, Stage.GREETING)

    async def _hello(self) -> Reply | Failure | None:
        """EHLO, and HELO for a peer that does not know it (RFC 5321 §3.2)."""
        helo = self._target.helo.encode("ascii", "replace")
        heard = await self._dialogue.ask(b"EHLO " + helo, Stage.EHLO, self._timeouts.command_s)
        if isinstance(heard, Heard) and heard.code >= 500:
            heard = await self._dialogue.ask(b"HELO " + helo, Stage.EHLO, self._timeouts.command_s)
            self._extensions = Extensions()
        elif isinstance(heard, Heard):
            self._extensions = parse_extensions(heard.lines)
        return _unless_ok(heard, Stage.EHLO)

    async def _start_tls(self) -> Reply | Failure | None:
        if self._target.tls == "none":
            return None
        if not self._extensions.starttls:
            if self._target.tls != "required":
                return None
            return _tls_failure("the peer does not offer STARTTLS", TlsResult.STARTTLS_NOT_SUPPORTED)
        heard = await self._dialogue.ask(b"STARTTLS", Stage.STARTTLS, self._timeouts.command_s)
        if isinstance(heard, Failure):
            return _tls_failure(heard.detail)
        if heard.code != 220:
            said = f"STARTTLS was answered {to_reply(heard, Stage.STARTTLS)}"
            return _tls_failure(said, TlsResult.STARTTLS_NOT_SUPPORTED)
        self._extensions = Extensions()  # RFC 3207 §4.2: forget all that was said in clear text
        if (failure := await self._secure()) is not None:
            return failure
        end = await self._hello()
        # TLS 1.3 tells a client only after its handshake that the server did not like it.
        return _tls_failure(end.detail) if isinstance(end, Failure) else end

    async def _secure(self) -> Failure | None:
        target = self._target
        context = verifying(target.ca_file) if target.verify else opportunistic()
        problem = await self._channel.secure(context, target.host.rstrip("."), self._timeouts.command_s)
        if problem is not None or self._channel.transport is None:
            return (
                _tls_failure("the connection is gone")
                if problem is None
                else _tls_failure(problem.detail, problem.result)
            )
        tls = self._channel.transport.get_extra_info("ssl_object")
        self._tls = tls_info(tls)
        if target.tlsa:
            wrong = judge(target.tlsa, chain_of(tls), target.tlsa_names, dt.datetime.now(dt.UTC))
            if wrong is not None:
                return _tls_failure(f"DANE: {wrong}", TlsResult.TLSA_INVALID)
            self._tls = replace(self._tls, verified=True)
        proved = "the host is proved" if self._tls.verified else "the host is not proved"
        self._said.append((time.perf_counter(), f"{self._tls.version}, {self._tls.cipher}, {proved}"))
        return None

    async def _promise(self) -> Failure | None:
        """RFC 8689 §4.2.1: only the EHLO under TLS says whether the peer will pass the demand on."""
        if not self._target.requiretls or (self._tls is not None and self._extensions.requiretls):
            return None
        return Failure(FailureKind.NO_REQUIRETLS, Stage.EHLO, "the peer does not offer REQUIRETLS")

    async def _authenticate(self) -> Reply | Failure | None:
        target = self._target
        if not target.username:
            return None
        if self._tls is None and target.tls != "none" and not _is_loopback(target.address):
            return Failure(FailureKind.TLS, Stage.AUTH, "no TLS, and the password is not sent in clear text")
        mechanism = saslclient.choose(self._extensions.auth, encrypted=self._tls is not None)
        if mechanism is None:
            return Failure(FailureKind.PROTOCOL, Stage.AUTH, "the peer offers no AUTH mechanism that we speak")
        line = f"AUTH {mechanism}".encode()
        shown = line + b" " + HIDDEN
        self._dialogue.secrets = saslclient.forms(target.username, target.secret)
        first = saslclient.initial(mechanism, target.username, target.secret)
        if first is not None and len(line) + 1 + len(encoded := base64.b64encode(first)) <= LONGEST_COMMAND:
            line += b" " + encoded
        step = 0
        while True:
            heard = await self._dialogue.ask(line, Stage.AUTH, self._timeouts.command_s, shown=shown)
            if isinstance(heard, Failure) or heard.code != 334:
                self._dialogue.secrets = []
                return _unless_ok(heard, Stage.AUTH)
            try:
                challenge = base64.b64decode(heard.lines[0], validate=True)
            except binascii.Error:
                if mechanism == "CRAM-MD5":
                    return Failure(FailureKind.PROTOCOL, Stage.AUTH, "a challenge that is not base64")
                challenge = b""  # the prompts of the others mean nothing, and some are plain text
            answer = saslclient.answer(mechanism, step, challenge, target.username, target.secret)
            if answer is None:
                return Failure(FailureKind.PROTOCOL, Stage.AUTH, f"a challenge too many for {mechanism}")
            line, shown, step = base64.b64encode(answer), HIDDEN, step + 1


def _unless_ok(heard: Heard | Failure, stage: Stage) -> Reply | Failure | None:
    """Return None for a 2xx, and otherwise what ends the set-up."""
    if isinstance(heard, Failure):
        return heard
    if heard.code < 300:
        return None
    if heard.code < 400:
        return Failure(FailureKind.PROTOCOL, stage, f"{heard.code} is not {_WHERE[stage]}")
    return to_reply(heard, stage)


def _tls_failure(detail: str, result: TlsResult = TlsResult.VALIDATION_FAILURE) -> Failure:
    return Failure(FailureKind.TLS, Stage.STARTTLS, detail, result)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
