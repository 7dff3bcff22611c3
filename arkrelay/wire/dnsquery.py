"""One question put to the nameservers, and what they say: records, nothing, or trouble."""

import asyncio
import ipaddress
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdatatype

ROUNDS = 2  # a lost packet costs one wait, not the look-up
EDNS_PAYLOAD = 1232  # fits IPv6's minimum MTU, so answers are not fragmented (DNS flag day 2020)
TRIES = 3  # of which the quickest says how far away a nameserver is: the first may have to ask the world
MAX_LOOKUPS = 200  # each holds a socket
RESOLV_CONF = Path("/etc/resolv.conf")
DEFAULT_PORT = 53

_NO_EDNS = frozenset({dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS})  # RFC 6891 §7
_TROUBLE = (dns.exception.DNSException, EOFError, ValueError)


@dataclass(frozen=True, slots=True)
class Nameserver:
    """Where to ask; on ``loopback`` its AD bit is believed, since nobody sits between it and us (RFC 6840 §5.8)."""

    ip: str
    port: int = DEFAULT_PORT

    @property
    def loopback(self) -> bool:
        return ipaddress.ip_address(self.ip).is_loopback

    def __str__(self) -> str:
        host = f"[{self.ip}]" if ":" in self.ip else self.ip
        return host if self.port == DEFAULT_PORT else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Found:
    """What the nameservers say about one name and type, after following CNAMEs.

    ``exists`` False is NXDOMAIN, of the name or of what its CNAME names; True without records is NODATA.
    ``ttl_s`` is the least of the chain, or of the SOA where there is nothing (RFC 2308 §5).
    """

    records: tuple[dns.rdata.Rdata, ...]
    exists: bool
    ttl_s: float
    secure: bool


@dataclass(frozen=True, slots=True)
class Trouble:
    """No nameserver gave an answer that can be used; ``detail`` says what each did."""

    detail: str


def parse_nameserver(text: str) -> Nameserver:
    """Return the nameserver of "ip", "ip:port", "[v6]" or "[v6]:port"; raises ValueError."""
    if text.startswith("["):
        ip, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise ValueError(f"{text} is not an address in brackets")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        ip, _, port = text.partition(":")
    else:
        ip, port = text, ""
    number = int(port) if port else DEFAULT_PORT
    if not 0 < number < 65536:
        raise ValueError(f"{port} is not a port")
    return Nameserver(str(ipaddress.ip_address(ip)), number)


