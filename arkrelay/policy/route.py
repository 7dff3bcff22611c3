"""Where mail for a domain goes: which hosts, in which order, which addresses, and which it never connects to."""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from random import Random

from arkrelay.model.delivery import Route, TlsRule
from arkrelay.model.dns import MxAnswer, MxHost
from arkrelay.model.message import SIMULATOR
from arkrelay.model.reply import Failure, FailureKind, Stage

MAX_HOSTS = 10  # looked up in one attempt; a domain with 60 MX does not cost 60 look-ups
MAX_ADDRESSES = 5  # tried in one attempt (RFC 5321 §5.1 wants at least two)
ADDRESSES_PER_HOST = 2  # as long as other hosts can fill the rest: one dead host must not use up the attempt

# Mail that demands another TLS than its domain does (RFC 8689) waits and travels apart from the rest, marked so.
REQUIRETLS = "requiretls:"
ANY_TLS = "anytls:"  # "TLS-Required: No"
POOL = "pool:"  # and so does what leaves from the addresses of a pool: "pool:NAME:DOMAIN"
POOL_NAME = re.compile(r"[a-z0-9_-]{1,40}")
TO_ROUTE = "route:"
TEST_DESTINATION = "test:"  # where a test key's mail goes: nowhere; no domain is written like this

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

