"""MTA-STS policies over their life: fetched, kept, rotated, refreshed, out of date; with real DNS and HTTPS."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
from peers import certificates
from peers.dns import DnsServer
from peers.policyhost import PolicyHost, policy
from unit.relay.rig import Rig

from arkrelay.model.peertls import Demand, TlsPolicy
from arkrelay.model.reply import Failure
from arkrelay.relay.peertls import AGAIN_S, PeerTls
from arkrelay.wire.dns import Resolver
from arkrelay.wire.fetch import Fetcher
from arkrelay.wire.tls import verifying

DAY_S = 86400.0
DOMAIN, HOST = "rcpt.test", "mta-sts.rcpt.test"
SETTINGS = '[delivery]\nmta_sts_port = {port}\nallow_destinations = ["127.0.0.0/8"]\n'


@dataclass
class World:
    """One domain with a policy host, and a clock that a test moves; ``parts`` makes the relay's side anew."""

    rig: Rig
    dns: DnsServer
    web: PolicyHost
    stack: AsyncExitStack
    at: float = 1_700_000_000.0
    closing: list[PeerTls] = field(default_factory=list)

    def publish(self, id_: str, mode: str = "enforce", *mx: str, max_age: int = 7 * 86400) -> None:
        self.dns.set(f"_mta-sts.{DOMAIN}", "TXT", f"v=STSv1; id={id_};", ttl=5)
        self.web.files[HOST] = policy(mode, *(mx or ("mx.rcpt.test",)), max_age=max_age)

    async def parts(self) -> PeerTls:
        resolver = Resolver([self.dns.address], 1.0, clock=lambda: self.at)
        self.stack.push_async_callback(resolver.close)
        ca_file = str(certificates.authority().ca_file)
        fetcher = Fetcher(resolver, frozenset(), context=lambda: verifying(ca_file), timeout_s=1.0)
        made = PeerTls(self.rig.store, self.rig.live, resolver, fetcher, clock=lambda: self.at)
        self.stack.push_async_callback(made.close)
        await made.load()
        return made

    def asked(self) -> int:
        return len(self.web.asked)


@pytest.fixture
async def world(rig: Rig) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        dns = await stack.enter_async_context(DnsServer())
        web = await stack.enter_async_context(PolicyHost(certificates.valid(HOST).server_context()))
        rig.folder.main(SETTINGS.format(port=web.port))
        rig.live.reload()
        dns.set(HOST, "A", "127.0.0.1")
        yield World(rig, dns, web, stack)


async def test_a_domain_without_a_policy_costs_one_look_up_and_no_fetch(world: World) -> None:
    parts = await world.parts()
    for _ in range(20):
        assert await parts.sts(DOMAIN) is None
    assert [(query.name, query.rdtype) for query in world.dns.queries] == [(f"_mta-sts.{DOMAIN}", "TXT")]
    assert world.asked() == 0
    assert await parts.demand("mx.rcpt.test", DOMAIN, None, secure=False) == Demand()


async def test_switched_off_nothing_is_asked(world: World) -> None:
    world.rig.folder.main("[delivery]\nmta_sts = false\n")
    world.rig.live.reload()
    world.publish("1")
    assert await (await world.parts()).sts(DOMAIN) is None
    assert world.dns.queries == []


async def test_many_askers_share_one_fetch_and_later_ones_need_none(world: World) -> None:
    world.publish("1")
    parts = await world.parts()
    found = await asyncio.gather(*(parts.sts(DOMAIN) for _ in range(10)))
    assert {one.id for one in found if one} == {"1"}
    world.at += 3600
    assert (await parts.sts(DOMAIN)) is found[0]
    assert world.asked() == 1


async def test_another_id_in_dns_brings_another_policy_at_once(world: World) -> None:
    world.publish("1", "enforce", "old.rcpt.test")
    parts = await world.parts()
    assert isinstance(await parts.demand("mx.rcpt.test", DOMAIN, await parts.sts(DOMAIN), secure=False), Failure)
    world.publish("2", "enforce", "mx.rcpt.test")
    world.at += 6
    demand = await parts.demand("mx.rcpt.test", DOMAIN, await parts.sts(DOMAIN), secure=False)
    assert demand == Demand(policy=TlsPolicy.STS, tls="required", verify=True)
    assert world.asked() == 2


async def test_a_domain_leaves_by_mode_none(world: World) -> None:
    world.publish("1")
    parts = await world.parts()
    await parts.sts(DOMAIN)
    world.publish("2", "none")
    world.at += 6
    assert await parts.demand("other.rcpt.test", DOMAIN, await parts.sts(DOMAIN), secure=False) == Demand()


@pytest.mark.parametrize("trouble", ["no-record", "dns-fails", "web-fails", "web-hangs", "rubbish"])
async def test_whoever_blocks_the_policy_changes_nothing_until_it_runs_out_not_even_with_a_restart(
    world: World, trouble: str
) -> None:
    world.publish("1", max_age=int(3 * DAY_S))
    before = await (await world.parts()).sts(DOMAIN)
    assert before is not None
    match trouble:
        case "no-record":
            world.dns.remove(f"_mta-sts.{DOMAIN}")
        case "dns-fails":
            world.dns.fail(f"_mta-sts.{DOMAIN}", "TXT", "servfail")
        case "rubbish":
            world.publish("2")
            world.web.files[HOST] = "<html>please log in</html>"
        case _:
            world.publish("2")
            world.web.status, world.web.hang = 503, trouble == "web-hangs"
    parts = await world.parts()  # as after a restart: only what is on disk is known
    for day in (0, 1, 2.9):
        world.at = before.fetched_at + day * DAY_S
        assert await parts.sts(DOMAIN) == before
    world.at = before.expires_at + 1
    world.web.files.clear()
    assert await parts.sts(DOMAIN) is None
    assert await (await world.parts()).sts(DOMAIN) is None


async def test_a_policy_in_use_is_fetched_again_each_day_so_it_does_not_run_out(world: World) -> None:
    world.publish("1", max_age=int(2 * DAY_S))
    parts = await world.parts()
    first = await parts.sts(DOMAIN)
    assert first is not None
    world.at += DAY_S
    assert await parts.sts(DOMAIN) == first  # mail does not wait for this fetch
    while world.asked() < 2 or (await parts.sts(DOMAIN)) == first:
        await asyncio.sleep(0.01)
    second = await parts.sts(DOMAIN)
    assert second is not None
    assert second.expires_at == first.expires_at + DAY_S
    assert world.asked() == 2


async def test_after_a_failed_fetch_there_is_no_other_for_five_minutes(world: World) -> None:
    world.publish("1")
    world.web.status = 500
    parts = await world.parts()
    for _ in range(5):
        assert await parts.sts(DOMAIN) is None
        world.at += AGAIN_S / 6
    assert world.asked() == 1
    world.web.status = 200
    world.at += AGAIN_S
    assert await parts.sts(DOMAIN) is not None
    assert world.asked() == 2


async def test_a_policy_host_on_a_private_address_is_not_connected_to(world: World) -> None:
    world.rig.folder.main(f"[delivery]\nmta_sts_port = {world.web.port}\n")
    world.rig.live.reload()
    world.publish("1")
    assert await (await world.parts()).sts(DOMAIN) is None
    assert world.asked() == 0
