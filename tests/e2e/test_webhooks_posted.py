"""Events reach the webhooks that want them: each at least once, in order per recipient, whatever an endpoint does."""

import asyncio
import base64
import contextlib
import json
import sqlite3
import statistics
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import ark
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from peers import certificates
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Mx, Script, Turns
from peers.receiver import ENDLESS_BYTES, Receiver, Request

from arkrelay.config.tenants import add_key, add_webhook
from arkrelay.wire.https import EXCHANGE_BYTES

HOST = "127.0.0.2"  # where webhooks may point
WINDOW_S = 300.0  # how old a body may be for the sample receivers (Ark contract §11.4)
PROMPT_S = 0.2  # ten times what a message takes to be accepted on a busy machine
SETTINGS = f"""
api_requests_per_s = 0

[webhooks]
allow_http = true
allow_destinations = ["{HOST}/32"]
"""


def hook(url: str, name: str = "One", more: str = "") -> str:
    return f'\n[[webhooks]]\nname = "{name}"\nurl = "{url}"\nid = "{name}"\n{more}\n'


def bodies(requests: Iterable[Request]) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in requests]


class Site:
    """A relay whose mail to ``rcpt.test`` is taken, and a receiver of its events."""

    def __init__(self, relay: Relay, mx: Mx, receiver: Receiver) -> None:
        self.relay, self.mx, self.receiver = relay, mx, receiver

    def url(self, path: str = "") -> str:
        return f"http://{HOST}:{self.receiver.port}/{path}"

    async def posted(self, n: int, path: str | None = None, timeout_s: float = 20.0) -> list[dict[str, Any]]:
        """Return the bodies of the first ``n`` requests, when they have come."""
        found: list[Request] = []
        try:
            async with asyncio.timeout(timeout_s):
                while len(found := self.to(path)) < n:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{len(found)} of {n}; log: {self.relay.log.read_text()[-1500:]}") from None
        return bodies(found[:n])

    def to(self, path: str | None) -> list[Request]:
        return [one for one in self.receiver.requests if path is None or one.path == f"/{path}"]

    async def deliveries(self, id_: str = "One") -> list[dict[str, Any]]:
        """Return the attempts at a webhook, oldest first."""
        answer = await self.relay.get(f"/v1/tenants/acme/webhooks/{id_}/deliveries?perPage=100")
        rows: list[dict[str, Any]] = answer["data"]
        return rows[::-1]


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


async def site(
    stack: AsyncExitStack,
    folder: Path,
    *,
    hooks: str = "",
    settings: str = "",
    timeout_is: str = "1s",
    script: Script | None = None,
    **more: Any,
) -> Site:
    """Return a started relay; in ``hooks``, ``{url}`` is the receiver's."""
    dns = await stack.enter_async_context(DnsServer())
    dns.set("rcpt.test", "MX", "10 mx.rcpt.test.")
    dns.set("mx.rcpt.test", "A", "127.0.0.1")
    mx = await stack.enter_async_context(Mx(script or Script()))
    receiver = await stack.enter_async_context(Receiver(HOST))
    url = f"http://{HOST}:{receiver.port}"
    relay = Relay(
        folder,
        dns=dns.address,
        mx_port=mx.port,
        more=f'{SETTINGS}timeout = "{timeout_is}"\n{settings}',
        tenant=hooks.format(url=url),
        **more,
    )
    await stack.enter_async_context(relay)
    return Site(relay, mx, receiver)


def verify(jwks: Sequence[dict[str, str]], request: Request, *, now: float) -> None:
    """Check what a sample receiver checks: the signature over the raw body by its kid, and the age of the body."""
    (key,) = [one for one in jwks if one["kid"] == request.headers["x-ark-signature-kid"]]

    def number(text: str) -> int:
        return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))

    public = rsa.RSAPublicNumbers(number(key["e"]), number(key["n"])).public_key()
    signature = base64.b64decode(request.headers["x-ark-signature"], validate=True)
    public.verify(signature, request.body, padding.PKCS1v15(), hashes.SHA256())
    assert abs(now - json.loads(request.body)["timestamp"]) < WINDOW_S


async def jwks(relay: Relay) -> list[dict[str, str]]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{relay.port('http')}/.well-known/jwks.json") as response,
    ):
        found: list[dict[str, str]] = (await response.json())["keys"]
        return found


