"""What a person does to mail: each verb, to one, to many, to what cannot be touched now."""

import asyncio
import time
from math import inf
from typing import Any

import pytest
from unit.relay.rig import NOW, Rig

from arkrelay.model.errors import Conflict, NotFound
from arkrelay.model.event import EventKind
from arkrelay.model.message import HoldReason, Recipient, Status
from arkrelay.relay import operate
from arkrelay.relay.operate import Operator, Selection, Verb
from arkrelay.store.prune import prune_step


@pytest.fixture
def operator(rig: Rig) -> Operator:
    return Operator(rig.store, rig.queue, rig.live, rig.meter)


def in_state(rig: Rig, status: Status, address: str = "ann@a.test") -> Recipient:
    if status is Status.HELD:
        return rig.held(address)
    queued = status in {Status.PENDING, Status.SOFTFAIL}
    return rig.recipient(address, status=status, due_at=NOW + 10**9 if queued else None)


@pytest.mark.parametrize(
    ("verb", "before", "after"),
    [
        *((Verb.RETRY, status, Status.PENDING) for status in Status if status is not Status.SENT),
        (Verb.RETRY, Status.SENT, None),
        (Verb.RELEASE, Status.HELD, Status.PENDING),
        *((Verb.RELEASE, status, None) for status in Status if status is not Status.HELD),
        (Verb.HOLD, Status.PENDING, Status.HELD),
        (Verb.HOLD, Status.SOFTFAIL, Status.HELD),
        *((Verb.HOLD, status, None) for status in (Status.SENT, Status.HARDFAIL, Status.BOUNCED, Status.HELD)),
        (Verb.DELETE, Status.PENDING, Status.HARDFAIL),
        (Verb.DELETE, Status.SOFTFAIL, Status.HARDFAIL),
        (Verb.DELETE, Status.HELD, Status.HARDFAIL),
        *((Verb.DELETE, status, None) for status in (Status.SENT, Status.HARDFAIL, Status.BOUNCED)),
    ],
)
async def test_a_verb_changes_what_it_applies_to_and_refuses_the_rest(
    rig: Rig, operator: Operator, verb: Verb, before: Status, after: Status | None
) -> None:
    one = in_state(rig, before)
    await rig.accept(one)
    if after is None:
        with pytest.raises(Conflict, match=f"{one.token} is {before}: there is nothing to {verb}"):
            await operator.one(verb, one.token, None)
        assert (await rig.load(one)).status is before
        return
    await operator.one(verb, one.token, "acme")
    kept = await rig.load(one)
    assert kept.status is after
    assert "by hand" in kept.reason
    lane = rig.queue.lane("a.test")
    due = inf if lane is None else lane.table_due
    assert (due <= time.time()) is (after is Status.PENDING)


async def test_the_mail_of_another_tenant_is_unknown(rig: Rig, operator: Operator) -> None:
    one = in_state(rig, Status.HELD)
    await rig.accept(one)
    for token, tenant in ((one.token, "other"), ("nothing", None)):
        with pytest.raises(NotFound, match="there is no message"):
            await operator.one(Verb.RELEASE, token, tenant)
    assert (await operator.many(Verb.RELEASE, Selection(tokens=(one.token,), tenant_id="other"))).count == 0
    assert (await rig.load(one)).status is Status.HELD


async def test_what_a_connection_has_in_hand_is_left_alone(rig: Rig, operator: Operator) -> None:
    one = in_state(rig, Status.SOFTFAIL)
    await rig.accept(one, leased=True)
    with pytest.raises(Conflict, match="is being delivered at this moment"):
        await operator.one(Verb.HOLD, one.token, None)
    assert (await operator.many(Verb.DELETE, Selection())).count == 0


async def test_a_retry_of_mail_whose_content_is_gone_says_so(rig: Rig, operator: Operator) -> None:
    one = in_state(rig, Status.HARDFAIL)
    await rig.accept(one)
    retention = rig.live.snapshot.settings.retention
    await rig.store.write(lambda db: prune_step(db, NOW + retention.content_s + 1, retention))
    with pytest.raises(Conflict, match="past its retention and was deleted"):
        await operator.one(Verb.RETRY, one.token, None)


@pytest.mark.parametrize(
    ("verb", "status"),
    [
        (Verb.RETRY, Status.SOFTFAIL),
        (Verb.RELEASE, Status.HELD),
        (Verb.HOLD, Status.SOFTFAIL),
        (Verb.DELETE, Status.HELD),
    ],
)
async def test_more_than_one_batch_is_changed_whole(
    rig: Rig, operator: Operator, monkeypatch: pytest.MonkeyPatch, verb: Verb, status: Status
) -> None:
    monkeypatch.setattr(operate, "BATCH", 10)
    people = [in_state(rig, status, f"n{number}@a.test") for number in range(35)]
    await rig.accept(*people)
    assert (await operator.many(verb, Selection(statuses=frozenset({status})))).count == 35
    assert {(await rig.load(one)).status for one in people}.isdisjoint({status})


