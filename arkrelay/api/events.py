"""The event log: pages of it, and as a stream of Server-Sent Events (WHATWG HTML, "Server-sent events").

Every event has a number that only grows. A reader who keeps the last one and asks for what came after it sees each
event once, whatever restarts in between.
"""

import asyncio
import re
import sqlite3
import time
from functools import partial
from typing import Annotated, Any

from aiohttp import web

from arkrelay.api.ask import Ask
from arkrelay.api.auth import is_still_admitted
from arkrelay.api.model import Answer, Meta, Nothing, Query
from arkrelay.api.operation import encode
from arkrelay.api.query import Kinds, words
from arkrelay.api.refusal import ApiError
from arkrelay.api.shapes import Iso, iso
from arkrelay.base import eventstream
from arkrelay.base.eventstream import MEDIA
from arkrelay.model.event import EventKind
from arkrelay.model.message import Recipient
from arkrelay.store.find import by_ids
from arkrelay.store.history import StoredEvent, Stretch, read_on

MAX_WAIT_S = 30
KEEP_ALIVE_S = 15.0  # proxies take a silent connection for a dead one
AT_ONCE = 100  # events in one write of a stream: all that a follower ever has in memory, beside its socket's buffer
LAST = "Last-Event-ID"
_NUMBER = re.compile(r"[0-9]{1,18}")

Number = Annotated[int, Meta(ge=0, le=2**62)]


class EventQuery(Query):
    """Which events: those with a number above ``after``, from the oldest.

    ``wait`` is how many seconds an answer may wait for the first one. ``follow`` asks for the stream, as the header
    ``Accept: text/event-stream`` does.
    """

    after: Number = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    wait: Annotated[int, Meta(ge=0, le=MAX_WAIT_S)] = 0
    type: Kinds | None = None
    tenant_id: str | None = None
    follow: bool = False


class LoggedEvent(Answer):
    """One event; ``emailId`` and ``to`` are null when it is about no email, or about one that retention removed."""

    seq: int
    event: EventKind
    at: float
    at_iso: Iso
    tenant_id: str | None
    message_id: int | None
    email_id: str | None
    to: str | None
    data: dict[str, Any]


class EventLog(Answer):
    """Some events; ask again with ``next`` as ``after``. ``last`` is the number of the newest one of all."""

    events: list[LoggedEvent]
    next: int
    last: int


async def list_all(ask: Ask[EventQuery, Nothing]) -> EventLog | web.StreamResponse:
    """Events after a number, oldest first; or a stream of them that does not end.

    With ``type`` an answer may be empty before the end of the log: a long one is looked through in pieces. A stream
    comes with ``follow``, or for ``Accept: text/event-stream``; ``id`` is the number of the event, and the header
    ``Last-Event-ID`` resumes behind it.
    """
    query = ask.query
    reader = _Reader(ask, query.after)
    if query.follow or MEDIA in ask.request.headers.get("Accept", ""):
        reader.after = _last_seen(ask.request, query.after)
        return await _stream(ask, reader)
    watch, ends = ask.parts.events, time.monotonic() + query.wait
    while True:
        seen = watch.last
        events = await reader.read(query.limit)
        left = ends - time.monotonic()
        if events or left <= 0 or watch.closed or ask.request.transport is None:
            return EventLog(events=events, next=reader.after, last=reader.last)
        if reader.at_end:
            await watch.wait(seen, left)


class _Reader:
    """A place in the log, and what is looked for; ``at_end``: nothing was left when it was read last."""

    def __init__(self, ask: Ask[EventQuery, Nothing], after: int) -> None:
        self._store = ask.parts.store
        self._tenant_id = ask.own_tenant(ask.query.tenant_id)
        self._kinds = frozenset(words(ask.query.type, EventKind, "type"))
        self.after, self.last = after, 0
        self.at_end = False

    async def read(self, limit: int) -> list[LoggedEvent]:
        """Return the next events, and step behind them."""
        after = self.after

        def look(db: sqlite3.Connection) -> tuple[Stretch, dict[int, Recipient]]:
            found = read_on(db, after, limit, tenant_id=self._tenant_id, kinds=self._kinds)
            ids = {one.event.recipient_id for one in found.events if one.event.recipient_id is not None}
            return found, {one.id: one for one in by_ids(db, sorted(ids))}

        found, recipients = await self._store.read(look)
        self.at_end = found.next in {after, found.last}
        self.after, self.last = found.next, found.last
        return [_event(one, recipients.get(one.event.recipient_id or 0)) for one in found.events]


async def _stream(ask: Ask[EventQuery, Nothing], reader: _Reader) -> web.StreamResponse:
    """Send events as they come, until the client goes, its key is no longer good, or the daemon stops.

    A client that reads slowly is waited for, with nothing but ``AT_ONCE`` events in hand, and cut off by the
    deadlines of its connection.
    """
    request = ask.request
    response = eventstream.begin()
    if request.method == "HEAD":
        return response
    return await eventstream.run(request, response, partial(_send, ask, reader), request_id=ask.request_id)


async def _send(ask: Ask[EventQuery, Nothing], reader: _Reader, response: web.StreamResponse) -> None:
    watch, snapshot = ask.parts.events, ask.snapshot
    spoke_at = time.monotonic()
    await response.write(b": events\n")  # so that a client knows at once that it is connected
    while not watch.closed and ask.request.transport is not None:
        if ask.snapshot is not snapshot:
            snapshot = ask.snapshot
            if not is_still_admitted(ask.request):
                return
        seen = watch.last
        events = await reader.read(AT_ONCE)
        if events:
            await response.write(b"".join(map(render, events)))
            spoke_at = time.monotonic()
        elif reader.at_end:
            silent_s = time.monotonic() - spoke_at
            if silent_s >= KEEP_ALIVE_S:
                await response.write(b": nothing new\n")
                spoke_at, silent_s = time.monotonic(), 0.0
            await watch.wait(seen, KEEP_ALIVE_S - silent_s)
        else:
            await asyncio.sleep(0)


def render(event: LoggedEvent) -> bytes:
    """Return the event as the stream has it; JSON has no line ends of its own, so no peer's text can end a field."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.event.encode(), encode(event))


def _last_seen(request: web.Request, after: int) -> int:
    """Return where a stream goes on: behind the event that the client has seen last, when it says so."""
    given = request.headers.get(LAST, "").strip()
    if not given:
        return after
    if not _NUMBER.fullmatch(given):
        raise ApiError(400, "validation_error", f"{LAST} must be the number of an event.", field=LAST)
    return int(given)


def _event(stored: StoredEvent, recipient: Recipient | None) -> LoggedEvent:
    event = stored.event
    return LoggedEvent(
        seq=stored.seq,
        event=event.kind,
        at=event.at,
        at_iso=iso(event.at),
        tenant_id=event.tenant_id,
        message_id=event.message_id,
        email_id=recipient.token if recipient else None,
        to=recipient.address if recipient else None,
        data=dict(event.data),
    )
