"""What is written of a message that was accepted, and the job that writes it."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace

from arkrelay.model.address import address_key
from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import Accepted, HoldReason, Message, Recipient, Status
from arkrelay.model.receipt import Receipt
from arkrelay.model.record import record
from arkrelay.policy.admit import Hold
from arkrelay.policy.describe import suppressed as describe_suppressed
from arkrelay.relay.firsttime import hold_new
from arkrelay.store import bodies, receipts
from arkrelay.store.accept import Insertion, insert_messages
from arkrelay.store.engagement import LinkSet
from arkrelay.store.suppressions import ByStream, among, reason_for


@record(frozen=True, slots=True)
class Draft:
    """A message with its recipients as they will be inserted, and its content; None: that is on the disk already."""

    message: Message
    recipients: tuple[Recipient, ...]
    content: bytes | None
    events: tuple[Event, ...] = ()
    held: Hold | None = None
    counted: int = 0  # recipients that count towards the tenant's limits
    new_daily: int = 0  # the tenant's budget of first-time recipients; 0: none
    links: LinkSet | None = None
    sandbox: bool = False

    @property
    def large(self) -> bool:
        """Whether its content is, or will be, a file of its own."""
        return self.content is None or bodies.is_large(len(self.content))


@record(frozen=True, slots=True)
class Write:
    """What one submitter waits for: all of it is on disk, or nothing."""

    insertions: tuple[Insertion, ...]
    receipt: Receipt | None


def insert(db: sqlite3.Connection, writes: Sequence[Write], *, epoch: int) -> Sequence[Sequence[Sequence[Recipient]]]:
    """A job of the writer: insert messages; recipients that their tenant may not mail are held from the start."""
    keys: dict[str, list[str]] = {}
    for write in writes:
        for one in write.insertions:
            pending = [address_key(to.address) for to in one.recipients if to.status is Status.PENDING]
            keys.setdefault(one.message.tenant_id, []).extend(pending)
    suppressed = {tenant_id: among(db, tenant_id, some) for tenant_id, some in keys.items() if some}
    ready = [
        [_ready(db, one, suppressed.get(one.message.tenant_id, {})) for one in write.insertions] for write in writes
    ]
    insert_messages(db, [one for some in ready for one in some], epoch)
    for write in writes:
        if write.receipt is not None:
            receipts.insert(db, write.receipt)
    return [[one.recipients for one in some] for some in ready]


def _ready(db: sqlite3.Connection, insertion: Insertion, suppressed: Mapping[str, ByStream]) -> Insertion:
    recipients, told = insertion.recipients, insertion.events
    if suppressed:
        recipients = [_suppress(one, suppressed) for one in recipients]
    if insertion.new_daily:
        recipients, more = hold_new(db, insertion.message, recipients, insertion.new_daily)
        told = [*told, *more]
    events = [*told, *(_event(one) for one in recipients if one.status is not Status.HARDFAIL)]
    return Insertion(
        insertion.message, recipients, insertion.content, events, leased=insertion.leased, links=insertion.links
    )


def _suppress(recipient: Recipient, found: Mapping[str, ByStream]) -> Recipient:
    message = recipient.message
    reason = reason_for(found, address_key(recipient.address), message.tag, message.stream)
    if reason is None or recipient.status is not Status.PENDING:
        return recipient
    text = describe_suppressed(recipient.address, reason)
    return replace(recipient, status=Status.HELD, due_at=None, reason=text, hold_reason=HoldReason.SUPPRESSED)


def _event(recipient: Recipient) -> Event:
    message = recipient.message
    at = message.accepted_at
    if recipient.status is Status.HELD:
        data = {"status": "Held", "details": recipient.reason, "output": "", "hold_reason": recipient.hold_reason}
        return Event(EventKind.HELD, at, message.tenant_id, message.id, recipient.id, data)
    return Event(EventKind.ACCEPTED, at, message.tenant_id, message.id, recipient.id)


def accepted_of(drafts: Sequence[Draft]) -> Accepted:
    """Return what the submitter of a message is told, which may have become one for each recipient."""
    first = drafts[0]
    tokens = tuple(one.token for draft in drafts for one in draft.recipients)
    held = first.held.hold_reason if first.held else None
    return Accepted(first.message.id, tokens, held, first.message.message_id, first.sandbox)
