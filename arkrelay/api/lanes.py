"""Lanes: what each site takes from each of our addresses now and why, orders, and the addresses themselves.

Beyond Ark's contract.
"""

import time
from typing import Annotated

from arkrelay.api.ask import Ask
from arkrelay.api.model import Answer, Body, Meta, Nothing
from arkrelay.api.refusal import ApiError
from arkrelay.api.shapes import Iso, iso
from arkrelay.policy.pace import Order
from arkrelay.relay.lanes import LaneView, look, order, resume

Connections = Annotated[int, Meta(ge=1, le=10_000)]
Rate = Annotated[float, Meta(gt=0, le=100_000)]


class LaneLimits(Body):
    """What a lane may carry from now on; null or absent: as configured."""

    connections: Connections | None = None
    messages_per_second: Rate | None = None


class Ordered(Answer):
    """What a person said about the lane."""

    rest: bool
    connections: int | None
    messages_per_second: float | None


class Warmup(Answer):
    """How far a new address is with a site; ``day`` counts the days on which it sent, of ``days`` in the ramp."""

    day: int
    days: int
    sent: int
    budget: int
    deferred: int


class Lane(Answer):
    """One lane: what is open, what it may carry (null: no limit), what waits, and why it is not more."""

    lane: str
    state: str
    connections: int
    connections_max: int | None
    messages_per_second: float | None
    destinations: int
    ready: int
    reason: str
    next_at: float | None
    next_at_iso: Iso | None
    ordered: Ordered | None
    warmup: Warmup | None


class Lanes(Answer):
    """Every lane that has connections, waiting mail, troubles or orders."""

    lanes: list[Lane]


class SourceAddress(Answer):
    """One address of ours: which pool it serves, its name, and why it is not used; ``matches``: the name leads back.

    ``matches`` is null until DNS has answered.
    """

    address: str
    pool: str
    hostname: str
    present: bool
    name: str
    matches: bool | None
    used: bool
    reason: str
    warmup: bool


class SourceAddresses(Answer):
    """The addresses from which mail leaves; empty where the system chooses one and it has no IPv6 address."""

    sources: list[SourceAddress]


async def list_all(ask: Ask[Nothing, Nothing]) -> Lanes:
    """What each lane does now, and why."""
    return Lanes(lanes=[_shape(one) for one in look(ask.parts.queue, time.time())])


async def rest(ask: Ask[Nothing, Nothing]) -> Lane:
    """Send nothing to this site until it is resumed; what is under way is finished."""
    return _ordered(ask, rest=True)


async def unrest(ask: Ask[Nothing, Nothing]) -> Lane:
    """Send to this site again, at once: orders, rests and slowness are forgotten."""
    resume(ask.parts.queue, _name(ask))
    return _one(ask)


async def limit(ask: Ask[Nothing, LaneLimits]) -> Lane:
    """Let this site carry no more than this, whatever is configured; nothing given takes the limits back."""
    name = _name(ask)
    state = ask.parts.queue.pace.state(name).order
    order(ask.parts.queue, name, Order(state.rest, ask.body.connections, ask.body.messages_per_second))
    return _one(ask)


async def sources(ask: Ask[Nothing, Nothing]) -> SourceAddresses:
    """From which addresses mail leaves, and what DNS says of them."""
    known = ask.parts.ways.sources
    hostname = ask.snapshot.settings.hostname
    return SourceAddresses(
        sources=[
            SourceAddress(
                address=one.source.address,
                pool=one.source.pool,
                hostname=one.source.hostname or hostname,
                present=one.present,
                name=one.name,
                matches=one.matches,
                used=not known.fault(one),
                reason=known.fault(one) or one.reason,
                warmup=one.source.warmup,
            )
            for one in known.states.values()
        ]
    )


def _ordered(ask: Ask[Nothing, Nothing], *, rest: bool) -> Lane:
    name = _name(ask)
    state = ask.parts.queue.pace.state(name).order
    order(ask.parts.queue, name, Order(rest, state.connections, state.rate))
    return _one(ask)


def _name(ask: Ask[Nothing, Nothing] | Ask[Nothing, LaneLimits]) -> str:
    """Return the lane that is meant; a site alone is none where each of our addresses has a lane to it."""
    name = ask.path("lane")
    if len(name) > 255:
        raise ApiError(400, "validation_error", "lane must be the name of a lane.", field="lane")
    if name not in (lanes := ask.parts.ways.lanes_of(name)):
        message = f"lane must name one of our addresses as well: {' or '.join(lanes)}."
        raise ApiError(400, "validation_error", message, field="lane")
    return name


def _one(ask: Ask[Nothing, Nothing] | Ask[Nothing, LaneLimits]) -> Lane:
    name = ask.path("lane")
    found = [one for one in look(ask.parts.queue, time.time()) if one.lane == name]
    return _shape(found[0] if found else LaneView.unknown(name, ask.parts.queue.pace.capacity(name, time.time())))


def _shape(one: LaneView) -> Lane:
    said = one.order
    return Lane(
        lane=one.lane,
        state=one.state,
        connections=one.connections,
        connections_max=one.capacity.connections or None,
        messages_per_second=one.capacity.rate or None,
        destinations=one.destinations,
        ready=one.ready,
        reason=one.reason,
        next_at=one.next_at,
        next_at_iso=iso(one.next_at),
        ordered=None
        if said == Order()
        else Ordered(rest=said.rest, connections=said.connections, messages_per_second=said.rate),
        warmup=None
        if (up := one.warmup) is None
        else Warmup(day=up.day, days=up.days, sent=up.sent, budget=up.budget, deferred=up.deferred),
    )
