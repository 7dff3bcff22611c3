"""Mail by REST as the contract has it: raw submission, the list, one email, its deliveries, retry, suppressions."""

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from ark import AsyncArk, ConflictError
from peers.office import parse
from peers.restdoor import ACME_KEY, HELD_KEY, OTHER_KEY, TEST_KEY, RestDoor, open_rest_door, raw

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RestDoor]:
    async with open_rest_door(tmp_path_factory.mktemp("mail")) as opened:
        yield opened


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def test_a_raw_message_is_accepted_and_arrives(door: RestDoor) -> None:
    to = ["zoe@rcpt.test", "ann@rcpt.test", "mia@rcpt.test"]
    answer = await door.send(*to, key=ACME_KEY)
    assert answer.status == 200, answer.text
    data = answer.data
    assert (data["tenantId"], data["status"], data["to"]) == ("acme", "pending", to)
    shown = [(await door.ask("GET", f"/v1/emails/{id_}")).data for id_ in data["ids"]]
    assert [one["to"] for one in shown] == to
    assert data["id"] == data["ids"][0]
    assert {one["messageId"] for one in shown} == {data["messageId"]}
    while not any("zoe@rcpt.test" in message.recipients for message in door.mx.messages):
        await door.mx.wait(len(door.mx.messages) + 1, 30.0)
    (received,) = [message for message in door.mx.messages if "zoe@rcpt.test" in message.recipients]
    assert parse(received.content)["Message-ID"] == data["messageId"]
    assert data["messageId"].startswith("<")
    assert data["messageId"].endswith("@sender.test>")


async def test_a_message_id_of_the_sender_is_kept_and_told(door: RestDoor) -> None:
    message = "From: app@sender.test\r\nMessage-ID: <mine@sender.test>\r\n\r\nx\r\n"
    answer = await door.send("kept@held.test", rawMessage=encoded(message))
    assert answer.data["messageId"] == "<mine@sender.test>"


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"from": "App <app@sender.test>"}, id="from-with-a-name"),
        pytest.param({"from": '"App, Inc" <app@SENDER.test>'}, id="from-with-a-quoted-name"),
        pytest.param({"from": "bounces@sender.test"}, id="another-mailbox-of-the-domain"),
        pytest.param({"bounce": True}, id="null-return-path"),
        pytest.param({"bounce": None, "tenantId": None}, id="nulls"),
        pytest.param({"tenantId": "acme"}, id="tenant-named"),
        pytest.param({"unknown": {"x": [1]}, "trackOpens": True}, id="unknown-fields"),
        pytest.param({"rawMessage": encoded("From: app@sender.test\n\nbare line feeds\n")}, id="line-feeds"),
        pytest.param(
            {"rawMessage": base64.encodebytes(b"From: app@sender.test\n\n" + b"x" * 200).decode()}, id="wrapped"
        ),
    ],
)
async def test_what_the_contract_allows_is_accepted(door: RestDoor, fields: dict[str, Any]) -> None:
    answer = await door.send("fine@held.test", key=ACME_KEY, **fields)
    assert answer.status == 200, answer.text


