"""One message to one recipient: what became of it, what it holds, and what a person may do to it."""

import asyncio
import sqlite3
import time
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from arkrelay.model.errors import NotFound
from arkrelay.model.message import Recipient
from arkrelay.relay.operate import APPLIES, Verb
from arkrelay.relay.reading import Attached, attachments_of, headers_of, leaves_of, text_of
from arkrelay.relay.why import about, with_reports
from arkrelay.store import bodies, history, reports
from arkrelay.store import queue as rows
from arkrelay.store.find import Filters
from arkrelay.store.find import page as find_page
from arkrelay.web.visit import Page, Visit

EVENTS: Final = 200  # of one message
SIBLINGS: Final = 20  # other recipients of it that are named
TEXT_CHARS: Final = 50_000  # that are shown; the whole of it is in the raw message
READ_BYTES: Final = 2_000_000  # a longer message is not taken apart for a page
DONE = {
    Verb.RETRY: "Put back into the queue, and tried now.",
    Verb.HOLD: "Held: it is not sent until somebody releases it.",
    Verb.RELEASE: "Released: it is sent now.",
    Verb.DELETE: "Given up: it is not sent.",
}
# what a stranger's HTML may do: look like itself. No script, no form, no picture, nothing from elsewhere
FRAME_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none';"
    " frame-ancestors 'self'; sandbox"
)


@dataclass(frozen=True, slots=True)
class _Content:
    """What a page shows of a message's content; ``size`` None: it is no longer kept."""

    size: int | None
    headers: list[tuple[str, str]]
    text: str | None = None
    has_html: bool = False
    attachments: tuple[Attached, ...] = ()
    too_long: bool = False


async def show(visit: Visit) -> Page:
    """Return the page of one message."""
    store, now = visit.parts.store, time.time()
    recipient = await _find(visit)
    message = recipient.message

    def read(db: sqlite3.Connection) -> tuple[object, ...]:
        return (
            history.list_attempts(db, recipient.id),
            [
                one
                for one in history.list_events(db, limit=EVENTS, message_id=message.id)
                if one.event.recipient_id in {None, recipient.id}
            ],
            reports.list_reports(db, recipient.id),
            find_page(db, Filters(message_id=message.id), 1, SIBLINGS + 1),
            rows.in_hand(db, recipient.id),
        )

    attempts, events, came_back, siblings, busy = await store.read(read)
    why = await with_reports(about(recipient, visit.parts.queue, now), recipient, store)
    content = await _content(visit, recipient)
    verbs = [verb for verb in Verb if recipient.status in APPLIES[verb] and (verb is not Verb.RETRY or content.size)]
    return Page(
        "message.html",
        message.subject or "Message without a subject",
        {
            "recipient": recipient,
            "message": message,
            "why": why.sentence,
            "busy": busy,
            "attempts": attempts,
            "events": events,
            "reports": came_back,
            "siblings": [one for one in siblings if one.id != recipient.id][:SIBLINGS],  # type: ignore[attr-defined]
            "content": content,
            "verbs": [] if busy else verbs,
            "text_chars": TEXT_CHARS,
        },
    )


async def operate(visit: Visit) -> web.StreamResponse:
    """Do a verb to the message."""
    recipient = await _find(visit)
    try:
        verb = Verb(visit.path["verb"])
    except ValueError:
        raise NotFound("There is no such verb.") from None
    if verb in {Verb.RETRY, Verb.RELEASE}:
        visit.require_sender(test=recipient.message.test)
    visit.require_changer(test=recipient.message.test)
    await visit.parts.operator.one(verb, recipient.token, visit.caller.tenant_id)
    visit.say(DONE[verb])
    return visit.go("messages", recipient.token)


async def raw(visit: Visit) -> web.StreamResponse:
    """Return the message as it is kept, to be saved and not shown."""
    recipient = await _find(visit)
    content = await visit.parts.store.read(lambda db: bodies.load(db, recipient.message.id))
    name = f'attachment; filename="{recipient.token}.eml"'
    return web.Response(
        body=content, content_type="message/rfc822", headers={"Content-Disposition": name, "X-Frame-Options": "DENY"}
    )


async def html(visit: Visit) -> web.StreamResponse:
    """Return the message's HTML as it is, under a policy by which it can do nothing; for a frame."""
    recipient = await _find(visit)
    content = await visit.parts.store.read(lambda db: bodies.load(db, recipient.message.id))
    async with visit.parts.composing:
        found = await asyncio.to_thread(lambda: text_of(leaves_of(content), "text/html"))
    if found is None:
        raise NotFound("This message has no HTML.")
    return web.Response(
        body=found.encode("utf-8", "replace"),
        content_type="text/html",
        charset="utf-8",
        headers={
            "Content-Security-Policy": FRAME_POLICY,
            "X-Frame-Options": "SAMEORIGIN",
            "X-DNS-Prefetch-Control": "off",
        },
    )


async def _find(visit: Visit) -> Recipient:
    """Return the recipient that the path names; another tenant's is unknown."""
    token = visit.path["id"]
    recipient = await visit.parts.store.read(lambda db: rows.load_recipient(db, token))
    if visit.caller.tenant_id not in {None, recipient.message.tenant_id}:
        raise NotFound(f"there is no message {token}")
    return recipient


async def _content(visit: Visit, recipient: Recipient) -> _Content:
    try:
        content = await visit.parts.store.read(lambda db: bodies.load(db, recipient.message.id))
    except NotFound:
        return _Content(None, [])
    async with visit.parts.composing:
        return await asyncio.to_thread(_read, content)


def _read(content: bytes) -> _Content:
    headers = headers_of(content)
    if len(content) > READ_BYTES:
        return _Content(len(content), headers, too_long=True)
    parts = leaves_of(content)
    return _Content(
        size=len(content),
        headers=headers,
        text=text_of(parts, "text/plain"),
        has_html=text_of(parts, "text/html") is not None,
        attachments=tuple(attachments_of(parts)),
    )
