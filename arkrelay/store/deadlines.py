"""Times by which something is to be said about a recipient: the end of its message's own lifetime, a delay notice."""

import sqlite3

from arkrelay.model.message import Recipient, Status
from arkrelay.store.rows import BOTH, recipients_of

# word for word as in the schema, or SQLite does not see that the index fits
_EXPIRING = "expires_at IS NOT NULL AND r.status IN ('pending', 'softfail', 'held')"


def lease_expired(db: sqlite3.Connection, now: float, limit: int, epoch: int) -> list[Recipient]:
    """Lease up to ``limit`` recipients that wait or are held beyond ``expires_at``, and return them to be settled.

    What a delivery has in hand is left to it: the attempt under way may still succeed.
    """
    # index recipients_expiring
    rows = db.execute(
        f"SELECT {BOTH} FROM recipients r INDEXED BY recipients_expiring JOIN messages m ON m.id = r.message_id"  # noqa: S608 -- our own words
        f" WHERE r.{_EXPIRING} AND r.expires_at <= ? AND r.lease = 0"
        " ORDER BY r.expires_at LIMIT ?",
        (now, limit),
    ).fetchall()
    found = recipients_of(rows)
    db.executemany("UPDATE recipients SET lease = ? WHERE id = ?", [(epoch, one.id) for one in found])  # primary key
    return found


def has_status(db: sqlite3.Connection, recipient_id: int, status: Status) -> bool:
    """Return whether the recipient is in this state now."""
    # primary key of recipients
    row = db.execute("SELECT status FROM recipients WHERE id = ?", (recipient_id,)).fetchone()
    return row is not None and row[0] == status.value


def end_delay(db: sqlite3.Connection, recipient_id: int) -> bool:
    """Note that the delay notice is sent; return False when it was before."""
    # primary key of recipients
    changed = db.execute(
        "UPDATE recipients SET delay_at = NULL WHERE id = ? AND delay_at IS NOT NULL", (recipient_id,)
    ).rowcount
    return bool(changed)
