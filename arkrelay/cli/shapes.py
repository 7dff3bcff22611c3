"""Settings as the commands' JSON shows them: the names of Ark contract §8, so a script can read either source."""

from collections.abc import Mapping
from typing import Any

from arkrelay.model.tenant import Credential, DkimKey, Domain, OrganisationKey, Tenant, TrackDomain, Webhook

Shape = dict[str, Any]


def tenant(one: Tenant) -> Shape:
    """Return a tenant with what it owns, counted."""
    return {
        "id": one.id,
        "name": one.name,
        "status": one.status,
        "managed": one.managed,
        "pool": one.pool,
        "metadata": _plain(one.metadata),
        "limits": {
            "hourly": one.limits.hourly,
            "hardCapMonthly": one.limits.hard_cap_monthly,
            "newRecipientsDaily": one.limits.new_recipients_daily,
        },
        "domains": [domain.name for domain in one.domains],
        "credentials": [credential.name for credential in one.credentials],
        "createdAt": one.created_at or None,
        "updatedAt": one.updated_at or None,
    }


def _plain(value: Any) -> Any:
    return {key: _plain(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value


def credential(tenant_id: str, one: Credential, key: str | None = None) -> Shape:
    """Return a credential, and its key when that is to be shown."""
    shape: Shape = {
        "id": one.id,
        "tenantId": tenant_id,
        "name": one.name,
        "type": one.type,
        "hold": one.hold,
        "permissions": list(one.permissions),
        "domains": list(one.domains),
        "username": one.username or None,
        "createdAt": one.created_at or None,
        "updatedAt": one.updated_at or None,
    }
    if key is not None:
        shape["key"] = key
        if one.type == "smtp":
            shape["smtpUsername"] = smtp_username(tenant_id, one)
    return shape


def smtp_username(tenant_id: str, one: Credential) -> str:
    """Return a name that may stand beside the password, and that holds nothing of it (Ark contract §14.1)."""
    return one.username or f"{tenant_id}/{one.name}"


def domain(tenant_id: str, one: Domain, records: Shape | None = None) -> Shape:
    """Return a sender domain, with its DNS records where they were made."""
    shape: Shape = {
        "id": one.id,
        "uuid": one.uuid,
        "tenant_id": tenant_id,
        "name": one.name,
        "trusted": one.trusted,
        "rotation": one.rotation,
        "dkim": [_key(key) for key in one.dkim],
        "createdAt": one.created_at or None,
    }
    if records is not None:
        shape["dnsRecords"] = records
    return shape


def _key(key: DkimKey) -> Shape:
    return {
        "selector": key.selector,
        "algorithm": key.algorithm,
        "state": key.state,
        "since": key.since or None,
        "seen": key.seen or None,
    }


def organisation_key(one: OrganisationKey, key: str | None = None) -> Shape:
    """Return an organisation key, and its secret when that is to be shown."""
    shape: Shape = {"id": one.id, "name": one.name, "createdAt": one.created_at or None}
    return shape if key is None else {**shape, "key": key}


def webhook(tenant_id: str | None, one: Webhook) -> Shape:
    """Return a webhook of a tenant, or of the platform for None."""
    return {
        "id": one.id,
        "uuid": one.uuid,
        "tenantId": tenant_id,
        "name": one.name,
        "url": one.url,
        "events": list(one.events),
        "allEvents": one.takes_all,
        "enabled": one.enabled,
        "createdAt": one.created_at or None,
    }


def track_domain(tenant_id: str, one: TrackDomain) -> Shape:
    """Return a track domain."""
    return {
        "id": one.id,
        "tenantId": tenant_id,
        "name": one.name,
        "domain": one.domain,
        "fullName": f"{one.name}.{one.domain}",
        "sslEnabled": one.ssl,
        "trackClicks": one.clicks,
        "trackOpens": one.opens,
        "excludedClickDomains": list(one.excluded),
        "createdAt": one.created_at or None,
    }
