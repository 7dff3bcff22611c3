"""Scenes of ``tenants``, their credentials and their suppressions: fourteen methods."""

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import ark
import pytest
from e2e.sdk.emails import fields
from e2e.sdk.table import scene
from peers.arkclient import Api, code
from peers.arkdoor import ArkDoor, mailbox, unique

METADATA = {"plan": "pro", "external_id": "cust_7", "seats": 5, "rate": 0.5, "trial": True, "note": None}


def recent(moment: datetime) -> bool:
    """Whether it is about now, and says where on earth."""
    return moment.tzinfo is not None and abs((datetime.now(UTC) - moment).total_seconds()) < 60


@contextlib.asynccontextmanager
async def new_tenant(api: Api, **more: Any) -> AsyncIterator[Any]:
    """Give a tenant of its own, and remove it."""
    tenant = (await api("tenants.create", name=unique("Customer"), **more)).data
    try:
        yield tenant
    finally:
        with contextlib.suppress(ark.NotFoundError):
            await api("tenants.delete", tenant.id)


@scene("tenants.create")
async def create(api: Api, door: ArkDoor) -> None:
    answer = await api.raw("tenants.create", name="Größe & Söhne", metadata=METADATA)
    tenant = answer.parsed.data
    try:
        assert answer.status == 201
        assert tenant.id.startswith("cm")
        assert (tenant.name, tenant.status, tenant.metadata) == ("Größe & Söhne", "active", METADATA)
        assert recent(tenant.created_at)
        assert recent(tenant.updated_at)
        assert (await api("tenants.retrieve", tenant.id)).data == tenant
    finally:
        await api("tenants.delete", tenant.id)
    async with new_tenant(api, metadata=None) as plain:
        assert plain.metadata == {}


@scene("tenants.retrieve")
async def retrieve(api: Api, door: ArkDoor) -> None:
    tenant = (await api("tenants.retrieve", "acme")).data
    assert (tenant.id, tenant.name, tenant.status) == ("acme", "Acme Inc", "active")
    assert isinstance(tenant.metadata, dict)
    with pytest.raises(ark.NotFoundError):
        await api("tenants.retrieve", "cmnobody")


@scene("tenants.update")
async def update(api: Api, door: ArkDoor) -> None:
    async with new_tenant(api, metadata=METADATA) as before:
        changed = (
            await api("tenants.update", before.id, name="New name", metadata={"a": 1}, status="suspended")
        ).data
        assert (changed.name, changed.metadata, changed.status) == ("New name", {"a": 1}, "suspended")
        assert changed.created_at == before.created_at
        assert changed.updated_at >= before.updated_at
        named = (await api("tenants.update", before.id, name="Only this")).data
        assert (named.name, named.metadata, named.status) == ("Only this", {"a": 1}, "suspended")
        emptied = (await api("tenants.update", before.id, metadata=None)).data
        assert (emptied.name, emptied.metadata) == ("Only this", {})
        assert (await api("tenants.retrieve", before.id)).data == emptied


@scene("tenants.list")
async def list_tenants(api: Api, door: ArkDoor) -> None:
    async with contextlib.AsyncExitStack() as stack:
        ids = [(await stack.enter_async_context(new_tenant(api))).id for _ in range(3)]
        for id_ in ids:
            await api("tenants.update", id_, status="archived")
        rows = await api.all("tenants.list", status="archived", page=1, per_page=2)
        assert [row.id for row in rows] == ids[::-1]
        assert {row.status for row in rows} == {"archived"}
        assert api.count("tenants.list") == 2
        active = [row.id for row in await api.all("tenants.list", status="active")]
        assert {"acme", "other"} <= set(active)
        assert not set(ids) & set(active)


@scene("tenants.delete")
async def delete(api: Api, door: ArkDoor) -> None:
    async with new_tenant(api) as tenant:
        assert (await api("tenants.delete", tenant.id)).data.deleted is True
        for name in ("tenants.retrieve", "tenants.delete"):
            with pytest.raises(ark.NotFoundError) as refused:
                await api(name, tenant.id)
            assert code(refused.value) == "not_found"


@scene("tenants.credentials.create")
async def create_credential(api: Api, door: ArkDoor) -> None:
    async with new_tenant(api) as tenant:
        answer = await api.raw("tenants.credentials.create", tenant.id, name="web-1", type="api")
        made = answer.parsed.data
        assert answer.status == 201
        assert (made.name, made.type, made.hold, made.last_used_at) == ("web-1", "api", False, None)
        assert {"last_used_at"} <= made.model_fields_set
        assert "smtp_username" not in made.model_fields_set
        assert recent(made.created_at)
        assert made.key.startswith("ark_live_")
        own = door.api(key=made.key, sync=False)
        assert (await own("emails.list")).total == 0
        smtp = (await api("tenants.credentials.create", tenant.id, name="app_2", type="smtp")).data
        assert smtp.smtp_username == f"{tenant.id}/{smtp.key}"
        assert smtp.id != made.id


@scene("tenants.credentials.list")
async def list_credentials(api: Api, door: ArkDoor) -> None:
    async with new_tenant(api) as tenant:
        ids = [
            (await api("tenants.credentials.create", tenant.id, name=f"key{number}", type="api")).data.id
            for number in range(3)
        ]
        await api("tenants.credentials.create", tenant.id, name="mail", type="smtp")
        rows = await api.all("tenants.credentials.list", tenant.id, type="api", page=1, per_page=2)
        assert [row.id for row in rows] == ids[::-1]
        assert api.count("tenants.credentials.list") == 2
        assert not any({"key", "smtp_username"} & set(row.to_dict()) for row in rows)
        assert all("last_used_at" in row.model_fields_set for row in rows)
        assert (await api("tenants.credentials.list", tenant.id)).total == 4


