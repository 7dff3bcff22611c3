"""Sender domains against a real DNS server and a real store: what is judged, kept, told and forgotten."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest
from peers.dns import DnsServer

from arkrelay.config.live import Live
from arkrelay.mail.dkim import generate_key
from arkrelay.model.domain import DomainState
from arkrelay.model.errors import NotFound, StoreError
from arkrelay.model.event import Event, EventKind
from arkrelay.relay.domains import AGAIN_S, EVERY_S, JITTER, DomainChecker, inspect, records_of
from arkrelay.store.database import Store
from arkrelay.store.history import list_events
from arkrelay.store.lists import all_domain_states
from arkrelay.wire.dns import Resolver

KEY = ("acme", "example.com")
RELAY = """hostname = "relay.test"
state_dir = "state"
"""


class Clock:
    """Unix seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Rig:
    """A checker with its server, store and files."""

    def __init__(self, folder: Path, server: DnsServer) -> None:
        self.folder, self.server = folder, server
        self.clock = Clock()
        (folder / "arkrelay.toml").write_text(RELAY)
        (folder / "tenants").mkdir()
        keys = folder / "state" / "keys"
        keys.mkdir(mode=0o700, parents=True)
        for selector in ("one", "two"):
            key = keys / f"{selector}.pem"
            key.touch(mode=0o600)
            key.write_bytes(generate_key("ed25519-sha256"))
        self.configure("example.com")
        self.live = Live(folder / "arkrelay.toml")
        self.store = Store.open(folder / "state")
        self.resolver = Resolver([server.address], 5)
        self.checker = self.start()

    def configure(self, *domains: str, selector: str = "one") -> None:
        text = 'name = "Acme"\n'
        for domain in domains:
            text += f'[[domains]]\nname = "{domain}"\n[[domains.dkim]]\nselector = "{selector}"\n'
            text += f'private_key = "{selector}.pem"\nalgorithm = "ed25519-sha256"\n'
        (self.folder / "tenants" / "acme.toml").write_text(text)

    def start(self) -> DomainChecker:
        return DomainChecker(self.resolver, self.store, self.live, clock=self.clock, dice=Random(1))

    def publish(self, domain: str = "example.com") -> None:
        for record in records_of(self.live.snapshot, "acme", domain).all:
            value = f"{record.value}." if record.type == "CNAME" else record.value
            self.server.set(record.full_name, record.type, value, ttl=1)

    async def events(self) -> list[Event]:
        stored = await self.store.read(lambda db: list_events(db, after=0))
        return [one.event for one in stored]

    async def kept(self) -> dict[tuple[str, str], DomainState]:
        return await self.store.read(all_domain_states)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with DnsServer() as server:
        rig = Rig(tmp_path, server)
        yield rig
        await rig.resolver.close()
        await asyncio.to_thread(rig.store.close)


async def test_a_published_domain_is_verified_kept_and_told(rig: Rig) -> None:
    rig.publish()
    state = await rig.checker.check(*KEY)
    assert state.verified
    assert state.checked_at == state.verified_at == rig.clock.now
    assert rig.checker.states[KEY] == state
    assert await rig.kept() == {KEY: state}
    (event,) = await rig.events()
    assert (event.kind, event.tenant_id, event.at) == (EventKind.DOMAIN_VERIFIED, "acme", rig.clock.now)
    restarted = rig.start()
    await restarted.load()
    assert restarted.states == {KEY: state}


async def test_an_unpublished_domain_says_what_is_missing(rig: Rig) -> None:
    state = await rig.checker.check(*KEY)
    assert not state.verified
    assert (state.spf, state.dkim, state.return_path) == ("Missing", "Missing", "Missing")
    assert all([state.spf_error, state.dkim_error, state.return_path_error])
    assert state.verified_at is None
    assert await rig.kept() == {KEY: state}
    assert await rig.events() == []


async def test_checking_again_sees_a_record_just_published(rig: Rig) -> None:
    assert not (await rig.checker.check(*KEY)).verified
    rig.publish()
    assert (await rig.checker.check(*KEY)).verified


async def test_what_a_resolver_in_trouble_hides_stays_as_it_was(rig: Rig) -> None:
    rig.publish()
    before = await rig.checker.check(*KEY)
    rig.server.fail("*", "*", "servfail")
    rig.clock.now += 100
    assert await rig.checker.check(*KEY, scheduled=True) == before
    assert await rig.kept() == {KEY: before}
    rig.server.heal()
    rig.server.remove("example.com", "TXT")
    rig.server.fail("psrp.example.com", "CNAME", "refused")
    state = await rig.checker.check(*KEY)
    assert (state.spf, state.dkim, state.return_path) == ("Missing", "OK", "OK")
    assert state.checked_at == rig.clock.now
    assert not state.verified


