"""The tenant's suppression list (Ark contract §8.8)."""

import sqlite3
import time
from typing import Annotated

from arkrelay.api.ask import Ask
from arkrelay.api.model import ONE_LINE, Answer, Body, Line, Meta, Nothing, Page, Paged
from arkrelay.api.refusal import ApiError
from arkrelay.api.shapes import iso
from arkrelay.model.address import AddressError, parse_mailbox
from arkrelay.model.event import Event, EventKind
from arkrelay.store import lists
from arkrelay.store.history import insert_events

REASON = "manual"
Reason = Annotated[str, Meta(min_length=1, max_length=500, pattern=ONE_LINE)]


class NewSuppression(Body):
    """An address that shall get no more mail of this tenant."""

    address: Line
    reason: Reason | None = None


class Suppression(Answer):
    """One entry; ``automatic``: the relay put it there (beyond the contract)."""

    id: str
    address: str
    reason: str | None
    created_at: str
    automatic: bool


class SuppressionState(Answer):
    """Whether an address is on the list."""

    address: str
    suppressed: bool
    reason: str | None
    created_at: str | None


class Message(Answer):
    """What was done, in a sentence."""

    message: str


async def list_all(ask: Ask[Paged, Nothing]) -> Page[Suppression]:
    """One page, newest first."""
    tenant_id, page, per_page = ask.tenant.id, ask.query.page, ask.query.per_page
    found, total = await ask.parts.store.read(lambda db: lists.list_suppressions(db, tenant_id, page, per_page))
    return Page([_shape(one) for one in found], page, per_page, total)


async def create(ask: Ask[Nothing, NewSuppression]) -> Suppression:
    """Put an address on the list; one that is there gets the new reason."""
    tenant_id, address, reason = ask.tenant.id, _address(ask.body.address), ask.body.reason or REASON
    at = time.time()
    event = Event(EventKind.SUPPRESSED, at, tenant_id, data={"address": address, "reason": reason, "by": "hand"})

    def job(db: sqlite3.Connection) -> lists.Suppression:
        insert_events(db, [event])
        return lists.add_suppression(db, tenant_id, address, reason, at)

    return _shape(await ask.parts.store.write(job))


async def retrieve(ask: Ask[Nothing, Nothing]) -> SuppressionState:
    """Whether an address is on the list: 200 either way."""
    tenant_id, address = ask.tenant.id, _address(ask.path("email"))
    found = await ask.parts.store.read(lambda db: lists.get_suppression(db, tenant_id, address))
    if found is None:
        return SuppressionState(address=address, suppressed=False, reason=None, created_at=None)
    return SuppressionState(address=address, suppressed=True, reason=found.reason, created_at=iso(found.created_at))


async def delete(ask: Ask[Nothing, Nothing]) -> Message:
    """Take an address off the list; 404 when it was not on it."""
    tenant_id, address = ask.tenant.id, _address(ask.path("email"))
    event = Event(EventKind.UNSUPPRESSED, time.time(), tenant_id, data={"address": address, "by": "hand"})

    def job(db: sqlite3.Connection) -> bool:
        removed = lists.remove_suppression(db, tenant_id, address)
        if removed:
            insert_events(db, [event])
        return removed

    if not await ask.parts.store.write(job):
        raise ApiError(404, "not_found", f"{address} is not on the suppression list.")
    return Message(message=f"{address} may be mailed again.")


def _address(value: str) -> str:
    try:
        return str(parse_mailbox(value, utf8=True))
    except AddressError as error:
        raise ApiError(400, "invalid_email_format", f"address: {error}.", field="address") from None


def _shape(one: lists.Suppression) -> Suppression:
    return Suppression(
        id=str(one.id),
        address=one.address,
        reason=one.reason,
        created_at=iso(one.created_at),
        automatic=one.automatic,
    )