@pytest.mark.parametrize(
    ("fields", "status", "code", "field"),
    [
        ({"from": None}, 400, "validation_error", "from"),
        ({"from": ""}, 400, "validation_error", "from"),
        ({"from": 7}, 400, "validation_error", "from"),
        ({"from": "app"}, 400, "invalid_email_format", "from"),
        ({"from": "a@sender.test, b@sender.test"}, 400, "invalid_email_format", "from"),
        ({"from": "a@sender.test\r\nBcc: x@y.test"}, 400, "validation_error", "from"),
        ({"from": "app@other.test"}, 422, "validation_error", "from"),
        ({"from": "app@other.test", "rawMessage": raw(author="app@other.test")}, 422, "domain_not_verified", "from"),
        ({"from": "app@sub.sender.test", "bounce": True}, 422, "validation_error", "from"),
        ({"to": None}, 400, "validation_error", "to"),
        ({"to": []}, 400, "validation_error", "to"),
        ({"to": "ann@rcpt.test"}, 400, "validation_error", "to"),
        ({"to": ["ann@rcpt.test", ""]}, 400, "validation_error", "to[1]"),
        ({"to": ["ann@rcpt.test", "bob"]}, 400, "invalid_email_format", "to[1]"),
        ({"to": ["ann@rcpt.test\n"]}, 400, "validation_error", "to[0]"),
        ({"to": ["x@rcpt.test"] * 1001}, 400, "validation_error", "to"),
        ({"rawMessage": None}, 400, "validation_error", "rawMessage"),
        ({"rawMessage": "%%%"}, 400, "validation_error", "rawMessage"),
        ({"rawMessage": "grüße"}, 400, "validation_error", "rawMessage"),
        ({"rawMessage": "QUJDR"}, 400, "validation_error", "rawMessage"),
        ({"rawMessage": encoded("no header\r\n\r\nx")}, 422, "validation_error", "rawMessage"),
        ({"rawMessage": encoded("Subject: no author\r\n\r\nx")}, 422, "validation_error", "rawMessage"),
        ({"rawMessage": encoded("From: a@x.test\r\nFrom: b@x.test\r\n\r\nx")}, 422, "validation_error", "rawMessage"),
        ({"rawMessage": encoded("From: a@x.test\rBcc: x@y.test\r\n\r\nx")}, 422, "validation_error", "rawMessage"),
        ({"rawMessage": encoded("From: a@sender.test\r\n\r\n\0")}, 422, "validation_error", "rawMessage"),
        ({"rawMessage": base64.b64encode(b"x" * 14_000_001).decode()}, 413, "payload_too_large", "rawMessage"),
        ({"rawMessage": "x" * 26_000_000}, 413, "payload_too_large", None),
        ({"bounce": "yes"}, 400, "validation_error", "bounce"),
        ({"tenantId": "nobody"}, 422, "validation_error", "tenantId"),
        ({"tenantId": "gone"}, 403, "tenant_suspended", "tenantId"),
        ({"tenantId": ["acme"]}, 400, "validation_error", "tenantId"),
    ],
)  # fmt: skip
async def test_what_it_does_not_allow_is_refused_by_name(
    door: RestDoor, fields: dict[str, Any], status: int, code: str, field: str | None
) -> None:
    before = (await door.ask("GET", "/v1/emails")).body["total"]
    answer = await door.send("bad@held.test", **fields)
    assert (answer.status, answer.code, answer.field) == (status, code, field), answer.text
    assert (await door.ask("GET", "/v1/emails")).body["total"] == before


@pytest.mark.parametrize(
    ("key", "fields", "status", "code"),
    [
        (ACME_KEY, {"tenantId": "other"}, 403, "tenant_mismatch"),
        (ACME_KEY, {"tenantId": "nobody"}, 403, "tenant_mismatch"),
        (OTHER_KEY, {}, 422, "domain_not_verified"),
        (HELD_KEY, {}, 403, "credential_on_hold"),
    ],
)
async def test_a_key_sends_for_its_tenant_and_only_if_it_may(
    door: RestDoor, key: str, fields: dict[str, Any], status: int, code: str
) -> None:
    answer = await door.send("key@held.test", key=key, **fields)
    assert (answer.status, answer.code) == (status, code)


