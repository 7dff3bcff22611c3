"""What a TLS report (RFC 8460) tells: one UTC day of one domain, as we saw it."""

from dataclasses import dataclass
from datetime import UTC, datetime

DAY_S = 86_400  # RFC 8460 §4.1: a report is of a UTC day


@dataclass(frozen=True, slots=True)
class Session:
    """Sessions that came out alike; ``result`` is one of RFC 8460 §4.3, empty for success."""

    policy: str  # "sts" | "tlsa" | "no-policy-found"
    said: str  # the policy as JSON, a list of its lines
    host: str
    address: str
    result: str
    sessions: int


@dataclass(frozen=True, slots=True)
class Report:
    """One day of one domain, told by us; ``day`` is its start in Unix seconds."""

    domain: str
    day: int
    organisation: str
    contact: str
    hostname: str  # ours

    @property
    def id(self) -> str:
        """The report's id: the same for the same day and domain, so that a second copy is known for one."""
        return f"{when(self.day)[:10]}.{self.domain}@{self.hostname}"

    @property
    def file(self) -> str:
        """The name of the file that holds it (RFC 8460 §5.1)."""
        return f"{self.hostname}!{self.domain}!{self.day}!{self.day + DAY_S - 1}!001.json.gz"


def when(at: int) -> str:
    """Return a time as a report has it (RFC 3339)."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
