"""By which way the next connection to a site goes: from one of our addresses, by a route, or not yet.

A lane is (one of our addresses, a site), and each has limits, troubles and a warm-up of its own. Of the addresses
that may connect now, new ones that may still carry something today go first, since only mail makes them known; then
those with the fewest connections. Where every address has used up its day, or is refused by the site, a
``[[route]]`` with that cause takes the mail; where there is none, the mail waits, and the reason is the answer.

A site that refused an address is not tried from there for ``[delivery] canary`` while another way takes the mail.
Then one message goes by it, alone: when the site takes it, all is forgotten.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

from arkrelay.model.delivery import Route, Source
from arkrelay.policy.pace import Pace
from arkrelay.policy.providers import lane_name
from arkrelay.policy.warmup import Warmups

PATIENCE_S = 5.0  # a connection is kept, and a lane waited for, while its rate lets the next message wait no longer


@dataclass(frozen=True, slots=True)
class Way:
    """A connection may be opened, counted by ``lane``; ``messages`` bounds what goes by it (0: its lane does)."""

    lane: str
    source: Source | None = None  # None: the system chooses the address
    route: Route | None = None
    messages: int = 0


@dataclass(frozen=True, slots=True)
class Wait:
    """No connection now: until a time (Unix seconds), or with None until one of ``lanes`` has room.

    ``lanes`` are those that the mail would go by.
    """

    reason: str
    until: float | None = None
    lanes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Detours:
    """The routes that apply where there is a cause, for mail to one domain."""

    reputation: Route | None = None
    warmup: Route | None = None


@dataclass(slots=True)
class _Found:
    """What was found about the addresses: who may connect, and why the others may not."""

    free: list[Way] = field(default_factory=list)
    full: list[str] = field(default_factory=list)  # lanes with all the connections that they may have
    later: list[Wait] = field(default_factory=list)  # resting, or slowed to a message a minute
    refused: list[Way] = field(default_factory=list)
    spent: list[Wait] = field(default_factory=list)  # warming up, and done for today


@dataclass(frozen=True, slots=True)
class Chooser:
    """The state of all lanes, to choose by."""

    pace: Pace
    warmups: Warmups

    def choose(
        self,
        site: str,
        sources: Sequence[Source],
        detours: Detours,
        canary_s: float,
        now: float,
        dice: Random,
    ) -> Way | Wait:
        """Return how mail for ``site`` goes now; no ``sources`` means that the system chooses the address."""
        found = _Found()
        elsewhere = detours.reputation is not None or len(sources) > 1
        for source in sources or (None,):
            lane = lane_name(site, None if source is None else source.address)
            self._look(found, source, lane, canary_s * elsewhere, now, dice)
        if found.free:
            return min(
                found.free,
                key=lambda way: (self.left(way, now) is None, self.pace.open(way.lane), dice.random()),
            )
        if found.full:
            return Wait(f"every connection that {site} takes from us is in use", None, tuple(found.full))
        if found.later:
            return min(found.later, key=lambda wait: wait.until or 0.0)
        route = detours.warmup if found.spent else None
        if route is None and found.refused:
            route = detours.reputation
        if route is not None:
            return self._by(route, now)
        if found.refused:  # every address, and no route: the first whose rest is over tries
            way = min(found.refused, key=lambda way: self.pace.next_connect_at(way.lane, now))
            return way if self.pace.may_connect(way.lane, now) else self._rest(way.lane, now)
        return min(found.spent, key=lambda wait: wait.until or 0.0)

    def another(
        self, site: str, sources: Sequence[Source], detours: Detours, but: str, canary_s: float, now: float
    ) -> bool:
        """Return whether mail that the lane ``but`` was refused has a way that it is not known to be refused on."""
        if detours.reputation is not None:
            return True
        lanes = [lane_name(site, source.address) for source in sources]
        return any(lane != but and not self.pace.avoided(lane, now, canary_s) for lane in lanes)

    def left(self, way: Way, now: float) -> int | None:
        """Return what the way may still carry today, or None when that is not bounded."""
        if way.source is None or not way.source.warmup:
            return None
        return self.warmups.left(way.lane, now)

    def _look(
        self, found: _Found, source: Source | None, lane: str, canary_s: float, now: float, dice: Random
    ) -> None:
        way = Way(lane, source)
        if canary_s and self.pace.on_trial(lane):
            canary = replace(way, messages=1)
            off = self.pace.avoided(lane, now, canary_s) or self.pace.open(lane) or self.pace.ordered_to_rest(lane)
            (found.refused if off else found.free).append(canary)
        elif self.left(way, now) == 0:
            budget = self.warmups.budget(lane, now)
            reason = f"{lane} is warming up: all {budget} messages of today are sent"
            found.spent.append(Wait(reason, self.warmups.next_day_at(now, dice.random()), (lane,)))
        elif not self.pace.may_connect(lane, now):
            if self.pace.next_connect_at(lane, now) > now:
                found.later.append(self._rest(lane, now))
            else:
                found.full.append(lane)
        elif (pause_s := self.pace.wait_s(lane, now)) > PATIENCE_S:
            reason = self.pace.reason(lane, now) or "its messages a second are used up"
            found.later.append(Wait(reason, now + pause_s, (lane,)))
        else:
            found.free.append(way)

    def _rest(self, lane: str, now: float) -> Wait:
        at = self.pace.next_connect_at(lane, now)
        if at <= now:
            return Wait(f"every connection of {lane} is in use", None, (lane,))
        return Wait(self.pace.reason(lane, now) or f"{lane} did not answer a moment ago", at, (lane,))

    def _by(self, route: Route, now: float) -> Way | Wait:
        lane = route.host.lower()
        return Way(lane, route=route) if self.pace.may_connect(lane, now) else self._rest(lane, now)
