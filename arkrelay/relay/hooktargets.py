"""Every webhook as somebody who answers, and what is done to one beside posting: enabled again, put back, cared for.

A webhook that answers 410 is disabled. That happened and was not configured, so it stands in the database and not
in a file: hand-managed files are no special case, and no peer makes us rewrite a file and lose its comments. REST
and the command line show such a webhook as not enabled; enabling it, or another URL, undoes it. What waits for a
disabled webhook waits on, as long as its schedule is; what happens while it is disabled is not for it.
"""

import asyncio
import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

import structlog

from arkrelay.base.tasks import Tasks
from arkrelay.config.live import Live
from arkrelay.config.snapshot import Snapshot
from arkrelay.model.errors import StoreError
from arkrelay.model.hook import Endpoint, HookJob
from arkrelay.model.tenant import Webhook
from arkrelay.policy import hookpace
from arkrelay.policy.hookpace import Pace
from arkrelay.relay.hooks import Hook
from arkrelay.store import hookjobs
from arkrelay.store.connection import Connection
from arkrelay.store.database import Store

log = structlog.get_logger()

CARE_S = 60.0  # between looks at what has waited too long
STEP_PAUSE_S = 0.05  # between two steps, so that the writer is mostly free for mail
ASKED_S = 2 * hookpace.LONGEST_REST_S  # an endpoint that rests is asked once in that time for sure
AGAIN_S = 1.0  # after the store was in trouble
FOREVER = float("inf")

Key = tuple[str, str]  # the tenant whose webhook it is, empty for the platform's; and its id


@dataclass(slots=True, eq=False)
class Target:
    """One endpoint at work."""

    id: int
    hook: Hook
    pace: Pace
    gone_at: float | None
    ready: deque[HookJob] = field(default_factory=deque)  # read, not begun
    held: set[int] = field(default_factory=set)  # ids of jobs that are read, under way, or not yet on disk
    running: int = 0
    look_at: float = 0.0  # when the table may have something due
    forwarded: Counter[int] = field(default_factory=Counter)  # jobs that went early, and how often
    failed_at: float = 0.0  # the last failure that this process saw
    removed: bool = False

    @property
    def open(self) -> bool:
        """Whether anything is posted to it."""
        return self.hook.webhook.enabled and self.gone_at is None and not self.removed

    @property
    def suspects(self) -> tuple[int, ...]:
        """Jobs that failed again each time that they went early: it is not the endpoint."""
        return tuple(id_ for id_, times in self.forwarded.items() if times >= hookpace.FORWARDS)

    @property
    def next_at(self) -> float:
        """When there may be something to begin, unless something happens before."""
        if not self.open:
            return FOREVER
        return max(0.0 if self.ready else self.look_at, self.pace.quiet_until)

    def is_dead(self, now: float) -> bool:
        """Whether it is failing and was asked of late: not before a start or a jump of the clock."""
        return self.pace.failing and self.failed_at >= now - ASKED_S

    def drop_ready(self) -> None:
        """Let the table have again what was not begun."""
        self.held.difference_update(job.id for job in self.ready)
        self.ready.clear()
        self.look_at = 0.0

    def renew(self) -> None:
        """Ask it as one of which nothing is known."""
        self.pace, self.gone_at = Pace(), None
        self.forwarded.clear()
        self.drop_ready()


@dataclass(frozen=True, slots=True)
class EndpointView:
    """How one webhook fares; ``next_at`` is when its first event that waits may be posted."""

    row: Endpoint
    webhook: Webhook  # as it is in force
    next_at: float | None


