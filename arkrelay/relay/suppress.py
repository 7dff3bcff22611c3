"""What a person does to a suppression list: an address joins it, or leaves it, and the event log says so."""

import sqlite3
import time

from arkrelay.model.event import Event, EventKind
from arkrelay.model.suppression import Suppression
from arkrelay.relay.queue import Queue
from arkrelay.store import suppressions
from arkrelay.store.database import Store
from arkrelay.store.history import insert_events


async def suppress(
    store: Store, queue: Queue, tenant_id: str, address: str, reason: str, stream: str = ""
) -> Suppression:
    """Put an address on the list; one that is there gets the new reason. Return its entry, which is on disk.

    What waits for it in memory is held.
    """
    at = time.time()
    event = Event(EventKind.SUPPRESSED, at, tenant_id, data={"address": address, "reason": reason, "by": "hand"})

    def job(db: sqlite3.Connection) -> Suppression:
        insert_events(db, [event])
        return suppressions.add(db, tenant_id, address, reason, at, stream)

    entry = await store.write(job)
    queue.note_suppressed(tenant_id, [address])
    return entry


async def unsuppress(store: Store, tenant_id: str, address: str, stream: str | None = None) -> bool:
    """Take an address off the list, for this stream or for every one; return False when it was not on it."""
    data = {"address": address, "by": "hand"} | ({} if stream is None else {"stream": stream})
    event = Event(EventKind.UNSUPPRESSED, time.time(), tenant_id, data=data)

    def job(db: sqlite3.Connection) -> bool:
        removed = suppressions.remove(db, tenant_id, address, stream)
        if removed:
            insert_events(db, [event])
        return removed

    return await store.write(job)
