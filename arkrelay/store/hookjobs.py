"""Events on their way to webhooks: what waits for each endpoint, and how far the log of events was followed.

The log of events is the outbox: an event is in it with the fact that it tells. ``insert_jobs`` makes jobs of a
stretch of it and moves the cursor in one transaction, so each event becomes one job for each webhook that wants it,
whenever the process dies. A job is a row until the event was taken or its schedule is over; then it moves to
``hook_parked``, from where a person may put it back. Nothing of the payload is kept here: it is made of the event and
its recipient.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from arkrelay.model.event import EventKind
from arkrelay.model.hook import Endpoint, HookDelivery, HookJob, JobEnd
from arkrelay.model.message import Message
from arkrelay.store.connection import text
from arkrelay.store.history import last_event
from arkrelay.store.hooks import insert_delivery
from arkrelay.store.rows import BOTH, event_of, insert_rows, recipient_of

CURSOR = "hook_cursor"  # in meta
MOVED = 5000  # jobs that are brought forward at once, some 25 ms of the writer
STEP = 1000  # jobs that are parked, put back or dropped in one step, likewise

_ENDPOINT = "id, owner, webhook_id, url, waiting, parked, failures, rest_until, answered_at, status, error, gone_at"
_INSERT_JOB = (
    "INSERT INTO hook_jobs (endpoint, seq, recipient_id, uuid, attempts, made_at, due_at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_PARK = (
    "INSERT INTO hook_parked SELECT id, endpoint, seq, recipient_id, uuid, {}, made_at FROM hook_jobs WHERE id = ?"
)
_JOB_FIELDS = 6
# index hook_jobs_due; index hook_jobs_order: of one recipient the oldest comes first, and the others wait for it
_CLAIM = f"""
    SELECT j.id, j.endpoint, j.uuid, j.attempts, j.recipient_id, e.seq,
        e.kind, e.at, e.tenant_id, e.message_id, e.recipient_id, e.data, {BOTH}
    FROM (
        SELECT * FROM hook_jobs INDEXED BY hook_jobs_due WHERE endpoint = ?1 AND due_at <= ?2 AND (
            recipient_id IS NULL OR NOT EXISTS (
                SELECT 1 FROM hook_jobs o INDEXED BY hook_jobs_order
                WHERE o.endpoint = ?1 AND o.recipient_id = hook_jobs.recipient_id AND o.id < hook_jobs.id))
        ORDER BY due_at, id LIMIT ?3
    ) j
    LEFT JOIN events e ON e.seq = j.seq
    LEFT JOIN recipients r ON r.id = j.recipient_id
    LEFT JOIN messages m ON m.id = r.message_id
    ORDER BY j.due_at, j.id
