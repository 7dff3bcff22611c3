"""What lets held mail go, and who: a release counts towards limits, and does not mail whoever asked for no more."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Mx, Script
from peers.panel import open_panel

KEY = "ark_live_app-0123456789abcdef"
TENANT = f'[[credentials]]\nname = "app"\ntype = "api"\nsecret = "{KEY}"\n[limits]\n'
FAST = "api_requests_per_s = 0\n"
HOUR_S, DAY_S = 3600, 86400


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        server.set("rcpt.test", "MX", "10 mx.rcpt.test.")
        server.set("mx.rcpt.test", "A", "127.0.0.1")
        yield server


async def ask(relay: Relay, path: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
    """Ask over TCP with the tenant's own key; return the status, the headers and the answer."""
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session,
        session.request(method, f"http://127.0.0.1:{relay.port('http')}{path}", json=body or {}) as response,
    ):
        return response.status, response.headers, await response.json()


async def used(relay: Relay) -> int:
    _, _, answer = await ask(relay, "/v1/limits", method="GET")
    n: int = answer["data"]["sendLimit"]["used"]
    return n


async def becomes(relay: Relay, token: str, status: str) -> dict[str, Any]:
    answer = await relay.until(f"/v1/emails/{token}", lambda one: one["data"]["status"] == status)
    found: dict[str, Any] = answer["data"]
    return found


async def arkrelay(relay: Relay, *words: str) -> str:
    """Run the command line; return what it said."""
    environment = {**os.environ, "ARKRELAY_CONFIG": str(relay.config)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "arkrelay", *words, env=environment, stdout=-1, stderr=-2
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said
    return said.decode()


async def within(period_s: int) -> None:
    """Return when there is time enough before limits start anew."""
    left_s = period_s - time.time() % period_s
    await asyncio.sleep(left_s + 0.1 if left_s < 40 else 0)


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        pytest.param("hourly = 3", "send limit of 3 recipients an hour is reached (3 used)", id="hour"),
        pytest.param("new_recipients_daily = 3", "budget of 3 first-time recipients a day", id="first-time"),
    ],
)
async def test_a_tenants_key_does_not_pass_over_its_limits_by_releasing(
    tmp_path: Path, dns: DnsServer, limit: str, words: str
) -> None:
    await within(DAY_S if "daily" in limit else HOUR_S)
    settings: dict[str, Any] = {"dns": dns.address, "tenant": TENANT + limit, "more": FAST}
    async with Mx() as mx, Relay(tmp_path, mx_port=mx.port, **settings) as relay:
        for i in range(3):
            await becomes(relay, await relay.send(f"n{i}@rcpt.test"), "sent")
        held = [await relay.send(f"more{i}@rcpt.test") for i in range(4)]
        for token in held[:2]:
            status, headers, answer = await ask(relay, f"/v1/emails/{token}/retry")
            assert (status, headers["x-should-retry"]) == (409, "false")
            assert words in answer["error"]["message"]
        _, _, answer = await ask(relay, "/v1/queue/release", {"all": True})
        assert (answer["data"]["count"], answer["data"]["left"]) == (0, 4)
        assert words in answer["data"]["reasons"][0]
        await ask(relay, "/v1/queue/delete", {"ids": held[:1]})
        status, _, answer = await ask(relay, f"/v1/emails/{held[0]}/retry")  # by that way neither
        assert (status, words in answer["error"]["message"]) == (409, True)
        async with open_panel(f"http://127.0.0.1:{relay.port('http')}") as panel:
            await panel.sign_in(KEY)
            assert words in (await panel.post(f"messages/{held[1]}/release", {})).said
            assert words in (await panel.post("messages?status=held", {"verb": "release"})).said
        assert len(mx.messages) == 3
        assert "3 recipients released" in await arkrelay(relay, "queue", "release", "--all")  # an admin may
        for token in held[1:]:
            await becomes(relay, token, "sent")
        for _ in range(2):
            assert await used(relay) == 6
            await relay.kill()
            await relay.start()
        over = await relay.send("more1@rcpt.test")
        assert (await becomes(relay, over, "held" if "hourly" in limit else "sent"))["to"] == "more1@rcpt.test"


