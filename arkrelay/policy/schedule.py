"""Which destination is served next, by how many connections: the ready queue as a state machine.

Mail waits in two places. Fresh mail is handed over in memory, already leased, within a bound; everything
else (later tries, the overflow, what a restart found) waits in the table, of which only the earliest due
time per destination is known here. Memory therefore does not grow with the queue, and one destination's
million of overdue rows costs the others nothing: each ``Lane`` claims its own rows, 50 at a time.

Within a lane older mail goes first: while the table holds due rows of a destination, fresh mail for it is
not taken into memory (``room`` says no) and queues up behind them in the table.
"""

import heapq
from collections import deque
from dataclasses import dataclass, field
from math import inf

from arkrelay.model.message import Recipient

HANDOVER_MESSAGES = 2000  # recipients in memory, over all lanes
HANDOVER_BYTES = 64_000_000
CLAIM = 50  # rows taken from the table at once
CEILING_S = 300.0  # how long a peer that refused one connection more is not asked for it again
BACKLOG_PER_CONNECTION = 4  # a lane opens another connection for each so many that wait


@dataclass(slots=True, eq=False)
class Lane:
    """One destination: what is ready for it in memory, when its table rows are due, who serves it."""

    destination: str
    ready: deque[Recipient] = field(default_factory=deque)
    table_due: float = inf  # earliest unleased row; inf: none that we know of
    claiming: bool = False
    noted_due: float = inf  # what was noted while a claim was under way, which may not have seen it
    connections: int = 0  # being set up or serving
    sessions: int = 0  # serving: the peer has taken the conversation
    most: int = 0  # what the peer let us have when it last refused another; 0: it has not
    most_until: float = 0.0
    rest_until: float = 0.0
    rest_reason: str = ""
    rest_site: str = ""  # whose failure it was, for ``Pace``

    def has_work(self, now: float) -> bool:
        """Return whether something may be sent now, rest aside."""
        return bool(self.ready) or self.table_due <= now


class Schedule:
    """All lanes, and the heap of the times at which they want attention."""

    def __init__(self, connections_per_lane: int = 5) -> None:
        self.connections_per_lane = connections_per_lane
        self.lanes: dict[str, Lane] = {}
        self.messages = 0
        self.bytes = 0
        self._heap: list[tuple[float, str]] = []

    def lane(self, destination: str) -> Lane:
        """Return the lane of this destination, made now if need be."""
        lane = self.lanes.get(destination)
        if lane is None:
            lane = self.lanes[destination] = Lane(destination)
        return lane

    def room(self, destinations: list[str], size_bytes: int, now: float) -> bool:
        """Reserve memory for one recipient per entry of ``destinations``, or return False and reserve nothing."""
        if self.messages + len(destinations) > HANDOVER_MESSAGES or self.bytes + size_bytes > HANDOVER_BYTES:
            return False
        lanes = self.lanes
        for destination in destinations:
            lane = lanes.get(destination)
            if lane is not None and (lane.table_due <= now or lane.rest_until > now):
                return False
        self.messages += len(destinations)
        self.bytes += size_bytes
        return True

    def free(self, recipients: int, size_bytes: int) -> None:
        """Give back what ``room`` reserved."""
        self.messages -= recipients
        self.bytes -= size_bytes

    def offer(self, recipient: Recipient) -> Lane:
        """Put a leased recipient at the end of its lane's ready queue."""
        lane = self.lane(recipient.destination)
        lane.ready.append(recipient)
        return lane

    def note_due(self, destination: str, at: float) -> None:
        """Remember that the table holds an unleased row of ``destination`` that is due at ``at``."""
        lane = self.lane(destination)
        if lane.claiming:
            lane.noted_due = min(at, lane.noted_due)
        if at < lane.table_due:
            lane.table_due = at
            self._push(max(at, lane.rest_until), destination)

    def claimed(self, lane: Lane, next_due: float | None) -> None:
        """Remember after a claim when the lane's remaining rows are due (None: no rows remain).

        A row that was noted meanwhile may have been written behind the claim in the same batch: the claim did not
        see it, and its time must not be forgotten.
        """
        lane.table_due = min(inf if next_due is None else next_due, lane.noted_due)
        lane.noted_due = inf
        if lane.table_due < inf:
            self._push(max(lane.table_due, lane.rest_until), lane.destination)

    def rest(self, lane: Lane, until: float, reason: str) -> None:
        """Leave the lane alone until then; ``why`` shows the reason."""
        lane.rest_until, lane.rest_reason = until, reason
        self._push(until, lane.destination)

    def due(self, now: float) -> list[Lane]:
        """Return the lanes whose time has come, each once; their entries leave the heap."""
        found: dict[str, Lane] = {}
        while self._heap and self._heap[0][0] <= now:
            _, destination = heapq.heappop(self._heap)
            lane = self.lanes.get(destination)
            if lane is not None and destination not in found and lane.has_work(now) and lane.rest_until <= now:
                found[destination] = lane
        return list(found.values())

    def next_wakeup(self) -> float | None:
        """Return when ``due`` should be asked again, or None when only new mail can change anything."""
        return self._heap[0][0] if self._heap else None

    def wants(self, lane: Lane, now: float) -> int:
        """Return how many connections this lane should have; 0 while it rests or has no work.

        One at first, and one more for every few that wait: a slow peer gets parallel connections, a fast one
        is served by a single pipelined connection.
        """
        if lane.rest_until > now:
            return 0
        waiting = len(lane.ready) + (CLAIM if lane.table_due <= now else 0)
        if not waiting:
            return 0
        limit = self.connections_per_lane
        if lane.most_until > now:
            limit = min(limit, lane.most)
        return min(limit, 1 + waiting // BACKLOG_PER_CONNECTION)

    def refused_another(self, lane: Lane, now: float) -> bool:
        """Return whether a failed connection only shows that the lane has as many as its peer allows.

        Then the lane keeps what it has, and asks for no more for a while; nothing is wrong with its mail.
        """
        if not lane.sessions:
            return False
        lane.most, lane.most_until = lane.sessions, now + CEILING_S
        return True

    def forget(self, lane: Lane, now: float) -> None:
        """Drop the lane if nothing is known of it any more, so that memory follows the active destinations."""
        if not lane.ready and not lane.connections and lane.table_due == inf and lane.rest_until <= now:
            self.lanes.pop(lane.destination, None)

    def _push(self, at: float, destination: str) -> None:
        heapq.heappush(self._heap, (at, destination))
