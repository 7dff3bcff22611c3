"""Usage and limits as clients see them: what was sent stands in all four forms, and in files, alike."""

import asyncio
import csv
import io
import itertools
import json
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from peers.arkclient import Api
from peers.arkdoor import ACME_KEY, HOURLY, OTHER_KEY, ArkDoor, mailbox, open_ark_door
from peers.restdoor import raw

pytestmark = pytest.mark.asyncio(loop_scope="module")

THIRD_KEY, THIRD_TEST_KEY = "ark_live_third-0123456789abcdef", "ark_test_third-0123456789abcdef"
THIRD_NAME = "=HYPERLINK(\"http://x.test\",'Zoë')"
THIRD = f"""
name = {json.dumps(THIRD_NAME)}
[metadata]
external_id = "-7"
externalId = "not this one"
[limits]
hourly = 100
[[credentials]]
name = "rest"
type = "api"
secret = "{THIRD_KEY}"
[[credentials]]
name = "test"
type = "api"
secret = "{THIRD_TEST_KEY}"
[[domains]]
name = "third.test"
trusted = true
"""
IDLE = """
name = "Idle"
status = "archived"
[metadata]
externalId = 42
"""
ACME = {"sent": 6, "delivered": 2, "soft_failed": 1, "hard_failed": 2, "bounced": 0, "held": 1}
TIME: dict[str, Any] = {"period": "last_7_days", "timezone": "UTC"}  # a test may run at midnight
COLUMNS = ["tenant_id", "tenant_name", "external_id", "status", *ACME, "delivery_rate", "bounce_rate"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ArkDoor]:
    """Give a relay whose tenants have sent what the tests count."""
    async with open_ark_door(tmp_path_factory.mktemp("usage")) as opened:
        for name, text in (("third", THIRD), ("idle", IDLE)):
            path = opened.relay.folder / "tenants" / f"{name}.toml"
            path.write_text(text)
            path.chmod(0o600)
        await opened.relay.call("POST", "/v1/control/reload")
        await send_all(opened)
        yield opened


async def send_all(door: ArkDoor) -> None:
    relay = door.relay
    left_s = 3600 - datetime.now(UTC).timestamp() % 3600
    await asyncio.sleep(left_s if left_s < 20 else 0)  # send limits start anew at the top of the hour
    held = mailbox("held")
    await relay.call("POST", "/v1/tenants/acme/suppressions", {"address": held}, status=201)
    wanted = {
        await relay.send(mailbox("ann"), mailbox("bob")): "sent",
        await relay.send(mailbox("busy")): "softfail",
        await relay.send(mailbox("nobody")): "hardfail",
        await relay.send(held): "held",
    }
    deleted = await relay.send(mailbox("busy"))
    for status in ("sent", "sent", "held"):  # it may send two in an hour
        wanted[await post(door, OTHER_KEY, "app@other.test", mailbox("zoe"))] = status
    wanted[await post(door, THIRD_KEY, "app@third.test", mailbox("zoe"))] = "sent"
    wanted[await post(door, THIRD_TEST_KEY, "app@third.test", mailbox("zoe"))] = "sent"
    for token, status in {**wanted, deleted: "softfail"}.items():
        await relay.until(f"/v1/emails/{token}", lambda one, status=status: one["data"]["status"] == status)
    await relay.call("POST", "/v1/queue/delete", {"ids": [deleted]})  # by a person: it counts as a hard failure
    await relay.until(f"/v1/emails/{deleted}", lambda one: one["data"]["status"] == "hardfail")
    await relay.until("/v1/status", lambda one: one["data"]["queue"]["pending"] == 0)  # both of the first message


