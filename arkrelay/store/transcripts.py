"""What was said in attempts: one row for an attempt whose conversation is kept, forgotten before the attempt is."""

import sqlite3
from collections.abc import Sequence

from arkrelay.store.connection import text
from arkrelay.store.rows import insert_rows

_INSERT = "INSERT INTO transcripts (attempt_id, at, said) VALUES (?, ?, ?)"


def insert(db: sqlite3.Connection, said: Sequence[str], newest: int, at: float) -> None:
    """Keep the conversations of attempts, ``newest`` the number of the last one; an empty one is not kept.

    Rows of one transaction have consecutive numbers (SQLite: the highest and one more).
    """
    first = newest - len(said) + 1
    insert_rows(db, _INSERT, [(first + n, at, text(one)) for n, one in enumerate(said) if one])


def delete_of(db: sqlite3.Connection, recipient_id: int) -> None:
    """Forget what was said about one recipient; its attempts must still be there."""
    # index attempts_recipient, primary key of transcripts
    db.execute(
        "DELETE FROM transcripts WHERE attempt_id IN (SELECT id FROM attempts WHERE recipient_id = ?)",
        (recipient_id,),
    )


def prune(db: sqlite3.Connection, before: float, limit: int) -> bool:
    """Forget up to ``limit`` conversations of before then, the oldest first; return True when there may be more."""
    # primary key of transcripts; times run along with the numbers but for jumps of the clock, which only delay this
    gone = db.execute(
        "DELETE FROM transcripts WHERE at < ?"
        " AND attempt_id IN (SELECT attempt_id FROM transcripts ORDER BY attempt_id LIMIT ?)",
        (before, limit),
    ).rowcount
    return bool(gone == limit)
