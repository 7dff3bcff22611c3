from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.policy.limits import Level, SlidingWindow, hour_end, hour_start, level, month_start, network_of, warns


def test_a_window_allows_its_limit_and_again_when_the_first_is_old() -> None:
    window = SlidingWindow(3, 60)
    assert [window.hit("a", at) for at in (0, 10, 20, 59.9)] == [True, True, True, False]
    assert window.full("a", 59.9)
    assert window.wait_s("a", 50) == 10
    assert window.hit("a", 60)
    assert window.count("a", 60) == 3
    assert window.wait_s("a", 60) == 10


def test_keys_do_not_share_a_window() -> None:
    window = SlidingWindow(1, 60)
    assert window.hit("a", 0)
    assert window.hit("b", 0)
    assert not window.hit("a", 1)


def test_a_forgotten_key_is_as_good_as_new() -> None:
    window = SlidingWindow(1, 60)
    window.hit("a", 0)
    window.forget("a")
    window.forget("never seen")
    assert window.count("a", 0) == 0
    assert window.hit("a", 0)


def test_a_limit_of_0_is_none_and_remembers_nothing() -> None:
    window = SlidingWindow(0, 60)
    assert all(window.hit("a", 0) for _ in range(1000))
    assert not window.full("a", 0)
    assert window.wait_s("a", 0) == 0
    assert len(window) == 0


def test_a_lowered_limit_waits_for_enough_to_be_old() -> None:
    window = SlidingWindow(3, 60)
    for at in (0, 10, 20):
        window.hit("a", at)
    window.limit = 1
    assert window.wait_s("a", 30) == 50
    assert window.hit("a", 80)


def test_idle_keys_are_forgotten() -> None:
    window = SlidingWindow(5, 60)
    for key in range(100):
        window.hit(key, 0)
    for key in range(100, 200):
        window.hit(key, 61)
    assert len(window) == 100


def test_a_look_at_an_idle_key_forgets_it() -> None:
    window = SlidingWindow(5, 60)
    window.hit("a", 0)
    assert window.count("a", 60) == 0
    assert len(window) == 0


def test_too_many_keys_push_out_the_one_idle_for_longest() -> None:
    window = SlidingWindow(2, 60, max_keys=2)
    window.hit("old", 0)
    window.hit("busy", 1)
    window.hit("busy", 2)
    window.hit("new", 3)
    assert window.full("busy", 3)
    assert window.count("old", 3) == 0
    assert len(window) == 2


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(0, 8), st.floats(0, 30)), max_size=80),
)
def test_no_key_ever_gets_more_than_its_limit_in_any_window(limit: int, hits: list[tuple[int, float]]) -> None:
    window = SlidingWindow(limit, 60, max_keys=1000)
    now, allowed = 0.0, dict[int, list[float]]()
    for key, step in hits:
        now += step
        recent = [at for at in allowed.get(key, []) if at > now - 60]
        assert window.count(key, now) == len(recent)
        assert window.hit(key, now) == (len(recent) < limit)
        if len(recent) < limit:
            allowed.setdefault(key, []).append(now)


@given(st.lists(st.integers(0, 50), max_size=200))
def test_memory_is_bounded_whoever_comes(keys: list[int]) -> None:
    window = SlidingWindow(3, 60, max_keys=7)
    for at, key in enumerate(keys):
        window.hit(key, at)
        assert len(window) <= 7


@pytest.mark.parametrize(
    ("used", "limit", "adding", "expected"),
    [
        (0, 0, 10**9, Level.WITHIN),
        (0, 1000, 900, Level.WITHIN),
        (0, 1000, 901, Level.APPROACHING),
        (999, 1000, 1, Level.APPROACHING),
        (999, 1000, 2, Level.EXCEEDED),
        (1000, 1000, 0, Level.EXCEEDED),
        (999, 1000, 0, Level.APPROACHING),
        (900, 1000, 0, Level.WITHIN),
        (5000, 1000, 1, Level.EXCEEDED),
        (0, 1, 1, Level.APPROACHING),
    ],
)
def test_a_level_of_use(used: int, limit: int, adding: int, expected: Level) -> None:
    assert level(used, limit, adding) is expected


@given(st.integers(1, 500), st.lists(st.integers(1, 60), max_size=60))
def test_a_limit_warns_once(limit: int, messages: list[int]) -> None:
    used, warnings = 0, 0
    for recipients in messages:
        if level(used, limit, recipients) is Level.EXCEEDED:
            continue
        warnings += warns(used, limit, recipients)
        used += recipients
    assert used <= limit
    assert warnings == (used > limit * 0.9)


def test_no_limit_never_warns() -> None:
    assert not warns(0, 0, 10**9)


def test_hours_and_months_begin_in_utc() -> None:
    now = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
    assert hour_start(now) == datetime(2026, 12, 31, 23, tzinfo=UTC).timestamp()
    assert hour_end(now) == datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    assert month_start(now) == datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    assert hour_end(hour_end(now)) == hour_end(now) + 3600


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_one_client_is_an_ipv4_address_or_a_64(address: str, network: str) -> None:
    assert network_of(address) == network
