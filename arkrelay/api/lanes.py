"""Lanes: what each site takes from us now and why, and what a person may order; beyond Ark's contract."""

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


class Lane(Answer):
    """One site: what is open, what it may carry (null: no limit), what waits, and why it is not more."""

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


class Lanes(Answer):
    """Every site that has connections, waiting mail, troubles or orders."""

    lanes: list[Lane]


async def list_all(ask: Ask[Nothing, Nothing]) -> Lanes:
    """What each lane does now, and why."""
    return Lanes(lanes=[_shape(one) for one in look(ask.parts.queue, time.time())])


async def rest(ask: Ask[Nothing, Nothing]) -> Lane:
    """Send nothing to this site until it is resumed; what is under way is finished."""
    return _ordered(ask, rest=True)


async def unrest(ask: Ask[Nothing, Nothing]) -> Lane:
    """Send to this site again, at once: orders, rests and slowness are forgotten."""
    resume(ask.parts.queue, ask.path("lane"))
    return _one(ask)


async def limit(ask: Ask[Nothing, LaneLimits]) -> Lane:
    """Let this site carry no more than this, whatever is configured; nothing given takes the limits back."""
    state = ask.parts.queue.pace.state(ask.path("lane")).order
    order(ask.parts.queue, ask.path("lane"), Order(state.rest, ask.body.connections, ask.body.messages_per_second))
    return _one(ask)


def _ordered(ask: Ask[Nothing, Nothing], *, rest: bool) -> Lane:
    state = ask.parts.queue.pace.state(ask.path("lane")).order
    order(ask.parts.queue, ask.path("lane"), Order(rest, state.connections, state.rate))
    return _one(ask)


def _one(ask: Ask[Nothing, Nothing] | Ask[Nothing, LaneLimits]) -> Lane:
    name = ask.path("lane")
    if len(name) > 255:
        raise ApiError(400, "validation_error", "lane must be the name of a site.", field="lane")
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
    )
