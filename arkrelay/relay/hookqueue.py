"""Every event to every webhook that wants it, at least once, in order per recipient, whatever an endpoint does.

The log of events is the outbox: an event is written to it in the transaction of the fact that it tells. One
consumer follows it (``hooklog``) and makes a job of each event for each webhook that wanted it at that moment; one
loop here posts what is due. A job keeps its uuid over all attempts, so after a kill -9 between post and record the
receiver sees the same uuid twice, and nothing is lost. REST calls one recipient of one message an email, and so do
payloads: of one recipient a later event is posted only when the earlier one is taken or parked. Others overtake it.

When an endpoint is asked, and by how many posts, is said by ``policy.hookpace``. What waits for it waits in the
table: here are only the few dozen jobs that are posted next.

A webhook that answers 410 is disabled. That happened and was not configured, so it stands in the database and not
in a file: hand-managed files are no special case, and no peer makes us rewrite a file and lose its comments. REST
and the command line show such a webhook as not enabled; enabling it, or another URL, undoes it. What waits for a
disabled webhook waits on, as long as its schedule is; what happens while it is disabled is not for it.
"""

import asyncio
import random
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import structlog

from arkrelay.base.tasks import Tasks
from arkrelay.config.live import Live
from arkrelay.model.errors import StoreError
from arkrelay.model.event import Event, EventKind
from arkrelay.model.hook import Endpoint, HookDelivery, HookJob, JobEnd
from arkrelay.model.tenant import Webhook
from arkrelay.policy import hookpace
from arkrelay.policy.hookpace import Pace
from arkrelay.relay.hooklog import HookLog, Key, wanted
from arkrelay.relay.hooks import Hook, Hooks
from arkrelay.store import hookjobs
from arkrelay.store.connection import Connection
from arkrelay.store.database import Store
from arkrelay.store.history import insert_events
from arkrelay.store.hookjobs import Attempted

log = structlog.get_logger()

POLL_S = 0.25  # between looks at the log of events
GATHER_S = 0.005  # between a wish to look and the look
CATCH_UP_S = 5.0  # how long a reload waits for the log to be followed to its end
CLAIMED = 50  # jobs of one endpoint that are read at once
CARE_S = 60.0  # between looks at what has waited too long
AGAIN_S = 1.0  # after the store was in trouble
FOREVER = float("inf")


@dataclass(slots=True, eq=False)
class _Target:
    """One endpoint at work."""

    id: int
    hook: Hook
    pace: Pace
    gone_at: float | None
    ready: deque[HookJob] = field(default_factory=deque)  # read, not begun
    held: set[int] = field(default_factory=set)  # ids of jobs that are read, under way, or not yet on disk
    running: int = 0
    look_at: float = 0.0  # when the table may have something due

    @property
    def open(self) -> bool:
        return self.hook.webhook.enabled and self.gone_at is None

    def drop_ready(self) -> None:
        """Let the table have again what was not begun."""
        self.held.difference_update(job.id for job in self.ready)
        self.ready.clear()
        self.look_at = 0.0


@dataclass(frozen=True, slots=True)
class EndpointView:
    """How one webhook fares; ``next_at`` is when its first event that waits may be posted."""

    row: Endpoint
    webhook: Webhook  # as it is in force
    next_at: float | None


