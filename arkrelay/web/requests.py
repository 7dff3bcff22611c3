"""The log of requests to the API: what was asked with which key, and how it was answered."""

import json
import sqlite3

from arkrelay.model.errors import NotFound
from arkrelay.model.request import LoggedRequest
from arkrelay.store import requests
from arkrelay.store.requests import PUBLIC_ID_CHARS, RequestFilters
from arkrelay.web.visit import Page, Visit, place

PER_PAGE = 50


async def show_all(visit: Visit) -> Page:
    """Return one page of requests."""
    asked = {name: visit.asked(name) for name in ("result", "endpoint", "id", "tenant")}
    filters = RequestFilters(
        tenant_id=visit.wanted_tenant,
        endpoint=asked["endpoint"] or None,
        request_id=asked["id"] if len(asked["id"]) == PUBLIC_ID_CHARS else None,
        failed={"failed": True}.get(asked["result"]),
    )
    below = visit.older
    await visit.parts.requests_flushed()
    found, taken = await visit.parts.store.read(lambda db: requests.browse(db, filters, below, PER_PAGE))
    wrong_id = asked["id"] and len(asked["id"]) != PUBLIC_ID_CHARS
    return Page(
        "requests.html",
        "Requests",
        {
            "asked": asked,
            "found": [] if wrong_id else found,
            "older": None if wrong_id else place(taken.older),
            "looked_to": taken.older.at if taken.unfinished and taken.older else None,
            "first": below is None,
            "tenants": visit.tenants,
            "narrowed": any(asked.values()),
        },
    )


async def show(visit: Visit) -> Page:
    """Return one request with its bodies, from which secrets were taken before they were kept."""
    request_id, tenant_id = visit.path["id"], visit.caller.tenant_id

    def read(db: sqlite3.Connection) -> tuple[LoggedRequest, tuple[str | None, str | None]] | None:
        stored = requests.get(db, request_id, tenant_id)
        return None if stored is None else (stored.request, visit.parts.open_request(stored))

    await visit.parts.requests_flushed()
    found = await visit.parts.store.read(read)
    if found is None:
        raise NotFound("There is no such request in the log.")
    one, (body, answer) = found
    return Page("request.html", one.request_id, {"one": one, "body": _pretty(body), "answer": _pretty(answer)})


def _pretty(body: str | None) -> str | None:
    """Return JSON with its lines broken; anything else as it is."""
    if body is None:
        return None
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return body
