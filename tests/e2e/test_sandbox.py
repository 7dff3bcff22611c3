"""Trying things out: a sender that needs no domain, and recipients that are played (Ark contract §16)."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from ark import Ark
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Mx

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY, OTHER_KEY = "ark_live_acme-0123456789abcdef", "ark_live_other-0123456789abcdef"
LIMITED_KEY, TEST_KEY = "ark_live_limited-0123456789abcdef", "ark_test_acme-0123456789abcdef"
TENANT = f"""
[[credentials]]
name = "rest"
type = "api"
secret = "{KEY}"

[[credentials]]
name = "test"
type = "api"
secret = "{TEST_KEY}"

[[track_domains]]
name = "track"
domain = "sender.test"

[unsubscribe]
enabled = true
"""
LIMITED = f"""
name = "Limited Ltd"
[[credentials]]
name = "rest"
type = "api"
secret = "{LIMITED_KEY}"
[[domains]]
name = "limited.test"
trusted = true
[limits]
hourly = 2
hard_cap_monthly = 2
new_recipients_daily = 1
bad_address_least = 20
"""
OTHER = f"""
name = "Other Ltd"
[[credentials]]
name = "rest"
type = "api"
secret = "{OTHER_KEY}"
"""
MORE = """
api_requests_per_s = 0

[public]
url = "https://relay.test"

