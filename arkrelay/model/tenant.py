"""What the tenant files and ``platform.toml`` say, typed: tenants, credentials, domains, keys, webhooks.

Like ``settings.py`` these dataclasses are read by ``config.schema`` field by field. Ids, uuids and dates
that REST shows are part of the file when REST or the CLI wrote it, and derived stably from names when a
person did (product.md §1).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arkrelay.model.message import PRIORITIES
from arkrelay.model.setting import Kind, setting

STATUSES = ("active", "suspended", "archived")
PERMISSIONS = ("send",)
# contract §11.1: the exact enum of `events`
WEBHOOK_EVENTS = (
    "MessageSent",
    "MessageDelayed",
    "MessageDeliveryFailed",
    "MessageHeld",
    "MessageBounced",
    "MessageLoaded",
    "MessageLinkClicked",
    "DomainDNSError",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantLimits:
    """``[limits]`` of a tenant file."""

    hourly: int = setting("Recipients an hour; over it mail is accepted and held, warned at 90 %.", Kind.INTEGER, 0)
    hard_cap_monthly: int = setting("Recipients a month; over it 452 / 422.", Kind.INTEGER, 0)
    new_recipients_daily: int = setting(
        "Recipients a day (UTC) to whom the tenant never wrote before; over it they are held, the others go.",
        Kind.INTEGER,
        0,
    )
    bad_address_percent: int = setting(
        "A credential is put on hold when more of what it sent within an hour, to two sites or more, does not exist.",
        Kind.INTEGER,
        50,
        high=100,
    )
    bad_address_least: int = setting("That is judged from so many recipients on.", Kind.INTEGER, 50, low=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """One ``[[credentials]]``."""

    name: str = setting("Letters, digits, dash and underscore, at most 50.", Kind.STRING)
    type: str = setting("What it opens.", Kind.CHOICE, "smtp", choices=("smtp", "api"))
    secret: str = setting("The key: SMTP password or REST bearer.", Kind.SECRET)
    username: str = setting("SMTP name beside the ones that are always accepted.", Kind.STRING, "")
    permissions: tuple[str, ...] = setting("What its owner may do.", Kind.CHOICES, ("send",), choices=PERMISSIONS)
    domains: tuple[str, ...] = setting(
        "Restrict to these sender domains; empty: all of the tenant's.", Kind.HOSTS, ()
    )
    hold: bool = setting("True: it may not send.", Kind.BOOLEAN, False)
    priority: str = setting(
        "Of mail that does not say: bulk goes behind what people wait for.",
        Kind.CHOICE,
        "transactional",
        choices=PRIORITIES,
    )
    id: int = setting("Number that REST shows; derived from the name when absent.", Kind.INTEGER, 0)
    created_at: str = setting("ISO 8601, written by REST and the CLI.", Kind.STRING, "")
    updated_at: str = setting("ISO 8601, written by REST and the CLI.", Kind.STRING, "")
    # not a key: why the relay itself put it on hold. That happened, so it is kept in the database.
    suspicion: str = field(default="", compare=False)

    @property
    def held(self) -> bool:
        """Whether what it sends is kept back, by a person's word or the relay's."""
        return self.hold or bool(self.suspicion)


@dataclass(frozen=True, slots=True, kw_only=True)
class DkimKey:
    """One ``[[domains.dkim]]``: a message gets one signature for each."""

    selector: str = setting("Label before ._domainkey.", Kind.STRING)
    private_key: Path = setting("PEM file, relative to state_dir/keys, or absolute.", Kind.PATH)
    algorithm: str = setting(
        "RFC 6376, RFC 8463.", Kind.CHOICE, "rsa-sha256", choices=("rsa-sha256", "ed25519-sha256")
    )
    state: str = setting(
        '"published" keys are shown in DNS records but do not sign yet, "retired" ones no longer.',
        Kind.CHOICE,
        "active",
        choices=("active", "published", "retired"),
    )
    since: str = setting("When it came into this state, ISO 8601; written by `domain rotate`.", Kind.STRING, "")
    seen: str = setting("When DNS was first seen to have it, likewise.", Kind.STRING, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """One ``[[domains]]``: a domain that the tenant may send from."""

    name: str = setting("The sender domain.", Kind.HOST)
    trusted: bool = setting("True: may send before DNS is verified.", Kind.BOOLEAN, False)
    rotation: str = setting(
        'A rotation of keys that was begun: "auto", the daemon takes each further step when it is due; "manual", a '
        "person does.",
        Kind.CHOICE,
        "manual",
        choices=("manual", "auto"),
    )
    dkim: tuple[DkimKey, ...] = setting("Signing keys.", Kind.TABLES, ())
    id: int = setting("Number that REST shows; derived from the name when absent.", Kind.INTEGER, 0)
    uuid: str = setting("Derived from the name when absent.", Kind.STRING, "")
    created_at: str = setting("ISO 8601, written by REST and the CLI.", Kind.STRING, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsubscribe:
    """``[unsubscribe]``."""

    enabled: bool = setting(
        "Add List-Unsubscribe and one-click to every message.",
        Kind.BOOLEAN,
        False,
    )
    tags: tuple[str, ...] = setting("Or to messages with these tags; the tag is the stream.", Kind.STRINGS, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSuppression:
    """``[suppression]`` of a tenant file."""

    streams: tuple[str, ...] = setting(
        "Tags of which a complaint or an unsubscription stops just mail with that tag.", Kind.STRINGS, ()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """One ``[[webhooks]]``, of a tenant or of the platform."""

    name: str = setting("Its name.", Kind.STRING)
    url: str = setting("Where events are posted.", Kind.STRING)
    events: tuple[str, ...] = setting("Which events; empty: all.", Kind.CHOICES, (), choices=WEBHOOK_EVENTS)
    all_events: bool = setting("With no events named: all of them, or false for none.", Kind.BOOLEAN, True)
    enabled: bool = setting("False: receives nothing.", Kind.BOOLEAN, True)
    id: str = setting("Derived from the name when absent.", Kind.STRING, "")
    uuid: str = setting("Derived from the name when absent.", Kind.STRING, "")
    created_at: str = setting("ISO 8601, written by REST and the CLI.", Kind.STRING, "")
    updated_at: str = setting("ISO 8601, written by REST and the CLI.", Kind.STRING, "")

    @property
    def takes_all(self) -> bool:
        """Every event, also those that cannot be named (Ark contract §11.1: ``SendLimit…``)."""
        return self.all_events and not self.events

    def takes(self, event: str) -> bool:
        """Return whether events of this name are posted here, as long as it is enabled."""
        return self.takes_all or event in self.events


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackDomain:
    """One ``[[track_domains]]``."""

    name: str = setting("Label under the sender domain.", Kind.STRING)
    domain: str = setting("The sender domain.", Kind.HOST)
    ssl: bool = setting("Links are https.", Kind.BOOLEAN, True)
    clicks: bool = setting("Rewrite links.", Kind.BOOLEAN, True)
    opens: bool = setting("Add the pixel.", Kind.BOOLEAN, True)
    excluded: tuple[str, ...] = setting("Hosts whose links stay as they are.", Kind.STRINGS, ())
    id: str = setting("Derived from the name when absent.", Kind.STRING, "")
    created_at: str = setting("ISO 8601, written by REST and the CLI.", Kind.STRING, "")
    updated_at: str = setting("ISO 8601, written by REST and the CLI.", Kind.STRING, "")

    @property
    def full_name(self) -> str:
        """The name in DNS, and in links."""
        return f"{self.name}.{self.domain}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One tenant file; ``id`` is the file's name without ``.toml``."""

    id: str  # not a key: from the file name
    name: str = setting("Shown to people; at most 100 characters.", Kind.STRING)
    status: str = setting("May it send?", Kind.CHOICE, "active", choices=STATUSES)
    managed: str = setting('"file": REST may read but not change it.', Kind.CHOICE, "api", choices=("api", "file"))
    metadata: Mapping[str, Any] = setting("REST's tenant metadata, as a table.", Kind.TABLE, dict)
    pool: str = setting(
        "Its mail leaves from the addresses of this pool ([[source]] in arkrelay.toml).", Kind.STRING, ""
    )
    limits: TenantLimits = setting("What it may send.", Kind.TABLE, TenantLimits)
    credentials: tuple[Credential, ...] = setting("SMTP passwords and API keys.", Kind.TABLES, ())
    domains: tuple[Domain, ...] = setting("Sender domains.", Kind.TABLES, ())
    unsubscribe: Unsubscribe = setting("One-click unsubscribe.", Kind.TABLE, Unsubscribe)
    suppression: TenantSuppression = setting("Who is not mailed any more.", Kind.TABLE, TenantSuppression)
    webhooks: tuple[Webhook, ...] = setting("Receivers of its events.", Kind.TABLES, ())
    track_domains: tuple[TrackDomain, ...] = setting("Open and click tracking.", Kind.TABLES, ())
    created_at: str = setting("ISO 8601, written by REST and the CLI.", Kind.STRING, "")
    updated_at: str = setting("ISO 8601, written by REST and the CLI.", Kind.STRING, "")
    # not a key: the domains by name, for each message asks for some
    by_name: Mapping[str, Domain] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {domain.name: domain for domain in reversed(self.domains)})

    def domain(self, name: str) -> Domain | None:
        """Return the sender domain with exactly this name (A-labels, lower case)."""
        return self.by_name.get(name)

    def credential(self, name: str) -> Credential | None:
        """Return the credential of this name."""
        return next((credential for credential in self.credentials if credential.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganisationKey:
    """One ``[[keys]]`` of platform.toml: a REST key that reaches every tenant."""

    name: str = setting("Its name.", Kind.STRING)
    secret: str = setting("The key: ark_live_… or ark_test_….", Kind.SECRET)
    id: int = setting("Number that REST shows; derived from the name when absent.", Kind.INTEGER, 0)
    created_at: str = setting("ISO 8601, written by the CLI.", Kind.STRING, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """The whole of ``platform.toml``."""

    keys: tuple[OrganisationKey, ...] = setting("Organisation API keys.", Kind.TABLES, ())
    webhooks: tuple[Webhook, ...] = setting("Receivers of all tenants' events.", Kind.TABLES, ())