async def test_the_list_is_newest_first_and_filtered_exactly(door: RestDoor) -> None:
    ids = [await door.held(f"list{number}") for number in range(3)]
    rows = (await door.ask("GET", "/v1/emails?status=held&perPage=2")).body
    assert [row["id"] for row in rows["data"]] == [ids[2], ids[1]]
    assert (rows["page"], rows["perPage"]) == (1, 2)
    assert rows["totalPages"] == -(-rows["total"] // 2)
    second = (await door.ask("GET", "/v1/emails?status=held&perPage=2&page=2")).body
    assert second["data"][0]["id"] == ids[0]
    past = (await door.ask("GET", "/v1/emails?page=100000")).body
    assert (past["data"], past["page"]) == ([], 100000)
    for query in ("to=list1@held.test", "to=LIST1@HELD.test", "to=list1%40held.test&from=app@SENDER.test"):
        rows = (await door.ask("GET", f"/v1/emails?{query}")).body
        assert [row["id"] for row in rows["data"]] == [ids[1]], query
    for query in (
        "to=%25@held.test",
        "to=list_@held.test",
        "from=%25",
        "tag=%25",
        "tag=nothing",
        "before=1",
        "status=bounced",
    ):
        rows = (await door.ask("GET", f"/v1/emails?{query}")).body
        assert (rows["data"], rows["total"], rows["totalPages"]) == ([], 0, 0), query


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/emails?page=0", "page"),
        ("/v1/emails?perPage=101", "perPage"),
        ("/v1/emails?status=lost", "status"),
        ("/v1/emails?after=yesterday", "after"),
        ("/v1/events?wait=31", "wait"),
        ("/v1/events?after=-1", "after"),
        ("/v1/events?limit=0", "limit"),
        ("/v1/events?type=Nothing", "type"),
        ("/v1/why", "q"),
    ],
)
async def test_a_bad_query_is_refused_by_name(door: RestDoor, path: str, field: str) -> None:
    answer = await door.ask("GET", path)
    assert (answer.status, answer.field) == (400, field)


@pytest.mark.parametrize(
    "path", ["/v1/emails?tenantId=acme", "/v1/queue?tenantId=nobody", "/v1/events?tenantId=acme"]
)
async def test_a_tenants_key_cannot_ask_for_another(door: RestDoor, path: str) -> None:
    answer = await door.ask("GET", path, key=OTHER_KEY)
    assert (answer.status, answer.code) == (403, "tenant_mismatch")


@pytest.mark.parametrize(
    "id_", ["%00", "%ff", "%ED%A0%80", "%25", "x" * 4000, "a%2Fb", "%2e%2e", "1", "%27%20OR%201=1--", "%F0%9F%92%A9"]
)
@pytest.mark.parametrize("rest", ["", "/deliveries"])
async def test_an_odd_id_is_unknown(door: RestDoor, id_: str, rest: str) -> None:
    answer = await door.ask("GET", f"/v1/emails/{id_}{rest}")
    assert (answer.status, answer.code) == (404, "not_found")


async def test_a_foreign_id_looks_like_an_unknown_one(door: RestDoor) -> None:
    id_ = await door.held("foreign")
    for path in (
        f"/v1/emails/{id_}",
        f"/v1/emails/{id_}/deliveries",
        f"/v1/emails/{id_}/why",
        f"/v1/why?q={id_}",
        "/v1/tenants/acme/suppressions",
    ):
        unknown = path.replace(id_, "A" * len(id_)).replace("acme", "asdf")
        foreign, missing = await door.ask("GET", path, key=OTHER_KEY), await door.ask("GET", unknown, key=OTHER_KEY)
        assert (foreign.status, foreign.code) == (missing.status, missing.code) == (404, "not_found")
        told = foreign.body["error"]["message"].replace(id_, "A" * len(id_)).replace("acme", "asdf")
        assert told == missing.body["error"]["message"]
    foreign = await door.ask("POST", f"/v1/emails/{id_}/retry", key=OTHER_KEY)
    assert foreign.status == 404
    assert (await door.ask("GET", f"/v1/emails/{id_}")).data["status"] == "held"


async def test_expansions_add_keys_and_nothing_else_does(door: RestDoor) -> None:
    id_ = await door.held("expand")
    keys = {
        "content": {"htmlBody", "plainBody"},
        "headers": {"headers"},
        "deliveries": {"deliveries"},
        "activity": {"activity"},
        "attachments": {"attachments"},
        "raw": {"rawMessage"},
    }
    plain = set((await door.ask("GET", f"/v1/emails/{id_}")).data)
    for name, added in keys.items():
        assert set((await door.ask("GET", f"/v1/emails/{id_}?expand={name}")).data) == plain | added
    full = (await door.ask("GET", f"/v1/emails/{id_}?expand=full")).data
    assert set(full) == plain.union(*keys.values())
    both = (await door.ask("GET", f"/v1/emails/{id_}?expand=raw,%20headers")).data
    assert set(both) == plain | {"rawMessage", "headers"}
    unknown = await door.ask("GET", f"/v1/emails/{id_}?expand=raw,everything")
    assert (unknown.status, unknown.field) == (400, "expand")
    assert full["headers"]["From"] == "App <app@sender.test>"
    assert base64.b64decode(full["rawMessage"]).endswith(b"Hello.\r\n")
    (attempt,) = full["deliveries"]
    assert attempt["status"] == "held"
    assert "suppression list" in attempt["details"]


