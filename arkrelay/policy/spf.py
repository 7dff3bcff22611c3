"""What a receiver makes of an SPF record, for one address of ours: ``check_host`` of RFC 7208, whole.

It is a generator, so that it stays pure: it yields a ``Question``, is sent what DNS has, and returns the
``SpfResult``. Two things differ from the letter. ``ptr`` never matches: RFC 7208 §5.5 says not to use it, large
receivers skip it, and what passes by it alone does not pass everywhere. ``exp=`` is read and not fetched, because
nobody is to be told.
"""

import ipaddress
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from arkrelay.model.reply import Failure
from arkrelay.policy.spfrecord import (
    Identity,
    IPAddress,
    Mechanism,
    SpfRecord,
    SpfSyntax,
    expand,
    is_spf,
    parse_record,
)

LOOKUPS_MAX = 10  # RFC 7208 §4.6.4: terms that cause look-ups
VOID_MAX = 2  # RFC 7208 §4.6.4: of these, with nothing there
MX_MAX = 10  # RFC 7208 §4.6.4: hosts of one "mx"
LABEL_MAX = 63  # RFC 1035 §2.3.4

Answer = Sequence[str] | Failure  # () where there is nothing; a Failure where DNS could not be asked


@dataclass(frozen=True, slots=True)
class Question:
    """What DNS is asked: ``kind`` is TXT, A, AAAA or MX (answered as "preference host")."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class SpfResult:
    """The result (RFC 7208 §2.6) and why; ``lookups`` and ``void`` are what the limits count."""

    result: str  # none | neutral | pass | fail | softfail | temperror | permerror
    reason: str
    lookups: int = 0
    void: int = 0
    notes: tuple[str, ...] = ()  # what works and should be changed


Asking = Generator[Question, Answer, SpfResult]


class _End(Exception):
    """The evaluation ends here, whatever is left of it."""

    def __init__(self, result: str, reason: str) -> None:
        self.result, self.reason = result, reason
        super().__init__(reason)


def check_host(ip: str, sender: str, helo: str) -> Asking:
    """Return what SPF says of mail from ``sender`` ("local@domain", or a domain alone) by the client ``ip``."""
    local, at, domain = sender.rpartition("@")
    address = ipaddress.ip_address(ip)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped  # RFC 7208 §5
    full = f"{local}@{domain}" if at and local else f"postmaster@{domain}"  # RFC 7208 §4.3
    return _Evaluation(Identity(address, full, helo)).run(domain.lower().removesuffix("."))


def host_of(mx: str) -> str:
    """Return the host of an MX record in text form, empty for a null MX."""
    return mx.partition(" ")[2].removesuffix(".").lower()


@dataclass(slots=True)
class _Evaluation:
    identity: Identity
    lookups: int = 0
    void: int = 0
    notes: list[str] = field(default_factory=list)

    def run(self, domain: str) -> Asking:
        try:
            result, reason = yield from self._check(domain)
        except _End as end:
            result, reason = end.result, end.reason
        return SpfResult(result, reason, self.lookups, self.void, tuple(dict.fromkeys(self.notes)))

    def _check(self, domain: str) -> Generator[Question, Answer, tuple[str, str]]:
        record = yield from self._record(domain)
        if record is None:
            return "none", f"{domain} has no SPF record"
        for mechanism in record.mechanisms:
            if (yield from self._matches(mechanism, domain)):
                return mechanism.result, f'"{mechanism.text}" of {domain} matches'
        if record.redirect and not any(one.name == "all" for one in record.mechanisms):
            self._count(f"redirect={record.redirect}")
            target = expand(record.redirect, self.identity, domain)
            result, reason = yield from self._check(target)
            if result == "none":  # RFC 7208 §6.1
                raise _End("permerror", f"redirect of {domain}: {reason}")
            return result, reason
        return "neutral", f"nothing in the SPF record of {domain} matches"

    def _record(self, domain: str) -> Generator[Question, Answer, SpfRecord | None]:
        if not _is_name(domain):
            return None  # RFC 7208 §4.3
        texts = yield Question(domain, "TXT")
        if isinstance(texts, Failure):
            raise _End("temperror", texts.detail)
        records = [text for text in texts if is_spf(text)]
        if len(records) > 1:
            raise _End("permerror", f"{domain} has {len(records)} SPF records, and receivers then take none")
        if not records:
            return None
        try:
            return parse_record(records[0])
        except SpfSyntax as error:
            raise _End("permerror", f"the SPF record of {domain} cannot be read: {error}") from None

    def _matches(self, mechanism: Mechanism, domain: str) -> Generator[Question, Answer, bool]:
        ip = self.identity.ip
        match mechanism.name:
            case "all":
                return True
            case "ip4" | "ip6":
                return mechanism.network is not None and ip in mechanism.network
        self._count(mechanism.text)
        target = expand(mechanism.spec, self.identity, domain) if mechanism.spec else domain
        match mechanism.name:
            case "include":
                return (yield from self._include(mechanism, target))
            case "a":
                return (yield from self._has_address(target, mechanism))
            case "mx":
                return (yield from self._mx(target, mechanism))
            case "exists":
                return bool((yield from self._ask(Question(target, "A"))))
        self.notes.append(f'"{mechanism.text}" of {domain} is skipped by large receivers (RFC 7208 §5.5)')
        return False

    def _include(self, mechanism: Mechanism, target: str) -> Generator[Question, Answer, bool]:
        result, reason = yield from self._check(target)
        if result == "none":  # RFC 7208 §5.2
            raise _End("permerror", f'"{mechanism.text}": {reason}')
        return result == "pass"

    def _mx(self, target: str, mechanism: Mechanism) -> Generator[Question, Answer, bool]:
        found = yield from self._ask(Question(target, "MX"))
        hosts = [host for host in map(host_of, found) if host]
        if len(hosts) > MX_MAX:
            raise _End("permerror", f'"{mechanism.text}": {target} has {len(hosts)} MX hosts, over {MX_MAX}')
        matched = False
        for host in hosts:  # all of them, as the receivers do that count the most void look-ups
            matched = (yield from self._has_address(host, mechanism)) or matched
        return matched

    def _has_address(self, host: str, mechanism: Mechanism) -> Generator[Question, Answer, bool]:
        ip = self.identity.ip
        found = yield from self._ask(Question(host, "A" if ip.version == 4 else "AAAA"))
        bits = mechanism.bits[0 if ip.version == 4 else 1]
        return any(_equal(ip, address, bits) for address in found)

    def _ask(self, question: Question) -> Generator[Question, Answer, Sequence[str]]:
        """Ask, and count an answer with nothing in it."""
        answer: Answer = () if not _is_name(question.name) else (yield question)
        if isinstance(answer, Failure):
            raise _End("temperror", answer.detail)
        if not answer:
            self.void += 1
            if self.void > VOID_MAX:
                raise _End(
                    "permerror",
                    f"more than {VOID_MAX} look-ups find nothing, the last for {question.kind} of {question.name}",
                )
        return answer

    def _count(self, term: str) -> None:
        self.lookups += 1
        if self.lookups > LOOKUPS_MAX:
            raise _End("permerror", f'more than {LOOKUPS_MAX} look-ups, at "{term}"')


def _equal(ip: IPAddress, text: str, bits: int) -> bool:
    try:
        other = ipaddress.ip_address(text)
    except ValueError:
        return False
    return other.version == ip.version and int(ip) >> (ip.max_prefixlen - bits) == int(other) >> (
        ip.max_prefixlen - bits
    )


def _is_name(domain: str) -> bool:
    """Return whether DNS can be asked for it: several labels, none empty or too long (RFC 7208 §4.3)."""
    labels = domain.split(".")
    return len(labels) > 1 and len(domain) <= 253 and all(0 < len(label) <= LABEL_MAX for label in labels)
