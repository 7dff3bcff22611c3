"""Addresses of sockets as the files spell them: "host:port", "[v6]:port", "unix:/path"."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from arkrelay.model.address import AddressError, parse_domain

UNIX = "unix:"
UNIX_PATH_BYTES = 107  # sun_path of Linux is 108 with its final NUL (unix(7))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A TCP host and port, or a unix socket by its ``path``."""

    host: str = ""
    port: int = 0
    path: Path | None = None

    @property
    def local(self) -> bool:
        """True when only this machine can connect: a unix socket or a loopback address."""
        if self.path is not None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def overlaps(self, other: "Endpoint") -> bool:
        """Return whether the two cannot both be listened on; port 0 is a new port each time."""
        if self.path is not None or other.path is not None:
            return self.path == other.path
        if self.port != other.port or self.port == 0:
            return False
        wildcards = {"0.0.0.0": 4, "::": 6}  # noqa: S104 -- compared with, not bound to
        same_family = (":" in self.host) == (":" in other.host)
        either_all = self.host in wildcards or other.host in wildcards
        return self.host == other.host or (same_family and either_all)


def parse_endpoint(text: str) -> Endpoint:
    """Return the endpoint, its IP address in canonical form; raise ValueError with the reason."""
    if text.startswith(UNIX):
        path = Path(text.removeprefix(UNIX))
        if not path.is_absolute():
            raise ValueError("expected an absolute path after unix:")
        if len(bytes(path)) > UNIX_PATH_BYTES:
            raise ValueError(f"the path of a unix socket has at most {UNIX_PATH_BYTES} bytes")
        return Endpoint(path=path)
    host, port = parse_host_port(text)
    return Endpoint(host, port)


def parse_host_port(text: str, *, default_port: int | None = None) -> tuple[str, int]:
    """Return host and port of "host:port" or "[v6]:port"; without a port, ``default_port``; raise ValueError.

    The host is an IP address in canonical form, or a name as A-labels.
    """
    bracketed = text.startswith("[")
    if bracketed:
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError('expected "[v6]:port"')
        port_text = rest.removeprefix(":") if rest else None
    elif text.count(":") > 1:
        host, port_text = text, None
        if default_port is None:
            raise ValueError('an IPv6 address needs brackets: "[v6]:port"')
    else:
        host, colon, rest = text.partition(":")
        port_text = rest if colon else None
    return _host(host, v6=bracketed), _port(port_text, default_port)


def _host(text: str, *, v6: bool) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        if v6:
            raise ValueError("not an IPv6 address between the brackets") from None
        if not text:
            raise ValueError('the host is missing; "0.0.0.0" and "[::]" are all addresses') from None
        try:
            return parse_domain(text, utf8=True)
        except AddressError as exc:
            raise ValueError(str(exc)) from None
    return str(address)


def _port(text: str | None, default: int | None) -> int:
    if text is None:
        if default is None:
            raise ValueError('the port is missing: expected "host:port"')
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= 65535):
        raise ValueError("the port is not a number from 0 to 65535")
    return int(text)
