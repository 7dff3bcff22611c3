"""Which of our addresses may be used: it must be here, and of IPv6 the world must be able to look it up."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from peers.configuration import Folder
from peers.dns import DnsServer

from arkrelay.config.live import Live
from arkrelay.relay import sources
from arkrelay.relay.sources import Sources
from arkrelay.wire.dns import Resolver

SIX = "2001:db8::25"
PTR = "5.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        yield server


class Known:
    """The addresses of one machine, asked for once."""

    def __init__(self, folder: Folder, dns: DnsServer, own: set[str], system: str | None = None) -> None:
        self.resolver = Resolver([dns.address], 0.2)
        self.live = Live(folder.path)
        self.own = own
        self.sources = Sources(self.live, self.resolver, lambda: frozenset(self.own), lambda: system)

    async def look(self) -> None:
        """Let one round of look-ups pass."""
        asked = asyncio.create_task(self.sources.run())
        before = [state.reason for state in self.sources.states.values()]
        async with asyncio.timeout(10):
            while [state.reason for state in self.sources.states.values()] == before and before:
                await asyncio.sleep(0.01)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await self.resolver.close()


async def test_without_addresses_of_our_own_ipv6_is_used_when_the_systems_leads_back(
    folder: Folder, dns: DnsServer
) -> None:
    known = Known(folder, dns, set(), SIX)
    assert known.sources.families("") == (4,)  # nobody has looked yet
    assert known.sources.of("") == ()
    assert known.sources.missing("") == ""
    dns.set(PTR, "PTR", "relay.example.com.")
    dns.set("relay.example.com", "AAAA", SIX)
    known.own.add(SIX)
    await known.look()
    assert known.sources.families("") == (6, 4)


@pytest.mark.parametrize(
    ("ptr", "back", "reason"),
    [
        ((), (), "has no PTR record"),
        (("relay.example.com.",), (), "says relay.example.com, which does not lead back"),
        (("relay.example.com.",), ("2001:db8::99",), "says relay.example.com, which does not lead back"),
        (("other.test.", "relay.example.com."), (SIX,), ""),
    ],
)
async def test_an_ipv6_address_is_used_when_one_of_its_names_leads_back(
    folder: Folder, dns: DnsServer, ptr: tuple[str, ...], back: tuple[str, ...], reason: str
) -> None:
    folder.main(f"[[source]]\naddress = '{SIX}'\n")
    if ptr:
        dns.set(PTR, "PTR", *ptr)
    if back:
        dns.set("relay.example.com", "AAAA", *back)
    known = Known(folder, dns, {SIX})
    await known.look()
    (state,) = known.sources.states.values()
    assert reason in known.sources.fault(state)
    assert known.sources.families("") == ((6,) if not reason else ())
    assert bool(known.sources.missing("")) is bool(reason)


async def test_a_resolver_in_trouble_changes_nothing(
    folder: Folder, dns: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "SOON_S", 0.01)
    folder.main(f"[[source]]\naddress = '{SIX}'\n")
    dns.set(PTR, "PTR", "relay.example.com.")
    dns.set("relay.example.com", "AAAA", SIX)
    known = Known(folder, dns, {SIX})
    await known.look()
    dns.fail("*", "*", "servfail")
    known.resolver = Resolver([dns.address], 0.2)
    known.sources._resolver = known.resolver
    task = asyncio.create_task(known.sources.run())
    dns.arrived.clear()
    async with asyncio.timeout(10):
        await dns.arrived.wait()
        await asyncio.sleep(0.1)
    assert [one.address for one in known.sources.of("")] == [SIX]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await known.resolver.close()


async def test_an_address_serves_its_pool_when_it_is_here(folder: Folder, dns: DnsServer) -> None:
    folder.main(
        "[delivery]\nsource_addresses = ['192.0.2.1']\n"
        "[[source]]\naddress = '192.0.2.2'\npool = 'bulk'\n[[source]]\naddress = '192.0.2.3'\npool = 'bulk'\n"
    )
    known = Known(folder, dns, {"192.0.2.1", "192.0.2.3"})
    assert [one.address for one in known.sources.of("")] == ["192.0.2.1"]
    assert [one.address for one in known.sources.of("bulk")] == ["192.0.2.3"]
    known.own.remove("192.0.2.3")
    assert not known.sources.look()
    assert "192.0.2.3: this machine does not have it" in known.sources.missing("bulk")
    assert known.sources.missing("") == ""
    known.own |= {"192.0.2.2", "192.0.2.3"}
    assert known.sources.look()
    assert known.sources.families("bulk") == (4,)


@pytest.mark.parametrize(("ip_family", "used"), [("4", ["192.0.2.1"]), ("6", [SIX]), ("auto", ["192.0.2.1"])])
async def test_the_setting_decides_about_families(
    folder: Folder, dns: DnsServer, ip_family: str, used: list[str]
) -> None:
    folder.main(f"[delivery]\nip_family = '{ip_family}'\nsource_addresses = ['192.0.2.1', '{SIX}']\n")
    known = Known(folder, dns, {"192.0.2.1", SIX})
    assert [one.address for one in known.sources.of("")] == used
