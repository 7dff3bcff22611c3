"""The tenant's suppression list (Ark contract §8.8), and beyond it: filters, streams, undo and import."""

import sqlite3
import time
from typing import Annotated, Literal

from arkrelay.api.ask import Ask
from arkrelay.api.model import ONE_LINE, Answer, Body, Line, Meta, Nothing, Page, Paged, Query
from arkrelay.api.query import Moment, moment
from arkrelay.api.refusal import ApiError
from arkrelay.api.settings import require_changer
from arkrelay.api.shapes import Classification, iso
from arkrelay.model.address import AddressError, kept_address, kept_domain, parse_mailbox
from arkrelay.model.attempt import REST_CLASS, BounceClass
from arkrelay.model.event import Event, EventKind
from arkrelay.model.suppression import Cause
from arkrelay.model.suppression import Suppression as Entry
from arkrelay.relay.suppress import suppress, unsuppress
from arkrelay.store import suppressions
from arkrelay.store.history import insert_events
from arkrelay.store.suppressions import Entries, NewEntry

REASON = "manual"
STEP = 500  # entries in one write of an undo
SHOWN = 100  # addresses that an undo names
Reason = Annotated[str, Meta(min_length=1, max_length=500, pattern=ONE_LINE)]
Stream = Annotated[str, Meta(max_length=200, pattern=ONE_LINE)]


class NewSuppression(Body):
    """An address that shall get no more mail of this tenant, or with ``stream`` none with that tag."""

    address: Line
    reason: Reason | None = None
    stream: Stream = ""


class Suppression(Answer):
    """One entry; from ``automatic`` on beyond the contract.

    ``cause`` says who or what made it, ``classification`` which sort of failure.
    """

    id: str
    address: str
    reason: str | None
    created_at: str
    automatic: bool
    stream: str | None
    cause: Cause
    classification: Classification | None


class SuppressionState(Answer):
    """Whether an address is on the list; with ``stream`` only for mail with that tag.

    An address may have an entry for each of several streams: the first one is told, and all are ``entries``.
    """

    address: str
    suppressed: bool
    reason: str | None
    created_at: str | None
    stream: str | None
    entries: list[Suppression]


class Message(Answer):
    """What was done, in a sentence."""

    message: str


class Filtered(Paged):
    """Which entries; ``domain`` is their addresses'.

    With ``sort=address`` they come by address and stream, and a page begins behind ``afterAddress`` and
    ``afterStream``, the last ones of the page before: so nothing is missed while others join and leave the list.
    """

    reason: str | None = None
    cause: Cause | None = None
    classification: Classification | None = None
    stream: str | None = None
    since: Moment | None = None
    until: Moment | None = None
    domain: str | None = None
    sort: Literal["created", "address"] = "created"
    after_address: str = ""
    after_stream: str = ""


class OfStream(Query):
    """Of which stream; an empty one is that of all mail, and none means every entry of the address."""

    stream: str | None = None


class Undo(Body):
    """Which entries are removed; at least one of the first six. ``domain`` is their addresses'.

    Without ``cause`` only what failures have put there. Times are ISO 8601 or Unix seconds.
    """

    cause: Cause | None = None
    classification: Classification | None = None
    stream: Stream | None = None
    domain: Line | None = None
    since: Line | None = None
    until: Line | None = None
    dry_run: bool = False


class Undone(Answer):
    """How many entries were removed, or would be, and the first hundred of their addresses."""

    removed: int
    addresses: list[str]
    dry_run: bool


class ImportRow(Body):
    """One address of another service's list, or of an export of ours, which says also the cause and the class."""

    address: Line
    reason: Reason | None = None
    stream: Stream = ""
    created_at: Line | None = None
    cause: Cause = Cause.IMPORT
    classification: Classification | None = None


class Import(Body):
    """Up to a thousand addresses."""

    entries: Annotated[list[ImportRow], Meta(min_length=1, max_length=1000)]


class Imported(Answer):
    """How many were new, and how many were on the list already and stay as they are."""

    added: int
    present: int


async def list_all(ask: Ask[Filtered, Nothing]) -> Page[Suppression]:
    """One page, newest first, or in the order of addresses."""
    tenant_id, query = ask.tenant.id, ask.query
    entries = Entries(
        reason=query.reason,
        cause=query.cause,
        bounce_classes=_classes(query.classification),
        stream=query.stream,
        domain=query.domain and kept_domain(query.domain),
        since=moment(query.since, "since"),
        until=moment(query.until, "until"),
    )

    def read(db: sqlite3.Connection) -> tuple[list[Entry], int]:
        if query.sort == "address":
            after, limit = kept_address(query.after_address), query.per_page
            return suppressions.list_by_address(db, tenant_id, entries, after, query.after_stream, limit)
        return suppressions.list_page(db, tenant_id, entries, query.page, query.per_page)

    found, total = await ask.parts.store.read(read)
    return Page([_shape(one) for one in found], query.page, query.per_page, total)


