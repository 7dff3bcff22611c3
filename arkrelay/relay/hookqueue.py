"""Every event to every webhook that wants it, at least once, in order per recipient, whatever an endpoint does.

The log of events is the outbox: an event is written to it in the transaction of the fact that it tells. One
consumer follows it (``hooklog``) and makes a job of each event for each webhook that wanted it at that moment; one
loop here posts what is due. A job keeps its uuid over all attempts, so after a kill -9 between post and record the
receiver sees the same uuid twice, and nothing is lost. REST calls one recipient of one message an email, and so do
payloads: of one recipient a later event is posted only when the earlier one is taken or parked. Others overtake it.

When an endpoint is asked, and by how many posts, is said by ``policy.hookpace``. What waits for it waits in the
table: in memory (``hooktargets``) are only the few dozen jobs that are posted next. When places are short, who has
fewest of them comes first, and each tenant has a few of its own: endpoints that answer slowly wait for themselves.

Nothing is polled. The store tells of each commit, the log is then followed at most every ``FOLLOW_S``, and what waits
for a later time has its time.
"""

import asyncio
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import structlog

from arkrelay.base.tasks import Tasks
from arkrelay.config.live import Live
from arkrelay.model.errors import StoreError
from arkrelay.model.event import Event, EventKind
from arkrelay.model.hook import Answer, HookDelivery, HookJob, JobEnd
from arkrelay.policy import hookpace
from arkrelay.relay.hooklog import HookLog
from arkrelay.relay.hooks import Hook, Hooks
from arkrelay.relay.hooktargets import AGAIN_S, FOREVER, Target, Targets
from arkrelay.store import hookjobs
from arkrelay.store.connection import Connection
from arkrelay.store.database import Store
from arkrelay.store.history import insert_events
from arkrelay.store.hookjobs import Attempted

log = structlog.get_logger()

