"""Scenes of ``tenants.domains``, ``tenants.tracking`` and ``tenants.usage``: thirteen methods."""

import contextlib
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import ark
import pytest
from e2e.sdk.emails import fields
from e2e.sdk.figures import around
from e2e.sdk.table import scene
from e2e.sdk.tenants import new_tenant, recent
from peers.arkclient import Api, code
from peers.arkdoor import ArkDoor, unique


@contextlib.asynccontextmanager
async def new_domain(api: Api, tenant_id: str = "acme") -> AsyncIterator[Any]:
    """Give a sender domain of its own, and remove it."""
    domain = (await api("tenants.domains.create", tenant_id, name=f"{unique('news')}.example.com")).data
    try:
        yield domain
    finally:
        with contextlib.suppress(ark.NotFoundError):
            await api("tenants.domains.delete", str(domain.id), tenant_id=tenant_id)


def publish(door: ArkDoor, domain: Any) -> None:
    """Put the records that the relay asks for into DNS."""
    records = domain.dns_records
    for record in (records.spf, records.dkim, records.return_path):
        door.dns.set(record.full_name, record.type, record.value + "." * (record.type == "CNAME"))


@scene("tenants.domains.create")
async def create(api: Api, door: ArkDoor) -> None:
    name = f"{unique('news')}.example.com"
    answer = await api.raw("tenants.domains.create", "acme", name=name)
    domain = answer.parsed.data
    assert answer.status == 201
    assert isinstance(domain.id, int)
    assert (domain.name, domain.verified, domain.verified_at) == (name, False, None)
    assert (domain.tenant_id, domain.tenant_name) == ("acme", "Acme Inc")
    assert recent(domain.created_at)
    label, records = name.partition(".")[0], domain.dns_records
    assert records.zone == "example.com"
    assert (records.spf.type, records.spf.name, records.spf.full_name) == ("TXT", label, name)
    assert records.spf.value == "v=spf1 a mx include:spf.relay.test ~all"
    assert (records.return_path.type, records.return_path.full_name) == ("CNAME", f"psrp.{name}")
    assert (records.return_path.name, records.return_path.value) == (f"psrp.{label}", "rp.relay.test")
    assert records.dkim.full_name.endswith(f"._domainkey.{name}")
    assert records.dkim.value.startswith("v=DKIM1;")
    with pytest.raises(ark.ConflictError) as refused:
        await api("tenants.domains.create", "acme", name=name)
    assert code(refused.value) == "already_exists"
    assert api.count("tenants.domains.create") == 2  # it was not tried again
    await api("tenants.domains.delete", str(domain.id), tenant_id="acme")


@scene("tenants.domains.list")
async def list_domains(api: Api, door: ArkDoor) -> None:
    async with new_tenant(api) as tenant:
        assert (await api("tenants.domains.list", tenant.id)).data.domains == []
        async with new_domain(api, tenant.id) as one, new_domain(api, tenant.id) as two:
            rows = (await api("tenants.domains.list", tenant.id)).data.domains
            assert [(row.id, row.name, row.verified) for row in rows] == [
                (two.id, two.name, False),
                (one.id, one.name, False),
            ]
            assert (rows[0].tenant_id, rows[0].tenant_name) == (tenant.id, tenant.name)


@scene("tenants.domains.retrieve")
async def retrieve(api: Api, door: ArkDoor) -> None:
    async with new_domain(api) as domain:
        shown = (await api("tenants.domains.retrieve", str(domain.id), tenant_id="acme")).data
        assert (shown.id, shown.uuid, shown.name) == (domain.id, domain.uuid, domain.name)
        assert shown.created_at == domain.created_at
        assert shown.dns_records.dkim.value == domain.dns_records.dkim.value
        with pytest.raises(ark.NotFoundError):
            await api("tenants.domains.retrieve", str(domain.id), tenant_id="other")


@scene("tenants.domains.delete")
async def delete(api: Api, door: ArkDoor) -> None:
    async with new_domain(api) as domain:
        answer = await api("tenants.domains.delete", str(domain.id), tenant_id="acme")
        assert domain.name in answer.data.message
        with pytest.raises(ark.NotFoundError):
            await api("tenants.domains.retrieve", str(domain.id), tenant_id="acme")


