"""What used up a tenant's send limits: recipients that were not held at once, and those held ones that were released.

A recipient that is held from the start takes no place and is written down here; when somebody lets it go, it takes
one in the hour of that, and its note is gone. So it counts once, however often it is held, deleted and retried.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence

from arkrelay.model.message import Recipient, Status
from arkrelay.store.usage import GRANTED, HOUR_S, count, start_of


def insert(db: sqlite3.Connection, recipients: Sequence[Recipient], at: float) -> None:
    """Count recipients of one message, accepted at ``at``; those that are held take no place yet."""
    counting = [one for one in recipients if one.counts]
    granted = sum(one.status is Status.PENDING for one in counting)
    if granted:
        count(db, (GRANTED, counting[0].message.tenant_id, "", start_of(at, HOUR_S)), granted)
    if granted < len(counting):
        held = [(one.id,) for one in counting if one.status is Status.HELD]
        db.executemany("INSERT INTO ungranted VALUES (?)", held)


def ungranted(conn: sqlite3.Connection, recipients: Iterable[Recipient]) -> frozenset[int]:
    """Return the ids of those that took no place of their tenant's limits yet."""
    # primary key of ungranted
    found = (
        conn.execute("SELECT recipient_id FROM ungranted WHERE recipient_id = ?", (one.id,)) for one in recipients
    )
    return frozenset(id_ for rows in found for (id_,) in rows)


def grant(db: sqlite3.Connection, recipients: Sequence[Recipient], now: float) -> None:
    """Let recipients that took no place yet take it now."""
    forget(db, [one.id for one in recipients])
    for tenant_id, n in Counter(one.message.tenant_id for one in recipients).items():
        count(db, (GRANTED, tenant_id, "", start_of(now, HOUR_S)), n)


def forget(db: sqlite3.Connection, recipient_ids: Iterable[int]) -> None:
    """Forget that these took no place."""
    # primary key of ungranted
    db.executemany("DELETE FROM ungranted WHERE recipient_id = ?", [(id_,) for id_ in recipient_ids])
