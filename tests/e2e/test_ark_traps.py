"""The fifteen places where a server that looks right breaks a client of Ark (Ark contract §21), one test each."""

import asyncio
import base64
import json
import smtplib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import ark
import httpx
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from peers.arkdoor import ACME_KEY, OTHER_KEY, ArkDoor, Post, mailbox, open_ark_door, unique
from peers.office import assert_clean

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOOKS, TENANT = "/v1/platform/webhooks", "/v1/tenants/acme"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ArkDoor]:
    async with open_ark_door(tmp_path_factory.mktemp("traps")) as opened:
        yield opened


async def ask(door: ArkDoor, method: str, path: str, body: Any = None, *, key: str = "", status: int = 200) -> Any:
    """Return the decoded answer, which has this status; no body is none, with a content type all the same."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    content = b"" if body is None else json.dumps(body).encode()
    answer = await door.http.request(method, path, content=content, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


def letter(to: str, **more: Any) -> dict[str, Any]:
    return {"from": "app@sender.test", "to": [to], "subject": "hello", "text": "Hello.", **more}


async def held(door: ArkDoor) -> str:
    """Return the id of an email whose recipient is suppressed."""
    address = await door.suppressed(door.api())
    id_ = (await ask(door, "POST", "/v1/emails", letter(address)))["data"]["id"]
    await door.settled(door.api(), id_, "held")
    return str(id_)


async def hook_of(door: ArkDoor, url: str) -> str:
    """Return the id of a new webhook of the tenant."""
    made = await ask(
        door, "POST", f"{TENANT}/webhooks", {"name": "trap", "url": url, "events": ["MessageBounced"]}, status=201
    )
    return str(made["data"]["id"])


async def test_1_a_page_has_no_success_and_each_list_its_own_nest(door: ArkDoor) -> None:
    pages = [
        "/v1/emails",
        "/v1/logs",
        "/v1/tenants",
        "/v1/usage/tenants",
        f"{TENANT}/credentials",
        f"{TENANT}/suppressions",
        f"{HOOKS}/deliveries",
        f"{TENANT}/webhooks/{await hook_of(door, door.receiver.url('nest'))}/deliveries",
    ]
    for path in pages:
        page = await ask(door, "GET", path)
        more = {"period"} if path == "/v1/usage/tenants" else set()
        assert set(page) == {"data", "page", "perPage", "total", "totalPages", "meta"} | more, path
        assert isinstance(page["data"], list), path
    nests = {"domains": "domains", "webhooks": "webhooks", "tracking": "trackDomains"}
    for path, name in nests.items():
        listed = await ask(door, "GET", f"{TENANT}/{path}")
        assert set(listed) == {"success", "data", "meta"}
        assert list(listed["data"]) == [name]
        assert isinstance(listed["data"][name], list)
    platform = await ask(door, "GET", HOOKS)
    assert set(platform) == {"success", "data", "meta"}
    assert isinstance(platform["data"], list)


@pytest.mark.parametrize("headers", [{"Content-Type": "application/json"}, {}], ids=["json", "no-content-type"])
async def test_2_an_empty_body_is_no_parse_error(door: ArkDoor, headers: dict[str, str]) -> None:
    domain = (await ask(door, "GET", f"{TENANT}/domains"))["data"]["domains"][0]["id"]
    address = await door.suppressed(door.api())
    for method, path in (
        ("POST", f"/v1/emails/{await held(door)}/retry"),
        ("POST", f"{TENANT}/domains/{domain}/verify"),
        ("DELETE", f"{TENANT}/suppressions/{address}"),
    ):
        answer = await door.http.request(method, path, content=b"", headers=headers)
        assert answer.status_code == 200, answer.text


async def test_3_an_address_in_a_path_is_literal_or_percent_encoded(door: ArkDoor) -> None:
    user = unique("user")
    await ask(door, "POST", f"{TENANT}/suppressions", {"address": f"{user}+tag@example.com"}, status=201)
    for form in (f"{user}+tag@example.com", f"{user}%2Btag%40example.com", f"{user}%2btag@example.com"):
        shown = (await ask(door, "GET", f"{TENANT}/suppressions/{form}"))["data"]
        assert (shown["address"], shown["suppressed"]) == (f"{user}+tag@example.com", True), form
    spaced = await ask(door, "GET", f"{TENANT}/suppressions/{user}%20tag@example.com", status=400)
    assert spaced["error"]["code"] == "invalid_email_format"


async def test_4_deliveries_are_not_the_id_of_a_webhook(door: ArkDoor) -> None:
    assert "totalPages" in await ask(door, "GET", f"{HOOKS}/deliveries")
    for id_ in ("deliverie", "pwh_0"):
        missing = await ask(door, "GET", f"{HOOKS}/{id_}", status=404)
        assert missing["error"]["code"] == "not_found"


async def test_5_null_is_said_where_a_key_is_required_and_sandbox_only_when_true(door: ArkDoor) -> None:
    new = {"name": unique("unused"), "type": "api"}
    credential = (await ask(door, "POST", f"{TENANT}/credentials", new, status=201))["data"]
    assert credential["lastUsedAt"] is None
    rows = (await ask(door, "GET", f"{TENANT}/credentials"))["data"]
    assert all("lastUsedAt" in row and not {"key", "smtpUsername"} & set(row) for row in rows)
    sent = (await ask(door, "POST", "/v1/emails", letter(mailbox("nulls"))))["data"]
    assert "sandbox" not in sent
    history = (await ask(door, "GET", f"/v1/emails/{await held(door)}/deliveries"))["data"]
    assert history["retryState"] is None
    limits = (await ask(door, "GET", "/v1/limits"))["data"]
    assert (limits["billing"], "sendLimit" in limits) == (None, True)


async def test_6_ids_units_and_spellings_are_as_each_model_has_them(door: ArkDoor) -> None:
    credential = (await ask(door, "GET", f"{TENANT}/credentials"))["data"][0]
    domain = (await ask(door, "POST", f"{TENANT}/domains", {"name": f"{unique('ids')}.example.com"}, status=201))[
        "data"
    ]
    assert isinstance(credential["id"], int)
    assert isinstance(domain["id"], int)
    track = {"domainId": domain["id"], "name": "track"}
    made = (await ask(door, "POST", f"{TENANT}/tracking", track, status=201))["data"]
    assert (type(made["id"]), made["domainId"]) == (str, str(domain["id"]))
    assert (await ask(door, "POST", f"{TENANT}/tracking/{made['id']}/verify"))["data"]["dnsStatus"] == "missing"
    checked = (await ask(door, "POST", f"{TENANT}/domains/{domain['id']}/verify"))["data"]
    assert checked["dnsRecords"]["spf"]["status"] == "Missing"
    assert (checked["tenant_id"], checked["tenant_name"]) == ("acme", "Acme Inc")
    url = door.receiver.url("units", 200)
    own = await ask(door, "POST", f"{TENANT}/webhooks/{await hook_of(door, url)}/test", {"event": "MessageSent"})
    assert isinstance(own["data"]["duration"], int)
    hook = (await ask(door, "POST", HOOKS, {"name": "units", "url": url}, status=201))["data"]["id"]
    tested = (await ask(door, "POST", f"{HOOKS}/{hook}/test", {"event": "MessageSent"}))["data"]
    assert isinstance(tested["durationMs"], int)
    assert "duration" not in tested
    await ask(door, "DELETE", f"{HOOKS}/{hook}")
    usage = (await ask(door, "GET", f"{TENANT}/usage"))["data"]
    assert {"tenant_id", "tenant_name", "period", "emails", "rates"} <= set(usage)
    assert {"soft_failed", "hard_failed"} <= set(usage["emails"])
    listed = (await ask(door, "GET", "/v1/usage/tenants"))["data"][0]
    assert {"tenantId", "tenantName"} <= set(listed)
    for path in ("", f"/{domain['id']}"):
        shown = (await ask(door, "GET", f"{TENANT}/domains{path}"))["data"]
        assert {"tenant_id", "tenant_name"} <= set(shown.get("domains", [shown])[0])


async def test_7_an_address_that_is_not_suppressed_is_200(door: ArkDoor) -> None:
    shown = await ask(door, "GET", f"{TENANT}/suppressions/{unique('nobody')}@example.com")
    assert shown["data"]["suppressed"] is False


async def test_8_suppressed_and_over_the_limit_are_accepted_and_held(door: ArkDoor) -> None:
    assert await held(door)
    api = door.api(key=OTHER_KEY)
    await ask(door, "POST", "/v1/tenants/other/suppressions", {"address": "wall@x.test"}, status=201)
    ids = []
    for _ in range(3):  # the tenant may send two an hour
        more = {"from": "app@other.test"}
        answer = await ask(door, "POST", "/v1/emails", letter(mailbox("quota"), **more), key=OTHER_KEY)
        ids.append(answer["data"]["id"])
    last = await door.settled(api, ids[-1], "held")
    assert "limit" in last.data.deliveries[0].details.lower()
    limit = (await api("limits.retrieve")).data.send_limit
    assert (limit.limit, limit.remaining, limit.exceeded) == (2, 0, True)


async def test_9_what_was_answered_survives_kill_9_and_a_repeat_is_not_a_second_mail(tmp_path: Path) -> None:
    async with open_ark_door(tmp_path) as door:
        to, key = mailbox("kept"), unique("crash")
        asked: dict[str, Any] = {
            "from_": "app@sender.test",
            "to": [to],
            "subject": "x",
            "text": "x",
            "idempotency_key": key,
        }
        first = await door.api(sync=False)("emails.send", **asked)
        await door.relay.kill()
        await door.relay.start()
        again = ark.Ark(api_key=door.key, base_url=f"http://127.0.0.1:{door.relay.port('http')}/v1")
        try:
            second = await asyncio.to_thread(lambda: again.emails.send(**asked))
        finally:
            again.close()
        assert second.data.id == first.data.id
        await door.letter(to)
        rows = (await door.relay.get(f"/v1/emails?to={to}"))["total"]
        assert rows == 1


async def test_10_retry_after_is_never_longer_than_clients_heed(tmp_path: Path) -> None:
    async with open_ark_door(tmp_path, requests_per_s=0.005) as door:  # one in 200 s
        headers = {"Authorization": f"Bearer {door.key}"}
        answers = [await door.http.get("/v1/limits", headers=headers) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 429]
        assert 0 < int(answers[1].headers["Retry-After"]) <= 60


async def verified(door: ArkDoor, post: Post) -> bool:
    """Whether the public keys of the relay say that it wrote this body; asked without a key, at the root."""
    async with httpx.AsyncClient(base_url=door.bare) as stranger:
        answer = await stranger.get("/.well-known/jwks.json")
    assert answer.status_code == 200
    (found,) = [key for key in answer.json()["keys"] if key["kid"] == post.headers["X-Ark-Signature-KID"]]
    assert (found["kty"], found["use"], found["alg"]) == ("RSA", "sig", "RS256")
    number = {name: int.from_bytes(base64.urlsafe_b64decode(found[name] + "=="), "big") for name in ("n", "e")}
    signature = base64.b64decode(post.headers["X-Ark-Signature"], validate=True)
    public = rsa.RSAPublicNumbers(number["e"], number["n"]).public_key()
    public.verify(signature, post.body, padding.PKCS1v15(), hashes.SHA256())
    return True


async def test_11_a_signature_is_over_the_very_octets_and_each_attempt_is_fresh(door: ArkDoor) -> None:
    url = door.receiver.url(unique("signed"), 500)
    path = f"{TENANT}/webhooks/{await hook_of(door, url)}"
    await ask(door, "POST", f"{path}/test", {"event": "MessageBounced"})
    (delivery,) = (await ask(door, "GET", f"{path}/deliveries"))["data"]
    await ask(door, "POST", f"{path}/deliveries/{delivery['id']}/replay")
    await ask(door, "DELETE", path)
    first, second = door.receiver.at(url)
    assert await verified(door, first)
    assert await verified(door, second)
    assert first.headers["Content-Type"] == "application/json"
    one, two = first.json, second.json
    assert set(one) >= {"event", "timestamp", "uuid", "payload"}
    assert (one["event"], one["payload"]) == (two["event"], two["payload"])
    assert abs(time.time() - two["timestamp"]) < 30
    assert two["timestamp"] > one["timestamp"]
    assert first.headers["X-Ark-Signature"] != second.headers["X-Ark-Signature"]


async def test_12_patch_replaces_metadata_and_knows_null(door: ArkDoor) -> None:
    made = await ask(door, "POST", "/v1/tenants", {"name": "Patch", "metadata": {"a": 1, "b": 2}}, status=201)
    path = f"/v1/tenants/{made['data']['id']}"
    try:
        for body, metadata in (({"metadata": {"c": 3}}, {"c": 3}), ({"metadata": None}, {}), ({"name": "Same"}, {})):
            assert (await ask(door, "PATCH", path, body))["data"]["metadata"] == metadata
        hook = await ask(door, "POST", f"{path}/webhooks", {"name": "n", "url": "https://x.test/h"}, status=201)
        nulls = dict.fromkeys(("name", "url", "events", "allEvents", "enabled"))
        assert (await ask(door, "PATCH", f"{path}/webhooks/{hook['data']['id']}", nulls))["data"] == hook["data"]
        await ask(door, "PATCH", path, {}, status=400)
    finally:
        await ask(door, "DELETE", path)


@pytest.mark.parametrize("query", ["", "?format=csv", "?format=csv&minSent=1000000"])
async def test_13_csv_begins_with_a_bom_and_has_no_envelope(door: ArkDoor, query: str) -> None:
    answer = await door.http.get(f"/v1/usage/export{query}")
    assert answer.content.startswith(b"\xef\xbb\xbftenant_id,tenant_name,")
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert b"success" not in answer.content
    plain = await door.http.get("/v1/usage/export?format=jsonl")
    assert plain.headers["Content-Type"].startswith("application/x-ndjson")
    assert {json.loads(line)["tenant_id"] for line in plain.text.splitlines()} >= {"acme", "other"}


async def test_14_a_secret_can_be_shown_again_and_is_nowhere_in_clear(door: ArkDoor) -> None:
    new = {"name": unique("cram"), "type": "smtp"}
    made = (await ask(door, "POST", f"{TENANT}/credentials", new, status=201))["data"]
    shown = (await ask(door, "GET", f"{TENANT}/credentials/{made['id']}?reveal=true"))["data"]
    assert shown["key"] == made["key"]

    def login() -> int:
        with smtplib.SMTP("127.0.0.1", door.relay.port("submission"), timeout=20) as client:
            client.ehlo("client.test")
            client.user, client.password = made["smtpUsername"], made["key"]
            return client.auth("CRAM-MD5", client.auth_cram_md5)[0]

    assert await asyncio.to_thread(login) == 235
    secret = made["key"].encode()
    files = [path for path in door.relay.folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path.name for path in files if secret in path.read_bytes()] == []


async def test_15_control_fields_metadata_and_bcc_never_reach_a_recipient(door: ArkDoor) -> None:
    to, bcc = mailbox("clean"), mailbox("blind")
    control = {"X-Ark-Tag": "t", "X-Ark-Metadata-order": "secret_1", "X-PM-Tag": "t", "X-PM-KeepID": "true"}
    given = letter(to, bcc=[bcc], metadata={"user": "secret_2"}, tag="secret_3", headers={"X-Mine": "kept"})
    await ask(door, "POST", "/v1/emails", given, key=ACME_KEY)
    fields = "".join(f"{name}: {value}\r\n" for name, value in {**control, "X-Mine": "kept", "Bcc": bcc}.items())
    by_smtp, raw = mailbox("smtp"), mailbox("raw")
    await door.relay.send(by_smtp, headers=fields)
    message = f"From: app@sender.test\r\nTo: {raw}\r\n{fields}\r\nHello.\r\n"
    body = {"from": "app@sender.test", "to": [raw], "rawMessage": base64.b64encode(message.encode()).decode()}
    await ask(door, "POST", "/v1/emails/raw", body)
    for address in (to, bcc, by_smtp, raw):
        content = (await door.letter(address)).content
        assert_clean(content)
        assert b"X-Mine: kept" in content
        assert b"secret_" not in content
        assert bcc.encode() not in content
