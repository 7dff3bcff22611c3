"""Scenes of ``logs``, ``usage`` and ``limits``: what the relay counted and wrote down."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from e2e.sdk.emails import fields
from e2e.sdk.table import scene
from peers.arkclient import Api
from peers.arkdoor import ACME_KEY, HOURLY, ArkDoor, mailbox, unique

CSV = [
    *("tenant_id", "tenant_name", "external_id", "status"),
    *("sent", "delivered", "soft_failed", "hard_failed", "bounced", "held"),
    *("delivery_rate", "bounce_rate", "period_start", "period_end"),
]


def around() -> str:
    """Return three days with today in the middle: no test minds midnight."""
    today = datetime.now(UTC).date()
    return f"{today - timedelta(days=1)}..{today + timedelta(days=1)}"


async def logged(api: Api, door: ArkDoor, request_id: str) -> Any:
    """Return the entry of a request: it is written behind the answer."""
    found = await door.until(lambda: api("logs.list", request_id=request_id), lambda page: page.total == 1)
    return found.data[0]


@scene("logs.list")
async def list_logs(api: Api, door: ArkDoor) -> None:
    began = datetime.now(UTC) - timedelta(minutes=1)
    ids = [(await api.raw("tenants.domains.list", "acme")).headers["X-Request-Id"] for _ in range(3)]
    entry = [await logged(api, door, id_) for id_ in ids][-1]
    given = {
        "credential_id": entry.credential.id,
        "endpoint": "tenants.domains.list",
        "status": "success",
        "status_code": 200,
        "start_date": began,
        "end_date": (began + timedelta(hours=1)).isoformat(),
    }
    rows = await api.all("logs.list", **given, page=1, per_page=2)
    assert [row.request_id for row in rows[:3]] == ids[::-1]
    assert (await api("logs.list", **given, request_id=ids[0][4:12])).total == 1
    assert (entry.method, entry.endpoint, entry.status_code) == ("GET", "tenants.domains.list", 200)
    assert entry.path.endswith("/tenants/acme/domains")
    assert entry.credential.key_prefix == door.key[:8]
    assert entry.context.ip_address == "127.0.0.1"
    assert entry.context.user_agent.startswith(("Ark/Python", "AsyncArk/Python"))
    assert entry.sdk.version == "0.18.1"
    assert entry.rate_limit.limited is False
    assert (entry.rate_limit.limit, entry.error, entry.email) == (1000, None, None)
    assert entry.duration_ms >= 0
    assert began < entry.timestamp < began + timedelta(hours=1)
    assert (await api("logs.list", **{**given, "status": "error"})).total == 0
    assert (await api("logs.list", start_date=began + timedelta(days=1))).total == 0


@scene("logs.retrieve")
async def retrieve_log(api: Api, door: ArkDoor) -> None:
    key, to = unique("logged"), await door.suppressed(api)
    given = fields(to, cc=[await door.suppressed(api)], idempotency_key=key)
    sent = await api.raw("emails.send", **given)
    id_ = sent.headers["X-Request-Id"]
    await logged(api, door, id_)
    entry = (await api("logs.retrieve", id_)).data
    assert (entry.request_id, entry.method, entry.endpoint) == (id_, "POST", "emails.send")
    assert entry.context.idempotency_key == key
    assert (entry.email.id, entry.email.recipient_count) == (sent.parsed.data.id, 2)
    assert entry.request.body["to"] == [to]
    assert entry.request.body_size > 50
    assert entry.response.body["data"]["id"] == sent.parsed.data.id
    assert entry.response.body_size == len(sent.text)


@scene("usage.retrieve")
async def usage(api: Api, door: ArkDoor) -> None:
    days = around()
    before = (await api("usage.retrieve", period=days, timezone="UTC")).data
    sent, held = mailbox("counted"), await door.suppressed(api)
    for address in (sent, held):
        id_ = (await api("emails.send", **fields(address))).data.id
        await door.settled(api, id_, "sent", "held")
    after = await door.until(
        lambda: api("usage.retrieve", period=days, timezone="UTC"),
        lambda found: (
            found.data.emails.delivered > before.emails.delivered and found.data.emails.held > before.emails.held
        ),
    )
    assert after.data.emails.sent >= before.emails.sent + 2
    assert after.data.tenants.total >= 2
    assert after.data.tenants.active >= 2
    assert after.data.tenants.with_activity >= 1
    assert 0 <= after.data.rates.delivery_rate <= 1
    assert 0 <= after.data.rates.bounce_rate <= 1
    month = (await api("usage.retrieve", period="2024-02", timezone="Europe/Berlin")).data
    assert month.period.start == datetime(2024, 1, 31, 23, tzinfo=UTC)
    assert month.period.end.timestamp() == datetime(2024, 2, 29, 23, tzinfo=UTC).timestamp() - 0.001
    assert (month.emails.sent, month.rates.delivery_rate, month.rates.bounce_rate) == (0, 0, 0)


@scene("usage.list_tenants")
async def usage_of_tenants(api: Api, door: ArkDoor) -> None:
    id_ = (await api("emails.send", **fields(await door.suppressed(api)))).data.id
    await door.settled(api, id_, "held")
    given = {"period": around(), "timezone": "UTC", "status": "active", "sort": "-sent"}
    rows = await door.until(
        lambda: api.all("usage.list_tenants", **given, min_sent=0, page=1, per_page=1),
        lambda found: found[0].emails.held > 0,
    )
    assert rows[0].tenant_id == "acme"
    assert (rows[0].tenant_name, rows[0].status, rows[0].external_id) == ("Acme Inc", "active", None)
    assert {"acme", "other"} <= {row.tenant_id for row in rows}
    counts = [row.emails.sent for row in rows]
    assert counts == sorted(counts, reverse=True)
    busy = await api("usage.list_tenants", **given, min_sent=1)
    assert "other" not in {row.tenant_id for row in busy.data}
    assert busy.per_page == 50
    raw = json.loads((await api.raw("usage.list_tenants", period="2024-02-03")).text)
    assert raw["period"] == {"start": "2024-02-03T00:00:00.000Z", "end": "2024-02-03T23:59:59.999Z"}
    assert "success" not in raw


@scene("usage.export")
async def export(api: Api, door: ArkDoor) -> None:
    given = {"period": around(), "timezone": "UTC", "min_sent": 0, "status": "active"}
    rows = await api("usage.export", **given, format="jsonl")
    found = {row.tenant_id: row for row in rows}
    assert (found["acme"].tenant_name, found["acme"].status) == ("Acme Inc", "active")
    assert (found["other"].sent, found["other"].delivery_rate) == (0, 0)
    answer = await api.raw("usage.export", **given, format="csv")
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert "filename=" in answer.headers["Content-Disposition"]
    assert answer.text.startswith("\ufeff")
    table = list(csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff"))))
    assert list(table[0]) == CSV
    assert {row["tenant_id"] for row in table} == set(found)


@scene("limits.retrieve")
async def limits(api: Api, door: ArkDoor) -> None:
    organisation = (await api("limits.retrieve")).data
    assert (organisation.rate_limit.limit, organisation.rate_limit.period) == (1000, "second")
    assert 0 <= organisation.rate_limit.remaining < 1000
    assert abs(organisation.rate_limit.reset - datetime.now(UTC).timestamp()) < 5
    assert {"billing", "send_limit"} <= organisation.model_fields_set
    assert organisation.billing is None
    own = door.api(key=ACME_KEY, sync=False)
    limit = (await own("limits.retrieve")).data.send_limit
    assert (limit.limit, limit.period, limit.approaching, limit.exceeded) == (HOURLY, "hour", False, False)
    assert limit.remaining == HOURLY - limit.used
    assert 0 <= limit.usage_percent < 10
    assert (limit.resets_at.minute, limit.resets_at.second) == (0, 0)
    assert timedelta(seconds=-5) < limit.resets_at - datetime.now(UTC) <= timedelta(hours=1)
