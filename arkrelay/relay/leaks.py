"""Credentials whose key may have leaked are put on hold by themselves, and released by a person.

The credential's door stays open: what it sends is accepted and held, so nothing of its owner's is lost and a thief
is told nothing. What it sent and waits is held when it is due (``policy.admit.withheld``). It may release nothing.

The hold is kept in the database and shown through the configuration (``Live.suspect``), not written to the tenant's
file: it happened, and hand-managed files are no special case. The count of bad addresses is in memory and begins anew
with the process.
"""

import time
from collections.abc import Callable

import structlog

from arkrelay.base.tasks import Tasks
from arkrelay.config.live import Live, Suspect
from arkrelay.model.attempt import BLAMES_RECIPIENT
from arkrelay.model.errors import StoreError
from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import Message, Status
from arkrelay.model.outcome import Outcome
from arkrelay.policy.leaks import BadAddresses, judge_new
from arkrelay.store.connection import Connection
from arkrelay.store.database import Store
from arkrelay.store.history import insert_events
from arkrelay.store.known import disown, first_times, suspect, suspicions, trust

log = structlog.get_logger()

MOST = 10_000  # credentials that are counted at once; the one that was idle longest is forgotten first


class LeakGuard:
    """Watches what becomes of each credential's mail; ``load`` before use."""

    def __init__(self, store: Store, live: Live, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._live = live
        self._clock = clock
        self._tasks = Tasks()
        self._counts: dict[tuple[str, str], BadAddresses] = {}

    async def load(self) -> None:
        """Put in force again what the database knows."""
        self._live.suspect(await self._store.read(suspicions))
        self.changed()

    def settled(self, outcome: Outcome) -> None:
        """Count a recipient that came to its end; called for every outcome, at some 1 µs."""
        message, status = outcome.recipient.message, outcome.status
        if message.credential is None or outcome.attempt is None or not outcome.recipient.counts:
            return
        if status is not Status.SENT and status is not Status.HARDFAIL:
            return
        bad = status is Status.HARDFAIL and outcome.bounce_class in BLAMES_RECIPIENT
        key = (message.tenant_id, message.credential)
        count = self._counts.pop(key, None) or BadAddresses()
        self._counts[key] = count  # last: the first is idle longest
        if len(self._counts) > MOST:
            del self._counts[next(iter(self._counts))]
        site = outcome.attempt.site or outcome.recipient.domain
        count.add(outcome.at, site, bad=bad)
        tenant = self._live.snapshot.tenants.get(message.tenant_id)
        if bad and tenant is not None:
            limits = tenant.limits
            if reason := count.judge(limits.bad_address_percent, limits.bad_address_least):
                del self._counts[key]
                self._tasks.spawn("hold credential", self.hold(message.tenant_id, message.credential, reason))

    def over_budget(self, message: Message) -> None:
        """Look at a credential some of whose recipients were held because its tenant's budget is used up."""
        if message.credential is not None:
            self._tasks.spawn("hold credential", self._look(message, message.credential))

    async def _look(self, message: Message, credential: str) -> None:
        tenant = self._live.snapshot.tenants.get(message.tenant_id)
        if tenant is None:
            return
        try:
            met = await self._store.read(
                lambda db: first_times(db, message.tenant_id, message.accepted_at, credential)
            )
        except StoreError as error:
            log.warning("first_times_not_read", tenant=message.tenant_id, error=str(error))
            return
        if reason := judge_new(met.passed + met.held, tenant.limits.new_recipients_daily):
            await self.hold(message.tenant_id, credential, reason)

    async def hold(self, tenant_id: str, name: str, reason: str) -> None:
        """Put a credential on hold, with an event; nothing happens to one that is, or is no more."""
        tenant = self._live.snapshot.tenants.get(tenant_id)
        credential = None if tenant is None else tenant.credential(name)
        if credential is None or credential.suspicion:
            return
        at, number = self._clock(), credential.id
        details = f"The credential {name} was put on hold: {reason}"
        event = Event(EventKind.CREDENTIAL_HELD, at, tenant_id, data={"credential": name, "details": details})

        def job(db: Connection) -> bool:
            new = suspect(db, tenant_id, number, reason, at)
            insert_events(db, (event,) if new else ())
            return new

        # in force at once: what waits for the disk meanwhile would be on its way to strangers
        key: Suspect = (tenant_id, number)
        self._live.suspect({**self._live.suspicions, key: reason})
        log.warning("credential_held", tenant=tenant_id, credential=name, reason=reason)
        self._store.write_later(job)

    def changed(self) -> None:
        """Forget holds of credentials that the configuration in force does not have: others may get their numbers."""
        there = {(tenant.id, one.id) for tenant in self._live.snapshot.tenants.values() for one in tenant.credentials}
        gone = [key for key in self._live.suspicions if key not in there]
        if gone:
            self._live.suspect({key: why for key, why in self._live.suspicions.items() if key in there})
            self._store.write_later(lambda db: [trust(db, *key) for key in gone])

    async def release(self, tenant_id: str, name: str, number: int) -> bool:
        """Take back a hold by the relay itself, with an event; return False when there was none.

        What the credential did until now is not held against it again.
        """
        event = Event(EventKind.CREDENTIAL_RELEASED, self._clock(), tenant_id, data={"credential": name})

        def job(db: Connection) -> bool:
            was = trust(db, tenant_id, number)
            disown(db, tenant_id, self._clock(), name)
            insert_events(db, (event,) if was else ())
            return was

        was = await self._store.write(job)
        self._live.suspect({key: why for key, why in self._live.suspicions.items() if key != (tenant_id, number)})
        self._counts.pop((tenant_id, name), None)
        if was:
            log.info("credential_released", tenant=tenant_id, credential=name)
        return was
