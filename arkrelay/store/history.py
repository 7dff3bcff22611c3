"""What happened: attempts and events, written once and read by REST, webhooks and people."""

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from arkrelay.model.attempt import Attempt, BounceClass, TlsInfo
from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import Recipient, Status
from arkrelay.model.peertls import TlsPolicy
from arkrelay.model.reply import Failure, Reply
from arkrelay.model.transcript import Spoken
from arkrelay.policy.describe import enhanced_of
from arkrelay.policy.transcript import parse
from arkrelay.store import find
from arkrelay.store.browse import Mark, Taken, take
from arkrelay.store.connection import text
from arkrelay.store.find import Filters
from arkrelay.store.rows import event_of, event_row, insert_rows

_INSERT_EVENT = "INSERT INTO events (kind, at, tenant_id, message_id, recipient_id, data) VALUES (?, ?, ?, ?, ?, ?)"
_ATTEMPT_COLUMNS = (
    "recipient_id, started_at, duration_s, status, stage, failure, code, enhanced, output, details, bounce_class,"
    " past_dot, host, address, port, tls_version, tls_cipher, tls_verified, tls_policy, source"
)
_INSERT_ATTEMPT = f"INSERT INTO attempts ({_ATTEMPT_COLUMNS}) VALUES ({', '.join('?' * 20)})"  # noqa: S608 -- our own columns
AttemptRow = tuple[object, ...]
SCANNED = 20_000  # events that one read looks at, some 20 ms


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt as it is kept, or a decision that REST lists beside the attempts (``stage`` None)."""

    id: int
    recipient_id: int
    at: float
    duration_s: float
    status: Status
    stage: str | None
    failure: str | None  # FailureKind, when no reply came
    code: int | None
    enhanced: str | None
    output: str  # the reply as it came, or what happened instead of one
    details: str
    bounce_class: BounceClass | None
    past_dot: bool
    host: str | None
    address: str | None
    port: int | None
    tls: TlsInfo | None
    policy: TlsPolicy | None = None  # on whose word TLS was demanded
    source: str | None = None  # our address
    transcript: tuple[Spoken, ...] | None = None  # None: not kept, or no longer


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event with its place in the log: a number that grows and is never given twice."""

    seq: int
    event: Event


@dataclass(frozen=True, slots=True)
class Page:
    """One page of recipients, and how many there are in all (a search is counted up to ``find.COUNT_MAX``)."""

    recipients: list[Recipient]
    total: int


def insert_events(db: sqlite3.Connection, events: Sequence[Event]) -> None:
    """Append to the event log, in this order."""
    insert_rows(db, _INSERT_EVENT, [event_row(event) for event in events])


def insert_attempts(db: sqlite3.Connection, rows: Sequence[AttemptRow]) -> int | None:
    """Record attempts, each a row of ``attempt_row``; return the number of the last one."""
    return insert_rows(db, _INSERT_ATTEMPT, rows)


def attempt_row(
    recipient_id: int,
    status: Status,
    attempt: Attempt | None,
    at: float,
    details: str,
    bounce_class: BounceClass | None,
) -> AttemptRow:
    """Return the row of one attempt, or without one of a decision that belongs among the deliveries."""
    blamed = bounce_class and bounce_class.value
    row: tuple[object, ...]
    if attempt is None:
        row = (
            recipient_id,
            at,
            0.0,
            status.value,
            None,
            None,
            None,
            None,
            "",
            text(details),
            blamed,
            False,
            *[None] * 8,
        )
    else:
        result, tls = attempt.result, attempt.tls
        reply = result if isinstance(result, Reply) else None
        row = (
            recipient_id,
            attempt.started_at,
            attempt.duration_s,
            status.value,
            result.stage.value,
            result.kind.value if isinstance(result, Failure) else None,
            (reply and reply.code) or None,  # a report may name none
            text(enhanced_of(result, permanent=status is Status.HARDFAIL)),
            text(str(result)),
            text(details),
            blamed,
            attempt.past_dot,
            text(attempt.host),
            attempt.address,
            attempt.port,
            tls and tls.version,
            tls and tls.cipher,
            tls and tls.verified,
            attempt.policy and attempt.policy.value,
            attempt.source,
        )
    return row


def list_attempts(conn: sqlite3.Connection, recipient_id: int) -> list[Delivery]:
    """Return the deliveries of one recipient, oldest first."""
    # index attempts_recipient, primary key of transcripts
    rows = conn.execute(
        f"SELECT id, {_ATTEMPT_COLUMNS}, (SELECT said FROM transcripts WHERE attempt_id = attempts.id)"  # noqa: S608 -- our own columns
        " FROM attempts WHERE recipient_id = ? ORDER BY id",
        (recipient_id,),
    )
    return [_delivery(row) for row in rows]


