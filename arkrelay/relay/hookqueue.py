"""Every event to every webhook that wants it, at least once, in order per recipient, whatever an endpoint does.

The log of events is the outbox: an event is written to it in the transaction of the fact that it tells. One
consumer follows it (``hooklog``) and makes a job of each event for each webhook that wanted it at that moment; one
loop here posts what is due. A job keeps its uuid over all attempts, so after a kill -9 between post and record the
receiver sees the same uuid twice, and nothing is lost. REST calls one recipient of one message an email, and so do
payloads: of one recipient a later event is posted only when the earlier one is taken or parked. Others overtake it.

When an endpoint is asked, and by how many posts, is said by ``policy.hookpace``. What waits for it waits in the
table: in memory (``hooktargets``) are only the few dozen jobs that are posted next.
"""

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from arkrelay.base.tasks import Tasks
from arkrelay.config.live import Live
from arkrelay.model.errors import StoreError
from arkrelay.model.event import Event, EventKind
from arkrelay.model.hook import HookDelivery, HookJob, JobEnd
from arkrelay.policy import hookpace
from arkrelay.relay.hooklog import HookLog
from arkrelay.relay.hooks import Hook, Hooks
from arkrelay.relay.hooktargets import Target, Targets
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
AGAIN_S = 1.0  # after the store was in trouble
FOREVER = float("inf")


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
        self._wake = asyncio.Event()
        self._log = HookLog(store, clock)
        self._tasks = Tasks()
        self._following = asyncio.Lock()
        self.targets = Targets(store, live, clock, self._wake)
        self.stopping = False

    async def start(self) -> None:
        """Read what is known of endpoints, and where the log was left."""
        await self._log.start()
        await self.targets.sync()

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
                await self.targets.sync()
        except StoreError as error:
            log.warning("webhooks_wait", error=str(error))
        self._wake.set()

    async def stop(self, timeout_s: float) -> None:
        """Begin no post any more, and let those under way end; what was cut off is posted again after the start."""
        self.stopping = True
        if not await self._tasks.wait(timeout_s):
            await self._tasks.cancel()

    # -- the loop ------------------------------------------------------------------------------------------------

    async def _follow(self) -> bool:
        """Make jobs of a stretch of the log; return whether there is more of it."""
        await self.targets.sync()
        targets = self.targets.open()
        told, more = await self._log.follow(targets)
        for key in told:
            targets[key].look_at = 0.0
        return more

    async def _post_due(self) -> None:
        """Begin the posts that may begin now, those of each endpoint in their order."""
        if self._store.healthy is not None:
            return  # what cannot be recorded would be posted again and again
        turns = list(self.targets)
        self._dice.shuffle(turns)  # when places are short, nobody is always last
        for target in turns:
            self._begin(target)
            while self._room(target) and target.look_at <= self._clock() and await self._read(target):
                self._begin(target)

    def _room(self, target: Target) -> bool:
        settings = self._live.snapshot.settings.webhooks
        if self.stopping or not target.open or len(self._tasks) >= settings.concurrency:
            return False
        return target.pace.room(target.running, settings.concurrency_per_webhook, self._clock()) > 0

    def _begin(self, target: Target) -> None:
        """Begin the posts of an endpoint that were read and may begin."""
        while target.ready and self._room(target):
            target.running += 1
            self._tasks.spawn("webhook", self._post(target, target.ready.popleft()))

    async def _read(self, target: Target) -> bool:
        """Read what is due next for an endpoint; return whether there is anything."""
        now, held = self._clock(), frozenset(target.held)
        target.look_at = FOREVER  # unless something says otherwise meanwhile

        def read(db: sqlite3.Connection) -> tuple[list[HookJob], float | None]:
            return hookjobs.due_jobs(db, target.id, now, CLAIMED, held), hookjobs.next_due(db, target.id, now)

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

    # -- one post ------------------------------------------------------------------------------------------------

    async def _post(self, target: Target, job: HookJob) -> None:
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

    def _settle(self, target: Target, job: HookJob, delivery: HookDelivery | None, *, lost: bool) -> None:
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


def _disabled(hook: Hook, at: float) -> Event:
    """Return the event of a webhook that answered 410; its URL may hold a secret and is not in it."""
    data = {"webhook_id": hook.webhook.id, "name": hook.webhook.name, "details": "It answered 410 Gone"}
    return Event(EventKind.WEBHOOK_DISABLED, at, hook.owner, data=data)
