"""The ready queue: who is woken when, and that no recipient is ever forgotten."""

import asyncio
import sqlite3
import time
from math import inf
from types import SimpleNamespace

import pytest
from unit.relay.rig import NOW, Rig, Stub

from arkrelay.model.message import HoldReason, Status
from arkrelay.policy.retry import longest_wait_s
from arkrelay.policy.schedule import HANDOVER_MESSAGES, Lane, Schedule, Share
from arkrelay.relay import queue
from arkrelay.store.journal import Phase
from arkrelay.store.suppressions import add

# The schedule, which needs no store.


def test_fresh_mail_stays_in_memory_while_there_is_room_and_nothing_older_waits() -> None:
    schedule = Schedule()
    assert schedule.room(["a.test"], "acme", 1000, NOW)
    schedule.note_due("old.test", "acme", NOW - 1)
    assert not schedule.room(["a.test", "old.test"], "acme", 1000, NOW)
    schedule.rest(schedule.lane("down.test"), NOW + 60, "down")
    assert not schedule.room(["down.test"], "acme", 1000, NOW)
    assert schedule.messages == 1
    assert not schedule.room(["a.test"] * HANDOVER_MESSAGES, "acme", 1000, NOW)
    schedule.free(1, 1000)
    assert schedule.room(["a.test"] * HANDOVER_MESSAGES, "acme", 1000, NOW)
    assert not schedule.room(["a.test"], "acme", 1000, NOW)


def test_a_lane_is_due_when_its_first_row_is_and_not_while_it_rests() -> None:
    schedule = Schedule()
    schedule.note_due("a.test", "acme", NOW + 10)
    schedule.note_due("a.test", "acme", NOW + 5)
    schedule.note_due("b.test", "acme", NOW)
    assert schedule.next_wakeup() == NOW
    assert [lane.destination for lane in schedule.due(NOW)] == ["b.test"]
    assert schedule.due(NOW + 4) == []
    lane = schedule.lane("a.test")
    schedule.rest(lane, NOW + 60, "down")
    assert schedule.due(NOW + 5) == []
    assert schedule.due(NOW + 60) == [lane]


def test_a_row_that_was_noted_while_a_claim_ran_is_not_forgotten() -> None:
    schedule = Schedule()
    schedule.note_due("a.test", "acme", NOW)
    (lane,) = schedule.due(NOW)
    share = lane.shares["acme"]
    share.claiming = True
    schedule.note_due("a.test", "acme", NOW + 300)  # an outcome, written behind the claim in the same batch
    share.claiming = False
    schedule.claimed(lane, share, None)  # the claim saw no more rows
    assert lane.table_due == NOW + 300
    assert schedule.next_wakeup() == NOW + 300
    assert schedule.due(NOW + 300) == [lane]
    schedule.claimed(lane, share, None)
    assert lane.table_due == inf


async def test_a_lane_gets_connections_by_its_backlog_and_none_while_it_rests(rig: Rig) -> None:
    schedule = Schedule(connections_per_lane=3)
    lane = schedule.lane("a.test")
    assert schedule.wants(lane, NOW) == 0
    schedule.note_due("a.test", "acme", NOW)
    assert schedule.wants(lane, NOW) == 1  # whoever claims will see how many there are
    for expected in (1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3):
        schedule.offer(rig.recipient("ann@a.test"))
        assert schedule.wants(lane, NOW) == expected
    schedule.rest(lane, NOW + 60, "down")
    assert schedule.wants(lane, NOW) == 0


def test_a_lane_of_which_nothing_is_known_costs_no_memory() -> None:
    schedule = Schedule()
    lane = schedule.lane("a.test")
    schedule.rest(lane, NOW + 60, "down")
    schedule.forget(lane, NOW)
    assert "a.test" in schedule.lanes
    schedule.forget(lane, NOW + 60)
    assert schedule.lanes == {}


async def test_a_lane_serves_its_tenants_in_turn_and_bulk_last(rig: Rig) -> None:
    lane = rig.queue.schedule.lane("rcpt.test")
    order: list[str] = []
    for number in range(6):
        rig.queue.schedule.offer(rig.recipient(f"bulk{number}@rcpt.test", of=rig.message(bulk=True)))
        rig.queue.schedule.offer(rig.recipient(f"first{number}@rcpt.test"))
    flood = [rig.recipient(f"flood{number}@rcpt.test", of=rig.message(tenant_id="other")) for number in range(20)]
    await rig.accept(*flood)  # in the table, and due
    rig.queue.note_due("rcpt.test", "other", NOW)
    while (one := lane.turn(NOW)) is not None and len(order) < 12:
        if not one.ready:
            await rig.queue._claim(lane, one, 50, NOW + 1)
        taken = one.take()
        lane.served(one)
        order.append(taken.address.partition("@")[0])
    assert [name[:5] for name in order[0::2]] == ["first"] * 6
    assert order[1::2] == [f"flood{number}" for number in range(6)]
    rest = [share.tenant_id for share in lane.shares.values()]
    assert sorted(rest) == ["acme", "other"]
    assert lane.shares["acme"].take().address == "bulk0@rcpt.test"


