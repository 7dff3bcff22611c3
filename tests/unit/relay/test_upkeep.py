"""What the housekeeper sees of disk and store, and what it clears away."""

import asyncio
import os
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from unit.relay.rig import Rig

from arkrelay.model.event import EventKind
from arkrelay.model.message import Status
from arkrelay.relay import upkeep
from arkrelay.relay.operate import Operator
from arkrelay.relay.upkeep import Upkeep
from arkrelay.store import queue as rows
from arkrelay.store import suppressions


@pytest.fixture
def keeper(rig: Rig) -> Upkeep:
    operator = Operator(rig.store, rig.queue, rig.live, rig.meter)
    return Upkeep(rig.store, rig.live, rig.queue, rig.settler, operator)


def configure(rig: Rig, table: str, **changes: Any) -> None:
    """Put other settings in force, as a reload would."""
    settings = rig.live.snapshot.settings
    part = replace(getattr(settings, table), **changes)
    rig.live.snapshot = replace(rig.live.snapshot, settings=replace(settings, **{table: part}))


def free_bytes(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    def statvfs(path: str | Path) -> os.statvfs_result:
        return os.statvfs_result((4096, 4096, 10**9, free // 4096, free // 4096, 0, 0, 0, 0, 255))

    monkeypatch.setattr("arkrelay.relay.upkeep.os.statvfs", statvfs)


async def test_too_little_room_is_told_and_passes(rig: Rig, keeper: Upkeep, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(rig, "limits", min_free_disk_bytes=512_000_000)
    free_bytes(monkeypatch, 100_000_000)
    keeper.look_at_disk()
    assert keeper.disk_low == "99 MB free on the disk, at least 512 MB are needed"
    assert rig.queue.paused == ""  # what is queued goes on: it makes room
    free_bytes(monkeypatch, 600_000_000)
    keeper.look_at_disk()
    assert keeper.disk_low == ""


async def test_delivery_pauses_while_the_store_is_in_trouble_and_goes_on_by_itself(rig: Rig, keeper: Upkeep) -> None:
    configure(rig, "limits", min_free_disk_bytes=0)
    other = sqlite3.connect(rig.store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    rig.store._writer.healthy = "the database is locked by another process"
    keeper.look_at_disk()
    assert rig.queue.paused == "the database is locked by another process"
    assert keeper.disk_low == ""
    other.execute("ROLLBACK")
    other.close()
    async with asyncio.timeout(20):  # nobody else writes: it is the housekeeper who finds out
        await rig.until(lambda: rig.store.healthy is None)
    keeper.look_at_disk()
    assert rig.queue.paused == ""


async def test_a_full_store_counts_as_a_full_disk_whatever_the_file_system_says(rig: Rig, keeper: Upkeep) -> None:
    configure(rig, "limits", min_free_disk_bytes=0)
    rig.store._writer.healthy = "the disk is full"
    keeper.look_at_disk()
    assert keeper.disk_low == rig.queue.paused == "the disk is full"


async def test_one_failed_look_does_not_end_the_housekeeping(
    rig: Rig, keeper: Upkeep, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def statvfs(path: str | Path) -> os.statvfs_result:
        nonlocal looks
        looks += 1
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("arkrelay.relay.upkeep.os.statvfs", statvfs)
    monkeypatch.setattr(upkeep, "DISK_S", 0.01)
    running = asyncio.create_task(keeper.run())
    async with asyncio.timeout(20):
        await rig.until(lambda: looks > 3)
    assert not running.done()
    running.cancel()


async def test_held_mail_fails_when_its_time_is_over_and_other_mail_is_left_alone(rig: Rig, keeper: Upkeep) -> None:
    configure(rig, "retention", held_s=3600.0)
    old, new, queued = rig.held("old@a.test"), rig.held("new@a.test"), rig.recipient("queued@a.test")
    await rig.accept(old, new, queued)
    past = time.time() - 3601
    await rig.store.write(lambda db: db.execute("UPDATE recipients SET changed_at = ? WHERE id = ?", (past, old.id)))
    await keeper.prune()
    assert await rig.settler.drained(10)
    failed = await rig.load(old)
    assert (failed.status, failed.reason) == (Status.HARDFAIL, "Held for 0.0416667 days and not released")
    assert await rig.events() == [EventKind.FAILED]
    assert (await rig.load(new)).status is Status.HELD
    assert (await rig.load(queued)).status is Status.PENDING


async def test_however_much_is_held_too_long_all_of_it_fails_at_once(rig: Rig, keeper: Upkeep) -> None:
    configure(rig, "retention", held_s=3600.0)
    await rig.accept(*(rig.held(f"n{number}@a.test") for number in range(250)))
    past = time.time() - 3601
    await rig.store.write(lambda db: db.execute("UPDATE recipients SET changed_at = ?", (past,)))
    await keeper.prune()
    left = await rig.store.read(lambda db: db.execute("SELECT DISTINCT status FROM recipients").fetchall())
    assert left == [("hardfail",)]
    assert (await rig.events()).count(EventKind.FAILED) == 250


@pytest.mark.parametrize("keep_s", [0.0, 3600.0])
async def test_entries_of_failures_lapse_only_where_a_setting_says_so(
    rig: Rig, keeper: Upkeep, keep_s: float
) -> None:
    configure(rig, "suppression", keep_s=keep_s)
    for address, age_s in (("old@a.test", 3601), ("young@a.test", 60)):
        at = time.time() - age_s
        await rig.store.write(lambda db: suppressions.suppress(db, "acme", address, "hard fail", at))  # noqa: B023 -- at once
    await keeper.prune()
    left, _ = await rig.store.read(lambda db: suppressions.list_page(db, "acme"))
    assert [one.address for one in left] == (["young@a.test"] if keep_s else ["young@a.test", "old@a.test"])


async def test_retention_never_touches_mail_that_is_not_delivered(rig: Rig, keeper: Upkeep) -> None:
    configure(rig, "retention", content_s=0.001, messages_s=0.001, events_s=0.001, held_s=0.0)
    of = [rig.message(accepted_at=1.0) for _ in range(4)]
    states = [Status.PENDING, Status.SOFTFAIL, Status.HELD, Status.SENT]
    people = [
        rig.recipient(f"n{n}@a.test", of[n], status=state, due_at=1.0 if n < 2 else None)
        for n, state in enumerate(states)
    ]
    await rig.accept(*people)
    await keeper.prune()
    left = await rig.store.read(lambda db: [rows.load_recipient(db, one.id).status for one in people[:3]])
    assert left == states[:3]
    counted = await rig.store.read(lambda db: db.execute("SELECT count(*) FROM bodies").fetchone())
    assert counted == (3,)


async def test_mail_of_a_tenant_that_is_gone_ends_and_other_mail_is_left_alone(rig: Rig, keeper: Upkeep) -> None:
    theirs = {"tenant_id": "gone"}
    waits, in_hand = (rig.recipient(f"{name}@rcpt.test", of=rig.message(**theirs)) for name in ("a", "b"))
    held = replace(rig.held(), message=rig.message(**theirs))
    sent = rig.recipient("d@rcpt.test", of=rig.message(**theirs), status=Status.SENT, due_at=None)
    ours = rig.recipient("c@rcpt.test")
    await rig.accept(waits, held, sent, ours)
    await rig.accept(in_hand, leased=True)
    await keeper.prune()
    await rig.settler.drained(5.0)
    ended = [await rig.load(one) for one in (waits, held)]
    assert {(one.status, one.due_at, one.reason) for one in ended} == {
        (Status.HARDFAIL, None, "The tenant gone was deleted, and with it what it had not sent yet")
    }
    states = [(await rig.load(one)).status for one in (in_hand, sent, ours)]
    assert states == [Status.PENDING, Status.SENT, Status.PENDING]
    assert (await rig.events()).count(EventKind.FAILED) == 2
    assert await rig.store.read(rows.tenants_waiting) == ["acme", "gone"]  # what is in hand


async def test_what_waits_beyond_its_lifetime_fails_wherever_it_waits(rig: Rig, keeper: Upkeep) -> None:
    now = time.time()
    over, later = rig.message(expires_at=now - 1), rig.message(expires_at=now + 3600)
    in_table = rig.recipient("table@rcpt.test", replace(over, id=rig.store.new_message_id()), due_at=now + 9000)
    held = replace(rig.held("held@rcpt.test"), message=replace(over, id=rig.store.new_message_id()))
    in_memory = rig.recipient("memory@rcpt.test", replace(over, id=rig.store.new_message_id()))
    not_yet = rig.recipient("later@rcpt.test", later, due_at=now + 9000)
    await rig.accept(in_table, held, not_yet)
    await rig.accept(in_memory, leased=True)
    assert rig.queue.reserve(["rcpt.test"], "acme", 1)
    rig.queue.hand_over([in_memory], b"x", 1)
    await keeper.end_expired()
    assert await rig.settler.drained(10)
    for one in (in_table, held, in_memory):
        found = await rig.load(one)
        assert (found.status, found.bounce_class) == (Status.HARDFAIL, "expired")
        assert found.reason.startswith("The message's own lifetime ended before it was delivered.")
    assert (await rig.load(not_yet)).status is Status.PENDING
    lane = rig.queue.lane("rcpt.test")
    assert lane is not None
    assert not lane.ready
    assert (await rig.events()).count(EventKind.FAILED) == 3
