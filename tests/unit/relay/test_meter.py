"""How much a tenant has sent, counted in memory and found again after a restart."""

import time

import pytest
from unit.relay.rig import Rig

from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import Status
from arkrelay.relay.meter import HOUR_S, Meter
from arkrelay.store.accept import Insertion, insert_messages

TOP = 1_800_000_000.0 // HOUR_S * HOUR_S
DAY_S = 86_400


def of(tenant_id: str, kind: EventKind, at: float, limit: int = 10) -> Event:
    return Event(kind, at, tenant_id, data={"volume": 11, "limit": limit})


def test_the_hour_starts_anew_at_its_top_and_the_month_on_its_first(rig: Rig) -> None:
    meter = Meter(rig.store)
    meter.add("acme", 5, TOP)
    meter.add("acme", 2, TOP + HOUR_S - 1)
    assert meter.used("acme", TOP + HOUR_S - 1) == (7, 7)
    assert meter.used("acme", TOP + HOUR_S) == (0, 7)
    meter.add("acme", 1, TOP + HOUR_S)
    assert meter.used("acme", TOP + HOUR_S) == (1, 8)
    assert meter.used("acme", TOP + 31 * DAY_S) == (0, 0)


def test_tenants_are_counted_apart_and_a_message_that_did_not_come_about_is_taken_back(rig: Rig) -> None:
    meter = Meter(rig.store)
    meter.add("acme", 5, TOP)
    assert meter.used("other", TOP) == (0, 0)
    meter.add("acme", -5, TOP)
    assert meter.used("acme", TOP) == (0, 0)
    meter.add("acme", -5, TOP)
    assert meter.used("acme", TOP) == (0, 0)


@pytest.mark.parametrize("back_s", [1, HOUR_S, 30 * HOUR_S], ids=["late", "an-hour", "a-day"])
def test_a_time_before_this_hour_clears_nothing(rig: Rig, back_s: int) -> None:
    meter = Meter(rig.store)
    meter.add("acme", 3, TOP)
    assert meter.tells(of("acme", EventKind.LIMIT_EXCEEDED, TOP))
    meter.add("acme", 2, TOP - back_s)
    assert meter.used("acme", TOP - back_s)[0] == 5
    assert not meter.tells(of("acme", EventKind.LIMIT_EXCEEDED, TOP - back_s))


def test_what_an_hour_that_is_over_gives_back_is_not_taken_from_the_next(rig: Rig) -> None:
    meter = Meter(rig.store)
    meter.add("acme", 4, TOP - 1)
    meter.add("acme", 3, TOP)
    assert meter.tells(of("acme", EventKind.LIMIT_APPROACHING, TOP))
    meter.add("acme", -4, TOP - 1)
    meter.untold(of("acme", EventKind.LIMIT_APPROACHING, TOP - 1))
    assert meter.used("acme", TOP) == (3, 3)
    assert not meter.tells(of("acme", EventKind.LIMIT_APPROACHING, TOP))


def test_each_thing_is_told_of_a_limit_once_an_hour(rig: Rig) -> None:
    meter = Meter(rig.store)
    for kind in (EventKind.LIMIT_APPROACHING, EventKind.LIMIT_EXCEEDED):
        assert [meter.tells(of("acme", kind, TOP)), meter.tells(of("acme", kind, TOP + 1))] == [True, False]
        assert meter.tells(of("other", kind, TOP))
        assert meter.tells(of("acme", kind, TOP, limit=20))  # it was raised
    for kind in (EventKind.LIMIT_APPROACHING, EventKind.LIMIT_EXCEEDED):
        assert meter.tells(of("acme", kind, TOP + HOUR_S))
        meter.untold(of("acme", kind, TOP + HOUR_S))
        assert meter.tells(of("acme", kind, TOP + HOUR_S + 1))


async def test_what_was_told_of_a_limit_is_not_told_again_after_a_restart(rig: Rig) -> None:
    at = time.time()
    told = of("acme", EventKind.LIMIT_EXCEEDED, at)
    insertion = Insertion((one := rig.held()).message, [one], b"x", [told])
    await rig.store.write(lambda db: insert_messages(db, [insertion], rig.store.epoch))
    meter = Meter(rig.store)
    await meter.load(["acme", "other"])
    assert not meter.tells(of("acme", EventKind.LIMIT_EXCEEDED, at))
    assert meter.tells(of("acme", EventKind.LIMIT_APPROACHING, at))
    assert meter.tells(of("other", EventKind.LIMIT_EXCEEDED, at))


async def test_what_was_accepted_is_found_again_without_what_was_held(rig: Rig) -> None:
    at = time.time()  # the meter reads the clock, and counts by the hour
    sent = [rig.recipient(f"n{number}@rcpt.test", of=rig.message(accepted_at=at)) for number in range(3)]
    held = rig.held("kept@rcpt.test")
    await rig.accept(*sent, held)
    meter = Meter(rig.store)
    await meter.load(["acme", "other"])
    assert meter.used("acme", at) == (3, 3)
    assert meter.used("other", at) == (0, 0)
    assert (await rig.load(held)).status is Status.HELD