async def test_fresh_mail_of_one_tenant_does_not_queue_up_behind_the_rows_of_another(rig: Rig) -> None:
    rig.queue.note_due("rcpt.test", "flood", NOW - 1)
    assert not rig.queue.reserve(["rcpt.test"], "flood", 5)
    assert rig.queue.reserve(["rcpt.test"], "acme", 5)


# The queue.


async def test_a_lane_that_came_due_during_a_pause_is_served_after_it(rig: Rig) -> None:
    queue = rig.queue
    queue.paused = "the disk is full"
    one = rig.recipient("ann@a.test")
    await rig.accept(one, leased=True)
    queue.hand_over([one], b"x", 1)  # committed just before the pause
    queue.note_due("b.test", "acme", NOW)
    ticked_at = queue.ticked_at
    running = asyncio.create_task(queue.run())
    await rig.until(lambda: queue.ticked_at > ticked_at)
    assert rig.connections == []
    queue.paused = ""
    async with asyncio.timeout(20):
        await rig.until(lambda: {one.lane.destination for one in rig.connections} == {"a.test", "b.test"})
    queue.stopping = True
    queue.note_due("c.test", "acme", NOW - 1)
    await running


async def test_nothing_is_offered_during_a_pause_or_while_another_connection_claims(rig: Rig) -> None:
    queue, lane = rig.queue, rig.queue.schedule.lane("a.test")
    queue.note_due("a.test", "acme", NOW)
    assert queue.offers(lane)
    lane.shares["acme"].claiming = True
    assert not queue.offers(lane)
    assert await queue.next(lane) is None
    queue.schedule.offer(rig.recipient("ann@a.test"))
    assert queue.offers(lane)
    queue.paused = "the disk is full"
    assert not queue.offers(lane)
    assert await queue.next(lane) is None


async def test_a_connection_that_crashes_lets_its_lane_rest_and_is_not_started_in_a_circle(rig: Rig) -> None:
    Stub.error = RuntimeError("a bug")
    one = rig.recipient("ann@a.test")
    await rig.accept(one)
    rig.queue.note_due("a.test", "acme", NOW)
    lane = rig.queue.schedule.lane("a.test")
    rig.queue.kick(lane)
    started = len(rig.connections)
    async with asyncio.timeout(20):
        await rig.until(lambda: rig.queue.connections == 0)
    assert len(rig.connections) == started
    assert lane.rest_until > time.time() + 30
    assert "RuntimeError" in lane.rest_reason
    rig.queue.end_rests(["a.test"])
    assert len(rig.connections) == 2 * started


async def test_a_claim_that_the_store_refuses_is_tried_again_a_little_later(rig: Rig) -> None:
    lane = rig.queue.schedule.lane("a.test")
    await rig.accept(rig.recipient("ann@a.test"))
    rig.queue.note_due("a.test", "acme", NOW)
    await rig.store.write(lambda db: db.execute("ALTER TABLE recipients RENAME TO gone"))
    assert await rig.queue.next(lane) is None
    assert time.time() < lane.table_due <= time.time() + 2
    assert not rig.queue.offers(lane)
    await rig.store.write(lambda db: db.execute("ALTER TABLE gone RENAME TO recipients"))
    lane.shares["acme"].table_due = NOW
    assert await rig.queue.next(lane) is not None


async def test_what_is_claimed_was_due_when_the_host_failed_and_not_put_back_later(rig: Rig) -> None:
    lane = rig.queue.schedule.lane("a.test")
    early, late = rig.recipient("early@a.test"), rig.recipient("late@a.test", due_at=NOW + 1)
    await rig.accept(early, late)
    rig.queue.note_due("a.test", "acme", NOW)
    assert [one.id for one in await rig.queue.all_due(lane, NOW)] == [early.id]
    assert await rig.queue.all_due(lane, NOW) == []
    assert lane.table_due == NOW + 1


