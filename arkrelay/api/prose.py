"""What the description of the API says in words: groups, path parameters, headers, error codes."""

import inspect
import re
from typing import Any, Final

from arkrelay.api.idempotency import FORM
from arkrelay.api.words import NO_CONTROL, ONE_LINE

Schema = dict[str, Any]

INTRODUCTION: Final = """\
Apps hand mail over, ask what became of it, and manage tenants, sender domains, keys, suppressions and webhooks. \
The API speaks the language of Ark's: its official clients work with only their base URL changed.

An answer to one thing is `{"success": true, "data": …, "meta": {"requestId": …}}`. A list of pages is \
`{"data": […], "page", "perPage", "total", "totalPages", "meta"}`. A refusal is \
`{"success": false, "error": {"code", "message", "field"}, "meta"}`.

What the API does not know in a body or a query is ignored, and an empty value of a query is an absent one. Times \
are ISO 8601 in UTC, or Unix seconds where they are numbers. New keys may appear in answers at any time.

Every request carries a key: `Authorization: Bearer KEY`. An organisation key reaches every tenant; a tenant's key \
reaches its own, and to it the others do not exist. Over its rate a key gets a `429` that says when to come back.

A `200`, `201` or `207` means that what was asked is on disk. A POST with an `Idempotency-Key` has one effect, \
however often it is repeated within 24 hours."""

TAGS: Final = {
    "emails": ("Emails", "Send mail, and see what became of it."),
    "logs": ("Request log", "What was asked of this API, and what it answered."),
    "usage": ("Usage", "What all tenants sent, counted by recipient."),
    "limits": ("Limits", "What the key that asks has left."),
    "tenants": ("Tenants", "Who sends: each with its own domains, credentials, suppressions and webhooks."),
    "tenants.credentials": ("Tenant credentials", "SMTP passwords and API keys of a tenant."),
    "tenants.domains": ("Tenant domains", "What a tenant may send from, and the DNS records it takes."),
    "tenants.suppressions": ("Tenant suppressions", "Addresses that a tenant does not mail."),
    "tenants.webhooks": ("Tenant webhooks", "Where a tenant's events are posted."),
    "tenants.tracking": ("Tenant tracking", "Domains for the links and pixels that show clicks and opens."),
    "tenants.usage": ("Tenant usage", "What one tenant sent."),
    "platform.webhooks": ("Platform webhooks", "Where the events of all tenants are posted."),
    "lanes": (
        "Lanes",
        "What each site takes from each address of ours, why, orders to it; the addresses. Beyond Ark's API.",
    ),
    "queue": ("Queue", "What waits for delivery, why, and the verbs on it. Beyond Ark's API."),
    "events": ("Events", "Everything that happened, in order. Beyond Ark's API."),
    "control": ("Daemon", "The daemon itself: state, configuration, database. Beyond Ark's API."),
}
JOINED: Final = {
    "why": "queue",
    "explain": "queue",
    "status": "control",
    "doctor": "control",
    "control.db": "control",
}  # too small to stand alone

_ID: Final[Schema] = {"type": "string", "minLength": 1}
PATH: Final[dict[str, tuple[str, Schema]]] = {
    "emailId": ("The id that sending gave, or that a list shows: one recipient of one message.", _ID),
    "tenantId": ("The tenant; a tenant's key may name its own only.", _ID),
    "credentialId": ("The number of the credential.", {"type": "integer", "minimum": 0}),
    "domainId": ("The number of the domain, or its name.", _ID),
    "webhookId": ("The id of the webhook, or its uuid.", _ID),
    "deliveryId": ("The id of one attempt to post an event.", _ID),
    "trackingId": ("The id of the track domain.", _ID),
    "email": ("An e-mail address. A + stands for itself; a / must be %2F.", _ID),
    "lane": ("The name of a lane, as the list of lanes has it.", _ID),
    "requestId": ("`meta.requestId` of an answer.", _ID),
}

# what a value of a query means where its type does not say so; by operation where one name means two things
QUERY: Final = {
    "page": "Which page, from 1; one past the end is empty.",
    "perPage": "How many rows a page has.",
    "tenantId": "Of this tenant only; a tenant's key may name its own.",
    "from": "From this author only.",
    "to": "To this address only.",
    "tag": "With this tag only.",
    "domain": "To recipients in this domain only.",
    "doctor.retrieve.domain": "About this sender domain only.",
    "fresh": "Look now.",
    "address": "To this address only.",
    "holdReason": "Held for this reason only.",
    "lane": "Queued for this lane, or this site, only.",
    "q": "The id of an email, an address or a domain.",
    "reply": "A server's reply, in any shape that people have it in: lines, a status code, words, a line of a log.",
    "provider": "Whose reply it is, as `GET /lanes` names it.",
    "host": "The MX host or domain that it came from.",
    "events.list.after": "The number of the last event that is known.",
    "days": "How many days back, today among them.",
    "limit": "How many events an answer has at most.",
    "wait": "How many seconds the answer may wait for the first event.",
    "follow": "Ask for a stream that does not end, as the header `Accept: text/event-stream` does.",
    "status": "In this state only.",
    "logs.list.status": "`success` is below 400, `error` from there on.",
    "statusCode": "Answered with this status only.",
    "type": "Of this kind only.",
    "reveal": "Show the key itself.",
    "credentialId": "Asked with this credential or key only.",
    "endpoint": "Of this operation only, such as `emails.send`.",
    "requestId": "Whose id has this in it.",
    "after": "After this time, in Unix seconds.",
    "before": "Before this time, in Unix seconds.",
    "event": "Of this event only.",
    "success": "Answered with a 2xx only, or with anything else.",
    "webhookId": "Of this webhook only.",
    "reason": "With exactly this reason only.",
    "cause": "Made by this only.",
    "classification": "Made by this sort of failure only.",
    "stream": "Of this stream only.",
    "sort": "By address, or the newest first.",
    "afterAddress": "Behind this address, in the order of addresses.",
    "afterStream": "And behind this stream of it.",
    "since": "Made at this time or after it.",
    "until": "Made before this time.",
}