@scene("tenants.domains.verify")
async def verify(api: Api, door: ArkDoor) -> None:
    async with new_domain(api) as domain:
        before = await api.raw("tenants.domains.verify", str(domain.id), tenant_id="acme")
        assert before.status == 200
        assert before.parsed.data.verified is False
        assert before.parsed.data.dns_records.spf.status == "Missing"
        unverified = fields("who@rcpt.test", from_=f"app@{domain.name}")
        with pytest.raises(ark.UnprocessableEntityError) as refused:
            await api("emails.send", **unverified)
        assert code(refused.value) == "domain_not_verified"
        publish(door, domain)
        after = (await api("tenants.domains.verify", str(domain.id), tenant_id="acme")).data
        records = after.dns_records
        assert (records.spf.status, records.dkim.status, records.return_path.status) == ("OK", "OK", "OK")
        assert after.verified is True
        assert recent(after.verified_at)
        assert (await api("emails.send", **unverified)).data.status == "pending"


@contextlib.asynccontextmanager
async def new_track_domain(api: Api, **more: Any) -> AsyncIterator[Any]:
    """Give a track domain below a domain of its own, and remove both."""
    async with new_domain(api) as domain:
        made = (await api("tenants.tracking.create", "acme", domain_id=domain.id, name="track", **more)).data
        try:
            yield made
        finally:
            with contextlib.suppress(ark.NotFoundError):
                await api("tenants.tracking.delete", made.id, tenant_id="acme")


@scene("tenants.tracking.create")
async def create_track_domain(api: Api, door: ArkDoor) -> None:
    async with new_domain(api) as domain:
        given = {"domain_id": domain.id, "name": "click"}
        switches = {"ssl_enabled": False, "track_clicks": False, "track_opens": True}
        answer = await api.raw("tenants.tracking.create", "acme", **given, **switches)
        made = answer.parsed.data
        assert answer.status == 201
        assert (made.domain_id, made.name, made.full_name) == (str(domain.id), "click", f"click.{domain.name}")
        assert (made.ssl_enabled, made.track_clicks, made.track_opens) == (False, False, True)
        assert (made.dns_ok, made.excluded_click_domains) == (False, None)
        assert (made.dns_record.type, made.dns_record.value) == ("CNAME", "track.relay.test")
        assert recent(made.created_at)
        await api("tenants.tracking.delete", made.id, tenant_id="acme")
    async with new_track_domain(api, ssl_enabled=None, track_clicks=None) as plain:
        assert (plain.ssl_enabled, plain.track_clicks, plain.track_opens) == (True, True, True)


@scene("tenants.tracking.list")
async def list_track_domains(api: Api, door: ArkDoor) -> None:
    async with new_track_domain(api) as one, new_track_domain(api) as two:
        rows = (await api("tenants.tracking.list", "acme")).data.track_domains
        assert [row.id for row in rows] == [two.id, one.id]
        assert (rows[0].full_name, rows[0].domain_id) == (two.full_name, two.domain_id)
        assert rows[0].model_fields_set == two.model_fields_set


@scene("tenants.tracking.retrieve")
async def retrieve_track_domain(api: Api, door: ArkDoor) -> None:
    async with new_track_domain(api) as made:
        shown = (await api("tenants.tracking.retrieve", made.id, tenant_id="acme")).data
        assert (shown.id, shown.full_name, shown.created_at) == (made.id, made.full_name, made.created_at)
        with pytest.raises(ark.NotFoundError):
            await api("tenants.tracking.retrieve", made.id, tenant_id="other")