async def test_an_address_that_was_suppressed_meanwhile_is_held_at_the_claim_whatever_its_case(rig: Rig) -> None:
    people = [rig.recipient(f"{name}@a.test") for name in ("Ann", "ann", "ANN", "bob")]
    passed = rig.recipient("ann@a.test", hold_reason=HoldReason.SUPPRESSED)  # a person has passed over the list
    await rig.accept(*people, passed)
    await rig.store.write(lambda db: add(db, "acme", "ann@a.test", "asked us to stop", NOW))
    rig.queue.note_due("a.test", "acme", NOW)
    lane = rig.queue.schedule.lane("a.test")
    served = []
    while (one := await rig.queue.next(lane)) is not None:
        served.append(one.id)
    assert sorted(served) == [people[3].id, passed.id]
    assert await rig.settler.drained(10)
    for one in people[:3]:
        kept = await rig.load(one)
        assert (kept.status, kept.hold_reason) == (Status.HELD, HoldReason.SUPPRESSED)
        assert "(reason: asked us to stop)" in kept.reason


async def test_stopping_puts_back_what_was_ready_and_not_begun(rig: Rig) -> None:
    one = rig.recipient("ann@a.test")
    await rig.accept(one, leased=True)
    rig.queue.schedule.offer(one)
    assert await rig.queue.stop(5)
    assert list(await rig.store.read(lambda db: db.execute("SELECT lease FROM recipients").fetchall())) == [(0,)]


