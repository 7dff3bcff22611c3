"""The doctor's rounds: which addresses, what a fault or a silent check costs, and when it looks."""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from peers.configuration import Folder
from peers.dns import DnsServer

from arkrelay.config.live import Live
from arkrelay.model.errors import NotFound
from arkrelay.relay import doctor as doctors
from arkrelay.relay import doctorhost
from arkrelay.relay.bench import Machine
from arkrelay.relay.doctor import Doctor
from arkrelay.relay.doctordns import find_addresses
from arkrelay.wire.dns import Resolver

OURS, OURS6 = "11.22.33.44", "2a00::1"  # not those for examples, which are private; nothing is sent to them
PTR6 = ip_address(OURS6).reverse_pointer
TENANT = '[[domains]]\nname = "a.test"\n[[domains]]\nname = "b.test"\n'


class Rig:
    """A doctor without a daemon, its files and its DNS."""

    def __init__(self, root: Path, server: DnsServer) -> None:
        self.folder, self.server = Folder(root), server
        self.ipv4: str | None = OURS
        self.ipv6: str | None = None
        self.folder.main("[doctor]\nblocklists = []\ndomain_blocklists = []\n")
        self.folder.tenant("acme", TENANT)
        self.machine = Machine(
            own=lambda: frozenset({OURS, "10.0.0.5"}),
            ipv4=lambda: self.ipv4,
            ipv6=lambda: self.ipv6,
            clock_is_kept=lambda: True,
            listeners=None,
        )
        self.start()

    def start(self) -> None:
        self.live = Live(self.folder.path)
        self.doctor = Doctor(self.live, lambda: Resolver([self.server.address], 2), self.machine, None)

    async def addresses(self) -> dict[str, tuple[bool, bool]]:
        resolver = Resolver([self.server.address], 2)
        found = await find_addresses(self.live.snapshot.settings, self.machine, resolver)
        await resolver.close()
        return {one.address: (one.used, one.guessed) for one in found}


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with DnsServer() as server:
        server.set("a.test", "TXT", "v=spf1 -all")
        yield Rig(tmp_path, server)


async def test_without_sources_it_is_the_address_that_the_system_chooses(rig: Rig) -> None:
    assert await rig.addresses() == {OURS: (True, False)}
    rig.ipv6 = OURS6
    assert await rig.addresses() == {
        OURS: (True, False),
        OURS6: (False, False),
    }  # it has no PTR record
    rig.server.set(PTR6, "PTR", "relay.example.com.")
    rig.server.set("relay.example.com", "AAAA", OURS6)
    assert (await rig.addresses())[OURS6] == (True, False)


async def test_behind_nat_it_is_what_dns_says_of_the_host_name(rig: Rig) -> None:
    rig.ipv4 = None
    assert await rig.addresses() == {}
    rig.server.set("relay.example.com", "A", "11.22.33.77")
    assert await rig.addresses() == {"11.22.33.77": (True, True)}
    rig.folder.main('[[source]]\naddress = "10.0.0.5"\n')
    rig.start()
    assert await rig.addresses() == {"11.22.33.77": (True, True)}
    found = {one.check: one for one in (await rig.doctor.look()).findings}
    assert "the world sees 11.22.33.77" in found["source"].found


async def test_a_fault_of_ours_is_a_line_and_costs_no_other(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> list[Any]:
        raise ZeroDivisionError

    async def silent(*_: object) -> list[Any]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(doctorhost, "disk", broken)
    monkeypatch.setattr(doctorhost, "clock", silent)
    monkeypatch.setattr(doctors, "CHECK_S", 0.5)
    found = {one.check: one for one in (await rig.doctor.look()).findings}
    assert (found["disk"].level, "a fault of arkrelay" in found["disk"].found) == ("skip", True)
    assert (found["clock"].level, "longer than" in found["clock"].found) == ("skip", True)
    assert found["spf"].level == "fail"


async def test_one_domain_is_looked_at_and_the_rest_stays(rig: Rig) -> None:
    before = await rig.doctor.look()
    rig.server.set("a.test", "TXT", "v=spf1 ip4:11.22.33.44 -all")
    after = await rig.doctor.look("a.test")
    assert after.at == before.at
    changed = {one.key for one in after.findings} - {one.key for one in before.findings}
    assert changed == set()
    assert {one.level for one in after.findings if one.key == "spf a.test"} == {"ok"}
    assert [one for one in after.findings if one.domain != "a.test"] == [
        one for one in before.findings if one.domain != "a.test"
    ]
    with pytest.raises(NotFound):
        await rig.doctor.look("c.test")


async def test_who_waits_for_a_look_gets_one_that_began_after_the_question(rig: Rig) -> None:
    rig.server.gate = asyncio.Event()
    rig.server.arrived.clear()
    first = asyncio.create_task(rig.doctor.look())
    await rig.server.arrived.wait()
    second, third = asyncio.create_task(rig.doctor.look()), asyncio.create_task(rig.doctor.look())
    await asyncio.sleep(0)
    rig.server.gate.set()
    one, two, three = await first, await second, await third
    assert one.at < two.at
    assert two is three  # and not a look for each


async def test_it_looks_when_it_is_time_and_never_with_every_0(rig: Rig) -> None:
    rig.folder.main('[doctor]\nevery = "0s"\nblocklists = []\ndomain_blocklists = []\n')
    rig.start()
    running = asyncio.create_task(rig.doctor.run())
    await asyncio.sleep(0.1)
    assert rig.doctor.counts() == {}
    rig.folder.main('[doctor]\nevery = "100ms"\nblocklists = []\ndomain_blocklists = []\n')
    rig.live.reload()
    rig.doctor.changed()
    async with asyncio.timeout(20):
        while not rig.doctor.counts():
            await asyncio.sleep(0.02)
    running.cancel()