async def post(door: ArkDoor, key: str, author: str, to: str) -> str:
    body = {"from": author, "to": [to], "rawMessage": raw(to, author=author)}
    answer = await ask(door, "/v1/emails/raw", key=key, body=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"]["id"])


async def ask(
    door: ArkDoor, path: str, *, key: str = "", body: Any = None, headers: dict[str, str] | None = None, **query: Any
) -> httpx.Response:
    """Ask without the client, as curl does."""
    fields = {"Authorization": f"Bearer {key or door.key}", **(headers or {})}
    return await door.http.request(
        "GET" if body is None else "POST", path, headers=fields, json=body, params=query or None
    )


@pytest.fixture(params=[True, False], ids=["sync", "async"])
def api(request: pytest.FixtureRequest, door: ArkDoor) -> Api:
    return door.api(sync=request.param)


def plain(model: Any) -> Any:
    return json.loads(model.to_json())


async def test_the_organisation_sees_what_all_tenants_sent(api: Api) -> None:
    data = (await api("usage.retrieve", **TIME)).data
    assert plain(data.emails) == {**ACME, "sent": 10, "delivered": 5, "held": 2}
    assert (data.rates.delivery_rate, data.rates.bounce_rate) == (0.5, 0.2)
    assert (data.tenants.total, data.tenants.active, data.tenants.with_activity) == (4, 3, 3)
    assert data.period.end - data.period.start == timedelta(days=7, milliseconds=-1)
    assert data.period.start <= datetime.now(UTC) - timedelta(days=6)


async def test_each_tenant_is_a_line_of_the_list(api: Api) -> None:
    page = await api("usage.list_tenants", **TIME)
    assert [(one.tenant_id, one.emails.sent) for one in page.data] == [
        ("acme", 6), ("other", 3), ("third", 1), ("idle", 0),
    ]  # fmt: skip
    acme, other, third, idle = page.data
    assert plain(acme.emails) == ACME
    assert (acme.rates.delivery_rate, acme.rates.bounce_rate) == (0.333333, 0.333333)
    assert (acme.external_id, other.external_id, third.external_id, idle.external_id) == (None, None, "-7", "42")
    assert (third.tenant_name, third.status, idle.status) == (THIRD_NAME, "active", "archived")
    assert third.emails.sent == 1  # and not what its test key sent
    assert (idle.rates.delivery_rate, idle.rates.bounce_rate) == (0, 0)
    assert (page.page, page.per_page, page.total, page.total_pages) == (1, 50, 4, 1)


async def test_a_tenant_sees_its_own(api: Api, door: ArkDoor) -> None:
    own = door.api(key=ACME_KEY, sync=False)
    for client in (api, own):
        data = (await client("tenants.usage.retrieve", "acme", **TIME)).data
        assert (data.tenant_id, data.tenant_name, data.external_id) == ("acme", "Acme Inc", None)
        assert plain(data.emails) == ACME
        assert data.rates.bounce_rate == 0.333333


@pytest.mark.parametrize("granularity", ["hour", "day", "week", "month"])
async def test_a_series_has_a_point_for_every_part_of_the_time(api: Api, granularity: str) -> None:
    data = (await api("tenants.usage.retrieve_timeseries", "acme", **TIME, granularity=granularity)).data
    assert (data.granularity, data.tenant_id, data.tenant_name) == (granularity, "acme", "Acme Inc")
    assert data.data[0].timestamp == data.period.start
    if granularity in {"hour", "day"}:
        assert len(data.data) == (7 * 24 if granularity == "hour" else 7)
        assert {later.timestamp - one.timestamp for one, later in itertools.pairwise(data.data)} == {
            timedelta(**{f"{granularity}s": 1})
        }
        assert sum(point.sent > 0 for point in data.data) <= 2  # all were sent within the last minute
    assert {name: sum(getattr(point, name) for point in data.data) for name in ACME} == ACME
    assert data.data[-1].timestamp < data.period.end


async def test_the_month_that_is_left_out_is_this_one(api: Api) -> None:
    data = (await api("tenants.usage.retrieve_timeseries", "acme")).data
    first = data.data[0].timestamp
    assert (data.granularity, first.day, first.hour) == ("day", 1, 0)
    assert first <= datetime.now(UTC)
    assert data.period.end.day == len(data.data) >= 28


@pytest.mark.parametrize(
    ("query", "count", "first", "last"),
    [
        pytest.param(
            {"period": "2026-03-29", "timezone": "Europe/Berlin", "granularity": "hour"},
            23, "2026-03-28T23:00:00.000Z", "2026-03-29T21:59:59.999Z", id="23-hours",
        ),
        pytest.param(
            {"period": "2026-10-24..2026-10-26", "timezone": "Europe/Berlin"},
            3, "2026-10-23T22:00:00.000Z", "2026-10-26T22:59:59.999Z", id="over-a-change",
        ),
        pytest.param(
            {"period": "2026-07", "timezone": "Asia/Kathmandu", "granularity": "week"},
            5, "2026-06-30T18:15:00.000Z", "2026-07-31T18:14:59.999Z", id="weeks",
        ),
        pytest.param(
            {"period": "2024-01-01..2024-12-31", "granularity": "hour"},
            8784, "2024-01-01T00:00:00.000Z", "2024-12-31T23:59:59.999Z", id="a-year-of-hours",
        ),
    ],
)  # fmt: skip
async def test_times_are_those_of_the_zone(
    door: ArkDoor, query: dict[str, Any], count: int, first: str, last: str
) -> None:
    data = (await ask(door, "/v1/tenants/acme/usage/timeseries", **query)).json()["data"]
    assert data["period"] == {"start": first, "end": last}
    assert (len(data["data"]), data["data"][0]["timestamp"]) == (count, first)
    assert list(data["data"][0]) == [*ACME, "timestamp"]


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("key", ["sent", "delivered", "bounce_rate", "delivery_rate", "tenant_name"])
async def test_the_list_is_in_the_order_that_is_asked_for(door: ArkDoor, key: str, sign: str) -> None:
    rows = await door.api().all("usage.list_tenants", **TIME, sort=f"{sign}{key}", per_page=1)
    measures: dict[str, Callable[[Any], Any]] = {
        "sent": lambda one: one.emails.sent,
        "delivered": lambda one: one.emails.delivered,
        "bounce_rate": lambda one: one.rates.bounce_rate,
        "delivery_rate": lambda one: one.rates.delivery_rate,
        "tenant_name": lambda one: one.tenant_name.casefold(),
    }
    assert len({row.tenant_id for row in rows}) == 4
    found = [measures[key](row) for row in rows]
    assert found == sorted(found, reverse=sign == "-")
    assert len(set(found)) > 1


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"minSent": 1}, ["acme", "other", "third"]),
        ({"minSent": 3}, ["acme", "other"]),
        ({"minSent": 7}, []),
        ({"status": "archived"}, ["idle"]),
        ({"status": "suspended"}, []),
        ({"status": "active", "minSent": 0}, ["acme", "other", "third"]),
        ({"perPage": 2, "page": 2, "sort": "-sent"}, ["third", "idle"]),
        ({"perPage": 2, "page": 3}, []),
        ({"status": "", "minSent": "", "period": "last_30_days", "sort": "sent"}, ["idle", "third", "other", "acme"]),
    ],
)
async def test_the_list_has_who_is_asked_for(door: ArkDoor, query: dict[str, Any], expected: list[str]) -> None:
    answer = (await ask(door, "/v1/usage/tenants", **{**TIME, **query})).json()
    assert [row["tenantId"] for row in answer["data"]] == expected
    assert list(answer) == ["data", "page", "perPage", "total", "totalPages", "period", "meta"]
    assert answer["period"]["end"].endswith("T23:59:59.999Z")
    assert answer["page"] == query.get("page", 1)


