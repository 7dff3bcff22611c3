"""How much one lane may carry: connections, messages a second, rests; and what a lane learns from its peer.

A lane is one of our addresses at one site; a site is what answers for a destination: a provider, the MX host names of
a domain, or a smarthost. Domains that share their MX share its site, so a large provider is one site however many
domains it hosts. ``policy.providers`` says what a lane may carry when all is well. Below that it is kept by what
the peer does:

- A connection that fails, or a 421, halves the connections, and the lane rests for a minute, twice as long each
  time up to a quarter of an hour; then a single connection tries. Each message taken wins a little back: after as
  many as there are connections, one connection more.
- "Slow down" (``slow``) means one connection and one message a minute for 90 minutes, then half of everything for
  as long again (KumoMTA's automation does the same).
- "Your address is listed here" (``block``) rests the lane for one hour, doubling to six (ZoneMTA).
- What a person ordered (``order``) stands until he takes it back.

The state is small and survives a restart (``learned``, ``restore``).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

FIRST_REST_S = 60.0
LONGEST_REST_S = 900.0
FIRST_BLOCK_S = 3600.0
LONGEST_BLOCK_S = 6 * 3600.0
SLOW_S = 5400.0
SLOW_RATE = 1 / 60
BURST_S = 1.0  # so much of a lane's rate may go at once
JITTER = 0.1  # share by which a rest is shorter or longer, so that sites which failed together do not come back so
MAX_LANES = 10_000  # remembered failures; about 4 MB


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a lane may carry when all is well; 0 means no limit."""

    connections: int = 5
    messages: int = 100  # on one connection
    rate: float = 20.0  # messages a second
    idle_s: float = 60.0  # a kept connection without work is closed after this


@dataclass(frozen=True, slots=True)
class Order:
    """What a person said about a lane: rest until he says otherwise, or carry no more than this."""

    rest: bool = False
    connections: int | None = None
    rate: float | None = None


_NO_ORDER = Order()


@dataclass(frozen=True, slots=True)
class Learned:
    """What is known of a lane and outlives the process; times are Unix seconds."""

    lane: str
    allowed: float  # connections, 0: as many as its capacity
    failures: int
    blocks: int
    rest_until: float
    slow_until: float
    half_until: float
    reason: str
    order: Order = _NO_ORDER
    blocked_at: float = 0.0

    @property
    def blank(self) -> bool:
        """Whether there is nothing to be kept."""
        troubled = self.allowed or self.failures or self.blocks or self.rest_until or self.half_until
        return not troubled and self.order == _NO_ORDER


@dataclass(slots=True)
class _Lane:
    open: int = 0
    allowed: float = 0.0  # connections that the peer has earned; 0: all of its capacity
    failures: int = 0  # rests in a row without a success
    blocks: int = 0  # listings in a row without a success
    rest_until: float = 0.0
    slow_until: float = 0.0
    half_until: float = 0.0
    reason: str = ""
    order: Order = _NO_ORDER
    blocked_at: float = 0.0  # when the last of ``blocks`` was
    tokens: float = 0.0  # messages that may go at once; below 0: how many went too early
    counted_at: float = 0.0  # when ``tokens`` was true

    @property
    def plain(self) -> bool:
        """Whether nothing keeps the lane below its capacity; a slow time that has ended may still stand here."""
        return not (self.failures or self.blocks or self.allowed or self.half_until) and self.order is _NO_ORDER

    def idle(self, now: float) -> bool:
        """Return whether the lane is as one that nobody knows."""
        return not (self.open or self.failures or self.blocks or self.allowed or self.half_until > now) and (
            self.order == Order() and self.rest_until <= now
        )


