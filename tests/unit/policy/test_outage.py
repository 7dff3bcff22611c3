"""After an hour without any peer: nobody is stormed, nothing waits longer than it must, everything arrives.

The three that decide it (``schedule``, ``pace``, ``retry``) run under a clock of the test, with the little that
``relay.queue`` and ``relay.connection`` do around them.
"""

import heapq
import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import count

import pytest

from arkrelay.model.attempt import RetryPolicy
from arkrelay.policy.pace import JITTER, LONGEST_REST_S, Capacity, Pace
from arkrelay.policy.retry import longest_wait_s, next_attempt_at
from arkrelay.policy.schedule import Lane, Schedule

OUTAGE_S = 3600.0
SITES = 500
PER_SITE = 8
CONCURRENCY = 50
PER_LANE = 5
MESSAGE_S = 0.5  # how long a peer takes for one
POLICY = RetryPolicy(max_attempts=18, first_delay_s=300.0, factor=1.3, lifetime_s=172800.0)


@dataclass
class Mail:
    """One recipient: when it is due, how often it was tried, when it arrived."""

    due_at: float = 0.0
    attempts: int = 0
    due_on_return: float = 0.0  # when the first try after the outage was due
    arrived_at: float | None = None


@dataclass
class World:
    """Every destination with its mail in the table, all accepted in the moment when the network went."""

    seed: int
    now: float = 0.0
    schedule: Schedule = field(default_factory=lambda: Schedule(PER_LANE))
    connections: int = 0
    most: int = 0  # connections at once, over all
    tried: list[float] = field(default_factory=list)  # when connections were attempted
    first: dict[str, int] = field(default_factory=dict)  # connections that a lane had when its first one succeeded

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.pace = Pace(lambda _site: Capacity(connections=PER_LANE, rate=0))
        self.mail = {f"d{n}.test": [Mail() for _ in range(PER_SITE)] for n in range(SITES)}
        self.busy: Counter[str] = Counter()
        self.ends: list[tuple[float, int, str, Mail | None]] = []
        self.number = count()
        for destination in self.mail:
            self.schedule.note_due(destination, "acme", 0.0)

    def run(self) -> None:
        """Go from one moment at which something happens to the next, until nothing is left to happen."""
        waiting: dict[str, None] = {}
        while True:
            for lane in self.schedule.due(self.now):
                waiting[lane.destination] = None
            for destination in list(waiting):
                lane = self.schedule.lane(destination)
                while self.connections < CONCURRENCY and self.schedule.wants(lane, self.now) > lane.connections:
                    if not self._connect(lane):
                        break
                if self.connections >= CONCURRENCY:
                    break
                del waiting[destination]
            moments = [self.ends[0][0]] if self.ends else []
            wakeup = self.schedule.next_wakeup()
            if wakeup is not None:
                moments.append(wakeup)
            if not moments:
                return
            self.now = max(self.now, min(moments))
            assert self.now < 2 * 86400
            while self.ends and self.ends[0][0] <= self.now:
                _, _, destination, mail = heapq.heappop(self.ends)
                self._ended(self.schedule.lane(destination), mail)
                waiting[destination] = None

    def _connect(self, lane: Lane) -> bool:
        """Open a connection, which brings one message or fails at once; False when the lane may have no more."""
        site, now = lane.destination, self.now
        mail = next((one for one in self.mail[site] if one.arrived_at is None and one.due_at <= now), None)
        if mail is None or not self.pace.may_connect(site, now):
            at = self.pace.next_connect_at(site, now)
            if mail is not None and at > now:
                self.schedule.rest(lane, at, "down")
            return False
        self.tried.append(now)
        self.pace.connected(site)
        if now < OUTAGE_S:
            self._fail(lane)
            self.pace.closed(site, now)
            return False
        self.first.setdefault(site, self.pace.capacity(site, now).connections)
        mail.arrived_at = mail.due_at = now  # in hand: nobody else takes it
        lane.connections += 1
        self.connections += 1
        self.most = max(self.most, self.connections)
        heapq.heappush(self.ends, (now + MESSAGE_S, next(self.number), site, mail))
        self._note(lane)
        return True

    def _fail(self, lane: Lane) -> None:
        now = self.now
        until = self.pace.failed(lane.destination, now, self.dice.uniform(-1, 1), "down")
        self.schedule.rest(lane, until, "down")
        for one in self.mail[lane.destination]:
            if one.due_at <= now:
                one.attempts += 1
                due_at = next_attempt_at(POLICY, one.attempts, 0.0, now, self.dice.uniform(-1, 1))
                assert due_at is not None
                one.due_at = one.due_on_return = due_at
        self._note(lane)

    def _ended(self, lane: Lane, mail: Mail | None) -> None:
        assert mail is not None
        mail.arrived_at = self.now
        lane.connections -= 1
        self.connections -= 1
        self.pace.succeeded(lane.destination, self.now)
        self.pace.closed(lane.destination, self.now)

    def _note(self, lane: Lane) -> None:
        """The table is asked when the next row is due, as after a claim."""
        left = [one.due_at for one in self.mail[lane.destination] if one.arrived_at is None]
        self.schedule.claimed(lane, lane.shares["acme"], min(left, default=None))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_after_an_outage_connections_stay_within_their_limits_and_everything_arrives(seed: int) -> None:
    world = World(seed)
    world.run()
    everything = [one for mail in world.mail.values() for one in mail]
    assert all(one.arrived_at is not None for one in everything)
    assert world.most <= CONCURRENCY
    assert set(world.first.values()) == {1}, "a site that was down is tried by one connection"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_after_an_outage_nothing_waits_longer_than_its_schedule_and_a_rest(seed: int) -> None:
    world = World(seed)
    world.run()
    longest_rest_s = LONGEST_REST_S * (1 + JITTER)
    room_s = SITES * PER_SITE * MESSAGE_S / CONCURRENCY  # should all of it come at once
    for mail in world.mail.values():
        for one in mail:
            assert one.arrived_at is not None
            due_at = max(OUTAGE_S, one.due_on_return)
            assert one.arrived_at - due_at <= longest_rest_s + room_s
            assert due_at - OUTAGE_S <= longest_wait_s(POLICY)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_failed_in_one_moment_does_not_come_back_in_one(seed: int) -> None:
    world = World(seed)
    world.run()
    minutes = Counter(int((at - OUTAGE_S) // 60) for at in world.tried if at >= OUTAGE_S)
    assert max(minutes.values()) < 0.25 * SITES * PER_SITE, "most of it in one minute"
    seconds = Counter(int(at) for at in world.tried if 600 <= at < OUTAGE_S)
    assert max(seconds.values()) < 0.1 * SITES, "while it lasts, tries are spread as well"
