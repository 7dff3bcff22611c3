"""Emails: the list, one with its expansions, its deliveries, and retry (Ark contract §8.1)."""

import sqlite3
import time
from collections.abc import Sequence

from aiohttp import web

from arkrelay.api.auth import caller_of
from arkrelay.api.errors import ApiError
from arkrelay.api.parts import parts_of
from arkrelay.api.preview import content_of
from arkrelay.api.query import address, moment, page_of, statuses_of, tenant_filter
from arkrelay.api.shapes import classification, email_summary, iso, paginated, single
from arkrelay.model.errors import NotFound
from arkrelay.model.message import QUEUED, Recipient
from arkrelay.relay.operate import Verb
from arkrelay.store import bodies
from arkrelay.store import queue as rows
from arkrelay.store.find import Filters
from arkrelay.store.history import Delivery, list_attempts, list_recipients

EXPANSIONS = frozenset({"full", "content", "headers", "deliveries", "activity", "attachments", "raw"})


async def list_emails(request: web.Request) -> web.Response:
    """One page, newest first, with the contract's filters."""
    page, per_page = page_of(request)
    filters = Filters(
        tenant_id=tenant_filter(request),
        statuses=statuses_of(request),
        sender=address(request, "from"),
        address=address(request, "to"),
        tag=request.query.get("tag") or None,
        after=moment(request, "after"),
        before=moment(request, "before"),
    )
    found = await parts_of(request).store.read(lambda db: list_recipients(db, filters, page, per_page))
    return paginated(request, [email_summary(one) for one in found.recipients], page, per_page, found.total)


async def retrieve(request: web.Request) -> web.Response:
    """One email, with what ``expand`` asks for."""
    recipient = await _recipient(request)
    wanted = {item.strip() for item in request.query.get("expand", "").split(",") if item.strip()}
    if not wanted <= EXPANSIONS:
        known = ", ".join(sorted(EXPANSIONS))
        raise ApiError(400, "validation_error", f"expand knows only: {known}.", field="expand")
    if "full" in wanted:
        wanted = set(EXPANSIONS)
    data = email_summary(recipient) | {
        "scope": "outgoing",
        "messageId": recipient.message.message_id or None,
        "spam": None,
        "spamScore": None,
        "metadata": dict(recipient.message.metadata) or None,
        "reason": recipient.reason,
        "dueAt": recipient.due_at,
        "attempts": recipient.attempts,
    }
    if "deliveries" in wanted:
        data["deliveries"] = [delivery(one) for one in await _attempts(request, recipient)]
    if "activity" in wanted:
        data["activity"] = {"opens": [], "clicks": []}
    if wanted & {"content", "headers", "attachments", "raw"}:
        content = await parts_of(request).store.read(lambda db: _content(db, recipient))
        data |= await content_of(content, wanted)
    return single(request, data)


async def deliveries(request: web.Request) -> web.Response:
    """The attempts of one email, oldest first, and what comes next while it is queued."""
    recipient = await _recipient(request)
    parts = parts_of(request)
    kept, busy = await parts.store.read(
        lambda db: (bodies.has_content(db, recipient.message.id), rows.in_hand(db, recipient.id))
    )
    attempts = await _attempts(request, recipient)
    policy = parts.live.snapshot.settings.delivery
    state = None
    if recipient.status in QUEUED:
        waits = recipient.due_at is not None and recipient.due_at > time.time() and not busy
        state = {
            "attempt": recipient.attempts,
            "maxAttempts": policy.max_attempts,
            "attemptsRemaining": max(0, policy.max_attempts - recipient.attempts),
            "manual": False,
            "processing": busy,
            "nextRetryAt": recipient.due_at if waits else None,
            "nextRetryAtIso": iso(recipient.due_at) if waits else None,
        }
    data = {
        "id": recipient.token,
        "tenantId": recipient.message.tenant_id,
        "status": str(recipient.status),
        "canRetryManually": kept,
        "deliveries": [delivery(one) for one in attempts],
        "retryState": state,
    }
    return single(request, data)


async def retry(request: web.Request) -> web.Response:
    """Put one email back into the queue, past holds."""
    token = request.match_info["id"]
    recipient = await parts_of(request).operator.one(Verb.RETRY, token, caller_of(request).tenant_id)
    data = {"id": token, "tenantId": recipient.message.tenant_id, "message": "Put back into the queue."}
    return single(request, data)


def delivery(one: Delivery) -> dict[str, object]:
    """Return Delivery (Ark contract §8.1)."""
    return {
        "id": str(one.id),
        "status": str(one.status),
        "timestamp": one.at,
        "timestampIso": iso(one.at),
        "code": one.code,
        "details": one.details,
        "output": one.output,
        "sentWithSsl": one.tls is not None,
        "remoteHost": one.host,
        **classification(one.bounce_class),
        "smtpEnhancedCode": one.enhanced,
        "durationMs": round(one.duration_s * 1000),
        "tls": None if one.tls is None else {"version": one.tls.version, "cipher": one.tls.cipher},
    }


async def _recipient(request: web.Request) -> Recipient:
    token = request.match_info["id"]
    recipient = await parts_of(request).store.read(lambda db: rows.load_recipient(db, token))
    if caller_of(request).tenant_id not in {None, recipient.message.tenant_id}:
        raise NotFound(f"there is no message {token}")
    return recipient


async def _attempts(request: web.Request, recipient: Recipient) -> Sequence[Delivery]:
    return await parts_of(request).store.read(lambda db: list_attempts(db, recipient.id))


def _content(db: sqlite3.Connection, recipient: Recipient) -> bytes | None:
    """Return the content, or None when its retention has ended."""
    try:
        return bodies.load(db, recipient.message.id)
    except NotFound:
        return None
