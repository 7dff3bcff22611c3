"""What another service keeps for its senders, in our words; ``import_ark`` and ``import_postal`` read it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from arkrelay.cli.suppression_files import Passed, Row
from arkrelay.config.takeover import SigningKey


@dataclass(frozen=True, slots=True)
class Credential:
    """An SMTP password or API key; ``key`` is None where the service does not show it. ``note``: what we changed."""

    name: str
    type: str
    hold: bool = False
    key: str | None = field(default=None, repr=False)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Domain:
    """A sender domain, with its DKIM key where the service gives it."""

    name: str
    key: SigningKey | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver of events; ``events`` are those of contract §11.1."""

    name: str
    url: str
    events: tuple[str, ...] = ()
    all_events: bool = False
    enabled: bool = True
    note: str = ""


@dataclass(frozen=True, slots=True)
class TrackDomain:
    """A name under a sender domain, for opens and clicks."""

    name: str
    domain: str
    ssl: bool = True
    clicks: bool = True
    opens: bool = True
    excluded: tuple[str, ...] = ()


class Suppressions(Protocol):
    """A list of addresses that is too long to be held: counted first, read once, a part at a time."""

    @property
    def count(self) -> int:
        """How many entries there are."""

    def parts(self) -> Iterator[tuple[list[Row], list[Passed]]]:
        """Yield what can be taken and what cannot."""


@dataclass(frozen=True, slots=True)
class Left:
    """Something that we do not take, and why."""

    what: str
    name: str
    note: str


@dataclass(slots=True)
class Tenant:
    """One tenant (a mail server, in Postal) with all it has; ``note``: what is not as it was there.

    None says that the service has no such thing, so that ours is no difference.
    """

    id: str
    name: str
    status: str = "active"
    metadata: Mapping[str, Any] | None = None
    hourly: int | None = None
    note: str = ""
    credentials: list[Credential] = field(default_factory=list)
    domains: list[Domain] = field(default_factory=list)
    webhooks: list[Webhook] = field(default_factory=list)
    track_domains: list[TrackDomain] = field(default_factory=list)
    suppressions: Suppressions | None = None
    left: list[Left] = field(default_factory=list)


@dataclass(slots=True)
class Foreign:
    """All that was read: of tenants, of the whole organisation, and what its owner should do beside (``advice``)."""

    source: str
    tenants: list[Tenant] = field(default_factory=list)
    webhooks: list[Webhook] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
