"""Scenes of ``tenants.webhooks`` and ``platform.webhooks``: eighteen methods."""

import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import ark
import pytest
from e2e.sdk.table import scene
from e2e.sdk.tenants import new_tenant, recent
from peers.arkclient import Api
from peers.arkdoor import ArkDoor, unique

EVENTS = ["MessageHeld", "MessageSent"]


@contextlib.asynccontextmanager
async def new_hook(api: Api, url: str, tenant_id: str = "acme", **more: Any) -> AsyncIterator[Any]:
    """Give a webhook of a tenant, and remove it."""
    hook = (await api("tenants.webhooks.create", tenant_id, name=unique("hook"), url=url, **more)).data
    try:
        yield hook
    finally:
        with contextlib.suppress(ark.NotFoundError):
            await api("tenants.webhooks.delete", hook.id, tenant_id=tenant_id)


@contextlib.asynccontextmanager
async def new_platform_hook(api: Api, url: str, **more: Any) -> AsyncIterator[Any]:
    """Give a webhook of the platform, and remove it."""
    hook = (await api("platform.webhooks.create", name=unique("central"), url=url, **more)).data
    try:
        yield hook
    finally:
        with contextlib.suppress(ark.NotFoundError):
            await api("platform.webhooks.delete", hook.id)


BOUNCED = "MessageBounced"  # no mail of these tests does, so what is posted is what was asked for


async def told(api: Api, hook: Any, count: int = 1) -> list[Any]:
    """Post to a webhook of acme so often; return its deliveries, newest first."""
    for _ in range(count):
        await api("tenants.webhooks.test", hook.id, tenant_id="acme", event=BOUNCED)
    found: list[Any] = (await api("tenants.webhooks.list_deliveries", hook.id, tenant_id="acme")).data
    return found


async def told_platform(api: Api, hook: Any, count: int = 1) -> list[Any]:
    """Post to a webhook of the platform so often; return its deliveries, newest first."""
    for _ in range(count):
        await api("platform.webhooks.test", hook.id, event=BOUNCED)
    found: list[Any] = (await api("platform.webhooks.list_deliveries", webhook_id=hook.id)).data
    return found


@scene("tenants.webhooks.create")
async def create(api: Api, door: ArkDoor) -> None:
    url = door.receiver.url(unique("create"))
    answer = await api.raw(
        "tenants.webhooks.create",
        "acme",
        name="Production",
        url=url,
        events=EVENTS,
        all_events=False,
        enabled=False,
    )
    hook = answer.parsed.data
    assert answer.status == 201
    assert (hook.name, hook.url, hook.events) == ("Production", url, EVENTS)
    assert (hook.all_events, hook.enabled) == (False, False)
    assert hook.uuid
    assert recent(hook.created_at)
    await api("tenants.webhooks.delete", hook.id, tenant_id="acme")
    async with new_hook(api, url, all_events=True, events=None, enabled=None) as all_:
        assert (all_.all_events, all_.enabled) == (True, True)


@scene("tenants.webhooks.list")
async def list_hooks(api: Api, door: ArkDoor) -> None:
    async with new_tenant(api) as tenant:
        assert (await api("tenants.webhooks.list", tenant.id)).data.webhooks == []
        url = door.receiver.url("list")
        async with new_hook(api, url, tenant.id, events=EVENTS) as one, new_hook(api, url, tenant.id) as two:
            rows = (await api("tenants.webhooks.list", tenant.id)).data.webhooks
            assert [row.id for row in rows] == [two.id, one.id]
            assert (rows[1].name, rows[1].url, rows[1].enabled, rows[1].events) == (one.name, url, True, EVENTS)


@scene("tenants.webhooks.retrieve")
async def retrieve(api: Api, door: ArkDoor) -> None:
    async with new_hook(api, door.receiver.url("retrieve"), events=EVENTS) as hook:
        for id_ in (hook.id, hook.uuid):
            shown = (await api("tenants.webhooks.retrieve", id_, tenant_id="acme")).data
            assert shown.to_dict() == hook.to_dict()
        with pytest.raises(ark.NotFoundError):
            await api("tenants.webhooks.retrieve", hook.id, tenant_id="other")


