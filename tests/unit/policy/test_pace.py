import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from arkrelay.policy.pace import FIRST_REST_S, JITTER, LONGEST_REST_S, Pace


def test_a_site_gets_as_many_connections_as_the_limit() -> None:
    pace = Pace(2)
    pace.connected("mx")
    assert pace.may_connect("mx", 0)
    pace.connected("mx")
    assert not pace.may_connect("mx", 0)
    assert pace.next_connect_at("mx", 7) == 7
    assert pace.may_connect("other", 0)
    pace.closed("mx")
    assert pace.may_connect("mx", 0)


def test_a_limit_of_0_is_none() -> None:
    pace = Pace(0)
    for _ in range(1000):
        pace.connected("mx")
    assert pace.may_connect("mx", 0)


def test_a_changed_limit_holds_at_once() -> None:
    pace = Pace(5)
    pace.connected("mx")
    pace.limit = 1
    assert not pace.may_connect("mx", 0)


def test_rests_double_up_to_the_longest() -> None:
    pace, now, rests = Pace(5), 0.0, []
    for _ in range(20):
        until = pace.failed("mx", now, 0)
        rests.append(until - now)
        now = until
    assert rests[:5] == [60, 120, 240, 480, 900]
    assert set(rests[4:]) == {LONGEST_REST_S}


def test_a_resting_site_may_not_be_connected() -> None:
    pace = Pace(5)
    until = pace.failed("mx", 1000, 0)
    assert until == 1000 + FIRST_REST_S
    assert not pace.may_connect("mx", until - 1)
    assert pace.next_connect_at("mx", 1000) == until
    assert pace.may_connect("mx", until)
    assert pace.next_connect_at("mx", until + 5) == until + 5


def test_after_a_rest_one_connection_tries_alone() -> None:
    pace = Pace(5)
    until = pace.failed("mx", 0, 0)
    pace.connected("mx")
    assert not pace.may_connect("mx", until)
    pace.succeeded("mx")
    assert pace.may_connect("mx", until)


def test_connections_that_fail_together_are_one_failure() -> None:
    pace = Pace(5)
    until = pace.failed("mx", 0, 0)
    assert [pace.failed("mx", at, 1) for at in (0, 1, 59)] == [until] * 3
    assert pace.failed("mx", until, 0) == until + 2 * FIRST_REST_S


def test_a_success_forgets_the_failures() -> None:
    pace = Pace(5)
    until = pace.failed("mx", 0, 0)
    pace.succeeded("mx")
    assert pace.may_connect("mx", 0)
    assert pace.failed("mx", until, 0) == until + FIRST_REST_S


def test_what_is_not_known_is_left_alone() -> None:
    pace = Pace(5)
    pace.closed("mx")
    pace.succeeded("mx")
    pace.connected("mx")
    pace.succeeded("mx")
    pace.closed("mx")
    pace.closed("mx")
    assert len(pace) == 0


def test_one_close_too_many_lets_nobody_in() -> None:
    pace = Pace(1)
    pace.failed("mx", 0, 0)
    pace.closed("mx")
    pace.connected("mx")
    assert not pace.may_connect("mx", 10**6)


def test_a_clock_set_back_ends_a_rest() -> None:
    pace = Pace(5)
    pace.failed("mx", 10**9, 0)
    assert pace.may_connect("mx", 0)
    assert pace.next_connect_at("mx", 0) == 0
    assert pace.failed("mx", 0, 0) == 2 * FIRST_REST_S


def test_only_the_latest_failures_are_remembered() -> None:
    pace = Pace(5, max_sites=3)
    pace.connected("open")
    for at in range(10):
        pace.failed(f"mx{at}", at, 0)
    assert len(pace) == 1 + 3
    assert pace.may_connect("mx6", 10)
    assert not pace.may_connect("mx7", 10)


def test_open_connections_are_never_forgotten() -> None:
    pace = Pace(1, max_sites=1)
    for name in ("a", "b"):
        pace.connected(name)
        pace.failed(name, 0, 0)
    assert len(pace) == 2
    assert not pace.may_connect("a", 10**6)
    pace.closed("b")
    pace.closed("a")
    assert len(pace) == 1


@pytest.mark.parametrize("dice", [-1, 1])
def test_dice_move_a_rest_by_a_tenth(dice: float) -> None:
    assert Pace(5).failed("mx", 0, dice) == pytest.approx(FIRST_REST_S * (1 + JITTER * dice))


class PaceMachine(RuleBasedStateMachine):
    """Sites connect, fail, succeed and close in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.pace = Pace(3, max_sites=2)
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
            self.pace.closed(site)
            self.open[site] -= 1

    @rule(site=sites, dice=st.floats(-1, 1))
    def fail(self, site: str, dice: float) -> None:
        until = self.pace.failed(site, self.now, dice)
        assert self.now < until <= self.now + LONGEST_REST_S * (1 + JITTER) + 1
        assert not self.pace.may_connect(site, self.now)

    @rule(site=sites)
    def succeed(self, site: str) -> None:
        self.pace.succeeded(site)
        assert self.pace.next_connect_at(site, self.now) == self.now

    @invariant()
    def bounded(self) -> None:
        assert all(count <= 3 for count in self.open.values())
        assert len(self.pace) <= 2 + sum(1 for count in self.open.values() if count)


TestPaceMachine = PaceMachine.TestCase
TestPaceMachine.settings = settings(deadline=None)


@given(st.floats(-1, 1), st.integers(1, 50))
def test_no_rest_is_ever_longer_than_the_longest(dice: float, failures: int) -> None:
    pace, now = Pace(5), 0.0
    for _ in range(failures):
        until = pace.failed("mx", now, dice)
        assert until - now <= LONGEST_REST_S * (1 + JITTER) + 1e-3
        now = until
