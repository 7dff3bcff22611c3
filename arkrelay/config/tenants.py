"""Changes to tenant files and platform.toml, for REST and the command line: whole, atomic, and only if valid.

Every function takes the configuration in force or the path of ``arkrelay.toml``. It raises NotFound, Conflict (the
tenant has ``managed = "file"``, a name is taken) or ConfigErrors, and then nothing was written. The daemon does
not see a change until it reloads. The functions of the other nouns are given on from here.
"""

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from arkrelay.config.credentials import (
    add_credential,
    add_key,
    change_credential,
    remove_credential,
    remove_key,
    renew_credential,
)
from arkrelay.config.dates import now_iso
from arkrelay.config.domains import (
    add_domain,
    add_track_domain,
    change_domain,
    change_track_domain,
    remove_domain,
    remove_key_files,
    remove_track_domain,
    rotate_dkim,
)
from arkrelay.config.edit import Site, Source, Table, unset_none
from arkrelay.config.load import TENANT_ID
from arkrelay.config.webhooks import add_webhook, change_webhook, remove_webhook
from arkrelay.model.errors import Conflict
from arkrelay.model.tenant import Platform, Tenant

__all__ = [
    "Source",
    "add_credential",
    "add_domain",
    "add_key",
    "add_track_domain",
    "add_webhook",
    "change_credential",
    "change_domain",
    "change_tenant",
    "change_track_domain",
    "change_webhook",
    "create_tenant",
    "delete_tenant",
    "edit_platform",
    "edit_tenant",
    "remove_credential",
    "remove_domain",
    "remove_key",
    "remove_track_domain",
    "remove_webhook",
    "renew_credential",
    "rotate_dkim",
]


def edit_tenant(source: Source, tenant_id: str, change: Callable[[Table], None]) -> Tenant:
    """Return the tenant after ``change`` was applied to the tables of its file."""
    with Site(source).editing(tenant_id) as draft:
        change(draft.table)
    return draft.after


def change_tenant(source: Source, tenant_id: str, changes: Mapping[str, Any]) -> Tenant:
    """Return the tenant with keys replaced: name, status, metadata, limits (both whole); None unsets."""

    def change(table: Table) -> None:
        table.update(unset_none(changes))
        for key in [key for key, value in changes.items() if value is None]:
            table.pop(key, None)

    return edit_tenant(source, tenant_id, change)


def create_tenant(source: Source, name: str, tenant_id: str | None = None, **settings: Any) -> Tenant:
    """Return a new tenant, with an id of Ark's shape (Ark contract §7) unless one is given.

    ``settings`` are other keys of the file: metadata, limits, status; those that are None are left out.
    """
    tenant_id = tenant_id or f"cm{secrets.token_hex(11)}"
    if not TENANT_ID.fullmatch(tenant_id):
        raise Conflict(f'"{tenant_id}" cannot be a tenant id: expected [a-z0-9][a-z0-9_-]{{0,62}}')
    return Site(source).create(tenant_id, {"name": name, "created_at": now_iso(), **unset_none(settings)})


def delete_tenant(source: Source, tenant_id: str) -> None:
    """Remove a tenant's file, for good, and the DKIM keys that were made for it."""
    site = Site(source)
    for domain in site.remove(tenant_id).domains:
        remove_key_files(site, domain.dkim)


def edit_platform(source: Source, change: Callable[[Table], None]) -> Platform:
    """Return the platform after ``change`` was applied to the tables of platform.toml, made if there was none."""
    with Site(source).editing_platform() as draft:
        change(draft.table)
    return draft.after
