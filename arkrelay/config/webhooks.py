"""Webhooks of tenants, and of the platform: added, changed, removed by their id or uuid."""

import uuid
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from arkrelay.config.dates import now_iso
from arkrelay.config.edit import Draft, Site, Source, Table, new_number, unset_none
from arkrelay.model.tenant import Platform, Tenant, Webhook


def add_webhook(source: Source, tenant_id: str | None, name: str, url: str, **settings: Any) -> Webhook:
    """Return a new webhook of a tenant, or of the platform for None; ``settings``: events, all_events, enabled."""
    with _editing(source, tenant_id) as draft:
        made = uuid.uuid4()
        # Ark contract §7: a number as text, or pwh_… for the platform's
        number = f"pwh_{made.hex}" if tenant_id is None else str(new_number(_numbers(draft.before.webhooks)))
        entry: Table = {"name": name, "url": url, **unset_none(settings)}
        draft.add("webhooks", {**entry, "id": number, "uuid": str(made), "created_at": now_iso()})
    return draft.after.webhooks[-1]


def change_webhook(source: Source, tenant_id: str | None, webhook_id: str, changes: Mapping[str, Any]) -> Webhook:
    """Return the webhook with ``changes`` applied: name, url, events, all_events, enabled; None unsets."""
    with _editing(source, tenant_id) as draft:
        index = _index(draft, webhook_id)
        draft.change("webhooks", index, changes)
    return draft.after.webhooks[index]


def remove_webhook(source: Source, tenant_id: str | None, webhook_id: str) -> None:
    """Remove a webhook: no event is made for it from the next reload on."""
    with _editing(source, tenant_id) as draft:
        draft.remove("webhooks", _index(draft, webhook_id))


def _editing(
    source: Source, tenant_id: str | None
) -> AbstractContextManager[Draft[Tenant]] | AbstractContextManager[Draft[Platform]]:
    site = Site(source)
    return site.editing_platform() if tenant_id is None else site.editing(tenant_id)


def _index(draft: Draft[Tenant] | Draft[Platform], webhook_id: str) -> int:
    return draft.index("webhooks", lambda item: webhook_id in {item.id, item.uuid}, f"webhook {webhook_id}")


def _numbers(webhooks: Iterable[Webhook]) -> list[int]:
    return [int(item.id) for item in webhooks if item.id.isdecimal()]
