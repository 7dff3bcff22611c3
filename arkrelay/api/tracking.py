"""Track domains: the names in links and pixels, by which clicks and opens are seen (Ark contract §8.10)."""

from typing import Annotated, Any, Literal

import structlog

from arkrelay.api.ask import Ask
from arkrelay.api.domains import Message
from arkrelay.api.model import UNSET, Answer, Body, Meta, Nothing, UnsetType
from arkrelay.api.refusal import ApiError
from arkrelay.api.settings import change, newest_first
from arkrelay.api.shapes import Iso, iso
from arkrelay.config import tenants
from arkrelay.config.snapshot import Snapshot
from arkrelay.model.address import DOMAIN_OCTETS, AddressError, parse_domain
from arkrelay.model.domain import TrackState
from arkrelay.model.errors import Conflict, StoreError
from arkrelay.model.tenant import Tenant
from arkrelay.model.tenant import TrackDomain as Configured
from arkrelay.policy.records import RETURN_PATH_LABEL
from arkrelay.relay.track_domains import alias_of

log = structlog.get_logger()

DnsStatus = Literal["ok", "missing", "invalid"]
# Ark contract §12; a hyphen at an end is none of DNS's (RFC 1123 §2.1)
Label = Annotated[str, Meta(min_length=1, max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")]
Hosts = Annotated[str, Meta(max_length=10_000)]


class NewTrackDomain(Body):
    """A label under one of the tenant's sender domains; what is null or absent is true."""

    domain_id: int
    name: Label
    ssl_enabled: bool | None = None
    track_clicks: bool | None = None
    track_opens: bool | None = None


class TrackDomainChange(Body):
    """What is to become different; null leaves a switch as it is, and empties the excluded hosts."""

    excluded_click_domains: Hosts | UnsetType | None = UNSET  # comma-separated
    ssl_enabled: bool | None = None
    track_clicks: bool | None = None
    track_opens: bool | None = None


class DnsRecord(Answer):
    """The record to publish; ``name`` is relative to the zone."""

    type: str
    name: str
    value: str


class TrackDomain(Answer):
    """A track domain; it is used while ``dnsOk``."""

    id: str
    domain_id: str
    name: str
    full_name: str
    dns_ok: bool
    dns_status: DnsStatus | None
    dns_error: str | None
    dns_checked_at: Iso | None
    dns_record: DnsRecord
    ssl_enabled: bool
    track_clicks: bool
    track_opens: bool
    excluded_click_domains: str | None
    created_at: Iso
    updated_at: Iso


class TrackDomains(Answer):
    """All of a tenant, newest first."""

    track_domains: list[TrackDomain]


class TrackVerify(Answer):
    """What DNS says now."""

    id: str
    full_name: str
    dns_ok: bool
    dns_status: DnsStatus | None
    dns_error: str | None
    dns_checked_at: Iso | None
    dns_record: DnsRecord


async def create(ask: Ask[Nothing, NewTrackDomain]) -> TrackDomain:
    """Add the one track domain of a sender domain, and look its record up."""
    tenant_id, body = ask.tenant.id, ask.body

    def edit() -> Configured:
        tenant = ask.tenant
        domain = next((one.name for one in tenant.domains if one.id == body.domain_id), None)
        if domain is None:
            raise ApiError(404, "not_found", f"There is no domain {body.domain_id}.", field="domainId")
        _check_name(tenant, body.name, domain)
        return tenants.add_track_domain(
            ask.snapshot,
            tenant_id,
            body.name,
            domain,
            ssl=body.ssl_enabled,
            clicks=body.track_clicks,
            opens=body.track_opens,
        )

    made = await change(ask, edit)
    try:
        await ask.parts.domains.tracks.check(tenant_id, made.id)
    except StoreError as error:  # it is there all the same, and is looked up again within the hour
        log.warning("track_state_not_written", tenant=tenant_id, name=made.full_name, error=str(error))
    return _shape(ask, ask.tenant, made)


async def list_all(ask: Ask[Nothing, Nothing]) -> TrackDomains:
    """All track domains of the tenant, newest first."""
    tenant = ask.tenant
    return TrackDomains(track_domains=[_shape(ask, tenant, one) for one in newest_first(tenant.track_domains)])


async def retrieve(ask: Ask[Nothing, Nothing]) -> TrackDomain:
    """One track domain with the last known state of its record."""
    return _shape(ask, ask.tenant, _find(ask))


async def update(ask: Ask[Nothing, TrackDomainChange]) -> TrackDomain:
    """Change what is tracked, and which hosts are not."""
    tenant_id, track, body = ask.tenant.id, _find(ask), ask.body
    changes: dict[str, Any] = {
        key: value
        for key, value in (("ssl", body.ssl_enabled), ("clicks", body.track_clicks), ("opens", body.track_opens))
        if value is not None
    }
    if body.excluded_click_domains is not UNSET:
        changes["excluded"] = _hosts(body.excluded_click_domains or "") or None
    if changes:
        track = await change(ask, lambda: tenants.change_track_domain(ask.snapshot, tenant_id, track.id, changes))
    return _shape(ask, ask.tenant, track)


async def delete(ask: Ask[Nothing, Nothing]) -> Message:
    """Remove a track domain: its links lead nowhere from now on."""
    tenant_id, track = ask.tenant.id, _find(ask)
    await change(ask, lambda: tenants.remove_track_domain(ask.snapshot, tenant_id, track.id))
    return Message(message=f"{track.full_name} is removed.")


async def verify(ask: Ask[Nothing, Nothing]) -> TrackVerify:
    """Look the record up now; 200 whether or not it is right: see ``dnsOk``."""
    tenant_id, track = ask.tenant.id, _find(ask)
    state = await ask.parts.domains.tracks.check(tenant_id, track.id)
    return TrackVerify(
        id=track.id,
        full_name=track.full_name,
        dns_ok=state.ok,
        dns_status=_status(state),
        dns_error=state.error,
        dns_checked_at=iso(state.checked_at),
        dns_record=_record(ask.snapshot, track),
    )


def _find(ask: Ask[Any, Any]) -> Configured:
    """Return the track domain that the path names."""
    wanted = ask.path("trackingId")
    found = next((one for one in ask.tenant.track_domains if one.id == wanted), None)
    if found is None:
        raise ApiError(404, "not_found", "There is no such track domain.")
    return found


def _check_name(tenant: Tenant, label: str, domain: str) -> None:
    """Refuse a name where a CNAME could not stand."""
    full_name = f"{label}.{domain}"
    if len(full_name) > DOMAIN_OCTETS:
        raise ApiError(400, "validation_error", f"name: {full_name} is too long for DNS.", field="name")
    if label == RETURN_PATH_LABEL:
        message = f"name: {full_name} is the return path of {domain}."
        raise ApiError(400, "validation_error", message, field="name")
    if tenant.domain(full_name) is not None:
        # RFC 1034 §3.6.2: no other record beside a CNAME
        raise Conflict(f"{full_name} is a sender domain, whose records leave no room for a CNAME.")


def _hosts(text: str) -> tuple[str, ...]:
    """Return the hosts of a comma-separated list, each once, as A-labels."""
    found: dict[str, None] = {}
    for item in text.split(","):
        if not (host := item.strip()):
            continue
        try:
            found[parse_domain(host, utf8=True)] = None
        except AddressError as error:
            name = "excludedClickDomains"
            raise ApiError(400, "validation_error", f"{name}: {error}.", field=name) from None
    return tuple(found)


def _status(state: TrackState) -> DnsStatus | None:
    return state.status.lower() if state.status is not None else None  # type: ignore[return-value]  # of model.domain


def _record(snapshot: Snapshot, track: Configured) -> DnsRecord:
    record = alias_of(snapshot, track)
    return DnsRecord(type=record.type, name=record.name, value=record.value)


def _shape(ask: Ask[Any, Any], tenant: Tenant, track: Configured) -> TrackDomain:
    key = (tenant.id, track.full_name)
    state = ask.parts.domains.tracks.states.get(key) or TrackState(*key)
    domain = tenant.domain(track.domain)
    return TrackDomain(
        id=track.id,
        domain_id=str(domain.id) if domain is not None else "",
        name=track.name,
        full_name=track.full_name,
        dns_ok=state.ok,
        dns_status=_status(state),
        dns_error=state.error,
        dns_checked_at=iso(state.checked_at),
        dns_record=_record(ask.snapshot, track),
        ssl_enabled=track.ssl,
        track_clicks=track.clicks,
        track_opens=track.opens,
        excluded_click_domains=",".join(track.excluded) or None,
        created_at=track.created_at,
        updated_at=track.updated_at,
    )