async def test_what_is_deferred_again_meanwhile_is_not_taken_up_again(
    rig: Rig, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operate, "BATCH", 10)
    people = [in_state(rig, Status.SOFTFAIL, f"n{number}@a.test") for number in range(35)]  # of one time
    await rig.accept(*people)
    batch = operator._batch

    async def fails_at_once(*given: Any, **more: Any) -> Any:
        done = await batch(*given, **more)
        await rig.store.write(lambda db: db.execute("UPDATE recipients SET status = 'softfail'"))
        return done

    monkeypatch.setattr(operator, "_batch", fails_at_once)
    assert (await operator.many(Verb.RETRY, Selection(statuses=frozenset({Status.SOFTFAIL})))).count == 35


async def test_a_retry_of_many_passes_over_those_whose_content_is_gone(rig: Rig, operator: Operator) -> None:
    gone, kept = in_state(rig, Status.HARDFAIL), in_state(rig, Status.HARDFAIL, "bob@a.test")
    await rig.accept(gone, kept)
    await rig.store.write(lambda db: db.execute("DELETE FROM bodies WHERE message_id = ?", (gone.message.id,)))
    assert (await operator.many(Verb.RETRY, Selection(statuses=frozenset({Status.HARDFAIL})))).count == 1
    assert ((await rig.load(gone)).status, (await rig.load(kept)).status) == (Status.HARDFAIL, Status.PENDING)


async def test_everything_that_waits_is_tried_at_once(rig: Rig, operator: Operator) -> None:
    deferred = [in_state(rig, Status.SOFTFAIL, f"n{number}@a.test") for number in range(3)]
    fresh, failed, held = (
        rig.recipient("new@b.test"),
        in_state(rig, Status.HARDFAIL, "gone@a.test"),
        rig.held("kept@a.test"),
    )
    await rig.accept(*deferred, fresh, failed, held)
    rig.queue.note_due("b.test", "acme", NOW)
    lane = rig.queue.schedule.lane("b.test")
    rig.queue.schedule.rest(lane, time.time() + 900, "it was down")
    queued = frozenset({Status.PENDING, Status.SOFTFAIL})
    assert (await operator.many(Verb.RETRY, Selection(statuses=queued))).count == 3
    assert lane.rest_until <= time.time()
    assert {one.lane.destination for one in rig.connections} >= {"b.test"}
    assert (await rig.load(failed)).status is Status.HARDFAIL
    assert (await rig.load(held)).status is Status.HELD


async def test_a_selection_is_by_domain_address_and_status(rig: Rig, operator: Operator) -> None:
    ann, bob, other = (
        in_state(rig, Status.SOFTFAIL, address) for address in ("ann@a.test", "bob@a.test", "x@b.test")
    )
    await rig.accept(ann, bob, other)
    assert (await operator.many(Verb.HOLD, Selection(domain="a.test", address="ANN@a.test"))).count == 1
    assert (await rig.load(ann)).hold_reason is HoldReason.OPERATOR
    assert (await operator.many(Verb.HOLD, Selection(domain="a.test"))).count == 1
    assert (await rig.load(bob)).status is Status.HELD
    assert (await rig.load(other)).status is Status.SOFTFAIL
    assert (await operator.many(Verb.HOLD, Selection(statuses=frozenset({Status.HELD})))).count == 0


async def test_a_retry_ends_the_rest_of_its_destination(rig: Rig, operator: Operator) -> None:
    one = in_state(rig, Status.SOFTFAIL)
    await rig.accept(one)
    lane = rig.queue.schedule.lane("a.test")
    lane.rest_site = "a.test"
    rig.queue.schedule.rest(lane, rig.queue.pace.failed("a.test", time.time(), 0.0), "it was down")
    await operator.one(Verb.RETRY, one.token, None)
    running = asyncio.create_task(rig.queue.run())
    async with asyncio.timeout(20):
        await rig.until(lambda: bool(rig.connections))
    assert rig.queue.pace.may_connect("a.test", time.time())
    rig.queue.stopping = True
    rig.queue.note_due("a.test", "acme", NOW - 1)
    await running


async def test_a_tenants_retry_of_all_leaves_other_tenants_destinations_at_rest(rig: Rig, operator: Operator) -> None:
    until = time.time() + 1000
    for destination, tenant_id in (("a.test", "acme"), ("b.test", "other")):
        rig.queue.note_due(destination, tenant_id, NOW + 10**9)
        rig.queue.schedule.rest(rig.queue.schedule.lane(destination), until, "it was down")
    await operator.many(Verb.RETRY, Selection(tenant_id="acme", statuses=frozenset({Status.PENDING})))
    assert [rig.queue.schedule.lane(one).rest_until for one in ("a.test", "b.test")] == [0.0, until]
    await operator.many(Verb.RETRY, Selection(statuses=frozenset({Status.PENDING})))
    assert rig.queue.schedule.lane("b.test").rest_until == 0.0


async def test_each_verb_leaves_an_event(rig: Rig, operator: Operator) -> None:
    one = in_state(rig, Status.SOFTFAIL)
    await rig.accept(one)
    for verb in (Verb.HOLD, Verb.RELEASE, Verb.DELETE):
        await operator.one(verb, one.token, None)
    assert await rig.events() == [EventKind.HELD, EventKind.RELEASED, EventKind.FAILED]
