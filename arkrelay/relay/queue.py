"""The loop around ``policy.schedule``: mail in memory or in the table becomes work for connections.

Fresh mail is handed over in memory with its content, bounded, and already leased in the database; whatever
does not fit, and every later try, is claimed from the table when a connection of its lane asks for more.
``relay.connection`` is what serves a lane; this module decides that one should, and how many.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from math import inf
from typing import Protocol

import structlog

from arkrelay.base.tasks import Tasks
from arkrelay.config.live import Live
from arkrelay.model.errors import StoreError
from arkrelay.model.message import HoldReason, Recipient
from arkrelay.policy import outcomes
from arkrelay.policy.describe import suppressed
from arkrelay.policy.pace import Capacity, Pace
from arkrelay.policy.retry import longest_wait_s
from arkrelay.policy.route import split
from arkrelay.policy.schedule import CLAIM, Lane, Schedule, Share
from arkrelay.policy.turns import Turns
from arkrelay.policy.warmup import Warmups
from arkrelay.relay.bursts import BurstGuard
from arkrelay.relay.claim import claim, kept_back
from arkrelay.relay.contents import Contents
from arkrelay.relay.recall import Recall
from arkrelay.relay.settle import Settler
from arkrelay.store import lanes
from arkrelay.store import queue as rows
from arkrelay.store.database import Store
from arkrelay.store.journal import Phase

log = structlog.get_logger()

TICK_S = 5.0  # the loop comes by at least so often; the watchdog counts on it
CLOCK_JUMP_S = 60.0  # the wall clock moved against the monotonic one by more than NTP slews
STORE_TROUBLE_S = 2.0  # pause after a claim that the store refused
SURPRISE_S = 60.0  # pause of a lane whose connection ended by a bug of ours
RELEASE_S = 5.0  # for giving leases back at the end, should the database be in trouble
FAIL_BATCH = 500  # rows of a destination that cannot be reached are settled so many at a time


class Served(Protocol):
    """What the queue knows of a connection (``relay.connection`` and the capture box are the two kinds)."""

    hungry: bool  # it could start another transaction now
    leaving: bool  # it starts no more, and only waits for the peer's goodbye

    def wake(self) -> None: ...

    async def run(self) -> None: ...


class Queue:
    """Everything that waits to be sent."""

    def __init__(
        self,
        store: Store,
        live: Live,
        settler: Settler,
        serve: Callable[["Queue", Lane], Served],
        capacity: Callable[[str], Capacity],
    ) -> None:
        self._store = store
        self._live = live
        self._settler = settler
        self._make = serve
        self.schedule = Schedule(live.snapshot.settings.delivery.connections_per_site)
        self.pace = Pace(capacity)
        self.warmups = Warmups(lambda: live.snapshot.settings.warmup)
        self.stopping = False
        self._paused = ""
        self._resumed = False
        self.ticked_at = time.monotonic()  # when the loop last came by, for the watchdog
        self.connections = 0
        self._serving: dict[str, set[Served]] = {}
        self._contents = Contents(store, self.schedule.free)
        self._recall = Recall(store, self.schedule, self._hold_suppressed)
        self._waiting: dict[str, None] = {}  # lanes that want a connection beyond the limit in all, in order
        self._turns = Turns()
        self._tasks = Tasks()
        self._alarm = asyncio.Event()
        settler.on_due = self.note_due
        settler.on_suppressed = self.note_suppressed

    @property
    def paused(self) -> str:
        """Why nothing is sent at all (the disk is full, the database fails), or an empty string."""
        return self._paused

    @paused.setter
    def paused(self, reason: str) -> None:
        if self._paused and not reason:
            self._resumed = True
            self._alarm.set()
        self._paused = reason

    # -- from submit ---------------------------------------------------------------------------------------

    def reserve(self, destinations: Sequence[str], tenant_id: str, size_bytes: int) -> bool:
        """Return whether these recipients may stay in memory once they are on disk; memory is then reserved."""
        if self.stopping or self.paused:
            return False
        return self.schedule.room(destinations, tenant_id, size_bytes, time.time())

    def unreserve(self, recipients: int, size_bytes: int) -> None:
        """Give back what ``reserve`` granted: the message did not come about."""
        self.schedule.free(recipients, size_bytes)

    def hand_over(self, recipients: Sequence[Recipient], content: bytes, reserved: int) -> None:
        """Take committed, leased recipients of one message from memory; ``reserved`` is what ``reserve`` granted."""
        if not recipients:
            self.schedule.free(reserved, len(content))
            return
        self._contents.take(recipients[0].message.id, content, len(recipients), reserved)
        for recipient in recipients:
            self.kick(self.schedule.offer(recipient))

    def note_due(self, destination: str, tenant_id: str, at: float) -> None:
        """The table holds an unleased row of ``destination`` and tenant, due at ``at``."""
        self.schedule.note_due(destination, tenant_id, at)
        if at <= time.time() + TICK_S:  # before the loop comes by by itself
            self._alarm.set()

    def note_suppressed(self, tenant_id: str, addresses: Iterable[str]) -> None:
        """These addresses may have joined a tenant's list, on disk: what is in memory for them is held soon."""
        self._recall.ask(tenant_id, addresses)

    def destinations_to(self, domain: str) -> tuple[str, ...]:
        """Return the destinations of mail to a domain that are known, one for each demand of TLS and each pool."""
        return tuple(name for name in self.schedule.lanes if split(name)[2] == domain)

    def destinations_of(self, tenant_id: str) -> tuple[str, ...]:
        """Return the destinations for which a tenant has mail."""
        return tuple(name for name, lane in self.schedule.lanes.items() if tenant_id in lane.shares)

    def end_rests(self, destinations: Collection[str] | None = None) -> None:
        """A person wants mail tried now, and may have mended what was wrong: for some destinations, or for all."""
        now = time.time()
        lanes = self.schedule.lanes
        asked = list(lanes.values()) if destinations is None else [lanes[one] for one in destinations if one in lanes]
        for lane in asked:
            if lane.rest_until > now:
                lane.rest_until = 0.0
                self.pace.forgive(lane.rest_site)
                self.kick(lane)

    def lane(self, destination: str) -> Lane | None:
        """Return what is known of a destination, or None."""
        return self.schedule.lanes.get(destination)

    def waits_for_room(self, destination: str) -> bool:
        """Return whether a destination waits for one of the connections that there may be in all."""
        return destination in self._waiting

    @property
    def most_connections(self) -> int:
        """How many connections there may be in all."""
        return self._live.snapshot.settings.delivery.concurrency

    @property
    def bursts(self) -> BurstGuard:
        """Who is not believed about recipients."""
        return self._settler.bursts

    @property
    def captures(self) -> bool:
        """Whether everything ends in the capture box."""
        return self._live.snapshot.settings.delivery.mode == "capture"

    def warming(self, now: float) -> set[str]:
        """Return the lanes of ``pace`` from new addresses that are not yet warm."""
        new = [f"@{source.address}" for source in self._live.snapshot.settings.source if source.warmup]
        return {
            name
            for name in (self.warmups.lanes() if new else ())
            if name.endswith(tuple(new)) and self.warmups.budget(name, now) is not None
        }

    # -- the loop --------------------------------------------------------------------------------------------

    async def recover(self, left: dict[int, Phase], *, rebooted: bool) -> None:
        """Free what a dead process had leased, and settle what its journal says; then learn what is due.

        A recipient that the peer had taken is sent. One past its final dot without a reply is uncertain and
        follows ``delivery.uncertain``; so is everything that was leased when the machine lost power, because
        the journal is not flushed to disk.
        """
        now = time.time()
        recovery = await self._store.write(
            lambda db: rows.recover(db, left, rebooted, self._store.epoch, now), essential=True
        )
        policy = self._live.snapshot.settings.delivery.uncertain
        for recipient in recovery.taken:
            self._settler.settle(outcomes.taken_before_crash(recipient, now))
        for recipient in recovery.uncertain:
            self._settler.settle(outcomes.uncertain_after_crash(recipient, policy, now, rebooted=rebooted))
        if recovery.freed or recovery.taken or recovery.uncertain:
            log.warning(
                "recovered",
                freed=recovery.freed,
                taken=len(recovery.taken),
                uncertain=len(recovery.uncertain),
                rebooted=rebooted,
            )
        self.pace.restore(await self._store.read(lanes.load), now)
        self.warmups.restore(await self._store.read(lanes.load_warmups))
        await self._settler.bursts.restore()
        latest = now + longest_wait_s(self._live.snapshot.settings.delivery.retry_policy())
        await self._store.write(lambda db: rows.bring_forward(db, latest), essential=True)
        for destination, tenant_id, at in await self._store.read(rows.due_by_share):
            self.schedule.note_due(destination, tenant_id, at)

    async def run(self) -> None:
        """Wake lanes as their time comes, until ``stop``."""
        skew = time.time() - time.monotonic()
        while not self.stopping:
            self.ticked_at = time.monotonic()
            now = time.time()
            if abs(now - self.ticked_at - skew) > CLOCK_JUMP_S:
                skew = now - self.ticked_at
                await self._after_clock_jump(now)
            self._obey_settings()
            self.keep_learned()
            if not self.paused:
                # after a pause every lane is looked at: what came due or was handed over in it woke nobody
                due = list(self.schedule.lanes.values()) if self._resumed else self.schedule.due(now)
                self._resumed = False
                for lane in due:
                    self.kick(lane)
                for name in [one for one in self._turns.lanes() if self.pace.may_connect(one, now)]:
                    self._give_turn(name)  # a rest or a slow time has ended
            wakeup = self.schedule.next_wakeup()
            pause = TICK_S if wakeup is None or self.paused else min(TICK_S, max(0.0, wakeup - time.time()))
            self._alarm.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._alarm.wait()
            except TimeoutError:
                pass

    async def _after_clock_jump(self, now: float) -> None:
        """Nothing waits longer than a schedule can order because somebody set the clock back."""
        latest = now + longest_wait_s(self._live.snapshot.settings.delivery.retry_policy())
        try:
            moved = await self._store.write(lambda db: rows.bring_forward(db, latest))
            due = await self._store.read(rows.due_by_share)
        except StoreError as error:
            log.warning("clock_jump_not_followed", error=str(error))
            return
        log.warning("clock_jumped", moved=moved)
        for lane in self.schedule.lanes.values():
            lane.rest_until = min(lane.rest_until, now)
        for destination, tenant_id, at in due:
            self.schedule.note_due(destination, tenant_id, at)

    async def stop(self, timeout_s: float) -> bool:
        """Start nothing new and return True when all in-flight work ended within ``timeout_s``.

        What is ready in memory and was not begun goes back to the table.
        """
        self.stopping = True
        self._alarm.set()
        for serving in self._serving.values():
            for connection in serving:
                connection.wake()
        ended = await self._tasks.wait(timeout_s)
        self.keep_learned()
        if not ended:
            await self._tasks.cancel()
        ready = [recipient.id for lane in self.schedule.lanes.values() for recipient in lane.take_all()]
        try:
            async with asyncio.timeout(RELEASE_S):
                await self._store.write(lambda db: rows.release(db, ready, None), essential=True)
        except (TimeoutError, StoreError) as error:
            log.warning("leases_not_released", recipients=len(ready), error=str(error))  # the next start frees them
        return ended

    # -- from connections ----------------------------------------------------------------------------------------

    async def next(self, lane: Lane) -> Recipient | None:
        """Return the lane's next recipient that may leave, of the tenant whose turn it is, or None.

        What a tenant has in memory is sent first; a claim that another connection has under way is not waited for.
        """
        while not (self.stopping or self.paused):
            share = lane.turn(time.time())
            if share is None:
                return None
            if not share.ready:
                await self._claim(lane, share, CLAIM, time.time())
                if not share.ready:
                    continue
            recipient = share.take()
            lane.served(share)
            if self._may_leave(recipient):
                self._recall.taken(recipient)
                return recipient
        return None

    def offers(self, lane: Lane) -> bool:
        """Return whether ``next`` may find something now; not while another connection claims for the lane."""
        if self.paused:
            return False
        return lane.turn(time.time()) is not None

    async def all_due(self, lane: Lane, at: float) -> list[Recipient]:
        """Return everything of the lane that was due at ``at``, a batch at a time: it could not be reached then."""
        while True:
            share = lane.turn(at)
            if share is not None and not share.ready:
                await self._claim(lane, share, FAIL_BATCH, at)
            taken = lane.take_all()
            leaving = [recipient for recipient in taken if self._may_leave(recipient)]
            if leaving or (not taken and lane.turn(at) is None):
                return leaving

    async def content(self, recipient: Recipient) -> bytes:
        """Return the message's signed content; raises StoreError when it cannot be read."""
        return await self._contents.of(recipient)

    def finished(self, recipient: Recipient) -> None:
        """This recipient is no longer in hand: its outcome is decided."""
        self._recall.finished(recipient)
        self._contents.finished(recipient)

    def take_expired(self, now: float) -> list[Recipient]:
        """Return what waits in memory beyond the end of its message's own lifetime; it is no longer in hand."""
        taken: list[Recipient] = []
        for lane in self.schedule.lanes.values():
            for share in lane.shares.values():
                taken += share.take_if(lambda one: _is_over(one, now))
        for recipient in taken:
            self.finished(recipient)
        return taken

    def put_back(self, lane: Lane, recipient: Recipient) -> None:
        """Try this recipient again at once: the kept connection was closed under it before it was its turn.

        It is held instead when its address was suppressed meanwhile.
        """
        reason = self._recall.finished(recipient)
        if reason is not None:
            self._hold_suppressed(recipient, reason)
            return
        self.schedule.share(lane.destination, recipient.message.tenant_id).offer(recipient, in_front=True)

    def wait_for(self, lane: Lane, names: Sequence[str]) -> None:
        """Serve the destination when a connection of one of these lanes of ``pace`` ends; idle ones are asked to."""
        self._turns.wait(lane.destination, names, list(lane.shares))
        self._wake_idle()

    def waits_for(self, destination: str) -> tuple[str, ...]:
        """Return the lanes of ``pace`` of which a destination waits for a connection; empty: it does not."""
        return self._turns.places(destination)

    def wanted(self, name: str) -> bool:
        """Return whether an idle connection of this lane of ``pace`` should make room for another destination."""
        return self._turns.wanted(name) or bool(self._waiting)

    def closed(self, name: str) -> None:
        """A connection of this lane of ``pace`` has ended: whoever waited for it may try."""
        self.pace.closed(name, time.time())
        self._give_turn(name)

    def served(self, name: str, tenant_id: str) -> None:
        """A message of this tenant went by this lane of ``pace``: the next free connection is somebody else's."""
        self._turns.served(name, tenant_id)

    def _give_turn(self, name: str) -> None:
        """Let one of the destinations that wait for a lane try: that of the tenant who was served longest ago."""
        while (destination := self._turns.next(name)) is not None:
            lane = self.schedule.lanes.get(destination)
            if lane is not None:  # else what waited is gone
                self.kick(lane)
                return

    # -- inside --------------------------------------------------------------------------------------------------

    def kick(self, lane: Lane) -> None:
        """Give the lane what it wants: a hungry connection is woken, or more are started."""
        if self.stopping or self.paused:
            return
        serving = self._serving.get(lane.destination)
        if serving is not None:
            for connection in serving:
                if connection.hungry:
                    connection.wake()
                    return
        now = time.time()
        leaving = sum(connection.leaving for connection in serving or ())
        wanted = self.schedule.wants(lane, now) - (lane.connections - leaving)
        limit = self._live.snapshot.settings.delivery.concurrency
        while wanted > 0:
            if self.connections >= limit:
                self._waiting[lane.destination] = None
                self._wake_idle()
                return
            self._start(lane)
            wanted -= 1

    def _start(self, lane: Lane) -> None:
        connection = self._make(self, lane)
        lane.connections += 1
        self.connections += 1
        self._serving.setdefault(lane.destination, set()).add(connection)
        self._tasks.spawn(f"deliver {lane.destination}", self._serve(lane, connection))

    async def _serve(self, lane: Lane, connection: Served) -> None:
        try:
            await connection.run()
        except Exception as error:
            log.exception("connection_crashed", destination=lane.destination)
            self.schedule.rest(lane, time.time() + SURPRISE_S, f"an internal error ({type(error).__name__})")
        finally:
            lane.connections -= 1
            self.connections -= 1
            serving = self._serving[lane.destination]
            serving.discard(connection)
            if not serving:
                del self._serving[lane.destination]
            self._after(lane)

    def _after(self, lane: Lane) -> None:
        """A connection has ended: its lane may want another, and so may lanes that waited for room."""
        now = time.time()
        if not self._turns.places(lane.destination) and lane.has_work(now) and lane.rest_until <= now:
            self.kick(lane)
        if self._waiting:
            destination = next(iter(self._waiting))
            del self._waiting[destination]
            self.kick(self.schedule.lane(destination))
        self.schedule.forget(lane, now)

    def _wake_idle(self) -> None:
        for serving in self._serving.values():
            for connection in serving:
                if connection.hungry:
                    connection.wake()

    async def _claim(self, lane: Lane, share: Share, count: int, now: float) -> None:
        """Lease rows of the share that are due; those whose address was suppressed meanwhile are held instead."""
        destination, tenant_id, epoch = lane.destination, share.tenant_id, self._store.epoch
        share.claiming = True
        try:
            claimed = await self._store.write(lambda db: claim(db, destination, tenant_id, now, count, epoch))
        except StoreError as error:
            log.warning("claim_failed", destination=destination, error=str(error))
            share.noted_due = inf  # not later than what is set here
            self.schedule.claimed(lane, share, now + STORE_TROUBLE_S)
            self.schedule.rest(lane, now + STORE_TROUBLE_S, f"the database refused: {error}")
            return
        finally:
            share.claiming = False
        self.schedule.claimed(lane, share, claimed.next_due)
        for recipient in claimed.recipients:
            reason = claimed.suppressed.get(recipient.id)
            self._contents.claimed(recipient)
            if reason is not None:
                self._hold_suppressed(recipient, reason)
            else:
                share.offer(recipient)

    def _hold_suppressed(self, recipient: Recipient, reason: str) -> None:
        """Keep one back whose address is suppressed, with the reason on the list; it is no longer in hand."""
        text = suppressed(recipient.address, reason)
        self._settler.settle(outcomes.hold(recipient, HoldReason.SUPPRESSED, text, time.time()))
        self.finished(recipient)

    def _may_leave(self, recipient: Recipient) -> bool:
        """Return whether this one may go now; if not, it is settled with the reason."""
        outcome = kept_back(recipient, self._live.snapshot, time.time())
        if outcome is None:
            return True
        self._settler.settle(outcome)
        self.finished(recipient)
        return False

    def _obey_settings(self) -> None:
        """Take over what a reload changed; how many of them a site takes is asked of ``pace`` each time."""
        self.schedule.connections_per_lane = self._live.snapshot.settings.delivery.connections_per_site

    def keep_learned(self) -> None:
        """Write down what lanes have learned, to be known after a restart."""
        if self.pace.changed:
            learned = self.pace.learned()
            self._store.write_later(lambda db: lanes.keep(db, learned))
        if self.warmups.changed:
            progress = self.warmups.learned()
            self._store.write_later(lambda db: lanes.keep_warmups(db, progress))
        self._settler.bursts.keep()


def _is_over(recipient: Recipient, now: float) -> bool:
    expires_at = recipient.message.expires_at
    return expires_at is not None and expires_at <= now
