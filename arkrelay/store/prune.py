"""Retention: what happened is forgotten in small steps, and mail that is still to be delivered never.

A step looks at a bounded number of rows, deletes those whose time is over, and remembers in ``meta`` where it
stopped: old mail that is still queued or held is passed once a round and not once a step. With the default size
the writer is held some 10 ms, so mail goes on between the steps (at most 50 ms is the rule).
"""

import sqlite3

from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import QUEUED, Recipient, Status
from arkrelay.model.settings import Retention
from arkrelay.store import (
    bodies,
    engagement,
    granted,
    hookjobs,
    hooks,
    known,
    peertls,
    receipts,
    reports,
    requests,
    suppressions,
    tally,
    transcripts,
    usage,
)
from arkrelay.store.history import insert_events
from arkrelay.store.rows import BOTH, recipients_of
from arkrelay.store.usage import TOTAL, count

FOREVER_S = 1e10  # three centuries
STEP = 200  # messages looked at in one step; a message costs up to some 50 µs to delete
EVENTS = 1000
PAGES = 256  # given back to the file system in one step: 2 MB
RECEIPTS_S = 86400.0  # Ark contract §5
USAGE_S = 400 * 86400.0  # a little over a year, so that a year can be compared with the last
USAGE = 1000
KNOWN_S = 7 * 86400.0  # counts of first-time recipients are asked for by the day
REQUESTS = 500
TLS_RESULTS = 500
TRANSCRIPTS = 1000
LAPSED = 500

_UNDELIVERED = ", ".join(f"'{status.value}'" for status in sorted({*QUEUED, Status.HELD}))
_FINISHED = (
    "NOT EXISTS (SELECT 1 FROM recipients r INDEXED BY recipients_message WHERE r.message_id = m.id"  # noqa: S608 -- our own words
    f" AND (r.status IN ({_UNDELIVERED}) OR r.lease != 0))"
)


def prune_step(db: sqlite3.Connection, now: float, retention: Retention, step: int = STEP) -> bool:
    """Forget some of what is older than ``retention`` allows; return True when there is more to do.

    Content, messages (with recipients and attempts), events, transcripts, expired notes on hosts and old usage. Mail
    that is queued, held or in hand keeps everything but its older events and transcripts, whatever its age. A
    retention of 0 keeps for ever, but for requests, posts to webhooks and transcripts, of which it keeps none.
    """
    messages_s = retention.messages_s or FOREVER_S
    more = _prune_content(db, now - (retention.content_s or FOREVER_S), step)
    more |= _prune_messages(db, now - messages_s, step)
    more |= _prune_events(db, now - (retention.events_s or FOREVER_S))
    more |= engagement.prune_links(db, now - messages_s, step)
    more |= transcripts.prune(db, now - retention.transcripts_s, TRANSCRIPTS)
    more |= receipts.prune(db, now - RECEIPTS_S, step) == step
    more |= hooks.prune(db, now - retention.request_log_s, EVENTS) == EVENTS
    more |= hookjobs.prune_parked(db, now - (retention.events_s or FOREVER_S), EVENTS) == EVENTS
    more |= requests.prune(db, now - retention.request_log_s, REQUESTS)
    more |= usage.prune(db, now - USAGE_S, USAGE) == USAGE
    more |= tally.prune(db, now - tally.KEPT_S, USAGE)
    known.prune(db, now - KNOWN_S)
    more |= peertls.prune(db, now, now - messages_s, TLS_RESULTS)
    # primary key of clear_text_hosts
    db.execute("DELETE FROM clear_text_hosts WHERE until <= ?", (now,))
    return more


def lapse_step(db: sqlite3.Connection, now: float, keep_s: float) -> bool:
    """Take some addresses off the lists that a failure had put there longer ago; return True when there are more."""
    gone = suppressions.lapse(db, now - keep_s, LAPSED)
    insert_events(
        db,
        [
            Event(EventKind.UNSUPPRESSED, now, tenant_id, data={"address": address, "reason": "lapsed"})
            for tenant_id, address in gone
        ],
    )
    return len(gone) == LAPSED


def vacuum_step(db: sqlite3.Connection, pages: int = PAGES) -> bool:
    """Give some free pages back to the file system; return True when there are more.

    Outside of a transaction it is one; in a job it is part of the batch's. A tenth of the file stays
    free, since tomorrow's mail would only have to ask for it again.
    """
    free = db.execute("PRAGMA freelist_count").fetchone()[0]
    size = db.execute("PRAGMA page_count").fetchone()[0]
    surplus = free - size // 10
    if surplus <= 0:
        return False
    for _ in range(min(surplus, pages)):  # sqlite3 steps this statement only once, and each step frees one page
        db.execute("PRAGMA incremental_vacuum(1)")
    return bool(surplus > pages)


def expired_held(conn: sqlite3.Connection, before: float, limit: int = 100) -> list[Recipient]:
    """Return mail that is held since before then, the oldest first, for the caller to fail."""
    # index recipients_held
    rows = conn.execute(
        f"SELECT {BOTH} FROM recipients r INDEXED BY recipients_held JOIN messages m ON m.id = r.message_id"  # noqa: S608 -- our own columns
        " WHERE r.status = 'held' AND r.changed_at < ? ORDER BY r.changed_at LIMIT ?",
        (before, limit),
    )
    return recipients_of(rows)


