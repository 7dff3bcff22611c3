"""What has to happen now and then: retention in small steps, held mail that expires, mail whose tenant is gone, room
on the disk.

Retention never touches undelivered mail. Below ``limits.min_free_disk`` nothing new is accepted
(``Upkeep.disk_low``), and when the store itself reports a full disk, sending stops too: a delivery whose
outcome cannot be recorded would be repeated.
"""

import asyncio
import os
import time
from collections.abc import Callable
from functools import partial

import structlog

from arkrelay.config.live import Live
from arkrelay.model.errors import StoreError
from arkrelay.policy import outcomes
from arkrelay.policy.describe import tenant_gone
from arkrelay.relay.operate import Operator, Selection, Verb
from arkrelay.relay.queue import Queue
from arkrelay.relay.settle import Settler
from arkrelay.store.connection import Connection
from arkrelay.store.database import Store
from arkrelay.store.deadlines import lease_expired
from arkrelay.store.prune import expired_held, lapse_step, prune_step, vacuum_step
from arkrelay.store.queue import tenants_waiting

log = structlog.get_logger()

DISK_S = 2.0  # between looks at the disk
EXPIRY_S = 10.0  # between looks at what waits beyond the end of its own lifetime
EXPIRY_BATCH = 500  # rows in one write
HELD_BATCH = 100  # each has a notice and events of its own
WRITTEN_S = 5.0  # for a batch to be on disk; the next round takes up what is left
PRUNE_S = 60.0  # between looks at what is past its retention
STEP_PAUSE_S = 0.05  # between two steps, so that the writer is mostly free for mail


class Upkeep:
    """The housekeeper; ``run`` until cancelled."""

    def __init__(self, store: Store, live: Live, queue: Queue, settler: Settler, operator: Operator) -> None:
        self._store = store
        self._live = live
        self._queue = queue
        self._settler = settler
        self._operator = operator
        self.disk_low = ""  # why nothing is accepted, for a person
        self._probing = False  # a write is on its way to find out whether the store's trouble is over

    def free_bytes(self) -> int:
        """Return what is free on the state directory's disk for an ordinary user."""
        stat = os.statvfs(self._live.snapshot.settings.state_dir)
        return stat.f_bavail * stat.f_frsize

    def look_at_disk(self) -> None:
        """Set ``disk_low`` and the queue's pause from what is free and from the store's health."""
        free = self.free_bytes()
        least = self._live.snapshot.settings.limits.min_free_disk_bytes
        low = (
            f"{free // 1_000_000} MB free on the disk, at least {least // 1_000_000} MB are needed"
            if free < least
            else ""
        )
        paused = self._store.healthy or ""
        if "full" in paused:  # also where min_free_disk is less than what the store itself needs
            low = low or paused
        if bool(low) != bool(self.disk_low):
            log.warning("disk_low" if low else "disk_room_again", free_bytes=free, least_bytes=least)
        self.disk_low = low
        if paused != self._queue.paused:
            log.warning("delivery_paused" if paused else "delivery_resumed", reason=paused)
            self._queue.paused = paused
        if paused and not self._probing:
            # Only a write that succeeds shows that the trouble is over, and while mail is refused nobody writes.
            self._probing = True
            self._store.write_later(lambda _db: None, self._probed)

    def _probed(self, _error: Exception | None) -> None:
        self._probing = False

    async def run(self) -> None:
        """Look at the disk every two seconds, at what expires every ten and at retention every minute."""
        pruned_at = expired_at = 0.0
        while True:
            try:
                self.look_at_disk()
                if time.monotonic() - expired_at >= EXPIRY_S and not self._queue.paused:
                    expired_at = time.monotonic()
                    await self.end_expired()
                if time.monotonic() - pruned_at >= PRUNE_S and not self._queue.paused:
                    pruned_at = time.monotonic()
                    await self.prune()
            except (StoreError, OSError) as error:
                log.warning("upkeep_failed", error=str(error))
            await asyncio.sleep(DISK_S)

    async def prune(self) -> None:
        """Fail held mail that is past its time, then delete what is past its retention, step by step.

        Entries of suppression lists lapse where a setting says so.
        """
        await self.end_mail_of_removed_tenants()
        now = time.time()
        settings = self._live.snapshot.settings
        retention, keep_s = settings.retention, settings.suppression.keep_s
        if retention.held_s:
            await self._end_held(now, retention.held_s)
        await self._steps(lambda db: prune_step(db, now, retention))
        if keep_s:
            await self._steps(lambda db: lapse_step(db, now, keep_s))
        await self.vacuum()

    async def _end_held(self, now: float, held_s: float) -> None:
        """Fail all mail that is held for longer than ``held_s``, some at a time: it may have been a flood."""
        reason = f"Held for {held_s / 86400:g} days and not released"
        while found := await self._store.read(lambda db: expired_held(db, now - held_s, HELD_BATCH)):
            written = [asyncio.get_running_loop().create_future() for _ in found]
            for recipient, future in zip(found, written, strict=True):
                self._settler.settle(outcomes.fail(recipient, reason, now), partial(future.set_result, None))
            _, waiting = await asyncio.wait(written, timeout=WRITTEN_S)
            if waiting:  # the database is in trouble, and the disk wants to be looked at
                return
            if len(found) < HELD_BATCH:
                return
            await asyncio.sleep(STEP_PAUSE_S)

    async def end_expired(self) -> None:
        """Fail what waits or is held beyond ``expires_at``, also where no attempt is due before long.

        Only what a peer is hearing of just now is left alone: it may still take it.
        """
        for recipient in self._queue.take_expired(time.time()):
            self._settler.settle(outcomes.expired(recipient, time.time()))
        epoch, more = self._store.epoch, True
        while more:
            now = time.time()
            found = await self._store.write(lambda db, now=now: lease_expired(db, now, EXPIRY_BATCH, epoch))  # type: ignore[misc]  # mypy cannot type a default in a lambda
            for recipient in found:
                self._settler.settle(outcomes.expired(recipient, now))
            more = len(found) == EXPIRY_BATCH

    async def end_mail_of_removed_tenants(self) -> None:
        """Fail what waits or is held for tenants that the configuration no longer has, with the reason.

        What a connection has in hand is left to it, and ends when it is due again (``Queue``). A person may retry
        what has failed, should the tenant come back.
        """
        for tenant_id in await self._store.read(tenants_waiting):
            if tenant_id not in self._live.snapshot.tenants:
                ended = await self._operator.many(Verb.DELETE, Selection(tenant_id=tenant_id), tenant_gone(tenant_id))
                if ended:
                    log.warning("mail_of_removed_tenant_ended", tenant=tenant_id, recipients=ended)

    async def vacuum(self) -> None:
        """Give free pages of the database back to the file system."""
        await self._steps(vacuum_step)

    async def _steps(self, step: Callable[[Connection], bool]) -> None:
        """Repeat a job while there is more, leaving the writer to mail in between."""
        more = True
        while more:
            more = await self._store.write(step)
            await asyncio.sleep(STEP_PAUSE_S)
