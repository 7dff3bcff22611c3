"""The loop of webhooks, with a clock that a test turns: what it gives up, and what it brings forward."""

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from peers.configuration import Folder
from peers.receiver import Receiver
from unit.relay.rig import NOW, Rig

from arkrelay.base.metrics import Metrics
from arkrelay.config.hookkeys import HookKeys
from arkrelay.model.event import Event, EventKind
from arkrelay.model.hook import Endpoint
from arkrelay.policy.hookpace import FORWARDS
from arkrelay.relay.hookqueue import HookQueue
from arkrelay.relay.hooks import Hooks
from arkrelay.store import hookjobs
from arkrelay.store.history import insert_events
from arkrelay.wire.dns import Resolver
from arkrelay.wire.https import Poster

HOST = "127.0.0.2"
SETTINGS = f"""
[webhooks]
allow_http = true
allow_destinations = ["{HOST}/32"]
timeout = "5s"
retry = ["1h", "1h", "1h", "1h", "1h"]
"""
HOUR, DAY = 3600.0, 86_400.0
HOOK = '\n[[webhooks]]\nname = "w"\nid = "1"\nurl = "{url}"\n'


class Site:
    """A queue of webhooks and the receiver to which they lead; ``now`` is the time that the queue sees."""

    def __init__(self, rig: Rig, receiver: Receiver, poster: Poster) -> None:
        self.rig, self.receiver = rig, receiver
        self.now = NOW
        hooks = Hooks(rig.store, rig.live, poster, HookKeys(rig.folder.state), Metrics(), clock=self.clock)
        self.queue = HookQueue(rig.store, rig.live, hooks, clock=self.clock)

    def clock(self) -> float:
        return self.now

    async def happen(self, *names: str) -> None:
        """Let each recipient's mail be sent."""
        found = []
        for name in names:
            recipient = self.rig.recipient(f"{name}@dest.test")
            await self.rig.accept(recipient)
            found.append(Event(EventKind.SENT, NOW, "acme", recipient.message.id, recipient.id, {"details": name}))
        await self.rig.store.write(lambda db: insert_events(db, found))

    async def turn(self, seconds: float) -> None:
        """Let time go on."""
        self.now += seconds
        await self.queue.changed()

    async def endpoint(self) -> Endpoint:
        (found,) = await self.rig.store.read(hookjobs.list_endpoints)
        return found

    async def until(self, reached: Callable[[Endpoint], bool]) -> Endpoint:
        async with asyncio.timeout(20):
            while not reached(found := await self.endpoint()):
                await asyncio.sleep(0.01)
        return found

    async def told(self, n: int) -> list[str]:
        """Return whose mail the receiver was told of, when it was ``n`` times."""
        async with asyncio.timeout(20):
            while len(self.receiver.requests) < n:
                await asyncio.sleep(0.01)
        bodies = [json.loads(one.body) for one in self.receiver.requests]
        return [one["payload"]["message"]["to"].partition("@")[0] for one in bodies]


@pytest.fixture
async def site(rig: Rig) -> AsyncIterator[Site]:
    async with Receiver(HOST) as receiver:
        rig.folder.main(SETTINGS)
        configure(rig.folder, HOOK.format(url=f"http://{HOST}:{receiver.port}/"))
        rig.live.reload()
        resolver = Resolver(["127.0.0.1:9"], 0.1)
        poster = Poster(resolver, frozenset())
        made = Site(rig, receiver, poster)
        await made.queue.start()
        running = [asyncio.create_task(made.queue.run()), asyncio.create_task(made.queue.targets.run())]
        yield made
        await made.queue.stop(10)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await poster.close()
        await resolver.close()


def configure(folder: Folder, more: str) -> None:
    folder.tenant("acme", more)