async def test_a_csv_file_is_for_spreadsheets(door: ArkDoor) -> None:
    answer = await ask(door, "/v1/usage/export", period="2026-02", timezone="Europe/Berlin")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="usage-2026-02-01_2026-02-28.csv"'
    answer = await ask(door, "/v1/usage/export", **TIME)
    assert answer.content.startswith(b"\xef\xbb\xbftenant_id,")
    assert answer.content.count(b"\r\n") == answer.content.count(b"\n") == 5
    table = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"), newline="")))
    assert list(table[0]) == [*COLUMNS, "period_start", "period_end"]
    assert [row["tenant_id"] for row in table] == ["acme", "idle", "other", "third"]
    assert {name: int(table[0][name]) for name in ACME} == ACME
    assert (table[0]["delivery_rate"], table[0]["external_id"]) == ("0.333333", "")
    assert table[3]["tenant_name"] == f"'{THIRD_NAME}"  # no formula
    assert table[3]["external_id"] == "'-7"
    assert table[0]["period_start"].endswith("T00:00:00.000Z")
    assert table[0]["period_end"].endswith("T23:59:59.999Z")


async def test_lines_of_json_are_for_programs(door: ArkDoor) -> None:
    answer = await ask(door, "/v1/usage/export", **TIME, format="jsonl", headers={"Accept": "*/*"})
    assert answer.headers["Content-Type"] == "application/x-ndjson; charset=utf-8"
    assert answer.headers["Content-Disposition"].endswith('.jsonl"')
    assert answer.text.endswith("}\n")
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert list(rows[0]) == COLUMNS
    assert [row["tenant_id"] for row in rows] == ["acme", "idle", "other", "third"]
    assert (rows[3]["tenant_name"], rows[3]["external_id"]) == (THIRD_NAME, "-7")
    whole = await ask(door, "/v1/usage/export", **TIME, format="json")
    assert whole.headers["Content-Type"].startswith("application/json")
    assert whole.json() == rows
    for headers in ({"Accept": "application/json"}, {"X-Stainless-Lang": "python", "Accept": "*/*"}):
        answer = await ask(door, "/v1/usage/export", **TIME, format="jsonl", headers=headers)
        assert answer.headers["Content-Type"].startswith("application/x-ndjson")


