"""Who asks, from a bearer key or from the control socket's peer; and whether that is enough for the path.

Organisation keys and local peers (root, the service's user) may do everything. A tenant's ``api`` credential
sees its own tenant only; a foreign id is answered like an unknown one (Ark contract §1). Only the control socket
believes its peer: behind another one a proxy of the same user may stand, and speak for the whole world.
"""

import os
import socket
import struct
import time

import structlog
from aiohttp import web

from arkrelay.api.connection import connection_of
from arkrelay.api.errors import Handler
from arkrelay.api.parts import CALLER, CONTROL, RATE, parts_of
from arkrelay.api.refusal import ApiError
from arkrelay.relay.callers import Caller, WrongKey, changing_refusal, find_caller, sending_refusal

log = structlog.get_logger()

OPEN_PATHS = frozenset(
    {
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/v1/openapi.json",
        "/v1/docs",
        "/.well-known/jwks.json",
    }
)


@web.middleware
async def watch_connection(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell the connection when a head was complete, and when it is answered."""
    connection = connection_of(request)
    if connection is None:
        return await handler(request)
    connection.began()
    try:
        return await handler(request)
    finally:
        connection.ended()


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Put the ``Caller`` into the request, or refuse with 401; no body is ever inflated (415)."""
    if request.path not in OPEN_PATHS:
        caller = request[CALLER] = _caller(request)
        if not caller.local:
            _count(request, caller)
        if caller.suspended:
            raise ApiError(403, "tenant_suspended", f"The tenant is {caller.suspended}.")
    if request.headers.get("Content-Encoding", "").strip().lower() not in {"", "identity"}:
        raise ApiError(415, "unsupported_media_type", "Send the body without Content-Encoding.", close=True)
    return await handler(request)


def _count(request: web.Request, caller: Caller) -> None:
    """Count the request towards its key's rate, or refuse it with 429 (Ark contract §4)."""
    parts = parts_of(request)
    rate = parts.rates.hit(caller.rate_key, parts.live.snapshot.settings.limits.api_requests_per_s)
    if rate is None:
        return
    request[RATE] = rate
    if rate.wait_s is not None:
        wait_s = rate.retry_after_s
        message = f"More than {rate.limit} requests in {parts.rates.seconds:g} s: try again in {wait_s} s."
        raise ApiError(429, "rate_limit_exceeded", message, retry_after_s=wait_s)


def require_sender(caller: Caller, *, test: bool = False) -> None:
    """Refuse with 403 a key that may not send; ``test``: what it would send is a test itself, so a test key may."""
    refusal = sending_refusal(caller, test=test)
    if refusal is not None:
        raise ApiError(403, *refusal)


def require_releaser(caller: Caller, *, test: bool = False) -> None:
    """Refuse with 403 a key that may not let held mail go; a key that may have leaked would free its own."""
    if caller.suspect:
        raise ApiError(403, "credential_on_hold", "This key is on hold: another must release its mail.")
    require_sender(caller, test=test)


def require_changer(caller: Caller, *, test: bool = False) -> None:
    """Refuse with 403 a key that may change nothing; ``test``: what it would change serves tests alone."""
    refusal = changing_refusal(caller, test=test)
    if refusal is not None:
        raise ApiError(403, *refusal)


def is_still_admitted(request: web.Request) -> bool:
    """Whether the key of a request that lasts opens now what it opened then: a reload may have taken it away."""
    caller = request[CALLER]
    if caller.local:
        return True
    now = find_caller(parts_of(request).live.snapshot, _key(request) or "")
    return now is not None and not now.suspended and (now.tenant_id, now.name) == (caller.tenant_id, caller.name)


def _caller(request: web.Request) -> Caller:
    key = _key(request)
    if key is not None:
        return _owner(request, key)
    local = None
    if request.config_dict[CONTROL] and "Authorization" not in request.headers:
        local = local_peer(request)
    if local is None:
        raise ApiError(401, "authentication_required", "Send an API key: Authorization: Bearer KEY.")
    return local


def _key(request: web.Request) -> str | None:
    """Return the key that was sent, or None for none."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


def _owner(request: web.Request, key: str) -> Caller:
    """Return whose key it is. An address that guesses is answered 429 for a while, right or wrong."""
    parts, client = parts_of(request), request.remote or ""
    try:
        return parts.guesses.caller(parts.live.snapshot, key, client, time.monotonic())
    except WrongKey as error:
        if error.wait_s:
            raise ApiError(429, "rate_limit_exceeded", str(error), retry_after_s=error.wait_s) from None
        raise ApiError(401, "invalid_api_key", str(error)) from None


def local_peer(request: web.Request) -> Caller | None:
    """Return root or the service's own user at the other end of a unix socket, from SO_PEERCRED (socket(7))."""
    transport = request.transport
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or sock.family != socket.AF_UNIX:
        return None
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    if uid not in {0, os.geteuid()}:
        log.warning("peer_refused", uid=uid, pid=pid)
        return None
    return Caller(None, f"uid {uid}", local=True)