async def test_held_mail_has_no_retry_state_and_a_retry_passes_the_hold(door: RestDoor) -> None:
    await door.ask("POST", "/v1/tenants/acme/suppressions", {"address": "again@rcpt.test"})
    id_ = (await door.send("again@rcpt.test")).data["id"]
    history = (await door.ask("GET", f"/v1/emails/{id_}/deliveries")).data
    assert set(history) == {"id", "tenantId", "status", "canRetryManually", "deliveries", "retryState"}
    assert (history["status"], history["canRetryManually"], history["retryState"]) == ("held", True, None)
    answer = await door.ask("POST", f"/v1/emails/{id_}/retry", key=ACME_KEY)
    assert answer.status == 200
    assert set(answer.data) == {"id", "tenantId", "message"}
    await door.relay.until(f"/v1/emails/{id_}", lambda shown: shown["data"]["status"] == "sent")
    again = await door.ask("POST", f"/v1/emails/{id_}/retry")
    assert (again.status, again.code, again.headers["x-should-retry"]) == (409, "conflict", "false")


async def test_queued_mail_tells_its_next_attempt(door: RestDoor) -> None:
    id_ = (await door.send("waits@nowhere.test")).data["id"]
    history = await door.relay.until(
        f"/v1/emails/{id_}/deliveries", lambda shown: shown["data"]["status"] in {"softfail", "hardfail"}
    )
    if history["data"]["status"] == "softfail":
        state = history["data"]["retryState"]
        assert state["attempt"] == 1
        assert state["attemptsRemaining"] == state["maxAttempts"] - 1
        assert state["nextRetryAt"] > 0
        assert state["nextRetryAtIso"].endswith("Z")
    else:
        assert history["data"]["retryState"] is None


async def test_after_retention_the_content_is_empty_and_a_retry_is_refused(door: RestDoor) -> None:
    id_ = await door.held("old")
    assert (await door.ask("POST", "/v1/queue/delete", {"ids": [id_]})).data == {"count": 1}
    for _ in range(100):
        await door.ask("POST", "/v1/control/db/prune")
        history = (await door.ask("GET", f"/v1/emails/{id_}/deliveries")).data
        if not history["canRetryManually"]:
            break
    assert history["canRetryManually"] is False
    full = (await door.ask("GET", f"/v1/emails/{id_}?expand=full")).data
    assert (full["rawMessage"], full["headers"], full["htmlBody"], full["plainBody"]) == ("", {}, None, None)
    assert full["attachments"] == []
    answer = await door.ask("POST", f"/v1/emails/{id_}/retry")
    assert (answer.status, answer.code, answer.headers["x-should-retry"]) == (409, "conflict", "false")


