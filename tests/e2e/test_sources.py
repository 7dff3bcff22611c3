"""Addresses of ours: pools, IPv6 by its PTR record, warm-up, and what becomes of mail that a site refuses."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Delay, Mx, Script, closed_port

LISTED = "554 5.7.1 Service unavailable; Client host blocked using zen.spamhaus.org"
PTR = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa"
ONE, TWO, THREE = "127.0.0.1", "127.0.0.2", "127.0.0.3"
OTHER = 'name = "Other"\npool = "bulk"\n[[domains]]\nname = "other.test"\ntrusted = true\n'


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        for domain in ("rcpt.test", "hosted.test"):
            server.set(domain, "MX", "10 mx.site.test.")
        server.set("mx.site.test", "A", ONE)
        yield server


def sources(*addresses: str, more: str = "") -> str:
    return "\n".join(f'[[source]]\naddress = "{one}"' for one in addresses) + f"\n{more}\n"


def route(mx: Mx, cause: str) -> str:
    return f'[[route]]\ndomain = "*"\nhost = "127.0.0.1:{mx.port}"\n{cause}\n'


async def sent(relay: Relay, *tokens: str) -> list[dict[str, Any]]:
    found = []
    for token in tokens:
        path = f"/v1/emails/{token}?expand=deliveries"
        found.append((await relay.until(path, lambda one: one["data"]["status"] == "sent"))["data"])
    return found


async def sentence(relay: Relay, about: str) -> str:
    return str((await relay.get(f"/v1/why?q={about}"))["data"]["sentences"][0]["sentence"])


async def lanes(relay: Relay) -> dict[str, dict[str, Any]]:
    return {row["lane"]: row for row in (await relay.get("/v1/lanes"))["data"]["lanes"]}


async def test_a_tenants_mail_leaves_from_its_pool_under_the_name_of_the_address(
    tmp_path: Path, dns: DnsServer
) -> None:
    more = sources(TWO) + sources(THREE, more='pool = "bulk"\nhostname = "bulk.relay.test"')
    async with Mx() as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port, more=more) as relay:
        (tmp_path / "tenants" / "other.toml").write_text(OTHER)
        await relay.call("POST", "/v1/control/reload")
        letter = {"subject": "x", "text": "x", "to": ["bob@rcpt.test"]}
        await relay.send("ann@rcpt.test")
        await relay.call("POST", "/v1/emails", {**letter, "from": "a@other.test", "tenantId": "other"})
        await mx.wait(2)
        assert {(one.client, one.helo) for one in mx.messages} == {(TWO, "relay.test"), (THREE, "bulk.relay.test")}
        assert {"site.test@127.0.0.2", "site.test@127.0.0.3"} <= set(await lanes(relay))
        shown = {row["address"]: row for row in (await relay.get("/v1/sources"))["data"]["sources"]}
        assert (shown[THREE]["pool"], shown[THREE]["used"]) == ("bulk", True)
        refused = await relay.call("POST", "/v1/lanes/site.test/rest", status=400)
        assert "site.test@127.0.0.3" in refused["error"]["message"]
        gone = (tmp_path / "arkrelay.toml").read_text().replace('pool = "bulk"', 'pool = "news"')
        relay.config.write_text(gone)
        broken = await relay.call("POST", "/v1/control/reload", status=422)
        assert 'no [[source]] of arkrelay.toml is in the pool "bulk"' in str(broken)


async def test_an_ipv6_address_is_used_when_its_ptr_record_leads_back(tmp_path: Path, dns: DnsServer) -> None:
    dns.set("mx.site.test", "AAAA", "::1")
    async with Mx() as mx, Mx(host="::1", port=mx.port) as six:
        delivery = 'source_addresses = ["::1"]'
        relay = Relay(tmp_path, dns=dns.address, mx_port=mx.port, delivery=delivery)
        text = relay.config.read_text().replace('["127.0.0.0/8"]', '["127.0.0.0/8", "::1/128"]')
        relay.config.write_text(text)
        async with relay:
            token = await relay.send("ann@rcpt.test")
            said = await relay.until(f"/v1/why?q={token}", lambda one: "no address of ours" in str(one))
            assert "::1 has no PTR record" in str(said)
            both = text.replace('["::1"]', f'["::1", "{ONE}"]')
            relay.config.write_text(both)
            await relay.call("POST", "/v1/control/reload")
            await relay.call("POST", "/v1/queue/retry", {"all": True})
            await sent(relay, token, *[await relay.send(f"n{number}@rcpt.test") for number in range(5)])
            assert (len(mx.messages), six.messages) == (6, [])
            dns.set(PTR, "PTR", "relay.test.")
            dns.set("relay.test", "AAAA", "2001:db8::1")  # of another machine
            relay.config.write_text(both + "\n# again\n")
            await relay.stop()
            await relay.start()
            row = await relay.until(
                "/v1/sources", lambda one: any(source["name"] for source in one["data"]["sources"])
            )
            assert "does not lead back to ::1" in str(row)
            dns.set("relay.test", "AAAA", "::1")
            relay.config.write_text(text)  # ::1 alone
            await relay.stop()
            await relay.start()
            await sent(relay, await relay.send("bob@rcpt.test"))
            assert [one.recipients for one in six.messages] == [["bob@rcpt.test"]]


async def test_a_family_that_does_not_connect_leaves_the_other_a_try(tmp_path: Path, dns: DnsServer) -> None:
    dns.set("mx.site.test", "AAAA", "::1")
    dns.set(PTR, "PTR", "relay.test.")
    dns.set("relay.test", "AAAA", "::1")
    async with Mx() as mx:
        delivery = f'source_addresses = ["::1", "{ONE}"]\nip_family = "auto"'
        relay = Relay(tmp_path, dns=dns.address, mx_port=mx.port, delivery=delivery)
        relay.config.write_text(relay.config.read_text().replace('["127.0.0.0/8"]', '["127.0.0.0/8", "::1/128"]'))
        async with relay:
            await relay.until("/v1/sources", lambda one: all(row["used"] for row in one["data"]["sources"]))
            tokens = [await relay.send(f"n{number}@rcpt.test") for number in range(6)]
            for one in await sent(relay, *tokens):
                assert [attempt["status"] for attempt in one["deliveries"]] == ["sent"]


async def test_an_address_that_is_not_here_is_passed_over_and_told(tmp_path: Path, dns: DnsServer) -> None:
    more = sources("198.51.100.7")
    async with Mx() as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port, more=more) as relay:
        token = await relay.send("ann@rcpt.test")
        said = await relay.until(f"/v1/why?q={token}", lambda one: "no address of ours" in str(one))
        assert "198.51.100.7: this machine does not have it" in str(said)
        shown = (await relay.get(f"/v1/emails/{token}"))["data"]
        assert (shown["status"], shown["attempts"]) == ("pending", 0)  # it cost no attempt
        relay.config.write_text(relay.config.read_text() + sources(ONE))
        await relay.call("POST", "/v1/control/reload")
        await relay.call("POST", "/v1/queue/retry", {"all": True})
        await sent(relay, token)


async def test_what_a_site_refuses_from_one_address_goes_from_another(tmp_path: Path, dns: DnsServer) -> None:
    more = sources(TWO, THREE)
    delivery = "connections_per_site = 1"
    async with Mx() as mx:
        mx.scripts[TWO] = Script(rcpt=LISTED)
        async with Relay(tmp_path, dns=dns.address, mx_port=mx.port, more=more, delivery=delivery) as relay:
            await relay.call("POST", f"/v1/lanes/site.test@{THREE}/rest")  # so that the other one is asked first
            tokens = [await relay.send(f"n{number}@rcpt.test") for number in range(12)]
            await relay.until(f"/v1/why?q={tokens[-1]}", lambda one: "lets site.test@127.0.0.3 rest" in str(one))
            await relay.call("POST", f"/v1/lanes/site.test@{THREE}/resume")
            shown = await sent(relay, *tokens)
            assert {one.client for one in mx.messages} == {THREE}
            refused = [one for one in shown if len(one["deliveries"]) > 1]
            assert 1 <= len(refused) <= 2  # no more than were under way
            assert refused[0]["deliveries"][0]["status"] == "softfail"
            row = (await lanes(relay))["site.test@127.0.0.2"]
            assert (row["state"], "spamhaus" in row["reason"]) == ("resting", True)
            assert (await relay.get("/v1/tenants/acme/suppressions"))["total"] == 0


async def test_a_site_that_refuses_our_only_address_is_reached_by_the_route_until_a_canary_passes(
    tmp_path: Path, dns: DnsServer
) -> None:
    async with Mx(Script(rcpt=LISTED)) as mx, Mx() as smarthost:
        more = route(smarthost, 'when = "sender-reputation"')
        delivery = 'canary = "3s"'
        async with Relay(tmp_path, dns=dns.address, mx_port=mx.port, more=more, delivery=delivery) as relay:
            began = time.monotonic()
            first = await relay.send("ann@rcpt.test")
            (shown,) = await sent(relay, first)
            assert [one["status"] for one in shown["deliveries"]] == ["softfail", "sent"]
            await sent(relay, *[await relay.send(f"n{number}@hosted.test") for number in range(5)])
            assert len(smarthost.messages) == 6
            assert len(mx.conversations) == 1
            mx.script = Script(dot=Delay(0.2, None))
            assert time.monotonic() - began < 3
            await asyncio.sleep(3.2 - (time.monotonic() - began))
            batch = [await relay.send(f"m{number}@rcpt.test") for number in range(6)]
            await sent(relay, *batch)
            await sent(relay, *[await relay.send(f"l{number}@rcpt.test") for number in range(3)])
            assert len(mx.messages) >= 4  # the canary, and all that came after it
            assert mx.messages[0].connection != mx.messages[1].connection  # it went alone


async def test_a_route_after_so_many_attempts_takes_what_the_mx_did_not(tmp_path: Path, dns: DnsServer) -> None:
    async with Mx(Script(rcpt={"bad@rcpt.test": "451 4.3.0 later"})) as mx, Mx() as smarthost:
        more = route(smarthost, "after = 2")
        async with Relay(tmp_path, dns=dns.address, mx_port=mx.port, more=more, first_delay="200ms") as relay:
            bad, good = await relay.send("bad@rcpt.test"), await relay.send("good@rcpt.test")
            shown = await sent(relay, bad, good)
            assert [one["status"] for one in shown[0]["deliveries"]] == ["softfail", "softfail", "sent"]
            assert [one.recipients for one in smarthost.messages] == [["bad@rcpt.test"]]
            assert [one.recipients for one in mx.messages] == [["good@rcpt.test"]]


async def test_a_new_address_carries_its_share_also_over_a_restart_and_the_rest_goes_another_way(
    tmp_path: Path, dns: DnsServer
) -> None:
    new = sources(TWO, more="warmup = true")
    ramp = "[warmup]\ndaily = [3, 6]\n"
    async with Mx() as mx, Mx() as smarthost:
        relay = Relay(tmp_path, dns=dns.address, mx_port=mx.port, more=new + sources(THREE) + ramp)
        async with relay:
            await sent(relay, *[await relay.send(f"n{number}@rcpt.test") for number in range(2)])
            assert [one.client for one in mx.messages] == [TWO, TWO]
            await relay.stop()
            await relay.start()
            await sent(relay, *[await relay.send(f"m{number}@rcpt.test") for number in range(8)])
            assert [one.client for one in mx.messages].count(TWO) == 3
            assert [one.client for one in mx.messages].count(THREE) == 7
            row = (await lanes(relay))["site.test@127.0.0.2"]
            assert row["warmup"] == {"day": 1, "days": 2, "sent": 3, "budget": 3, "deferred": 0}
            relay.write(dns=dns.address, mx_port=mx.port, more=new + ramp)  # no other address, no route
            await relay.call("POST", "/v1/control/reload")
            await relay.until("/v1/lanes", lambda one: not any(row["connections"] for row in one["data"]["lanes"]))
            waiting = await relay.send("late@rcpt.test")
            await relay.until(f"/v1/why?q={waiting}", lambda one: "is warming up" in str(one))
            assert "all 3 messages of today are sent; tried again" in await sentence(relay, waiting)
            listed = (await relay.get("/v1/queue?lane=site.test@127.0.0.2"))["data"]
            assert [one["id"] for one in listed] == [waiting]
            assert (await relay.get("/v1/queue?lane=elsewhere.test"))["data"] == []
            relay.write(dns=dns.address, mx_port=mx.port, more=new + ramp + route(smarthost, 'when = "warm-up"'))
            await relay.call("POST", "/v1/control/reload")
            done = await relay.call("POST", "/v1/queue/retry", {"all": True, "lane": "site.test@127.0.0.2"})
            assert done["data"]["count"] == 0  # it is pending: only its lane's rest ends
            await sent(relay, waiting)
            assert [one.recipients for one in smarthost.messages] == [["late@rcpt.test"]]


async def test_a_refused_connection_of_one_address_family_is_no_ones_blocklist(
    tmp_path: Path, dns: DnsServer
) -> None:
    more = sources(TWO)
    async with Relay(tmp_path, dns=dns.address, mx_port=closed_port(), more=more) as relay:
        token = await relay.send("ann@rcpt.test")
        shown = await relay.until(
            f"/v1/emails/{token}?expand=deliveries", lambda one: one["data"]["status"] == "softfail"
        )
        assert len(shown["data"]["deliveries"]) == 1
        row = (await lanes(relay))["site.test@127.0.0.2"]
        assert (row["state"], row["reason"]) == ("resting", "connection refused")