@scene("tenants.tracking.update")
async def update_track_domain(api: Api, door: ArkDoor) -> None:
    async with new_track_domain(api) as made:
        changes = {
            "excluded_click_domains": "app.example.com,docs.example.com",
            "ssl_enabled": False,
            "track_clicks": False,
            "track_opens": False,
        }
        changed = (await api("tenants.tracking.update", made.id, tenant_id="acme", **changes)).data
        assert changed.excluded_click_domains == "app.example.com,docs.example.com"
        assert (changed.ssl_enabled, changed.track_clicks, changed.track_opens) == (False, False, False)
        kept = {"excluded_click_domains": None, "track_clicks": None}
        cleared = (await api("tenants.tracking.update", made.id, tenant_id="acme", **kept, track_opens=True)).data
        assert (cleared.excluded_click_domains, cleared.track_opens, cleared.ssl_enabled) == (None, True, False)


@scene("tenants.tracking.delete")
async def delete_track_domain(api: Api, door: ArkDoor) -> None:
    async with new_track_domain(api) as made:
        answer = await api("tenants.tracking.delete", made.id, tenant_id="acme")
        assert made.full_name in answer.data.message
        with pytest.raises(ark.NotFoundError):
            await api("tenants.tracking.delete", made.id, tenant_id="acme")


@scene("tenants.tracking.verify")
async def verify_track_domain(api: Api, door: ArkDoor) -> None:
    async with new_track_domain(api) as made:
        before = (await api("tenants.tracking.verify", made.id, tenant_id="acme")).data
        assert (before.id, before.full_name, before.dns_ok) == (made.id, made.full_name, False)
        assert before.dns_status == "missing"
        assert before.dns_error
        door.dns.set(made.full_name, "CNAME", "track.relay.test.")
        after = (await api("tenants.tracking.verify", made.id, tenant_id="acme")).data
        assert (after.dns_ok, after.dns_status, after.dns_error) == (True, "ok", None)
        assert recent(after.dns_checked_at)
        assert after.dns_record.name
        shown = (await api("tenants.tracking.retrieve", made.id, tenant_id="acme")).data
        assert (shown.dns_ok, shown.dns_status) == (True, "ok")


@scene("tenants.usage.retrieve")
async def usage(api: Api, door: ArkDoor) -> None:
    days = around()
    before = (await api("tenants.usage.retrieve", "acme", period=days, timezone="UTC")).data
    assert (before.tenant_id, before.tenant_name, before.external_id) == ("acme", "Acme Inc", None)
    await api("emails.send", **fields(await door.suppressed(api)))
    after = await door.until(
        lambda: api("tenants.usage.retrieve", "acme", period=days, timezone="UTC"),
        lambda found: found.data.emails.held > before.emails.held,
    )
    counts = after.data.emails
    parts = (counts.delivered, counts.soft_failed, counts.hard_failed, counts.bounced, counts.held)
    assert counts.sent >= sum(parts) > 0
    async with new_tenant(api, metadata={"external_id": "cust_9"}) as tenant:
        fresh = (await api("tenants.usage.retrieve", tenant.id, period="2024-02", timezone="Asia/Tokyo")).data
        assert (fresh.external_id, fresh.emails.sent, fresh.rates.delivery_rate) == ("cust_9", 0, 0)
        assert fresh.period.start == datetime(2024, 1, 31, 15, tzinfo=UTC)


@scene("tenants.usage.retrieve_timeseries")
async def timeseries(api: Api, door: ArkDoor) -> None:
    days = around()
    await api("emails.send", **fields(await door.suppressed(api)))
    shown = await door.until(
        lambda: api(
            "tenants.usage.retrieve_timeseries", "acme", granularity="hour", period=days, timezone="Europe/Berlin"
        ),
        lambda found: sum(point.held for point in found.data.data) > 0,
    )
    assert (shown.data.tenant_id, shown.data.tenant_name, shown.data.granularity) == ("acme", "Acme Inc", "hour")
    starts = [point.timestamp for point in shown.data.data]
    assert starts[0] == shown.data.period.start
    assert {later - earlier for earlier, later in itertools.pairwise(starts)} == {timedelta(hours=1)}
    by_day = (await api("tenants.usage.retrieve_timeseries", "acme", period="2024-02")).data
    assert (by_day.granularity, len(by_day.data)) == ("day", 29)
    assert {point.sent for point in by_day.data} == {0}