class HookQueue:
    """The consumer of the log and the posts; ``start`` before use, ``run`` until cancelled."""

    def __init__(
        self,
        store: Store,
        live: Live,
        hooks: Hooks,
        *,
        clock: Callable[[], float] = time.time,
        dice: random.Random | None = None,
    ) -> None:
        self._store = store
        self._live = live
        self._hooks = hooks
        self._clock = clock
        self._dice = dice or random.Random()  # noqa: S311 -- spreads work, guards nothing
        self._log = HookLog(store, clock)
        self._tasks = Tasks()
        self._targets: dict[Key, _Target] = {}
        self._removed: set[int] = set()  # endpoints whose jobs are still to be dropped
        self._wake = asyncio.Event()
        self._following = asyncio.Lock()
        self._known: object = None  # the snapshot that the targets are of
        self._cared_at = -CARE_S
        self.stopping = False
        self.backlog: Mapping[str, float] = {"waiting": 0.0, "parked": 0.0, "oldest_s": 0.0}  # up to a minute old

    async def start(self) -> None:
        """Read what is known of endpoints, and where the log was left."""
        await self._log.start()
        await self._sync()

    async def run(self) -> None:
        """Follow the log and post what is due."""
        more, followed_at = True, 0.0
        while True:
            self._wake.clear()
            try:
                if more or time.monotonic() - followed_at >= POLL_S:
                    followed_at = time.monotonic()
                    async with self._following:
                        more = await self._follow()
                await self._post_due()
                if time.monotonic() - self._cared_at >= CARE_S:
                    self._cared_at = time.monotonic()
                    await self._care()
            except StoreError as error:
                log.warning("webhooks_wait", error=str(error))
                await asyncio.sleep(AGAIN_S)
            if not more:
                await self._pause()

    async def catch_up(self) -> None:
        """Follow the log to its end, for webhooks as they are now: what happened until here is decided by that."""
        try:
            async with asyncio.timeout(CATCH_UP_S), self._following:
                while await self._follow():
                    pass
        except (TimeoutError, StoreError) as error:
            log.warning("webhooks_behind", error=str(error) or f"the log is not at its end after {CATCH_UP_S:g} s")

    async def changed(self) -> None:
        """Take the configuration over that was just swapped in; what goes wrong there is made up for by the loop."""
        try:
            async with self._following:
                await self._sync()
        except StoreError as error:
            log.warning("webhooks_wait", error=str(error))
        self._wake.set()

    async def stop(self, timeout_s: float) -> None:
        """Begin no post any more, and let those under way end; what was cut off is posted again after the start."""
        self.stopping = True
        if not await self._tasks.wait(timeout_s):
            await self._tasks.cancel()

    # -- what others ask -----------------------------------------------------------------------------------------

    def effective(self, owner: str | None, webhook: Webhook) -> Webhook:
        """Return the webhook as it is in force: not enabled after it answered 410 at this URL."""
        target = self._targets.get((owner or "", webhook.id))
        gone = target is not None and target.gone_at is not None and target.hook.webhook.url == webhook.url
        return replace(webhook, enabled=False) if gone and webhook.enabled else webhook

    async def enable(self, owner: str | None, webhook_id: str) -> None:
        """Undo what a 410 did, and ask the endpoint at once."""
        target = self._targets.get((owner or "", webhook_id))
        if target is None or (target.gone_at is None and not target.pace.failures):
            return
        url, now = target.hook.webhook.url, self._clock()
        await self._store.write(lambda db: hookjobs.renew_endpoint(db, target.id, url, now))
        self._renew(target)

    async def put_back(self, owner: str | None, webhook_id: str | None, since: float) -> int:
        """Let parked events from ``since`` on be posted again; return how many.

        ``owner`` is a tenant, empty for the platform, None for all of them.
        """
        moved = 0
        for key, target in list(self._targets.items()):
            names = {None, key[1], target.hook.webhook.uuid}
            if owner not in {None, key[0]} or webhook_id not in names:
                continue
            while count := await self._store.write(_putting_back(target.id, since, self._clock())):
                moved += count
            target.look_at = 0.0
        self._wake.set()
        return moved

    async def look(self) -> list[EndpointView]:
        """Return how every webhook fares."""
        ids, now = {target.id: target for target in self._targets.values()}, self._clock()

        def read(db: sqlite3.Connection) -> list[tuple[Endpoint, float | None]]:
            return [(row, _next_post(db, row.id, now)) for row in hookjobs.list_endpoints(db) if row.id in ids]

        views = []
        for row, due_at in await self._store.read(read):
            target = ids[row.id]
            webhook = self.effective(row.owner or None, target.hook.webhook)
            next_at = None if due_at is None or not webhook.enabled else max(due_at, row.rest_until or 0.0)
            views.append(EndpointView(row, webhook, next_at))
        return views

    # -- the configuration ---------------------------------------------------------------------------------------

    async def _sync(self) -> None:
        """Know the webhooks of the snapshot in force: new ones from now on, removed ones no more."""
        snapshot = self._live.snapshot
        hooks = wanted(snapshot)
        now = self._clock()
        known = {(one.owner, one.webhook_id): one for one in await self._store.read(hookjobs.list_endpoints)}
        new = [(key, hook) for key, hook in hooks.items() if key not in known]
        moved = [
            (known[key].id, hook.webhook.url)
            for key, hook in hooks.items()
            if key in known and known[key].url != hook.webhook.url
        ]

        def job(db: Connection) -> list[Endpoint]:
            for (owner, webhook_id), hook in new:
                hookjobs.add_endpoint(db, owner, webhook_id, hook.webhook.url)
            for id_, url in moved:
                hookjobs.renew_endpoint(db, id_, url, now)
            return hookjobs.list_endpoints(db)

        rows = await self._store.write(job) if new or moved else list(known.values())
        self._removed = {one.id for one in rows if (one.owner, one.webhook_id) not in hooks}
        fresh = {id_ for id_, _ in moved}
        targets: dict[Key, _Target] = {}
        for row in rows:
            key = (row.owner, row.webhook_id)
            if key not in hooks:
                continue
            target = self._targets.get(key)
            if target is None or target.id != row.id:
                target = _Target(row.id, hooks[key], Pace(row.failures, row.rest_until or 0.0), row.gone_at)
            was_open, target.hook = target.open, hooks[key]
            if target.id in fresh or (target.open and not was_open):
                self._renew(target)
            elif not target.open:
                target.drop_ready()
            targets[key] = target
        self._targets, self._known = targets, snapshot

    def _renew(self, target: _Target) -> None:
        """Ask an endpoint as one of which nothing is known."""
        target.pace, target.gone_at = Pace(), None
        target.drop_ready()
        self._wake.set()

    # -- the loop ------------------------------------------------------------------------------------------------

    async def _follow(self) -> bool:
        """Make jobs of a stretch of the log; return whether there is more of it."""
        if self._known is not self._live.snapshot:
            await self._sync()
        open_ = {key: target.id for key, target in self._targets.items() if target.open}
        told, more = await self._log.follow({key: self._targets[key].hook.webhook for key in open_}, open_)
        for key in told:
            self._targets[key].look_at = 0.0
        return more

    async def _post_due(self) -> None:
        """Begin the posts that may begin now, those of each endpoint in their order."""
        if self._store.healthy is not None:
            return  # what cannot be recorded would be posted again and again
        turns = [target for target in self._targets.values() if target.open]
        self._dice.shuffle(turns)  # when places are short, nobody is always last
        for target in turns:
            self._begin(target)
            while self._room(target) and target.look_at <= self._clock() and await self._read(target):
                self._begin(target)

    def _room(self, target: _Target) -> bool:
        settings = self._live.snapshot.settings.webhooks
        if self.stopping or not target.open or len(self._tasks) >= settings.concurrency:
            return False
        return target.pace.room(target.running, settings.concurrency_per_webhook, self._clock()) > 0

    def _begin(self, target: _Target) -> None:
        """Begin the posts of an endpoint that were read and may begin."""
        while target.ready and self._room(target):
            target.running += 1
            self._tasks.spawn("webhook", self._post(target, target.ready.popleft()))

    async def _read(self, target: _Target) -> bool:
        """Read what is due next for an endpoint; return whether there is anything."""
        now = self._clock()
        target.look_at = FOREVER  # unless something says otherwise meanwhile
        held = frozenset(target.held)

        def read(db: sqlite3.Connection) -> tuple[list[HookJob], float | None]:
            jobs = hookjobs.due_jobs(db, target.id, now, CLAIMED, held)
            return jobs, hookjobs.next_due(db, target.id, now)

        try:
            jobs, next_at = await self._store.read(read)
        except StoreError:
            target.look_at = 0.0
            raise
        target.ready.extend(jobs)
        target.held.update(job.id for job in jobs)
        if jobs:
            target.look_at = 0.0
        elif next_at is not None:  # what is due and was not read waits for an earlier one of its recipient
            target.look_at = min(target.look_at, next_at)
        return bool(jobs)

    async def _pause(self) -> None:
        """Return when something changed, or the log may have grown; a moment later, so that more has gathered."""
        try:
            async with asyncio.timeout(POLL_S):
                await self._wake.wait()
        except TimeoutError:
            pass
        else:
            await asyncio.sleep(GATHER_S)

    async def _post(self, target: _Target, job: HookJob) -> None:
        """Post one event, and have it written what came of it."""
        delivery, hook = None, target.hook
        try:
            told = self._hooks.tell(hook, job)
            if told is not None:
                delivery = await self._hooks.post(hook, told, number=job.attempts + 1)
        except Exception:  # a bug of ours: the event is kept, and tried again like after any failure
            log.exception("webhook_post_failed", webhook=hook.webhook.id, job=job.id)
            self._settle(target, job, None, lost=False)
        else:
            self._settle(target, job, delivery, lost=told is None)
        finally:
            target.running -= 1
            self._begin(target)
            self._wake.set()

    def _settle(self, target: _Target, job: HookJob, delivery: HookDelivery | None, *, lost: bool) -> None:
        """Decide what the attempt means, and have it written; ``lost``: there was nothing left to tell."""
        settings = self._live.snapshot.settings.webhooks
        now, dice, pace = self._clock(), self._dice.uniform(-1, 1), target.pace
        answer = None if delivery is None else delivery.answer
        end, due_at, recovered, gone = JobEnd.DONE, None, False, False
        if lost:
            end = JobEnd.DROPPED
            log.info("webhook_event_dropped", webhook=target.hook.webhook.id, job=job.id, reason="past its retention")
        elif answer is not None and answer.success:
            recovered = pace.succeeded(settings.concurrency_per_webhook)
        elif delivery is not None and delivery.url != target.hook.webhook.url:
            end, due_at = JobEnd.RETRY, now  # it points elsewhere since: what the old place said is of no matter
        else:
            wish_s = None if answer is None else hookpace.wish(answer.status, answer.retry_after_s)
            gone = answer is not None and answer.status == hookpace.GONE
            if not gone:
                due_at = hookpace.next_post_at(settings.retry_s, job.attempts + 1, now, dice, wish_s)
            end = JobEnd.PARKED if due_at is None else JobEnd.RETRY
            pace.failed(now, dice, wish_s)
            if gone:
                target.gone_at = now
                log.warning(
                    "webhook_disabled", webhook=target.hook.webhook.id, of=target.hook.owner, status=hookpace.GONE
                )
            if gone or pace.rest_until > now:
                target.drop_ready()
        if delivery is not None:
            delivery = replace(delivery, will_retry=due_at is not None)
        gone_at = now if gone else None
        done = Attempted(job, end, due_at, delivery, pace.failures, pace.rest_until or None, gone_at, recovered)
        events = (_disabled(target.hook, now),) if gone else ()

        def write(db: Connection) -> None:
            hookjobs.settle(db, done)
            insert_events(db, events)

        def written(_error: Exception | None) -> None:  # not written: it is due in the table, and posted once more
            target.held.discard(job.id)
            target.look_at = 0.0
            self._wake.set()

        self._store.write_later(write, written)

    async def _care(self) -> None:
        """Park what waited too long for who does not answer, forget who is no more, and count."""
        settings = self._live.snapshot.settings.webhooks
        now = self._clock()
        latest, overdue = now + hookpace.longest_wait_s(settings.retry_s), now - hookpace.lifetime_s(settings.retry_s)
        everybody = [target.id for target in self._targets.values()]

        def clamp(db: Connection) -> None:
            for id_ in everybody:
                hookjobs.bring_forward(db, id_, latest)

        await self._store.write(clamp)
        for target in list(self._targets.values()):
            if target.open and not target.pace.failing:
                continue
            target.drop_ready()
            while await self._store.write(_parking(target.id, overdue)):
                pass
        for id_ in list(self._removed):
            while await self._store.write(_removing(id_)):
                pass
            self._removed.discard(id_)
        rows, oldest_at = await self._store.read(
            lambda db: (hookjobs.list_endpoints(db), hookjobs.oldest_waiting(db))
        )
        self.backlog = {
            "waiting": float(sum(one.waiting for one in rows)),
            "parked": float(sum(one.parked for one in rows)),
            "oldest_s": 0.0 if oldest_at is None else max(0.0, now - oldest_at),
        }


def _disabled(hook: Hook, at: float) -> Event:
    """Return the event of a webhook that answered 410; its URL may hold a secret and is not in it."""
    data = {"webhook_id": hook.webhook.id, "name": hook.webhook.name, "details": "It answered 410 Gone"}
    return Event(EventKind.WEBHOOK_DISABLED, at, hook.owner, data=data)


def _next_post(db: sqlite3.Connection, endpoint: int, now: float) -> float | None:
    """Return when something of an endpoint's may be posted next, as far as that is said by its jobs."""
    return now if hookjobs.due_jobs(db, endpoint, now, 1) else hookjobs.next_due(db, endpoint, now)


def _putting_back(endpoint: int, since: float, now: float) -> Callable[[Connection], int]:
    return lambda db: hookjobs.put_back(db, endpoint, since, now)


def _parking(endpoint: int, before: float) -> Callable[[Connection], int]:
    return lambda db: hookjobs.park_overdue(db, endpoint, before)


def _removing(endpoint: int) -> Callable[[Connection], bool]:
    return lambda db: hookjobs.remove_endpoint(db, endpoint)
