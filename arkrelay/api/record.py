"""What is recorded of a request to the API: taken on the event loop as it stands, and made harmless in a thread.

Every request that came with a key is recorded, also those that were refused. Not recorded are requests without a
known key, which are nobody's; those of local peers on the control socket, which are the command line's own; probes
and metrics; and methods that the contract's log has no word for. HEAD is recorded as the GET that it is.
"""

import time
from collections.abc import Callable, Mapping
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from arkrelay.api.entry import Entry
from arkrelay.api.errors import Handler
from arkrelay.api.parts import BODY, CALLER, PARSED, RATE, REQUEST_ID, SENT
from arkrelay.relay.callers import Caller

UNKNOWN: Final = "unknown"  # the endpoint of a path that there is not
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})  # Ark contract §8.2, and HEAD


def recorder(note: Callable[[Entry], None], endpoints: Mapping[object, str]) -> Middleware:
    """Return the middleware that hands each request to ``note``; ``endpoints`` names the handlers of routes."""

    @web.middleware
    async def record(request: web.Request, handler: Handler) -> web.StreamResponse:
        began_at, began = time.time(), time.perf_counter()
        response = await handler(request)
        caller = request.get(CALLER)
        if caller is not None and not caller.local and request.method in METHODS:
            endpoint = endpoints.get(request.match_info.handler, UNKNOWN)
            note(_entry(request, response, caller, endpoint, began_at, time.perf_counter() - began))
        return response

    return record


def _entry(
    request: web.Request,
    response: web.StreamResponse,
    caller: Caller,
    endpoint: str,
    began_at: float,
    duration_s: float,
) -> Entry:
    body = request.get(BODY)
    answer = response.body if isinstance(response, web.Response) else None
    plain = answer if isinstance(answer, bytes) else None
    email_id, recipients = request.get(SENT, (None, None))
    return Entry(
        request[REQUEST_ID],
        began_at,
        duration_s,
        request.method,
        request.raw_path,
        request.headers,
        request.remote or "",
        endpoint,
        response.status,
        caller.tenant_id or "",
        caller.id,
        caller.prefix,
        request.get(RATE),
        email_id,
        recipients,
        body,
        len(body) if body is not None else request.content_length if request.can_read_body else 0,
        PARSED in request,
        plain,
        len(plain) if plain is not None else response.body_length if response.prepared else None,
    )