async def test_an_event_that_fails_again_each_time_its_endpoint_comes_back_has_its_own_schedule(site: Site) -> None:
    site.receiver.decide = lambda request: 500 if b"bad" in request.body else 200
    await site.happen("bad0", "bad1", "bad2")
    await site.until(lambda one: one.failures == 3)
    for n in range(FORWARDS + 3):
        await site.happen(f"good{n}")
        await site.turn(10)  # its rest is over, and it takes this one
        told = await site.told(3 + (n + 1) + 3 * min(n + 1, FORWARDS))
        assert f"good{n}" in told
        await site.until(lambda one: one.failures == 3 or n >= FORWARDS)  # noqa: B023 -- called before the next turn
    times = Counter(name for name in await site.told(1) if name.startswith("bad"))
    assert set(times.values()) == {1 + FORWARDS}
    await site.turn(HOUR * 1.2)
    await site.told(3 + (FORWARDS + 3) + 3 * FORWARDS + 3)  # each once more


async def test_all_of_a_backlog_goes_when_its_endpoint_comes_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hookjobs, "MOVED", 7)
    site.receiver.decide = lambda _request: 500
    names = [f"u{n}" for n in range(30)]
    await site.happen(*names)
    await site.until(lambda one: one.waiting == 30 and one.failures >= 3)
    await site.rig.store.write(lambda db: db.execute("UPDATE hook_jobs SET due_at = due_at + 86400"))
    site.receiver.requests.clear()
    site.receiver.decide = lambda _request: 200
    await site.queue.targets.enable("acme", "1")
    assert set(await site.told(30)) == set(names)


async def test_what_waited_for_too_long_is_given_up_only_after_it_was_tried(site: Site) -> None:
    site.receiver.decide = lambda _request: 500
    await site.happen(*[f"u{n}" for n in range(20)])
    await site.until(lambda one: one.waiting == 20 and one.failures == 3)
    site.now += 4 * DAY  # a clock that was wrong, or a machine that slept
    await site.queue.targets.care()
    assert (await site.endpoint()).parked == 0
    await site.turn(0)
    await site.until(lambda one: one.failures == 4)
    await site.queue.targets.care()
    assert (await site.endpoint()).parked >= 19 - 3, "it failed again: those that were due all the time"


async def test_a_webhook_that_comes_back_while_it_is_forgotten_is_not_mixed_up(site: Site) -> None:
    site.receiver.decide = lambda _request: 500
    await site.happen("ann")
    await site.until(lambda one: one.failures == 1)
    hook = HOOK.format(url=f"http://{HOST}:{site.receiver.port}/")
    configure(site.rig.folder, "")
    site.rig.live.reload()
    await site.queue.changed()
    caring = asyncio.create_task(site.queue.targets.care())
    configure(site.rig.folder, hook)
    site.rig.live.reload()
    await asyncio.gather(caring, site.queue.changed())
    await site.queue.targets.care()
    site.receiver.decide = lambda _request: 200
    site.receiver.requests.clear()
    await site.happen("bob")
    assert "bob" in await site.told(1)
    row = await site.endpoint()
    assert site.queue.targets["acme", "1"].id == row.id


async def test_without_anything_to_do_nothing_is_read(site: Site) -> None:
    await site.happen("ann")
    await site.told(1)
    await site.until(lambda one: one.waiting == 0)
    await asyncio.sleep(0.5)
    reads = 0
    read = site.rig.store.read

    async def counted(fn: Callable[[sqlite3.Connection], Any]) -> Any:
        nonlocal reads
        reads += 1
        return await read(fn)

    site.rig.store.read = counted  # type: ignore[method-assign]  # to count
    await asyncio.sleep(1.5)
    assert reads == 0
    await site.happen("bob")
    assert await site.told(2) == ["ann", "bob"]


async def test_what_happens_while_the_log_is_followed_is_told_next(site: Site) -> None:
    followed, happened = asyncio.Event(), asyncio.Event()
    read = site.rig.store.read

    async def slow(fn: Callable[[sqlite3.Connection], Any]) -> Any:
        found = await read(fn)
        if not followed.is_set():
            followed.set()
            await happened.wait()  # what was read is old by now
        return found

    await asyncio.sleep(0.2)
    site.rig.store.read = slow  # type: ignore[method-assign]  # as on a busy machine
    await site.rig.store.write(lambda _db: None)  # the log is looked at, and has nothing
    await followed.wait()
    await site.happen("ann")
    await asyncio.sleep(0.1)
    happened.set()
    assert await site.told(1) == ["ann"]
