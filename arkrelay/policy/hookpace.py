"""When an event is posted to a webhook again, and how an endpoint that does not answer is left alone.

Two clocks run. Each event has the schedule of ``webhooks.retry``, counted from its own attempts (Ark contract §11.5).
Each endpoint has a pace: it is asked by one post at first and by more while it answers, and after three failures in a
row it rests, a little longer each time, and is then asked by one post alone. So one event that an endpoint cannot
stomach delays no other, a dead endpoint costs one post now and then whatever its backlog, and one that comes back has
it within a quarter of an hour and not only when the schedule of some event ends its rest of a day.

What waits for a later time goes when an endpoint comes back: its failures were the endpoint's. An event that has
failed again after ``FORWARDS`` such times is taken for the cause, and has the schedule alone from then on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

JITTER: Final = 0.1  # share of a wait by which one post may come early or late, so that a backlog spreads
RESTS_AFTER: Final = 3  # failures in a row; one or two may be about one event, or a deploy of the receiver
FIRST_REST_S: Final = 5.0
LONGEST_REST_S: Final = 900.0
FORWARDS: Final = 2  # times that an event goes early because its endpoint came back
WISH_S: Final = (1.0, 3600.0)  # how much of a Retry-After is believed
LEAST_LIFETIME_S: Final = 3600.0  # what waits behind an endpoint that rests is kept for so long at least
GONE: Final = 410  # RFC 9110 §15.5.11: nobody will answer here again
_HEEDED: Final = frozenset({429, 503})  # whose Retry-After is a wish about us (RFC 6585 §4, RFC 9110 §15.6.4)


def next_post_at(
    retry_s: Sequence[float], attempts: int, now: float, dice: float, wish_s: float | None = None
) -> float | None:
    """Return when to post an event again, or None when its schedule is over and it is parked.

    ``attempts`` counts those made, the one that just failed among them. ``dice`` in [-1, 1]. ``wish_s`` (``wish``)
    can only make it later.
    """
    if attempts > len(retry_s):
        return None
    due_at = now + retry_s[attempts - 1] * (1 + JITTER * dice)
    return due_at if wish_s is None else max(due_at, now + wish_s)


def lifetime_s(retry_s: Sequence[float]) -> float:
    """Return how long an event waits for an endpoint that rests or is disabled, before it is parked: its schedule."""
    return max(sum(retry_s) * (1 + JITTER), LEAST_LIFETIME_S)


def longest_wait_s(retry_s: Sequence[float]) -> float:
    """Return the longest wait that ``next_post_at`` orders: after a jump of the clock nothing waits longer."""
    return max((*retry_s, WISH_S[1])) * (1 + JITTER)


def wish(status: int | None, retry_after_s: float | None) -> float | None:
    """Return how long an answer asks us to wait, within our bounds, or None when it does not."""
    if status not in _HEEDED or retry_after_s is None:
        return None
    return min(max(retry_after_s, WISH_S[0]), WISH_S[1])


@dataclass(slots=True)
class Pace:
    """How many posts at once an endpoint gets now; ``failures`` and ``quiet_until`` outlive the process."""

    failures: int = 0  # in a row
    rest_until: float = 0.0  # by our own judgement, which a success ends
    asked_until: float = 0.0  # by its wish, which nothing ends
    window: int = 1  # posts at once: doubled by each success, from one

    @property
    def quiet_until(self) -> float:
        """When the next post may begin, of all that is known; 0: at once."""
        return max(self.rest_until, self.asked_until)

    @property
    def failing(self) -> bool:
        """Whether it is taken for dead until a post succeeds."""
        return self.failures >= RESTS_AFTER

    def clamp(self, now: float) -> None:
        """Let no rest be longer than the longest: a clock that was set back would make one of days."""
        self.rest_until = min(self.rest_until, now + LONGEST_REST_S * (1 + JITTER))
        self.asked_until = min(self.asked_until, now + WISH_S[1])

    def room(self, running: int, most: int, now: float) -> int:
        """Return how many posts may begin while ``running`` are under way."""
        if now < self.quiet_until:
            return 0
        return max(0, min(most, 1 if self.failing else self.window) - running)

    def succeeded(self, most: int) -> bool:
        """Take note of a success; return whether it ended a time in which the endpoint was taken for dead."""
        was_failing = self.failing
        self.failures, self.rest_until = 0, 0.0
        self.window = min(most, self.window * 2)
        return was_failing

    def failed(self, now: float, dice: float, wish_s: float | None = None) -> None:
        """Take note of a failure, which may begin a rest; ``wish_s`` always does."""
        self.failures += 1
        self.window = max(1, self.window // 2)
        if self.failing:
            self.window = 1
            rest_s = FIRST_REST_S * 2.0 ** min(self.failures - RESTS_AFTER, 30)
            self.rest_until = now + min(rest_s, LONGEST_REST_S) * (1 + JITTER * dice)
        if wish_s is not None:
            self.asked_until = max(self.asked_until, now + wish_s)
