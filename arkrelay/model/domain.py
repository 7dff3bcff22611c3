"""What DNS says about a sender domain, as last seen."""

from dataclasses import dataclass
from enum import StrEnum


class DnsStatus(StrEnum):
    """The state of one record (Ark contract §8.7); None in its place means never checked."""

    OK = "OK"
    MISSING = "Missing"
    INVALID = "Invalid"


@dataclass(frozen=True, slots=True)
class DomainState:
    """The DNS state of one sender domain of one tenant.

    A field ``<record>`` holds a ``DnsStatus`` (its string) or None before the first check, ``<record>_error``
    a sentence for a person when the status is not OK. Times are Unix seconds; ``verified_at`` is when all
    three records were first OK, and stays when they no longer are; ``told_at`` is when its failing was last told.
    """

    tenant_id: str
    domain: str
    spf: str | None = None
    spf_error: str | None = None
    dkim: str | None = None
    dkim_error: str | None = None
    return_path: str | None = None
    return_path_error: str | None = None
    checked_at: float | None = None
    verified_at: float | None = None
    told_at: float | None = None

    @property
    def verified(self) -> bool:
        """True while SPF, DKIM and return path are all OK: required before sending (Ark contract §13)."""
        return self.spf == self.dkim == self.return_path == DnsStatus.OK


@dataclass(frozen=True, slots=True)
class TrackState:
    """The DNS state of one track domain of one tenant; ``name`` is its full name, the rest as in ``DomainState``."""

    tenant_id: str
    name: str
    status: str | None = None
    error: str | None = None
    checked_at: float | None = None

    @property
    def ok(self) -> bool:
        """True while its CNAME is right: required before links lead there (Ark contract §12)."""
        return self.status == DnsStatus.OK
