"""One POST to somebody else's server, whose URL somebody else chose.

Whoever may name a URL here would like us to speak to what only we can reach (SSRF). So the address that is
connected to is judged, and not the name: by the function that makes the socket, after the look-up, so that no
second look-up may answer otherwise. Redirects are not followed, no proxy is asked, no cookie kept, nothing is
inflated, and of the answer only the beginning is read, whatever it consists of (``wire.capped``).

Connections are kept between posts, for a minute at most, after which the name is looked up again: 1000 events to one
endpoint cost 0.8 CPU s, with a TLS handshake for each 1.7 CPU s (``tests/bench/hooks.py --webhooks 1``). When a
kept one turns out to be closed, nobody knows whether the event arrived: it is posted once more at once, with the
same uuid, on a connection of its own.
"""

import asyncio
import contextlib
import functools
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from arkrelay.model.hook import Answer
from arkrelay.model.reply import Failure
from arkrelay.policy.route import IPNetwork
from arkrelay.policy.targets import LOOPBACK, Target, address_refusal, local_name, parse_target, refusal
from arkrelay.wire.capped import AnswerTooLong, Capped
from arkrelay.wire.dns import Resolver
from arkrelay.wire.tls import verifying

ANSWER_BYTES = 16_384  # read of the body of an answer; the rest is not waited for
EXCHANGE_BYTES = 65_536  # of all of an answer: head, body, and what HTTP puts around them
KEPT_S = 60.0  # after so long the name is looked up again, and the certificate judged again
IDLE_S = 4.0  # a connection nobody uses; Node's servers close theirs after 5 s (http.Server, keepAliveTimeout)
MAX_ADDRESSES = 5  # tried in one post, within its deadline
ERROR_CHARS = 300
MAX_DIGITS = 9  # of a Retry-After in seconds: 30 years

Gate = Callable[[str, int], str | None]  # address, port → why they are never connected to
AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]


class Unreachable(OSError):
    """The name has no address, or none that may be connected to."""


@dataclass(slots=True)
class _Received:
    """What came before the end, the deadline or a lost connection, whichever was first."""

    status: int | None = None
    body: bytes = b""
    retry_after: str = ""
    reused: bool = False  # the connection was one that had been kept


@dataclass(slots=True)
class _Kept:
    """A session that keeps connections, and how many posts are using it."""

    session: aiohttp.ClientSession
    until: float  # of the monotonic clock; nobody new may use it from then on
    lent: int = 0


class Poster:
    """Posts to URLs that are not ours; ``own`` are the addresses of this machine, in canonical text."""

    def __init__(
        self,
        resolver: Resolver,
        own: frozenset[str],
        *,
        context: Callable[[], ssl.SSLContext] = verifying,
    ) -> None:
        self._resolver = resolver
        self._own = own
        self._context = context
        self._kept: dict[tuple[IPNetwork, ...], _Kept] = {}

    async def close(self) -> None:
        """End the kept connections; posts that are under way fail."""
        for kept in self._kept.values():
            await kept.session.close()
        self._kept.clear()

    def refusal(self, url: str, allow: Sequence[IPNetwork], *, allow_http: bool) -> str | None:
        """Return why nothing is ever posted to ``url``, as far as that shows without a look-up, or None."""
        return refusal(url, allow, self._own, allow_http=allow_http)

    async def post(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        timeout_s: float,
        allow: Sequence[IPNetwork],
        allow_http: bool = False,
    ) -> Answer:
        """Return what the server said to ``body``, or why it said nothing; nothing is raised for what it does.

        ``timeout_s`` is for all of it, from the look-up to the end of the answer; a status that came in time counts,
        and of its body what came. An answer that had ``EXCHANGE_BYTES`` and neither its end nor ``ANSWER_BYTES`` of
        body is none. ``allow`` are networks that may be connected to though they are private, local or
        our own.
        """
        began = time.monotonic()
        received = _Received()
        error = None
        try:
            async with asyncio.timeout(timeout_s):
                target = parse_target(url, allow_http=allow_http)
                await self._exchange(target, body, headers, allow, received)
        except TimeoutError:
            error = f"No answer within {timeout_s:g} s"
        except AnswerTooLong as exc:
            received, error = _Received(), why(exc)
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as exc:  # uvloop raises the last for OSError
            error = why(exc)
        if received.status is not None:
            error = _about(received.status)
        return Answer(
            received.status,
            received.body[:ANSWER_BYTES].decode("utf-8", "replace"),
            error,
            time.monotonic() - began,
            parse_retry_after(received.retry_after, time.time()),
        )

    async def _exchange(
        self, target: Target, body: bytes, headers: Mapping[str, str], allow: Sequence[IPNetwork], received: _Received
    ) -> None:
        try:
            async with self._lent(tuple(allow)) as session:
                await _exchange(session, target, body, headers, received)
        except aiohttp.ClientConnectionError:
            if not received.reused or received.status is not None:
                raise
            async with await self._open(allow) as session:
                await _exchange(session, target, body, headers, received)

    @contextlib.asynccontextmanager
    async def _lent(self, allow: tuple[IPNetwork, ...]) -> AsyncIterator[aiohttp.ClientSession]:
        """Give the session whose connections are kept; an old one is closed by whoever used it last."""
        kept = self._kept.get(allow)
        old: list[_Kept] = []
        if kept is None or kept.until <= time.monotonic():
            kept = _Kept(await self._open(allow, keep_s=IDLE_S), time.monotonic() + KEPT_S)
            old = self._taken_out(allow)  # another post may have been here meanwhile
            self._kept[allow] = kept
        kept.lent += 1
        try:
            for one in old:
                if not one.lent:
                    await one.session.close()
            yield kept.session
        finally:
            kept.lent -= 1
            if not kept.lent and self._kept.get(allow) is not kept:
                await kept.session.close()

    def _taken_out(self, allow: tuple[IPNetwork, ...]) -> list[_Kept]:
        """Return what is kept for these networks, and what is old for any: nobody may ever ask for those again."""
        now = time.monotonic()
        keys = [key for key, one in self._kept.items() if key == allow or one.until <= now]
        return [self._kept.pop(key) for key in keys]

    async def _open(self, allow: Sequence[IPNetwork], *, keep_s: float = 0.0) -> aiohttp.ClientSession:
        context = await asyncio.to_thread(self._context)  # the first one reads the system's authorities
        gate = functools.partial(address_refusal, allow=allow, own=self._own)
        return open_session(self._resolver, gate, context, EXCHANGE_BYTES, keep_s=keep_s)


