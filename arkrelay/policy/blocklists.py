"""DNS blocklists, asked so that a list or a resolver that lies is found out (RFC 5782).

A list that answers is first asked about addresses that it must and must not have. Lists that turn a resolver away
say so in codes that a careless program takes for "listed": those are told apart.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from arkrelay.model.reply import Failure
from arkrelay.policy.finding import Finding, Level

LISTED_V4, UNLISTED_V4 = "127.0.0.2", "127.0.0.1"  # RFC 5782 §5: must and must not be there
LISTED_V6, UNLISTED_V6 = "::ffff:7f00:2", "::ffff:7f00:1"  # the same as IPv6
LISTED_NAME, UNLISTED_NAME = "test", "invalid"  # RFC 5782 §5, for lists of domains
DBL_TEST = "dbltest.com"  # Spamhaus DBL has this instead
KEYED = ".dq.spamhaus.net"  # KEY.zen.dq.spamhaus.net, whose answers are for who has the key
POLICY_CODES = frozenset(
    {"127.0.0.10", "127.0.0.11"}
)  # Spamhaus PBL: addresses from which no mail server is expected
_CODES = ipaddress.ip_network("127.0.0.0/8")  # RFC 5782 §2.3: answers are of this network
_REFUSALS = ipaddress.ip_network("127.255.255.0/24")  # Spamhaus: "not you", whatever was asked; others took it over

SILENT = "nothing: the list did not answer this time"

Answer = Sequence[str] | Failure
_Said = tuple[Level, str, str, str]  # level, found, expected, advice


@dataclass(frozen=True, slots=True)
class Heard:
    """What a list says: of the subject, of what must be listed, and of what must not be."""

    zone: str
    subject: Answer
    listed: Answer
    unlisted: Answer
    text: str = ""  # its reason, from TXT


def question(subject: str, zone: str) -> str:
    """Return the name to look up for an address (RFC 5782 §2.1, §2.4) or a domain (§3)."""
    try:
        address = ipaddress.ip_address(subject)
    except ValueError:
        return f"{subject}.{zone}"
    return f"{address.reverse_pointer.rpartition('.')[0].rpartition('.')[0]}.{zone}"


def controls(subject: str, zone: str) -> tuple[str, str]:
    """Return what the list must have, and what it must not have, of the same kind as ``subject``."""
    try:
        version = ipaddress.ip_address(subject).version
    except ValueError:
        return (DBL_TEST if "dbl" in zone.split(".") else LISTED_NAME), UNLISTED_NAME
    return (LISTED_V4, UNLISTED_V4) if version == 4 else (LISTED_V6, UNLISTED_V6)


def judge(check: str, subject: str, heard: Heard, domain: str = "") -> Finding:
    """Return what the list says of the subject, or why it says nothing that counts."""
    level, *words = _judge(subject, heard)
    zone, key = public_zone(heard.zone)
    found, expected, advice = (word.replace(f"{key}.", "") if key else word for word in words)
    return Finding(check, f"{subject} {zone}", level, found, expected, advice, domain)


def public_zone(zone: str) -> tuple[str, str]:
    """Return the zone as it may be shown, and the key that is left off: Spamhaus sells lists under names with one."""
    key, _, rest = zone.partition(".")
    return (rest, key) if rest.endswith(KEYED) else (zone, "")


def _judge(subject: str, heard: Heard) -> _Said:
    if isinstance(heard.subject, Failure):
        return Level.SKIP, heard.subject.detail[:200], "an answer", SILENT
    if isinstance(heard.listed, Failure):
        return Level.SKIP, heard.listed.detail[:200], "an answer", SILENT
    if isinstance(heard.unlisted, Failure):
        return Level.SKIP, heard.unlisted.detail[:200], "an answer", SILENT
    liar = _liar(heard.zone, (*heard.subject, *heard.listed, *heard.unlisted))
    if liar is not None:
        return liar
    if heard.unlisted:
        found = "the list has everything, also what it must not have (RFC 5782 §5); this is no listing"
        return Level.WARN, found, "a list that works", f"take {heard.zone} out of [doctor] blocklists"
    if heard.subject:
        return _listed(heard.subject, heard.text)
    if heard.listed:
        return Level.OK, "not listed", "", ""
    if ":" in subject:
        return Level.SKIP, "not listed, but the list has no IPv6 test entry: it may know none of them", "", ""
    found = "the list lacks its test entry (RFC 5782 §5), so its silence proves nothing"
    advice = f"take {heard.zone} out of [doctor] blocklists, unless this passes within the hour"
    return Level.WARN, found, "a list that works", advice


def _liar(zone: str, codes: Sequence[str]) -> _Said | None:
    """Return what to say of answers that are no answers of a blocklist, or None."""
    refused = next((code for code in codes if _within(code, _REFUSALS)), None)
    if refused is not None:
        found = f"the list refuses the resolver ({refused}); this is no listing"
        own = "use a resolver of your own (unbound on this machine) in [dns] nameservers"
        return Level.WARN, found, "a resolver that the list answers", f"{own}, or take {zone} out of [doctor]"
    wrong = next((code for code in codes if not _within(code, _CODES)), None)
    if wrong is not None:
        found = f"{wrong} is no answer of a blocklist: the resolver or the list makes answers up"
        other = "use a resolver that does not redirect unknown names"
        return Level.WARN, found, "answers in 127.0.0.0/8", f"{other}, or take {zone} out of [doctor] blocklists"
    return None


def _listed(codes: Sequence[str], text: str) -> _Said:
    found = f"listed, {', '.join(codes)}{f': {text[:150]}' if text else ''}"
    if set(codes) <= POLICY_CODES:
        advice = "the owner of the network says that no mail server is here: ask your provider, or remove it there"
    else:
        advice = "find out what was sent, stop it, then ask for removal at the list's own page"
    return Level.FAIL, found, "not listed", advice


def _within(code: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(code) in network
    except ValueError:
        return False
