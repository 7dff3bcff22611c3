"""An SPF record taken apart (RFC 7208 §4.6.1, §5, §6), and the macros in it (§7)."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

QUALIFIERS = {"+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}  # RFC 7208 §4.6.2
NAME_MAX = 253  # RFC 7208 §7.3: of a longer expansion the left labels go
VERSION = "v=spf1"

_TERM = re.compile(r"(?P<qualifier>[-+~?]?)(?P<name>[A-Za-z][A-Za-z0-9._-]*)(?P<mark>[:=/]?)(?P<rest>.*)", re.DOTALL)
_CIDR = re.compile(r"(?P<spec>.*?)(?:/(?P<four>0|[1-9]\d?))?(?://(?P<six>0|[1-9]\d{0,2}))?", re.DOTALL)
_EXPAND = r"%\{[slodiphSLODIPH]\d*[rR]?[-.+,/_=]*\}|%%|%_|%-"
_MACRO_STRING = re.compile(rf"(?:{_EXPAND}|[!-$&-~])*")
_EXPLAIN_STRING = re.compile(rf"(?:{_EXPAND}|%\{{[crtCRT]\d*[rR]?[-.+,/_=]*\}}|[!-$&-~])*")
_MACRO = re.compile(r"%\{(?P<letter>[A-Za-z])(?P<digits>\d*)(?P<reverse>[rR]?)(?P<marks>[-.+,/_=]*)\}|%([%_-])")
_END = re.compile(
    r"(?:.*\.(?=[A-Za-z0-9-]*[A-Za-z-])[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.?|.*%\{[^}]*\})", re.DOTALL
)
_DOMAIN_ONLY = frozenset({"include", "exists"})
_WITH_CIDR = frozenset({"a", "mx"})


class SpfSyntax(ValueError):
    """The record is not one: permerror for every receiver (RFC 7208 §4.6)."""


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One mechanism; ``text`` is it as written. ``spec`` is empty for the domain itself."""

    text: str
    name: str  # all | include | a | mx | ptr | ip4 | ip6 | exists
    result: str  # of a match
    spec: str = ""
    network: IPNetwork | None = None  # ip4, ip6
    bits: tuple[int, int] = (32, 128)  # of IPv4 and IPv6 addresses that must be equal: a, mx


@dataclass(frozen=True, slots=True)
class SpfRecord:
    """The mechanisms in their order, and where to go on when none matches."""

    mechanisms: tuple[Mechanism, ...]
    redirect: str = ""


def is_spf(text: str) -> bool:
    """Return whether a TXT record claims to be an SPF record (RFC 7208 §4.5)."""
    return text[: len(VERSION)].lower() == VERSION and text[len(VERSION) : len(VERSION) + 1] in {"", " "}


def parse_record(text: str) -> SpfRecord:
    """Return the record, or raise SpfSyntax: one wrong term anywhere spoils all of it (RFC 7208 §4.6)."""
    if not text.isascii():
        raise SpfSyntax("it has letters that are not ASCII")
    mechanisms: list[Mechanism] = []
    modifiers: dict[str, str] = {}
    for term in text[len(VERSION) :].split(" "):
        if not term:
            continue
        match = _TERM.fullmatch(term)
        if match is None:
            raise SpfSyntax(f'"{term}" is no term')
        if match["mark"] == "=":
            _modifier(term, match, modifiers)
        else:
            mechanisms.append(_mechanism(term, match))
    return SpfRecord(tuple(mechanisms), modifiers.get("redirect", ""))


def _modifier(term: str, match: re.Match[str], modifiers: dict[str, str]) -> None:
    name, value = match["name"].lower(), match["rest"]
    if match["qualifier"]:
        raise SpfSyntax(f'"{term}" is a modifier, and takes no {match["qualifier"]}')
    if name in {"redirect", "exp"}:
        if name in modifiers:
            raise SpfSyntax(f"{name}= appears twice")
        modifiers[name] = _domain_spec(value, term)
    elif not _EXPLAIN_STRING.fullmatch(value):  # unknown modifiers are passed over, and still must be macro strings
        raise SpfSyntax(f'"{term}" has a macro that is none')


