"""Which URLs events may be posted to, as far as their text tells.

Where a name leads is not known here, and may change between two look-ups: what is connected to is judged at the
moment of the connection (``address_refusal``). This keeps out what two parsers read differently, and what
nobody means who registers a webhook.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from arkrelay.model.address import AddressError, parse_domain
from arkrelay.model.settings import Webhooks
from arkrelay.policy.route import IPNetwork, forbidden, parse_networks

MAX_URL_CHARS = 2000  # what servers and proxies take; a longer one is no address but data
HIGH_PORT = 1024  # below it listen the servers of a system: mail, SSH, DNS
PORTS = {"https": 443, "http": 80}
LOOPBACK = ("127.0.0.1", "::1")  # where a name leads that is no question for DNS (RFC 6761 §6.3)

_SENDABLE = re.compile(r"[!-~]*")  # RFC 3986 §2: a URI is printable ASCII without spaces
_STRANGE = re.compile(r"[\x00-\x20\x7f\\]")  # parsers drop some of these, and take a backslash for a slash


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart; ``host`` is an A-label name in lower case, or an IP address in canonical text."""

    scheme: str
    host: str
    port: int
    path: str  # from the first "/" on, with the query, as it was written
    literal: bool  # ``host`` is an address

    @property
    def authority(self) -> str:
        """The host as a URL spells it, with its port where that is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


def parse_target(url: str, *, allow_http: bool) -> Target:
    """Return the URL taken apart, or raise ValueError with what it should be like.

    Only https unless ``allow_http``. Refused are credentials (they would show in every list), fragments (they are
    never sent), and numbers in place of a host that are no canonical address: some resolvers take ``0x7f000001`` and
    ``127.1`` for loopback.
    """
    if len(url) > MAX_URL_CHARS:
        raise ValueError(f"is longer than {MAX_URL_CHARS} characters")
    parts, port = _split(url)
    if parts.scheme not in PORTS or not parts.hostname or not port:
        raise ValueError("expected https://host")
    if parts.scheme == "http" and not allow_http:
        raise ValueError("plain http needs allow_http in [webhooks] of arkrelay.toml")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or password")
    if "#" in url:
        raise ValueError("must not have a fragment (#): it is never sent")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not _SENDABLE.fullmatch(path) or _STRANGE.search(url):
        raise ValueError("has a character that a URL must percent-encode")
    host, literal = _host(parts)
    return Target(parts.scheme, host, port, path, literal)


def refusal(
    url: str, allow: Sequence[IPNetwork], own: frozenset[str] = frozenset(), *, allow_http: bool
) -> str | None:
    """Return why nothing is ever posted to ``url``, as far as that shows without a look-up, or None.

    ``allow`` are networks that may be posted to though they are private, local or our own; ``own`` are the addresses
    of the machine that posts, in canonical text.
    """
    try:
        target = parse_target(url, allow_http=allow_http)
    except ValueError as error:
        return str(error)
    known = (target.host,) if target.literal else LOOPBACK if local_name(target.host) else ()
    reasons = [address_refusal(address, target.port, allow, own) for address in known]
    if reasons:
        return reasons[0] if all(reasons) else None
    return None if allow else strange_port(target.port)  # a name may lead to where any port is allowed


def settled_refusal(url: str, settings: Webhooks) -> str | None:
    """Return why these settings never post to ``url``, as far as its text tells, or None."""
    return refusal(url, parse_networks(settings.allow_destinations), allow_http=settings.allow_http)


def address_refusal(address: str, port: int, allow: Sequence[IPNetwork], own: frozenset[str]) -> str | None:
    """Return why this address and port are never connected to, or None; where ``allow`` is, every port is as good."""
    if (reason := forbidden(address, allow, own)) is not None:
        return f"{address} may not be posted to: it is {reason}"
    if any(ipaddress.ip_address(address) in network for network in allow):
        return None
    return strange_port(port)


def local_name(host: str) -> bool:
    """Return whether this name is this machine's whatever DNS says (RFC 6761 §6.3)."""
    return host == "localhost" or host.endswith(".localhost")


def strange_port(port: int) -> str | None:
    """Return why a server on this port is not somebody's who waits for events, or None.

    A port scan, or a POST into a mail server, is not what a relay should do for who may name a URL.
    """
    if port >= HIGH_PORT or port in PORTS.values():
        return None
    return f"port {port} is not for webhooks: use 443, or {HIGH_PORT} and above"


def _split(url: str) -> tuple[SplitResult, int]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    return parts, PORTS.get(parts.scheme, 0) if port is None else port


def _host(parts: SplitResult) -> tuple[str, bool]:
    text = parts.hostname or ""
    if "[" in parts.netloc:
        try:
            ip = ipaddress.IPv6Address(text)
        except ValueError:
            raise ValueError("has brackets around what is no IPv6 address") from None
        if ip.scope_id is not None:
            raise ValueError("must not name an interface (%)")
        return str(ip), True
    try:
        return str(ipaddress.IPv4Address(text)), True
    except ValueError:
        pass
    try:
        host = parse_domain(text, utf8=True)
    except AddressError as error:
        raise ValueError(f"has no usable host: {error}") from None
    if re.fullmatch(r"0x[0-9a-f]*", host.rpartition(".")[2]):  # WHATWG URL §3.5 "ends in a number"
        raise ValueError("has no usable host: the domain looks like an IP address")
    return host, False
