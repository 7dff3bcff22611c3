"""Find the mail hosts of a domain, the addresses of a host and the texts of a name.

Names come as A-labels in lower case; that is what the cache is keyed by. Answers come from memory where they
can: a known MX answer costs each further message a look into a dictionary.
"""

import asyncio
import ipaddress
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.name
import dns.rdata
import dns.rdatatype
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.ANY.MX import MX
from dns.rdtypes.ANY.PTR import PTR
from dns.rdtypes.ANY.TLSA import TLSA
from dns.rdtypes.ANY.TXT import TXT

from arkrelay.model.dns import AddressAnswer, MxAnswer, MxHost
from arkrelay.model.peertls import Tlsa, TlsaAnswer
from arkrelay.model.reply import Failure, FailureKind, Stage
from arkrelay.wire.dnscache import MAX_TTL_S, DnsCache, bounded_ttl
from arkrelay.wire.dnsquery import RESOLV_CONF, Found, Nameservers, Trouble

NEGATIVE_TTL_S = 60.0  # a domain that was just created, or a record just published, is seen within a minute
TROUBLE_TTL_S = 1.0  # RFC 9520 §3.2: failures to resolve are remembered for at least a second
DETAIL_MAX = 500  # of model.reply.Failure
MAX_RECORDS = 100  # kept of one answer; 64 KB of TCP hold thousands, and no attempt gets past a handful

_ADDRESS_TYPES = {4: dns.rdatatype.A, 6: dns.rdatatype.AAAA}
_TEXT_TYPES = {
    "A": dns.rdatatype.A,
    "AAAA": dns.rdatatype.AAAA,
    "CNAME": dns.rdatatype.CNAME,
    "MX": dns.rdatatype.MX,
    "TXT": dns.rdatatype.TXT,
}


@dataclass(frozen=True, slots=True)
class _Texts:
    """Records in text form; ``exists`` False is NXDOMAIN, True without values is NODATA."""

    values: tuple[str, ...]
    exists: bool
    ttl_s: float
    secure: bool = False