async def _exchange(
    session: aiohttp.ClientSession, target: Target, body: bytes, headers: Mapping[str, str], received: _Received
) -> None:
    async with session.post(
        URL(f"{target.scheme}://{target.authority}{target.path}", encoded=True),
        data=body,
        headers={"Accept-Encoding": "identity", **headers},
        allow_redirects=False,
        trace_request_ctx=received,
    ) as response:
        received.status = response.status
        received.retry_after = response.headers.get("Retry-After", "")
        while chunk := await response.content.read(ANSWER_BYTES):
            received.body += chunk
            if len(received.body) >= ANSWER_BYTES:
                response.close()  # the rest is still on its way: that connection is of no use any more
                break


async def _note_reuse(_session: aiohttp.ClientSession, context: SimpleNamespace, _what: object) -> None:
    if context.trace_request_ctx is not None:
        context.trace_request_ctx.reused = True


def open_session(
    resolver: Resolver, gate: Gate, context: ssl.SSLContext, cap_bytes: int, *, keep_s: float = 0.0
) -> aiohttp.ClientSession:
    """Return a session for exchanges with strangers: it connects where ``gate`` lets it.

    Of each answer it takes ``cap_bytes`` at most; who then still waits for some of it gets AnswerTooLong. A
    connection is kept for ``keep_s`` after an exchange; 0: for one exchange only.
    """
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_note_reuse)
    connector = Capped(
        cap_bytes,
        resolver=Checked(resolver, gate),
        socket_factory=functools.partial(open_socket, gate=gate),
        use_dns_cache=False,
        ssl=context,
        limit=0,  # who posts says how much at once
        keepalive_timeout=keep_s or None,
        force_close=not keep_s,
    )
    return aiohttp.ClientSession(
        connector=connector,
        trace_configs=[trace],
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # the caller's deadline is the only one
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    )


class Checked(AbstractResolver):
    """Our resolver, of whose answers only those are given on that may be connected to."""

    def __init__(self, resolver: Resolver, gate: Gate) -> None:
        self._resolver = resolver
        self._gate = gate

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 -- aiohttp's own signature
    ) -> list[ResolveResult]:
        """Return the addresses of ``host``, at most five, or raise Unreachable."""
        good: list[str] = []
        refused = ""
        for address in await self._addresses(host):
            reason = self._gate(address, port)
            if reason is None:
                good.append(address)
            else:
                refused = refused or reason
        if not good:
            raise Unreachable(refused)
        return [_result(host, address, port) for address in good[:MAX_ADDRESSES]]

    async def close(self) -> None:
        """Nothing: the resolver is the daemon's."""

    async def _addresses(self, host: str) -> Sequence[str]:
        if local_name(host):
            return LOOPBACK
        found = await self._resolver.addresses(host)
        if isinstance(found, Failure):
            raise Unreachable(found.detail)
        return found.addresses


def open_socket(info: AddressInfo, gate: Gate) -> socket.socket:
    """Return the socket for one address, or raise Unreachable: the last word on where we connect."""
    family, kind, protocol, _, address = info
    host, port = address[:2]
    if (reason := gate(host, port)) is not None:
        raise Unreachable(reason)
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)  # noqa: FBT003 -- the socket module's own signature
    return made


def _result(host: str, address: str, port: int) -> ResolveResult:
    return {
        "hostname": host,
        "host": address,
        "port": port,
        "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
        "proto": 0,
        "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    }


def parse_retry_after(text: str, now: float) -> float | None:
    """Return how many seconds a Retry-After asks us to wait (RFC 9110 §10.2.3), or None when it says nothing."""
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:MAX_DIGITS])
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, at.replace(tzinfo=at.tzinfo or UTC).timestamp() - now)


def _about(status: int) -> str | None:
    """Return what is wrong with an answer; only a 2xx is right (Ark contract §11.5)."""
    if 200 <= status < 300:
        return None
    return f"It answered {status}" + ("; redirects are not followed" if 300 <= status < 400 else "")


def why(error: Exception) -> str:
    """Return what went wrong in a sentence, without the URL: that may hold a secret."""
    text = "The connection ended before an answer came"
    match error:
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as inner):
            text = f"Its certificate is not valid: {inner.verify_message}"
        case aiohttp.ClientConnectorError(os_error=Unreachable() as inner):
            text = str(inner)
        case aiohttp.ClientSSLError(os_error=inner):
            text = f"TLS failed: {getattr(inner, 'reason', None) or type(inner).__name__}"
        case aiohttp.ClientConnectorError(os_error=inner):
            text = f"Could not connect: {os.strerror(inner.errno) if inner.errno else 'no address answered'}"
        case AnswerTooLong(args=(most,)):
            text = f"Its answer did not end within {most} bytes"
        case aiohttp.ClientResponseError():
            text = "It did not answer in HTTP"
        case ValueError() if not isinstance(error, aiohttp.ClientError):
            text = f"The URL {error}"
    return text[:ERROR_CHARS]
