"""Messages on their way in: many of them in a handful of statements.

Each step of SQLite gives the GIL away and has to win it back from a busy event loop, which costs the writer more than
the step itself. What several submitters wait for therefore goes in together, table by table.
"""

import sqlite3
from collections.abc import Sequence

from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import Message, Recipient, Status
from arkrelay.model.record import record
from arkrelay.store import granted
from arkrelay.store.engagement import LinkSet, insert_links
from arkrelay.store.history import attempt_row, insert_attempts, insert_events
from arkrelay.store.rows import insert_rows, message_row, recipient_row
from arkrelay.store.usage import HOUR_S, TOLD, count, count_change, start_of, told_of

_INSERT_MESSAGE = "INSERT INTO messages VALUES (" + ", ".join("?" * 23) + ")"  # noqa: S608 -- question marks only
_INSERT_RECIPIENT = "INSERT INTO recipients VALUES (" + ", ".join("?" * 23) + ")"  # noqa: S608 -- question marks only
_INSERT_BODY = "INSERT INTO bodies VALUES (?, ?)"


_ONCE_AN_HOUR = frozenset({EventKind.LIMIT_APPROACHING, EventKind.LIMIT_EXCEEDED})


@record(frozen=True, slots=True)
class Insertion:
    """A message as it will be kept, with its recipients and what is to be said about it.

    ``content`` None: it was saved by ``Store.save_large``. With ``leased``, recipients that are queued belong to this
    process at once.
    """

    message: Message
    recipients: Sequence[Recipient]
    content: bytes | None
    events: Sequence[Event]
    leased: bool = False
    new_daily: int = 0  # the tenant's budget of first-time recipients; 0: none
    links: LinkSet | None = None


def insert_messages(db: sqlite3.Connection, insertions: Sequence[Insertion], epoch: int) -> None:
    """Take the messages into the database, all or none, in this order.

    A recipient that is held from the start gets an entry among its deliveries.
    """
    insert_rows(db, _INSERT_MESSAGE, [message_row(one.message, large=one.content is None) for one in insertions])
    insert_rows(db, _INSERT_BODY, [(one.message.id, one.content) for one in insertions if one.content is not None])
    recipients = [
        recipient_row(recipient, epoch if one.leased and recipient.due_at is not None else 0)
        for one in insertions
        for recipient in one.recipients
    ]
    insert_rows(db, _INSERT_RECIPIENT, recipients)
    for one in insertions:
        _count(db, one)
    held = [
        attempt_row(recipient.id, Status.HELD, None, one.message.accepted_at, recipient.reason, None)
        for one in insertions
        for recipient in one.recipients
        if recipient.status is Status.HELD
    ]
    insert_attempts(db, held)
    insert_links(db, [one.links for one in insertions if one.links is not None])
    events = [event for one in insertions for event in one.events]
    insert_events(db, events)
    for event in events:
        if event.kind in _ONCE_AN_HOUR:
            count(db, (TOLD, event.tenant_id or "", told_of(event), start_of(event.at, HOUR_S)), 1)


def _count(db: sqlite3.Connection, insertion: Insertion) -> None:
    for recipient in insertion.recipients:
        count_change(db, recipient, None, recipient.status.value)
    granted.insert(db, insertion.recipients, insertion.message.accepted_at)