class Nameservers:
    """The nameservers of the settings, or of ``resolv_conf``, which is read again whenever it changed."""

    def __init__(
        self, texts: Sequence[str], timeout_s: float, resolv_conf: Path = RESOLV_CONF, *, trust_ad: bool = False
    ) -> None:
        self._fixed = tuple(parse_nameserver(text) for text in texts)
        self._timeout_s = timeout_s
        self._trust_ad = trust_ad  # the way to these nameservers is one that nobody else can write to
        self._resolv_conf = resolv_conf
        self._system: tuple[Nameserver, ...] = ()
        self._seen: tuple[int, int, int] | None = None
        self._good: Nameserver | None = None  # the one that answered last is asked first
        self._slots = asyncio.Semaphore(MAX_LOOKUPS)

    async def ask(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> Found | Trouble:
        """Return what the first nameserver with a usable answer says.

        Every nameserver is asked in each of ``ROUNDS``, and gets its share of ``timeout_s`` for UDP and as
        much again for TCP; the look-up as a whole ends within ``ROUNDS`` times ``timeout_s``. Waiting for one
        of ``MAX_LOOKUPS`` slots comes before. NXDOMAIN and NODATA are answers; SERVFAIL, REFUSED and all
        else go on to the next.
        """
        async with self._slots:
            said: dict[str, str] = {}
            servers = self.in_force()
            try:
                async with asyncio.timeout(ROUNDS * self._timeout_s):
                    for server in servers * ROUNDS:
                        found = await self._ask_one(server, name, rdtype, self._timeout_s / len(servers))
                        if isinstance(found, Found):
                            self._good = server
                            return found
                        said[str(server)] = found.detail
            except TimeoutError:
                said.setdefault(str(servers[0]), "no answer in time")
            return Trouble("; ".join(f"{server}: {what}" for server, what in said.items()))

    async def latencies(self) -> dict[str, float | str]:
        """Return how long each nameserver takes for the root's SOA, the quickest of ``TRIES``, or why it has none."""
        async with self._slots:
            return {str(server): await self._latency(server) for server in self.in_force()}

    async def _latency(self, server: Nameserver) -> float | str:
        best: float | None = None
        detail = ""
        for _ in range(TRIES):
            began = time.perf_counter()
            found = await self._ask_one(server, dns.name.root, dns.rdatatype.SOA, self._timeout_s)
            if isinstance(found, Trouble):
                detail = found.detail
                break
            took_s = time.perf_counter() - began
            best = took_s if best is None else min(best, took_s)
        return detail if best is None else best

    @property
    def trusted(self) -> bool:
        """Whether AD of every nameserver would be believed."""
        return self._trust_ad or all(server.loopback for server in self.in_force())

    async def _ask_one(
        self, server: Nameserver, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, share_s: float
    ) -> Found | Trouble:
        try:
            reply = await _exchange(server, name, rdtype, share_s, edns=True)
            if reply.rcode() in _NO_EDNS:
                reply = await _exchange(server, name, rdtype, share_s, edns=False)
            if reply.rcode() not in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}:
                return Trouble(dns.rcode.to_text(reply.rcode()))
            chain = reply.resolve_chaining()
        except TimeoutError:
            return Trouble("no answer in time")
        except dns.message.ChainTooLong:
            return Trouble("the CNAMEs are a loop or too many")
        except OSError as error:
            return Trouble(error.strerror or type(error).__name__)
        except _TROUBLE as error:
            return Trouble(str(error) or type(error).__name__)
        return Found(
            records=() if chain.answer is None else tuple(chain.answer),
            exists=reply.rcode() == dns.rcode.NOERROR,
            ttl_s=float(chain.minimum_ttl),
            secure=(server.loopback or self._trust_ad) and bool(reply.flags & dns.flags.AD),
        )

    def in_force(self) -> tuple[Nameserver, ...]:
        """Return the nameservers, the one to be asked first in front."""
        servers = self._fixed or self._from_system()
        if self._good in servers and servers[0] != self._good:
            return (self._good, *(server for server in servers if server != self._good))
        return servers

    def _from_system(self) -> tuple[Nameserver, ...]:
        try:
            found = self._resolv_conf.stat()
            seen = (found.st_mtime_ns, found.st_ino, found.st_size)
            if seen != self._seen:
                self._system = _parse_resolv_conf(self._resolv_conf.read_text(errors="replace"))
                self._seen = seen
        except OSError:
            self._seen = None  # gone or being replaced: what it said last still holds
        return self._system or (Nameserver("127.0.0.1"),)  # resolv.conf(5): the default is this machine


async def _exchange(
    server: Nameserver, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, timeout_s: float, *, edns: bool
) -> dns.message.QueryMessage:
    """Return the reply to one question, by UDP and, where that was cut off, by TCP; ``timeout_s`` is for each.

    A packet with another id or question, or that is no DNS message, is skipped and the wait goes on: somebody
    may be guessing (RFC 5452 §9.1). The UDP socket is connected, so that a nameserver that is not there is an
    error at once. AD in the question asks for AD in the answer (RFC 6840 §5.7).
    """
    query = dns.message.make_query(
        name,
        rdtype,
        use_edns=0 if edns else None,
        payload=EDNS_PAYLOAD if edns else None,
        flags=dns.flags.RD | dns.flags.AD,
    )
    try:
        async with asyncio.timeout(timeout_s):
            reply = await _by_udp(query, server)
    except dns.message.Truncated:
        async with asyncio.timeout(timeout_s):
            reply = await dns.asyncquery.tcp(query, server.ip, port=server.port)
    return cast("dns.message.QueryMessage", reply)  # dnspython checked that its opcode is the query's


async def _by_udp(query: dns.message.Message, server: Nameserver) -> dns.message.Message:
    backend = dns.asyncbackend.get_backend("asyncio")
    family = socket.AF_INET6 if ":" in server.ip else socket.AF_INET
    where = (server.ip, server.port)
    opening = backend.make_socket(family, socket.SOCK_DGRAM, 0, None, where)  # type: ignore[no-untyped-call] # theirs
    async with await opening as connected:
        return await dns.asyncquery.udp(
            query,
            server.ip,
            port=server.port,
            sock=connected,
            ignore_unexpected=True,
            ignore_errors=True,
            raise_on_truncation=True,
        )


def _parse_resolv_conf(text: str) -> tuple[Nameserver, ...]:
    servers = []
    for line in text.splitlines():
        match line.split():
            case ["nameserver", ip, *_]:
                try:
                    servers.append(Nameserver(str(ipaddress.ip_address(ip))))
                except ValueError:
                    continue
    return tuple(servers)