KEY_FORM: Final = f"^{FORM}$"

_TEXT: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
HEADERS: Final[dict[str, tuple[str, Schema]]] = {
    "X-Request-Id": ("The id of this request, as in `meta`.", _TEXT),
    "X-RateLimit-Limit": ("How many requests the key may make in a second; absent without a limit.", _COUNT),
    "X-RateLimit-Remaining": ("How many of them are left.", _COUNT),
    "X-RateLimit-Reset": ("When all of them are there again, in Unix seconds.", _COUNT),
    "X-SendLimit-Limit": (
        "How many recipients the tenant may mail in an hour; absent without a limit.",
        _COUNT,
    ),
    "X-SendLimit-Remaining": ("How many of them are left.", _COUNT),
    "X-SendLimit-Used": ("How many it mailed in this hour.", _COUNT),
    "X-SendLimit-Reset": ("When the next hour begins, in Unix seconds.", _COUNT),
    "Retry-After": ("In how many seconds to try again.", _COUNT),
    "x-should-retry": (
        "`false`: repeating the request changes nothing.",
        {"type": "string", "enum": ["true", "false"]},
    ),
}

STATUSES: Final = {
    400: "The request is not well formed",
    401: "Not a key of this relay",
    403: "The key may not do this",
    404: "There is no such thing, or it is another tenant's",
    408: "The body came too slowly",
    409: "It contradicts what is there",
    413: "The body is too long",
    415: "The body is encoded",
    422: "Understood, and refused",
    429: "Too many requests",
    500: "A fault of ours",
    503: "Not at the moment",
    507: "The disk of the relay is full",
}
ERRORS: Final[dict[int, dict[str, str]]] = {
    400: {
        "validation_error": "`field` says what does not fit",
        "missing_required_field": "`field` is missing",
        "invalid_email_format": "`field` is not an e-mail address",
    },
    401: {
        "authentication_required": "there is no `Authorization: Bearer KEY`",
        "invalid_api_key": "the key is not known",
        "expired_api_key": "the key was taken away a moment ago",
    },
    403: {
        "permission_denied": "it takes an organisation key, or a permission that the key does not have",
        "tenant_mismatch": "`tenantId` is not the tenant of the key",
        "tenant_suspended": "the tenant is suspended or archived",
        "credential_on_hold": "the credential is on hold",
    },
    404: {"not_found": "the id or address is unknown"},
    408: {"request_timeout": "send the body faster"},
    409: {
        "conflict": "the state does not allow it",
        "already_exists": "the name is taken",
        "idempotency_conflict": "the `Idempotency-Key` was used for another body",
        "idempotency_in_progress": "the first request with this `Idempotency-Key` is under way",
    },
    413: {"payload_too_large": "the body or the message is over its limit"},
    415: {"unsupported_media_type": "send the body without `Content-Encoding`"},
    422: {
        "validation_error": "`field` is well formed and cannot be used",
        "domain_not_verified": "the sender's domain is not a verified one of the tenant",
        "send_limit_exceeded": "the tenant may not send more now",
    },
    429: {"rate_limit_exceeded": "wait for `Retry-After` seconds"},
    500: {"internal_error": "the log knows it by the request id"},
    503: {
        "store_unavailable": "the database is busy: try again",
        "unavailable": "the relay does not accept mail at the moment",
    },
    507: {"insufficient_storage": "nothing was accepted"},
}

# known patterns, for the page
FORMS: Final = {ONE_LINE.replace(r"\Z", "$"): "one line", NO_CONTROL.replace(r"\Z", "$"): "no control characters"}

_SOURCE = re.compile(r"\s*\((?:[^()]*contract )?§[^()]*\)|,? ?(?:Ark )?contract §[\d.]+")


def plain(said: str) -> str:
    """Return a docstring for readers of the API: Markdown, a paragraph a line, without our sources."""
    text = _SOURCE.sub("", inspect.cleandoc(said)).replace("``", "`").replace("the contract", "Ark's API")
    return "\n\n".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip())
