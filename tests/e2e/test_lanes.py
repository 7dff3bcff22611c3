"""Lanes: a peer that says "slow down" or "you are listed" is heeded, tenants take turns, a person may order."""

import asyncio
import smtplib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Delay, Mx, Script, Turns

SLOW = "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume"
LISTED = "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org"


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        for domain in ("rcpt.test", "hosted.test"):
            server.set(domain, "MX", "10 mx.site.test.")
        server.set("mx.site.test", "A", "127.0.0.1")
        yield server


async def lane(relay: Relay, name: str = "site.test") -> dict[str, Any] | None:
    rows = (await relay.get("/v1/lanes"))["data"]["lanes"]
    return next((row for row in rows if row["lane"] == name), None)


async def lane_becomes(relay: Relay, state: str, name: str = "site.test") -> dict[str, Any]:
    async with asyncio.timeout(15):
        while (row := await lane(relay, name)) is None or row["state"] != state:
            await asyncio.sleep(0.05)
        return row


async def test_a_peer_that_wants_less_gets_one_message_a_minute_also_after_a_restart(
    tmp_path: Path, dns: DnsServer
) -> None:
    script = Script(mail=Turns(SLOW, None))
    async with Mx(script) as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay:
        await relay.send("ann@rcpt.test")
        row = await lane_becomes(relay, "resting")
        assert "TSS04" in row["reason"]
        await relay.call("POST", "/v1/lanes/site.test/resume")
        mx.script = Script(dot=Turns(f"451 4.7.0 {SLOW[10:]}", None))
        second = await relay.send("bob@hosted.test")  # another domain of the same site
        async with asyncio.timeout(15):
            while (row := await lane(relay) or {}).get("messagesPerSecond") != pytest.approx(1 / 60):
                await asyncio.sleep(0.05)
        assert (row["state"], row["connectionsMax"]) == ("slow", 1)
        await relay.stop()
        await relay.start()
        again = await lane_becomes(relay, "slow")
        assert again["reason"] == row["reason"]
        third = await relay.send("cid@rcpt.test")
        sentence = (await relay.get("/v1/why?q=rcpt.test"))["data"]["sentences"]
        assert (await relay.get(f"/v1/emails/{third}"))["data"]["status"] == "pending"
        assert sentence
        assert (await relay.get(f"/v1/emails/{second}"))["data"]["status"] == "softfail"


async def test_a_site_that_lists_our_address_rests_for_an_hour_and_nobody_is_suppressed(
    tmp_path: Path, dns: DnsServer
) -> None:
    async with Mx(Script(rcpt=LISTED)) as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay:
        await relay.send("ann@rcpt.test")
        row = await lane_becomes(relay, "resting")
        assert "spamhaus" in row["reason"]
        assert 3000 < row["nextAt"] - time.time() < 4200 if row["nextAt"] else True
        waiting = await relay.send("bob@hosted.test")
        await asyncio.sleep(0.5)
        assert (await relay.get(f"/v1/emails/{waiting}"))["data"]["status"] == "pending"
        listed = await relay.get("/v1/tenants/acme/suppressions")
        assert listed["total"] == 0
        mx.script = Script()
        await relay.call("POST", "/v1/lanes/site.test/resume")
        await relay.until(f"/v1/emails/{waiting}", lambda one: one["data"]["status"] == "sent")


async def test_a_person_lets_a_lane_rest_limits_it_and_resumes_it(tmp_path: Path, dns: DnsServer) -> None:
    async with Mx() as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay:
        ordered = await relay.call("POST", "/v1/lanes/site.test/rest")
        assert ordered["data"]["ordered"] == {"rest": True, "connections": None, "messagesPerSecond": None}
        token = await relay.send("ann@rcpt.test")
        row = await lane_becomes(relay, "resting")
        assert row["reason"] == "a person ordered it to rest"
        await relay.stop()
        await relay.start()
        await asyncio.sleep(0.5)
        assert mx.messages == []
        await relay.call("POST", "/v1/lanes/site.test/limit", {"connections": 1, "messagesPerSecond": 4})
        await relay.call("POST", "/v1/lanes/site.test/resume")
        await relay.until(f"/v1/emails/{token}", lambda one: one["data"]["status"] == "sent")
        await relay.call("POST", "/v1/lanes/site.test/limit", {"connections": 1, "messagesPerSecond": 4})
        began = time.monotonic()
        for number in range(12):
            await relay.send(f"u{number}@rcpt.test")
        await mx.wait(13)
        assert time.monotonic() - began > 1.5  # 12 at 4 a second, 4 of them at once


async def test_a_flood_of_one_tenant_lets_the_single_mail_of_another_through(tmp_path: Path, dns: DnsServer) -> None:
    slow = Script(dot=Delay(0.05, None))
    other = (
        'name = "Other"\n[[domains]]\nname = "other.test"\ntrusted = true\n'
        '[[credentials]]\nname = "app"\ntype = "smtp"\nsecret = "secret-of-other-tenant"\n'
    )
    delivery = "connections_per_site = 1"
    async with Mx(slow) as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port, delivery=delivery) as relay:
        file = tmp_path / "tenants" / "other.toml"
        file.write_text(other)
        file.chmod(0o600)
        await relay.call("POST", "/v1/control/reload")
        for number in range(100):
            await relay.send(f"flood{number}@rcpt.test")
        await asyncio.to_thread(_send_as_other, relay.port())
        await mx.wait(40, timeout_s=20)
        order = [message.recipients[0] for message in mx.messages[:60]]
        assert "single@rcpt.test" in order


def _send_as_other(port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.login("other/app", "secret-of-other-tenant")
        client.sendmail("a@other.test", ["single@rcpt.test"], b"From: a@other.test\r\nSubject: one\r\n\r\nHi\r\n")


async def test_bulk_goes_behind_what_people_wait_for(tmp_path: Path, dns: DnsServer) -> None:
    script = Script(dot=Delay(0.05, None))
    delivery = "connections_per_site = 1"
    async with Mx(script) as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port, delivery=delivery) as relay:
        letter = {"from": "app@sender.test", "subject": "x", "text": "x", "tenantId": "acme"}
        news = [f"news{number}@rcpt.test" for number in range(40)]
        emails = [{"to": [one], "subject": "x", "text": "x"} for one in news]
        batch = {"from": "app@sender.test", "tenantId": "acme", "priority": "bulk", "emails": emails}
        await relay.call("POST", "/v1/emails/batch", batch)
        await relay.call("POST", "/v1/emails", {**letter, "to": ["reset@rcpt.test"]})
        await mx.wait(20, timeout_s=20)
        order = [message.recipients[0] for message in mx.messages]
        assert "reset@rcpt.test" in order[:8]
        refused = await relay.call(
            "POST", "/v1/emails", {**letter, "to": ["a@rcpt.test"], "priority": "soon"}, status=400
        )
        assert refused["error"]["field"] == "priority"
