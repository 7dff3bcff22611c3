"""What is kept of a request to the API: everything that helps its owner, and nothing that is secret."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote

import msgspec

from arkrelay.base import redact
from arkrelay.model.request import LoggedRequest
from arkrelay.relay.rates import Rate
from arkrelay.store.connection import text

PATH_CHARS: Final = 2000
KEY_CHARS: Final = 255  # of an Idempotency-Key (Ark contract §15)
SDK_CHARS: Final = 50
SENDS: Final = "emails.send"  # what the endpoints begin with whose answer names an email

_SDK = re.compile(r"(?:Async)?Ark/(\w+) (\S+)")  # User-Agent of the official clients (Ark contract §6)
_decode = msgspec.json.Decoder().decode


class Entry(NamedTuple):
    """A request and its answer as the event loop saw them."""

    request_id: str
    began_at: float  # Unix seconds
    duration_s: float
    method: str
    target: str  # path and query as they came
    headers: Mapping[str, str]
    address: str
    endpoint: str
    status: int
    tenant_id: str  # of its key; empty: an organisation's
    credential_id: str
    key_prefix: str
    rate: Rate | None
    email_id: str | None
    recipients: int | None
    body: bytes | None  # None: it was not read, or not to its end
    body_bytes: int | None
    parsed: bool  # the body is JSON that was found to be sound
    answer: bytes | None  # None: a stream
    answer_bytes: int | None


class Described(NamedTuple):
    """An entry as it may be kept."""

    request: LoggedRequest
    body: str | None
    answer: str | None


def describe(entry: Entry) -> Described:
    """Return what is kept of a request; nothing that it must not hold is in it (see ``redact``)."""
    headers = entry.headers
    own_key = headers.get("Authorization", "").partition(" ")[2].strip()
    once = headers.get("Idempotency-Key")
    path, _, query = entry.target.partition("?")
    answered = _answered(entry)
    error, data = answered.get("error"), answered.get("data")
    error = error if type(error) is dict else {}
    email_id = entry.email_id
    if email_id is None and type(data) is dict and type(data.get("id")) is str:  # the answer of before, once more
        email_id = data["id"] or None
    agent, sdk, sdk_version = _client(
        headers.get("User-Agent"),
        headers.get("X-Stainless-Lang"),
        headers.get("X-Stainless-Package-Version"),
        own_key,
    )
    rate = entry.rate
    request = LoggedRequest(
        entry.request_id,
        int(entry.began_at * 1000),
        entry.tenant_id,
        entry.credential_id,
        entry.endpoint,
        entry.status,
        "GET" if entry.method == "HEAD" else entry.method,
        _path(path, own_key),
        max(0, round(entry.duration_s * 1000)),
        entry.key_prefix,
        entry.address,
        agent,
        None if once is None else text(redact.short(once, own_key, KEY_CHARS)),
        _parameters(query, own_key),
        None if rate is None else rate.limit,
        None if rate is None else rate.remaining,
        None if rate is None else rate.reset_at,
        rate is not None and rate.wait_s is not None,
        email_id,
        entry.recipients,
        _word(error.get("code"), own_key),
        _word(error.get("message"), own_key),
        sdk,
        sdk_version,
        entry.body_bytes,
        entry.answer_bytes,
    )
    body = redact.body_text(entry.body, own_key, looked_at=entry.parsed) if entry.body else None
    answer = redact.body_text(entry.answer, own_key, looked_at=True) if entry.answer else None
    return Described(request, body, answer)


@lru_cache(maxsize=256)
def _client(
    agent: str | None, lang: str | None, version: str | None, own_key: str
) -> tuple[str | None, str | None, str | None]:
    """Return what the client calls itself, and the name and version of its library; the same few ask all day."""
    agent = None if agent is None else text(redact.short(agent, own_key))
    if lang is None and agent is not None and (named := _SDK.match(agent)) is not None:
        lang, version = named[1].lower(), named[2]
    if lang is None:
        return agent, None, None
    kept = None if version is None else text(redact.short(version, own_key, SDK_CHARS))
    return agent, text(redact.short(lang, own_key, SDK_CHARS)), kept


def _answered(entry: Entry) -> dict[str, Any]:
    """Return the answer where something is wanted of it: of a refusal, and of a send whose id we do not know."""
    wanted = entry.status >= 400 or (entry.email_id is None and entry.endpoint.startswith(SENDS))
    if not wanted or not entry.answer:
        return {}
    try:
        found = _decode(entry.answer)
    except msgspec.DecodeError:
        return {}
    return found if type(found) is dict else {}


def _path(path: str, own_key: str) -> str:
    """Return the path as it was asked for, and decoded where a key hides behind percent signs."""
    kept = redact.short(path, own_key, PATH_CHARS)
    if "%" in path and redact.clean(plain := unquote(path), own_key) != plain:
        kept = redact.short(plain, own_key, PATH_CHARS)
    return text(kept) or ""


def _parameters(query: str, own_key: str) -> dict[str, str] | None:
    if not query:
        return None
    pairs = parse_qsl(query, keep_blank_values=True)
    kept = redact.parameters(dict(pairs), own_key)
    return {text(name) or "": text(value) or "" for name, value in kept.items()} or None


def _word(value: object, own_key: str) -> str | None:
    return text(redact.short(value, own_key)) if type(value) is str else None