async def test_a_first_check_that_could_not_ask_says_so_and_is_not_kept(rig: Rig) -> None:
    rig.server.fail("*", "*", "refused")
    state = await rig.checker.check(*KEY)
    assert (state.spf, state.dkim, state.return_path, state.checked_at) == (None, None, None, None)
    assert "REFUSED" in (state.spf_error or "")
    assert await rig.kept() == {}


async def test_a_verified_domain_that_breaks_is_told_with_the_fields_of_the_contract(rig: Rig) -> None:
    rig.publish()
    rig.server.set("example.com", "MX", "10 mx.example.com.")
    verified = await rig.checker.check(*KEY)
    rig.server.set("psrp.example.com", "CNAME", "elsewhere.test.")
    rig.clock.now += EVERY_S
    state = await rig.checker.check(*KEY, scheduled=True)
    assert state.verified_at == verified.verified_at
    assert not state.verified
    _, event = await rig.events()
    assert event.kind is EventKind.DNS_ERROR
    data = json.loads(json.dumps(dict(event.data)))
    assert list(data["server"]) == ["uuid", "name", "permalink", "organization"]
    assert data["server"]["name"] == "Acme"
    domain = rig.live.snapshot.tenants["acme"].domain("example.com")
    assert domain is not None
    assert data["uuid"] == domain.uuid
    assert data["domain"] == "example.com"
    assert data["dns_checked_at"] == rig.clock.now
    assert {name: data[f"{name}_status"] for name in ("spf", "dkim", "mx", "return_path")} == {
        "spf": "OK",
        "dkim": "OK",
        "mx": "OK",
        "return_path": "Invalid",
    }
    assert "elsewhere.test" in data["return_path_error"]
    assert data["spf_error"] is data["dkim_error"] is data["mx_error"] is None


@pytest.mark.parametrize(
    ("mx", "how", "status"),
    [
        ("10 mx.example.com.", None, "OK"),
        ("0 .", None, "Invalid"),
        (None, None, "Missing"),
        (None, "nxdomain", "Missing"),
        (None, "servfail", None),
    ],
)
async def test_the_mx_is_reported_beside(rig: Rig, mx: str | None, how: str | None, status: str | None) -> None:
    rig.publish()
    if mx is not None:
        rig.server.set("example.com", "MX", mx)
    if how is not None:
        rig.server.fail("example.com", "MX", how)
    assert (await rig.checker.check(*KEY)).verified
    (event,) = await rig.events()
    assert event.data["mx_status"] == status
    assert (event.data["mx_error"] is None) == (status == "OK")


async def test_a_broken_domain_is_told_when_it_begins_to_fail_and_once_a_day(rig: Rig) -> None:
    rig.publish()
    await rig.checker.check(*KEY)
    rig.server.remove("example.com")
    for scheduled in (False, *[True] * 26):
        rig.clock.now += EVERY_S
        await rig.checker.check(*KEY, scheduled=scheduled)
    rig.publish()
    await rig.checker.check(*KEY)
    kinds = [event.kind for event in await rig.events()]
    assert kinds == [
        EventKind.DOMAIN_VERIFIED,
        EventKind.DNS_ERROR,
        EventKind.DNS_ERROR,
        EventKind.DOMAIN_VERIFIED,
    ]


async def test_checks_of_one_domain_at_once_tell_once(rig: Rig) -> None:
    rig.publish()
    states = await asyncio.gather(*(rig.checker.check(*KEY) for _ in range(5)))
    assert all(state.verified for state in states)
    assert len(await rig.events()) == 1


@pytest.mark.parametrize("key", [("acme", "other.com"), ("nobody", "example.com")])
async def test_a_domain_of_nobody_is_not_checked(rig: Rig, key: tuple[str, str]) -> None:
    with pytest.raises(NotFound):
        await rig.checker.check(*key)
    assert rig.server.queries == []


async def test_inspect_judges_each_key(rig: Rig) -> None:
    rig.publish()
    verdicts = await inspect(rig.resolver, records_of(rig.live.snapshot, *KEY))
    assert verdicts.verified
    assert list(verdicts.keys) == ["one._domainkey.example.com"]


class Watched(dict[tuple[str, str], DomainState]):
    """States that say when one of them was set."""

    def __init__(self) -> None:
        super().__init__()
        self.was_set = asyncio.Event()

    def __setitem__(self, key: tuple[str, str], state: DomainState) -> None:
        super().__setitem__(key, state)
        self.was_set.set()

    async def checked(self, key: tuple[str, str], at: float) -> DomainState:
        """Return the state of this domain from this time, as soon as there is one."""
        async with asyncio.timeout(10):
            while (state := self.get(key)) is None or state.checked_at != at:
                self.was_set.clear()
                await self.was_set.wait()
            return state


