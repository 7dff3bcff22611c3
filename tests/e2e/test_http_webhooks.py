"""Webhooks by REST: kept, changed, tested, replayed; signed so that anybody can verify it, and never led inside."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import ark
import pytest
import pytest_asyncio
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from peers import certificates
from peers.daemon import Relay, signing_key
from peers.dns import DnsServer
from peers.receiver import Receiver, Request
from peers.restdoor import ACME_KEY, HELD_KEY, LISTENERS, OTHER, OTHER_KEY, Answer, RestDoor
from peers.restdoor import CREDENTIALS as KEYS

from arkrelay.config.tenants import add_key
from arkrelay.model.tenant import WEBHOOK_EVENTS

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALLOWED = "127.0.0.2"  # where webhooks may point, in this relay; the rest of loopback stays forbidden
TENANT, PLATFORM = "/v1/tenants/acme/webhooks", "/v1/platform/webhooks"
EVENTS = ["MessageBounced", "MessageSent"]
SETTINGS = f"""
[webhooks]
timeout = "1s"
allow_destinations = ["{ALLOWED}/32"]
max_per_tenant = 1000
"""
BY_HAND = """
[[webhooks]]
name = "By hand"
url = "https://{url}/"
id = "77"
"""


class Door(RestDoor):
    """The REST door with an endpoint that webhooks may reach, and one that they may not."""

    receiver: Receiver
    trap: Receiver
    dns: DnsServer

    def url(self, path: str = "", host: str = "hook.test") -> str:
        return f"https://{host}:{self.receiver.port}/{path}"

    async def add(self, url: str, base: str = TENANT, **more: Any) -> dict[str, Any]:
        """Return a new webhook."""
        answer = await self.ask("POST", base, {"name": "Production", "url": url, **more})
        assert answer.status == 201, answer.text
        made: dict[str, Any] = answer.data
        return made

    async def tried(self, hook: dict[str, Any], event: str = "MessageSent", base: str = TENANT) -> Any:
        """Return the result of a test."""
        answer = await self.ask("POST", f"{base}/{hook['id']}/test", {"event": event})
        assert answer.status == 200, answer.text
        return answer.data

    async def last(self, hook: dict[str, Any], base: str = TENANT) -> Any:
        """Return the newest delivery of a webhook, in full."""
        if base == PLATFORM:
            (row, *_) = (await self.ask("GET", f"{PLATFORM}/deliveries?webhookId={hook['id']}")).body["data"]
            return (await self.ask("GET", f"{PLATFORM}/deliveries/{row['id']}")).data
        (row, *_) = (await self.ask("GET", f"{base}/{hook['id']}/deliveries")).body["data"]
        return (await self.ask("GET", f"{base}/{hook['id']}/deliveries/{row['id']}")).data

    async def keys(self) -> list[dict[str, str]]:
        """Return the published keys, as anybody sees them."""
        answer = await self.ask("GET", "/.well-known/jwks.json", key=None)
        assert answer.status == 200
        found: list[dict[str, str]] = answer.body["keys"]
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Door]:
    folder = tmp_path_factory.mktemp("webhooks")
    (folder / "cert.pem").write_bytes(certificates.valid("relay.test").certificate.read_bytes())
    (folder / "key.pem").write_bytes(certificates.valid("relay.test").private_key.read_bytes())
    (folder / "key.pem").chmod(0o600)
    async with AsyncExitStack() as stack:
        dns = await stack.enter_async_context(DnsServer())
        dns.set("hook.test", "A", ALLOWED)
        context = certificates.valid("hook.test").server_context()
        receiver = await stack.enter_async_context(Receiver(ALLOWED, context=context))
        trap = await stack.enter_async_context(Receiver("127.0.0.1"))
        await stack.enter_async_context(Receiver("::1", trap.port))
        relay = Relay(folder, dns=dns.address, more=LISTENERS.format(folder=folder) + SETTINGS, tenant=KEYS)
        (folder / "tenants" / "other.toml").write_text(OTHER)
        (folder / "tenants" / "other.toml").chmod(0o600)
        relay.environment = {"SSL_CERT_FILE": str(certificates.authority().ca_file)}
        _, key = add_key(relay.config, "ops")
        await stack.enter_async_context(relay)
        opened = Door(relay, key, None)  # type: ignore[arg-type] # nothing here is mailed
        opened.receiver, opened.trap, opened.dns = receiver, trap, dns
        yield opened


def number(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


async def verify(door: Door, request: Request) -> None:
    """Check the signature over the bytes that came, with the key that is published under its kid."""
    assert request.headers["content-type"] == "application/json"
    (jwk,) = [one for one in await door.keys() if one["kid"] == request.headers["x-ark-signature-kid"]]
    assert (jwk["kty"], jwk["use"], jwk["alg"]) == ("RSA", "sig", "RS256")
    key = rsa.RSAPublicNumbers(number(jwk["e"]), number(jwk["n"])).public_key()
    signature = base64.b64decode(request.headers["x-ark-signature"], validate=True)
    key.verify(signature, request.body, padding.PKCS1v15(), hashes.SHA256())
    with pytest.raises(InvalidSignature):
        key.verify(signature, request.body + b"\n", padding.PKCS1v15(), hashes.SHA256())


def refused(answer: Answer) -> tuple[int, str, str | None]:
    return answer.status, answer.code, answer.field


# -- resources ---------------------------------------------------------------------------------------------------


async def test_a_webhook_is_kept_changed_and_removed(door: Door) -> None:
    made = await door.add(door.url("a"), events=EVENTS, enabled=False)
    assert made == {
        "id": made["id"], "uuid": made["uuid"], "name": "Production", "url": door.url("a"), "events": EVENTS,
        "allEvents": False, "enabled": False, "createdAt": made["createdAt"],
    }  # fmt: skip
    assert made["id"].isdecimal()
    assert made["createdAt"].endswith("Z")
    for name in (made["id"], made["uuid"]):
        assert (await door.ask("GET", f"{TENANT}/{name}")).data == made
    rows = (await door.ask("GET", TENANT, key=ACME_KEY)).data["webhooks"]
    assert {key: made[key] for key in ("id", "name", "url", "enabled", "events")}.items() <= rows[0].items()
    changed = await door.ask("PATCH", f"{TENANT}/{made['uuid']}", {"name": "New", "enabled": True}, key=ACME_KEY)
    assert changed.data == made | {"name": "New", "enabled": True}
    nothing = await door.ask("PATCH", f"{TENANT}/{made['id']}", dict.fromkeys(("name", "url", "events", "allEvents")))
    assert nothing.data == changed.data
    gone = await door.ask("DELETE", f"{TENANT}/{made['id']}", data=b"")
    assert made["id"] in gone.data["message"]
    assert refused(await door.ask("DELETE", f"{TENANT}/{made['id']}")) == (404, "not_found", None)


@pytest.mark.parametrize(
    ("given", "events", "all_events"),
    [
        ({}, [], True),
        ({"events": None, "allEvents": None, "enabled": None}, [], True),
        ({"allEvents": False}, [], False),
        ({"events": EVENTS, "allEvents": None}, EVENTS, False),
        ({"allEvents": True}, [], True),
        ({"events": EVENTS, "allEvents": True}, [], True),
        ({"events": [*EVENTS, "MessageSent"]}, EVENTS, False),
        ({"events": list(WEBHOOK_EVENTS), "allEvents": False}, list(WEBHOOK_EVENTS), False),
    ],
)
async def test_what_it_subscribes_to_comes_back_as_it_was_meant(
    door: Door, given: dict[str, Any], events: list[str], all_events: bool
) -> None:
    made = await door.add(door.url(), **given)
    assert (made["events"], made["allEvents"], made["enabled"]) == (events, all_events, True)
    assert (await door.ask("GET", f"{TENANT}/{made['id']}")).data == made
    await door.ask("POST", "/v1/control/reload")  # as the file says it
    assert (await door.ask("GET", f"{TENANT}/{made['id']}")).data == made


async def test_a_subscription_is_changed_by_either_key(door: Door) -> None:
    made = await door.add(door.url(), allEvents=True)
    for change, events, all_events in [
        ({"events": EVENTS}, EVENTS, False),
        ({"allEvents": None}, EVENTS, False),
        ({"allEvents": False}, EVENTS, False),
        ({"allEvents": True}, [], True),
        ({"name": "New"}, [], True),
        ({"allEvents": False}, [], False),
        ({"events": EVENTS, "allEvents": True}, [], True),
        ({"events": ["MessageHeld"], "allEvents": False}, ["MessageHeld"], False),
    ]:
        found = (await door.ask("PATCH", f"{TENANT}/{made['id']}", change)).data
        assert (found["events"], found["allEvents"]) == (events, all_events), change
        assert (await door.ask("GET", f"{TENANT}/{made['id']}")).data == found


async def test_names_need_not_be_unique_and_the_newest_is_first(door: Door) -> None:
    one, two = await door.add(door.url()), await door.add(door.url())
    ids = [row["id"] for row in (await door.ask("GET", TENANT)).data["webhooks"]]
    assert ids[:2] == [two["id"], one["id"]]


async def test_a_platform_webhook_has_its_own_shape(door: Door) -> None:
    made = await door.add(door.url(), PLATFORM, events=EVENTS, enabled=False)
    assert set(made) == {"id", "name", "url", "events", "enabled", "createdAt", "updatedAt"}
    assert made["id"].startswith("pwh_")
    assert (made["events"], made["enabled"]) == (EVENTS, True)  # it cannot be made disabled
    assert (await door.ask("GET", f"{PLATFORM}/{made['id']}")).data == made
    all_ = await door.add(door.url(), PLATFORM, events=[])
    rows = (await door.ask("GET", PLATFORM)).data
    assert [row["id"] for row in rows[:2]] == [all_["id"], made["id"]]
    assert set(rows[0]) == {"id", "name", "url", "events", "enabled", "createdAt"}
    changed = (
        await door.ask("PATCH", f"{PLATFORM}/{made['id']}", {"events": [], "enabled": False, "name": None})
    ).data
    assert (changed["events"], changed["enabled"], changed["name"]) == ([], False, "Production")
    assert changed["updatedAt"] >= changed["createdAt"] == made["createdAt"]
    assert "removed" in (await door.ask("DELETE", f"{PLATFORM}/{made['id']}")).data["message"]
    assert (await door.ask("GET", f"{PLATFORM}/{made['id']}")).status == 404


@pytest.mark.parametrize("base", [TENANT, PLATFORM])
@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"name": None}, "missing_required_field", "name"),
        ({"name": ""}, "validation_error", "name"),
        ({"name": "a\nb"}, "validation_error", "name"),
        ({"url": None}, "missing_required_field", "url"),
        ({"url": 7}, "validation_error", "url"),
        ({"url": ""}, "validation_error", "url"),
        ({"url": "hook.test"}, "validation_error", "url"),
        ({"url": "http://hook.test/"}, "validation_error", "url"),
        ({"url": "ftp://hook.test/"}, "validation_error", "url"),
        ({"url": "https://user:word@hook.test/"}, "validation_error", "url"),
        ({"url": "https://hook.test/#part"}, "validation_error", "url"),
        ({"url": "https://hook.test/\n"}, "validation_error", "url"),
        ({"url": f"https://hook.test/{'x' * 2000}"}, "validation_error", "url"),
        ({"url": "https://127.0.0.1/"}, "validation_error", "url"),
        ({"url": "https://[::1]/"}, "validation_error", "url"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "validation_error", "url"),
        ({"url": "https://169.254.169.254/latest"}, "validation_error", "url"),
        ({"url": "https://2130706433/"}, "validation_error", "url"),
        ({"url": "https://0x7f000001/"}, "validation_error", "url"),
        ({"url": "https://１２７.0.0.1/"}, "validation_error", "url"),  # noqa: RUF001 -- digits of another width
        ({"events": "MessageSent"}, "validation_error", "events"),
        ({"events": ["Sent"]}, "validation_error", "events[0]"),
        ({"events": ["SendLimitExceeded"]}, "validation_error", "events[0]"),
        ({"events": ["MessageSent"] * 101}, "validation_error", "events"),
    ],
)
async def test_what_cannot_be_is_refused_by_name(
    door: Door, base: str, change: dict[str, Any], code: str, field: str
) -> None:
    body = {"name": "x", "url": door.url(), **change}
    if code == "missing_required_field":
        body = {key: value for key, value in body.items() if value is not None}
    answer = await door.ask("POST", base, body)
    assert refused(answer) == (400, code, field), answer.text
    if code == "validation_error":
        made = await door.add(door.url(), base)
        assert refused(await door.ask("PATCH", f"{base}/{made['id']}", change)) == (400, code, field)
        assert (await door.ask("GET", f"{base}/{made['id']}")).data == made


@pytest.mark.parametrize("change", [{"events": []}, {"allEvents": "yes"}, {"enabled": 1}])
async def test_a_tenants_webhook_says_what_it_needs(door: Door, change: dict[str, Any]) -> None:
    answer = await door.ask("POST", TENANT, {"name": "x", "url": door.url(), **change})
    assert refused(answer) == (400, "validation_error", next(iter(change)))


async def test_a_file_managed_by_hand_is_not_changed_and_yet_tested(door: Door) -> None:
    file = door.relay.folder / "tenants" / "manual.toml"
    file.write_text('name = "Manual"\nmanaged = "file"\n' + BY_HAND.format(url=f"hook.test:{door.receiver.port}"))
    file.chmod(0o600)
    await door.ask("POST", "/v1/control/reload")
    base = "/v1/tenants/manual/webhooks"
    (hook,) = (await door.ask("GET", base)).data["webhooks"]
    assert (hook["id"], hook["allEvents"]) == ("77", True)
    for answer in (
        await door.ask("POST", base, {"name": "x", "url": door.url()}),
        await door.ask("PATCH", f"{base}/77", {"name": "x"}),
        await door.ask("DELETE", f"{base}/77"),
    ):
        assert refused(answer) == (409, "conflict", None)
        assert answer.headers["x-should-retry"] == "false"
    assert (await door.tried(hook, base=base))["success"]


# -- who may -----------------------------------------------------------------------------------------------------


async def test_nobody_sees_or_uses_anothers(door: Door) -> None:
    mine, central = await door.add(door.url()), await door.add(door.url(), PLATFORM)
    delivery = (await door.tried(mine))["deliveryId"]
    told = (await door.tried(central, base=PLATFORM))["deliveryId"]
    paths = ["", f"/{mine['id']}", f"/{mine['uuid']}/deliveries", f"/{mine['id']}/deliveries/{delivery}"]
    for path in paths:
        assert (await door.ask("GET", TENANT + path, key=ACME_KEY)).status == 200
        assert refused(await door.ask("GET", TENANT + path, key=OTHER_KEY)) == (404, "not_found", None)
        other = path.replace(delivery, told)
        foreign = await door.ask("GET", f"/v1/tenants/other/webhooks{other}", key=OTHER_KEY)
        assert foreign.status == (404 if path else 200)
        assert mine["id"] not in foreign.text.replace(path, "") or path
    for verb in ("test", f"deliveries/{delivery}/replay"):
        before = len(door.receiver.requests)
        answer = await door.ask("POST", f"{TENANT}/{mine['id']}/{verb}", {"event": "MessageSent"}, key=OTHER_KEY)
        assert refused(answer) == (404, "not_found", None)
        held = await door.ask("POST", f"{TENANT}/{mine['id']}/{verb}", {"event": "MessageSent"}, key=HELD_KEY)
        assert refused(held) == (403, "credential_on_hold", None)
        assert len(door.receiver.requests) == before
    # a platform delivery is not the tenant's, and the other way round
    assert (await door.ask("GET", f"{TENANT}/{mine['id']}/deliveries/{told}")).status == 404
    assert (await door.ask("GET", f"{PLATFORM}/deliveries/{delivery}")).status == 404
    for method, path in (("GET", ""), ("GET", "/deliveries"), ("GET", f"/{central['id']}"), ("POST", "")):
        assert refused(await door.ask(method, PLATFORM + path, key=ACME_KEY)) == (403, "permission_denied", None)


# -- test --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", WEBHOOK_EVENTS)
async def test_an_example_of_each_event_is_posted_and_its_signature_verifies(door: Door, event: str) -> None:
    hook = await door.add(door.url("all"), events=["MessageHeld"], enabled=False)
    tried = await door.tried(hook, event)
    assert (tried["success"], tried["event"], tried["statusCode"]) == (True, event, 200)
    assert (tried["body"], tried["error"]) == ("taken", None)
    assert isinstance(tried["duration"], int)
    request = door.receiver.requests[-1]
    assert request.path == "/all"
    await verify(door, request)
    body = json.loads(request.body)
    assert list(body) == ["event", "timestamp", "uuid", "payload"]
    assert body["event"] == event
    assert abs(body["timestamp"] - time.time()) < 10
    shown = await door.last(hook)
    assert shown["id"] == tried["deliveryId"]
    assert shown["id"].startswith("whr_")
    assert shown["request"]["payload"] == body
    assert shown["request"]["headers"]["X-Ark-Signature"] == request.headers["x-ark-signature"]
    assert shown["response"] == {"statusCode": 200, "body": "taken", "error": None}
    assert (shown["event"], shown["attempt"], shown["willRetry"]) == (event, 1, False)
    assert (shown["webhookId"], shown["webhookName"]) == (hook["id"], "Production")


async def test_the_platforms_example_says_that_it_is_one_and_names_a_tenant(door: Door) -> None:
    hook = await door.add(door.url("central"), PLATFORM)
    tried = await door.tried(hook, base=PLATFORM)
    assert set(tried) == {"success", "durationMs", "statusCode", "error", "deliveryId"}
    assert (tried["success"], tried["statusCode"], tried["error"]) == (True, 200, None)
    assert isinstance(tried["durationMs"], int)
    request = door.receiver.requests[-1]
    await verify(door, request)
    body = json.loads(request.body)
    assert (body["event"], body["tenant_id"], body["_test"]) == ("MessageSent", "acme", True)
    assert body["payload"]["message"]["token"]
    shown = await door.last(hook, PLATFORM)
    assert shown["id"].startswith("pwd_")
    assert (shown["tenantId"], shown["webhookName"], shown["statusCode"]) == ("acme", "Production", 200)
    assert shown["request"]["payload"] == body
    assert set(shown["response"]) == {"body", "duration", "error"}
    assert (shown["response"]["body"], shown["response"]["error"]) == ("taken", None)


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("500", 500, "It answered 500"),
        ("redirect", 302, "It answered 302; redirects are not followed"),
        ("close", None, "The connection ended before an answer came"),
        ("hang", None, "No answer within 1 s"),
    ],
)
async def test_an_endpoint_that_fails_is_an_answer_all_the_same(
    door: Door, path: str, status: int | None, error: str
) -> None:
    door.receiver.gone_away = f"http://127.0.0.1:{door.trap.port}/"
    hook, central = await door.add(door.url(path)), await door.add(door.url(path), PLATFORM)
    began = time.monotonic()
    tried, told = await asyncio.gather(door.tried(hook), door.tried(central, base=PLATFORM))
    assert time.monotonic() - began < 4
    assert (tried["success"], tried["statusCode"], tried["error"]) == (False, status, error)
    assert tried["body"] == (None if status is None else "as asked" if path == "500" else "")
    assert (told["success"], told["statusCode"], told["error"]) == (False, status or 0, error)
    shown = await door.last(hook)
    assert (shown["statusCode"], shown["response"]["statusCode"], shown["success"]) == (status, status, False)
    assert shown["willRetry"] is False
    shown = await door.last(central, PLATFORM)
    assert (shown["statusCode"], shown["success"], shown["response"]["error"]) == (status, False, error)
    assert door.trap.connections == 0


async def test_of_a_long_answer_only_the_beginning_is_kept(door: Door) -> None:
    hook = await door.add(door.url("flood"))
    tried = await door.tried(hook)
    assert (tried["success"], len(tried["body"])) == (True, 16_384)
    assert len((await door.last(hook))["response"]["body"]) == 16_384


@pytest.mark.parametrize(
    "body", [{}, {"event": None}, {"event": "Sent"}, {"event": "SendLimitExceeded"}, {"event": 7}]
)
@pytest.mark.parametrize("base", [TENANT, PLATFORM])
async def test_a_test_says_which_events_there_are(door: Door, base: str, body: dict[str, Any]) -> None:
    hook = await door.add(door.url(), base)
    answer = await door.ask("POST", f"{base}/{hook['id']}/test", body)
    assert (answer.status, answer.field) == (400, "event")


@pytest.mark.parametrize(
    ("host", "records"),
    [
        ("127.0.0.1", {}),
        ("[::1]", {}),
        ("[::ffff:127.0.0.1]", {}),
        ("10.1.2.3", {}),
        ("169.254.169.254", {}),
        ("localhost", {}),
        ("inside.test", {"A": ("127.0.0.1",)}),
        ("inside.test", {"AAAA": ("::1",)}),
        ("inside.test", {"A": ("10.0.0.1", "169.254.169.254"), "AAAA": ("::ffff:127.0.0.1",)}),
    ],
)
async def test_what_only_we_can_reach_is_never_connected_to(
    door: Door, host: str, records: dict[str, tuple[str, ...]]
) -> None:
    """Also where a file, which nobody asked for its reasons, names it."""
    name = f"n{time.monotonic_ns()}.test"
    for kind, values in records.items():
        door.dns.set(name, kind, *values)
    file = door.relay.folder / "tenants" / "inside.toml"
    target = f"{name if records else host}:{door.trap.port}"
    file.write_text('name = "Inside"\n' + BY_HAND.format(url=target))
    file.chmod(0o600)
    assert (await door.ask("POST", "/v1/control/reload")).status == 200
    tried = await door.tried({"id": "77"}, base="/v1/tenants/inside/webhooks")
    assert (tried["success"], tried["statusCode"]) == (False, None)
    assert "may not be posted to" in tried["error"]
    assert door.trap.connections == 0


async def test_a_name_that_changes_its_mind_is_judged_at_each_post(door: Door) -> None:
    door.dns.set("rebind.test", "A", ALLOWED, ttl=0)
    hook = await door.add(f"https://rebind.test:{door.trap.port}/")  # good when it is made
    door.dns.set("rebind.test", "A", "127.0.0.1", ttl=0)
    assert "127.0.0.1 may not be posted to" in (await door.tried(hook))["error"]
    assert door.trap.connections == 0


# -- deliveries and replay ---------------------------------------------------------------------------------------


async def test_deliveries_are_paged_and_filtered(door: Door) -> None:
    hook = await door.add(door.url())
    began = int(time.time())
    path = f"{TENANT}/{hook['id']}/deliveries"
    for event in ("MessageSent", "MessageHeld", "MessageSent"):
        await door.tried(hook, event)
    await door.ask("PATCH", f"{TENANT}/{hook['id']}", {"url": door.url("500")})
    await door.tried(hook, "MessageBounced")
    answer = await door.ask("GET", path)
    assert set(answer.body) == {"data", "page", "perPage", "total", "totalPages", "meta"}
    rows = answer.body["data"]
    assert [row["event"] for row in rows] == ["MessageBounced", "MessageSent", "MessageHeld", "MessageSent"]
    assert [row["timestamp"] for row in rows] == sorted((row["timestamp"] for row in rows), reverse=True)
    assert [row["url"] for row in rows[:2]] == [door.url("500"), door.url()]
    page = (await door.ask("GET", f"{path}?page=2&perPage=3")).body
    assert (page["page"], page["perPage"], page["total"], page["totalPages"]) == (2, 3, 4, 2)
    assert [row["id"] for row in page["data"]] == [rows[3]["id"]]
    assert (await door.ask("GET", f"{path}?page=9")).body["data"] == []
    for query, total in [
        ("success=true", 3),
        ("success=false", 1),
        ("event=MessageSent", 2),
        ("event=MessageSent&success=false", 0),
        (f"after={began}", 4),
        (f"after={began + 3600}", 0),
        (f"before={began}", 0),
        (f"before={began + 3600}", 4),
        (f"after={began}&before={began + 3600}&event=MessageHeld&success=true", 1),
    ]:
        if query == f"before={began}" and int(time.time()) == began:
            continue  # the test was that fast
        found = (await door.ask("GET", f"{path}?{query}")).body
        assert (len(found["data"]), found["total"]) == (total, total), query
    for query, field in [
        ("success=maybe", "success"),
        ("event=Sent", "event"),
        ("after=now", "after"),
        ("page=0", "page"),
    ]:
        assert refused(await door.ask("GET", f"{path}?{query}")) == (400, "validation_error", field)


async def test_the_platforms_list_is_over_all_its_webhooks(door: Door) -> None:
    one, two = await door.add(door.url(), PLATFORM), await door.add(door.url("500"), PLATFORM)
    await door.tried(one, "MessageHeld", PLATFORM)
    await door.tried(two, "MessageSent", PLATFORM)
    rows = (await door.ask("GET", f"{PLATFORM}/deliveries")).body["data"]
    assert [(row["webhookId"], row["event"]) for row in rows[:2]] == [
        (two["id"], "MessageSent"), (one["id"], "MessageHeld"),
    ]  # fmt: skip
    for query, total in [
        (f"webhookId={one['id']}", 1),
        (f"webhookId={one['id']}&tenantId=acme&event=MessageHeld&success=true", 1),
        (f"webhookId={one['id']}&tenantId=other", 0),
        (f"webhookId={two['id']}&success=true", 0),
        ("webhookId=pwh_nothing", 0),
    ]:
        assert (await door.ask("GET", f"{PLATFORM}/deliveries?{query}")).body["total"] == total, query
    await door.ask("DELETE", f"{PLATFORM}/{one['id']}")
    kept = await door.last(one, PLATFORM)  # what happened stays told
    assert kept["webhookName"] == "Production"
    gone = await door.ask("POST", f"{PLATFORM}/deliveries/{kept['id']}/replay", data=b"")
    assert refused(gone) == (409, "conflict", None)
    assert gone.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("base", [TENANT, PLATFORM])
async def test_a_delivery_is_posted_again_fresh(door: Door, base: str) -> None:
    hook = await door.add(door.url("500"), base)
    await door.tried(hook, base=base)
    first = await door.last(hook, base)
    moved = await door.ask("PATCH", f"{base}/{hook['id']}", {"url": door.url("again"), "name": "Moved"})
    assert moved.status == 200
    path = f"{PLATFORM}/deliveries" if base == PLATFORM else f"{TENANT}/{hook['id']}/deliveries"
    answer = await door.ask("POST", f"{path}/{first['id']}/replay", data=b"")
    assert answer.status == 200, answer.text
    again = answer.data
    assert set(again) == {"success", "originalDeliveryId", "newDeliveryId", "statusCode", "duration", "timestamp"}
    assert (again["success"], again["statusCode"], again["originalDeliveryId"]) == (True, 200, first["id"])
    old, new = door.receiver.requests[-2:]
    assert (old.path, new.path) == ("/500", "/again")
    await verify(door, new)
    before, after = json.loads(old.body), json.loads(new.body)
    assert {key for key in before if before[key] != after[key]} == {"timestamp", "uuid"}
    assert after["timestamp"] > before["timestamp"]
    shown = await door.last(hook, base)
    assert shown["id"] == again["newDeliveryId"] != first["id"]
    assert (shown["timestamp"], shown["attempt"], shown["url"]) == (again["timestamp"], 1, door.url("again"))
    assert shown["request"]["payload"] == after
    kept = (await door.ask("GET", f"{path}/{first['id']}")).data
    assert kept == first | {"webhookName": "Moved"}

    await door.ask("PATCH", f"{base}/{hook['id']}", {"enabled": False})
    posted = len(door.receiver.requests)
    disabled = await door.ask("POST", f"{path}/{first['id']}/replay", data=b"")
    assert refused(disabled) == (409, "conflict", None)
    assert disabled.headers["x-should-retry"] == "false"
    assert len(door.receiver.requests) == posted
    for id_ in ("whr_nothing", "pwd_nothing", "%00", "x" * 2000):
        assert refused(await door.ask("POST", f"{path}/{id_}/replay", data=b"")) == (404, "not_found", None)


async def test_deliveries_outlive_a_restart_and_the_key_signs_on(door: Door) -> None:
    hook = await door.add(door.url())
    await door.tried(hook)
    shown, known = await door.last(hook), await door.keys()
    await door.relay.kill()
    await door.relay.start()
    door.__init__(door.relay, door.key, door.mx)  # type: ignore[misc] # its listeners have other ports now
    assert await door.last(hook) == shown
    assert await door.keys() == known
    await door.tried(hook)
    await verify(door, door.receiver.requests[-1])


# -- keys --------------------------------------------------------------------------------------------------------


async def test_keys_are_public_where_the_public_is_served_and_nowhere_else(door: Door) -> None:
    answer = await door.ask("GET", "/.well-known/jwks.json", key=None)
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    assert set(answer.body) == {"keys"}
    assert set(answer.body["keys"][0]) == {"kty", "kid", "use", "alg", "n", "e"}
    assert (await door.ask("GET", "/.well-known/jwks.json", key=None, base=door.tls)).body == answer.body
    assert (await door.ask("GET", "/.well-known/jwks.json", key=None, base=door.metrics)).status == 404
    assert (await door.ask("GET", "/.well-known/jwks.json", key=None, socket=door.relay.socket)).status == 404
    assert (await door.ask("GET", "/v1/.well-known/jwks.json")).status == 404


async def test_a_new_key_signs_and_the_old_one_stays_published(door: Door) -> None:
    hook = await door.add(door.url())
    await door.tried(hook)
    old = door.receiver.requests[-1]
    folder = door.relay.state / "keys" / "webhooks"
    assert folder.stat().st_mode & 0o777 == 0o700
    new = folder / "99990101T000000Z.pem"
    new.touch(0o600)
    new.write_bytes(signing_key())
    await door.tried(hook)
    latest = door.receiver.requests[-1]
    assert old.headers["x-ark-signature-kid"] != latest.headers["x-ark-signature-kid"]
    assert len(await door.keys()) == 2
    for request in (old, latest):
        await verify(door, request)
    private = serialization.load_pem_private_key(signing_key(), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    assert number((await door.keys())[0]["n"]) == private.public_key().public_numbers().n
    new.unlink()


async def test_no_url_and_no_key_is_in_the_log(door: Door) -> None:
    hook = await door.add(door.url("secret-in-the-path"))
    await door.tried(hook)
    while (line := (await door.relay.logged("webhook_posted"))[-1])["webhook"] != hook["id"]:
        await asyncio.sleep(0.02)
    assert (line["status"], line["tenant"], line["hook_event"]) == (200, "acme", "MessageSent")
    log = door.relay.log.read_text()
    assert "secret-in-the-path" not in log
    assert "PRIVATE KEY" not in log


# -- the official client -----------------------------------------------------------------------------------------


def strictly(door: Door) -> None:
    """Call each of the eighteen methods with a client that takes no answer but what its models say."""
    client = ark.Ark(api_key=door.key, base_url=f"{door.plain}/v1", _strict_response_validation=True, max_retries=0)
    hooks, central = client.tenants.webhooks, client.platform.webhooks
    hook = hooks.create("acme", name="Strict", url=door.url(), events=["MessageSent"], all_events=None).data
    assert hooks.retrieve(hook.uuid, tenant_id="acme").data.id == hook.id
    changed = hooks.update(hook.id, tenant_id="acme", all_events=True, url=door.url("500"), name=None).data
    assert (changed.all_events, changed.url, changed.name) == (True, door.url("500"), "Strict")
    assert hook.id in {row.id for row in hooks.list("acme").data.webhooks}
    tried = hooks.test(hook.id, tenant_id="acme", event="MessageBounced").data
    assert (tried.success, tried.status_code, tried.body) == (False, 500, "as asked")
    unreachable = hooks.create("acme", name="Strict", url="https://nowhere.test/").data
    assert hooks.test(unreachable.id, tenant_id="acme", event="MessageSent").data.status_code is None
    (row,) = hooks.list_deliveries(hook.id, tenant_id="acme", success=False, event="MessageBounced", after=1).data
    detail = hooks.retrieve_delivery(row.id, tenant_id="acme", webhook_id=hook.id).data
    assert detail.request.payload["event"] == "MessageBounced"
    again = hooks.replay_delivery(row.id, tenant_id="acme", webhook_id=hook.id).data
    assert (again.success, again.original_delivery_id) == (False, row.id)
    assert hooks.delete(hook.id, tenant_id="acme").data.message
    with pytest.raises(ark.NotFoundError):
        hooks.retrieve(hook.id, tenant_id="acme")

    told = central.create(name="Strict", url=door.url()).data
    assert central.retrieve(told.id).data.model_dump() == told.model_dump()
    assert central.update(told.id, events=["MessageSent"], enabled=True).data.events == ["MessageSent"]
    assert told.id in {one.id for one in central.list().data}
    assert central.test(told.id, event="DomainDNSError").data.status_code == 200
    lost = central.create(name="Strict", url="https://nowhere.test/").data
    assert central.test(lost.id, event="MessageSent").data.status_code == 0
    found = list(central.list_deliveries(webhook_id=told.id, tenant_id="acme", success=True, per_page=1))
    assert len(found) == 1
    shown = central.retrieve_delivery(found[0].id).data
    assert shown.request.payload is not None
    assert shown.request.payload["_test"] is True
    assert central.replay_delivery(shown.id).data.success
    assert len(list(central.list_deliveries(webhook_id=told.id, per_page=1))) == 2
    assert central.delete(told.id).data.message
    client.close()


async def test_the_official_client_takes_every_answer(door: Door) -> None:
    await asyncio.to_thread(strictly, door)


@pytest.mark.parametrize("form", ["bare", "merged"])
async def test_other_forms_of_the_body_are_signed_and_replayed_alike(tmp_path: Path, form: str) -> None:
    context = certificates.valid("hook.test").server_context()
    async with DnsServer() as dns, Receiver(ALLOWED, context=context) as receiver:
        dns.set("hook.test", "A", ALLOWED)
        tenant = BY_HAND.format(url=f"hook.test:{receiver.port}")
        relay = Relay(tmp_path, dns=dns.address, more=f'{SETTINGS}body = "{form}"\n', tenant=tenant)
        relay.environment = {"SSL_CERT_FILE": str(certificates.authority().ca_file)}
        async with relay:
            tried = await relay.call("POST", f"{TENANT}/77/test", {"event": "MessageSent"})
            path = f"{TENANT}/77/deliveries/{tried['data']['deliveryId']}"
            shown = (await relay.get(path))["data"]["request"]["payload"]
            await relay.call("POST", f"{path}/replay")
    first, second = (json.loads(request.body) for request in receiver.requests)
    assert first == shown
    assert ({"event", "uuid", "payload"} <= set(first)) is (form == "merged")
    assert {"message", "status", "details", "timestamp"} <= set(first)
    changed = {key for key in first if first[key] != second[key]}
    assert changed == ({"timestamp", "uuid"} if form == "merged" else {"timestamp"})
