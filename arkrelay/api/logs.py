"""The log of requests to the API (Ark contract §8.2): what was asked with which key, and how it was answered.

A tenant's key sees what was asked with its tenant's keys, an organisation key everything. What is never in it:
keys, attachments, raw messages, requests without a key.
"""

import math
import sqlite3
from typing import Annotated, Any, Literal

import msgspec

from arkrelay.api.ask import Ask
from arkrelay.api.model import Answer, Meta, Nothing, Page, Paged
from arkrelay.api.query import Moment, moment
from arkrelay.api.refusal import ApiError
from arkrelay.api.shapes import Iso, iso
from arkrelay.model.request import LoggedRequest
from arkrelay.store import requests
from arkrelay.store.requests import RequestFilters

_decode = msgspec.json.Decoder().decode


class LogQuery(Paged):
    """What requests are searched by; ``requestId`` is a part of one, and both dates are included."""

    credential_id: str | None = None
    endpoint: str | None = None
    request_id: Annotated[str, Meta(max_length=100)] | None = None
    status: Literal["success", "error"] | None = None
    status_code: Annotated[int, Meta(ge=100, le=599)] | None = None
    start_date: Moment | None = None
    end_date: Moment | None = None


class LogCredential(Answer):
    """The key; ``keyPrefix`` is its first 8 characters."""

    id: str
    key_prefix: str


class LogContext(Answer):
    """Where the request came from; ``ipAddress`` is null on a unix socket."""

    ip_address: str | None
    user_agent: str | None
    idempotency_key: str | None
    query_params: dict[str, str] | None


class LogRate(Answer):
    """What the key had left; null without a limit. ``limited``: refused for it."""

    limit: int | None
    remaining: int | None
    reset: int | None
    limited: bool


class LogEmail(Answer):
    """The email that a request was about."""

    id: str | None
    recipient_count: int | None


class LogError(Answer):
    """Why it was refused."""

    code: str | None
    message: str | None


class LogSdk(Answer):
    """The client library, as it calls itself."""

    name: str
    version: str | None


class LogEntry(Answer):
    """One request, without its bodies; ``email``, ``error`` and ``sdk`` are null where there is nothing to say."""

    request_id: str
    timestamp: Iso
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    endpoint: str
    status_code: int
    duration_ms: int
    credential: LogCredential
    context: LogContext
    rate_limit: LogRate
    email: LogEmail | None
    error: LogError | None
    sdk: LogSdk | None


class LogBody(Answer):
    """An object for a JSON object, else a string; null for none, and when it cannot be decrypted any more."""

    body: dict[str, Any] | str | None
    body_size: int | None


class LogEntryDetail(LogEntry):
    """One request with its bodies, without secrets and attachments, cut at 25 KB."""

    request: LogBody
    response: LogBody


async def list_all(ask: Ask[LogQuery, Nothing]) -> Page[LogEntry]:
    """One page of requests, newest first."""
    query, log = ask.query, ask.parts.requests
    start, end = moment(query.start_date, "startDate"), moment(query.end_date, "endDate")
    filters = RequestFilters(
        tenant_id=ask.caller.tenant_id,
        credential_id=query.credential_id,
        endpoint=query.endpoint,
        request_id=query.request_id,
        failed=None if query.status is None else query.status == "error",
        status=query.status_code,
        from_ms=None if start is None else _milliseconds(start),
        to_ms=None if end is None else _milliseconds(end),
    )
    await log.flushed()
    found = await ask.parts.store.read(lambda db: requests.find(db, filters, query.page, query.per_page))
    return Page([LogEntry(**_shape(one)) for one in found.requests], query.page, query.per_page, found.total)


async def retrieve(ask: Ask[Nothing, Nothing]) -> LogEntryDetail:
    """One request with its bodies."""
    request_id, tenant_id, log = ask.path("requestId"), ask.caller.tenant_id, ask.parts.requests

    def read(db: sqlite3.Connection) -> tuple[LoggedRequest, tuple[str | None, str | None]] | None:
        stored = requests.get(db, request_id, tenant_id)
        return None if stored is None else (stored.request, log.seal.open(stored))

    await log.flushed()
    found = await ask.parts.store.read(read)
    if found is None:
        raise ApiError(404, "not_found", f"There is no request {request_id} in the log.")
    one, (body, answer) = found
    return LogEntryDetail(
        **_shape(one),
        request=LogBody(body=_decoded(body), body_size=one.request_bytes),
        response=LogBody(body=_decoded(answer), body_size=one.response_bytes),
    )


def _shape(one: LoggedRequest) -> dict[str, Any]:
    """Return the fields of ``LogEntry``."""
    refused = one.error_code is not None or one.error is not None
    about = one.email_id is not None or one.recipients is not None
    return {
        "request_id": one.request_id,
        "timestamp": iso(one.at_ms / 1000),
        "method": one.method,
        "path": one.path,
        "endpoint": one.endpoint,
        "status_code": one.status,
        "duration_ms": one.duration_ms,
        "credential": LogCredential(id=one.credential_id, key_prefix=one.key_prefix),
        "context": LogContext(
            ip_address=one.address or None,
            user_agent=one.user_agent,
            idempotency_key=one.idempotency_key,
            query_params=one.query,
        ),
        "rate_limit": LogRate(
            limit=one.rate_limit, remaining=one.rate_remaining, reset=one.rate_reset_at, limited=one.limited
        ),
        "email": LogEmail(id=one.email_id, recipient_count=one.recipients) if about else None,
        "error": LogError(code=one.error_code, message=one.error) if refused else None,
        "sdk": None if one.sdk is None else LogSdk(name=one.sdk, version=one.sdk_version),
    }


def _decoded(body: str | None) -> dict[str, Any] | str | None:
    """Return a JSON object as one; the official models take nothing else but text (Ark contract §8.2)."""
    if body is None or not body.startswith("{"):
        return body
    try:
        found = _decode(body)
    except msgspec.DecodeError:
        return body
    return found if type(found) is dict else body


def _milliseconds(at: float) -> int:
    """Return the millisecond of a time, by which requests are found: the one that begins a search is in it."""
    return math.floor(round(at * 1000, 3))  # a float of seconds has noise behind its microseconds
