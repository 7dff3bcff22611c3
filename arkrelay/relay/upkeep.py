"""What has to happen now and then: retention in small steps, held mail that expires, room on the disk.

Retention never touches undelivered mail. Below ``limits.min_free_disk`` nothing new is accepted
(``Upkeep.disk_low``), and when the store itself reports a full disk, sending stops too: a delivery whose
outcome cannot be recorded would be repeated.
"""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from arkrelay.config.live import Live
from arkrelay.model.errors import StoreError
from arkrelay.policy import outcomes
from arkrelay.relay.queue import Queue
from arkrelay.relay.settle import Settler
from arkrelay.store.connection import Connection
from arkrelay.store.database import Store
from arkrelay.store.prune import expired_held, prune_step, vacuum_step

log = structlog.get_logger()

DISK_S = 2.0  # between looks at the disk
PRUNE_S = 60.0  # between looks at what is past its retention
FOREVER_S = 1e10  # three centuries: what a retention of 0 means
STEP_PAUSE_S = 0.05  # between two steps, so that the writer is mostly free for mail


class Upkeep:
    """The housekeeper; ``run`` until cancelled."""

    def __init__(self, store: Store, live: Live, queue: Queue, settler: Settler) -> None:
        self._store = store
        self._live = live
        self._queue = queue
        self._settler = settler
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
        """Look at the disk every two seconds and at retention every minute."""
        pruned_at = 0.0
        while True:
            try:
                self.look_at_disk()
                if time.monotonic() - pruned_at >= PRUNE_S and not self._queue.paused:
                    pruned_at = time.monotonic()
                    await self.prune()
            except (StoreError, OSError) as error:
                log.warning("upkeep_failed", error=str(error))
            await asyncio.sleep(DISK_S)

    async def prune(self) -> None:
        """Fail held mail that is past its time, then delete what is past its retention, step by step."""
        now = time.time()
        retention = self._live.snapshot.settings.retention
        if retention.held_s:
            for recipient in await self._store.read(lambda db: expired_held(db, now - retention.held_s)):
                days = retention.held_s / 86400
                self._settler.settle(outcomes.fail(recipient, f"Held for {days:g} days and not released", now))
        kept = replace(
            retention,
            content_s=retention.content_s or FOREVER_S,
            messages_s=retention.messages_s or FOREVER_S,
            events_s=retention.events_s or FOREVER_S,
        )
        await self._steps(lambda db: prune_step(db, now, kept))
        await self.vacuum()

    async def vacuum(self) -> None:
        """Give free pages of the database back to the file system."""
        await self._steps(vacuum_step)

    async def _steps(self, step: Callable[[Connection], bool]) -> None:
        """Repeat a job while there is more, leaving the writer to mail in between."""
        more = True
        while more:
            more = await self._store.write(step)
            await asyncio.sleep(STEP_PAUSE_S)
