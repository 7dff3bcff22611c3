"""What the doctor found: one line for each thing looked at, and what a whole look comes to."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is. ``SKIP``: it was not looked at, or could not be asked, so nothing is known."""

    OK = "ok"
    WARN = "warn"  # mail goes, and somebody will mind one day
    FAIL = "fail"  # mail is refused, goes astray, or will before long
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: ``check`` and ``subject`` together name it and stay the same from run to run.

    ``found`` and ``expected`` are parts of a sentence, ``advice`` says what to do; the last two are empty when all is
    well. ``domain`` is the sender domain that it is about, empty for the machine.
    """

    check: str
    subject: str
    level: Level
    found: str
    expected: str = ""
    advice: str = ""
    domain: str = ""

    @property
    def key(self) -> str:
        return f"{self.check} {self.subject}"


@dataclass(frozen=True, slots=True)
class Report:
    """All findings of a look, in the order of ``CHECKS`` and of their subjects."""

    findings: tuple[Finding, ...]
    at: float  # Unix seconds, when the last look at the whole began; 0.0: there was none

    def counts(self) -> dict[str, int]:
        """Return how many findings there are of each level."""
        return {str(level): sum(one.level is level for one in self.findings) for level in Level}


@dataclass(frozen=True, slots=True)
class Change:
    """A finding whose level is another than it was; ``before`` is None where it is new."""

    finding: Finding
    before: Level | None


# every check, in the order in which they are shown, with what it looks at
CHECKS = {
    "source": "an address to send from is on this machine, and the world's",
    "ptr": "its PTR record names a host that leads back to it",
    "ehlo": "the EHLO name leads to the address",
    "helo-spf": "SPF of the EHLO name passes for the address",
    "port25": "a connection from it to [doctor] probe_host",
    "blocklist": "what DNS blocklists say of it",
    "return-path-spf": "SPF of the return-path host passes for every address",
    "return-path-mx": "MX of the return-path host leads to this machine",
    "return-path-port": "our bounces listener answers there, and takes a return path of ours",
    "mta-sts": "the MTA-STS policy of the return-path host is kept",
    "relay": "a listener refuses mail from strangers to strangers",
    "certificate": "the certificate of the listeners",
    "resolver": "the nameservers answer, and how fast",
    "dnssec": "they prove answers by DNSSEC",
    "clock": "the clock is kept right",
    "disk": "room and inodes",
    "files": "modes of keys, configuration and state",
    "spf": "SPF of a sender domain, evaluated for every address",
    "dkim": "a published key equals ours, and verifies a message signed with it",
    "return-path": "the return path of a sender domain is ours",
    "dmarc": "the DMARC record that applies",
    "alignment": "DKIM and return path align with the author's domain",
    "replies": "mail to the sender domain has a host",
    "domain-blocklist": "what DNS blocklists say of a sender domain",
    "track": "the record of a track domain",
}


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings of the machine first, then domain by domain, each by ``CHECKS``."""
    rank = {check: place for place, check in enumerate(CHECKS)}
    return tuple(sorted(findings, key=lambda one: (one.domain, rank[one.check], one.subject)))


def levels_after(before: dict[str, Level], findings: Sequence[Finding]) -> dict[str, Level]:
    """Return the levels to compare the next look with: what could not be asked keeps the one that it had."""
    known = {one.key: one.level for one in findings if one.level is not Level.SKIP}
    return {one.key: known.get(one.key) or before[one.key] for one in findings if one.key in known | before}


def changes(before: dict[str, Level], findings: Sequence[Finding]) -> list[Change]:
    """Return what is better or worse than before; what is new counts as having been well, and skips say nothing."""
    return [
        Change(one, before.get(one.key))
        for one in findings
        if one.level is not Level.SKIP and before.get(one.key, Level.OK) is not one.level
    ]