class Targets:
    """The webhooks of the configuration that was synchronised last; ``wake`` says that one has something to do."""

    def __init__(self, store: Store, live: Live, clock: Callable[[], float], wake: asyncio.Event) -> None:
        self._store = store
        self._live = live
        self._clock = clock
        self._wake = wake
        self._targets: dict[Key, Target] = {}
        self._tasks = Tasks()
        self._syncing = asyncio.Lock()  # an endpoint that comes back is not removed in that moment
        self._removed: set[int] = set()  # endpoints whose jobs are still to be dropped
        self._snapshot: Snapshot | None = None
        self.wanted = False  # somebody is posted to, unless all said that they are gone
        self.backlog: Mapping[str, float] = {"waiting": 0.0, "parked": 0.0, "oldest_s": 0.0}  # up to a minute old

    def __iter__(self) -> Iterator[Target]:
        return iter(list(self._targets.values()))

    def __getitem__(self, key: Key) -> Target:
        return self._targets[key]

    def open(self) -> dict[Key, Target]:
        """Return those to which events are posted."""
        return {key: target for key, target in self._targets.items() if target.open}

    # -- the configuration ---------------------------------------------------------------------------------------

    async def sync(self) -> None:
        """Know the webhooks of the configuration in force: new ones from now on, removed ones no more."""
        if self._live.snapshot is not self._snapshot:
            async with self._syncing:
                await self._sync(self._live.snapshot)

    async def _sync(self, snapshot: Snapshot) -> None:
        hooks, now = _configured(snapshot), self._clock()
        rows = {(one.owner, one.webhook_id): one for one in await self._store.read(hookjobs.list_endpoints)}
        new = [key for key in hooks if key not in rows]
        moved = [key for key in hooks if key in rows and rows[key].url != hooks[key].webhook.url]

        def job(db: Connection) -> dict[Key, Endpoint]:
            for key in new:
                hookjobs.add_endpoint(db, *key, hooks[key].webhook.url)
            for key in moved:
                hookjobs.renew_endpoint(db, rows[key].id, hooks[key].webhook.url, now)
            return {(one.owner, one.webhook_id): one for one in hookjobs.list_endpoints(db)}

        if new or moved:
            rows = await self._store.write(job)
        targets = {key: self._target(hook, rows[key], moved=key in moved) for key, hook in hooks.items()}
        for key, target in self._targets.items():
            if targets.get(key) is not target:
                target.removed = True
                target.drop_ready()
        self._removed = {row.id for key, row in rows.items() if key not in hooks}
        self._targets, self._snapshot = targets, snapshot
        self.wanted = any(target.hook.webhook.enabled for target in targets.values())
        for key in moved:
            self.forward(targets[key], now)

    def _target(self, hook: Hook, row: Endpoint, *, moved: bool) -> Target:
        """Return the target of a webhook as it is configured now: what was known of it stays known."""
        target = self._targets.get((row.owner, row.webhook_id))
        if target is None or target.id != row.id:
            target = Target(row.id, hook, Pace(row.failures, row.rest_until or 0.0), row.gone_at)
        was_open, target.hook = target.open, hook
        if moved or (target.open and not was_open):
            target.renew()
        elif not target.open:
            target.drop_ready()
        return target

    def effective(self, owner: str | None, webhook: Webhook) -> Webhook:
        """Return the webhook as it is in force: not enabled after it answered 410 at this URL."""
        target = self._targets.get((owner or "", webhook.id))
        gone = target is not None and target.gone_at is not None and target.hook.webhook.url == webhook.url
        return replace(webhook, enabled=False) if gone and webhook.enabled else webhook

    # -- by a person ---------------------------------------------------------------------------------------------

    async def enable(self, owner: str | None, webhook_id: str) -> None:
        """Undo what a 410 did, and post at once whatever waits."""
        target = self._targets.get((owner or "", webhook_id))
        if target is not None:
            await self._renew(target)

    async def taken(self, hook: Hook) -> None:
        """An endpoint took what a person had posted to it: it does not rest any longer."""
        target = self._targets.get((hook.owner or "", hook.webhook.id))
        if target is not None and target.open and target.hook.webhook.url == hook.webhook.url and target.pace.failing:
            await self._renew(target)

    async def _renew(self, target: Target) -> None:
        id_, url, now = target.id, target.hook.webhook.url, self._clock()
        await self._store.write(lambda db: hookjobs.renew_endpoint(db, id_, url, now))
        target.renew()
        self.forward(target, now)
        self._wake.set()

    def forward(self, target: Target, latest: float) -> None:
        """Let what waits for a later time go, the rest of it where the first step did not get to its end."""
        self._tasks.spawn("webhook backlog", self._forward(target, latest))

    async def _forward(self, target: Target, latest: float) -> None:
        more = True
        while more and target.open:
            try:
                moved = await self._store.write(_forwarding(target.id, latest, target.suspects))
            except StoreError as error:
                log.warning("webhooks_wait", error=str(error))
                await asyncio.sleep(AGAIN_S)
                continue
            target.forwarded.update(moved)
            more = len(moved) == hookjobs.MOVED
            if moved:
                target.look_at = 0.0
                self._wake.set()
            await asyncio.sleep(STEP_PAUSE_S)

    async def stop(self) -> None:
        """Leave what is still to be forwarded to the next start."""
        await self._tasks.cancel()

    async def put_back(self, owner: str | None, webhook_id: str | None, since: float) -> int:
        """Let parked events from ``since`` on be posted again, and an endpoint rest no longer; return how many.

        ``owner`` is a tenant, empty for the platform, None for all of them.
        """
        moved = 0
        for key, target in list(self._targets.items()):
            names = {None, key[1], target.hook.webhook.uuid}
            if owner not in {None, key[0]} or webhook_id not in names:
                continue
            count = 0
            while step := await self._store.write(_putting_back(target.id, since, self._clock())):
                count += step
            if count and target.open:
                await self._renew(target)
            moved += count
        return moved

    async def look(self) -> list[EndpointView]:
        """Return how every webhook fares."""
        ids, now = {target.id: target for target in self}, self._clock()

        def read(db: sqlite3.Connection) -> list[tuple[Endpoint, float | None]]:
            return [(row, _next_post(db, row.id, now)) for row in hookjobs.list_endpoints(db) if row.id in ids]

        views = []
        for row, due_at in await self._store.read(read):
            webhook = self.effective(row.owner or None, ids[row.id].hook.webhook)
            next_at = None if due_at is None or not webhook.enabled else max(due_at, row.rest_until or 0.0)
            views.append(EndpointView(row, webhook, next_at))
        return views

    # -- now and then --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Care for the endpoints again and again; apart from the posts, which wait for nothing of it."""
        while True:
            try:
                await self.care()
            except StoreError as error:
                log.warning("webhooks_not_cared_for", error=str(error))
            except Exception:  # a bug of ours, or a damaged row: the next look may go better
                log.exception("webhooks_not_cared_for")
            await asyncio.sleep(CARE_S)

    async def care(self) -> None:
        """Park what waited too long for who does not answer, forget who is no more, and count."""
        retry_s, now = self._live.snapshot.settings.webhooks.retry_s, self._clock()
        latest, overdue = now + hookpace.longest_wait_s(retry_s), now - hookpace.lifetime_s(retry_s)
        everybody = [target.id for target in self]

        def clamp(db: Connection) -> None:
            for id_ in everybody:
                hookjobs.bring_forward(db, id_, latest)  # a clock that was set back left them there

        await self._store.write(clamp)
        for target in self:
            target.pace.clamp(now)
            target.look_at = 0.0
            parked = 1
            while parked and (not target.open or target.is_dead(now)):
                target.drop_ready()
                parked = await self._store.write(_parking(target.id, overdue, frozenset(target.held)))
                await asyncio.sleep(STEP_PAUSE_S)
        for id_ in list(self._removed):
            more = True
            while more:
                async with self._syncing:
                    more = id_ in self._removed and await self._store.write(_removing(id_))  # it may have come back
                    if not more:
                        self._removed.discard(id_)
                await asyncio.sleep(STEP_PAUSE_S)
        rows, oldest_at = await self._store.read(
            lambda db: (hookjobs.list_endpoints(db), hookjobs.oldest_waiting(db))
        )
        self.backlog = {
            "waiting": float(sum(one.waiting for one in rows)),
            "parked": float(sum(one.parked for one in rows)),
            "oldest_s": 0.0 if oldest_at is None else max(0.0, now - oldest_at),
        }


