"""Tenants: who sends through this relay (Ark contract §8.5)."""

import asyncio
import sqlite3
from typing import Annotated, Any, Literal

import structlog

from arkrelay.api.ask import Ask
from arkrelay.api.model import UNSET, Answer, Body, Meta, Nothing, Page, Paged, UnsetType
from arkrelay.api.refusal import ApiError
from arkrelay.api.settings import change
from arkrelay.api.shapes import Iso
from arkrelay.api.words import ONE_LINE
from arkrelay.config import tenants
from arkrelay.model.errors import Conflict, StoreError
from arkrelay.model.tenant import Tenant as Configured
from arkrelay.policy.metadata import KEYS, VALUE_CHARS, faults
from arkrelay.store import known, lists

log = structlog.get_logger()

Status = Literal["active", "suspended", "archived"]
Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=ONE_LINE)]
Metadata = Annotated[
    dict[str, Any],
    Meta(
        extra_json_schema={
            "maxProperties": KEYS,
            "additionalProperties": {"type": ["string", "number", "boolean", "null"], "maxLength": VALUE_CHARS},
        }
    ),
]

END_S = 10.0  # how long a deletion waits for the tenant's mail to end; the housekeeper ends the rest
STEP = 1000  # entries of its lists that are removed in one write


class NewTenant(Body):
    """A tenant to be."""

    name: Name
    metadata: Metadata | None = None


class TenantChange(Body):
    """What is to become different; what is absent or null stays, but ``metadata``: null empties it."""

    name: Name | None = None
    metadata: Metadata | UnsetType | None = UNSET
    status: Status | None = None


class TenantList(Paged):
    """Which tenants."""

    status: Status | None = None


class Tenant(Answer):
    """A tenant."""

    id: str
    name: str
    metadata: dict[str, str | int | float | bool | None]
    status: Status
    created_at: Iso
    updated_at: Iso


class Deleted(Answer):
    """It is gone."""

    deleted: Literal[True] = True


async def create(ask: Ask[Nothing, NewTenant]) -> Tenant:
    """Make a tenant; its id is drawn by lot."""
    metadata = ask.body.metadata or {}
    _check(metadata)
    made = await change(ask, lambda: tenants.create_tenant(ask.snapshot, ask.body.name, metadata=metadata or None))
    return _shape(made)


async def list_all(ask: Ask[TenantList, Nothing]) -> Page[Tenant]:
    """One page, newest first."""
    page, per_page, status = ask.query.page, ask.query.per_page, ask.query.status
    found = [one for one in ask.snapshot.tenants.values() if status in {None, one.status}]
    found.sort(key=lambda one: (one.created_at, one.id), reverse=True)
    start = (page - 1) * per_page
    return Page([_shape(one) for one in found[start : start + per_page]], page, per_page, len(found))


async def retrieve(ask: Ask[Nothing, Nothing]) -> Tenant:
    """One tenant; a tenant's key sees its own."""
    return _shape(ask.tenant)


async def update(ask: Ask[Nothing, TenantChange]) -> Tenant:
    """Change its name, its status, or all of its metadata."""
    tenant_id, body = ask.tenant.id, ask.body
    changes: dict[str, Any] = {
        key: value for key, value in (("name", body.name), ("status", body.status)) if value is not None
    }
    if body.metadata is not UNSET:
        metadata = body.metadata or {}
        _check(metadata)
        changes["metadata"] = metadata or None
    if not changes:
        raise ApiError(400, "validation_error", "Nothing to change: give name, metadata or status.")
    return _shape(await change(ask, lambda: tenants.change_tenant(ask.snapshot, tenant_id, changes)))


async def delete(ask: Ask[Nothing, Nothing]) -> Deleted:
    """Remove a tenant for good: what it owns, and its mail that waits or is held, which fails with that reason.

    What is being delivered at this moment may still arrive. What was sent stays in the lists of the organisation
    until its retention ends.
    """
    tenant_id, parts = ask.tenant.id, ask.parts

    def edit() -> None:
        settings = ask.snapshot.settings
        if settings.default_tenant == tenant_id:
            raise Conflict(f"{tenant_id} is the default_tenant of arkrelay.toml: name another there first")
        for listen in settings.listen:
            if listen.tenant == tenant_id:
                raise Conflict(
                    f"the listener {listen.address} of arkrelay.toml sends as {tenant_id}: change it first"
                )
        tenants.delete_tenant(ask.snapshot, tenant_id)

    await change(ask, edit)

    def remove_lists(db: sqlite3.Connection) -> bool:
        more = known.forget_tenant(db, tenant_id, STEP)
        return lists.remove_tenant_lists(db, tenant_id, STEP) or more

    try:
        async with asyncio.timeout(END_S):
            while await parts.store.write(remove_lists):
                pass
            await parts.upkeep.end_mail_of_removed_tenants()
    except (TimeoutError, StoreError) as error:  # the tenant is gone all the same, and its mail cannot leave
        log.warning("deletion_goes_on", tenant=tenant_id, error=str(error) or "there is a lot of mail")
    return Deleted()


def _check(metadata: dict[str, Any]) -> None:
    for key, reason in faults(metadata):
        field = f"metadata.{key}" if key else "metadata"
        raise ApiError(400, "validation_error", f"{field}: {reason}.", field=field)


def _shape(one: Configured) -> Tenant:
    return Tenant(
        id=one.id,
        name=one.name,
        metadata=dict(one.metadata),
        status=one.status,  # type: ignore[arg-type]  # the schema lets no other in
        created_at=one.created_at,
        updated_at=one.updated_at,
    )
