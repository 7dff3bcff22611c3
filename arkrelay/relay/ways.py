"""How the next connection to a destination goes: ``policy.ways`` with what the daemon knows at this moment."""

import random
from dataclasses import replace

from arkrelay.config.live import Live
from arkrelay.model.delivery import Source
from arkrelay.policy import route as routing
from arkrelay.policy.pace import Pace
from arkrelay.policy.warmup import Warmups
from arkrelay.policy.ways import Chooser, Detours, Wait, Way
from arkrelay.relay.plan import Plan
from arkrelay.relay.sources import Sources, family_of

MISSING_S = 60.0  # how often mail asks for an address of ours that is not there


class Ways:
    """Asks nobody and waits for nothing; ``sources`` is kept by its own task."""

    def __init__(self, live: Live, sources: Sources, pace: Pace, warmups: Warmups) -> None:
        self._live = live
        self._chooser = Chooser(pace, warmups)
        self._dice = random.SystemRandom()
        self.sources = sources

    def missing(self, pool: str, now: float) -> Wait | None:
        """Return why no mail of ``pool`` can leave at all, or None."""
        reason = self.sources.missing(pool)
        return Wait(reason, now + MISSING_S) if reason else None

    def choose(self, plan: Plan, now: float, *, but: frozenset[int] = frozenset()) -> Way | Wait | None:
        """Return how mail of ``plan`` goes now; None when only the families in ``but``, which failed, are left."""
        if plan.route is not None:
            return self._chooser.choose(plan.site, (), Detours(), 0.0, now, self._dice)
        sources = tuple(one for one in self._sources(plan) if family_of(one.address) not in but)
        if not sources and self.sources.configured:
            return None if but else self.missing(plan.pool, now) or Wait("our addresses have changed", now + 1)
        return self._chooser.choose(plan.site, sources, self._detours(plan), self._canary_s, now, self._dice)

    def is_open(self, plan: Plan, now: float) -> bool:
        """Return whether mail of ``plan`` may go to the site itself, be it for a try."""
        way = self.choose(plan, now)
        return isinstance(way, Way) and way.route is None

    def another(self, plan: Plan, way: Way, now: float) -> bool:
        """Return whether mail that was refused on ``way`` for the sake of our address has another one."""
        if plan.route is not None or way.route is not None:
            return False
        detours = self._detours(plan)
        return self._chooser.another(plan.site, self._sources(plan), detours, way.lane, self._canary_s, now)

    def spent(self, way: Way, now: float) -> bool:
        """Return whether the way's address, a new one, has carried what it may carry today."""
        return self._chooser.left(way, now) == 0

    def started(self, way: Way, now: float) -> None:
        """Count a message."""
        if way.source is not None and way.source.warmup and self._chooser.left(way, now) is not None:
            self._chooser.warmups.started(way.lane, now)

    def put_back(self, way: Way, now: float) -> None:
        """Take back a message that the peer never looked at."""
        if way.source is not None and way.source.warmup:
            self._chooser.warmups.put_back(way.lane, now)

    def deferred(self, way: Way, now: float) -> None:
        """Count a message that the site put off for the sake of our address."""
        if way.source is not None and way.source.warmup:
            self._chooser.warmups.deferred(way.lane, now)

    def lanes_of(self, site: str) -> list[str]:
        """Return the lanes to a site, one for each of our addresses; the site alone where the system chooses."""
        if ":" in site or "@" in site or not self._live.snapshot.settings.sources:
            return [site]
        return [f"{site}@{address}" for address in self.sources.states]

    @property
    def _canary_s(self) -> float:
        return self._live.snapshot.settings.delivery.canary_s

    def _sources(self, plan: Plan) -> tuple[Source, ...]:
        """Return the addresses from which some host of the plan can be reached."""
        families = {family_of(one.address) for one in plan.candidates}
        return tuple(one for one in self.sources.of(plan.pool) if family_of(one.address) in families)

    def _detours(self, plan: Plan) -> Detours:
        routes = self._live.snapshot.settings.route
        if all(route.always for route in routes):
            return Detours()
        found = (routing.match_cause(plan.domain, routes, when) for when in ("sender-reputation", "warm-up"))
        return Detours(*found)


def for_source(plan: Plan, source: Source | None) -> Plan:
    """Return the plan with the hosts that can be reached from this address."""
    if source is None:
        return plan
    family = family_of(source.address)
    return replace(plan, candidates=tuple(one for one in plan.candidates if family_of(one.address) == family))