async def test_the_official_client_reads_mail_strictly(door: RestDoor) -> None:
    sent = (await door.send("strict@rcpt.test", key=ACME_KEY)).data["id"]
    await door.relay.until(f"/v1/emails/{sent}", lambda shown: shown["data"]["status"] == "sent")
    waits = (await door.send("strict@nowhere.test", key=ACME_KEY)).data["id"]
    held = await door.held("strict")
    async with AsyncArk(
        api_key=ACME_KEY, base_url=f"{door.plain}/v1", max_retries=0, _strict_response_validation=True
    ) as client:
        ids = [
            email.id async for email in client.emails.list(per_page=1, from_="app@sender.test", after="2001-01-01")
        ]
        assert ids.index(held) < ids.index(waits) < ids.index(sent)
        for id_ in (sent, waits, held):
            full = (await client.emails.retrieve(id_, expand="full")).data
            assert (full.id, full.scope, full.spam) == (id_, "outgoing", None)
            assert full.activity is not None
            assert (full.activity.opens, full.activity.clicks) == ([], [])
            assert full.attachments == []
            assert full.raw_message is not None
            history = (await client.emails.retrieve_deliveries(id_)).data
            assert history.can_retry_manually
            assert len(history.deliveries) == len(full.deliveries or [])
        (delivery,) = (await client.emails.retrieve_deliveries(sent)).data.deliveries
        assert (delivery.status, delivery.code, delivery.remote_host) == ("sent", 250, "mx.rcpt.test")
        assert delivery.classification is None
        assert (delivery.details or "").startswith("Message for strict@rcpt.test accepted by 127.0.0.1:")
        again = await client.emails.retry(held)
        assert (again.success, again.data.id) == (True, held)
        with pytest.raises(ConflictError) as caught:
            await client.emails.retry(sent)
        assert caught.value.body["error"]["code"] == "conflict"  # type: ignore[index]  # typed as object
        assert caught.value.response.headers["x-should-retry"] == "false"


async def test_an_organisation_asks_for_one_tenants_mail(door: RestDoor) -> None:
    await door.held("of-acme")
    assert (await door.ask("GET", "/v1/emails?tenantId=acme&to=of-acme@held.test")).body["total"] == 1
    for tenant in ("other", "nobody"):
        rows = (await door.ask("GET", f"/v1/emails?tenantId={tenant}&to=of-acme@held.test")).body
        assert (rows["data"], rows["total"]) == ([], 0)


async def test_times_filter_as_numbers_and_as_dates(door: RestDoor) -> None:
    id_ = await door.held("when")
    at = (await door.ask("GET", f"/v1/emails/{id_}")).data["timestamp"]
    for query, found in (
        (f"after={at - 1}&before={at + 1}", 1),
        (f"after={at + 1}", 0),
        (f"before={at - 1}", 0),
        (f"after={datetime.fromtimestamp(at - 1, UTC).isoformat().replace('+', '%2B')}", 1),
        (f"before={datetime.fromtimestamp(at - 1, UTC).strftime('%Y-%m-%dT%H:%M:%SZ')}", 0),
        ("after=2001-01-01&before=2099-01-01T00:00:00", 1),
    ):
        rows = (await door.ask("GET", f"/v1/emails?to=when@held.test&{query}")).body
        assert len(rows["data"]) == found, query


async def test_it_says_why(door: RestDoor) -> None:
    held = await door.held("why")
    shown = (await door.ask("GET", f"/v1/emails/{held}/why", key=ACME_KEY)).data
    assert (shown["id"], shown["tenantId"], shown["status"]) == (held, "acme", "held")
    assert (shown["holdReason"], shown["nextRetryAt"], shown["nextRetryAtIso"]) == ("suppressed", None, None)
    (sentence,) = shown["sentences"]
    assert "suppression list" in sentence["sentence"]
    assert (await door.ask("GET", f"/v1/why?q={held}")).data["sentences"] == [sentence]
    waits = (await door.send("why@nowhere.test")).data["id"]
    shown = (
        await door.relay.until(
            f"/v1/emails/{waits}/why", lambda one: one["data"]["status"] in {"softfail", "hardfail"}
        )
    )["data"]
    if shown["status"] == "softfail":
        assert shown["nextRetryAt"] > time.time()
        assert datetime.fromisoformat(shown["nextRetryAtIso"]).timestamp() == pytest.approx(
            shown["nextRetryAt"], 1e-3
        )
        clock = datetime.fromtimestamp(shown["nextRetryAt"], UTC).strftime("%H:%M:%S")
        assert clock in shown["sentences"][0]["sentence"]