@scene("tenants.webhooks.update")
async def update(api: Api, door: ArkDoor) -> None:
    async with new_hook(api, door.receiver.url("before"), events=EVENTS) as hook:
        url = door.receiver.url("after")
        changes = {"name": "New", "url": url, "events": ["MessageBounced"], "all_events": False, "enabled": False}
        changed = (await api("tenants.webhooks.update", hook.id, tenant_id="acme", **changes)).data
        assert (changed.name, changed.url, changed.events) == ("New", url, ["MessageBounced"])
        assert (changed.all_events, changed.enabled) == (False, False)
        assert (changed.id, changed.uuid, changed.created_at) == (hook.id, hook.uuid, hook.created_at)
        nulls = dict.fromkeys(changes)
        assert (await api("tenants.webhooks.update", hook.id, tenant_id="acme", **nulls)).data == changed
        again = (await api("tenants.webhooks.update", hook.id, tenant_id="acme", enabled=True)).data
        assert (again.enabled, again.name) == (True, "New")


@scene("tenants.webhooks.delete")
async def delete(api: Api, door: ArkDoor) -> None:
    async with new_hook(api, door.receiver.url("delete")) as hook:
        assert (await api("tenants.webhooks.delete", hook.id, tenant_id="acme")).data.message
        with pytest.raises(ark.NotFoundError):
            await api("tenants.webhooks.retrieve", hook.id, tenant_id="acme")


@scene("tenants.webhooks.list_deliveries")
async def list_deliveries(api: Api, door: ArkDoor) -> None:
    good, bad = door.receiver.url(unique("good")), door.receiver.url(unique("bad"), 500)
    async with (
        new_hook(api, good, events=[BOUNCED]) as hook,
        new_hook(api, bad, events=[BOUNCED]) as failing,
    ):
        rows = await told(api, hook, 3)
        assert len(rows) == 3
        row = rows[0]
        assert (row.webhook_id, row.event, row.url) == (hook.id, BOUNCED, good)
        assert (row.attempt, row.status_code, row.success, row.will_retry) == (1, 204, True, False)
        assert recent(row.timestamp)
        assert rows[0].timestamp >= rows[-1].timestamp
        now = int(time.time())
        given = {"after": now - 600, "before": now + 600, "event": BOUNCED, "success": True}
        page = await api("tenants.webhooks.list_deliveries", hook.id, tenant_id="acme", **given, page=2, per_page=2)
        assert (page.page, page.per_page, page.total, page.total_pages) == (2, 2, 3, 2)
        assert [one.id for one in page.data] == [rows[2].id]
        for nothing in ({"success": False}, {"event": "MessageSent"}, {"before": now - 600}, {"after": now + 600}):
            none = await api("tenants.webhooks.list_deliveries", hook.id, tenant_id="acme", **nothing)
            assert none.total == 0, nothing
        failed = (await told(api, failing))[0]
        assert (failed.status_code, failed.success, failed.will_retry) == (500, False, False)


@scene("tenants.webhooks.retrieve_delivery")
async def retrieve_delivery(api: Api, door: ArkDoor) -> None:
    url = door.receiver.url(unique("detail"), 200)
    async with new_hook(api, url, events=[BOUNCED]) as hook:
        (row,) = await told(api, hook)
        shown = (await api("tenants.webhooks.retrieve_delivery", row.id, tenant_id="acme", webhook_id=hook.id)).data
        assert (shown.id, shown.webhook_id, shown.webhook_name) == (row.id, hook.id, hook.name)
        assert (shown.event, shown.url, shown.attempt, shown.status_code) == (BOUNCED, url, 1, 200)
        assert (shown.response.status_code, shown.response.body) == (200, "answered 200")
        (post,) = door.receiver.at(url)
        assert shown.request.payload == post.json
        headers = {name.lower(): value for name, value in shown.request.headers.items()}
        assert headers["x-ark-signature"] == post.headers["X-Ark-Signature"]
        with pytest.raises(ark.NotFoundError):
            await api("tenants.webhooks.retrieve_delivery", "whr_0", tenant_id="acme", webhook_id=hook.id)


