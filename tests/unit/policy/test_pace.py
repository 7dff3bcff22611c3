import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from arkrelay.policy.pace import FIRST_REST_S, JITTER, LONGEST_REST_S, SLOW_S, Capacity, Order, Pace


def test_a_site_gets_as_many_connections_as_the_limit() -> None:
    pace = Pace(lambda _lane: Capacity(2))
    pace.connected("mx")
    assert pace.may_connect("mx", 0)
    pace.connected("mx")
    assert not pace.may_connect("mx", 0)
    assert pace.next_connect_at("mx", 7) == 7
    assert pace.may_connect("other", 0)
    pace.closed("mx", 0)
    assert pace.may_connect("mx", 0)


def test_a_limit_of_0_is_none() -> None:
    pace = Pace(lambda _lane: Capacity(0))
    for _ in range(1000):
        pace.connected("mx")
    assert pace.may_connect("mx", 0)


def test_a_changed_limit_holds_at_once() -> None:
    limits = [5]
    pace = Pace(lambda _lane: Capacity(limits[0]))
    pace.connected("mx")
    limits[0] = 1
    assert not pace.may_connect("mx", 0)


def test_rests_double_up_to_the_longest() -> None:
    pace, now, rests = Pace(lambda _lane: Capacity(5)), 0.0, []
    for _ in range(20):
        until = pace.failed("mx", now, 0)
        rests.append(until - now)
        now = until
    assert rests[:5] == [60, 120, 240, 480, 900]
    assert set(rests[4:]) == {LONGEST_REST_S}


def test_a_resting_site_may_not_be_connected() -> None:
    pace = Pace(lambda _lane: Capacity(5))
    until = pace.failed("mx", 1000, 0)
    assert until == 1000 + FIRST_REST_S
    assert not pace.may_connect("mx", until - 1)
    assert pace.next_connect_at("mx", 1000) == until
    assert pace.may_connect("mx", until)
    assert pace.next_connect_at("mx", until + 5) == until + 5


def test_after_a_rest_one_connection_tries_alone() -> None:
    pace = Pace(lambda _lane: Capacity(5))
    until = pace.failed("mx", 0, 0)
    pace.connected("mx")
    assert not pace.may_connect("mx", until)
    pace.succeeded("mx", 0)
    assert pace.may_connect("mx", until)


def test_connections_that_fail_together_are_one_failure() -> None:
    pace = Pace(lambda _lane: Capacity(5))
    until = pace.failed("mx", 0, 0)
    assert [pace.failed("mx", at, 1) for at in (0, 1, 59)] == [until] * 3
    assert pace.failed("mx", until, 0) == until + 2 * FIRST_REST_S


def test_a_success_forgets_the_failures() -> None:
    pace = Pace(lambda _lane: Capacity(5))
    until = pace.failed("mx", 0, 0)
    pace.succeeded("mx", 0)
    assert pace.may_connect("mx", 0)
    assert pace.failed("mx", until, 0) == until + FIRST_REST_S


def test_what_is_not_known_is_left_alone() -> None:
    pace = Pace(lambda _lane: Capacity(5))
    pace.closed("mx", 0)
    pace.succeeded("mx", 0)
    pace.connected("mx")
    pace.succeeded("mx", 0)
    pace.closed("mx", 0)
    pace.closed("mx", 0)
    assert len(pace) == 0


def test_one_close_too_many_lets_nobody_in() -> None:
    pace = Pace(lambda _lane: Capacity(1))
    pace.failed("mx", 0, 0)
    pace.closed("mx", 0)
    pace.connected("mx")
    assert not pace.may_connect("mx", 10**6)


def test_a_clock_set_back_ends_a_rest() -> None:
    pace = Pace(lambda _lane: Capacity(5))
    pace.failed("mx", 10**9, 0)
    assert pace.may_connect("mx", 0)
    assert pace.next_connect_at("mx", 0) == 0
    assert pace.failed("mx", 0, 0) == 2 * FIRST_REST_S


def test_only_the_latest_failures_are_remembered() -> None:
    pace = Pace(lambda _lane: Capacity(5), max_lanes=3)
    pace.connected("open")
    for at in range(10):
        pace.failed(f"mx{at}", at, 0)
    assert len(pace) == 1 + 3
    assert pace.may_connect("mx6", 10)
    assert not pace.may_connect("mx7", 10)


def test_open_connections_are_never_forgotten() -> None:
    pace = Pace(lambda _lane: Capacity(1), max_lanes=1)
    for name in ("a", "b"):
        pace.connected(name)
        pace.failed(name, 0, 0)
    assert len(pace) == 2
    assert not pace.may_connect("a", 10**6)
    pace.closed("b", 0)
    pace.closed("a", 0)
    assert len(pace) == 1


@pytest.mark.parametrize("dice", [-1, 1])
def test_dice_move_a_rest_by_a_tenth(dice: float) -> None:
    assert Pace(lambda _lane: Capacity(5)).failed("mx", 0, dice) == pytest.approx(FIRST_REST_S * (1 + JITTER * dice))


