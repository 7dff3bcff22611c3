"""Track domains against a real DNS server and a real store: what is judged, kept and forgotten."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from peers.configuration import Folder
from peers.dns import DnsServer

from arkrelay.config.live import Live
from arkrelay.model.domain import TrackState
from arkrelay.model.errors import NotFound
from arkrelay.relay.domains import EVERY_S, JITTER, DomainChecker
from arkrelay.store.database import Store
from arkrelay.store.lists import all_track_states
from arkrelay.wire.dns import Resolver

NAME, KEY = "track.example.com", ("acme", "track.example.com")
TRACK = '[[track_domains]]\nname = "track"\ndomain = "example.com"\nid = "7"\n'
DOMAIN = '[[domains]]\nname = "example.com"\n'


class Rig:
    """A checker with its server, store and files."""

    def __init__(self, root: Path, server: DnsServer) -> None:
        self.folder, self.server, self.now = Folder(root), server, 1_800_000_000.0
        self.folder.tenant("acme", DOMAIN + TRACK)
        self.live = Live(self.folder.path)
        self.store = Store.open(self.folder.state)
        self.resolver = Resolver([server.address], 5)
        self.checker = self.start()

    def start(self) -> DomainChecker:
        return DomainChecker(self.resolver, self.store, self.live, clock=lambda: self.now)

    def publish(self, target: str = "track.relay.example.com.") -> None:
        self.server.set(NAME, "CNAME", target, ttl=1)

    def configure(self, text: str, main: str = "") -> None:
        """Put other files in force, as a reload does."""
        self.folder.tenant("acme", text)
        self.folder.main(main)
        self.live.reload()
        self.checker.changed()

    async def check(self) -> TrackState:
        return await self.checker.tracks.check("acme", "7")

    async def kept(self) -> dict[tuple[str, str], TrackState]:
        return await self.store.read(all_track_states)

    async def checked(self, at: float, status: str | None = None) -> TrackState:
        """Return the state once it was seen at this time."""
        while (state := self.checker.tracks.states.get(KEY)) is None or state.checked_at != at:
            await asyncio.sleep(0.005)
        assert status is None or state.status == status
        return state


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with DnsServer() as server:
        rig = Rig(tmp_path, server)
        yield rig
        await rig.resolver.close()
        await asyncio.to_thread(rig.store.close)


async def test_what_dns_says_is_kept_and_found_again_after_a_restart(rig: Rig) -> None:
    missing = await rig.check()
    assert (missing.status, missing.ok, missing.checked_at) == ("Missing", False, rig.now)
    rig.publish("elsewhere.test.")
    assert (await rig.check()).status == "Invalid"
    rig.publish()
    good = await rig.check()
    assert good == TrackState(*KEY, "OK", None, rig.now)
    assert await rig.kept() == {KEY: good}
    restarted = rig.start()
    await restarted.load()
    assert restarted.tracks.states == {KEY: good}
    assert restarted.tracks.wanted() == set()


async def test_a_resolver_in_trouble_says_so_first_and_changes_nothing_later(rig: Rig) -> None:
    rig.server.fail(NAME, "*", "servfail")
    state = await rig.check()
    assert (state.status, state.checked_at) == (None, None)
    assert state.error
    assert await rig.kept() == {}
    rig.server.heal()
    rig.publish()
    good = await rig.check()
    rig.server.fail(NAME, "*", "servfail")
    rig.now += 60
    assert await rig.check() == good


async def test_each_is_looked_up_with_its_domain_about_once_an_hour_and_when_it_is_new(rig: Rig) -> None:
    await rig.checker.load()
    running = asyncio.create_task(rig.checker.run())
    await rig.checked(rig.now, "Missing")
    rig.publish()
    rig.now += EVERY_S * (1 + JITTER)
    rig.checker.changed()
    await rig.checked(rig.now, "OK")
    rig.now += 1
    rig.configure(DOMAIN + TRACK, '[public]\ntrack_host = "t.relay.example.com"\n')  # another target
    await rig.checked(rig.now, "Invalid")
    rig.now += 1
    rig.configure(DOMAIN + TRACK.replace('"track"', '"go"'))
    while ("acme", "go.example.com") not in rig.checker.tracks.states:
        await asyncio.sleep(0.005)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert set(rig.checker.tracks.states) == {("acme", "go.example.com")}
    assert set(await rig.kept()) == {("acme", "go.example.com")}


async def test_one_that_was_removed_is_forgotten_and_comes_back_unchecked(rig: Rig) -> None:
    rig.publish()
    await rig.check()
    rig.configure(DOMAIN)
    assert rig.checker.tracks.states == {}
    with pytest.raises(NotFound):
        await rig.check()
    rig.configure(DOMAIN + TRACK)
    assert rig.checker.tracks.states == {}
    assert rig.checker.tracks.wanted() == {("acme", "example.com")}
    await rig.store.write(lambda _db: None)  # behind the removal
    assert await rig.kept() == {}


@pytest.mark.parametrize("what", ["domain", "track"])
async def test_what_is_removed_while_dns_is_asked_does_not_come_back(rig: Rig, what: str) -> None:
    rig.publish()
    rig.server.gate = asyncio.Event()
    rig.server.arrived.clear()
    check = rig.check() if what == "track" else rig.checker.check("acme", "example.com")
    under_way = asyncio.create_task(check)
    await rig.server.arrived.wait()
    rig.configure("" if what == "domain" else DOMAIN)
    rig.server.gate.set()
    with pytest.raises(NotFound):
        await under_way
    assert (rig.checker.states, rig.checker.tracks.states, await rig.kept()) == ({}, {}, {})


@pytest.mark.parametrize("owner", ["acme", "nobody"])
async def test_what_is_not_there_is_not_looked_up(rig: Rig, owner: str) -> None:
    with pytest.raises(NotFound):
        await rig.checker.tracks.check(owner, "8")
    await rig.checker.tracks.check_under(owner, "other.test")
    assert rig.server.queries == []
