"""The DNS records that a sender domain needs, held against the records found.

Ark contract §13 says which: an SPF include, a DKIM key for each signing key, and the return path as an alias of
our bounce host. What is found is judged by what a receiver would make of it, not by equal strings: two SPF
records are none (RFC 7208 §4.5), an include behind ``all`` is never reached, and a DKIM record is its tags.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from arkrelay.model.domain import DnsStatus
from arkrelay.model.reply import Failure
from arkrelay.policy.zones import zone_of

RETURN_PATH_LABEL = "psrp"  # Ark contract §13
TXT_STRING_MAX = 255  # RFC 1035 §3.3.14: one character-string
DEFAULT_TTL_S = 3600
_SHOWN_MAX = 80  # of a stranger's record, in an error
_MERGED_MAX = 200  # of one that is to be pasted back


@dataclass(frozen=True, slots=True)
class Record:
    """One record to publish; ``name`` is relative to the zone, "@" for the zone itself."""

    type: str  # TXT | CNAME
    name: str
    full_name: str
    value: str


@dataclass(frozen=True, slots=True)
class RecordSet:
    """All that a domain needs; ``dkim`` has one record for each key, in the order of the keys."""

    domain: str
    zone: str
    spf: Record
    dkim: tuple[Record, ...]
    return_path: Record

    @property
    def all(self) -> tuple[Record, ...]:
        return (self.spf, *self.dkim, self.return_path)


Answer = Sequence[str] | Failure  # () where there is nothing; a Failure where DNS could not be asked


@dataclass(frozen=True, slots=True)
class Found:
    """What DNS has now; ``dkim`` is keyed by the full name of the record."""

    spf: Answer
    dkim: Mapping[str, Answer]
    return_path: Answer


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a record stands; ``error`` says what to change, or why ``status`` is None: it could not be asked."""

    status: DnsStatus | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The verdict on each part; ``dkim`` is the worst of its keys', which ``keys`` has by full name."""

    spf: Verdict
    dkim: Verdict
    return_path: Verdict
    keys: Mapping[str, Verdict]

    @property
    def verified(self) -> bool:
        """True when all three are OK (Ark contract §13)."""
        return all(part.status is DnsStatus.OK for part in (self.spf, self.dkim, self.return_path))


_OK = Verdict(DnsStatus.OK)
_UNKNOWN = Verdict(None)  # never asked


def wanted(
    domain: str, keys: Iterable[tuple[str, str]], spf_host: str, return_path_host: str, zone: str = ""
) -> RecordSet:
    """Return the records that ``domain`` (A-labels, lower case) needs; ``keys`` are (selector, record value).

    ``zone`` is the one that they are published in, where that is not the registrable domain.
    """
    zone = zone or zone_of(domain)

    def record(kind: str, full_name: str, value: str) -> Record:
        return Record(kind, _relative(full_name, zone), full_name, value)

    return RecordSet(
        domain=domain,
        zone=zone,
        spf=record("TXT", domain, f"v=spf1 a mx include:{spf_host} ~all"),
        dkim=tuple(record("TXT", f"{selector}._domainkey.{domain}", value) for selector, value in keys),
        return_path=record("CNAME", f"{RETURN_PATH_LABEL}.{domain}", return_path_host),
    )


def wanted_alias(full_name: str, track_host: str) -> Record:
    """Return the record that a track domain needs (Ark contract §12)."""
    return Record("CNAME", _relative(full_name, zone_of(full_name)), full_name, track_host)


def judge_alias(record: Record, found: Answer) -> Verdict:
    """Return how the record of a track domain stands against what DNS has."""
    return _judge_alias(record, zone_of(record.full_name), found)


def judge(records: RecordSet, found: Found) -> Verdicts:
    """Return how each record stands against what DNS has."""
    keys = {key.full_name: _judge_dkim(key, found.dkim[key.full_name]) for key in records.dkim}
    return Verdicts(
        spf=_judge_spf(records.spf, found.spf),
        dkim=_worst(keys) if keys else Verdict(DnsStatus.MISSING, "the domain has no signing key"),
        return_path=_judge_alias(records.return_path, records.zone, found.return_path),
        keys=keys,
    )


def _judge_spf(record: Record, found: Answer) -> Verdict:
    if isinstance(found, Failure):
        return Verdict(None, found.detail)
    policies = [text for text in found if text.lower().split(" ", 1)[0] == "v=spf1"]  # RFC 7208 §4.5
    include = next(term.lower() for term in record.value.split() if term.startswith("include:"))
    if not policies:
        return Verdict(DnsStatus.MISSING, f'no SPF record at {record.full_name}: publish "{record.value}"')
    if len(policies) > 1:
        return _invalid(
            f"{len(policies)} SPF records at {record.full_name}, and receivers then take none: merge them"
        )
    terms = [term.lower().removeprefix("+").removesuffix(".") for term in policies[0].split()]
    if include not in terms:
        merged = merged_spf(policies[0], record)
        if len(merged) > _MERGED_MAX:  # half a record must not be pasted
            return _invalid(f'the SPF record lacks "{include}": {_shown(policies[0])}')
        return _invalid(f'the SPF record lacks "{include}": make it {_shown(merged, _MERGED_MAX)}')
    before = terms[: terms.index(include)]
    if any(term.lstrip("-~?") == "all" for term in before):
        return _invalid(f'"{include}" stands behind "all" in the SPF record, where nobody reads it')
    return _OK


