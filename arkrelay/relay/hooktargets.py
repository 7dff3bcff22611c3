"""Every webhook as somebody who answers, and what is done to one beside posting: enabled again, put back, cared for.

A webhook that answers 410 is disabled. That happened and was not configured, so it stands in the database and not
in a file: hand-managed files are no special case, and no peer makes us rewrite a file and lose its comments. REST
and the command line show such a webhook as not enabled; enabling it, or another URL, undoes it. What waits for a
disabled webhook waits on, as long as its schedule is; what happens while it is disabled is not for it.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import structlog

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

    @property
    def open(self) -> bool:
        """Whether anything is posted to it."""
        return self.hook.webhook.enabled and self.gone_at is None

    def drop_ready(self) -> None:
        """Let the table have again what was not begun."""
        self.held.difference_update(job.id for job in self.ready)
        self.ready.clear()
        self.look_at = 0.0

    def renew(self) -> None:
        """Ask it as one of which nothing is known."""
        self.pace, self.gone_at = Pace(), None
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
        self._removed: set[int] = set()  # endpoints whose jobs are still to be dropped
        self._snapshot: Snapshot | None = None
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
        snapshot = self._live.snapshot
        if snapshot is self._snapshot:
            return
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
        targets: dict[Key, Target] = {}
        for key, hook in hooks.items():
            row = rows[key]
            target = self._targets.get(key)
            if target is None or target.id != row.id:
                target = Target(row.id, hook, Pace(row.failures, row.rest_until or 0.0), row.gone_at)
            was_open, target.hook = target.open, hook
            if key in moved or (target.open and not was_open):
                target.renew()
            elif not target.open:
                target.drop_ready()
            targets[key] = target
        self._removed = {row.id for key, row in rows.items() if key not in hooks}
        self._targets, self._snapshot = targets, snapshot

    def effective(self, owner: str | None, webhook: Webhook) -> Webhook:
        """Return the webhook as it is in force: not enabled after it answered 410 at this URL."""
        target = self._targets.get((owner or "", webhook.id))
        gone = target is not None and target.gone_at is not None and target.hook.webhook.url == webhook.url
        return replace(webhook, enabled=False) if gone and webhook.enabled else webhook

    # -- by a person ---------------------------------------------------------------------------------------------

    async def enable(self, owner: str | None, webhook_id: str) -> None:
        """Undo what a 410 did, and ask the endpoint at once."""
        target = self._targets.get((owner or "", webhook_id))
        if target is None or (target.gone_at is None and not target.pace.failures):
            return
        id_, url, now = target.id, target.hook.webhook.url, self._clock()
        await self._store.write(lambda db: hookjobs.renew_endpoint(db, id_, url, now))
        target.renew()
        self._wake.set()

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
            if target.open and not target.pace.failing:
                continue
            target.drop_ready()
            parked = 1
            while parked:
                parked = await self._store.write(_parking(target.id, overdue))
                await asyncio.sleep(STEP_PAUSE_S)
        for id_ in list(self._removed):
            more = True
            while more and id_ in self._removed:  # unless it came back meanwhile
                more = await self._store.write(_removing(id_))
                await asyncio.sleep(STEP_PAUSE_S)
            self._removed.discard(id_)
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


def _parking(endpoint: int, before: float) -> Callable[[Connection], int]:
    return lambda db: hookjobs.park_overdue(db, endpoint, before)


def _removing(endpoint: int) -> Callable[[Connection], bool]:
    return lambda db: hookjobs.remove_endpoint(db, endpoint)