"""  # noqa: S608 -- our own columns


@dataclass(frozen=True, slots=True)
class Told:
    """An event of the log that some webhook may want."""

    seq: int
    kind: EventKind
    tenant_id: str | None
    recipient_id: int | None


@dataclass(frozen=True, slots=True)
class NewJob:
    """One event for one endpoint."""

    endpoint: int
    seq: int
    recipient_id: int | None
    uuid: UUID


@dataclass(frozen=True, slots=True)
class Attempted:
    """What became of a job, and how its endpoint fares since."""

    job: HookJob
    end: JobEnd
    due_at: float | None  # when it is tried again
    delivery: HookDelivery | None
    failures: int
    rest_until: float | None
    gone_at: float | None = None
    forward_but: Collection[int] | None = None  # the endpoint answers again: what waits, but for these, goes now


def start_cursor(db: sqlite3.Connection) -> int:
    """Return up to which number the log was followed; a database that never followed it begins at its end."""
    # primary key of meta
    db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (CURSOR, last_event(db)))
    (cursor,) = db.execute("SELECT value FROM meta WHERE name = ?", (CURSOR,)).fetchone()
    return int(cursor)


def read_told(
    conn: sqlite3.Connection, after: int, most: int, kinds: Collection[EventKind]
) -> tuple[list[Told], int]:
    """Return the events of these kinds among the next ``most`` numbers, and the number up to which that is all."""
    end = min(last_event(conn), after + most)
    if end <= after or not kinds:
        return [], max(after, end if kinds else last_event(conn))
    # primary key of events
    rows = conn.execute(
        "SELECT seq, kind, tenant_id, recipient_id FROM events WHERE seq > ? AND seq <= ?"  # noqa: S608 -- question marks only
        f" AND kind IN ({', '.join('?' * len(kinds))}) ORDER BY seq",
        (after, end, *(kind.value for kind in kinds)),
    )
    return [Told(seq, EventKind(kind), tenant_id, of) for seq, kind, tenant_id, of in rows], end


def insert_jobs(db: sqlite3.Connection, jobs: Sequence[NewJob], now: float, after: int, cursor: int) -> int:
    """Make jobs of the events behind ``after``, due now, and move the cursor; return where it is.

    When the log was followed beyond ``after`` already, its jobs are there, and nothing is done.
    """
    # primary key of meta
    if not db.execute("UPDATE meta SET value = ? WHERE name = ? AND value = ?", (cursor, CURSOR, after)).rowcount:
        return start_cursor(db)
    insert_rows(
        db, _INSERT_JOB, [(one.endpoint, one.seq, one.recipient_id, one.uuid.bytes, 0, now, now) for one in jobs]
    )
    for endpoint, n in Counter(one.endpoint for one in jobs).items():
        _count(db, endpoint, n, 0)
    return cursor


def due_jobs(
    conn: sqlite3.Connection, endpoint: int, now: float, limit: int, passed_over: Collection[int] = ()
) -> list[HookJob]:
    """Return up to ``limit`` jobs of an endpoint that may be posted now, those due longest first.

    Of one recipient only the oldest job is among them: its later events wait for it, those of others do not.
    """
    rows = conn.execute(_CLAIM, (endpoint, now, limit + len(passed_over))).fetchall()
    messages: dict[int, Message] = {}
    return [_job(row, messages) for row in rows if row[0] not in passed_over][:limit]


def next_due(conn: sqlite3.Connection, endpoint: int, now: float) -> float | None:
    """Return when a job of the endpoint becomes due that is not due yet, or None for none."""
    # index hook_jobs_due
    (at,) = conn.execute(
        "SELECT min(due_at) FROM hook_jobs INDEXED BY hook_jobs_due WHERE endpoint = ? AND due_at > ?",
        (endpoint, now),
    ).fetchone()
    return None if at is None else float(at)


def settle(db: sqlite3.Connection, done: Attempted) -> list[int]:
    """Record an attempt, what it means for the job, and how the endpoint fares; return which jobs go early.

    A job that is gone stays so, and one that was parked meanwhile stays parked unless its event was taken.
    """
    job = done.job
    waiting = parked = 0
    if done.end is JobEnd.RETRY:
        # primary key of hook_jobs
        db.execute(
            "UPDATE hook_jobs SET attempts = ?, due_at = ? WHERE id = ?", (job.attempts + 1, done.due_at, job.id)
        )
    else:
        if done.end is JobEnd.PARKED:
            parked = db.execute(_PARK.format("attempts + 1"), (job.id,)).rowcount
        waiting = -db.execute("DELETE FROM hook_jobs WHERE id = ?", (job.id,)).rowcount
        if done.end is JobEnd.DONE and not waiting:
            # primary key of hook_parked
            parked = -db.execute("DELETE FROM hook_parked WHERE id = ?", (job.id,)).rowcount
    if done.delivery is None:
        _count(db, job.endpoint, waiting, parked)
        return []
    insert_delivery(db, done.delivery)
    answer = done.delivery.answer
    # primary key of hook_endpoints; a number may have become another webhook's since
    db.execute(
        "UPDATE hook_endpoints SET waiting = waiting + ?, parked = parked + ?, failures = ?, rest_until = ?,"
        " answered_at = ?, status = ?, error = ?, gone_at = coalesce(?, gone_at)"
        " WHERE id = ? AND owner = ? AND webhook_id = ?",
        (
            waiting,
            parked,
            done.failures,
            done.rest_until,
            done.delivery.at,
            answer.status,
            text(answer.error),
            done.gone_at,
            job.endpoint,
            done.delivery.owner,
            done.delivery.webhook_id,
        ),
    )
    return [] if done.forward_but is None else bring_forward(db, job.endpoint, done.delivery.at, done.forward_but)


def bring_forward(
    db: sqlite3.Connection, endpoint: int, latest: float, but: Collection[int] = (), limit: int = MOVED
) -> list[int]:
    """Let no job of an endpoint, but for these, wait beyond ``latest``; return which moved, ``limit`` at most."""
    # index hook_jobs_due
    rows = db.execute(
        "UPDATE hook_jobs SET due_at = ?2 WHERE id IN"
        " (SELECT id FROM hook_jobs INDEXED BY hook_jobs_due WHERE endpoint = ?1 AND due_at > ?2"
        " AND id NOT IN (SELECT value FROM json_each(?3)) LIMIT ?4) RETURNING id",
        (endpoint, latest, json.dumps(list(but)), limit),
    ).fetchall()
    return [id_ for (id_,) in rows]


def park_overdue(
    db: sqlite3.Connection, endpoint: int, before: float, but: Collection[int] = (), limit: int = STEP
) -> int:
    """Park what has been due at an endpoint since before then, but for these; return how many."""
    # index hook_jobs_due
    ids = db.execute(
        "SELECT id FROM hook_jobs INDEXED BY hook_jobs_due WHERE endpoint = ? AND due_at < ?"
        " AND id NOT IN (SELECT value FROM json_each(?)) ORDER BY due_at LIMIT ?",
        (endpoint, before, json.dumps(list(but)), limit),
    ).fetchall()
    db.executemany(_PARK.format("attempts"), ids)
    db.executemany("DELETE FROM hook_jobs WHERE id = ?", ids)
    if ids:
        _count(db, endpoint, -len(ids), len(ids))
    return len(ids)


def put_back(db: sqlite3.Connection, endpoint: int, since: float, now: float, limit: int = STEP) -> int:
    """Let parked events of an endpoint that are from after ``since`` wait again, due now; return how many.

    They keep their uuid: an answer that was lost may have meant that the event was taken. Their schedule begins anew.
    """
    # index hook_parked_endpoint
    rows = db.execute(
        "SELECT id FROM hook_parked WHERE endpoint = ? AND made_at >= ? ORDER BY made_at LIMIT ?",
        (endpoint, since, limit),
    ).fetchall()
    db.executemany(
        "INSERT INTO hook_jobs SELECT id, endpoint, seq, recipient_id, uuid, 0, made_at, ?"
        " FROM hook_parked WHERE id = ?",
        [(now, id_) for (id_,) in rows],
    )
    db.executemany("DELETE FROM hook_parked WHERE id = ?", rows)
    if rows:
        _count(db, endpoint, len(rows), -len(rows))
    return len(rows)


def prune_parked(db: sqlite3.Connection, before: float, limit: int) -> int:
    """Forget up to ``limit`` parked events from before then: the log does not have them any more either."""
    # primary key of hook_parked: the oldest have the lowest ids
    rows = db.execute(
        "SELECT id, endpoint FROM (SELECT id, endpoint, made_at FROM hook_parked ORDER BY id LIMIT ?)"
        " WHERE made_at < ?",
        (limit, before),
    ).fetchall()
    for id_, endpoint in rows:
        db.execute("DELETE FROM hook_parked WHERE id = ?", (id_,))
        _count(db, endpoint, 0, -1)
    return len(rows)


# --- endpoints ---


def list_endpoints(conn: sqlite3.Connection) -> list[Endpoint]:
    """Return every endpoint."""
    return [_endpoint(row) for row in conn.execute(f"SELECT {_ENDPOINT} FROM hook_endpoints")]  # noqa: S608 -- our own columns


def add_endpoint(db: sqlite3.Connection, owner: str, webhook_id: str, url: str) -> None:
    """Begin to know a webhook."""
    db.execute(
        "INSERT OR IGNORE INTO hook_endpoints (owner, webhook_id, url) VALUES (?, ?, ?)",
        (owner, webhook_id, text(url)),
    )


def renew_endpoint(db: sqlite3.Connection, endpoint: int, url: str, now: float) -> None:
    """Forget what is held against an endpoint, which has a new URL or a person's word.

    What waits for a later time goes now, up to ``MOVED`` of it: ``bring_forward`` moves the rest.
    """
    # primary key of hook_endpoints
    db.execute(
        "UPDATE hook_endpoints SET url = ?, failures = 0, rest_until = NULL, gone_at = NULL WHERE id = ?",
        (text(url), endpoint),
    )
    bring_forward(db, endpoint, now)


def remove_endpoint(db: sqlite3.Connection, endpoint: int) -> bool:
    """Forget a webhook that is no more and what waits for it, ``STEP`` jobs at once; return whether there is more."""
    # indexes hook_jobs_due and hook_parked_endpoint
    for table in ("hook_jobs", "hook_parked"):
        gone = db.execute(
            f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE endpoint = ? LIMIT ?)",  # noqa: S608 -- the names above
            (endpoint, STEP),
        ).rowcount
        if gone == STEP:
            return True
    db.execute("DELETE FROM hook_endpoints WHERE id = ?", (endpoint,))
    return False


def oldest_waiting(conn: sqlite3.Connection) -> float | None:
    """Return since when the oldest job waits."""
    # primary key of hook_jobs
    row = conn.execute("SELECT made_at FROM hook_jobs ORDER BY id LIMIT 1").fetchone()
    return None if row is None else float(row[0])


def _count(db: sqlite3.Connection, endpoint: int, waiting: int, parked: int) -> None:
    # primary key of hook_endpoints
    db.execute(
        "UPDATE hook_endpoints SET waiting = waiting + ?, parked = parked + ? WHERE id = ?",
        (waiting, parked, endpoint),
    )


def _endpoint(row: Sequence[Any]) -> Endpoint:
    return Endpoint(**dict(zip(_ENDPOINT.split(", "), row, strict=True)))


def _job(row: Sequence[Any], messages: dict[int, Message]) -> HookJob:
    id_, endpoint, uuid, attempts, recipient_id, seq = row[:_JOB_FIELDS]
    event, both = row[_JOB_FIELDS : _JOB_FIELDS + 6], row[_JOB_FIELDS + 6 :]
    job = HookJob(id_, endpoint, str(UUID(bytes=uuid)), attempts, recipient_id, None, None)
    try:
        return replace(
            job,
            event=None if seq is None else event_of(event),
            recipient=None if both[0] is None else recipient_of(both, messages),
        )
    except (ValueError, KeyError, TypeError) as error:  # one damaged row shall not keep the others
        return replace(job, unreadable=f"{type(error).__name__}: {error}")