@scene("tenants.webhooks.replay_delivery")
async def replay_delivery(api: Api, door: ArkDoor) -> None:
    url = door.receiver.url(unique("replay"), 200)
    async with new_hook(api, url, events=[BOUNCED]) as hook:
        (row,) = await told(api, hook)
        given = {"tenant_id": "acme", "webhook_id": hook.id}
        again = (await api("tenants.webhooks.replay_delivery", row.id, **given)).data
        assert (again.success, again.status_code, again.original_delivery_id) == (True, 200, row.id)
        assert again.new_delivery_id != row.id
        assert again.duration >= 0
        assert recent(again.timestamp)
        first, second = door.receiver.at(url)
        assert second.json["payload"] == first.json["payload"]
        assert second.json["uuid"] != first.json["uuid"]
        assert second.json["timestamp"] > first.json["timestamp"]
        assert again.new_delivery_id == (await told(api, hook, 0))[0].id
        await api("tenants.webhooks.update", hook.id, tenant_id="acme", enabled=False)
        before = api.count("tenants.webhooks.replay_delivery")
        with pytest.raises(ark.ConflictError):
            await api("tenants.webhooks.replay_delivery", row.id, **given)
        assert api.count("tenants.webhooks.replay_delivery") == before + 1


@scene("tenants.webhooks.test")
async def test(api: Api, door: ArkDoor) -> None:
    good, bad = door.receiver.url(unique("test"), 200), door.receiver.url(unique("test"), 503)
    async with new_hook(api, good, enabled=False) as hook, new_hook(api, bad) as failing:
        for event in ("MessageBounced", "DomainDNSError"):
            done = (await api("tenants.webhooks.test", hook.id, tenant_id="acme", event=event)).data
            assert (done.success, done.event, done.status_code) == (True, event, 200)
            assert (done.body, done.error) == ("answered 200", None)
            assert done.duration >= 0
            assert door.receiver.at(good)[-1].json["event"] == event
        failed = (await api("tenants.webhooks.test", failing.id, tenant_id="acme", event="MessageSent")).data
        assert (failed.success, failed.status_code) == (False, 503)
    async with new_hook(api, "http://127.0.0.1:9/nobody") as unreachable:
        done = (await api("tenants.webhooks.test", unreachable.id, tenant_id="acme", event="MessageSent")).data
        assert (done.success, done.status_code) == (False, None)
        assert done.error


@scene("platform.webhooks.create")
async def create_platform(api: Api, door: ArkDoor) -> None:
    url = door.receiver.url(unique("central"))
    answer = await api.raw("platform.webhooks.create", name="Central", url=url, events=EVENTS)
    hook = answer.parsed.data
    assert answer.status == 201
    assert hook.id.startswith("pwh_")
    assert (hook.name, hook.url, hook.events, hook.enabled) == ("Central", url, EVENTS, True)
    assert recent(hook.created_at)
    assert recent(hook.updated_at)
    await api("platform.webhooks.delete", hook.id)
    async with new_platform_hook(api, url, events=[]) as all_:
        assert all_.events == []


@scene("platform.webhooks.list")
async def list_platform(api: Api, door: ArkDoor) -> None:
    url = door.receiver.url("platform")
    async with new_platform_hook(api, url, events=EVENTS) as one, new_platform_hook(api, url) as two:
        rows = (await api("platform.webhooks.list")).data
        assert [row.id for row in rows] == [two.id, one.id]
        row = rows[1]
        assert (row.name, row.url, row.events, row.enabled) == (one.name, url, EVENTS, True)
        assert row.created_at == one.created_at


@scene("platform.webhooks.retrieve")
async def retrieve_platform(api: Api, door: ArkDoor) -> None:
    async with new_platform_hook(api, door.receiver.url("platform"), events=EVENTS) as hook:
        assert (await api("platform.webhooks.retrieve", hook.id)).data.to_dict() == hook.to_dict()
    with pytest.raises(ark.NotFoundError):
        await api("platform.webhooks.retrieve", hook.id)


@scene("platform.webhooks.update")
async def update_platform(api: Api, door: ArkDoor) -> None:
    async with new_platform_hook(api, door.receiver.url("platform")) as hook:
        url = door.receiver.url("moved")
        changes = {"name": "New", "url": url, "events": EVENTS, "enabled": False}
        changed = (await api("platform.webhooks.update", hook.id, **changes)).data
        assert (changed.name, changed.url, changed.events, changed.enabled) == ("New", url, EVENTS, False)
        assert changed.updated_at >= hook.updated_at
        again = (await api("platform.webhooks.update", hook.id, events=[])).data
        assert (again.events, again.name, again.enabled) == ([], "New", False)