class Pace:
    """The lanes that have connections, troubles or orders; any other may carry what ``capacity`` says.

    ``capacity`` is asked at each decision, so a reload is followed at once. Memory is one entry for each lane with an
    open connection, and at most ``max_lanes`` others.
    """

    __slots__ = ("_busy", "_capacity", "_lanes", "changed", "max_lanes")

    def __init__(self, capacity: Callable[[str], Capacity], max_lanes: int = MAX_LANES) -> None:
        self._capacity = capacity
        self.max_lanes = max_lanes
        self._busy = 0  # lanes with open connections
        self._lanes: dict[str, _Lane] = {}  # those that only failed stand in the order of their last failure
        self.changed: set[str] = set()  # lanes whose lasting state has changed since ``learned`` took it

    def __len__(self) -> int:
        return len(self._lanes)

    # -- may I? ----------------------------------------------------------------------------------------------

    def capacity(self, lane: str, now: float) -> Capacity:
        """Return what the lane may carry now, all things considered."""
        full = self._capacity(lane)
        state = self._lanes.get(lane)
        if state is None or state.plain:
            return full
        connections, rate = full.connections, full.rate
        if state.order.connections is not None:
            connections = state.order.connections
        if state.order.rate is not None:
            rate = state.order.rate
        if _current(state.slow_until, now, SLOW_S):
            return replace(full, connections=1, rate=min(rate or SLOW_RATE, SLOW_RATE))
        if _current(state.half_until, now, 2 * SLOW_S):
            connections, rate = max(1, connections // 2) if connections else 0, rate / 2
        if state.failures or state.blocks:
            connections = 1
        elif state.allowed and (not connections or state.allowed < connections):
            connections = max(1, int(state.allowed))
        return replace(full, connections=connections, rate=rate)

    def may_connect(self, lane: str, now: float) -> bool:
        """Return whether one more connection may be opened now."""
        state = self._lanes.get(lane)
        if state is None:
            return True
        if state.order.rest or _rest_until(state, now) > now:
            return False
        limit = self.capacity(lane, now).connections
        return not limit or state.open < limit

    def next_connect_at(self, lane: str, now: float) -> float:
        """Return when the lane's rest ends, or ``now`` when it has none and only a connection is missing."""
        state = self._lanes.get(lane)
        if state is None:
            return now
        if state.order.rest:
            return now + LONGEST_REST_S  # to be asked again: only a person ends it
        return max(now, _rest_until(state, now))

    def on_trial(self, lane: str) -> bool:
        """Return whether the peer refused our address, and nothing was taken from it since."""
        state = self._lanes.get(lane)
        return state is not None and state.blocks > 0

    def avoided(self, lane: str, now: float, canary_s: float) -> bool:
        """Return whether the lane should carry nothing, since its peer refused our address within ``canary_s``.

        For mail that has another way; what has none is tried after each rest.
        """
        state = self._lanes.get(lane)
        return state is not None and state.blocks > 0 and _current(state.blocked_at + canary_s, now, canary_s)

    def wait_s(self, lane: str, now: float) -> float:
        """Return how long the next message has to wait for its lane's rate; 0 when it may go now."""
        rate = self.capacity(lane, now).rate
        state = self._lanes.get(lane)
        if not rate or state is None:
            return 0.0
        tokens = _tokens(state, rate, now)
        return 0.0 if tokens >= 1 else (1 - tokens) / rate

    # -- what happened ---------------------------------------------------------------------------------------

    def connected(self, lane: str) -> None:
        """Count a connection, from the moment it is attempted; each wants one ``closed``."""
        state = self._lanes.get(lane)
        if state is None:
            state = self._lanes[lane] = _Lane()
        self._busy += not state.open
        state.open += 1

    def closed(self, lane: str, now: float) -> None:
        """Take back one connection; one too many does nothing."""
        state = self._lanes.get(lane)
        if state is None or not state.open:
            return
        state.open -= 1
        self._busy -= not state.open
        if state.idle(now) and _tokens(state, self._capacity(lane).rate, now) >= 1:
            del self._lanes[lane]
        self._forget_oldest()

    def started(self, lane: str, now: float) -> None:
        """Count a message towards the lane's rate."""
        rate = self.capacity(lane, now).rate
        state = self._lanes.get(lane)
        if state is None or not rate:
            return
        state.tokens = _tokens(state, rate, now) - 1
        state.counted_at = now

    def succeeded(self, lane: str, now: float) -> None:
        """The peer has judged a message: it answers, and has earned a little more."""
        state = self._lanes.get(lane)
        if state is None or not (state.failures or state.blocks or state.allowed):
            return
        if state.failures or state.blocks:
            state.failures = state.blocks = 0
            state.rest_until = 0.0
            state.allowed = max(1.0, state.allowed)
            self.changed.add(lane)
        state.allowed += 1 / state.allowed
        limit = self._capacity(lane).connections
        if limit and state.allowed >= limit:
            state.allowed = 0.0
            state.reason = "" if state.half_until <= now else state.reason
            self.changed.add(lane)

    def failed(self, lane: str, now: float, dice: float, reason: str = "") -> float:
        """Let the lane rest, twice as long as last time, and return until when (Unix seconds).

        ``dice`` in [-1, 1] is drawn by the caller. Connections that fail together are one failure: while the
        lane rests, another changes nothing.
        """
        state = self._lanes.get(lane)
        if state is None:
            state = self._lanes[lane] = _Lane()
        until = _rest_until(state, now)
        if until > now:
            return until
        rest_s = min(FIRST_REST_S * 2 ** min(state.failures, 10), LONGEST_REST_S)
        state.failures += 1
        state.allowed = max(1.0, (state.allowed or self._capacity(lane).connections or state.open) / 2)
        return self._rest(lane, state, now + rest_s * (1 + JITTER * dice), reason)

    def slow(self, lane: str, now: float, reason: str) -> None:
        """The peer asked for less: one message a minute for 90 minutes, then half speed for as long."""
        state = self._lanes.setdefault(lane, _Lane())
        state.slow_until, state.half_until, state.reason = now + SLOW_S, now + 2 * SLOW_S, reason
        state.tokens, state.counted_at = min(state.tokens, 0.0), now
        self.changed.add(lane)

    def block(self, lane: str, now: float, dice: float, reason: str) -> float:
        """Our address is not welcome there: rest for an hour, twice as long each time, and return until when."""
        state = self._lanes.setdefault(lane, _Lane())
        until = _rest_until(state, now)
        if until > now and state.blocks:
            return until
        rest_s = min(FIRST_BLOCK_S * 2 ** min(state.blocks, 10), LONGEST_BLOCK_S)
        state.blocks += 1
        state.blocked_at = now
        return self._rest(lane, state, now + rest_s * (1 + JITTER * dice), reason)

    def forgive(self, lane: str) -> None:
        """A person wants the lane tried now: forget its rests and its slowness, not what he ordered."""
        state = self._lanes.get(lane)
        if state is None:
            return
        state.failures = state.blocks = 0
        state.rest_until = state.slow_until = state.half_until = state.allowed = state.blocked_at = 0.0
        state.reason = ""
        self.changed.add(lane)

    def order(self, lane: str, order: Order) -> None:
        """Let a person's word stand for the lane, until another."""
        self._lanes.setdefault(lane, _Lane()).order = _NO_ORDER if order == _NO_ORDER else order
        self.changed.add(lane)

    def ordered_to_rest(self, lane: str) -> bool:
        """Return whether a person lets this lane rest."""
        state = self._lanes.get(lane)
        return state is not None and state.order.rest

    # -- looking at it, and keeping it ---------------------------------------------------------------------------

    def reason(self, lane: str, now: float) -> str:
        """Return in a few words why the lane carries less than it could, or an empty string."""
        state = self._lanes.get(lane)
        if state is None:
            return ""
        if state.order.rest:
            return "a person ordered it to rest"
        if _rest_until(state, now) > now or _current(state.half_until, now, 2 * SLOW_S):
            return state.reason
        if state.order != Order():
            return "a person set its limits"
        return ""

    def slowed(self, lane: str, now: float) -> bool:
        """Return whether the peer asked for less, lately."""
        state = self._lanes.get(lane)
        return state is not None and _current(state.half_until, now, 2 * SLOW_S)

    def open(self, lane: str) -> int:
        """Return how many connections the lane has."""
        state = self._lanes.get(lane)
        return 0 if state is None else state.open

    def lanes(self) -> dict[str, int]:
        """Return the lanes that are known, with how many connections each has open."""
        return {lane: state.open for lane, state in self._lanes.items()}

    def state(self, lane: str) -> Learned:
        """Return what is known of a lane."""
        state = self._lanes.get(lane) or _Lane()
        return Learned(
            lane,
            state.allowed,
            state.failures,
            state.blocks,
            state.rest_until,
            state.slow_until,
            state.half_until,
            state.reason,
            state.order,
            state.blocked_at,
        )

    def learned(self) -> list[Learned]:
        """Return the lanes that have changed since the last call, to be kept."""
        found = [self.state(lane) for lane in self.changed]
        self.changed.clear()
        return found

    def restore(self, learned: Iterable[Learned], now: float) -> None:
        """Take over what was kept, as far as it still means something."""
        for one in learned:
            state = _Lane(
                0, one.allowed, one.failures, one.blocks, one.rest_until, one.slow_until, one.half_until, one.reason,
                _NO_ORDER if one.order == _NO_ORDER else one.order, one.blocked_at,
            )  # fmt: skip
            state.counted_at = now  # and no token: a restart is no reason to send at once
            if not state.idle(now):
                self._lanes[one.lane] = state

    # -- inside --------------------------------------------------------------------------------------------------

    def _rest(self, lane: str, state: _Lane, until: float, reason: str) -> float:
        state.rest_until, state.reason = until, reason
        self.changed.add(lane)
        self._lanes[lane] = self._lanes.pop(lane)  # to the end: the front failed longest ago
        self._forget_oldest()
        return until

    def _forget_oldest(self) -> None:
        while len(self._lanes) - self._busy > self.max_lanes:
            oldest = next(
                (name for name, state in self._lanes.items() if not state.open and state.order == Order()), None
            )
            if oldest is None:
                return
            del self._lanes[oldest]


def _tokens(state: _Lane, rate: float, now: float) -> float:
    """Return how many messages may go now: the bucket holds what ``BURST_S`` brings, at least one."""
    full = max(1.0, rate * BURST_S)
    if not state.counted_at or now < state.counted_at:
        return full if not state.slow_until else min(full, 1.0)
    return min(full, state.tokens + (now - state.counted_at) * rate)


def _current(until: float, now: float, most_s: float) -> bool:
    """Return whether a time is ahead, and not left there by a clock that was set back."""
    return now < until <= now + most_s


def _rest_until(state: _Lane, now: float) -> float:
    """Return the end of the rest; one that is longer than any we order was left by a clock set back, and is over."""
    longest = LONGEST_BLOCK_S if state.blocks else LONGEST_REST_S
    return 0.0 if state.rest_until - now > longest * (1 + JITTER) else state.rest_until
