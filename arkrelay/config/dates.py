"""The dates that REST shows, for things whose file gives none: when the file was last written, and never "now".

A file that REST or the command line writes names the dates of everything in it, also of what a person wrote there:
so they stay when the file is written again.
"""

import dataclasses
import datetime as dt
from typing import TypeVar

from arkrelay.model.tenant import Credential, Domain, OrganisationKey, Platform, Tenant, TrackDomain, Webhook

Thing = TypeVar("Thing", Credential, Domain, OrganisationKey, TrackDomain, Webhook, Tenant)


def iso(at: dt.datetime) -> str:
    """Return a time as REST shows it (Ark contract §7): UTC, milliseconds, ``Z``."""
    return at.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now_iso() -> str:
    """Return the time that it is."""
    return iso(dt.datetime.now(dt.UTC))


def parse_date(text: str) -> str:
    """Return an ISO 8601 date as REST shows it; one without a zone is in UTC. Raises ValueError."""
    at = dt.datetime.fromisoformat(text)
    try:
        return iso(at if at.tzinfo else at.replace(tzinfo=dt.UTC))
    except OverflowError:
        raise ValueError("out of range") from None


def with_dates(tenant: Tenant, written_at: float) -> Tenant:
    """Return the tenant with every date filled in; ``written_at`` (Unix seconds) is for those that are not given."""
    at = iso(dt.datetime.fromtimestamp(written_at, dt.UTC))
    return dataclasses.replace(
        _dated(tenant, at),
        credentials=tuple(_dated(item, at) for item in tenant.credentials),
        domains=tuple(_dated(item, at) for item in tenant.domains),
        webhooks=tuple(_dated(item, at) for item in tenant.webhooks),
        track_domains=tuple(_dated(item, at) for item in tenant.track_domains),
    )


def platform_with_dates(platform: Platform, written_at: float) -> Platform:
    """Return the platform with every date filled in, as ``with_dates`` does."""
    at = iso(dt.datetime.fromtimestamp(written_at, dt.UTC))
    return dataclasses.replace(
        platform,
        keys=tuple(_dated(item, at) for item in platform.keys),
        webhooks=tuple(_dated(item, at) for item in platform.webhooks),
    )


def _dated(thing: Thing, at: str) -> Thing:
    created = parse_date(thing.created_at) if thing.created_at else at
    if isinstance(thing, Domain | OrganisationKey):
        return dataclasses.replace(thing, created_at=created)
    return dataclasses.replace(
        thing, created_at=created, updated_at=parse_date(thing.updated_at) if thing.updated_at else created
    )