class Resolver:
    """Answers by the nameservers of ``[dns]``, or by those of ``resolv_conf`` when there are none.

    Raises ValueError for a nameserver that is not "ip" or "ip:port". ``timeout_s`` is the longest wait for one
    round over all nameservers; a look-up makes two. ``trust_ad``: what they say of DNSSEC is believed also when
    they are not on loopback.
    """

    def __init__(
        self,
        nameservers: Sequence[str] = (),
        timeout_s: float = 5.0,
        *,
        resolv_conf: Path = RESOLV_CONF,
        trust_ad: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._servers = Nameservers(nameservers, timeout_s, resolv_conf, trust_ad=trust_ad)
        self._mx: DnsCache[str, MxAnswer | Failure] = DnsCache(clock)
        self._texts: DnsCache[tuple[str, dns.rdatatype.RdataType], _Texts | Failure] = DnsCache(clock)

    async def mx(self, domain: str, *, fresh: bool = False) -> MxAnswer | Failure:
        """Return the mail hosts of ``domain``, the lowest preference first (RFC 5321 §5.1).

        A domain without MX records is its own host; one whose MX look-up failed is not. The failures are
        NO_DOMAIN (NXDOMAIN), NULL_MX (RFC 7505) and, for everything else, RESOLVER, which alone is temporary.
        ``fresh`` goes past the cache.
        """
        if not fresh and (known := self._mx.peek(domain)) is not None:
            return known
        return await self._mx.get(domain, lambda: self._look_up_mx(domain), fresh=fresh)

    async def addresses(self, host: str, families: Sequence[int] = (4, 6)) -> AddressAnswer | Failure:
        """Return the addresses of ``host`` in ``families`` (4, 6), in that order; an IP address is its own answer.

        One family with addresses is enough. NO_DOMAIN and NO_ADDRESS mean that DNS has no address at all; a
        host with addresses only of the family that was not asked for is UNREACHABLE; all else is RESOLVER.
        Of an explicit MX host even NO_DOMAIN says nothing about the recipient's domain: ``policy.route``
        decides what it means.
        """
        if (literal := _canonical_ip(host)) is not None:
            return AddressAnswer((literal,), MAX_TTL_S, secure=True)
        answers = await self._look_up_addresses(host, families)
        good = [answer for answer in answers if isinstance(answer, _Texts) and answer.values]
        if good:
            return AddressAnswer(
                tuple(value for answer in good for value in answer.values),
                min(answer.ttl_s for answer in good),
                secure=all(answer.secure for answer in good),
            )
        others = [family for family in _ADDRESS_TYPES if family not in families]
        answers = (*answers, *await self._look_up_addresses(host, others))
        for answer in answers:
            if isinstance(answer, Failure):
                return answer
        texts = [answer for answer in answers if isinstance(answer, _Texts)]
        if any(text.values for text in texts):
            kind = "IPv6" if 4 in families else "IPv4"
            detail = f"{host} has only {kind} addresses, and this machine does not send by {kind}"
            return _failure(FailureKind.UNREACHABLE, detail)
        if not all(text.exists for text in texts):
            return _failure(FailureKind.NO_DOMAIN, f"{host} does not exist in DNS (NXDOMAIN)")
        return _failure(FailureKind.NO_ADDRESS, f"{host} has no address in DNS")

    async def txt(self, name: str, *, fresh: bool = False) -> tuple[str, ...] | Failure:
        """Return the TXT records of ``name``, each with its strings joined; () when there are none."""
        return await self._values(name, dns.rdatatype.TXT, fresh=fresh)

    async def cname(self, name: str, *, fresh: bool = False) -> tuple[str, ...] | Failure:
        """Return the name that ``name`` is an alias of, not followed further; () when it is none."""
        return await self._values(name, dns.rdatatype.CNAME, fresh=fresh)

    async def records(self, name: str, kind: str, *, fresh: bool = False) -> tuple[str, ...] | Failure:
        """Return the A, AAAA, CNAME, MX ("preference host") or TXT records of ``name`` as text; () when none are."""
        return await self._values(name, _TEXT_TYPES[kind], fresh=fresh)

    async def ptr(self, ip: str, *, fresh: bool = False) -> tuple[str, ...] | Failure:
        """Return the names that the reverse zone gives ``ip``; () when there are none, or ``ip`` is no address."""
        canonical = _canonical_ip(ip)
        if canonical is None:
            return ()
        return await self._values(ipaddress.ip_address(canonical).reverse_pointer, dns.rdatatype.PTR, fresh=fresh)

    async def root_is_proved(self) -> bool | None:
        """Return whether DNSSEC vouches for the root zone's own SOA, as it does for a validator; None: no answer."""
        found = await self._servers.ask(dns.name.root, dns.rdatatype.SOA)
        return None if isinstance(found, Trouble) else found.secure

    async def latencies(self) -> dict[str, float | str]:
        """Return how long each nameserver takes to answer, in seconds, or why it does not."""
        return await self._servers.latencies()

    @property
    def trusted(self) -> bool:
        """Whether what the nameservers say of DNSSEC would be believed: all are on loopback, or ``trust_ad``."""
        return self._servers.trusted

    async def tlsa(self, host: str, port: int) -> TlsaAnswer | Failure:
        """Return the TLSA records of a host's mail port (RFC 7672 §2.2); no records and no such name are the same."""
        texts = await self._get_texts(f"_{port}._tcp.{host}", dns.rdatatype.TLSA)
        if isinstance(texts, Failure):
            return texts
        return TlsaAnswer(tuple(_tlsa(value) for value in texts.values), texts.secure)

    async def close(self) -> None:
        """Cancel the look-ups under way."""
        await self._mx.close()
        await self._texts.close()

    async def _values(
        self, name: str, rdtype: dns.rdatatype.RdataType, *, fresh: bool = False
    ) -> tuple[str, ...] | Failure:
        texts = await self._get_texts(name, rdtype, fresh=fresh)
        return texts if isinstance(texts, Failure) else texts.values

    async def _look_up_addresses(self, host: str, families: Sequence[int]) -> Sequence[_Texts | Failure]:
        known = [self._texts.peek((host, _ADDRESS_TYPES[family])) for family in families]
        answers = [answer for answer in known if answer is not None]
        if len(answers) == len(known):
            return answers
        return await asyncio.gather(*(self._get_texts(host, _ADDRESS_TYPES[family]) for family in families))

    async def _get_texts(
        self, name: str, rdtype: dns.rdatatype.RdataType, *, fresh: bool = False
    ) -> _Texts | Failure:
        return await self._texts.get((name, rdtype), lambda: self._look_up_texts(name, rdtype), fresh=fresh)

    async def _look_up_texts(self, name: str, rdtype: dns.rdatatype.RdataType) -> tuple[_Texts | Failure, float]:
        found = await self._ask(name, rdtype)
        if isinstance(found, Failure):
            return found, TROUBLE_TTL_S
        ttl_s = _keep_s(found)
        values = tuple(_text(record) for record in found.records[:MAX_RECORDS])
        return _Texts(values, found.exists, ttl_s, found.secure), ttl_s

    async def _look_up_mx(self, domain: str) -> tuple[MxAnswer | Failure, float]:
        found = await self._ask(domain, dns.rdatatype.MX)
        if isinstance(found, Failure):
            return found, TROUBLE_TTL_S
        ttl_s = _keep_s(found)
        if not found.exists:
            return _failure(FailureKind.NO_DOMAIN, f"{domain} does not exist in DNS (NXDOMAIN)"), ttl_s
        if not found.records:
            return MxAnswer((MxHost(0, domain),), ttl_s, found.secure, implicit=True), ttl_s
        named = [
            MxHost(record.preference, _host(record.exchange)) for record in found.records if isinstance(record, MX)
        ]
        hosts = [host for host in named if host.host and _canonical_ip(host.host) is None]
        if hosts:  # a "." beside others is against RFC 7505 §3 and ignored, as is an address in place of a name
            best = sorted(hosts, key=lambda host: host.preference)[:MAX_RECORDS]
            return MxAnswer(tuple(best), ttl_s, found.secure), ttl_s
        if not any(host.host for host in named):
            return _failure(FailureKind.NULL_MX, f"{domain} accepts no mail (null MX)"), ttl_s
        return _failure(FailureKind.RESOLVER, f"the MX records of {domain} are IP addresses, not names"), ttl_s

    async def _ask(self, name: str, rdtype: dns.rdatatype.RdataType) -> Found | Failure:
        wire_name = _parse_name(name)
        if wire_name is None:  # what DNS cannot hold does not exist, and asking again would not help
            return Found((), exists=False, ttl_s=MAX_TTL_S, secure=False)
        found = await self._servers.ask(wire_name, rdtype)
        if isinstance(found, Trouble):
            kind = dns.rdatatype.to_text(rdtype)
            return _failure(FailureKind.RESOLVER, f"{kind} look-up of {name} failed: {found.detail}")
        return found


def _keep_s(found: Found) -> float:
    return bounded_ttl(found.ttl_s, MAX_TTL_S if found.records else NEGATIVE_TTL_S)


def _parse_name(name: str) -> dns.name.Name | None:
    try:
        name.encode("ascii")
        parsed = dns.name.from_text(name)
    except (dns.exception.DNSException, ValueError):
        return None
    return None if parsed == dns.name.root else parsed  # "" and "@" would ask about the root


def _host(name: dns.name.Name) -> str:
    """Return a name from DNS as text; odd bytes stay escaped, so it is printable ASCII. The root is ""."""
    return "" if name == dns.name.root else name.to_text(omit_final_dot=True).lower()


def _text(record: dns.rdata.Rdata) -> str:
    if isinstance(record, TXT):
        return b"".join(record.strings).decode("utf-8", "backslashreplace")
    if isinstance(record, CNAME | PTR):
        return _host(record.target)
    if isinstance(record, MX):
        return f"{record.preference} {_host(record.exchange)}"
    if isinstance(record, TLSA):
        return f"{record.usage} {record.selector} {record.mtype} {record.cert.hex()}"
    return str(ipaddress.ip_address(record.to_text()))  # A, AAAA: the same text for the same address


def _tlsa(text: str) -> Tlsa:
    usage, selector, matching, data = text.split(" ")
    return Tlsa(int(usage), int(selector), int(matching), bytes.fromhex(data))


def _canonical_ip(text: str) -> str | None:
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    return str(ipaddress.ip_address(ip.packed))  # without an IPv6 zone, which belongs to one machine


def _failure(kind: FailureKind, detail: str) -> Failure:
    safe = "".join(character if character.isprintable() else "?" for character in detail)
    return Failure(kind, Stage.RESOLVE, safe[:DETAIL_MAX])