def remove_orphans(db: sqlite3.Connection, limit: int = STEP) -> int:
    """Remove some blobs, recipients, attempts and transcripts that belong to nothing, and return how many.

    A recovered file may have some. It reads whole tables: for `db` commands, not for a daemon at work.
    """
    removed = 0
    for table, key, owner in (
        ("bodies", "message_id", "messages"),
        ("recipients", "message_id", "messages"),
        ("attempts", "recipient_id", "recipients"),
        ("transcripts", "attempt_id", "attempts"),
        ("reports", "recipient_id", "recipients"),
        ("ungranted", "recipient_id", "recipients"),
    ):
        removed += db.execute(
            f"DELETE FROM {table} WHERE rowid IN (SELECT t.rowid FROM {table} t"  # noqa: S608 -- the names above
            f" WHERE NOT EXISTS (SELECT 1 FROM {owner} o WHERE o.id = t.{key}) LIMIT ?)",
            (limit,),
        ).rowcount
    return removed


def _prune_content(db: sqlite3.Connection, before: float, step: int) -> bool:
    """Drop the content of finished messages; True when the round is not over."""
    start = _cursor(db, "prune_content")
    # primary key of bodies, index messages_large: only what still has content is looked at, the oldest first
    seen = db.execute(
        f"SELECT m.id, m.accepted_at < ?1 AND {_FINISHED} FROM ("  # noqa: S608 -- our own words
        "SELECT id FROM (SELECT message_id AS id FROM bodies WHERE message_id > ?2 ORDER BY message_id LIMIT ?3)"
        " UNION SELECT id FROM"
        " (SELECT id FROM messages INDEXED BY messages_large WHERE large AND id > ?2 ORDER BY id LIMIT ?3)"
        ") c JOIN messages m ON m.id = c.id ORDER BY m.id LIMIT ?3",
        (before, start, step),
    ).fetchall()
    old = [id_ for id_, is_old in seen if is_old]
    bodies.drop(db, old)
    reports.forget_contents(db, old)
    return _advance(db, "prune_content", before, seen, step)


def _prune_messages(db: sqlite3.Connection, before: float, step: int) -> bool:
    start = _cursor(db, "prune_messages")
    # primary key of messages
    seen = db.execute(
        f"SELECT m.id, m.accepted_at < ?1 AND {_FINISHED}"  # noqa: S608 -- our own words
        " FROM messages m WHERE m.id > ?2 ORDER BY m.id LIMIT ?3",
        (before, start, step),
    ).fetchall()
    _delete_messages(db, [id_ for id_, old in seen if old])
    return _advance(db, "prune_messages", before, seen, step)


def _delete_messages(db: sqlite3.Connection, ids: list[int]) -> None:
    if not ids:
        return
    _keep_high_marks(db)
    bodies.drop(db, ids)
    keys = [(id_,) for id_ in ids]
    for key in keys:
        # index recipients_message
        for recipient_id, tenant_id, status in db.execute(
            "SELECT id, tenant_id, status FROM recipients WHERE message_id = ?", key
        ).fetchall():
            count(db, (TOTAL, tenant_id, status), -1)
            transcripts.delete_of(db, recipient_id)
            db.execute("DELETE FROM attempts WHERE recipient_id = ?", (recipient_id,))  # index attempts_recipient
            db.execute("DELETE FROM reports WHERE recipient_id = ?", (recipient_id,))  # index reports_recipient
            engagement.forget_activity(db, recipient_id)
            granted.forget(db, [recipient_id])
    db.executemany("DELETE FROM recipients WHERE message_id = ?", keys)  # index recipients_message
    db.executemany("DELETE FROM messages WHERE id = ?", keys)  # primary key


def _prune_events(db: sqlite3.Connection, before: float) -> bool:
    # primary key of events; times run along with the numbers but for jumps of the clock, which only delay this
    gone = db.execute(
        "DELETE FROM events WHERE at < ? AND seq IN (SELECT seq FROM events ORDER BY seq LIMIT ?)", (before, EVENTS)
    ).rowcount
    return bool(gone == EVENTS)


def _keep_high_marks(db: sqlite3.Connection) -> None:
    """Remember the highest ids, since the rows that bear them may be about to go; see ``queue.next_ids``."""
    for table, name in (("messages", "high_message_id"), ("recipients", "high_recipient_id")):
        db.execute(
            f"INSERT INTO meta VALUES (?, (SELECT coalesce(max(id), 0) FROM {table}))"  # noqa: S608 -- the names above
            " ON CONFLICT DO UPDATE SET value = max(value, excluded.value)",
            (name,),
        )


def _cursor(db: sqlite3.Connection, name: str) -> int:
    row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return 0 if row is None else int(row[0])


def _advance(db: sqlite3.Connection, name: str, before: float, seen: list[tuple[int, int]], step: int) -> bool:
    """Move on behind what was seen, or to the start again when the rest is too young; True when there is more."""
    last = seen[-1][0] if seen else 0
    young = db.execute("SELECT accepted_at >= ? FROM messages WHERE id = ?", (before, last)).fetchone()
    more = len(seen) == step and (young is None or not young[0])
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, last if more else 0))
    return more