# IANA special-purpose address registries (RFC 6890), and what is not unicast at all. Written out, because
# ``ipaddress`` knows different ones in different releases of Python (CVE-2024-4032).
_SPECIAL: tuple[tuple[str, str], ...] = (
    ("0.0.0.0/8", "unspecified"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared by a carrier (RFC 6598)"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved for protocols"),
    ("192.0.2.0/24", "for documentation"),
    ("192.88.99.0/24", "a 6to4 relay"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "for benchmarks"),
    ("198.51.100.0/24", "for documentation"),
    ("203.0.113.0/24", "for documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
    ("2001:db8::/32", "for documentation"),
    ("3fff::/20", "for documentation"),
    ("2001::/23", "reserved for protocols"),
)
_SPECIAL_NETWORKS = tuple((ipaddress.ip_network(text), reason) for text, reason in _SPECIAL)
_UNICAST_6 = ipaddress.IPv6Network("2000::/3")  # all that IANA has given out
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052 §2.1


@dataclass(frozen=True, slots=True)
class Target:
    """One address of one host, to be tried in its turn."""

    host: str
    address: str


def parse_networks(texts: Iterable[str]) -> tuple[IPNetwork, ...]:
    """Return the networks of a setting; raises ValueError for one that is not in CIDR form."""
    return tuple(ipaddress.ip_network(text) for text in texts)


def match_route(domain: str, routes: Sequence[Route]) -> Route | None:
    """Return the first route without a cause whose pattern covers ``domain``.

    "*" is any, "*.x" what lies below x, anything else x alone.
    """
    return next((route for route in routes if route.always and _covers(route.domain.lower(), domain)), None)


def match_cause(domain: str, routes: Sequence[Route], when: str) -> Route | None:
    """Return the first route for mail to ``domain`` that has this cause, or None."""
    return next((route for route in routes if route.when == when and _covers(route.domain.lower(), domain)), None)


def moves_to(destination: str, domain: str, routes: Sequence[Route], attempts: int) -> str | None:
    """Return the destination of mail to ``domain`` that so many attempts did not deliver, where it changes.

    The demand for TLS goes with it, the pool does not: it is the smarthost that the world sees.
    """
    mark, _, name = split(destination)
    if name.startswith(TO_ROUTE) or name in {TEST_DESTINATION, SIMULATOR}:
        return None
    route = next((one for one in routes if 0 < one.after <= attempts and _covers(one.domain.lower(), domain)), None)
    return None if route is None else f"{mark if mark == REQUIRETLS else ''}{TO_ROUTE}{route.host.lower()}"


def match_tls_rule(domain: str, rules: Sequence[TlsRule]) -> TlsRule | None:
    """Return the first rule whose pattern covers ``domain``, as ``match_route`` does."""
    return next((rule for rule in rules if _covers(rule.domain.lower(), domain)), None)


def _covers(pattern: str, domain: str) -> bool:
    return pattern in {"*", domain} or (pattern.startswith("*.") and domain.endswith(pattern[1:]))


def destination_of(
    domain: str, routes: Sequence[Route], *, pool: str = "", requiretls: bool = False, any_tls: bool = False
) -> str:
    """Return what queue and pacing are keyed by: the domain, or "route:HOST:PORT" of its smarthost.

    Of a domain it bears the ``pool``. With ``requiretls`` or, of a domain, ``any_tls`` it bears their mark; the
    former goes before the latter (RFC 8689 §4.1), and what a smarthost must show is our admin's to say, not the
    sender's.
    """
    route = match_route(domain, routes)
    plain = f"{POOL}{pool}:{domain}" if pool else domain
    if route is not None:
        plain = f"{TO_ROUTE}{route.host.lower()}"
    if requiretls:
        return REQUIRETLS + plain
    return ANY_TLS + plain if any_tls and route is None else plain


def split(destination: str) -> tuple[str, str, str]:
    """Return the mark of a destination, its pool (each may be empty), and the domain, route or test behind them."""
    mark = next((one for one in (REQUIRETLS, ANY_TLS) if destination.startswith(one)), "")
    name = destination[len(mark) :]
    if not name.startswith(POOL):
        return mark, "", name
    pool, _, name = name[len(POOL) :].partition(":")
    return mark, pool, name


def order_hosts(answer: MxAnswer, own_hosts: frozenset[str], dice: Random) -> tuple[MxHost, ...] | Failure:
    """Return at most ``MAX_HOSTS`` hosts in the order in which they are tried, or LOOP.

    By preference, equals shuffled, so that a domain's hosts share the work (RFC 5321 §5.1). Where one of them
    is ourselves (a name in ``own_hosts``), it goes and with it all that are not better: they would only send
    the mail back. Nothing left means that we are the best, and that mail would go round for ever.
    """
    own = min((host.preference for host in answer.hosts if host.host in own_hosts), default=None)
    usable = [host for host in answer.hosts if own is None or host.preference < own]
    if not usable:
        return _loop(", ".join(sorted(host.host for host in answer.hosts if host.host in own_hosts)))
    dice.shuffle(usable)
    usable.sort(key=lambda host: host.preference)  # stable: equals stay shuffled
    unique: dict[str, MxHost] = {}
    for host in usable:
        unique.setdefault(host.host, host)
    return tuple(unique.values())[:MAX_HOSTS]


def choose_targets(
    resolved: Sequence[tuple[MxHost, Sequence[str]]],
    *,
    allow: Sequence[IPNetwork],
    own: frozenset[str],
    dice: Random,
) -> tuple[Target, ...] | Failure:
    """Return at most ``MAX_ADDRESSES`` addresses in the order in which they are tried, or LOOP or FORBIDDEN.

    ``resolved`` holds the hosts of ``order_hosts`` with what DNS gave for each, and at least one address in
    all. One of our ``own`` addresses takes its host out, and all hosts that are not better (RFC 5321 §5.1);
    other addresses that ``forbidden`` names are passed over. The addresses of a host are shuffled, its
    families in turn, the family that came first leading.
    """
    looping = min((host.preference for host, found in resolved if _any_own(found, allow, own)), default=None)
    refused: list[str] = []
    chosen: list[list[Target]] = []
    for host, found in resolved:
        if looping is not None and host.preference >= looping:
            continue
        good: list[str] = []
        for address in found:
            reason = forbidden(address, allow, own)
            if reason is None:
                good.append(address)
            else:
                refused.append(f"{address} ({reason})")
        chosen.append([Target(host.host, address) for address in _mixed(good, dice)])
    targets = _capped(chosen)
    if targets:
        return targets
    if refused or looping is None:
        return _failure(FailureKind.FORBIDDEN, f"no address that may be connected to: {', '.join(refused[:5])}")
    return _loop(", ".join(host.host for host, found in resolved if _any_own(found, allow, own)))


def no_addresses(domain: str, answer: MxAnswer, failures: Sequence[Failure]) -> Failure:
    """Return the one failure to report when none of the hosts of ``domain`` has an address that we can use.

    A domain that is its own host and has no address takes no mail, and that is final. MX hosts that do not
    exist are a slip in a zone that somebody keeps, so we wait for it to be mended.
    """
    for kind in (FailureKind.RESOLVER, FailureKind.UNREACHABLE):
        for failure in failures:
            if failure.kind is kind:
                return failure
    if answer.implicit and failures:
        return failures[0]
    hosts = ", ".join(host.host for host in answer.hosts[:3])
    return _failure(FailureKind.RESOLVER, f"no MX host of {domain} has an address in DNS ({hosts})")


def forbidden(address: str, allow: Sequence[IPNetwork], own: frozenset[str]) -> str | None:
    """Return why we never connect to ``address``, or None when we may; ``allow`` goes before every reason.

    Asked about the address that is about to be connected to, after every look-up, since anybody may put
    127.0.0.1 into their own zone. An IPv6 address that carries an IPv4 address (mapped, NAT64, 6to4, Teredo)
    is judged by that as well. ``own`` holds our own addresses in canonical text.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return "not an IP address"
    if ip.version == 6 and ip.scope_id is not None:
        return "link-local"
    carried = _carried(ip)
    if any(one in network for one in (ip, *carried) for network in allow):
        return None
    for one in (ip, *carried):
        if str(one) in own:
            return "our own address"
        reason = _special(one)
        if reason is not None and not (one is ip and carried):
            return reason
    return None


def _carried(ip: IPAddress) -> tuple[ipaddress.IPv4Address, ...]:
    if isinstance(ip, ipaddress.IPv4Address):
        return ()
    if ip.ipv4_mapped is not None:
        return (ip.ipv4_mapped,)
    if ip.sixtofour is not None:
        return (ip.sixtofour,)
    if ip.teredo is not None:
        return ip.teredo
    if ip in _NAT64:
        return (ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF),)
    return ()


def _special(ip: IPAddress) -> str | None:
    for network, reason in _SPECIAL_NETWORKS:
        if ip in network:
            return reason
    return "reserved" if isinstance(ip, ipaddress.IPv6Address) and ip not in _UNICAST_6 else None


def _any_own(found: Sequence[str], allow: Sequence[IPNetwork], own: frozenset[str]) -> bool:
    return any(forbidden(address, allow, own) == "our own address" for address in found)


def _mixed(addresses: Sequence[str], dice: Random) -> list[str]:
    by_family: dict[bool, list[str]] = {}
    for address in dict.fromkeys(addresses):
        by_family.setdefault(":" in address, []).append(address)
    for family in by_family.values():
        dice.shuffle(family)
    return [address for pair in zip_longest(*by_family.values()) for address in pair if address is not None]


def _capped(hosts: Sequence[Sequence[Target]]) -> tuple[Target, ...]:
    """Return ``MAX_ADDRESSES`` in the order of the hosts, the first ones of each before a third of any."""
    room = MAX_ADDRESSES
    shares = [0] * len(hosts)
    for most in (ADDRESSES_PER_HOST, MAX_ADDRESSES):
        for index, targets in enumerate(hosts):
            more = min(room, min(len(targets), most) - shares[index])
            shares[index] += more
            room -= more
    return tuple(target for targets, share in zip(hosts, shares, strict=True) for target in targets[:share])


def _loop(hosts: str) -> Failure:
    return _failure(FailureKind.LOOP, f"mail for this domain would come back to us: its best MX is {hosts}")


def _failure(kind: FailureKind, detail: str) -> Failure:
    return Failure(kind, Stage.RESOLVE, detail[:500])
