"""What the resolver remembers, for how long, and how look-ups are shared and capped."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from peers.dns import DnsServer

from arkrelay.model.dns import MxAnswer
from arkrelay.model.reply import Failure, FailureKind
from arkrelay.wire.dns import Resolver
from arkrelay.wire.dnsquery import MAX_LOOKUPS

TIMEOUT_S = 5.0


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    async with DnsServer() as dns:
        dns.set("example.test", "MX", "10 mx.example.test.")
        yield dns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def resolver(server: DnsServer, clock: Clock) -> AsyncIterator[Resolver]:
    resolver = Resolver([server.address], TIMEOUT_S, clock=clock)
    yield resolver
    await resolver.close()


async def test_answers_are_kept_for_their_ttl(server: DnsServer, resolver: Resolver, clock: Clock) -> None:
    for _ in range(3):
        await resolver.mx("example.test")
    assert server.count("example.test") == 1
    clock.now += 299
    await resolver.mx("example.test")
    assert server.count("example.test") == 1
    clock.now += 1
    await resolver.mx("example.test")
    assert server.count("example.test") == 2


@pytest.mark.parametrize(
    ("ttl", "kept_s"),
    [
        pytest.param(0, 5, id="at-least-five-seconds"),
        pytest.param(86400, 3600, id="at-most-an-hour"),
    ],
)
async def test_ttls_are_bounded(server: DnsServer, resolver: Resolver, clock: Clock, ttl: int, kept_s: float) -> None:
    server.set("ttl.test", "MX", "0 mx.test.", ttl=ttl)
    await resolver.mx("ttl.test")
    clock.now += kept_s - 0.1
    answer = await resolver.mx("ttl.test")
    assert isinstance(answer, MxAnswer)
    assert answer.ttl_s == kept_s
    assert server.count("ttl.test") == 1
    clock.now += 0.2
    await resolver.mx("ttl.test")
    assert server.count("ttl.test") == 2


@pytest.mark.parametrize(
    ("negative_ttl", "kept_s"), [pytest.param(20, 20, id="as-the-soa-says"), pytest.param(9000, 60, id="one-minute")]
)
async def test_what_is_not_there_is_asked_again_soon(
    server: DnsServer, resolver: Resolver, clock: Clock, negative_ttl: int, kept_s: float
) -> None:
    server.negative_ttl = negative_ttl
    for _ in range(2):
        await resolver.mx("unknown.test")
    clock.now += kept_s - 0.1
    await resolver.mx("unknown.test")
    assert server.count("unknown.test") == 1
    clock.now += 0.2
    server.set("unknown.test", "MX", "0 mx.test.")
    assert isinstance(await resolver.mx("unknown.test"), MxAnswer)


async def test_trouble_is_remembered_for_a_second_only(server: DnsServer, resolver: Resolver, clock: Clock) -> None:
    server.fail("example.test", "MX", "refused")
    await resolver.mx("example.test")
    asked = server.count("example.test")
    await resolver.mx("example.test")
    assert server.count("example.test") == asked
    server.heal()
    clock.now += 1
    assert isinstance(await resolver.mx("example.test"), MxAnswer)


async def test_fresh_goes_past_memory_and_replaces_it(server: DnsServer, resolver: Resolver) -> None:
    assert await resolver.txt("example.test") == ()
    server.set("example.test", "TXT", "v=spf1 -all")
    assert await resolver.txt("example.test") == ()
    assert await resolver.txt("example.test", fresh=True) == ("v=spf1 -all",)
    assert await resolver.txt("example.test") == ("v=spf1 -all",)


async def test_many_who_ask_the_same_share_one_look_up(server: DnsServer, resolver: Resolver) -> None:
    server.gate = asyncio.Event()
    waiting = [asyncio.create_task(resolver.mx("example.test")) for _ in range(50)]
    await server.arrived.wait()
    server.gate.set()
    answers = await asyncio.gather(*waiting)
    assert server.count("example.test") == 1
    assert len(set(answers)) == 1


async def test_one_who_goes_away_leaves_the_look_up_to_the_others(server: DnsServer) -> None:
    resolver = Resolver([server.address], 10)
    server.gate = asyncio.Event()
    first, second = (asyncio.create_task(resolver.mx("example.test")) for _ in range(2))
    await server.arrived.wait()
    first.cancel()
    server.gate.set()
    assert isinstance(await second, MxAnswer)
    assert first.cancelled()
    assert server.count("example.test") == 1


async def test_close_ends_what_is_under_way(server: DnsServer) -> None:
    resolver = Resolver([server.address], 10)
    server.gate = asyncio.Event()
    waiting = asyncio.create_task(resolver.mx("example.test"))
    await server.arrived.wait()
    await resolver.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_look_ups_at_once_are_capped(server: DnsServer) -> None:
    resolver = Resolver([server.address], 10)
    server.gate = asyncio.Event()
    waiting = [asyncio.create_task(resolver.mx(f"d{n}.test")) for n in range(MAX_LOOKUPS + 20)]
    while server.count() < MAX_LOOKUPS:
        server.arrived.clear()
        await server.arrived.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    assert server.count() == MAX_LOOKUPS
    server.gate.set()
    kinds = {answer.kind for answer in await asyncio.gather(*waiting) if isinstance(answer, Failure)}
    assert kinds == {FailureKind.NO_DOMAIN}
    assert server.count() == MAX_LOOKUPS + 20