async def test_the_client_reads_both_files(api: Api) -> None:
    rows = await api("usage.export", **TIME, format="jsonl", min_sent=1, status="active")
    assert [(row.tenant_id, row.sent, row.delivery_rate) for row in rows] == [
        ("acme", 6, 0.333333), ("other", 3, 0.666667), ("third", 1, 1),
    ]  # fmt: skip
    nothing = await api("usage.export", period="2024-01", format="jsonl", min_sent=1)
    assert nothing == []
    answer = await api.raw("usage.export", **TIME)
    assert answer.text.startswith("\ufefftenant_id,tenant_name,external_id,status,sent,")


@pytest.mark.parametrize("path", ["/usage", "/usage/tenants", "/usage/export", "/tenants/acme/usage/timeseries"])
@pytest.mark.parametrize(
    ("query", "field", "words"),
    [
        ({"period": "next_month"}, "period", "YYYY-MM-DD..YYYY-MM-DD"),
        ({"period": "2026-02-30"}, "period", "2026-02-30"),
        ({"period": "2026-02-02..2026-02-01"}, "period", "before it begins"),
        ({"period": "1999-12"}, "period", "2000 to 2999"),
        ({"period": "x" * 31}, "period", "at most 30"),
        ({"period": "2011-12-30", "timezone": "Pacific/Apia"}, "period", "left out"),
        ({"timezone": "Europe/Nowhere"}, "timezone", "Europe/Nowhere"),
        ({"timezone": "Europe"}, "timezone", "no time zone"),
        ({"timezone": "europe/berlin"}, "timezone", "no time zone"),
        ({"timezone": "right/Europe/Berlin"}, "timezone", "no time zone"),
        ({"timezone": "localtime"}, "timezone", "no time zone"),
        ({"timezone": "../../../../etc/passwd"}, "timezone", "no time zone"),
        ({"timezone": "/etc/localtime"}, "timezone", "no time zone"),
        ({"timezone": "UTC\0"}, "timezone", "no time zone"),
        ({"timezone": "+02:00"}, "timezone", "no time zone"),
    ],
)
async def test_a_time_that_is_none_is_refused_by_name(
    door: ArkDoor, path: str, query: dict[str, Any], field: str, words: str
) -> None:
    answer = await ask(door, f"/v1{path}", **query)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["field"]) == (400, "validation_error", field)
    assert words in error["message"]


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("/usage/tenants", {"sort": "held"}, "sort"),
        ("/usage/tenants", {"sort": "--sent"}, "sort"),
        ("/usage/tenants", {"minSent": "-1"}, "minSent"),
        ("/usage/tenants", {"minSent": "many"}, "minSent"),
        ("/usage/tenants", {"status": "gone"}, "status"),
        ("/usage/tenants", {"perPage": "101"}, "perPage"),
        ("/usage/tenants", {"page": "0"}, "page"),
        ("/usage/export", {"format": "xlsx"}, "format"),
        ("/usage/export", {"minSent": "1.5"}, "minSent"),
        ("/usage/export", {"status": "Active"}, "status"),
        ("/tenants/acme/usage/timeseries", {"granularity": "minute"}, "granularity"),
        (
            "/tenants/acme/usage/timeseries",
            {"granularity": "hour", "period": "2024-01-01..2025-12-31"},
            "granularity",
        ),
        (
            "/tenants/acme/usage/timeseries",
            {"granularity": "month", "period": "2000-01-01..2999-12-31"},
            "granularity",
        ),
    ],
)
async def test_what_is_not_known_is_refused_by_name(
    door: ArkDoor, path: str, query: dict[str, Any], field: str
) -> None:
    answer = await ask(door, f"/v1{path}", **query)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["field"] == field


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/usage", 403, "permission_denied"),
        ("/usage/tenants", 403, "permission_denied"),
        ("/usage/export", 403, "permission_denied"),
        ("/tenants/other/usage", 404, "not_found"),
        ("/tenants/other/usage/timeseries", 404, "not_found"),
        ("/tenants/nobody/usage", 404, "not_found"),
        ("/tenants/acme/usage", 200, ""),
        ("/tenants/acme/usage/timeseries", 200, ""),
        ("/limits", 200, ""),
    ],
)
async def test_a_tenant_s_key_sees_its_tenant_only(door: ArkDoor, path: str, status: int, code: str) -> None:
    answer = await ask(door, f"/v1{path}", key=ACME_KEY)
    assert answer.status_code == status
    assert answer.json().get("error", {}).get("code", "") == code


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param("-p last_7_days", ["TENANT", "acme", "other", "third", "idle"], id="tenants"),
        pytest.param("-p last_7_days --csv", ["\ufefftenant_id,", "acme,", "idle,", "other,", "third,"], id="csv"),
        pytest.param(
            "-p 2026-01-30..2026-02-01 -t acme --by month", ["MONTH", "2026-01-30", "2026-02-01"], id="time"
        ),
    ],
)
async def test_the_command_shows_the_same(door: ArkDoor, words: str, expected: list[str]) -> None:
    program = [sys.executable, "-m", "arkrelay", "usage", "-c", str(door.relay.config), *words.split()]
    process = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    lines = out.decode().splitlines()
    assert process.returncode == 0
    assert [line[: len(start)] for line, start in zip(lines, expected, strict=True)] == expected