async def test_what_happens_to_mail_is_told_to_who_wants_it(tmp_path: Path, stack: AsyncExitStack) -> None:
    wants = 'events = ["MessageDeliveryFailed"]'
    hooks = hook("{url}/all") + hook("{url}/failed", "Failed", wants) + hook("{url}/off", "Off", "enabled = false")
    here = await site(stack, tmp_path, hooks=hooks, script=Script(rcpt={"no@rcpt.test": "550 5.1.1 no"}))
    add_webhook(here.relay.config, None, "Central", here.url("central"))
    await here.relay.call("POST", "/v1/control/reload")
    token = await here.relay.send("ann@rcpt.test", headers="X-Ark-Tag: welcome\r\nX-Ark-Metadata-order: 7\r\n")
    (sent,) = await here.posted(1, "all")
    await here.relay.send("no@rcpt.test")
    (failed,) = await here.posted(1, "failed")
    all_, central = await here.posted(2, "all"), await here.posted(2, "central")
    assert [one["event"] for one in all_] == ["MessageSent", "MessageDeliveryFailed"]
    assert list(sent) == ["event", "timestamp", "uuid", "payload"]
    message = sent["payload"]["message"]
    assert (message["token"], message["to"], message["tag"], message["metadata"]) == (
        token, "ann@rcpt.test", "welcome", {"order": "7"},
    )  # fmt: skip
    assert (failed["payload"]["status"], failed["payload"]["classification"]) == ("HardFail", "invalid_recipient")
    assert failed["payload"]["output"] == "550 5.1.1 no"
    assert [one["tenant_id"] for one in central] == ["acme", "acme"]
    assert [one["payload"] for one in central] == [one["payload"] for one in all_]
    uuids = [one["uuid"] for one in (*all_, failed, *central)]
    assert len(set(uuids)) == len(uuids)  # an id is of one event at one endpoint
    keys = await jwks(here.relay)
    for request in here.receiver.requests:
        verify(keys, request, now=time.time())
    assert not here.to("off")
    path = "/v1/tenants/acme/webhooks/Failed/deliveries"
    (row,) = (await here.relay.until(path, lambda answer: answer["data"]))["data"]
    assert (row["event"], row["attempt"], row["success"], row["willRetry"]) == (
        "MessageDeliveryFailed",
        1,
        True,
        False,
    )


