"""Following the event log as it grows, for the streams of API and dashboard alike.

A reader who keeps the number of the last event and asks for what came after it sees each event once, whatever
restarts in between.
"""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from arkrelay.model.event import EventKind
from arkrelay.model.message import Recipient
from arkrelay.relay.watch import EventWatch
from arkrelay.store.database import Store
from arkrelay.store.find import by_ids
from arkrelay.store.history import StoredEvent, read_on

KEEP_ALIVE_S: Final = 15.0  # proxies take a silent connection for a dead one
AT_ONCE: Final = 100  # events in one write: all that a follower ever has in memory, beside its socket's buffer

Shown = tuple[StoredEvent, Recipient | None]  # None: it is about no recipient, or about one that retention removed


class LogReader:
    """A place in the log, and what is looked for; ``at_end``: nothing was left when it was read last."""

    def __init__(self, store: Store, after: int, tenant_id: str | None, kinds: frozenset[EventKind]) -> None:
        self._store, self._tenant_id, self._kinds = store, tenant_id, kinds
        self.after, self.last = after, 0
        self.at_end = False

    async def read(self, limit: int) -> list[Shown]:
        """Return the next events, and step behind them."""
        after = self.after

        def look(db: sqlite3.Connection) -> tuple[int, int, list[Shown]]:
            found = read_on(db, after, limit, tenant_id=self._tenant_id, kinds=self._kinds)
            return found.next, found.last, with_recipients(db, found.events)

        self.after, self.last, shown = await self._store.read(look)
        self.at_end = self.after in {after, self.last}
        return shown


def with_recipients(db: sqlite3.Connection, events: Sequence[StoredEvent]) -> list[Shown]:
    """Return each event with the recipient that it is about."""
    ids = {one.event.recipient_id for one in events if one.event.recipient_id is not None}
    recipients = {one.id: one for one in by_ids(db, sorted(ids))}
    return [(one, recipients.get(one.event.recipient_id or 0)) for one in events]


async def follow(
    reader: LogReader,
    watch: EventWatch,
    write: Callable[[bytes], Awaitable[None]],
    render: Callable[[Iterable[Shown]], bytes],
    *,
    goes_on: Callable[[], bool],
    silence: bytes,
) -> None:
    """Write events as they come, until it shall not go on or the daemon stops; ``silence`` when none came for long.

    Who reads slowly is waited for, with no more than ``AT_ONCE`` events in hand.
    """
    spoke_at = time.monotonic()
    while not watch.closed and goes_on():
        seen = watch.last
        shown = await reader.read(AT_ONCE)
        if shown:
            await write(render(shown))
            spoke_at = time.monotonic()
        elif reader.at_end:
            silent_s = time.monotonic() - spoke_at
            if silent_s >= KEEP_ALIVE_S:
                await write(silence)
                spoke_at, silent_s = time.monotonic(), 0.0
            await watch.wait(seen, KEEP_ALIVE_S - silent_s)
        else:
            await asyncio.sleep(0)
