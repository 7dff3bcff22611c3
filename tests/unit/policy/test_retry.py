import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.model.attempt import RetryPolicy
from arkrelay.policy.retry import JITTER, longest_wait_s, next_attempt_at

ARK = RetryPolicy()
MANY = RetryPolicy(max_attempts=100_000)


@pytest.mark.parametrize(
    ("attempts", "wait_min"),
    [(1, 5), (3, 8.5), (5, 14.3), (8, 31.4), (10, 53), (12, 90), (15, 197), (17, 333)],
)
def test_delays_are_those_of_the_formula(attempts: int, wait_min: float) -> None:
    due_at = next_attempt_at(ARK, attempts, accepted_at=0, now=0, dice=0)
    assert due_at is not None
    assert due_at / 60 == pytest.approx(wait_min, rel=0.02)


@pytest.mark.parametrize(
    ("policy", "attempts", "age_s", "wait_s", "expires_in_s", "expected"),
    [
        pytest.param(ARK, 1, 0, None, None, 300, id="first"),
        pytest.param(ARK, 0, 0, None, None, 300, id="nothing-was-tried-yet"),
        pytest.param(ARK, 17, 0, None, None, 300 * 1.3**16, id="last-but-one"),
        pytest.param(ARK, 18, 0, None, None, None, id="attempts-used-up"),
        pytest.param(ARK, 18, 0, 60, None, None, id="attempts-used-up-with-a-hint"),
        pytest.param(ARK, 1, 172_700, None, None, None, id="would-outlive-its-lifetime"),
        pytest.param(ARK, 1, 172_800 - 200, None, None, 195, id="a-last-call-before-the-lifetime-ends"),
        pytest.param(ARK, 1, 172_800 - 154, None, None, None, id="too-late-for-a-last-call"),
        pytest.param(ARK, 1, 999_999, None, None, None, id="clock-jumped-forwards"),
        pytest.param(ARK, 1, -999_999, None, None, 300, id="clock-jumped-backwards"),
        pytest.param(ARK, 1, 0, 70, None, 70, id="hint-shorter-than-the-schedule"),
        pytest.param(ARK, 3, 0, 11, None, 11, id="third-short-hint"),
        pytest.param(ARK, 4, 0, 11, None, 300 * 1.3**3, id="fourth-short-hint-is-not-obeyed"),
        pytest.param(ARK, 4, 0, 3600, None, 3600, id="a-longer-hint-always-is"),
        pytest.param(ARK, 1, 0, 900, None, 900, id="domain-that-does-not-exist"),
        pytest.param(ARK, 1, 0, None, 600, 300, id="expires-later"),
        pytest.param(ARK, 2, 300, None, 600 - 300, 295, id="a-last-call-before-it-expires"),
        pytest.param(ARK, 2, 600, None, 100, None, id="expires-too-soon"),
        pytest.param(ARK, 2, 600, None, -1, None, id="expired"),
        pytest.param(ARK, 1, 0, None, 10**9, 300, id="lifetime-before-expiry"),
        pytest.param(MANY, 99_999, 0, None, None, 172_800, id="beyond-any-float-it-is-a-lifetime"),
    ],
)
def test_when_to_try_next(
    policy: RetryPolicy,
    attempts: int,
    age_s: float,
    wait_s: float | None,
    expires_in_s: float | None,
    expected: float | None,
) -> None:
    now = 1_800_000_000.0
    due_at = next_attempt_at(
        policy,
        attempts,
        now - age_s,
        now,
        dice=0,
        wait_s=wait_s,
        expires_at=None if expires_in_s is None else now + expires_in_s,
    )
    assert (None if due_at is None else due_at - now) == (None if expected is None else pytest.approx(expected))


def test_a_message_that_never_gets_through_is_tried_18_times_in_a_day() -> None:
    now, attempts = 0.0, 1
    while (due_at := next_attempt_at(ARK, attempts, 0, now, dice=0)) is not None:
        now, attempts = due_at, attempts + 1
    assert attempts == 18
    assert 23 * 3600 < now < 24 * 3600


policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 10**6),
    first_delay_s=st.floats(0.1, 86_400),
    factor=st.floats(1, 10),
    lifetime_s=st.floats(0, 10**7),
)


@given(
    policies,
    st.integers(0, 10**6),
    st.floats(-(10**7), 10**7),
    st.floats(-1, 1),
    st.none() | st.floats(10, 3600),
    st.none() | st.floats(-(10**6), 10**6),
)
def test_the_next_try_is_ahead_bounded_and_before_the_end(
    policy: RetryPolicy, attempts: int, age_s: float, dice: float, wait_s: float | None, expires_in_s: float | None
) -> None:
    now = 1_800_000_000.0
    expires_at = None if expires_in_s is None else now + expires_in_s
    due_at = next_attempt_at(policy, attempts, now - age_s, now, dice, wait_s=wait_s, expires_at=expires_at)
    if due_at is None:
        return
    slack_s = 1e-3  # a float of today's date is that coarse after a few operations
    assert attempts < policy.max_attempts
    assert now <= due_at <= now + longest_wait_s(policy) + slack_s
    assert due_at <= now - age_s + policy.lifetime_s + slack_s
    assert expires_at is None or due_at <= expires_at + slack_s


@given(st.integers(1, 17), st.floats(-1, 1))
def test_dice_move_a_delay_by_a_tenth(attempts: int, dice: float) -> None:
    due_at = next_attempt_at(ARK, attempts, 0, 0, dice)
    middle = next_attempt_at(ARK, attempts, 0, 0, 0)
    assert due_at is not None
    assert middle is not None
    assert abs(due_at / middle - 1) <= JITTER + 1e-9


@given(st.floats(-1, 1))
def test_dice_never_shorten_what_the_peer_asked_for(dice: float) -> None:
    due_at = next_attempt_at(ARK, 1, 0, 0, dice, wait_s=310)
    assert due_at is not None
    assert 310 <= due_at <= 310 * (1 + JITTER)


def test_a_short_schedule_still_leaves_room_for_a_peers_hint() -> None:
    assert longest_wait_s(RetryPolicy(max_attempts=1, first_delay_s=1)) == pytest.approx(3960)