def _judge_dkim(record: Record, found: Answer) -> Verdict:
    if isinstance(found, Failure):
        return Verdict(None, found.detail)
    if not found:
        return Verdict(DnsStatus.MISSING, f"no TXT record at {record.full_name}")
    if len(found) > 1:
        return _invalid(f"{len(found)} TXT records at {record.full_name}: leave one (RFC 6376 §3.6.2.2)")
    fault = _dkim_fault(_parse_tags(record.value) or {}, _parse_tags(found[0]))
    return _OK if fault is None else _invalid(f"{fault} at {record.full_name}: {_shown(found[0])}")


def _dkim_fault(ours: Mapping[str, str], theirs: Mapping[str, str] | None) -> str | None:
    """Return what keeps a receiver from verifying our signatures with the tags found (RFC 6376 §3.6.1)."""
    if theirs is None or theirs.get("v", "DKIM1") != "DKIM1" or "p" not in theirs:
        return "no DKIM record"
    faults = (
        (not theirs["p"], "the key is revoked (empty p=)"),
        (theirs.get("k", "rsa") != ours.get("k", "rsa"), "another kind of key"),
        (theirs["p"] != ours.get("p"), "another key"),
        ("y" in theirs.get("t", "").split(":"), "t=y, by which receivers ignore the signature"),
        ("sha256" not in theirs.get("h", "sha256").split(":"), "h= without sha256"),
        (not {"*", "email"} & set(theirs.get("s", "*").split(":")), "s= without email"),
    )
    return next((text for wrong, text in faults if wrong), None)


def _judge_alias(record: Record, zone: str, found: Answer) -> Verdict:
    if isinstance(found, Failure):
        return Verdict(None, found.detail)
    if not found:
        return Verdict(DnsStatus.MISSING, f"no CNAME record at {record.full_name}: point it to {record.value}")
    targets = [target.lower().removesuffix(".") for target in found]
    if targets == [record.value.lower()]:
        return _OK
    hint = ""
    if targets == [f"{record.value.lower()}.{zone}"]:
        hint = "; the zone was appended: end the target with a dot"
    return _invalid(f"{record.full_name} points to {_shown(', '.join(targets))}, not to {record.value}{hint}")


def _parse_tags(text: str) -> dict[str, str] | None:
    """Return the tags of a tag list without white space, or None where it is none (RFC 6376 §3.2)."""
    tags: dict[str, str] = {}
    for part in "".join(text.split()).split(";"):
        name, equals, value = part.partition("=")
        if not part:
            continue
        if not equals or not name or name in tags:
            return None
        tags[name] = value
    return tags


def _worst(keys: Mapping[str, Verdict]) -> Verdict:
    rank = {DnsStatus.INVALID: 0, DnsStatus.MISSING: 1, None: 2, DnsStatus.OK: 3}
    return min(keys.values(), key=lambda verdict: rank[verdict.status])


def _invalid(error: str) -> Verdict:
    return Verdict(DnsStatus.INVALID, error)


def _shown(text: str, most: int = _SHOWN_MAX) -> str:
    safe = "".join(character if character.isprintable() else "?" for character in text)
    return safe if len(safe) <= most else safe[: most - 1] + "…"


def _relative(full_name: str, zone: str) -> str:
    return "@" if full_name == zone else full_name.removesuffix(f".{zone}")


def render_rows(records: RecordSet, verdicts: Verdicts | None = None) -> list[tuple[str, str, str, str, str]]:
    """Return (type, name, value, status, error) of every record, for a table."""
    rows = []
    for record in records.all:
        verdict = _verdict_of(records, record, verdicts)
        rows.append((record.type, record.name, record.value, verdict.status or "", verdict.error or ""))
    return rows


def render_json(records: RecordSet, verdicts: Verdicts | None = None) -> dict[str, Any]:
    """Return the ``dnsRecords`` object of REST (Ark contract §8.7), and ``dkimKeys`` where there are several keys."""

    def shape(record: Record) -> dict[str, Any]:
        return {
            "type": record.type,
            "name": record.name,
            "fullName": record.full_name,
            "value": record.value,
            "status": _verdict_of(records, record, verdicts).status,
        }

    shaped: dict[str, Any] = {"zone": records.zone, "spf": shape(records.spf)}
    if records.dkim:
        shaped["dkim"] = shape(records.dkim[0])
    if len(records.dkim) > 1:
        shaped["dkimKeys"] = [shape(record) for record in records.dkim]
    shaped["returnPath"] = shape(records.return_path)
    return shaped


def _verdict_of(records: RecordSet, record: Record, verdicts: Verdicts | None) -> Verdict:
    if verdicts is None:
        return _UNKNOWN
    if record is records.spf:
        return verdicts.spf
    return verdicts.return_path if record is records.return_path else verdicts.keys.get(record.full_name, _UNKNOWN)


def merged_spf(published: str, record: Record) -> str:
    """Return a published SPF record with our include in it, before its ``all`` or redirect."""
    include = next(term for term in record.value.split() if term.startswith("include:"))
    terms = [term for term in published.split() if term.lower().lstrip("+-~?") != include]
    ends = [
        place
        for place, term in enumerate(terms)
        if term.lower().lstrip("+-~?") == "all" or term.startswith("redirect=")
    ]
    terms.insert(ends[0] if ends else len(terms), include)
    return " ".join(terms)
