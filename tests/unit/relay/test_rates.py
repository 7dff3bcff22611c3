"""The rate of requests: exact in any second, for whatever limit, and what the headers say of it."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.model.settings import Limits
from arkrelay.relay.rates import Rate, RateLimits, shared_key


def let_in(rates: RateLimits, per_second: float, times: list[float], key: str = "a") -> list[float]:
    """Return the times at which a request got through."""
    return [now for now in times if (rate := rates.hit(key, per_second, now)) is None or rate.wait_s is None]


@pytest.mark.parametrize(
    ("per_second", "times", "expected"),
    [
        pytest.param(3, [0, 0, 0, 0, 0.5, 0.999, 1.0, 1.0], [0, 0, 0, 1.0, 1.0], id="a-burst"),
        pytest.param(3, [0, 0.3, 0.6, 0.9, 1.1, 1.2, 1.35], [0, 0.3, 0.6, 1.1, 1.35], id="it-slides"),
        pytest.param(0.1, [0, 5, 9.99, 10, 15, 20], [0, 10, 20], id="one-in-ten-seconds"),
        pytest.param(0.5, [0, 1, 1.99, 2], [0, 2], id="one-in-two-seconds"),
        pytest.param(2.5, [0, 0, 0, 0.9, 1.0], [0, 0, 1.0], id="whole-requests-only"),
        pytest.param(1, [0, 0.999, 1], [0, 1], id="one"),
    ],
)
def test_what_gets_through(per_second: float, times: list[float], expected: list[float]) -> None:
    assert let_in(RateLimits(), per_second, times) == expected


def test_0_is_no_limit_and_says_nothing() -> None:
    rates = RateLimits()
    assert all(rates.hit("a", 0) is None for _ in range(1000))
    assert rates.look("a", 0) is None
    assert let_in(rates, 2, [0, 0, 0]) == [0, 0]  # and what went before does not count


def test_each_key_has_its_own() -> None:
    rates = RateLimits()
    assert let_in(rates, 1, [0, 0], "a") == [0]
    assert let_in(rates, 1, [0, 0], "b") == [0]


def test_a_reload_changes_the_limit_at_once() -> None:
    rates = RateLimits()
    assert len(let_in(rates, 5, [0] * 9)) == 5
    assert len(let_in(rates, 7, [0.1] * 9)) == 2
    assert let_in(rates, 2, [0.2, 0.9, 1.05, 1.1, 1.1, 2.05]) == [1.1, 1.1]
    assert let_in(rates, 0.5, [2.2, 3.0, 3.1]) == [3.1]


@given(
    st.floats(0.05, 20, allow_nan=False),
    st.lists(st.floats(0, 0.4, allow_nan=False), min_size=1, max_size=120),
)
def test_never_more_than_the_limit_within_any_second(per_second: float, gaps: list[float]) -> None:
    now, times = 1000.0, []
    for gap in gaps:
        now += gap
        times.append(now)
    passed = let_in(RateLimits(), per_second, times)
    if per_second < 1:
        assert all(later - earlier >= 1 / per_second - 1e-9 for earlier, later in pairwise(passed))
    for start in passed:
        assert sum(start <= at < start + 1 for at in passed) <= max(1, int(per_second))


def test_a_rate_says_what_is_left_and_when_to_come_again() -> None:
    rates = RateLimits()
    first, second, third = (rates.hit("a", 2, now) for now in (0.0, 0.25, 0.5))
    assert first is not None
    assert second is not None
    assert third is not None
    assert [rate.remaining for rate in (first, second, third)] == [1, 0, 0]
    assert (first.wait_s, second.wait_s, third.wait_s) == (None, None, 0.5)
    looked = rates.look("a", 2, 0.5)
    assert looked is not None
    assert (looked.remaining, looked.wait_s) == (0, None)
    assert set(first.headers) == {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}
    assert first.headers["X-RateLimit-Limit"] == "2"
    assert 0 < int(first.headers["X-RateLimit-Reset"]) - time.time() <= 2


@pytest.mark.parametrize(
    ("wait_s", "expected"), [(None, 1), (0.001, 1), (1.0, 1), (1.2, 2), (60.0, 60), (1000.0, 60)]
)
def test_clients_are_never_told_a_wait_that_they_would_not_heed(wait_s: float | None, expected: int) -> None:
    assert Rate(1, 0, 0, wait_s).retry_after_s == expected


def test_mail_counts_with_the_requests_of_its_tenant_only_where_it_is_set() -> None:
    rates = RateLimits()
    apart = Limits(api_requests_per_s=2)
    assert [rates.hit_by_mail("acme", apart) for _ in range(5)] == [None] * 5
    together = Limits(api_requests_per_s=2, rate_shared_with_smtp=True)
    assert rates.hit(shared_key("acme"), 2) is not None
    assert [rate and rate.wait_s is None for rate in (rates.hit_by_mail("acme", together) for _ in range(3))] == [
        True,
        False,
        False,
    ]
    other = rates.hit_by_mail("other", together)
    assert other is not None
    assert other.wait_s is None
    assert rates.hit_by_mail("acme", Limits(api_requests_per_s=0, rate_shared_with_smtp=True)) is None
    assert shared_key("acme") not in {"acme", "acme/", "/acme"}