def _mechanism(term: str, match: re.Match[str]) -> Mechanism:
    name, mark, rest = match["name"].lower(), match["mark"], match["rest"]
    result = QUALIFIERS[match["qualifier"] or "+"]
    if name == "all" and not mark:
        return Mechanism(term, name, result)
    if name in _DOMAIN_ONLY and mark == ":":
        return Mechanism(term, name, result, _domain_spec(rest, term))
    if name == "ptr" and mark in {"", ":"}:
        return Mechanism(term, name, result, _domain_spec(rest, term) if mark else "")
    if name in {"ip4", "ip6"} and mark == ":":
        return Mechanism(term, name, result, network=_network(name, rest, term))
    if name in _WITH_CIDR:
        return _with_cidr(term, name, result, mark, rest)
    raise SpfSyntax(f'"{term}" is no mechanism')


def _with_cidr(term: str, name: str, result: str, mark: str, rest: str) -> Mechanism:
    cidr = _CIDR.fullmatch(f"/{rest}" if mark == "/" else rest)
    assert cidr is not None  # noqa: S101 -- its first group takes anything
    spec = cidr["spec"]
    if mark != ":" and spec:
        raise SpfSyntax(f'"{term}" has a length that is none')
    four, six = int(cidr["four"] or 32), int(cidr["six"] or 128)
    if cidr["four"] == "0":
        four = 0
    if cidr["six"] == "0":
        six = 0
    if four > 32 or six > 128:
        raise SpfSyntax(f'"{term}" has a length that is none')
    return Mechanism(term, name, result, _domain_spec(spec, term) if mark == ":" else "", bits=(four, six))


def _network(name: str, text: str, term: str) -> IPNetwork:
    address, slash, length = text.partition("/")
    if slash and not (length.isdigit() and (length == "0" or length[0] != "0")):
        raise SpfSyntax(f'"{term}" has a length that is none')
    try:
        if name == "ip4":
            return ipaddress.IPv4Network(f"{ipaddress.IPv4Address(address)}/{length or 32}", strict=False)
        return ipaddress.IPv6Network(f"{ipaddress.IPv6Address(address)}/{length or 128}", strict=False)
    except ValueError:
        raise SpfSyntax(f'"{term}" is no {"IPv4" if name == "ip4" else "IPv6"} network') from None


def _domain_spec(text: str, term: str) -> str:
    if not text or not _MACRO_STRING.fullmatch(text) or not _END.fullmatch(text):
        raise SpfSyntax(f'"{term}" names no domain')
    return text


@dataclass(frozen=True, slots=True)
class Identity:
    """What macros speak of: the client, and for whom it says to send."""

    ip: IPAddress
    sender: str  # local@domain
    helo: str


def expand(spec: str, identity: Identity, domain: str) -> str:
    """Return the domain that a domain-spec means (RFC 7208 §7), without a final dot.

    ``%{p}`` is "unknown", which §7.3 allows where nobody wants to look the name up.
    """
    local, _, sender_domain = identity.sender.rpartition("@")
    ip = identity.ip
    dotted = str(ip) if ip.version == 4 else ".".join(ip.exploded.replace(":", ""))
    values = {
        "s": identity.sender,
        "l": local,
        "o": sender_domain,
        "d": domain,
        "i": dotted,
        "p": "unknown",
        "v": "in-addr" if ip.version == 4 else "ip6",
        "h": identity.helo,
    }
    name = _MACRO.sub(lambda match: _value(match, values), spec).removesuffix(".")
    while len(name) > NAME_MAX and "." in name:
        name = name.partition(".")[2]
    return name.lower()


def _value(match: re.Match[str], values: Mapping[str, str]) -> str:
    if match["letter"] is None:
        return {"%": "%", "_": " ", "-": "%20"}[match[5]]
    value = values[match["letter"].lower()]
    parts = re.split(f"[{re.escape(match['marks'] or '.')}]", value)
    if match["reverse"]:
        parts.reverse()
    if match["digits"]:
        parts = parts[-max(int(match["digits"]), 1) :]
    value = ".".join(parts)
    return quote(value, safe="") if match["letter"].isupper() else value