async def test_a_release_counts_towards_the_monthly_cap(tmp_path: Path, dns: DnsServer) -> None:
    settings: dict[str, Any] = {"dns": dns.address, "tenant": TENANT + "hard_cap_monthly = 2", "more": FAST}
    async with Mx() as mx, Relay(tmp_path, mx_port=mx.port, **settings) as relay:
        people = [f"n{i}@rcpt.test" for i in range(3)]
        for one in people:
            await relay.call("POST", "/v1/tenants/acme/suppressions", {"address": one}, status=201)
        held = [await relay.send(one) for one in people]
        for token in held[:2]:
            assert (await ask(relay, f"/v1/emails/{token}/retry"))[0] == 200
            await becomes(relay, token, "sent")
        status, _, answer = await ask(relay, f"/v1/emails/{held[2]}/retry")
        assert (status, answer["error"]["message"]) == (
            409,
            "The send limit of 2 recipients a month is reached (2 used)",
        )
        assert len(mx.messages) == 2


async def test_parallel_releases_take_no_place_twice(tmp_path: Path, dns: DnsServer) -> None:
    await within(HOUR_S)
    settings: dict[str, Any] = {"dns": dns.address, "tenant": TENANT + "hourly = 10", "more": FAST}
    async with Mx() as mx, Relay(tmp_path, mx_port=mx.port, **settings) as relay:
        people = [f"n{i}@rcpt.test" for i in range(30)]
        for one in people:
            await relay.call("POST", "/v1/tenants/acme/suppressions", {"address": one}, status=201)
        held = [await relay.send(one) for one in people]
        answers = await asyncio.gather(*(ask(relay, f"/v1/emails/{token}/retry") for token in held))
        assert sorted(status for status, _, _ in answers) == [200] * 10 + [409] * 20
        await mx.wait(10)
        assert await used(relay) == 10


async def test_what_is_held_at_once_takes_no_place_of_the_limit(tmp_path: Path, dns: DnsServer) -> None:
    await within(HOUR_S)
    limits = "hourly = 10\nnew_recipients_daily = 2"
    async with (
        Mx() as mx,
        Relay(tmp_path, dns=dns.address, mx_port=mx.port, tenant=TENANT + limits, more=FAST) as relay,
    ):
        await relay.call("POST", "/v1/tenants/acme/suppressions", {"address": "ann@rcpt.test"}, status=201)
        for i in range(4):
            await relay.send("ann@rcpt.test", f"n{i}@rcpt.test")
        assert await used(relay) == 2
        await relay.kill()
        await relay.start()
        assert await used(relay) == 2


async def test_a_release_of_many_does_not_mail_whoever_is_on_the_list(tmp_path: Path, dns: DnsServer) -> None:
    async with Mx() as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port, tenant=TENANT, more=FAST) as relay:
        people = ("wronged", "complainer", "third")
        for one in people:
            await relay.call("POST", "/v1/tenants/acme/suppressions", {"address": f"{one}@rcpt.test"}, status=201)
        tokens = [await relay.send(f"{one}@rcpt.test") for one in people]
        waiting = await relay.send("later@rcpt.test")
        await relay.call("DELETE", "/v1/tenants/acme/suppressions/wronged@rcpt.test")
        assert "0 recipients released" in await arkrelay(relay, "queue", "release", "--hold-reason", "operator")
        said = await arkrelay(relay, "queue", "release", "--tenant", "acme", "--hold-reason", "suppressed")
        assert said.startswith("1 recipient released\n2 stay as they are:\n  The suppression list has the address")
        await becomes(relay, tokens[0], "sent")
        await becomes(relay, waiting, "sent")
        assert {(await becomes(relay, token, "held"))["status"] for token in tokens[1:]} == {"held"}
        assert (await relay.get("/v1/queue?holdReason=suppressed"))["total"] == 2
        await relay.call("POST", "/v1/queue/release", {"ids": tokens[1:2]})  # by its id it passes over the list
        await becomes(relay, tokens[1], "sent")


async def test_one_retry_of_a_failure_passes_over_the_list_that_it_led_to(tmp_path: Path, dns: DnsServer) -> None:
    async with (
        Mx(Script(rcpt="550 5.1.1 User unknown")) as mx,
        Relay(tmp_path, dns=dns.address, mx_port=mx.port, tenant=TENANT) as relay,
    ):
        token = await relay.send("ann@rcpt.test")
        await becomes(relay, token, "hardfail")
        mx.script.rcpt = None
        assert (await ask(relay, f"/v1/emails/{token}/retry"))[0] == 200
        await becomes(relay, token, "sent")
        assert (await relay.get("/v1/tenants/acme/suppressions"))["data"] == []  # mail arrives there again
