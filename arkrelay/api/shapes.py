"""JSON out: envelopes, pages, times, and the shape of each noun (Ark contract §2, §3, §7, §8)."""

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime

from aiohttp import web

from arkrelay.api.parts import REQUEST_ID
from arkrelay.model.attempt import REST_CLASS, BounceClass
from arkrelay.model.message import Recipient


def iso(at: float | None) -> str | None:
    """Return Unix seconds as ISO 8601 in UTC with ``Z`` and milliseconds."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def single(request: web.Request, data: object, status: int = 200) -> web.Response:
    """Return the envelope of one object or action."""
    meta = {"requestId": request[REQUEST_ID]}
    return web.json_response({"success": True, "data": data, "meta": meta}, status=status, dumps=dump)


def paginated(request: web.Request, rows: Sequence[object], page: int, per_page: int, total: int) -> web.Response:
    """Return the envelope of a page; a page past the end is empty, not an error."""
    body = {
        "data": rows,
        "page": page,
        "perPage": per_page,
        "total": total,
        "totalPages": math.ceil(total / per_page),
        "meta": {"requestId": request[REQUEST_ID]},
    }
    return web.json_response(body, dumps=dump)


def dump(value: object) -> str:
    """Return compact JSON; text stays readable, and half a surrogate pair (from an odd charset) is a "?"."""
    found = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return found if found.isascii() else found.encode("utf-8", "replace").decode()


def email_summary(recipient: Recipient) -> dict[str, object]:
    """Return EmailSummary (Ark contract §8.1)."""
    message = recipient.message
    return {
        "id": recipient.token,
        "tenantId": message.tenant_id,
        "from": message.author,
        "to": recipient.address,
        "subject": message.subject,
        "status": str(recipient.status),
        "tag": message.tag,
        "timestamp": message.accepted_at,
        "timestampIso": iso(message.accepted_at),
    }


def queue_row(recipient: Recipient) -> dict[str, object]:
    """Return a recipient that waits, with what it waits for."""
    return email_summary(recipient) | {
        "attempts": recipient.attempts,
        "destination": recipient.destination,
        "dueAt": recipient.due_at,
        "dueAtIso": iso(recipient.due_at),
        "acceptedAt": recipient.message.accepted_at,
        "holdReason": str(recipient.hold_reason) if recipient.hold_reason else None,
        "reason": recipient.reason,
    }


def classification(bounce_class: str | None) -> dict[str, object]:
    """Return the two classification fields, null on success."""
    if not bounce_class:
        return {"classification": None, "classificationCode": None}
    name, code = REST_CLASS[BounceClass(bounce_class)]
    return {"classification": name, "classificationCode": code}