@scene("platform.webhooks.delete")
async def delete_platform(api: Api, door: ArkDoor) -> None:
    async with new_platform_hook(api, door.receiver.url("platform")) as hook:
        assert (await api("platform.webhooks.delete", hook.id)).data.message
        with pytest.raises(ark.NotFoundError):
            await api("platform.webhooks.delete", hook.id)


@scene("platform.webhooks.list_deliveries")
async def list_platform_deliveries(api: Api, door: ArkDoor) -> None:
    url = door.receiver.url(unique("central"))
    async with new_platform_hook(api, url, events=[BOUNCED]) as hook:
        rows = await told_platform(api, hook, 3)
        before, now = api.count("platform.webhooks.list_deliveries"), int(time.time())
        given = {
            "webhook_id": hook.id,
            "tenant_id": "acme",
            "event": BOUNCED,
            "success": True,
            "after": now - 600,
            "before": now + 600,
        }
        paged = await api.all("platform.webhooks.list_deliveries", **given, page=1, per_page=2)
        assert [row.id for row in paged] == [row.id for row in rows]
        assert api.count("platform.webhooks.list_deliveries") == before + 2
        row = rows[0]
        assert (row.webhook_id, row.tenant_id, row.event, row.url) == (hook.id, "acme", BOUNCED, url)
        assert (row.attempt, row.status_code, row.success, row.will_retry) == (1, 204, True, False)
        assert recent(row.timestamp)
        for nothing in ({"tenant_id": "other"}, {"success": False}, {"event": "MessageSent"}):
            none = await api("platform.webhooks.list_deliveries", **{**given, **nothing})
            assert none.total == 0, nothing


@scene("platform.webhooks.retrieve_delivery")
async def retrieve_platform_delivery(api: Api, door: ArkDoor) -> None:
    url = door.receiver.url(unique("central"), 200)
    async with new_platform_hook(api, url, events=[BOUNCED]) as hook:
        (row,) = await told_platform(api, hook)
        shown = (await api("platform.webhooks.retrieve_delivery", row.id)).data
        assert (shown.id, shown.webhook_id, shown.webhook_name) == (row.id, hook.id, hook.name)
        assert (shown.tenant_id, shown.event, shown.attempt) == ("acme", BOUNCED, 1)
        assert (shown.status_code, shown.success, shown.will_retry) == (200, True, False)
        assert shown.response.body == "answered 200"
        assert shown.response.duration >= 0
        (post,) = door.receiver.at(url)
        assert shown.request.payload == post.json
        assert (post.json["event"], post.json["tenant_id"]) == (BOUNCED, "acme")


@scene("platform.webhooks.replay_delivery")
async def replay_platform_delivery(api: Api, door: ArkDoor) -> None:
    url = door.receiver.url(unique("central"), 200)
    async with new_platform_hook(api, url, events=[BOUNCED]) as hook:
        (row,) = await told_platform(api, hook)
        again = (await api("platform.webhooks.replay_delivery", row.id)).data
        assert (again.success, again.status_code, again.original_delivery_id) == (True, 200, row.id)
        assert again.new_delivery_id != row.id
        assert again.duration >= 0
        assert recent(again.timestamp)
        first, second = door.receiver.at(url)
        assert second.json["payload"] == first.json["payload"]


@scene("platform.webhooks.test")
async def test_platform(api: Api, door: ArkDoor) -> None:
    url = door.receiver.url(unique("central"), 200)
    async with new_platform_hook(api, url, events=[BOUNCED]) as hook:
        done = (await api("platform.webhooks.test", hook.id, event="DomainDNSError")).data
        assert (done.success, done.status_code, done.error) == (True, 200, None)
        assert done.duration_ms >= 0
        (post,) = door.receiver.at(url)
        assert (post.json["event"], post.json["_test"]) == ("DomainDNSError", True)
    async with new_platform_hook(api, "http://127.0.0.1:9/nobody") as unreachable:
        done = (await api("platform.webhooks.test", unreachable.id, event="MessageSent")).data
        assert (done.success, done.status_code) == (False, 0)
        assert done.error
