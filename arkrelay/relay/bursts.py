"""The burst guard at work: who is not believed suppresses nobody, and what it had caused before is taken back.

``policy.burst`` counts and decides. Here it is said (log and event), the entries of the last hour that the site has
made are withdrawn, and the counts are kept for a restart.
"""

import sqlite3
import time
from collections.abc import Callable, Sequence

import structlog

from arkrelay.base.tasks import Tasks
from arkrelay.config.live import Live
from arkrelay.model.attempt import BLAMES_RECIPIENT
from arkrelay.model.errors import StoreError
from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import Status
from arkrelay.model.outcome import Outcome
from arkrelay.policy.burst import WINDOW_S, Burst, Bursts
from arkrelay.store import bursts as rows
from arkrelay.store.database import Store
from arkrelay.store.history import insert_events

log = structlog.get_logger()

STEP = 500  # entries withdrawn in one write
BY = "burst"  # in the events of entries that were withdrawn


class BurstGuard:
    """One per daemon; ``site_of`` says whose host an MX is."""

    def __init__(self, store: Store, live: Live, site_of: Callable[[str], str]) -> None:
        self._store = store
        self._live = live
        self._site_of = site_of
        self._bursts = Bursts()
        self._tasks = Tasks()

    def note(self, site: str, outcome: Outcome, now: float) -> None:
        """Count a recipient that ended at a site, and do what follows when the site is not believed from now on."""
        settings = self._live.snapshot.settings.suppression
        if settings.on != "recipient":
            return
        tenant_id = outcome.recipient.message.tenant_id
        blamed = outcome.status is not Status.SENT and outcome.bounce_class in BLAMES_RECIPIENT
        percent, least = settings.burst_percent, settings.burst_recipients
        for burst in self._bursts.note(site, tenant_id, now, blamed=blamed, percent=percent, least=least):
            self._tasks.spawn("burst", self._begin(burst, now))

    def burst(self, site: str, tenant_id: str, now: float) -> Burst | None:
        """Return why a site is not believed about recipients of this tenant, or None."""
        if self._live.snapshot.settings.suppression.on != "recipient":
            return None
        return self._bursts.burst(site, tenant_id, now)

    def lasting(self, tenant_id: str | None = None) -> list[Burst]:
        """Return what is not over: of a tenant's own and of everybody, or all."""
        found = self._bursts.lasting(time.time())
        return [one for one in found if tenant_id is None or one.tenant_id in {None, tenant_id}]

    async def restore(self) -> None:
        """Take over what the last process has kept."""
        self._bursts.restore(await self._store.read(rows.load), time.time())

    def keep(self) -> None:
        """Write down what has changed, to be known after a restart."""
        if self._bursts.changed:
            counted, now = self._bursts.counted(), time.time()
            self._store.write_later(lambda db: rows.keep(db, counted, now))

    async def _begin(self, burst: Burst, now: float) -> None:
        log.warning(
            "suppression_paused",
            site=burst.site,
            tenant=burst.tenant_id,
            failed=burst.failed,
            of=burst.seen,
            until=burst.until,
        )
        data = {"site": burst.site, "failed": burst.failed, "seen": burst.seen, "until": burst.until}
        event = Event(EventKind.NOT_BELIEVED, now, burst.tenant_id, data=data)
        self.keep()
        try:
            await self._store.write(lambda db: insert_events(db, [event]))
            tenants = self._bursts.tenants_at(burst.site) if burst.tenant_id is None else {burst.tenant_id}
            for tenant_id in tenants:
                await self._withdraw(tenant_id, burst, now - WINDOW_S)
        except StoreError as error:
            log.warning("suppressions_not_withdrawn", site=burst.site, error=str(error))

    async def _withdraw(self, tenant_id: str, burst: Burst, since: float) -> None:
        """Take off a tenant's list what the site has put there within the hour."""
        found = await self._store.read(lambda db: rows.blamed_since(db, tenant_id, since))
        entries = [
            one
            for one in found
            if burst.site in {self._site_of(one.host), f"{one.host}:{one.port}"}  # or a smarthost's, by its port
        ]
        said = f" (suppressed for that, and no more: {burst})"
        removed = 0
        for start in range(0, len(entries), STEP):
            removed += await self._store.write(
                _withdrawal(tenant_id, entries[start : start + STEP], burst.site, said)
            )
        if removed:
            log.warning("suppressions_withdrawn", site=burst.site, tenant=tenant_id, addresses=removed)


def _withdrawal(
    tenant_id: str, entries: Sequence[rows.Entry], site: str, said: str
) -> Callable[[sqlite3.Connection], int]:
    def job(db: sqlite3.Connection) -> int:
        gone, at = rows.withdraw(db, entries, said), time.time()
        data = [{"address": one.address, "by": BY, "site": site} for one in gone]
        insert_events(db, [Event(EventKind.UNSUPPRESSED, at, tenant_id, data=one) for one in data])
        return len(gone)

    return job
