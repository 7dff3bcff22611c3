"""Lanes for people: what each site takes from each of our addresses now and why, and what a person orders."""

from dataclasses import dataclass
from heapq import nsmallest

from arkrelay.policy.pace import Capacity, Order
from arkrelay.policy.providers import site_of_lane
from arkrelay.policy.schedule import Lane
from arkrelay.relay.queue import Queue


@dataclass(frozen=True, slots=True)
class WarmupView:
    """How far a lane from a new address is: what it has carried today of what it may, and the day of its ramp."""

    sent: int
    budget: int
    day: int  # from 1
    days: int
    deferred: int


@dataclass(frozen=True, slots=True)
class LaneView:
    """One lane. ``state`` is sending, waiting, resting, slow or idle; ``next_at`` when it is looked at again."""

    lane: str
    state: str
    connections: int
    capacity: Capacity
    destinations: int
    ready: int
    reason: str
    next_at: float | None
    order: Order
    warmup: WarmupView | None = None  # None: the address is known, or the system chooses it

    @classmethod
    def unknown(cls, name: str, capacity: Capacity) -> "LaneView":
        """Return the view of a lane that nothing is known of."""
        return cls(name, "idle", 0, capacity, 0, 0, "", None, Order())


def look(queue: Queue, now: float) -> list[LaneView]:
    """Return every lane with connections, waiting mail, troubles or orders, by name.

    A destination whose site is not yet known, since nobody has looked at its MX, stands under its own name.
    """
    waiting: dict[str, list[Lane]] = {}
    for lane in queue.schedule.lanes.values():
        waiting.setdefault(lane.site or lane.destination, []).append(lane)
    open_now, warming = queue.pace.lanes(), queue.warming(now)
    return [
        _view(queue, name, waiting.get(name, []), open_now.get(name, 0), now, warming=name in warming)
        for name in sorted({*waiting, *open_now, *warming})
    ]


def troubled(queue: Queue, now: float, most: int) -> tuple[list[LaneView], int]:
    """Return the lanes that carry less than they could, those with most at stake first, and how many more there are.

    Only these are looked at closely: with ten thousand destinations in trouble ``look`` takes a quarter of a second.
    """
    waiting: dict[str, list[Lane]] = {}
    for lane in queue.schedule.lanes.values():
        waiting.setdefault(lane.site or lane.destination, []).append(lane)
    pace, open_now = queue.pace, queue.pace.lanes()

    def is_troubled(name: str) -> bool:
        lanes = waiting.get(name, ())
        if lanes and all(lane.rest_until > now for lane in lanes):
            return True
        return name in open_now and (
            pace.slowed(name, now)
            or pace.ordered_to_rest(name)
            or (not open_now[name] and not pace.may_connect(name, now))
        )

    def at_stake(name: str) -> tuple[int, int, str]:
        lanes = waiting.get(name, ())
        return -sum(lane.ready for lane in lanes), -len(lanes), name

    names = [name for name in {*waiting, *open_now} if is_troubled(name)]
    shown = nsmallest(most, names, key=at_stake)
    warming = queue.warming(now)
    views = [
        _view(queue, name, waiting.get(name, []), open_now.get(name, 0), now, warming=name in warming)
        for name in shown
    ]
    return views, len(names) - len(shown)


def destinations_of(queue: Queue, name: str) -> list[str]:
    """Return the destinations that were last served by this lane, or by any of this site, or are called so."""
    return [
        lane.destination
        for lane in queue.schedule.lanes.values()
        if name in {lane.site, site_of_lane(lane.site), lane.destination}
    ]


def order(queue: Queue, name: str, said: Order) -> None:
    """Let a person's word stand for a site; its lanes notice with their next message."""
    queue.pace.order(name, said)
    queue.keep_learned()
    for lane in _lanes_of(queue, name):
        queue.kick(lane)


def resume(queue: Queue, name: str) -> None:
    """Take back every order and forget every trouble of a site, and try its mail now."""
    queue.pace.order(name, Order())
    queue.pace.forgive(name)
    queue.keep_learned()
    queue.end_rests([lane.destination for lane in _lanes_of(queue, name)])


def _lanes_of(queue: Queue, name: str) -> list[Lane]:
    return [lane for lane in queue.schedule.lanes.values() if name in {lane.site, lane.destination, lane.rest_site}]


def _view(queue: Queue, name: str, lanes: list[Lane], connections: int, now: float, *, warming: bool) -> LaneView:
    pace, ready = queue.pace, sum(lane.ready for lane in lanes)
    resting = [lane for lane in lanes if lane.rest_until > now]
    reason = pace.reason(name, now) or next((lane.rest_reason for lane in resting), "")
    capacity, said = pace.capacity(name, now), pace.state(name).order
    stands = not connections and not pace.may_connect(name, now)
    if said.rest or stands or (resting and len(resting) == len(lanes)):
        state = "resting"
    elif pace.slowed(name, now):
        state = "slow"
    elif connections:
        state = "sending"
    else:
        state = "waiting" if lanes else "idle"
    times = [max(lane.rest_until, lane.table_due) for lane in lanes if not lane.ready or lane.rest_until > now]
    next_at = None if said.rest or not times or min(times) == float("inf") else min(times)
    warmup = _warmup(queue, name, now) if warming else None
    return LaneView(name, state, connections, capacity, len(lanes), ready, reason, next_at, said, warmup)


def _warmup(queue: Queue, name: str, now: float) -> WarmupView | None:
    today, budget = queue.warmups.today(name, now), queue.warmups.budget(name, now)
    if budget is None:
        return None
    return WarmupView(today.sent, budget, today.step + 1, queue.warmups.days, today.deferred)
