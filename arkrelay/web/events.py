"""The event log, newest first, and as it grows (Server-Sent Events): what happened, in the words of the event log."""

import json
import re
import sqlite3
from functools import partial
from typing import Any, Final

from aiohttp import web

from arkrelay.base import eventstream
from arkrelay.model.event import EventKind
from arkrelay.model.message import Recipient
from arkrelay.relay.following import LogReader, follow, with_recipients
from arkrelay.store.history import StoredEvent, last_event, newest_events
from arkrelay.web.render import clock, iso, short, url
from arkrelay.web.visit import Page, Visit, place

PER_PAGE: Final = 100
TONES: Final = {
    EventKind.SENT: "good",
    EventKind.DOMAIN_VERIFIED: "good",
    EventKind.UNSUPPRESSED: "good",
    EventKind.DELAYED: "warm",
    EventKind.LIMIT_APPROACHING: "warm",
    EventKind.UNCERTAIN: "warm",
    EventKind.NOT_BELIEVED: "warm",
    EventKind.HELD: "held",
    EventKind.FAILED: "bad",
    EventKind.BOUNCED: "bad",
    EventKind.COMPLAINED: "bad",
    EventKind.DNS_ERROR: "bad",
    EventKind.LIMIT_EXCEEDED: "bad",
    EventKind.SUPPRESSED: "bad",
}
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
# what of an event's data says most, in this order
_TELLING: Final = ("details", "reason", "output", "error", "address", "domain", "url", "by", "subject")


async def show(visit: Visit) -> Page:
    """Return one page of events."""
    kind = visit.asked("kind")
    kinds = (EventKind(kind),) if kind in set(EventKind) else ()
    tenant_id, below = visit.wanted_tenant, visit.older

    def read(db: sqlite3.Connection) -> Any:
        last = last_event(db)
        found, taken = newest_events(db, below, PER_PAGE, tenant_id=tenant_id, kinds=kinds)
        return last, with_recipients(db, found), taken

    last, shown, taken = await visit.parts.store.read(read)
    return Page(
        "events.html",
        "Events",
        {
            "rows": [_row(*one) for one in shown],
            "older": place(taken.older),
            "looked_to": taken.older.at if taken.unfinished and taken.older else None,
            "first": below is None,
            "asked": {"kind": kind, "tenant": visit.asked("tenant")},
            "kinds": list(EventKind),
            "tenants": visit.tenants,
            "stream": url("events", "stream", after=last, kind=kind, tenant=visit.asked("tenant")),
        },
    )


async def stream(visit: Visit) -> web.StreamResponse:
    """Send events as they come, until the browser goes, its session ends, or the daemon stops."""
    response = eventstream.begin(**{"Cache-Control": "no-store"})
    return await eventstream.run(visit.request, response, partial(_send, visit))


async def _send(visit: Visit, response: web.StreamResponse) -> None:
    watch, store, tenant_id = visit.parts.watch, visit.parts.store, visit.wanted_tenant
    kind = visit.asked("kind")
    kinds = frozenset({EventKind(kind)} if kind in set(EventKind) else ())
    seen_last = visit.request.headers.get("Last-Event-ID", "") or visit.asked("after")
    after = int(seen_last) if _NUMBER.fullmatch(seen_last) else await store.read(last_event)
    reader = LogReader(store, after, tenant_id, kinds)
    await response.write(b": events\n\n")
    await follow(
        reader,
        watch,
        response.write,
        lambda shown: b"".join(_message(*one) for one in shown),
        goes_on=lambda: visit.request.transport is not None and visit.is_signed_in(),
        silence=b": nothing new\n\n",
    )


def _message(one: StoredEvent, recipient: Recipient | None) -> bytes:
    """Return the event as the stream has it; JSON has no line ends of its own, so no peer's text can end a field."""
    return f"id: {one.seq}\ndata: {json.dumps(_row(one, recipient))}\n\n".encode()


def _row(stored: StoredEvent, recipient: Recipient | None) -> dict[str, Any]:
    event = stored.event
    data = event.data
    return {
        "seq": stored.seq,
        "name": event.kind.value,
        "tone": TONES.get(event.kind, "cool"),
        "at": clock(event.at),
        "iso": iso(event.at),
        "to": recipient.address if recipient else str(data.get("address") or data.get("domain") or ""),
        "href": url("messages", recipient.token) if recipient else "",
        "tenant": event.tenant_id or "",
        "said": short(next((str(data[name]) for name in _TELLING if data.get(name)), ""), 300),
    }
