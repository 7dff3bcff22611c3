"""Who waits for the next event is woken by it, and the store is looked at for all of them at once."""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from arkrelay.model.errors import StoreError
from arkrelay.relay import watch
from arkrelay.relay.watch import EventWatch

WAIT_S = 20.0


class Log:
    """A log of events that is only its last number, and counts who looks."""

    def __init__(self) -> None:
        self.last = 7
        self.looks = 0
        self.broken = False

    async def read(self, _: Callable[[sqlite3.Connection], Any]) -> int:
        self.looks += 1
        if self.broken:
            raise StoreError("busy")
        return self.last

    async def looked(self, more: int) -> None:
        """Return when it was looked at so many times more."""
        end = self.looks + more
        async with asyncio.timeout(WAIT_S):
            while self.looks < end:
                await asyncio.sleep(0.001)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    monkeypatch.setattr(watch, "POLL_S", 0.005)
    return Log()


def watching(log: Log) -> EventWatch:
    return EventWatch(log)  # type: ignore[arg-type]  # all that it wants of a store


async def test_a_thousand_who_wait_look_once(log: Log) -> None:
    events = watching(log)
    await events.wait(0, WAIT_S)
    seen, before = events.last, log.looks
    assert seen == 7
    waiting = [asyncio.create_task(events.wait(seen, WAIT_S)) for _ in range(1000)]
    await log.looked(5)
    assert not any(task.done() for task in waiting)
    assert log.looks - before < 20
    log.last = 8
    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(*waiting)
    assert events.last == 8


async def test_nobody_looks_while_nobody_waits(log: Log) -> None:
    events = watching(log)
    await events.wait(0, WAIT_S)
    await events.wait(7, 0.02)
    await asyncio.sleep(0.02)  # the look that was under way
    before = log.looks
    await asyncio.sleep(0.05)
    assert log.looks == before
    log.last = 9
    await events.wait(7, WAIT_S)  # and somebody does again when it is wanted
    assert events.last == 9


async def test_what_was_seen_already_is_not_waited_for(log: Log) -> None:
    events = watching(log)
    await events.wait(0, WAIT_S)
    before = log.looks
    async with asyncio.timeout(1.0):
        await events.wait(3, WAIT_S)
    assert log.looks == before


async def test_a_wait_ends_in_time_and_when_the_daemon_stops(log: Log) -> None:
    events = watching(log)
    await events.wait(0, WAIT_S)
    async with asyncio.timeout(WAIT_S):
        await events.wait(7, 0.02)
        waiting = asyncio.create_task(events.wait(7, 1000.0))
        await log.looked(1)
        events.close()
        await waiting
        await events.wait(7, 1000.0)
    assert events.closed


async def test_a_database_in_trouble_is_waited_for(log: Log) -> None:
    events = watching(log)
    log.broken = True
    waiting = asyncio.create_task(events.wait(0, WAIT_S))
    await log.looked(2)
    assert not waiting.done()
    log.broken = False
    async with asyncio.timeout(WAIT_S):
        await waiting
