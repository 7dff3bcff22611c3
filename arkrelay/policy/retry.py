"""When to try a recipient again, and when to stop trying."""

from arkrelay.model.attempt import RetryPolicy

JITTER = 0.1  # share of the delay by which one attempt may come early or late
HINTED_TRIES = 3  # a peer that names a wait shorter than our schedule is obeyed so often, then no more
LAST_CALL_S = 5.0  # before the end: early enough to be under way when it comes


def next_attempt_at(
    policy: RetryPolicy,
    attempts: int,
    accepted_at: float,
    now: float,
    dice: float,
    *,
    wait_s: float | None = None,
    expires_at: float | None = None,
) -> float | None:
    """Return when to try next (Unix seconds), or None to give up.

    ``attempts`` counts attempts already made, so it is 1 after the first failure and the first delay is
    ``first_delay_s``, as Ark has it (contract §9.2: factor^attempts from 0). ``dice`` in [-1, 1] is drawn by the
    caller; it spreads mail that failed together. ``wait_s`` is the wait that the peer asked for. It counts from
    now and is never shortened; one that is shorter than the schedule counts for the first three tries only, or
    a server that says "try again in 1 second" would use up all attempts in minutes.

    The end is ``max_attempts``, ``lifetime_s`` after acceptance or ``expires_at``, whichever comes first. A try
    that would fall behind the end is moved to just before it, unless that is less than half its delay from
    now: a code that is valid for ten minutes gets a last chance in the tenth.

    RFC 5321 §4.5.4.1 wants a delay after every failure, in general at least 30 minutes, and at least 4-5 days
    before giving up. Our defaults try four times within the first 20 minutes, for servers that greylist, and
    18 times in a day, as Ark does; all of it is settings.

    The result is never farther from ``now`` than ``longest_wait_s``: after a jump of the clock backwards, the
    queue brings stored times back into that bound. After a jump forwards everything is due at once and is
    tried before this function is asked again, so no recipient ends without one more attempt.
    """
    if attempts >= policy.max_attempts:
        return None
    delay_s = _delay_s(policy, attempts)
    if wait_s is None or (wait_s < delay_s and attempts > HINTED_TRIES):
        due_at = now + delay_s * (1 + JITTER * dice)
    else:
        delay_s = wait_s
        due_at = now + delay_s * (1 + JITTER * abs(dice))
    end_at = accepted_at + policy.lifetime_s
    if expires_at is not None:
        end_at = min(end_at, expires_at)
    if due_at <= end_at:
        return due_at
    last_call_at = end_at - LAST_CALL_S
    return last_call_at if last_call_at - now >= delay_s / 2 else None


def longest_wait_s(policy: RetryPolicy, hint_max_s: float = 3600.0) -> float:
    """Return the longest wait that ``next_attempt_at`` can order; ``hint_max_s`` bounds a peer's ``wait_s``."""
    return max(_delay_s(policy, policy.max_attempts), hint_max_s) * (1 + JITTER)


def _delay_s(policy: RetryPolicy, attempts: int) -> float:
    """Return the scheduled delay, at most a lifetime; beyond any float it is that, too."""
    try:
        delay_s = policy.first_delay_s * policy.factor ** (max(attempts, 1) - 1)
    except OverflowError:
        return policy.lifetime_s
    return min(delay_s, policy.lifetime_s)