@scene("tenants.credentials.retrieve")
async def retrieve_credential(api: Api, door: ArkDoor) -> None:
    async with new_tenant(api) as tenant:
        made = (await api("tenants.credentials.create", tenant.id, name="mail", type="smtp")).data
        for reveal in ({}, {"reveal": False}):
            shown = (await api("tenants.credentials.retrieve", made.id, tenant_id=tenant.id, **reveal)).data
            assert (shown.id, shown.name, shown.type, shown.hold) == (made.id, "mail", "smtp", False)
            assert not {"key", "smtp_username"} & shown.model_fields_set
        revealed = (await api("tenants.credentials.retrieve", made.id, tenant_id=tenant.id, reveal=True)).data
        assert (revealed.key, revealed.smtp_username) == (made.key, made.smtp_username)


@scene("tenants.credentials.update")
async def update_credential(api: Api, door: ArkDoor) -> None:
    made = (await api("tenants.credentials.create", "acme", name=unique("till"), type="api")).data
    new = unique("shop")
    changed = (await api("tenants.credentials.update", made.id, tenant_id="acme", name=new, hold=True)).data
    assert (changed.id, changed.name, changed.hold) == (made.id, new, True)
    assert "key" not in changed.model_fields_set
    own = door.api(key=made.key, sync=False)
    with pytest.raises(ark.PermissionDeniedError) as refused:
        await own("emails.send", **fields(mailbox("never")))
    assert code(refused.value) == "credential_on_hold"
    released = (await api("tenants.credentials.update", made.id, tenant_id="acme", hold=False)).data
    assert (released.name, released.hold) == (new, False)
    await own("emails.send", **fields(mailbox("till")))
    used = await door.until(
        lambda: api("tenants.credentials.retrieve", made.id, tenant_id="acme"),
        lambda shown: shown.data.last_used_at is not None,
    )
    assert recent(used.data.last_used_at)
    await api("tenants.credentials.delete", made.id, tenant_id="acme")


@scene("tenants.credentials.delete")
async def delete_credential(api: Api, door: ArkDoor) -> None:
    made = (await api("tenants.credentials.create", "acme", name=unique("gone"), type="api")).data
    assert (await api("tenants.credentials.delete", made.id, tenant_id="acme")).data.deleted is True
    with pytest.raises(ark.NotFoundError):
        await api("tenants.credentials.retrieve", made.id, tenant_id="acme")
    with pytest.raises(ark.AuthenticationError):
        await door.api(key=made.key, sync=False)("emails.list")


@scene("tenants.suppressions.create")
async def create_suppression(api: Api, door: ArkDoor) -> None:
    address = mailbox("no")
    answer = await api.raw("tenants.suppressions.create", "acme", address=address, reason="asked for it")
    made = answer.parsed.data
    assert (answer.status, made.address, made.reason) == (201, address, "asked for it")
    assert isinstance(made.id, str)
    assert recent(made.created_at)
    again = (await api("tenants.suppressions.create", "acme", address=address.upper(), reason=None)).data
    assert (again.id, again.address) == (made.id, address)


@scene("tenants.suppressions.list")
async def list_suppressions(api: Api, door: ArkDoor) -> None:
    async with new_tenant(api) as tenant:
        made = [
            (await api("tenants.suppressions.create", tenant.id, address=mailbox("no"), reason="x")).data
            for _ in range(5)
        ]
        rows = await api.all("tenants.suppressions.list", tenant.id, page=1, per_page=2)
        assert [row.id for row in rows] == [one.id for one in made][::-1]
        assert (rows[0].address, rows[0].reason) == (made[4].address, "x")
        assert rows[0].created_at == made[4].created_at
        assert api.count("tenants.suppressions.list") == 3
        last = await api("tenants.suppressions.list", tenant.id, page=3, per_page=2)
        assert (last.page, last.per_page, last.total, last.total_pages, len(last.data)) == (3, 2, 5, 3, 1)


@scene("tenants.suppressions.retrieve")
async def retrieve_suppression(api: Api, door: ArkDoor) -> None:
    address = f"{unique('user')}+tag@example.com"
    absent = (await api("tenants.suppressions.retrieve", address, tenant_id="acme")).data
    assert (absent.address, absent.suppressed, absent.reason, absent.created_at) == (address, False, None, None)
    made = (await api("tenants.suppressions.create", "acme", address=address, reason="plus")).data
    found = (await api("tenants.suppressions.retrieve", address, tenant_id="acme")).data
    assert (found.address, found.suppressed, found.reason) == (address, True, "plus")
    assert found.created_at == made.created_at
    assert api.exchanges[-1].path.endswith(f"/suppressions/{address}")  # neither + nor @ is escaped


@scene("tenants.suppressions.delete")
async def delete_suppression(api: Api, door: ArkDoor) -> None:
    address = f"{unique('user')}+tag@example.com"
    await api("tenants.suppressions.create", "acme", address=address)
    assert address in (await api("tenants.suppressions.delete", address, tenant_id="acme")).data.message
    assert (await api("tenants.suppressions.retrieve", address, tenant_id="acme")).data.suppressed is False
    with pytest.raises(ark.NotFoundError):
        await api("tenants.suppressions.delete", address, tenant_id="acme")