async def test_limits_are_those_of_the_key(api: Api, door: ArkDoor) -> None:
    whole = (await api("limits.retrieve")).data
    assert (whole.rate_limit.limit, whole.rate_limit.period, whole.billing) == (1000, "second", None)
    assert whole.rate_limit.remaining <= 999
    assert whole.send_limit.limit == HOURLY + 2 + 100  # of the three that are active
    for key, limit in ((ACME_KEY, HOURLY), (OTHER_KEY, 2), (THIRD_KEY, 100)):
        data = (await door.api(key=key, sync=False)("limits.retrieve")).data
        assert data.send_limit.limit == limit
        assert data.send_limit.remaining == limit - data.send_limit.used
        assert data.send_limit.resets_at > datetime.now(UTC)
    answer = await door.relay.get("/v1/limits")  # the control socket counts nothing
    assert answer["data"]["rateLimit"] | {"reset": 0} == {
        "limit": 1000, "period": "second", "remaining": 1000, "reset": 0,
    }  # fmt: skip


async def test_a_send_limit_tells_how_full_it_is(door: ArkDoor) -> None:
    full = (await door.api(key=OTHER_KEY, sync=False)("limits.retrieve")).data.send_limit
    assert (full.limit, full.used, full.remaining, full.usage_percent) == (2, 2, 0, 100)
    assert (full.approaching, full.exceeded) == (True, True)
    assert (full.resets_at.minute, full.resets_at.second) == (0, 0)
    assert timedelta(0) < full.resets_at - datetime.now(UTC) <= timedelta(hours=1)


async def test_without_limits_there_is_nothing_to_run_out_of(door: ArkDoor) -> None:
    idle = door.relay.folder / "tenants" / "idle.toml"
    idle.write_text('name = "Idle"\n')
    config = door.relay.config
    text = config.read_text()
    config.write_text(text.replace("api_requests_per_s = 1000", "api_requests_per_s = 0"))
    try:
        await door.relay.call("POST", "/v1/control/reload")
        data = (await door.api()("limits.retrieve")).data
        assert data.send_limit.limit is data.send_limit.remaining is data.send_limit.usage_percent is None
        assert (data.send_limit.approaching, data.send_limit.exceeded) == (False, False)
        assert data.rate_limit.limit == data.rate_limit.remaining == 2**31 - 1
    finally:
        idle.write_text(IDLE)
        config.write_text(text)
        await door.relay.call("POST", "/v1/control/reload")
