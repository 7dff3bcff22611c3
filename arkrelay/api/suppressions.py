"""The tenant's suppression list (Ark contract §8.8)."""

import sqlite3
import time

from aiohttp import web

from arkrelay.api.auth import require_tenant
from arkrelay.api.body import body_of, field_of, line
from arkrelay.api.errors import ApiError
from arkrelay.api.parts import parts_of
from arkrelay.api.query import page_of
from arkrelay.api.shapes import iso, paginated, single
from arkrelay.model.address import AddressError, parse_mailbox
from arkrelay.model.event import Event, EventKind
from arkrelay.store import lists
from arkrelay.store.history import insert_events

REASON = "manual"
REASON_CHARS = 500


async def list_all(request: web.Request) -> web.Response:
    """One page, newest first."""
    tenant_id = require_tenant(request, request.match_info["tenant"])
    page, per_page = page_of(request)
    found, total = await parts_of(request).store.read(
        lambda db: lists.list_suppressions(db, tenant_id, page, per_page)
    )
    return paginated(request, [_shape(one) for one in found], page, per_page, total)


async def create(request: web.Request) -> web.Response:
    """Put an address on the list; one that is there gets the new reason."""
    tenant_id = require_tenant(request, request.match_info["tenant"])
    body = await body_of(request)
    address = _address(field_of(body, "address", line, "an address"))
    short = f"one line of at most {REASON_CHARS} characters"
    reason = field_of(body, "reason", lambda value: line(value) and len(value) <= REASON_CHARS, short, REASON)
    at = time.time()
    event = Event(EventKind.SUPPRESSED, at, tenant_id, data={"address": address, "reason": reason, "by": "hand"})

    def job(db: sqlite3.Connection) -> lists.Suppression:
        insert_events(db, [event])
        return lists.add_suppression(db, tenant_id, address, reason, at)

    return single(request, _shape(await parts_of(request).store.write(job)), 201)


async def retrieve(request: web.Request) -> web.Response:
    """Whether an address is on the list: 200 either way."""
    tenant_id = require_tenant(request, request.match_info["tenant"])
    address = _address(request.match_info["email"])
    found = await parts_of(request).store.read(lambda db: lists.get_suppression(db, tenant_id, address))
    return single(
        request,
        {
            "address": address,
            "suppressed": found is not None,
            "reason": found.reason if found else None,
            "createdAt": iso(found.created_at) if found else None,
        },
    )


async def delete(request: web.Request) -> web.Response:
    """Take an address off the list; 404 when it was not on it."""
    tenant_id = require_tenant(request, request.match_info["tenant"])
    address = _address(request.match_info["email"])
    event = Event(EventKind.UNSUPPRESSED, time.time(), tenant_id, data={"address": address, "by": "hand"})

    def job(db: sqlite3.Connection) -> bool:
        removed = lists.remove_suppression(db, tenant_id, address)
        if removed:
            insert_events(db, [event])
        return removed

    if not await parts_of(request).store.write(job):
        raise ApiError(404, "not_found", f"{address} is not on the suppression list.")
    return single(request, {"message": f"{address} may be mailed again."})


def _address(value: str) -> str:
    try:
        return str(parse_mailbox(value, utf8=True))
    except AddressError as error:
        raise ApiError(400, "invalid_email_format", f"address: {error}.", field="address") from None


def _shape(one: lists.Suppression) -> dict[str, object]:
    return {
        "id": str(one.id),
        "address": one.address,
        "reason": one.reason,
        "createdAt": iso(one.created_at),
        "automatic": one.automatic,
    }