async def test_stopping_does_not_wait_for_a_database_that_is_locked(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arkrelay.relay.queue.RELEASE_S", 0.1)
    other = sqlite3.connect(rig.store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        async with asyncio.timeout(5):
            assert await rig.queue.stop(5)
    finally:
        other.execute("ROLLBACK")
        other.close()


async def test_after_a_crash_each_recipient_is_treated_as_its_journal_says(rig: Rig) -> None:
    taken, dotted, talking, begun = (rig.recipient(f"{name}@a.test") for name in ("taken", "dot", "talk", "none"))
    await rig.accept(taken, dotted, talking, begun)
    await rig.store.write(lambda db: db.execute("UPDATE recipients SET lease = 999"))  # of a dead process
    left = {taken.id: Phase.TAKEN, dotted.id: Phase.DOT, talking.id: Phase.TALKING}
    await rig.queue.recover(left, rebooted=False)
    assert await rig.settler.drained(10)
    assert (await rig.load(taken)).status is Status.SENT
    uncertain = await rig.load(dotted)
    assert (uncertain.status, uncertain.uncertain) == (Status.PENDING, 1)
    for one in (talking, begun):
        assert (await rig.load(one)).uncertain == 0
    lane = rig.queue.lane("a.test")
    assert lane is not None
    assert lane.table_due <= time.time()


async def test_after_a_power_cut_all_that_was_in_hand_is_uncertain(rig: Rig) -> None:
    people = [rig.recipient(f"{name}@a.test") for name in ("one", "two")]
    await rig.accept(*people)
    await rig.store.write(lambda db: db.execute("UPDATE recipients SET lease = 999"))
    await rig.queue.recover({}, rebooted=True)
    assert await rig.settler.drained(10)
    assert [(await rig.load(one)).uncertain for one in people] == [1, 1]


async def test_content_is_kept_in_memory_only_while_somebody_needs_it(rig: Rig) -> None:
    of = rig.message()
    people = [rig.recipient(f"{name}@a.test", of) for name in ("one", "two")]
    assert rig.queue.reserve(["a.test", "a.test"], "acme", 5)
    rig.queue.hand_over(people, b"hello", 2)
    assert await rig.queue.content(people[0]) == b"hello"
    rig.queue.finished(people[0])
    assert rig.queue.schedule.messages == 2
    rig.queue.finished(people[1])
    assert (rig.queue.schedule.messages, rig.queue.schedule.bytes) == (0, 0)
    assert len(rig.queue._contents) == 0


def test_a_lane_knows_whether_it_has_work() -> None:
    lane = Lane("a.test")
    assert not lane.has_work(NOW)
    lane.shares["acme"] = Share("acme", table_due=NOW)
    assert lane.has_work(NOW)
    assert not lane.has_work(NOW - 1)


async def test_a_clock_that_is_set_back_leaves_nobody_waiting_for_days(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_s = 20 * 86400.0
    waiting = rig.recipient(due_at=NOW + 60)
    await rig.accept(waiting)
    rig.queue.note_due(waiting.destination, "acme", NOW + 60)
    running = asyncio.create_task(rig.queue.run())
    await asyncio.sleep(0)  # it has read the clock
    behind = SimpleNamespace(time=lambda: time.time() - back_s, monotonic=time.monotonic)
    monkeypatch.setattr(queue, "time", behind)
    rig.queue.note_due(waiting.destination, "acme", NOW - back_s)  # wakes the loop
    longest_s = longest_wait_s(rig.live.snapshot.settings.delivery.retry_policy())
    async with asyncio.timeout(20):
        while (await rig.load(waiting)).due_at == NOW + 60:
            await asyncio.sleep(0.01)
    due_at = (await rig.load(waiting)).due_at
    assert due_at is not None
    assert due_at <= behind.time() + longest_s
    rig.queue.stopping = True
    rig.queue.note_due(waiting.destination, "acme", NOW - back_s)
    await running


def change_acme(rig: Rig, text: str | None) -> None:
    """Put another file of the tenant in force, or none."""
    if text is None:
        (rig.folder.root / "tenants" / "acme.toml").unlink()
    else:
        rig.folder.tenant("acme", text)
    rig.live.reload()


HELD = "[[credentials]]\nname = 'app'\nsecret = 'secret-of-app'\nhold = true\n"


@pytest.mark.parametrize(
    ("text", "status", "reason", "words"),
    [
        (None, Status.HARDFAIL, None, "The tenant acme was deleted, and with it what it had not sent yet"),
        ("status = 'suspended'\n", Status.HELD, HoldReason.TENANT, "The tenant acme was suspended when this was due"),
        (HELD, Status.HELD, HoldReason.CREDENTIAL, "The credential app was on hold when this was due"),
    ],
)
@pytest.mark.parametrize("unreachable", [False, True])
async def test_mail_whose_sender_may_no_longer_send_is_settled_with_the_reason(
    rig: Rig,
    text: str | None,
    status: Status,
    reason: HoldReason | None,
    words: str,
    unreachable: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue, "FAIL_BATCH", 1)
    mine = rig.message(credential="app")
    first, second = rig.recipient("a@rcpt.test", of=mine), rig.recipient("b@rcpt.test")
    await rig.accept(first, second)
    lane = rig.queue.schedule.lane("rcpt.test")
    rig.queue.note_due("rcpt.test", "acme", NOW)
    change_acme(rig, text)
    passing = [] if text != HELD else [second.id]  # sent without that credential
    if unreachable:
        found = await rig.queue.all_due(lane, time.time())
        assert [one.id for one in found] == passing
    else:
        one = await rig.queue.next(lane)
        assert ([] if one is None else [one.id]) == passing
    await rig.settler.drained(5.0)
    for recipient in (first, second):
        now = await rig.load(recipient)
        if recipient.id in passing:
            assert now.status is Status.PENDING
        else:
            assert (now.status, now.hold_reason, now.reason) == (status, reason, words)
    assert rig.queue._contents._held.keys() <= {second.message.id}


async def test_a_release_passes_over_the_hold_of_a_credential_and_not_over_a_suspension(rig: Rig) -> None:
    change_acme(rig, HELD)
    one = rig.recipient(of=rig.message(credential="app"), hold_reason=HoldReason.CREDENTIAL)
    await rig.accept(one)
    lane = rig.queue.schedule.lane("rcpt.test")
    rig.queue.note_due("rcpt.test", "acme", NOW)
    change_acme(rig, HELD + "[metadata]\n")
    found = await rig.queue.next(lane)
    assert found is not None
    rig.queue.schedule.offer(found)
    change_acme(rig, "status = 'archived'\n")
    assert await rig.queue.next(lane) is None
    await rig.settler.drained(5.0)
    assert (await rig.load(one)).hold_reason is HoldReason.TENANT


async def test_what_comes_back_from_a_peer_is_held_when_its_address_was_suppressed_meanwhile(rig: Rig) -> None:
    queue, lane = rig.queue, rig.queue.schedule.lane("rcpt.test")
    ann, other, passed = (
        rig.recipient("Ann@rcpt.test"),
        rig.recipient("bob@rcpt.test"),
        rig.recipient("ann@rcpt.test", hold_reason=HoldReason.SUPPRESSED),  # a person has released it
    )
    for one in (ann, other, passed):
        await rig.accept(one, leased=True)
        queue.hand_over([one], b"x", 1)
    in_hand = [await queue.next(lane) for _ in range(3)]
    await rig.store.write(lambda db: add(db, "acme", "ann@rcpt.test", "asked", NOW))
    queue.note_suppressed("acme", ["ann@rcpt.test"])
    await rig.until(lambda: bool(queue._recall._reasons))
    for back in in_hand:
        assert back is not None
        queue.put_back(lane, back)
    assert await rig.settler.drained(10)
    assert ((await rig.load(ann)).status, (await rig.load(ann)).hold_reason) == (Status.HELD, HoldReason.SUPPRESSED)
    assert [one.id for one in lane.take_all()] == [passed.id, other.id]
    assert not queue._recall._in_hand
