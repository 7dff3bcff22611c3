"""The request log: what is in it, and who sees it."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import ark
import pytest
import pytest_asyncio
from peers.restdoor import ACME_KEY, GONE_KEY, OTHER_KEY, RestDoor, open_rest_door

pytestmark = pytest.mark.asyncio(loop_scope="module")

MAIL = {"from": "app@sender.test", "to": ["ann@held.test"], "subject": "s", "text": "t"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RestDoor]:
    async with open_rest_door(tmp_path_factory.mktemp("logs")) as opened:
        await opened.ask("POST", "/v1/tenants/acme/suppressions", {"address": "ann@held.test"})
        yield opened


# -- what is in it ---------------------------------------------------------------------------------------------------


async def test_an_entry_says_all_that_is_known_of_a_request(door: RestDoor) -> None:
    began = datetime.now(UTC)
    headers = {"User-Agent": "Ark/Python 0.18.1", "Idempotency-Key": "order-1", "X-Stainless-Lang": "python"}
    headers["X-Stainless-Package-Version"] = "0.18.1"
    sent = await door.ask("POST", "/v1/emails?dry=no&x=%2B", MAIL, key=ACME_KEY, headers=headers)
    entry = await door.logged(sent)
    assert began - timedelta(seconds=1) < datetime.fromisoformat(entry.pop("timestamp")) < datetime.now(UTC)
    assert 0 <= entry.pop("durationMs") < 10_000
    assert entry["credential"].pop("id").isdigit()
    assert entry == {
        "requestId": sent.body["meta"]["requestId"],
        "method": "POST",
        "path": "/v1/emails",
        "endpoint": "emails.send",
        "statusCode": 200,
        "credential": {"keyPrefix": "ark_live"},
        "context": {
            "ipAddress": "127.0.0.1",
            "userAgent": "Ark/Python 0.18.1",
            "idempotencyKey": "order-1",
            "queryParams": {"dry": "no", "x": "+"},
        },
        "rateLimit": {"limit": None, "remaining": None, "reset": None, "limited": False},
        "email": {"id": sent.data["id"], "recipientCount": 1},
        "error": None,
        "sdk": {"name": "python", "version": "0.18.1"},
        "request": {"body": MAIL, "bodySize": len(json.dumps(MAIL))},
        "response": {"body": sent.body, "bodySize": len(sent.text.encode())},
    }
    again = await door.ask("POST", "/v1/emails?dry=no&x=%2B", MAIL, key=ACME_KEY, headers=headers)
    assert again.text == sent.text
    assert (await door.logged(again))["email"] == {"id": sent.data["id"], "recipientCount": None}


@pytest.mark.parametrize(
    ("method", "path", "fields", "endpoint", "status", "code"),
    [
        pytest.param("GET", "/v1/emails", {}, "emails.list", 200, None, id="200"),
        pytest.param("GET", "/emails", {}, "emails.list", 200, None, id="without-v1"),
        pytest.param("HEAD", "/v1/emails", {}, "emails.list", 200, None, id="head"),
        pytest.param("GET", "/v1/emails?page=0", {}, "emails.list", 400, "validation_error", id="400"),
        pytest.param(
            "POST", "/v1/emails", {"data": b"{'to'}"}, "emails.send", 400, "validation_error", id="not-json"
        ),
        pytest.param("GET", "/v1/tenants", {"key": ACME_KEY}, "tenants.list", 403, "permission_denied", id="403"),
        pytest.param(
            "GET", "/v1/usage", {"key": GONE_KEY}, "usage.retrieve", 403, "tenant_suspended", id="suspended"
        ),
        pytest.param("GET", "/v1/emails/nobody", {}, "emails.retrieve", 404, "not_found", id="404"),
        pytest.param("GET", "/v1/nothing", {}, "unknown", 404, "not_found", id="no-such-path"),
        pytest.param("DELETE", "/v1/emails", {}, "unknown", 405, "method_not_allowed", id="405"),
        pytest.param(
            "POST", "/v1/tenants", {"data": b"x" * 1_000_001}, "tenants.create", 413, "payload_too_large", id="413"
        ),
        pytest.param(
            "POST",
            "/v1/emails",
            {"data": b"x", "headers": {"Content-Encoding": "gzip"}},
            "emails.send",
            415,
            "unsupported_media_type",
            id="415",
        ),
        pytest.param(
            "POST",
            "/v1/emails",
            {"body": {**MAIL, "from": "a@not-ours.test"}},
            "emails.send",
            422,
            "domain_not_verified",
            id="422",
        ),
    ],
)
async def test_every_request_with_a_key_is_recorded_however_it_ended(
    door: RestDoor, method: str, path: str, fields: dict[str, Any], endpoint: str, status: int, code: str | None
) -> None:
    answer = await door.ask(method, path, **fields)
    assert answer.status == status, answer.text
    entry = await door.logged(answer)
    assert (entry["endpoint"], entry["statusCode"], entry["path"]) == (endpoint, status, path.partition("?")[0])
    assert entry["method"] == {"HEAD": "GET"}.get(method, method)
    assert entry["error"] == (None if code is None else {k: answer.body["error"][k] for k in ("code", "message")})
    if status >= 400:
        assert entry["response"]["body"] == answer.body


async def test_bodies_that_were_refused_are_shown_as_far_as_they_came(door: RestDoor) -> None:
    broken = await door.logged(await door.ask("POST", "/v1/emails", data=b"{'to': 'x'}"))
    assert broken["request"] == {"body": "{'to': 'x'}", "bodySize": 11}
    listed_ = await door.logged(await door.ask("POST", "/v1/emails", data=b'[{"to":"x"}]'))
    assert listed_["request"] == {"body": '[{"to":"x"}]', "bodySize": 12}
    large = await door.logged(await door.ask("POST", "/v1/tenants", data=b"x" * 1_000_001))
    assert large["request"] == {"body": None, "bodySize": 1_000_001}
    none = await door.logged(await door.ask("GET", "/v1/emails"))
    assert none["request"] == {"body": None, "bodySize": 0}


async def test_long_bodies_are_cut_at_25_kb_and_their_size_is_told(door: RestDoor) -> None:
    body = {**MAIL, "html": "<p>für</p>" * 9000, "to": ["ann@held.test"]}
    entry = await door.logged(await door.ask("POST", "/v1/emails", body))
    kept = entry["request"]["body"]
    assert kept.endswith("... [truncated]")
    assert 24_990 < len(kept.encode()) <= 25_000 + 15
    assert kept.startswith('{"from":"app@sender.test","to":["ann@held.test"]')
    assert entry["request"]["bodySize"] == len(json.dumps(body).encode())


async def test_what_has_no_key_is_not_recorded(door: RestDoor) -> None:
    unrecorded = [
        await door.ask("GET", "/v1/emails", key=None),
        await door.ask("GET", "/v1/emails", key="wrong"),
        await door.ask("GET", "/healthz"),
        await door.ask("GET", "/metrics"),
        await door.ask("GET", "/v1/status", key=None, socket=door.relay.socket),
        await door.ask("OPTIONS", "/v1/emails"),
    ]
    for answer in unrecorded:
        found = await door.ask("GET", f"/v1/logs/{answer.headers['X-Request-Id']}")
        assert (found.status, found.code) == (404, "not_found")
    keyed = await door.ask("GET", "/v1/status", socket=door.relay.socket)  # by the same way, with a key
    assert (await door.logged(keyed))["context"]["ipAddress"] is None


# -- who sees it -----------------------------------------------------------------------------------------------------


async def test_a_tenant_sees_its_own_requests_and_a_foreign_one_as_little_as_an_unknown(door: RestDoor) -> None:
    mine = await door.ask("GET", "/v1/emails", key=ACME_KEY)
    others = await door.ask("GET", "/v1/emails", key=OTHER_KEY)
    organisations = await door.ask("GET", "/v1/emails")
    for key, seen in ((ACME_KEY, [mine]), (OTHER_KEY, [others]), ("", [mine, others, organisations])):
        for answer in (mine, others, organisations):
            id_ = answer.headers["X-Request-Id"]
            found = await door.ask("GET", f"/v1/logs/{id_}", key=key)
            unknown = await door.ask("GET", "/v1/logs/req_0000000000000000", key=key)
            assert found.status == (200 if answer in seen else 404)
            if answer not in seen:
                assert (
                    found.text.replace(id_, "").split('"meta"')[0]
                    == unknown.text.replace("req_0000000000000000", "").split('"meta"')[0]
                )
            assert len(await door.log(f"requestId={id_}", key)) == (1 if answer in seen else 0)
    rows = await door.log("perPage=100", OTHER_KEY)
    assert {row["credential"]["id"] for row in rows} == {(await door.logged(others))["credential"]["id"]}


async def test_every_filter_narrows_the_list(door: RestDoor) -> None:
    since = datetime.now(UTC).isoformat()
    ok = await door.ask("GET", "/v1/emails?perPage=3", key=ACME_KEY)
    missing = await door.ask("GET", "/v1/emails/none", key=ACME_KEY)
    between = (await door.logged(missing))["timestamp"]
    await asyncio.sleep(0.002)
    bad = await door.ask("GET", "/v1/emails?page=x", key=ACME_KEY)
    ids = {answer.headers["X-Request-Id"]: name for answer, name in ((ok, "ok"), (missing, "missing"), (bad, "bad"))}
    credential = (await door.logged(ok))["credential"]["id"]
    start = since.replace("+", "%2B")
    for query, expected in {
        f"startDate={start}": ["bad", "missing", "ok"],
        f"startDate={start}&status=error": ["bad", "missing"],
        f"startDate={start}&status=success": ["ok"],
        f"startDate={start}&statusCode=404": ["missing"],
        f"startDate={start}&statusCode=400&status=error&endpoint=emails.list": ["bad"],
        f"startDate={start}&endpoint=emails.list": ["bad", "ok"],
        f"startDate={start}&endpoint=emails.%25": [],
        f"startDate={start}&credentialId={credential}": ["bad", "missing", "ok"],
        f"startDate={start}&credentialId={credential}0": [],
        f"startDate={start}&endDate={between}": ["missing", "ok"],
        f"startDate={between}": ["bad", "missing"],
        f"startDate={start}&endDate=2020-01-01": [],
        f"requestId={ok.headers['X-Request-Id']}": ["ok"],
        f"requestId={ok.headers['X-Request-Id'][8:]}": ["ok"],
        f"startDate={start}&requestId=%25": [],
        "statusCode=599": [],
        f"startDate={start}&endpoint=emails.list&perPage=1&page=2&status=": ["ok"],
    }.items():
        found = [ids[row["requestId"]] for row in await door.log(query, ACME_KEY) if row["requestId"] in ids]
        assert found == expected, query


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=bad", "status"),
        ("statusCode=99", "statusCode"),
        ("statusCode=600", "statusCode"),
        ("statusCode=abc", "statusCode"),
        ("startDate=yesterday", "startDate"),
        ("endDate=2026-13-01", "endDate"),
        ("page=0", "page"),
        ("perPage=101", "perPage"),
        ("requestId=" + "x" * 101, "requestId"),
    ],
)
async def test_a_filter_that_makes_no_sense_is_refused_by_name(door: RestDoor, query: str, field: str) -> None:
    answer = await door.ask("GET", f"/v1/logs?{query}")
    assert (answer.status, answer.code, answer.field) == (400, "validation_error", field)


async def test_the_official_client_reads_it_strictly(door: RestDoor) -> None:
    async with ark.AsyncArk(
        api_key=ACME_KEY, base_url=f"{door.plain}/v1", _strict_response_validation=True, max_retries=0
    ) as client:
        with pytest.raises(ark.NotFoundError):
            await client.emails.retrieve("nobody")
        sent = await client.emails.with_raw_response.send(
            from_="app@sender.test",
            to=["ann@held.test"],
            subject="s",
            html="<p>x</p>",
            tag="t",
            idempotency_key="k-1",
        )
        id_ = sent.headers["X-Request-Id"]
        pages = await client.logs.list(per_page=2, start_date=datetime.now(UTC) - timedelta(minutes=5))
        rows = [pages.data[0], pages.data[1]]
        async for row in client.logs.list(per_page=1, status="error", status_code=404, endpoint="emails.retrieve"):
            rows.append(row)
            assert row.error is not None
            assert row.error.code == "not_found"
        assert rows[0].request_id == id_
        detail = (await client.logs.retrieve(id_)).data
        assert detail.sdk is not None
        assert (detail.sdk.name, detail.sdk.version) == ("python", ark.__version__)
        assert detail.request is not None
        assert isinstance(detail.request.body, dict)
        assert detail.request.body["html"] == "<p>x</p>"
        assert detail.email is not None
        assert detail.email.recipient_count == 1