class PaceMachine(RuleBasedStateMachine):
    """Sites connect, fail, succeed and close in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.pace = Pace(lambda _lane: Capacity(3), max_lanes=2)
        self.open: dict[str, int] = {}
        self.now = 1_800_000_000.0

    sites = st.sampled_from("abcd")

    @rule(step=st.floats(0, 1000))
    def wait(self, step: float) -> None:
        self.now += step

    @rule(site=sites)
    def connect(self, site: str) -> None:
        if self.pace.may_connect(site, self.now):
            self.pace.connected(site)
            self.open[site] = self.open.get(site, 0) + 1

    @rule(site=sites)
    def close(self, site: str) -> None:
        if self.open.get(site):
            self.pace.closed(site, 0)
            self.open[site] -= 1

    @rule(site=sites, dice=st.floats(-1, 1))
    def fail(self, site: str, dice: float) -> None:
        until = self.pace.failed(site, self.now, dice)
        assert self.now < until <= self.now + LONGEST_REST_S * (1 + JITTER) + 1
        assert not self.pace.may_connect(site, self.now)

    @rule(site=sites)
    def succeed(self, site: str) -> None:
        self.pace.succeeded(site, 0)
        assert self.pace.next_connect_at(site, self.now) == self.now

    @invariant()
    def bounded(self) -> None:
        assert all(count <= 3 for count in self.open.values())
        assert len(self.pace) <= 2 + sum(1 for count in self.open.values() if count)


TestPaceMachine = PaceMachine.TestCase
TestPaceMachine.settings = settings(deadline=None)


@given(st.floats(-1, 1), st.integers(1, 50))
def test_no_rest_is_ever_longer_than_the_longest(dice: float, failures: int) -> None:
    pace, now = Pace(lambda _lane: Capacity(5)), 0.0
    for _ in range(failures):
        until = pace.failed("mx", now, dice)
        assert until - now <= LONGEST_REST_S * (1 + JITTER) + 1e-3
        now = until


def test_a_slowed_lane_sends_one_message_a_minute_then_half_then_all() -> None:
    pace, now = Pace(lambda _lane: Capacity(4, rate=20)), 1_800_000_000.0
    pace.slow("mx", now, "421 too fast")
    assert (pace.capacity("mx", now).connections, pace.capacity("mx", now).rate) == (1, 1 / 60)
    pace.connected("mx")
    sent, at = 0, now
    while at < now + 600:
        wait_s = pace.wait_s("mx", at)
        if not wait_s:
            pace.started("mx", at)
            sent += 1
        at += max(wait_s, 0.5)
    assert sent == 9  # the first after a minute
    assert pace.reason("mx", now) == "421 too fast"
    half, full = now + SLOW_S, now + 2 * SLOW_S
    assert (pace.capacity("mx", half).connections, pace.capacity("mx", half).rate) == (2, 10)
    assert (pace.capacity("mx", full).connections, pace.capacity("mx", full).rate) == (4, 20)
    assert pace.reason("mx", full) == ""


def test_a_listing_rests_the_lane_for_hours_and_a_success_forgets_it() -> None:
    pace, now, rests = Pace(lambda _lane: Capacity(5)), 0.0, []
    for _ in range(6):
        until = pace.block("mx", now, 0, "listed")
        assert not pace.may_connect("mx", until - 1)
        rests.append((until - now) / 3600)
        now = until
    assert rests == [1, 2, 4, 6, 6, 6]
    pace.connected("mx")
    assert not pace.may_connect("mx", now)  # one tries alone
    pace.succeeded("mx", now)
    assert pace.block("mx", now, 0, "listed") == now + 3600


def test_connections_fall_by_half_and_are_earned_back_one_by_one() -> None:
    pace = Pace(lambda _lane: Capacity(8))
    until = pace.failed("mx", 0, 0)
    pace.succeeded("mx", until)
    seen = [pace.capacity("mx", until).connections]
    for _ in range(60):
        pace.succeeded("mx", until)
        seen.append(pace.capacity("mx", until).connections)
    assert seen[0] == 4
    assert seen == sorted(seen)
    assert seen[-1] == 8


def test_the_rate_is_kept_over_any_second_after_its_burst() -> None:
    pace, at, sent = Pace(lambda _lane: Capacity(5, rate=20)), 100.0, []
    pace.connected("mx")
    while at < 110:
        wait_s = pace.wait_s("mx", at)
        if wait_s:
            at += wait_s + 1e-6
            continue
        pace.started("mx", at)
        sent.append(at)
    assert len([one for one in sent if one < 101]) <= 40  # the burst, and what a second brings
    for second in range(102, 109):
        assert 19 <= len([one for one in sent if second <= one < second + 1]) <= 21


def test_what_was_learned_and_ordered_outlives_the_process() -> None:
    pace, now = Pace(lambda _lane: Capacity(5)), 1_800_000_000.0
    pace.slow("slow", now, "busy")
    until = pace.block("blocked", now, 0, "listed")
    pace.order("rests", Order(rest=True))
    pace.order("limited", Order(connections=2, rate=1.0))
    kept = pace.learned()
    assert pace.learned() == []
    again = Pace(lambda _lane: Capacity(5))
    again.restore(kept, now + 60)
    assert again.capacity("slow", now + 60).connections == 1
    assert again.next_connect_at("blocked", now + 60) == until
    assert not again.may_connect("rests", now + 10**6)
    assert again.capacity("limited", now + 60).connections == 2
    late = Pace(lambda _lane: Capacity(5))
    late.restore(kept, now + 10**6)
    assert set(late.lanes()) == {"rests", "limited", "blocked"}  # one that was blocked is tried by one connection


def test_a_person_ends_rests_and_orders() -> None:
    pace, now = Pace(lambda _lane: Capacity(5)), 1_800_000_000.0
    pace.block("mx", now, 0, "listed")
    pace.slow("mx", now, "busy")
    pace.forgive("mx")
    assert pace.may_connect("mx", now)
    assert pace.capacity("mx", now) == Capacity(5)
    pace.order("mx", Order(rest=True))
    assert not pace.may_connect("mx", now)
    assert pace.reason("mx", now) == "a person ordered it to rest"
    pace.order("mx", Order())
    assert pace.may_connect("mx", now)