async def test_a_failure_is_tried_again_with_the_same_id_and_a_fresh_signature(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    here = await site(stack, tmp_path, hooks=hook("{url}/500"), settings='retry = ["100ms", "200ms"]\n')
    await here.relay.send("ann@rcpt.test")
    tries = await here.posted(3)
    assert len({one["uuid"] for one in tries}) == 1
    assert len({one["timestamp"] for one in tries}) == 3
    assert len({one.headers["x-ark-signature"] for one in here.receiver.requests}) == 3
    keys = await jwks(here.relay)
    for request in here.receiver.requests:
        verify(keys, request, now=time.time())
    shown = await here.relay.until(
        "/v1/control/webhooks", lambda answer: answer["data"]["webhooks"][0]["parked"], timeout_s=5
    )
    rows = await here.deliveries()
    assert [(one["attempt"], one["willRetry"], one["statusCode"]) for one in rows] == [
        (1, True, 500), (2, True, 500), (3, False, 500),
    ]  # fmt: skip
    (state,) = shown["data"]["webhooks"]
    assert (state["waiting"], state["parked"], state["failures"], state["statusCode"]) == (0, 1, 3, 500)

    here.receiver.decide = lambda _request: 200  # mended; what was parked is put back by a person
    answer = await here.relay.call("POST", "/v1/control/webhooks/replay", {"tenantId": "acme", "since": 0})
    assert answer["data"]["replayed"] == 1
    again = (await here.posted(4))[-1]
    assert again["uuid"] == tries[0]["uuid"]
    await here.relay.until("/v1/control/webhooks", lambda answer: not answer["data"]["webhooks"][0]["parked"])


async def test_a_receiver_that_was_down_gets_every_event_in_order_per_message(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    n = 60
    script = Script(rcpt=Turns(*["451 4.7.1 later"] * n, "250 ok"))  # each is delayed once and then sent
    here = await site(
        stack,
        tmp_path,
        hooks=hook("{url}/"),
        settings='retry = ["300ms", "600ms", "1s", "1s", "1s", "1s", "1s", "1s", "1s"]\n',
        timeout_is="10s",  # a busy machine is no reason to post twice
        script=script,
        first_delay="4s",
    )
    down = True
    here.receiver.decide = lambda _request: 503 if down else 200
    tokens = [await here.relay.send(f"u{i}@rcpt.test") for i in range(n)]
    await here.mx.wait(n)
    await here.relay.until(
        "/v1/control/webhooks", lambda answer: answer["data"]["webhooks"][0]["waiting"] == 2 * n, timeout_s=40
    )
    refused = len(here.receiver.requests)
    assert refused < n  # it rests, and is asked by few
    missed = set(tokens)
    down = False
    await here.posted(refused + 2 * n, timeout_s=30)
    taken = bodies(here.receiver.requests[refused:])
    order = defaultdict(list)
    for body in taken:
        order[body["payload"]["message"]["token"]].append(body["event"])
    assert set(order) == missed
    assert [events for events in order.values() if events != ["MessageDelayed", "MessageSent"]] == []
    assert len({body["uuid"] for body in taken}) == len(taken) == 2 * n  # exactly what it missed, once
    (state,) = (
        await here.relay.until("/v1/control/webhooks", lambda answer: answer["data"]["webhooks"][0]["waiting"] == 0)
    )["data"]["webhooks"]
    assert (state["parked"], state["failures"], state["restUntil"]) == (0, 0, None)


async def test_a_later_event_waits_for_an_earlier_one_of_its_message_and_no_other(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    here = await site(
        stack,
        tmp_path,
        hooks=hook("{url}/"),
        settings='retry = ["4s"]\n',
        script=Script(rcpt={"slow@rcpt.test": Turns("451 4.7.1 later", "250 ok")}),
        first_delay="100ms",
    )
    here.receiver.decide = lambda request: (
        500 if b"slow@" in request.body and len(here.receiver.requests) == 1 else 200
    )
    await here.relay.send("slow@rcpt.test")
    await here.posted(1)
    await here.mx.wait(1)  # it is sent by now, and its second event waits
    for i in range(5):
        await here.relay.send(f"u{i}@rcpt.test")
    told = [(one["payload"]["message"]["to"][:4], one["event"]) for one in await here.posted(8)]
    slow = [event for to, event in told if to == "slow"]
    assert slow == ["MessageDelayed", "MessageDelayed", "MessageSent"]
    assert {to for to, _ in told[1:6]} == {f"u{i}@r"[:4] for i in range(5)}


async def test_eighteen_rude_endpoints_delay_nobody_and_no_mail(tmp_path: Path, stack: AsyncExitStack) -> None:
    rude = [
        "hang", "close", "redirect", "flood", "drip", "rubbish", "zip", "slow", "500", "502", "429?after=1",
        "503?after=9", "410", "404", "301", "hang?twice", "extension", "interim",
    ]  # fmt: skip
    assert len(rude) == 18
    hooks = "".join(hook(f"{{url}}/{path}", f"rude{i}") for i, path in enumerate(rude)) + hook("{url}/good", "Good")
    hooks += hook(f"http://{HOST}:9/", "refused") + hook("http://127.0.0.3:{port}/", "inside")
    trap = await stack.enter_async_context(Receiver("127.0.0.3"))
    here = await site(
        stack, tmp_path, hooks=hooks.replace("{port}", str(trap.port)), settings='retry = ["30s", "30s"]\n'
    )
    here.receiver.gone_away = here.url("behind-the-redirect")
    n = 60
    taken_s = []
    began = time.monotonic()
    for i in range(n):
        asked = time.monotonic()
        await here.relay.send(f"u{i}@rcpt.test")
        taken_s.append(time.monotonic() - asked)
    assert statistics.median(taken_s) < PROMPT_S
    await here.mx.wait(n)
    good = await here.posted(n, "good", timeout_s=30)
    assert time.monotonic() - began < 15
    assert len({one["uuid"] for one in good}) == n
    assert len(await here.posted(n, "slow", timeout_s=30)) == n
    # what took a post, took every one; all others were left alone after a few
    for path in rude:
        if path not in {"flood", "drip", "zip", "slow"}:
            assert len(here.to(path)) <= 6, path
    for path in ("extension", "interim"):  # it could send what the kernel buffers, some 4 MB, and no more
        assert here.receiver.sent_bytes[path] < len(here.to(path)) * ENDLESS_BYTES / 10
    assert not here.relay.lines("loop_lag")
    assert not here.to("behind-the-redirect")
    assert not trap.connections
    states = {one["id"]: one for one in (await here.relay.get("/v1/control/webhooks"))["data"]["webhooks"]}
    assert "may not be posted to" in states["inside"]["error"]
    for one in (states["rude16"], states["rude17"]):
        assert (one["statusCode"], one["error"]) == (None, f"Its answer did not end within {EXCHANGE_BYTES} bytes")
    gone = states["rude12"]
    assert (gone["enabled"], gone["statusCode"]) == (False, 410)
    assert gone["goneAt"] is not None


async def test_slow_endpoints_of_one_tenant_wait_for_themselves(tmp_path: Path, stack: AsyncExitStack) -> None:
    slow = "".join(hook("{url}/hang", f"slow{i}") for i in range(20))
    other = 'name = "Other"\n[[domains]]\nname = "other.test"\ntrusted = true\n' + hook("{url}/good", "Good")
    here = await site(stack, tmp_path, hooks=slow, settings="concurrency = 10\n")
    file = here.relay.folder / "tenants" / "other.toml"
    file.write_text(other.format(url=here.url().rstrip("/")))
    file.chmod(0o600)
    headers = {"Authorization": f"Bearer {add_key(here.relay.config, 'all')[1]}"}
    await here.relay.call("POST", "/v1/control/reload")
    for i in range(10):
        await here.relay.send(f"u{i}@rcpt.test")
    await here.posted(10, "hang")  # all places are taken, and many wait for one
    async with aiohttp.ClientSession(headers=headers) as session:
        for i in range(30):
            body = {"from": "app@other.test", "to": [f"v{i}@rcpt.test"], "subject": "x", "text": "x"}
            url = f"http://127.0.0.1:{here.relay.port('http')}/v1/emails"
            async with session.post(url, json=body | {"tenantId": "other"}) as response:
                assert response.status == 200, await response.text()
    before = len(here.to("hang"))
    assert len(await here.posted(30, "good")) == 30
    assert len(here.to("hang")) - before < 100, "they did not wait until the slow ones were given up, ten at a time"


async def test_after_a_long_stop_what_waits_is_posted_and_not_given_up(tmp_path: Path, stack: AsyncExitStack) -> None:
    """The relay and its receiver were off for four days, which is longer than any event waits."""
    n = 50
    here = await site(stack, tmp_path, hooks=hook("{url}/"))
    here.receiver.decide = lambda _request: 503
    tokens = {await here.relay.send(f"u{i}@rcpt.test") for i in range(n)}
    await here.mx.wait(n)
    await here.relay.until(
        "/v1/control/webhooks",
        lambda answer: (one := answer["data"]["webhooks"][0])["waiting"] == n and one["failures"] >= 3,
    )
    await here.relay.stop()
    with contextlib.closing(sqlite3.connect(here.relay.state / "arkrelay.db")) as db, db:
        db.execute("UPDATE hook_jobs SET made_at = made_at - 345600, due_at = due_at - 345600")
        db.execute("UPDATE hook_endpoints SET rest_until = rest_until - 345600")
    here.receiver.decide = lambda _request: 200
    here.receiver.requests.clear()
    await here.relay.start()
    taken = await here.posted(n)
    (state,) = (
        await here.relay.until("/v1/control/webhooks", lambda answer: answer["data"]["webhooks"][0]["waiting"] == 0)
    )["data"]["webhooks"]
    assert state["parked"] == 0
    assert {one["payload"]["message"]["token"] for one in taken} == tokens
    assert len(here.receiver.requests) == n


async def test_a_damaged_event_stops_no_other(tmp_path: Path, stack: AsyncExitStack) -> None:
    here = await site(stack, tmp_path, hooks=hook("{url}/"), settings='retry = ["1s", "1h"]\n')
    here.receiver.decide = lambda _request: 503
    for to in ("ann", "bob"):
        await here.relay.send(f"{to}@rcpt.test")
    await here.posted(2)
    await here.relay.stop()
    with contextlib.closing(sqlite3.connect(here.relay.state / "arkrelay.db")) as db, db:
        (seq,) = db.execute("SELECT min(seq) FROM hook_jobs").fetchone()
        assert db.execute("UPDATE events SET data = substr(data, 1, 5) WHERE seq = ?", (seq,)).rowcount == 1
    here.receiver.decide = lambda _request: 200
    here.receiver.requests.clear()
    await here.relay.start()
    (told,) = await here.posted(1)
    await here.relay.logged("webhook_event_unreadable")
    await here.relay.send("cid@rcpt.test")
    assert {one["payload"]["message"]["to"] for one in await here.posted(2)} == {
        told["payload"]["message"]["to"],
        "cid@rcpt.test",
    }
    await here.relay.until("/v1/control/webhooks", lambda answer: answer["data"]["webhooks"][0]["parked"] == 1)


@pytest.mark.parametrize("by", ["test", "replay", "enable"])
async def test_a_person_ends_the_rest_of_an_endpoint_that_is_mended(
    tmp_path: Path, stack: AsyncExitStack, by: str
) -> None:
    here = await site(stack, tmp_path, hooks=hook("{url}/"), settings='retry = ["1h"]\n')
    down = True
    here.receiver.decide = lambda _request: 500 if down else 200
    for i in range(20):
        await here.relay.send(f"u{i}@rcpt.test")
    path = "/v1/tenants/acme/webhooks/One"
    await here.relay.until(
        "/v1/control/webhooks",
        lambda answer: (one := answer["data"]["webhooks"][0])["waiting"] == 20 and one["failures"] >= 3,
    )
    if by == "replay":  # of something that was given up
        with contextlib.closing(sqlite3.connect(here.relay.state / "arkrelay.db", timeout=20)) as db, db:
            columns = "endpoint, seq, recipient_id, uuid, 0, made_at"
            db.execute(f"INSERT INTO hook_parked SELECT 10000, {columns} FROM hook_jobs LIMIT 1")
    down = False
    here.receiver.requests.clear()
    match by:
        case "test":
            await here.relay.call("POST", f"{path}/test", {"event": "MessageSent"})
        case "replay":
            await here.relay.call("POST", "/v1/control/webhooks/replay", {"tenantId": "acme", "since": 0})
        case _:
            await here.relay.call("PATCH", path, {"enabled": True})
    await here.posted(20 + (by != "enable"), timeout_s=10)
    await here.relay.until("/v1/control/webhooks", lambda answer: answer["data"]["webhooks"][0]["waiting"] == 0)


async def test_a_tenant_has_no_more_webhooks_than_the_settings_allow(tmp_path: Path, stack: AsyncExitStack) -> None:
    here = await site(stack, tmp_path, hooks=hook("{url}/"), settings="max_per_tenant = 2\n")
    path = "/v1/tenants/acme/webhooks"
    await here.relay.call("POST", path, {"name": "Two", "url": here.url("two")}, status=201)
    answer = await here.relay.call("POST", path, {"name": "Three", "url": here.url("three")}, status=409)
    assert "max_per_tenant" in answer["error"]["message"]
    await here.relay.call("DELETE", f"{path}/One")
    await here.relay.call("POST", path, {"name": "Three", "url": here.url("three")}, status=201)


async def test_410_disables_until_a_person_says_otherwise(tmp_path: Path, stack: AsyncExitStack) -> None:
    here = await site(stack, tmp_path, hooks=hook("{url}/410") + hook("{url}/ok", "Other"))
    file = here.relay.folder / "tenants" / "acme.toml"
    file.write_text('managed = "file"\n' + file.read_text())
    await here.relay.call("POST", "/v1/control/reload")
    before = file.read_text()
    await here.relay.send("ann@rcpt.test")
    path = "/v1/tenants/acme/webhooks/One"
    await here.relay.until(path, lambda answer: not answer["data"]["enabled"])
    assert file.read_text() == before
    await here.relay.send("bob@rcpt.test")
    await here.posted(2, "ok")
    await here.relay.kill()  # it is not forgotten
    await here.relay.start()
    assert not (await here.relay.get(path))["data"]["enabled"]
    (row,) = await here.deliveries()
    assert (row["statusCode"], row["willRetry"]) == (410, False)
    await here.relay.call("POST", f"{path}/deliveries/{row['id']}/replay", status=409)
    assert len(here.to("410")) == 1
    (event,) = [
        one for one in (await here.relay.get("/v1/events"))["data"]["events"] if one["event"] == "WebhookDisabled"
    ]
    assert event["tenantId"] == "acme"
    (line,) = await here.relay.logged("webhook_disabled")
    assert (line["level"], line["webhook"]) == ("warning", "One")

    here.receiver.decide = lambda _request: 200
    enabled = await here.relay.call("PATCH", path, {"enabled": True})
    assert enabled["data"]["enabled"]
    await here.relay.send("cid@rcpt.test")
    told = await here.posted(2, "410")
    assert told[1]["payload"]["message"]["to"] == "cid@rcpt.test"  # what happened while it was disabled is not for it


async def test_a_kill_between_event_and_post_loses_none(tmp_path: Path, stack: AsyncExitStack) -> None:
    here = await site(stack, tmp_path, hooks=hook("{url}/"), settings='retry = ["200ms", "200ms", "1s"]\n')
    tokens: set[str] = set()
    for round_ in range(4):
        sends = [here.relay.send(f"r{round_}u{i}@rcpt.test") for i in range(25)]
        tokens |= set(await asyncio.gather(*sends))
        await asyncio.sleep(0.05 * round_)  # somewhere between accepted, sent, told and recorded
        await here.relay.kill()
        await here.relay.start()

    def told() -> dict[str, set[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        for body in bodies(here.receiver.requests):
            if body["event"] == "MessageSent":
                found[body["payload"]["message"]["token"]].add(body["uuid"])
        return found

    async with asyncio.timeout(30):
        while set(told()) != tokens:
            await asyncio.sleep(0.05)
    # a message whose end was just written when the process died may have been sent twice, and is told twice then
    sent = [
        one
        for one in (await here.relay.get("/v1/events?limit=1000"))["data"]["events"]
        if one["event"] == "MessageSent"
    ]
    assert sum(len(ids) for ids in told().values()) == len(sent)


async def test_a_new_webhook_gets_nothing_old_and_a_changed_one_all_that_waits(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    here = await site(stack, tmp_path, hooks=hook("{url}/500"), settings='retry = ["1h"]\n')
    await here.relay.send("ann@rcpt.test")
    await here.posted(1, "500")
    body = {"name": "New", "url": here.url("new")}
    made = (await here.relay.call("POST", "/v1/tenants/acme/webhooks", body, status=201))["data"]
    await here.relay.send("bob@rcpt.test")
    (new,) = await here.posted(1, "new")
    assert new["payload"]["message"]["to"] == "bob@rcpt.test"
    await here.posted(2, "500")
    await here.relay.call("PATCH", "/v1/tenants/acme/webhooks/One", {"url": here.url("moved")})
    moved = await here.posted(2, "moved", timeout_s=5)  # in an hour at the old place
    assert {one["payload"]["message"]["to"] for one in moved} == {"ann@rcpt.test", "bob@rcpt.test"}
    assert [one["event"] for one in await here.posted(1, "new")] == ["MessageSent"]
    await here.relay.call("PATCH", "/v1/tenants/acme/webhooks/One", {"url": here.url("500")})
    await here.relay.send("cid@rcpt.test")
    await here.posted(3, "500")
    for id_ in ("One", made["id"]):
        await here.relay.call("DELETE", f"/v1/tenants/acme/webhooks/{id_}")
    assert (await here.relay.get("/v1/control/webhooks"))["data"]["webhooks"] == []


@pytest.mark.parametrize("by", ["rest", "file"])
async def test_a_webhook_that_is_removed_gets_nothing_more(tmp_path: Path, stack: AsyncExitStack, by: str) -> None:
    here = await site(stack, tmp_path, hooks=hook("{url}/slow"), settings="concurrency_per_webhook = 2\n")
    file = here.relay.folder / "tenants" / "acme.toml"
    without = file.read_text().replace(hook(here.url("slow")), "")
    for i in range(60):
        await here.relay.send(f"u{i}@rcpt.test")
    await here.posted(4)
    if by == "rest":
        await here.relay.call("DELETE", "/v1/tenants/acme/webhooks/One")
    else:
        file.write_text(without)
        await here.relay.call("POST", "/v1/control/reload")
    began = len(here.receiver.requests)
    await asyncio.sleep(1)  # several times as long as a post takes
    assert len(here.receiver.requests) - began <= 2, "those under way"


async def test_a_limit_is_told_to_who_takes_everything_and_to_nobody_else(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    named = 'events = ["MessageSent", "MessageHeld"]'
    hooks = hook("{url}/all") + hook("{url}/named", "Named", named) + "\n[limits]\nhourly = 10\n"
    here = await site(stack, tmp_path, hooks=hooks)
    for i in range(11):
        await here.relay.send(f"u{i}@rcpt.test")
    told = [(one["event"], one["payload"]) for one in await here.posted(13, "all")]
    limits = {event: payload for event, payload in told if event.startswith("SendLimit")}
    assert {event: (one["volume"], one["limit"]) for event, one in limits.items()} == {
        "SendLimitApproaching": (10, 10), "SendLimitExceeded": (11, 10),
    }  # fmt: skip
    assert limits["SendLimitExceeded"]["server"]["permalink"] == "acme"
    events = [one["event"] for one in await here.posted(11, "named")]
    assert sorted(set(events)) == ["MessageHeld", "MessageSent"]


async def test_what_waits_and_what_it_costs_is_in_the_metrics(tmp_path: Path, stack: AsyncExitStack) -> None:
    here = await site(stack, tmp_path, hooks=hook("{url}/500"))
    await here.relay.send("ann@rcpt.test")
    await here.posted(1)
    async with aiohttp.ClientSession() as session, asyncio.timeout(10):
        url = f"http://127.0.0.1:{here.relay.port('http')}/metrics"
        page = ""
        while 'arkrelay_webhook_posts_total{result="failed"} 1.0' not in page:
            async with session.get(url) as response:
                page = await response.text()
    for name in ('arkrelay_webhook_events{state="waiting"}', "arkrelay_webhook_oldest_seconds"):
        assert name in page


@pytest.mark.parametrize(
    ("host", "record"),
    [
        ("127.0.0.1", None), ("[::1]", None), ("[::ffff:127.0.0.1]", None), ("169.254.169.254", None),
        ("inside.test", "127.0.0.1"), ("inside.test", "::ffff:127.0.0.1"), ("inside.test", "10.0.0.1"),
    ],
)  # fmt: skip
async def test_an_event_is_never_posted_inside(
    tmp_path: Path, stack: AsyncExitStack, host: str, record: str | None
) -> None:
    trap = await stack.enter_async_context(Receiver("127.0.0.1"))
    await stack.enter_async_context(Receiver("::1", trap.port))
    dns = await stack.enter_async_context(DnsServer())
    if record is not None:
        dns.set("inside.test", "AAAA" if ":" in record else "A", record)
    relay = Relay(tmp_path, dns=dns.address, tenant=hook(f"http://{host}:{trap.port}/"), more=SETTINGS)
    async with relay:
        await relay.send("ann@nowhere.test")
        shown = await relay.until(
            "/v1/control/webhooks", lambda answer: answer["data"]["webhooks"][0]["error"], timeout_s=15
        )
    assert "may not be posted to" in shown["data"]["webhooks"][0]["error"]
    assert not trap.connections


async def test_over_tls_and_read_by_the_official_client(tmp_path: Path, stack: AsyncExitStack) -> None:
    dns = await stack.enter_async_context(DnsServer())
    dns.set("rcpt.test", "MX", "10 mx.rcpt.test.")
    dns.set("mx.rcpt.test", "A", "127.0.0.1")
    dns.set("hook.test", "A", HOST)
    mx = await stack.enter_async_context(Mx(Script()))
    receiver = await stack.enter_async_context(
        Receiver(HOST, context=certificates.valid("hook.test").server_context())
    )
    relay = Relay(
        tmp_path,
        dns=dns.address,
        mx_port=mx.port,
        more=SETTINGS.replace("allow_http = true", ""),
        tenant=hook(f"https://hook.test:{receiver.port}/in"),
    )
    relay.environment = {"SSL_CERT_FILE": str(certificates.authority().ca_file)}
    _, key = add_key(relay.config, "ops")
    async with relay:
        token = await relay.send("ann@rcpt.test")
        async with asyncio.timeout(15):
            while not receiver.requests:
                await asyncio.sleep(0.02)
        await relay.until("/v1/tenants/acme/webhooks/One/deliveries", lambda answer: answer["data"])

        def look() -> None:
            url = f"http://127.0.0.1:{relay.port('http')}/v1"
            client = ark.Ark(api_key=key, base_url=url, _strict_response_validation=True, max_retries=0)
            (row,) = client.tenants.webhooks.list_deliveries("One", tenant_id="acme", success=True).data
            detail = client.tenants.webhooks.retrieve_delivery(row.id, tenant_id="acme", webhook_id="One").data
            assert (row.event, row.attempt, row.will_retry) == ("MessageSent", 1, False)
            assert detail.request.payload["payload"]["message"]["token"] == token  # type: ignore[index]
            client.close()

        await asyncio.to_thread(look)
        verify(await jwks(relay), receiver.requests[0], now=time.time())
