"""DMARC as receivers read it (RFC 9989): the record, the organisational domain by tree walk, and alignment.

The tree walk is a generator that yields the names whose TXT records it wants, so that it stays pure.
"""

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field

from arkrelay.model.reply import Failure

WALK_LABELS = 8  # RFC 9989 §4.10: a longer name is cut to seven labels after the first question
GONE = ("pct", "rf", "ri")  # tags of RFC 7489 that RFC 9989 took away

_VERSION = re.compile(r"v\s*=\s*DMARC1\s*(?:;|$)")  # RFC 9989 §4.7: first, and in capitals
# RFC 9989 §4.7: where reports go; the size behind "!" is of RFC 7489 §6.2
_MAILTO = re.compile(r"mailto:[^@\s]+@([A-Za-z0-9.-]+)(?:!\d+[kmgt]?)?", re.IGNORECASE)
_POLICIES = frozenset({"none", "quarantine", "reject"})
_CHOICES = {
    "p": _POLICIES,
    "sp": _POLICIES,
    "np": _POLICIES,
    "adkim": {"r", "s"},
    "aspf": {"r", "s"},
    "psd": {"y", "n", "u"},
    "t": {"y", "n"},
}

Answer = Sequence[str] | Failure
Walk = Generator[str, Answer, "Found"]


@dataclass(frozen=True, slots=True)
class DmarcRecord:
    """One record; ``tags`` is what it says, by lower-case name, ``problems`` what receivers pass over in it."""

    text: str
    tags: Mapping[str, str]
    problems: tuple[str, ...] = ()

    @property
    def policy(self) -> str:
        return self.tags.get("p", "none").lower()

    @property
    def report_hosts(self) -> tuple[str, ...]:
        """Whose mailboxes get aggregate reports (rua=), each once."""
        found = (_MAILTO.fullmatch(one.strip()) for one in self.tags.get("rua", "").split(","))
        return tuple(dict.fromkeys(one[1].lower().rstrip(".") for one in found if one is not None))

    @property
    def strict_dkim(self) -> bool:
        return self.tags.get("adkim", "r").lower() == "s"

    @property
    def strict_spf(self) -> bool:
        return self.tags.get("aspf", "r").lower() == "s"


@dataclass(frozen=True, slots=True)
class Found:
    """What a tree walk found: the policy record that applies and where it is, and the organisational domain.

    ``faults`` are records that count as none, and why; ``trouble`` a look-up that failed: then nothing is certain.
    """

    organisation: str
    record: DmarcRecord | None = None
    at: str = ""
    faults: tuple[str, ...] = ()
    trouble: str = ""


@dataclass(slots=True)
class _Walked:
    records: dict[str, DmarcRecord] = field(default_factory=dict)  # by domain, the longest first
    faults: list[str] = field(default_factory=list)
    trouble: str = ""


def parse_record(text: str) -> DmarcRecord | None:
    """Return the record, or None: it is none, or one that receivers must ignore (RFC 9989 §4.7, §4.8).

    A tag with a value that is unknown counts as absent; a record without a usable p= counts as p=none where it has
    rua=, and as none at all otherwise.
    """
    if not _VERSION.match(text):
        return None
    tags, problems = _tags(text)
    if "p" not in tags and "rua" not in tags:
        return None
    if "p" not in tags:
        problems.append("without p= it counts as p=none")
    if "rua" in tags and not all(_MAILTO.fullmatch(one.strip()) for one in tags["rua"].split(",")):
        problems.append("rua= takes addresses as mailto:NAME@DOMAIN, with commas between them")
    return DmarcRecord(text, tags, tuple(problems))


def _tags(text: str) -> tuple[dict[str, str], list[str]]:
    """Return the tags that count, and what is wrong with the others."""
    tags: dict[str, str] = {}
    problems: list[str] = []
    for part in text.split(";")[1:]:
        name, equals, value = (piece.strip() for piece in part.partition("="))
        name = name.lower()
        if not part.strip():
            continue
        if not equals:
            problems.append(f'"{part.strip()}" is no tag')
        elif name in tags:
            problems.append(f"{name}= appears twice")
        elif name in GONE:
            problems.append(f"{name}= is no tag of DMARC any more, and is ignored")
        elif name in _CHOICES and value.lower() not in _CHOICES[name]:
            problems.append(f"{name}={value} means nothing")
        else:
            tags[name] = value
    return tags, problems


def permission(domain: str, host: str) -> str:
    """Return the name at which ``host`` says that it wants the reports about another house's ``domain``.

    RFC 7489 §7.1, which RFC 9990 keeps: without it, reports are not sent there.
    """
    return f"{domain}._report._dmarc.{host}"


def permits(texts: Sequence[str]) -> bool:
    """Return whether these TXT records give that permission."""
    return any(_VERSION.match(text) for text in texts)


def walk(domain: str) -> Walk:
    """Return the DMARC record for mail whose author's domain is ``domain``, and its organisational domain."""
    walked = _Walked()
    for name in _names(domain):
        answer = yield f"_dmarc.{name}"
        if isinstance(answer, Failure):
            walked.trouble = answer.detail
            break
        record = _only(name, answer, walked.faults)
        if record is not None:
            walked.records[name] = record
            if record.tags.get("psd", "u").lower() in {"y", "n"}:
                break
    organisation = _organisation(domain, walked.records)
    # RFC 9989 §4.10.1: its own record, else the organisation's, else that of a public suffix above
    ends = list(walked.records)[-1:]
    for at in (domain, organisation, *ends):
        if at in walked.records:
            return Found(organisation, walked.records[at], at, tuple(walked.faults), walked.trouble)
    return Found(organisation, faults=tuple(walked.faults), trouble=walked.trouble)


def aligned(one: str, other: str, organisations: tuple[str, str], *, strict: bool) -> bool:
    """Return whether two domains align (RFC 9989 §4.4); ``organisations`` are theirs, by tree walk."""
    return one == other or (not strict and organisations[0] == organisations[1])


def _names(domain: str) -> list[str]:
    labels = domain.split(".")
    starts = [0]
    first = 1 if len(labels) < WALK_LABELS else len(labels) - (WALK_LABELS - 1)
    starts += range(first, len(labels))
    return [".".join(labels[start:]) for start in starts]


def _only(name: str, texts: Sequence[str], faults: list[str]) -> DmarcRecord | None:
    claims = [text for text in texts if _VERSION.match(text)]
    if len(claims) > 1:
        faults.append(f"{len(claims)} DMARC records at _dmarc.{name}, and receivers then take none")
        return None
    if not claims:
        faults.extend(
            f'the record at _dmarc.{name} does not begin with "v=DMARC1;": {text[:60]}'
            for text in texts
            if "dmarc1" in text.lower()
        )
        return None
    record = parse_record(claims[0])
    if record is None:
        faults.append(f"the DMARC record at _dmarc.{name} has no policy: p= is missing or unknown")
    return record


def _organisation(domain: str, records: Mapping[str, DmarcRecord]) -> str:
    """Return the organisational domain (RFC 9989 §4.10.2) from the records of a walk, the longest name first."""
    for name, record in records.items():
        psd = record.tags.get("psd", "u").lower()
        if psd == "n":
            return name
        if psd == "y" and name != domain:
            below = domain.removesuffix(f".{name}").rpartition(".")[2]
            return f"{below}.{name}"
    return list(records)[-1] if records else domain