@pytest.fixture
async def states(rig: Rig) -> AsyncIterator[Watched]:
    """The states of a checker that runs."""
    rig.publish()
    await rig.checker.load()
    states = Watched()
    rig.checker.states = states
    running = asyncio.create_task(rig.checker.run())
    yield states
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_the_loop_checks_what_is_new_at_once_and_the_rest_each_hour(rig: Rig, states: Watched) -> None:
    assert (await states.checked(KEY, rig.clock.now)).verified
    rig.configure("example.com", "second.test")
    rig.live.reload()
    asked = rig.server.count("example.com", "TXT")
    rig.clock.now += 60
    rig.checker.changed()
    assert not (await states.checked(("acme", "second.test"), rig.clock.now)).verified
    assert rig.server.count("example.com", "TXT") == asked
    rig.clock.now += EVERY_S * (1 + JITTER)
    rig.checker.changed()
    await states.checked(KEY, rig.clock.now)
    assert rig.server.count("example.com", "TXT") == asked + 1


async def test_a_new_key_is_checked_at_once(rig: Rig, states: Watched) -> None:
    assert (await states.checked(KEY, rig.clock.now)).dkim == "OK"
    rig.configure("example.com", selector="two")
    rig.live.reload()
    rig.clock.now += 1
    rig.checker.changed()
    assert (await states.checked(KEY, rig.clock.now)).dkim == "Missing"


async def test_the_loop_wakes_by_itself_when_a_check_is_due(rig: Rig, states: Watched) -> None:
    await states.checked(KEY, rig.clock.now)
    rig.configure("example.com", "second.test")
    rig.live.reload()
    rig.clock.now += EVERY_S * (1 - 2 * JITTER)
    rig.checker._due_at[KEY] = rig.clock.now + 0.05
    rig.checker.changed()
    await states.checked(("acme", "second.test"), rig.clock.now)  # and now it waits for 50 ms of real time
    rig.clock.now += 0.06
    await states.checked(KEY, rig.clock.now)


async def test_a_removed_domain_is_forgotten(rig: Rig) -> None:
    rig.publish()
    await rig.checker.check(*KEY)
    rig.configure()
    rig.live.reload()
    restarted = rig.start()
    await restarted.load()
    assert restarted.states == {}
    await rig.store.write(lambda _: None)
    assert await rig.kept() == {}


async def test_after_a_restart_a_domain_waits_for_its_hour(rig: Rig) -> None:
    rig.publish()
    await rig.checker.check(*KEY)
    asked = len(rig.server.queries)
    rig.checker = rig.start()
    await rig.checker.load()
    assert rig.checker._due() == []
    rig.clock.now += EVERY_S * (1 + JITTER)
    assert rig.checker._due() == [KEY]
    assert len(rig.server.queries) == asked


async def test_a_store_in_trouble_leaves_the_loop_running(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.publish()
    failed = asyncio.Event()
    write = rig.store.write

    async def full(*args: object) -> None:
        failed.set()
        raise StoreError("no room")

    monkeypatch.setattr(rig.store, "write", full)
    rig.checker.states = states = Watched()
    running = asyncio.create_task(rig.checker.run())
    await failed.wait()
    monkeypatch.setattr(rig.store, "write", write)
    rig.clock.now += AGAIN_S
    rig.checker.changed()
    assert (await states.checked(KEY, rig.clock.now)).verified
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_surprise_in_one_check_leaves_the_others_running(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.configure("example.com", "second.test")
    rig.live.reload()
    rig.publish()
    txt = rig.resolver.txt

    async def surprising(name: str, *, fresh: bool = False) -> object:
        if name.endswith("second.test"):
            raise RuntimeError("surprise")
        return await txt(name, fresh=fresh)

    monkeypatch.setattr(rig.resolver, "txt", surprising)
    rig.checker.states = states = Watched()
    running = asyncio.create_task(rig.checker.run())
    assert (await states.checked(KEY, rig.clock.now)).verified
    rig.clock.now += EVERY_S * (1 + JITTER)
    rig.checker.changed()
    assert (await states.checked(KEY, rig.clock.now)).verified
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert list(states) == [KEY]


async def test_a_domain_removed_while_it_is_due_is_passed_over(rig: Rig) -> None:
    await rig.checker._check_scheduled(("acme", "gone.test"))
    assert rig.checker.states == {}
    assert rig.server.queries == []
