"""Tells everybody who waits for the next event that there is one.

However many wait, the store is looked at once every 250 ms, and not at all while nobody waits. The alternative, a
call from the writer after each commit, would cost the path of mail something for readers that are seldom there, and
would wake each of them a thousand times a second under load. This way they wake four times and read what gathered.
"""

import asyncio

import structlog

from arkrelay.base.tasks import Tasks
from arkrelay.model.errors import StoreError
from arkrelay.store.database import Store
from arkrelay.store.history import last_event

log = structlog.get_logger()

POLL_S = 0.25


class EventWatch:
    """The number of the newest event, and who waits for a higher one; one per daemon."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tasks = Tasks()
        self._looking = False
        self._waiting = 0
        self._grown = asyncio.Event()  # replaced each time it is set
        self.last = 0  # as it was last seen: take it before a read, and wait for more than that
        self.closed = False

    async def wait(self, seen: int, timeout_s: float) -> None:
        """Return when there may be events above ``seen``, a ``last`` of before, or after ``timeout_s``.

        It returns at once when the daemon stops, and from then on always: look at ``closed``.
        """
        if self.last > seen or self.closed or timeout_s <= 0:
            return
        grown = self._grown
        self._waiting += 1
        if not self._looking:
            self._looking = True
            self._tasks.spawn("event watch", self._look())
        try:
            async with asyncio.timeout(timeout_s):
                await grown.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Wake everybody for the last time."""
        self.closed = True
        self._grown.set()

    async def _look(self) -> None:
        try:
            while self._waiting and not self.closed:
                try:
                    last = await self._store.read(last_event)
                except StoreError as error:  # who waits goes on waiting: the disk may come back
                    log.warning("events_not_read", error=str(error))
                    last = self.last
                if last > self.last:
                    self.last = last
                    grown, self._grown = self._grown, asyncio.Event()
                    grown.set()
                await asyncio.sleep(POLL_S)
        finally:
            self._looking = False
