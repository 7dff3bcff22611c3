"""Which mail is sent next, and by how many connections: the ready queue as a state machine.

Mail waits in two places. Fresh mail is handed over in memory, already leased, within a bound; everything
else (later tries, the overflow, what a restart found) waits in the table, of which only the earliest due
time per destination and tenant is known here. Memory therefore does not grow with the queue, and one
destination's million of overdue rows costs the others nothing: each ``Lane`` claims its own rows, 50 at a time.

A lane serves its tenants in turn, one message each, whether it is in memory or in the table: a tenant's flood never
stands before another's single mail. Within a tenant's ``Share`` mail that people wait for goes before bulk,
and older before newer: while the table holds due rows of a share, fresh mail for it is not taken into memory
(``room`` says no) and queues up behind them in the table.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf

from arkrelay.model.message import Recipient

HANDOVER_MESSAGES = 2000  # recipients in memory, over all lanes
HANDOVER_BYTES = 64_000_000
CLAIM = 50  # rows taken from the table at once
CEILING_S = 300.0  # how long a peer that refused one connection more is not asked for it again
BACKLOG_PER_CONNECTION = 4  # a lane opens another connection for each so many that wait


@dataclass(slots=True, eq=False)
class Share:
    """One tenant's mail for one destination: what is ready in memory, and when its table rows are due.

    There are as many as pairs of destination and tenant in the table, and nearly all of them have nothing ready: two
    empty lists are 112 bytes, two empty deques 1250. All lists together hold little more than the handover.
    """

    tenant_id: str
    first: list[Recipient] = field(default_factory=list)  # what people wait for
    bulk: list[Recipient] = field(default_factory=list)
    table_due: float = inf  # earliest unleased row; inf: none that we know of
    claiming: bool = False
    noted_due: float = inf  # what was noted while a claim was under way, which may not have seen it

    @property
    def ready(self) -> int:
        """How many recipients are in memory."""
        return len(self.first) + len(self.bulk)

    def offer(self, recipient: Recipient, *, in_front: bool = False) -> None:
        """Put a leased recipient behind what is ready, or in front of it."""
        line = self.bulk if recipient.message.bulk else self.first
        if in_front:
            line.insert(0, recipient)
        else:
            line.append(recipient)

    def take(self) -> Recipient:
        """Return the next recipient; there must be one."""
        return self.first.pop(0) if self.first else self.bulk.pop(0)

    def take_all(self) -> list[Recipient]:
        """Return everything that is ready."""
        taken = [*self.first, *self.bulk]
        self.first.clear()
        self.bulk.clear()
        return taken

    def take_if(self, wanted: Callable[[Recipient], bool]) -> list[Recipient]:
        """Return what is ready and wanted; the rest stays in its order."""
        taken = [one for one in (*self.first, *self.bulk) if wanted(one)]
        for recipient in taken:
            (self.bulk if recipient.message.bulk else self.first).remove(recipient)
        return taken

    def has_work(self, now: float) -> bool:
        """Return whether something of it may be sent now."""
        return bool(self.first) or bool(self.bulk) or self.table_due <= now


@dataclass(slots=True, eq=False)
class Lane:
    """One destination: what waits for it, tenant by tenant, and who serves it."""

    destination: str
    shares: dict[str, Share] = field(default_factory=dict)  # in the order of their turns
    connections: int = 0  # being set up or serving
    sessions: int = 0  # serving: the peer has taken the conversation
    most: int = 0  # what the peer let us have when it last refused another; 0: it has not
    most_until: float = 0.0
    rest_until: float = 0.0
    rest_reason: str = ""
    rest_failed: bool = True  # it rests because it could not be reached, and not because it must wait its turn
    rest_site: str = ""  # whose failure it was, for ``Pace``
    site: str = ""  # that answered for it last

    @property
    def ready(self) -> int:
        """How many recipients are in memory."""
        return sum(share.ready for share in self.shares.values())

    @property
    def table_due(self) -> float:
        """When the first row of the table is due; inf: none that we know of."""
        return min((share.table_due for share in self.shares.values()), default=inf)

    def has_work(self, now: float) -> bool:
        """Return whether something may be sent now, rest aside."""
        return any(share.has_work(now) for share in self.shares.values())

    def turn(self, now: float) -> Share | None:
        """Return the share whose turn it is, or None; while one is claimed for, what it has in the table is not."""
        for share in self.shares.values():
            if share.ready or (share.table_due <= now and not share.claiming):
                return share
        return None

    def take_all(self) -> list[Recipient]:
        """Return everything that is ready in memory."""
        return [recipient for share in self.shares.values() for recipient in share.take_all()]

    def served(self, share: Share) -> None:
        """Put the share at the end of the turns; forget it when it has nothing."""
        if self.shares.pop(share.tenant_id, None) is not None and (
            share.ready or share.claiming or share.table_due < inf
        ):
            self.shares[share.tenant_id] = share


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

    def share(self, destination: str, tenant_id: str) -> Share:
        """Return a tenant's share of a lane, made now if need be."""
        shares = self.lane(destination).shares
        share = shares.get(tenant_id)
        if share is None:
            share = shares[tenant_id] = Share(tenant_id)
        return share

    def room(self, destinations: Sequence[str], tenant_id: str, size_bytes: int, now: float) -> bool:
        """Reserve memory for one recipient per entry of ``destinations``, or return False and reserve nothing."""
        if self.messages + len(destinations) > HANDOVER_MESSAGES or self.bytes + size_bytes > HANDOVER_BYTES:
            return False
        lanes = self.lanes
        for destination in destinations:
            lane = lanes.get(destination)
            if lane is None:
                continue
            if lane.rest_until > now:
                return False
            share = lane.shares.get(tenant_id)
            if share is not None and share.table_due <= now:
                return False
        self.messages += len(destinations)
        self.bytes += size_bytes
        return True

    def free(self, recipients: int, size_bytes: int) -> None:
        """Give back what ``room`` reserved."""
        self.messages -= recipients
        self.bytes -= size_bytes

    def offer(self, recipient: Recipient) -> Lane:
        """Put a leased recipient behind what is ready of its tenant in its lane."""
        lane = self.lane(recipient.destination)
        self.share(recipient.destination, recipient.message.tenant_id).offer(recipient)
        return lane

    def note_due(self, destination: str, tenant_id: str, at: float) -> None:
        """Remember that the table holds an unleased row of ``destination`` and tenant that is due at ``at``."""
        share = self.share(destination, tenant_id)
        if share.claiming:
            share.noted_due = min(at, share.noted_due)
        if at < share.table_due:
            share.table_due = at
            self._push(max(at, self.lanes[destination].rest_until), destination)

    def claimed(self, lane: Lane, share: Share, next_due: float | None) -> None:
        """Remember after a claim when the share's remaining rows are due (None: no rows remain).

        A row that was noted meanwhile may have been written behind the claim in the same batch: the claim did not
        see it, and its time must not be forgotten.
        """
        share.table_due = min(inf if next_due is None else next_due, share.noted_due)
        share.noted_due = inf
        if share.table_due < inf:
            self._push(max(share.table_due, lane.rest_until), lane.destination)

    def rest(self, lane: Lane, until: float, reason: str, *, failed: bool = True) -> None:
        """Leave the lane alone until then; ``why`` shows the reason, and whether something ``failed``."""
        lane.rest_until, lane.rest_reason, lane.rest_failed = until, reason, failed
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
        is served by a single pipelined connection. How many wait in the table is not known before a connection
        has claimed them, so after a restart or an outage thousands of lanes with a row or two ask for one each.
        """
        if lane.rest_until > now:
            return 0
        waiting = lane.ready
        if not waiting and lane.table_due > now:
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
        if lane.connections or lane.rest_until > now:
            return
        if not any(share.ready or share.claiming or share.table_due < inf for share in lane.shares.values()):
            self.lanes.pop(lane.destination, None)

    def _push(self, at: float, destination: str) -> None:
        heapq.heappush(self._heap, (at, destination))