async def create(ask: Ask[Nothing, NewSuppression]) -> Suppression:
    """Put an address on the list; one that is there gets the new reason."""
    require_changer(ask)
    tenant_id, address, reason = ask.tenant.id, _address(ask.body.address), ask.body.reason or REASON
    return _shape(await suppress(ask.parts.store, ask.parts.queue, tenant_id, address, reason, ask.body.stream))


async def retrieve(ask: Ask[Nothing, Nothing]) -> SuppressionState:
    """Whether an address is on the list: 200 either way."""
    tenant_id, address = ask.tenant.id, _address(ask.path("email"))
    found = await ask.parts.store.read(lambda db: suppressions.of_address(db, tenant_id, address))
    first = found[0] if found else None
    return SuppressionState(
        address=address,
        suppressed=first is not None,
        reason=first.reason if first else None,
        created_at=iso(first.created_at) if first else None,
        stream=(first.stream or None) if first else None,
        entries=[_shape(one) for one in found],
    )


async def delete(ask: Ask[OfStream, Nothing]) -> Message:
    """Take an address off the list, for one stream or every one; 404 when it was not on it."""
    require_changer(ask)
    tenant_id, address, stream = ask.tenant.id, _address(ask.path("email")), ask.query.stream
    if not await unsuppress(ask.parts.store, tenant_id, address, stream):
        of_stream = f" for mail with the tag {stream}" if stream else ""
        raise ApiError(404, "not_found", f"{address} is not on the suppression list{of_stream}.")
    return Message(message=f"{address} may be mailed again.")


async def undo(ask: Ask[Nothing, Undo]) -> Undone:
    """Remove the entries of a cause, a class, a stream or a time: those that failures have made, or of the cause."""
    require_changer(ask)
    tenant_id, body = ask.tenant.id, ask.body
    since, until = moment(body.since, "since"), moment(body.until, "until")
    if all(one is None for one in (body.cause, body.classification, body.stream, body.domain, since, until)):
        which = "Say which: cause, classification, stream, domain, since or until."
        raise ApiError(400, "validation_error", which, field="cause")
    entries = Entries(
        cause=body.cause or Cause.FAILURE,  # what people did, recipients among them, goes only when it is named
        bounce_classes=_classes(body.classification),
        stream=body.stream,
        domain=body.domain and kept_domain(body.domain),
        since=since,
        until=until,
    )
    if body.dry_run:
        found, total = await ask.parts.store.read(lambda db: suppressions.list_page(db, tenant_id, entries, 1, SHOWN))
        return Undone(removed=total, addresses=[one.address for one in found], dry_run=True)
    at, removed = time.time(), 0
    shown: list[str] = []

    def job(db: sqlite3.Connection) -> list[str]:
        gone = suppressions.undo(db, tenant_id, entries, STEP)
        data = [{"address": address, "by": "undo"} for address in gone]
        insert_events(db, [Event(EventKind.UNSUPPRESSED, at, tenant_id, data=one) for one in data])
        return gone

    while some := await ask.parts.store.write(job):
        removed += len(some)
        shown += some[: SHOWN - len(shown)]
    return Undone(removed=removed, addresses=shown, dry_run=False)


async def import_many(ask: Ask[Nothing, Import]) -> Imported:
    """Put the addresses of another service's list on this one, all of them or none."""
    require_changer(ask)
    tenant_id, now = ask.tenant.id, time.time()
    rows: list[NewEntry] = []
    for index, one in enumerate(ask.body.entries):
        try:
            address = str(parse_mailbox(one.address, utf8=True))
        except AddressError as error:
            raise ApiError(
                400, "invalid_email_format", f"entries[{index}].address: {error}.", field="entries"
            ) from None
        at = moment(one.created_at, f"entries[{index}].createdAt")
        created_at = now if at is None else min(at, now)
        blamed = next(iter(_classes(one.classification)), None)
        rows.append(NewEntry(address, one.reason or "imported", one.stream, created_at, one.cause, blamed))

    def job(db: sqlite3.Connection) -> int:
        added = suppressions.insert_many(db, tenant_id, rows)
        if added:
            data = {"addresses": added, "by": "import"}
            insert_events(db, [Event(EventKind.SUPPRESSED, now, tenant_id, data=data)])
        return added

    added = await ask.parts.store.write(job)
    ask.parts.queue.note_suppressed(tenant_id, [one.address for one in rows])
    return Imported(added=added, present=len(rows) - added)


def _classes(name: str | None) -> tuple[BounceClass, ...]:
    return tuple(one for one, (said, _) in REST_CLASS.items() if said == name)


def _address(value: str) -> str:
    try:
        return str(parse_mailbox(value, utf8=True))
    except AddressError as error:
        raise ApiError(400, "invalid_email_format", f"address: {error}.", field="address") from None


def _shape(one: Entry) -> Suppression:
    name = None if one.bounce_class is None else REST_CLASS[one.bounce_class][0]
    return Suppression(
        id=str(one.id),
        address=one.address,
        reason=one.reason,
        created_at=iso(one.created_at),
        automatic=one.automatic,
        stream=one.stream or None,
        cause=one.cause,
        classification=name,  # type: ignore[arg-type]  # REST_CLASS has these words only, a test compares them
    )