@pytest.mark.parametrize(
    ("key", "code"), [(HELD_KEY, "credential_on_hold"), (TEST_KEY, "permission_denied")], ids=["held", "test"]
)
async def test_a_key_that_may_not_send_sets_no_mail_going(door: RestDoor, key: str, code: str) -> None:
    id_ = await door.held("still")
    for path, body in (
        (f"/v1/emails/{id_}/retry", None),
        ("/v1/queue/retry", {"ids": [id_]}),
        ("/v1/queue/release", {"ids": [id_]}),
        ("/v1/queue/flush", {}),
    ):
        answer = await door.ask("POST", path, body, key=key)
        assert (answer.status, answer.code) == (403, code), path
    assert (await door.ask("GET", f"/v1/emails/{id_}", key=key)).data["status"] == "held"


async def test_a_test_key_retries_what_it_sent_itself(door: RestDoor) -> None:
    await door.ask("POST", "/v1/tenants/acme/suppressions", {"address": "mine@rcpt.test"})
    id_ = (await door.send("mine@rcpt.test", key=TEST_KEY)).data["id"]
    assert (await door.ask("GET", f"/v1/emails/{id_}")).data["status"] == "held"
    assert (await door.ask("POST", f"/v1/emails/{id_}/retry", key=TEST_KEY)).status == 200
    await door.relay.until(f"/v1/emails/{id_}", lambda shown: shown["data"]["status"] == "sent")
    assert not any("mine@rcpt.test" in message.recipients for message in door.mx.messages)


async def test_a_test_key_changes_nothing_that_real_mail_depends_on(door: RestDoor) -> None:
    id_ = await door.held("precious")
    rows = (await door.ask("GET", "/v1/tenants/acme/credentials", key=TEST_KEY)).data
    (live,) = [one["id"] for one in rows if one["name"] == "rest"]
    domain = (await door.ask("GET", "/v1/tenants/acme/domains", key=TEST_KEY)).data["domains"][0]["id"]
    base = "/v1/tenants/acme"
    changes: list[tuple[str, str, dict[str, Any] | None]] = [
        ("POST", f"{base}/suppressions", {"address": "somebody@rcpt.test"}),
        ("POST", f"{base}/suppressions/import", {"entries": [{"address": "somebody@rcpt.test"}]}),
        ("POST", f"{base}/suppressions/undo", {"cause": "hand"}),
        ("DELETE", f"{base}/suppressions/precious@rcpt.test", None),
        ("POST", f"{base}/webhooks", {"name": "new", "url": "https://elsewhere.test/", "allEvents": True}),
        ("POST", f"{base}/domains", {"name": "new.test"}),
        ("DELETE", f"{base}/domains/{domain}", None),
        ("POST", f"{base}/tracking", {"domainId": domain, "name": "t"}),
        ("PATCH", f"{base}/credentials/{live}", {"hold": True}),
        ("DELETE", f"{base}/credentials/{live}", None),
        *(("POST", f"/v1/queue/{verb}", {"ids": [id_]}) for verb in ("hold", "delete", "retry", "release")),
        *(("POST", f"/v1/queue/{verb}", {"all": True}) for verb in ("hold", "delete", "flush", "release")),
    ]
    for method, path, body in changes:
        answer = await door.ask(method, path, body, key=TEST_KEY)
        assert (answer.status, answer.code) == (403, "permission_denied"), (method, path, answer.body)
        assert "live key" in answer.body["error"]["message"] or "test key" in answer.body["error"]["message"].lower()
    own = (await door.send("precious@held.test", key=TEST_KEY)).data["id"]
    assert (await door.ask("POST", "/v1/queue/delete", {"ids": [own]}, key=TEST_KEY)).data == {"count": 1}
    assert (await door.ask("GET", f"/v1/emails/{id_}")).data["status"] == "held"


async def test_a_large_message_is_shown_while_others_are_served(door: RestDoor) -> None:
    body = "x" * 70 + "\r\n"
    message = f"From: app@sender.test\r\n\r\n{body * (13_900_000 // len(body))}"
    id_ = (await door.send("large@held.test", rawMessage=encoded(message))).data["id"]
    stalls: list[float] = []

    async def ask_on() -> None:
        while True:
            began = time.monotonic()
            await door.ask("GET", "/healthz", key=None)
            stalls.append(time.monotonic() - began)

    asking = asyncio.create_task(ask_on())
    answer = await door.ask("GET", f"/v1/emails/{id_}?expand=raw")
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    shown = base64.b64decode(answer.data["rawMessage"])
    assert shown.endswith(message[-1_000_000:].encode())
    assert len(stalls) > 3  # others were answered meanwhile,
    assert door.relay.lines("loop_lag") == []  # and none waited for long


