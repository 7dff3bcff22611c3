"""The ramp of a new address: from day to day, slower where a site objects."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.model.delivery import Warmup
from arkrelay.policy.warmup import DAY_S, JITTER_S, Warmups

DAY = 20_000 * DAY_S + 5 * 3600.0  # five in the morning, UTC
RAMP = Warmup(daily=(2, 4, 8), deferred_max=0.25)


def carry(warmups: Warmups, n: int, now: float, *, deferred: int = 0, lane: str = "google@192.0.2.1") -> None:
    for _ in range(n):
        warmups.started(lane, now)
    for _ in range(deferred):
        warmups.deferred(lane, now)


def test_each_day_with_mail_carries_more_until_the_lane_is_warm() -> None:
    warmups, lane, budgets = Warmups(lambda: RAMP), "google@192.0.2.1", []
    for day in range(4):
        budgets.append(warmups.left(lane, DAY + day * DAY_S))
        carry(warmups, 1, DAY + day * DAY_S)
    assert budgets == [2, 4, 8, None]


def test_what_is_carried_today_is_left_no_more_and_comes_back_tomorrow() -> None:
    warmups, lane = Warmups(lambda: RAMP), "google@192.0.2.1"
    carry(warmups, 2, DAY)
    assert warmups.left(lane, DAY + 3600) == 0
    carry(warmups, 1, DAY + 3600)  # one that was under way
    assert warmups.left(lane, DAY + 3600) == 0
    assert warmups.left(lane, DAY + DAY_S) == 4
    assert warmups.left("yahoo@192.0.2.1", DAY) == 2  # each site learns by itself


def test_a_day_without_mail_teaches_nobody_anything() -> None:
    warmups, lane = Warmups(lambda: RAMP), "google@192.0.2.1"
    carry(warmups, 2, DAY)
    assert warmups.left(lane, DAY + 5 * DAY_S) == 4
    assert warmups.left(lane, DAY + 9 * DAY_S) == 4


@pytest.mark.parametrize(("deferred", "tomorrow"), [(0, 4), (1, 4), (2, 2)])
def test_a_day_on_which_the_site_objects_too_often_is_repeated(deferred: int, tomorrow: int) -> None:
    warmups = Warmups(lambda: Warmup(daily=(2, 4), deferred_max=0.5))
    carry(warmups, 2, DAY, deferred=deferred)
    assert warmups.left("google@192.0.2.1", DAY + DAY_S) == tomorrow


def test_after_a_month_of_silence_the_address_is_new_again() -> None:
    warmups, lane = Warmups(lambda: RAMP), "google@192.0.2.1"
    for day in range(3):
        carry(warmups, 1, DAY + day * DAY_S)
    assert warmups.left(lane, DAY + 3 * DAY_S) is None
    assert warmups.left(lane, DAY + 60 * DAY_S) == 2


def test_a_clock_that_is_set_back_gives_no_second_day() -> None:
    warmups, lane = Warmups(lambda: RAMP), "google@192.0.2.1"
    carry(warmups, 2, DAY)
    assert warmups.left(lane, DAY - 10 * DAY_S) == 0


def test_a_message_that_was_put_back_is_not_counted() -> None:
    warmups, lane = Warmups(lambda: RAMP), "google@192.0.2.1"
    carry(warmups, 2, DAY)
    warmups.put_back(lane, DAY)
    assert warmups.left(lane, DAY) == 1


def test_a_restart_goes_on_where_the_last_process_was() -> None:
    warmups, lane = Warmups(lambda: RAMP), "google@192.0.2.1"
    carry(warmups, 1, DAY)
    carry(warmups, 3, DAY + DAY_S)
    kept = warmups.learned()
    assert warmups.learned() == []
    again = Warmups(lambda: RAMP)
    again.restore(kept)
    assert again.left(lane, DAY + DAY_S) == 1
    assert again.left(lane, DAY + 2 * DAY_S) == 8


@given(now=st.floats(0, 4e9), dice=st.floats(0, 1))
def test_the_next_day_is_ahead_and_at_most_a_day_and_the_jitter_away(now: float, dice: float) -> None:
    at = Warmups(lambda: RAMP).next_day_at(now, dice)
    assert now < at <= now + DAY_S + JITTER_S