def list_events(
    conn: sqlite3.Connection,
    after: int = 0,
    limit: int = 100,
    *,
    tenant_id: str | None = None,
    message_id: int | None = None,
    recipient_id: int | None = None,
    kinds: Iterable[EventKind] = (),
) -> list[StoredEvent]:
    """Return up to ``limit`` events with a number above ``after``, oldest first.

    With ``recipient_id`` give its ``message_id`` too: that is what the index knows.
    """
    conditions, parameters = ["seq > ?"], [after]
    source = "events"
    filters: list[tuple[str, object]] = [
        ("message_id", message_id),
        ("tenant_id", text(tenant_id)),
        ("recipient_id", recipient_id),
    ]
    given = [(name, value) for name, value in filters if value is not None]
    if message_id is not None:
        source = "events INDEXED BY events_message"
    elif tenant_id is not None:
        source = "events INDEXED BY events_tenant"
    conditions += [f"{name} = ?" for name, _ in given]
    wanted = [kind.value for kind in kinds]
    if wanted:
        conditions.append(f"kind IN ({', '.join('?' * len(wanted))})")
    # index events_message, events_tenant, or primary key
    rows = conn.execute(
        f"SELECT seq, kind, at, tenant_id, message_id, recipient_id, data FROM {source}"  # noqa: S608 -- our own words
        f" WHERE {' AND '.join(conditions)} ORDER BY seq LIMIT ?",
        (*parameters, *(value for _, value in given), *wanted, limit),
    )
    return [StoredEvent(row[0], event_of(row[1:])) for row in rows]


def newest_events(
    conn: sqlite3.Connection,
    below: Mark | None = None,
    limit: int = 100,
    *,
    tenant_id: str | None = None,
    kinds: Collection[EventKind] = (),
) -> tuple[list[StoredEvent], Taken]:
    """Return one page of events, the newest first, and where the next one begins."""
    wanted = {kind.value for kind in kinds}
    source, condition = "events", "seq < ?"
    parameters: list[object] = [2**62 if below is None else below.id]
    if tenant_id is not None:
        source, condition = "events INDEXED BY events_tenant", "seq < ? AND tenant_id = ?"
        parameters.append(text(tenant_id))
    # index events_tenant, or primary key
    rows = conn.execute(
        f"SELECT at, seq, kind FROM {source} WHERE {condition} ORDER BY seq DESC",  # noqa: S608 -- our own words
        parameters,
    )
    taken = take(((row[0], row[1], not wanted or row[2] in wanted) for row in rows), limit)
    marks = ", ".join("?" * len(taken.ids))
    # primary key of events
    found = conn.execute(
        "SELECT seq, kind, at, tenant_id, message_id, recipient_id, data FROM events"  # noqa: S608 -- question marks only
        f" WHERE seq IN ({marks}) ORDER BY seq DESC",
        taken.ids,
    )
    return [StoredEvent(row[0], event_of(row[1:])) for row in found], taken


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some events in their order; the log was read up to ``next``, and its end is ``last``."""

    events: list[StoredEvent]
    next: int
    last: int


def read_on(
    conn: sqlite3.Connection,
    after: int,
    limit: int,
    *,
    tenant_id: str | None = None,
    kinds: Collection[EventKind] = (),
    most: int = SCANNED,
) -> Stretch:
    """Return up to ``limit`` events with a number above ``after``, having looked at no more than ``most``.

    So a rare kind is found in a long log by several short reads, each of which begins where the last one ended.
    """
    last = last_event(conn)
    wanted = {kind.value for kind in kinds}
    source, condition = "events", "seq > ?"
    parameters: tuple[object, ...] = (after,)
    if tenant_id is not None:
        source, condition = "events INDEXED BY events_tenant", "seq > ? AND tenant_id = ?"
        parameters = (after, text(tenant_id))
    # index events_tenant, or primary key
    rows = conn.execute(
        f"SELECT seq, kind, at, tenant_id, message_id, recipient_id, data FROM {source}"  # noqa: S608 -- our own words
        f" WHERE {condition} ORDER BY seq LIMIT ?",
        (*parameters, most),
    )
    found: list[StoredEvent] = []
    seq = after
    for row in rows:
        seq = row[0]
        if not wanted or row[1] in wanted:
            found.append(StoredEvent(seq, event_of(row[1:])))
            if len(found) == limit:
                return Stretch(found, seq, last)
    return Stretch(found, seq, last)


def last_event(conn: sqlite3.Connection) -> int:
    """Return the number of the newest event, 0 before the first."""
    # primary key of events
    row = conn.execute("SELECT max(seq) FROM events").fetchone()
    return int(row[0] or 0)


def list_recipients(conn: sqlite3.Connection, filters: Filters, page: int = 1, per_page: int = 30) -> Page:
    """Return one page for REST's list of emails, newest first (Ark contract §3, §8.1)."""
    recipients = find.page(conn, filters, page, per_page)
    seen = (max(page, 1) - 1) * per_page + len(recipients) if recipients else 0
    return Page(recipients, find.total(conn, filters, seen + (len(recipients) == per_page)))


def _delivery(row: Sequence[Any]) -> Delivery:
    version, cipher, verified, policy, source, said = row[16:]
    return Delivery(
        id=row[0],
        recipient_id=row[1],
        at=row[2],
        duration_s=row[3],
        status=Status(row[4]),
        stage=row[5],
        failure=row[6],
        code=row[7],
        enhanced=row[8],
        output=row[9],
        details=row[10],
        bounce_class=None if row[11] is None else BounceClass(row[11]),
        past_dot=bool(row[12]),
        host=row[13],
        address=row[14],
        port=row[15],
        tls=None if version is None else TlsInfo(version, cipher, bool(verified)),
        policy=None if policy is None else TlsPolicy(policy),
        source=source,
        transcript=None if said is None else parse(said),
    )