def _configured(snapshot: Snapshot) -> dict[Key, Hook]:
    found = {("", one.id): Hook(None, one) for one in snapshot.platform.webhooks}
    for tenant in snapshot.tenants.values():
        found |= {(tenant.id, one.id): Hook(tenant.id, one) for one in tenant.webhooks}
    return found


def _next_post(db: sqlite3.Connection, endpoint: int, now: float) -> float | None:
    """Return when something of an endpoint's may be posted next, as far as that is said by its jobs."""
    return now if hookjobs.due_jobs(db, endpoint, now, 1) else hookjobs.next_due(db, endpoint, now)


def _putting_back(endpoint: int, since: float, now: float) -> Callable[[Connection], int]:
    return lambda db: hookjobs.put_back(db, endpoint, since, now)


def _parking(endpoint: int, before: float, but: Collection[int]) -> Callable[[Connection], int]:
    return lambda db: hookjobs.park_overdue(db, endpoint, before, but)


def _forwarding(endpoint: int, latest: float, but: Collection[int]) -> Callable[[Connection], list[int]]:
    return lambda db: hookjobs.bring_forward(db, endpoint, latest, but)


def _removing(endpoint: int) -> Callable[[Connection], bool]:
    return lambda db: hookjobs.remove_endpoint(db, endpoint)
