"""How a new address becomes known: what it may carry to each site today.

Receivers judge an address by what came from it before, and one that nobody knows is put off or refused when it
suddenly sends thousands. So its first day with mail for a site carries few messages, its second twice as many, and
so on (``[warmup] daily``); behind the last day the lane is warm. Days are UTC's, and only those with mail count. A
day of which the site put off too large a share for the sake of our address (``deferred_max``) is repeated, and after
a month without mail the address is new to the site again (receivers keep what they know of one for about 30 days).

What was counted outlives the process (``learned``, ``restore``), up to the seconds before a crash.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from arkrelay.model.delivery import Warmup

DAY_S = 86400
JITTER_S = 600.0  # by which lanes that wait for a new day come late, so that they do not come together
COLD_DAYS = 30
MAX_LANES = 10_000  # remembered; about 3 MB


@dataclass(frozen=True, slots=True)
class Progress:
    """One lane's way: ``step`` days of the ramp are behind it; what follows is of ``day`` (days since 1970)."""

    lane: str
    step: int = 0
    day: int = 0
    sent: int = 0
    deferred: int = 0


class Warmups:
    """The lanes from new addresses; ``settings`` is asked each time, so a reload is followed at once."""

    __slots__ = ("_lanes", "_settings", "changed")

    def __init__(self, settings: Callable[[], Warmup]) -> None:
        self._settings = settings
        self._lanes: dict[str, Progress] = {}
        self.changed: set[str] = set()  # lanes that moved on since ``learned`` took them

    def today(self, lane: str, now: float) -> Progress:
        """Return where the lane stands today."""
        found = self._lanes.get(lane) or Progress(lane)
        day = int(now // DAY_S)
        if day <= found.day:  # a clock that was set back makes no new day
            return found
        if day - found.day > COLD_DAYS:
            return Progress(lane, 0, day)
        slowed = found.deferred > found.sent * self._settings().deferred_max
        step = found.step + 1 if found.sent and not slowed else found.step
        return Progress(lane, step, day)

    @property
    def days(self) -> int:
        """How many days the ramp has."""
        return len(self._settings().daily)

    def lanes(self) -> list[str]:
        """Return the lanes that are known."""
        return list(self._lanes)

    def budget(self, lane: str, now: float) -> int | None:
        """Return how many messages the lane may carry today in all, or None when it is warm."""
        daily = self._settings().daily
        step = self.today(lane, now).step
        return daily[step] if step < len(daily) else None

    def left(self, lane: str, now: float) -> int | None:
        """Return how many messages the lane may still carry today, or None when it is warm."""
        budget = self.budget(lane, now)
        return None if budget is None else max(0, budget - self.today(lane, now).sent)

    def next_day_at(self, now: float, dice: float) -> float:
        """Return when there is a new day (Unix seconds); ``dice`` in [0, 1] spreads those who wait for it."""
        return (now // DAY_S + 1) * DAY_S + JITTER_S * dice

    def started(self, lane: str, now: float) -> None:
        """Count a message that is about to be sent."""
        one = self.today(lane, now)
        self._keep(Progress(lane, one.step, one.day, one.sent + 1, one.deferred))

    def put_back(self, lane: str, now: float) -> None:
        """Take back a message that the peer never looked at."""
        one = self.today(lane, now)
        self._keep(Progress(lane, one.step, one.day, max(0, one.sent - 1), one.deferred))

    def deferred(self, lane: str, now: float) -> None:
        """Count a message that the site put off for the sake of our address."""
        one = self.today(lane, now)
        self._keep(Progress(lane, one.step, one.day, one.sent, one.deferred + 1))

    def learned(self) -> list[Progress]:
        """Return the lanes that moved on since the last call, to be kept."""
        found = [self._lanes[lane] for lane in self.changed if lane in self._lanes]
        self.changed.clear()
        return found

    def restore(self, kept: Iterable[Progress]) -> None:
        """Take over what was kept."""
        self._lanes.update((one.lane, one) for one in kept)

    def _keep(self, one: Progress) -> None:
        self._lanes.pop(one.lane, None)
        self._lanes[one.lane] = one  # the front moved longest ago
        self.changed.add(one.lane)
        if len(self._lanes) > MAX_LANES:
            del self._lanes[next(iter(self._lanes))]