SUPPRESSIONS = "/v1/tenants/acme/suppressions"


@pytest.mark.parametrize(
    ("address", "paths"),
    [
        ("user+tag@example.com", ["user+tag@example.com", "user%2Btag%40example.com", "USER+tag@EXAMPLE.com"]),
        ("a%41b@x.test", ["a%2541b@x.test"]),
        ("a/b@x.test", ["a%2Fb@x.test"]),
        ('"a b"@x.test', ["%22a%20b%22@x.test"]),
        ("ä@xn--bcher-kva.example", ["%C3%A4@b%C3%BCcher.example", "%C3%A4@xn--bcher-kva.example"]),
    ],
)
async def test_an_address_in_a_path_is_itself(door: RestDoor, address: str, paths: list[str]) -> None:
    created = await door.ask("POST", SUPPRESSIONS, {"address": address})
    assert created.status == 201
    assert created.data["address"] == address
    for path in paths:
        shown = (await door.ask("GET", f"{SUPPRESSIONS}/{path}")).data
        assert (shown["suppressed"], shown["reason"]) == (True, "manual"), path
    assert (await door.ask("DELETE", f"{SUPPRESSIONS}/{paths[0]}")).status == 200
    assert (await door.ask("GET", f"{SUPPRESSIONS}/{paths[0]}")).data["suppressed"] is False
    gone = await door.ask("DELETE", f"{SUPPRESSIONS}/{paths[0]}")
    assert (gone.status, gone.code) == (404, "not_found")


async def test_a_suppression_is_one_per_address_and_gets_the_new_reason(door: RestDoor) -> None:
    first = await door.ask("POST", SUPPRESSIONS, {"address": "twice@x.test", "reason": "one"})
    second = await door.ask("POST", SUPPRESSIONS, {"address": "Twice@X.test", "reason": "two"})
    assert first.data["id"] == second.data["id"]
    assert second.data["reason"] == "two"
    rows = (await door.ask("GET", f"{SUPPRESSIONS}?perPage=1")).body
    assert rows["data"][0]["address"] == "twice@x.test"
    assert set(rows["data"][0]) >= {"id", "address", "reason", "createdAt"}


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, "missing_required_field", "address"),
        ({"address": "%"}, "invalid_email_format", "address"),
        ({"address": "a@x.test\x1b[2J"}, "validation_error", "address"),
        ({"address": "a@x.test", "reason": ""}, "validation_error", "reason"),
        ({"address": "a@x.test", "reason": "x" * 501}, "validation_error", "reason"),
        ({"address": "a@x.test", "reason": "one\ntwo"}, "validation_error", "reason"),
        ({"address": "a@x.test", "reason": {"x": 1}}, "validation_error", "reason"),
    ],
)
async def test_a_bad_suppression_is_refused_by_name(
    door: RestDoor, body: dict[str, Any], code: str, field: str
) -> None:
    answer = await door.ask("POST", SUPPRESSIONS, body)
    assert (answer.status, answer.code, answer.field) == (400, code, field)


@pytest.mark.parametrize(
    ("verb", "body", "status", "field"),
    [
        ("retry", {}, 400, "ids"),
        ("hold", {"ids": []}, 400, "ids"),
        ("hold", {"ids": "abc"}, 400, "ids"),
        ("hold", {"ids": ["x"] * 1001}, 400, "ids"),
        ("hold", {"all": "yes"}, 400, "all"),
        ("hold", {"all": True, "status": "lost"}, 400, "status"),
        ("release", {"all": True, "status": "sent"}, 422, "status"),
        ("delete", {"all": True, "domain": 7}, 400, "domain"),
    ],
)
async def test_a_verb_on_the_queue_says_what_it_needs(
    door: RestDoor, verb: str, body: dict[str, Any], status: int, field: str
) -> None:
    answer = await door.ask("POST", f"/v1/queue/{verb}", body)
    assert (answer.status, answer.field) == (status, field)