[sandbox]
domain = "sandbox.relay.test"
members = ["me@rcpt.test", "You@rcpt.test"]
daily = 3
simulator = "simulator.relay.test"
"""


@dataclass
class World:
    relay: Relay
    mx: Mx

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.relay.port('http')}"

    async def send(self, to: str, *, key: str = KEY, status: int = 200, **fields: Any) -> dict[str, Any]:
        body = {"from": "app@sender.test", "to": [to], "subject": "hello", "html": "<a href='http://x.test/'>x</a>"}
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
            session.post(f"{self.base}/v1/emails", json=body | fields) as response,
        ):
            answer: dict[str, Any] = await response.json()
            assert response.status == status, answer
            return answer

    async def played(self, name: str, wanted: str, **fields: Any) -> dict[str, Any]:
        """Send to a simulated recipient; return the email when its status is ``wanted``."""
        sent = await self.send(f"{name}@simulator.relay.test", **fields)
        path = f"/v1/emails/{sent['data']['id']}?expand=deliveries,activity"
        return dict((await self.relay.until(path, lambda one: one["data"]["status"] == wanted))["data"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("sandbox")
    async with DnsServer() as dns, Mx() as mx:
        dns.set("rcpt.test", "MX", "10 mx.rcpt.test.")
        dns.set("mx.rcpt.test", "A", "127.0.0.1")
        dns.set("track.sender.test", "CNAME", "track.relay.test.")
        relay = Relay(folder, dns=dns.address, mx_port=mx.port, more=MORE, tenant=TENANT)
        for name, text in (("other", OTHER), ("limited", LIMITED)):
            file = folder / "tenants" / f"{name}.toml"
            file.write_text(text)
            file.chmod(0o600)
        async with relay:
            await relay.until("/v1/tenants/acme/tracking", lambda one: one["data"]["trackDomains"][0]["dnsOk"])
            yield World(relay, mx)


async def test_a_tenant_without_a_domain_sends_to_members_a_few_times_a_day(world: World) -> None:
    left_s = 86_400 - time.time() % 86_400
    await asyncio.sleep(left_s + 0.1 if left_s < 40 else 0)  # the few of a day start anew at midnight UTC
    sender: dict[str, Any] = {"from": "hello@sandbox.relay.test", "key": OTHER_KEY}
    answer = await world.send("stranger@rcpt.test", status=422, **sender)
    assert answer["error"]["code"] == "sandbox_recipient_not_allowed"
    assert answer["error"]["field"] == "to"
    client = Ark(api_key=OTHER_KEY, base_url=f"{world.base}/v1")
    first = client.emails.send(from_="hello@sandbox.relay.test", to=["me@rcpt.test"], subject="one", text="1")
    assert first.data.sandbox is True
    for to in ("you@rcpt.test", "ME@rcpt.test"):
        assert (await world.send(to, **sender))["data"]["sandbox"] is True
    answer = await world.send("me@rcpt.test", status=422, **sender)
    assert answer["error"]["code"] == "sandbox_limit_exceeded"
    await world.mx.wait(3)
    answer = await world.send("me@rcpt.test", **(sender | {"from": "hello@else.test", "status": 422}))
    assert answer["error"]["code"] == "domain_not_verified"
    assert "sandbox" not in (await world.send("me@rcpt.test"))["data"]


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("ok", "sent", 250),
        ("softfail", "softfail", 451),
        ("full", "softfail", 452),
        ("hardfail+1", "hardfail", 550),
        ("policy", "hardfail", 554),
        ("nobody-knows-it", "hardfail", 550),
        ("SLOW", "sent", 250),
        ("suppressed", "held", None),
    ],
)
async def test_a_simulated_recipient_answers(world: World, name: str, status: str, code: int | None) -> None:
    email = await world.played(name, status)
    assert email["deliveries"][-1]["code"] == code
    if name == "SLOW":
        assert email["deliveries"][-1]["durationMs"] >= 10_000


async def test_a_simulated_failure_suppresses_as_a_real_one(world: World) -> None:
    await world.played("hardfail+again", "hardfail")
    email = await world.played("hardfail+again", "held")
    assert "suppression list" in email["deliveries"][-1]["details"]


async def test_a_retry_passes_over_a_simulated_suppression(world: World) -> None:
    email = await world.played("suppressed+retried", "held")
    await world.relay.call("POST", f"/v1/emails/{email['id']}/retry")
    await world.relay.until(f"/v1/emails/{email['id']}", lambda one: one["data"]["status"] == "sent")


async def test_a_reader_that_cannot_unsubscribe_says_so(world: World) -> None:
    sender: dict[str, Any] = {"from": "app@limited.test", "key": LIMITED_KEY}
    sent = await world.send("unsubscribe@simulator.relay.test", **sender)
    path = f"/v1/emails/{sent['data']['id']}"
    await world.relay.until(path, lambda one: one["data"]["status"] == "sent")
    (said,) = (await world.relay.get(f"{path}/why"))["data"]["sentences"]
    assert "does not offer" in said["sentence"]


async def test_simulated_recipients_count_nowhere(world: World) -> None:
    """Not towards limits, not in usage, and not against the key: most of these do not exist."""
    usage = "/v1/tenants/limited/usage?period=last_7_days"
    sender: dict[str, Any] = {"from": "app@limited.test", "key": LIMITED_KEY}
    sent = [await world.send(f"hardfail+{i}@simulator.relay.test", **sender) for i in range(60)]
    for one in sent:
        path = f"/v1/emails/{one['data']['id']}"
        await world.relay.until(path, lambda answer: answer["data"]["status"] == "hardfail")
    assert not any((await world.relay.get(usage))["data"]["emails"].values())
    real = await world.send("me@rcpt.test", **sender)
    path = f"/v1/emails/{real['data']['id']}"
    await world.relay.until(path, lambda answer: answer["data"]["status"] == "sent")


@pytest.mark.parametrize(
    ("name", "status"), [("ok", "sent"), ("bounce", "bounced"), ("hardfail+t", "hardfail"), ("suppressed", "held")]
)
async def test_test_keys_and_the_sandbox_reach_the_simulator(world: World, name: str, status: str) -> None:
    to = f"{name}@simulator.relay.test"
    ways: list[dict[str, Any]] = [{"key": TEST_KEY}, {"from": "x@sandbox.relay.test", "key": LIMITED_KEY}]
    for fields in ways:
        answer = await world.send(to, **fields)
        path = f"/v1/emails/{answer['data']['id']}"
        await world.relay.until(path, lambda one: one["data"]["status"] == status)


async def test_a_simulated_reader_reads(world: World) -> None:
    opened = await world.played("open", "sent")
    clicked = await world.played("click", "sent")
    path = "/v1/emails/{}?expand=activity"
    await world.relay.until(path.format(opened["id"]), lambda one: one["data"]["activity"]["openCount"] == 1)
    found = await world.relay.until(
        path.format(clicked["id"]), lambda one: one["data"]["activity"]["clickCount"] == 1
    )
    assert found["data"]["activity"]["clicks"][0]["url"] == "http://x.test/"


async def test_a_simulated_reader_unsubscribes(world: World) -> None:
    await world.played("unsubscribe", "sent")
    await world.relay.until(
        "/v1/events?type=RecipientUnsubscribed&limit=500", lambda one: len(one["data"]["events"]) == 1
    )
    await world.played("unsubscribe", "held")


async def test_a_simulated_reader_has_no_other_way_than_the_message_offers(world: World) -> None:
    before = len(world.relay.log.read_text().split("simulated_nothing"))
    own = {"headers": {"List-Unsubscribe": "<mailto:leave@sender.test>"}}
    await world.played("unsubscribe+own", "sent", **own)
    await world.relay.logged("simulated_nothing", before)
    await world.played("unsubscribe+own", "sent", **own)


async def test_a_simulated_server_sends_it_back(world: World) -> None:
    email = await world.played("bounce", "bounced")
    assert [one["status"] for one in email["deliveries"]] == ["sent", "bounced"]
    assert email["deliveries"][-1]["classification"] == "invalid_recipient"
    events = (await world.relay.get("/v1/events?type=MessageBounced&limit=500"))["data"]["events"]
    assert email["id"] in {one["emailId"] for one in events}


async def test_a_simulated_recipient_complains(world: World) -> None:
    await world.played("complaint", "sent")
    await world.relay.until(
        "/v1/events?type=MessageComplained&limit=500", lambda one: len(one["data"]["events"]) == 1
    )
    email = await world.played("complaint", "held")
    assert "(reason: complaint)" in email["deliveries"][-1]["details"]


async def test_nothing_of_it_leaves(world: World) -> None:
    await world.played("ok+2", "sent")
    assert not [one for one in world.mx.messages if any("simulator" in to for to in one.recipients)]
