"""Between rows and the types of ``model``: the columns in one place, and what they turn into."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from arkrelay.model.address import address_key
from arkrelay.model.attempt import BounceClass
from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import Door, HoldReason, Message, Recipient, Status
from arkrelay.store.connection import text

MESSAGE_COLUMNS = (
    "id, tenant_id, door, credential, accepted_at, message_id, author, author_domain, return_path, subject, tag,"
    " metadata, size_bytes, eight_bit, smtputf8, ret, envid, expires_at, test, tell_at, bulk,"
    " stream"
)
_MESSAGE_FIELDS = 22
_RECIPIENT_FIELDS = (
    "id, token, address, domain, destination, status, attempts, due_at, reason, hold_reason, bounce_class, notify,"
    " orcpt, uncertain, delay_at"
)
# the message `m` first, then the recipient `r`
BOTH = ", ".join(
    [f"m.{name}" for name in MESSAGE_COLUMNS.split(", ")] + [f"r.{name}" for name in _RECIPIENT_FIELDS.split(", ")]
)
ROWS_AT_ONCE = 16  # in one INSERT; SQLite allowed 999 parameters at its strictest
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


def insert_rows(db: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> int | None:
    """Insert rows, many with one step: each step of SQLite gives the GIL away and has to win it back.

    Returns the number (rowid) of the last row; those of one step are consecutive.
    """
    last = None
    for start in range(0, len(rows), ROWS_AT_ONCE):
        some = rows[start : start + ROWS_AT_ONCE]
        last = db.execute(_of_many(statement, len(some)), [value for row in some for value in row]).lastrowid
    return last


@cache
def _of_many(statement: str, n: int) -> str:
    """Return an INSERT of one row as one of ``n``."""
    head, _, tail = statement.partition(" VALUES ")
    marks, close, tail = tail.partition(")")
    return f"{head} VALUES {', '.join([marks + close] * n)}{tail}"


def message_row(message: Message, *, large: bool) -> tuple[object, ...]:
    """Return the message as a row of ``messages``."""
    return (
        message.id,
        message.tenant_id,
        message.door.value,
        message.credential,
        message.accepted_at,
        text(message.message_id),
        text(message.author),
        text(message.author_domain),
        text(message.return_path),
        text(message.subject),
        text(message.tag),
        json_text(message.metadata) if message.metadata else None,
        message.size_bytes,
        message.eight_bit,
        message.smtputf8,
        text(message.ret),
        text(message.envid),
        message.expires_at,
        large,
        message.test,
        message.tell_at,
        message.bulk,
        text(message.stream),
    )


def recipient_row(recipient: Recipient, lease: int) -> tuple[object, ...]:
    """Return the recipient as a row of ``recipients``; ``lease`` is the epoch that has it in hand, or 0."""
    message = recipient.message
    address = text(recipient.address) or ""
    return (
        recipient.id,
        message.id,
        message.tenant_id,
        message.accepted_at,
        recipient.token,
        address,
        address_key(address),
        text(recipient.domain),
        text(recipient.destination),
        recipient.status.value,
        recipient.attempts,
        recipient.due_at,
        lease,
        message.accepted_at,
        text(recipient.reason),
        recipient.hold_reason and recipient.hold_reason.value,
        recipient.bounce_class and recipient.bounce_class.value,
        text(recipient.notify),
        text(recipient.orcpt),
        recipient.uncertain,
        message.expires_at,
        recipient.delay_at,
        message.bulk,
    )


def recipient_of(row: Sequence[Any], messages: dict[int, Message]) -> Recipient:
    """Return the recipient of a row of ``BOTH``; recipients of one message share it through ``messages``."""
    message = messages.get(row[0])
    if message is None:
        message = messages[row[0]] = message_of(row)
    (
        *_,
        id_,
        token,
        address,
        domain,
        destination,
        status,
        attempts,
        due_at,
        reason,
        hold_reason,
        bounce_class,
        notify,
        orcpt,
        uncertain,
        delay_at,
    ) = row
    return Recipient(
        id=id_,
        message=message,
        token=token,
        address=address,
        domain=domain,
        destination=destination,
        status=Status(status),
        attempts=attempts,
        due_at=due_at,
        reason=reason,
        hold_reason=None if hold_reason is None else HoldReason(hold_reason),
        bounce_class=None if bounce_class is None else BounceClass(bounce_class),
        notify=notify,
        orcpt=orcpt,
        uncertain=uncertain,
        delay_at=delay_at,
    )


def recipients_of(rows: Iterable[Sequence[Any]]) -> list[Recipient]:
    """Return the recipients of rows of ``BOTH``."""
    messages: dict[int, Message] = {}
    return [recipient_of(row, messages) for row in rows]


def message_of(row: Sequence[Any]) -> Message:
    """Return the message of a row that begins with ``MESSAGE_COLUMNS``."""
    (
        id_,
        tenant_id,
        door,
        credential,
        accepted_at,
        message_id,
        author,
        author_domain,
        return_path,
        subject,
        tag,
        metadata,
        size_bytes,
        eight_bit,
        smtputf8,
        ret,
        envid,
        expires_at,
        test,
        tell_at,
        bulk,
        stream,
    ) = row[:_MESSAGE_FIELDS]
    return Message(
        id=id_,
        tenant_id=tenant_id,
        door=Door(door),
        credential=credential,
        accepted_at=accepted_at,
        message_id=message_id,
        author=author,
        author_domain=author_domain,
        return_path=return_path,
        subject=subject,
        tag=tag,
        metadata={} if metadata is None else json.loads(metadata),
        size_bytes=size_bytes,
        eight_bit=bool(eight_bit),
        smtputf8=bool(smtputf8),
        ret=ret,
        envid=envid,
        expires_at=expires_at,
        test=bool(test),
        tell_at=tell_at,
        bulk=bool(bulk),
        stream=stream,
    )


def event_row(event: Event) -> tuple[object, ...]:
    """Return the event as a row of ``events`` without its sequence number."""
    return (
        event.kind.value,
        event.at,
        event.tenant_id,
        event.message_id,
        event.recipient_id,
        json_text(event.data) if event.data else "{}",
    )


def event_of(row: Sequence[Any]) -> Event:
    """Return the event of a row (kind, at, tenant_id, message_id, recipient_id, data)."""
    kind, at, tenant_id, message_id, recipient_id, data = row
    return Event(EventKind(kind), at, tenant_id, message_id, recipient_id, json.loads(data))


def json_text(value: object) -> str:
    """Return ``value`` as JSON that SQLite can store, whatever a peer put into its strings."""
    return text(_encode(value)) or ""
