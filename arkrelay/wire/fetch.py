"""One GET of a small text from somebody else's server: how a domain publishes its MTA-STS policy.

Who may name a domain here would like us to speak to what only we can reach, so addresses are judged as in
``wire.https``. The certificate must be valid for the host (RFC 8461 §3.3), redirects are not followed, and what is
not text/plain or longer than ``MAX_BYTES`` is refused.
"""

import asyncio
import functools
import ipaddress
import ssl
from collections.abc import Callable, Sequence

import aiohttp
from yarl import URL

from arkrelay.policy.route import IPNetwork, forbidden
from arkrelay.wire.dns import Resolver
from arkrelay.wire.https import open_session, why
from arkrelay.wire.tls import verifying

MAX_BYTES = 65_536  # RFC 8461 §3.3 leaves the limit to us and names 64 kilobytes
EXCHANGE_BYTES = MAX_BYTES + 16_384  # with the head, and what HTTP puts around the body
TIMEOUT_S = 30.0  # for all of it; RFC 8461 §3.3 suggests a minute, and mail waits for this


class FetchError(Exception):
    """There is no text; the message is a sentence without the URL."""


class Fetcher:
    """Fetches texts from hosts that are not ours; ``own`` are the addresses of this machine, in canonical text."""

    def __init__(
        self,
        resolver: Resolver,
        own: frozenset[str],
        *,
        context: Callable[[], ssl.SSLContext] = verifying,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._resolver = resolver
        self._own = own
        self._context = context
        self._timeout_s = timeout_s

    async def text(self, host: str, path: str, *, port: int = 443, allow: Sequence[IPNetwork] = ()) -> bytes:
        """Return the body of ``https://host:port/path``, or raise FetchError.

        ``allow`` are networks that may be connected to though they are private, local or our own.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._exchange(URL(f"https://{host}:{port}{path}", encoded=True), allow)
        except TimeoutError:
            raise FetchError(f"no answer within {self._timeout_s:g} s") from None
        except (
            aiohttp.ClientError,
            OSError,
            ValueError,
            RuntimeError,
        ) as error:  # uvloop raises the last for OSError
            raise FetchError(why(error)) from None

    async def _exchange(self, url: URL, allow: Sequence[IPNetwork]) -> bytes:
        context = await asyncio.to_thread(self._context)  # the first one reads the system's authorities
        gate = functools.partial(self._forbidden, allow=allow)
        async with (
            open_session(self._resolver, gate, context, EXCHANGE_BYTES) as session,
            session.get(url, headers={"Accept-Encoding": "identity"}, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise FetchError(f"it answered {response.status}, where only 200 counts")
            if response.content_type != "text/plain":
                raise FetchError(f"it answered with {response.content_type[:50]}, not with text/plain")
            body = b""
            while chunk := await response.content.read(MAX_BYTES):
                body += chunk
                if len(body) > MAX_BYTES:
                    raise FetchError(f"its answer is longer than {MAX_BYTES} bytes")
            return body

    def _forbidden(self, address: str, _port: int, allow: Sequence[IPNetwork]) -> str | None:
        if any(ipaddress.ip_address(address) in network for network in allow):
            return None
        reason = forbidden(address, allow, self._own)
        return None if reason is None else f"{address} may not be connected to: it is {reason}"
