"""When an event is posted again, and how many posts an endpoint gets: tables, and a day of a dead endpoint."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.policy.hookpace import (
    FIRST_REST_S,
    LONGEST_REST_S,
    RESTS_AFTER,
    Pace,
    lifetime_s,
    longest_wait_s,
    next_post_at,
    wish,
)

RETRY_S = (60.0, 300.0, 900.0, 3600.0, 10800.0, 21600.0, 43200.0, 86400.0, 86400.0)
NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("attempts", "dice", "wish_s", "wait_s"),
    [
        pytest.param(1, 0, None, 60, id="first"),
        pytest.param(9, 0, None, 86400, id="ninth"),
        pytest.param(10, 0, None, None, id="ten-attempts-and-parked"),
        pytest.param(1, 1, None, 66, id="late"),
        pytest.param(1, -1, None, 54, id="early"),
        pytest.param(1, 0, 120.0, 120, id="asked-to-wait-longer"),
        pytest.param(2, 0, 5.0, 300, id="asked-to-come-sooner-than-planned"),
        pytest.param(10, 0, 5.0, None, id="a-wish-is-no-eleventh-attempt"),
    ],
)
def test_an_event_has_the_schedule_of_the_settings(
    attempts: int, dice: float, wish_s: float | None, wait_s: float | None
) -> None:
    assert next_post_at(RETRY_S, attempts, NOW, dice, wish_s) == (None if wait_s is None else NOW + wait_s)


def test_without_a_schedule_an_event_is_posted_once() -> None:
    assert next_post_at((), 1, NOW, 0) is None
    assert lifetime_s(()) == 3600
    assert lifetime_s(RETRY_S) == pytest.approx(sum(RETRY_S) * 1.1)


@given(st.integers(1, 9), st.floats(-1, 1), st.none() | st.floats(1, 3600))
def test_no_wait_is_longer_than_the_longest(attempts: int, dice: float, wish_s: float | None) -> None:
    at = next_post_at(RETRY_S, attempts, NOW, dice, wish_s)
    assert at is not None
    assert NOW < at <= NOW + longest_wait_s(RETRY_S)


@pytest.mark.parametrize(
    ("status", "after", "expected"),
    [
        (429, 30.0, 30.0), (503, 0.0, 1.0), (503, 1e9, 3600.0), (429, None, None), (500, 30.0, None),
        (200, 9.0, None), (None, None, None),
    ],
)  # fmt: skip
def test_only_who_asks_to_be_left_alone_is_and_within_bounds(
    status: int | None, after: float | None, expected: float | None
) -> None:
    assert wish(status, after) == expected


def test_an_endpoint_gets_more_posts_while_it_answers() -> None:
    pace = Pace()
    assert pace.room(0, 10, NOW) == 1
    for window in (2, 4, 8, 10, 10):
        assert not pace.succeeded(10)
        assert pace.room(0, 10, NOW) == window
    assert pace.room(7, 10, NOW) == 3
    assert pace.room(12, 10, NOW) == 0
    pace.failed(NOW, 0)
    assert (pace.room(0, 10, NOW), pace.failing) == (5, False)  # one failure may be about one event


def test_a_dead_endpoint_is_asked_by_one_post_now_and_then() -> None:
    pace, now, asked = Pace(), NOW, 0
    while now < NOW + 86400:
        assert pace.room(0, 10, now) == 1
        assert pace.room(1, 10, now) == 0
        asked += 1
        pace.failed(now, 0)
        now = max(now, pace.rest_until)
    assert asked < 110
    assert pace.rest_until - LONGEST_REST_S < NOW + 86400
    assert pace.succeeded(10)  # and when it is back, it is told so
    assert (pace.failing, pace.room(0, 10, now)) == (False, 2)


def test_it_rests_from_the_third_failure_in_a_row() -> None:
    pace = Pace()
    for _ in range(RESTS_AFTER - 1):
        pace.failed(NOW, 0)
    assert pace.rest_until == 0
    pace.failed(NOW, 0)
    assert pace.rest_until == NOW + FIRST_REST_S
    pace.failed(NOW, 0)
    assert pace.rest_until == NOW + 2 * FIRST_REST_S
    for _ in range(100):
        pace.failed(NOW, 1)
    assert pace.rest_until == pytest.approx(NOW + LONGEST_REST_S * 1.1)


def test_a_wish_is_heeded_at_the_first_failure() -> None:
    pace = Pace()
    pace.failed(NOW, 0, 30)
    assert (pace.room(0, 10, NOW + 29), pace.room(0, 10, NOW + 30)) == (0, 1)


def test_a_wish_outlasts_the_success_of_a_post_that_was_under_way() -> None:
    pace = Pace()
    pace.failed(NOW, 0, 600)
    pace.succeeded(10)
    assert (pace.room(0, 10, NOW + 599), pace.room(0, 10, NOW + 600)) == (0, 2)
    assert pace.quiet_until == NOW + 600
