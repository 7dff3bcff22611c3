"""What recipients do with a message: its links by their place, and what was opened and clicked.

A submission's links are one row for all its recipients, whose numbers follow one another: a row of its own for each
link would make the write of a newsletter fifty times as long. The row is found by the recipient's number. What was
done is in the event log; ``activity`` only counts, so that a recipient who opens a message for a month fills no log.
"""

import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from arkrelay.model.errors import NotFound
from arkrelay.model.event import Event, EventKind
from arkrelay.store.history import insert_events
from arkrelay.store.queue import load_recipient
from arkrelay.store.rows import insert_rows

EVENTS_KEPT = 100  # of each kind for a recipient; what comes after is counted only
_INSERT_LINKS = "INSERT INTO links (first_id, last_id, accepted_at, urls) VALUES (?, ?, ?, ?)"
_COUNT = (
    "INSERT INTO activity VALUES (?, ?, ?) ON CONFLICT DO UPDATE"  # primary key of activity
    " SET opens = opens + excluded.opens, clicks = clicks + excluded.clicks RETURNING opens, clicks"
)


@dataclass(frozen=True, slots=True)
class LinkSet:
    """The links of a submission whose recipients are ``first_id`` to ``last_id``; ``packed`` by ``pack``."""

    first_id: int
    last_id: int
    accepted_at: float
    packed: bytes


def pack(urls: Sequence[str]) -> bytes:
    """Return the links as they are kept; no URL holds a line end. Some 0.1 ms for 10 KB."""
    return zlib.compress("\n".join(urls).encode(), 1)


def insert_links(db: sqlite3.Connection, sets: Sequence[LinkSet]) -> None:
    """Keep the links of submissions."""
    if sets:
        insert_rows(db, _INSERT_LINKS, [(one.first_id, one.last_id, one.accepted_at, one.packed) for one in sets])


def load_links(conn: sqlite3.Connection, recipient_id: int) -> tuple[str, ...]:
    """Return the links of the message that this recipient got, each at its place; empty when they are not kept."""
    # primary key of links
    row = conn.execute(
        "SELECT last_id, urls FROM links WHERE first_id <= ? ORDER BY first_id DESC LIMIT 1", (recipient_id,)
    ).fetchone()
    if row is None or row[0] < recipient_id:
        return ()
    return tuple(zlib.decompress(row[1]).decode().split("\n"))


def prune_links(db: sqlite3.Connection, before: float, limit: int) -> bool:
    """Forget links of messages from before then, the oldest first; return whether there may be more."""
    # primary key of links; times run along with the numbers
    gone = db.execute(
        "DELETE FROM links WHERE accepted_at < ? AND first_id IN"
        " (SELECT first_id FROM links ORDER BY first_id LIMIT ?)",
        (before, limit),
    ).rowcount
    return bool(gone == limit)


def forget_activity(db: sqlite3.Connection, recipient_id: int) -> None:
    """Forget the counts of a recipient that is deleted."""
    db.execute("DELETE FROM activity WHERE recipient_id = ?", (recipient_id,))  # primary key


def counts(conn: sqlite3.Connection, recipient_id: int) -> tuple[int, int]:
    """Return how often the message was opened, and its links followed."""
    # primary key of activity
    row = conn.execute("SELECT opens, clicks FROM activity WHERE recipient_id = ?", (recipient_id,)).fetchone()
    return (0, 0) if row is None else (int(row[0]), int(row[1]))


@dataclass(frozen=True, slots=True)
class Seen:
    """An opening or a click, of the recipient with this number or public id, before it is known to be one of ours."""

    kind: EventKind
    at: float
    tenant_id: str
    recipient: int | str
    data: dict[str, str]


def record(db: sqlite3.Connection, seen: Sequence[Seen]) -> None:
    """Count what was seen and is ours, and append it to the event log: a job of the writer."""
    events: list[Event] = []
    for one in seen:
        try:
            recipient = load_recipient(db, one.recipient)
        except NotFound:
            continue
        message = recipient.message
        if message.tenant_id != one.tenant_id:
            continue
        opened = one.kind is EventKind.LOADED
        opens, clicks = db.execute(_COUNT, (recipient.id, int(opened), int(not opened))).fetchone()
        if (opens if opened else clicks) <= EVENTS_KEPT:
            events.append(Event(one.kind, one.at, message.tenant_id, message.id, recipient.id, one.data))
    insert_events(db, events)