FOLLOW_S = 0.1  # between two looks at the log of events: more gathers, and both cost less
FOLLOW_NOBODY_S = 5.0  # when there is no webhook, and only the end of the log is remembered
LOOK_S = 60.0  # without an event, for clocks that jump
GATHER_S = 0.005  # between a wish to look and the look
CATCH_UP_S = 5.0  # how long a reload waits for the log to be followed to its end
CLAIMED = 50  # jobs of one endpoint that are read at once
OWN = 4  # posts at once that each tenant may have beside those that all share, while these are under twice as many


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
        self._grown = True  # the log may have; set by the store
        self._followed_at = 0.0  # monotonic
        self._running: Counter[str | None] = Counter()  # posts of each owner
        self.targets = Targets(store, live, clock, self._wake)
        self.stopping = False

    async def start(self) -> None:
        """Read what is known of endpoints, and where the log was left."""
        await self._log.start()
        await self.targets.sync()
        loop = asyncio.get_running_loop()

        def committed() -> None:
            loop.call_soon_threadsafe(self._committed)

        self._store.call_after_commits(committed)
        self._hooks.on_taken = self.targets.taken

    async def run(self) -> None:
        """Follow the log and post what is due."""
        while True:
            self._wake.clear()
            try:
                if self._grown and self._follow_at() <= time.monotonic():
                    self._grown, self._followed_at = False, time.monotonic()
                    async with self._following:
                        more = await self._follow()
                    self._grown = self._grown or more  # it may have grown meanwhile
                await self._post_due()
            except StoreError as error:
                log.warning("webhooks_wait", error=str(error))
                await self._try_again()
            except Exception:  # a bug of ours stops no webhook but the one that it is about
                log.exception("webhooks_wait")
                await self._try_again()
            else:
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
        self._grown = True
        self._wake.set()

    async def stop(self, timeout_s: float) -> None:
        """Begin no post any more, and let those under way end; what was cut off is posted again after the start."""
        self.stopping = True
        await self.targets.stop()
        if not await self._tasks.wait(timeout_s):
            await self._tasks.cancel()
        self._store.call_after_commits(None)

    # -- the loop ------------------------------------------------------------------------------------------------

    async def _follow(self) -> bool:
        """Make jobs of a stretch of the log; return whether there is more of it."""
        await self.targets.sync()
        targets = self.targets.open()
        told, more = await self._log.follow(targets)
        for key in told:
            targets[key].look_at = 0.0
        return more

    def _committed(self) -> None:
        """The store has committed something: the first time since the log was followed, the loop learns of it."""
        if not self._grown:
            self._grown = True
            self._wake.set()

    def _follow_at(self) -> float:
        """Return from when on the log is looked at again, of the monotonic clock."""
        return self._followed_at + (FOLLOW_S if self.targets.wanted else FOLLOW_NOBODY_S)

    async def _try_again(self) -> None:
        self._grown = True
        await asyncio.sleep(AGAIN_S)

    async def _post_due(self) -> None:
        """Begin the posts that may begin now, those of each endpoint in their order."""
        if self._store.healthy is not None:
            return  # what cannot be recorded would be posted again and again
        now = self._clock()
        turns = [target for target in self.targets if target.next_at <= now]
        self._dice.shuffle(turns)  # nobody is always last
        if 2 * len(self._tasks) > self._live.snapshot.settings.webhooks.concurrency:
            turns.sort(key=lambda target: (self._running[target.hook.owner], target.running))
        for target in turns:
            self._begin(target)
            while self._room(target) and target.look_at <= self._clock() and await self._read(target):
                self._begin(target)

    def _room(self, target: Target) -> bool:
        settings, taken = self._live.snapshot.settings.webhooks, len(self._tasks)
        if self.stopping or not target.open:
            return False
        if taken >= settings.concurrency and (
            taken >= 2 * settings.concurrency or self._running[target.hook.owner] >= OWN
        ):
            return False
        return target.pace.room(target.running, settings.concurrency_per_webhook, self._clock()) > 0

    def _begin(self, target: Target) -> None:
        """Begin the posts of an endpoint that were read and may begin."""
        while target.ready and self._room(target):
            target.running += 1
            self._running[target.hook.owner] += 1
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
        """Return when it is time for something, or a moment after something changed, so that more gathers."""
        now = self._clock()
        wait_s = LOOK_S
        if self.stopping or self._store.healthy is not None:
            wait_s = AGAIN_S
        elif len(self._tasks) < self._live.snapshot.settings.webhooks.concurrency:  # else a post must end first
            wait_s = min((target.next_at - now for target in self.targets if not target.running), default=LOOK_S)
        if self._grown:
            wait_s = min(wait_s, self._follow_at() - time.monotonic())
        try:
            async with asyncio.timeout(min(max(wait_s, 0.0), LOOK_S)):
                await self._wake.wait()
        except TimeoutError:
            pass
        else:
            await asyncio.sleep(GATHER_S)

    # -- one post ------------------------------------------------------------------------------------------------

    async def _post(self, target: Target, job: HookJob) -> None:
        """Post one event, and have it written what came of it."""
        delivery, hook, owner = None, target.hook, target.hook.owner
        try:
            told = None if job.unreadable else self._hooks.tell(hook, job)
            if told is not None:
                delivery = await self._hooks.post(hook, told, number=job.attempts + 1)
        except Exception:  # a bug of ours: the event is kept, and tried again like after any failure
            log.exception("webhook_post_failed", webhook=hook.webhook.id, job=job.id)
            self._settle(target, job, None, lost=False)
        else:
            self._settle(target, job, delivery, lost=told is None)
        finally:
            target.running -= 1
            self._running[owner] -= 1
            self._begin(target)
            self._wake.set()

    def _settle(self, target: Target, job: HookJob, delivery: HookDelivery | None, *, lost: bool) -> None:
        """Decide what the attempt means, and have it written; ``lost``: there was nothing to tell, or no more."""
        now, pace = self._clock(), target.pace
        answer = None if delivery is None else delivery.answer
        end, due_at, recovered, gone = JobEnd.DONE, None, False, False
        if lost:
            end = self._lost(target, job)
        elif answer is not None and answer.success:
            recovered = pace.succeeded(self._live.snapshot.settings.webhooks.concurrency_per_webhook)
        elif delivery is not None and delivery.url != target.hook.webhook.url:
            end, due_at = JobEnd.RETRY, now  # it points elsewhere since: what the old place said is of no matter
        else:
            gone = answer is not None and answer.status == hookpace.GONE
            due_at = self._failed(target, job, answer, now)
            end = JobEnd.PARKED if due_at is None else JobEnd.RETRY
        if delivery is not None:
            delivery = replace(delivery, will_retry=due_at is not None)
        done = Attempted(
            job,
            end,
            due_at,
            delivery,
            pace.failures,
            pace.quiet_until or None,
            now if gone else None,
            target.suspects if recovered else None,
        )
        events = (_disabled(target.hook, now),) if gone else ()
        moved: list[int] = []

        def write(db: Connection) -> None:
            moved[:] = hookjobs.settle(db, done)
            insert_events(db, events)

        def written(_error: Exception | None) -> None:  # not written: it is due in the table, and posted once more
            target.held.discard(job.id)
            target.forwarded.update(moved)
            if end is not JobEnd.RETRY:
                target.forwarded.pop(job.id, None)
            if len(moved) == hookjobs.MOVED:
                self.targets.forward(target, now)
            target.look_at = 0.0
            self._wake.set()

        self._store.write_later(write, written)

    def _lost(self, target: Target, job: HookJob) -> JobEnd:
        """Return what becomes of an event that cannot be told."""
        webhook = target.hook.webhook.id
        if job.unreadable:
            log.error("webhook_event_unreadable", webhook=webhook, job=job.id, error=job.unreadable)
            return JobEnd.PARKED
        self._hooks.count("dropped")
        log.warning("webhook_event_dropped", webhook=webhook, job=job.id, reason="past its retention")
        return JobEnd.DONE

    def _failed(self, target: Target, job: HookJob, answer: Answer | None, now: float) -> float | None:
        """Take note that an endpoint failed, and return when the event is posted again: None, never."""
        settings, dice = self._live.snapshot.settings.webhooks, self._dice.uniform(-1, 1)
        wish_s = None if answer is None else hookpace.wish(answer.status, answer.retry_after_s)
        target.pace.failed(now, dice, wish_s)
        target.failed_at = now
        due_at = None
        if answer is not None and answer.status == hookpace.GONE:
            target.gone_at = now
            hook = target.hook
            log.warning("webhook_disabled", webhook=hook.webhook.id, of=hook.owner, status=hookpace.GONE)
        else:
            due_at = hookpace.next_post_at(settings.retry_s, job.attempts + 1, now, dice, wish_s)
        if target.gone_at is not None or target.pace.quiet_until > now:
            target.drop_ready()
        return due_at


def _disabled(hook: Hook, at: float) -> Event:
    """Return the event of a webhook that answered 410; its URL may hold a secret and is not in it."""
    data = {"webhook_id": hook.webhook.id, "name": hook.webhook.name, "details": "It answered 410 Gone"}
    return Event(EventKind.WEBHOOK_DISABLED, at, hook.owner, data=data)
