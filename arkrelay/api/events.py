"""The event log: pages of it, and as a stream of Server-Sent Events (WHATWG HTML, "Server-sent events").

Every event has a number that only grows. A reader who keeps the last one and asks for what came after it sees each
event once, whatever restarts in between.
"""

import re
import time
from collections.abc import Iterable
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
from arkrelay.relay.following import LogReader, Shown, follow
from arkrelay.store.history import StoredEvent

MAX_WAIT_S = 30
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
    kinds = frozenset(words(query.type, EventKind, "type"))
    reader = LogReader(ask.parts.store, query.after, ask.own_tenant(query.tenant_id), kinds)
    if query.follow or MEDIA in ask.request.headers.get("Accept", ""):
        reader.after = _last_seen(ask.request, query.after)
        return await _stream(ask, reader)
    watch, ends = ask.parts.events, time.monotonic() + query.wait
    while True:
        seen = watch.last
        events = [_event(*one) for one in await reader.read(query.limit)]
        left = ends - time.monotonic()
        if events or left <= 0 or watch.closed or ask.request.transport is None:
            return EventLog(events=events, next=reader.after, last=reader.last)
        if reader.at_end:
            await watch.wait(seen, left)


async def _stream(ask: Ask[EventQuery, Nothing], reader: LogReader) -> web.StreamResponse:
    """Send events as they come, until the client goes, its key is no longer good, or the daemon stops.

    A client that reads slowly is waited for, and cut off by the deadlines of its connection.
    """
    request = ask.request
    response = eventstream.begin()
    if request.method == "HEAD":
        return response
    return await eventstream.run(request, response, partial(_send, ask, reader), request_id=ask.request_id)


async def _send(ask: Ask[EventQuery, Nothing], reader: LogReader, response: web.StreamResponse) -> None:
    snapshot = ask.snapshot

    def goes_on() -> bool:
        nonlocal snapshot
        if ask.request.transport is None:
            return False
        if ask.snapshot is snapshot:
            return True
        snapshot = ask.snapshot  # a reload may have taken the key away
        return is_still_admitted(ask.request)

    await response.write(b": events\n")  # so that a client knows at once that it is connected
    await follow(reader, ask.parts.events, response.write, _render_all, goes_on=goes_on, silence=b": nothing new\n")


def _render_all(shown: Iterable[Shown]) -> bytes:
    return b"".join(render(_event(*one)) for one in shown)


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