async def test_a_tenants_key_moves_its_own_mail_only(door: RestDoor) -> None:
    id_ = await door.held("moved")
    assert (await door.ask("POST", "/v1/queue/release", {"ids": [id_]}, key=OTHER_KEY)).data == {"count": 0}
    assert (await door.ask("POST", "/v1/queue/delete", {"all": True}, key=OTHER_KEY)).data == {"count": 0}
    assert (await door.ask("GET", f"/v1/emails/{id_}")).data["status"] == "held"


async def test_an_entry_with_a_stream_holds_mail_with_that_tag_alone(door: RestDoor) -> None:
    created = await door.ask("POST", SUPPRESSIONS, {"address": "stream@rcpt.test", "stream": "news"})
    assert (created.status, created.data["stream"], created.data["cause"]) == (201, "news", "hand")
    letter = {"from": "app@sender.test", "to": ["stream@rcpt.test"], "subject": "x", "text": "x"}
    tagged = (await door.ask("POST", "/v1/emails", {**letter, "tag": "news"})).data
    other = (await door.ask("POST", "/v1/emails", {**letter, "tag": "receipt"})).data
    assert (await door.ask("GET", f"/v1/emails/{tagged['id']}")).data["status"] == "held"
    assert (await door.ask("GET", f"/v1/emails/{other['id']}")).data["status"] != "held"
    listed = (await door.ask("GET", f"{SUPPRESSIONS}?stream=news")).body["data"]
    assert [one["address"] for one in listed] == ["stream@rcpt.test"]


async def test_an_import_is_listed_by_its_cause_and_undone_by_it(door: RestDoor) -> None:
    entries = [
        {"address": "Old1@rcpt.test", "reason": "bounced elsewhere", "createdAt": "2026-01-31T12:00:00Z"},
        {"address": "old2@rcpt.test"},
    ]
    assert (await door.ask("POST", f"{SUPPRESSIONS}/import", {"entries": entries})).data == {"added": 2, "present": 0}
    assert (await door.ask("POST", f"{SUPPRESSIONS}/import", {"entries": entries})).data == {"added": 0, "present": 2}
    found = (await door.ask("GET", f"{SUPPRESSIONS}?cause=import&reason=bounced%20elsewhere")).body["data"]
    assert [(one["address"], one["createdAt"]) for one in found] == [("Old1@rcpt.test", "2026-01-31T12:00:00.000Z")]
    dry = (await door.ask("POST", f"{SUPPRESSIONS}/undo", {"cause": "import", "dryRun": True})).data
    assert (dry["removed"], dry["dryRun"]) == (2, True)
    until = {"cause": "import", "until": "2026-02-01T00:00:00Z"}
    done = (await door.ask("POST", f"{SUPPRESSIONS}/undo", until)).data
    assert done == {"removed": 1, "addresses": ["Old1@rcpt.test"], "dryRun": False}
    assert (await door.ask("GET", f"{SUPPRESSIONS}/old2@rcpt.test")).data["suppressed"] is True


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("undo", {}, "cause"),
        ("undo", {"since": "yesterday"}, "since"),
        ("undo", {"classification": "nonsense"}, "classification"),
        ("import", {"entries": []}, "entries"),
        ("import", {"entries": [{"address": "a@x.test"}, {"address": "nobody"}]}, "entries"),
    ],
)
async def test_a_bad_undo_or_import_names_its_field_and_does_nothing(
    door: RestDoor, path: str, body: dict[str, Any], field: str
) -> None:
    answer = await door.ask("POST", f"{SUPPRESSIONS}/{path}", body)
    assert (answer.status, answer.field) == (400, field), answer.body
    assert (await door.ask("GET", f"{SUPPRESSIONS}/a@x.test")).data["suppressed"] is False
