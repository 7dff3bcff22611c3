"""Who asks, from a bearer key or from the control socket's peer; and whether that is enough for the path.

Organisation keys and local peers (root, the service's user) may do everything. A tenant's ``api`` credential
sees its own tenant only; a foreign id is answered like an unknown one (Ark contract §1). Only the control socket
believes its peer: behind another one a proxy of the same user may stand, and speak for the whole world.
"""

import math
import os
import socket
import struct
import time

import structlog
from aiohttp import web

from arkrelay.api.connection import connection_of, network_of
from arkrelay.api.errors import ApiError, Handler
from arkrelay.api.parts import CALLER, CONTROL, GUESSES, Caller, parts_of
from arkrelay.policy.limits import is_trusted

log = structlog.get_logger()

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
GUESSES_PER_MINUTE = 30  # wrong keys from one address; after that no key from it is looked at
MINUTE_S = 60.0


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
        request[CALLER] = _caller(request)
    if request.headers.get("Content-Encoding", "").strip().lower() not in {"", "identity"}:
        raise ApiError(415, "unsupported_media_type", "Send the body without Content-Encoding.", close=True)
    return await handler(request)


def caller_of(request: web.Request) -> Caller:
    """Return who asks."""
    return request[CALLER]


def require_organisation(request: web.Request) -> None:
    """Refuse a tenant's key with 403."""
    if caller_of(request).tenant_id is not None:
        raise ApiError(
            403, "permission_denied", "This needs an organisation key; a tenant's key sees its tenant only."
        )


def require_tenant(request: web.Request, tenant_id: str) -> str:
    """Return ``tenant_id`` if it exists and the caller may see it; unknown and foreign ids are 404 alike."""
    allowed = caller_of(request).tenant_id
    if tenant_id not in parts_of(request).live.snapshot.tenants or allowed not in {None, tenant_id}:
        raise ApiError(404, "not_found", f"There is no tenant {tenant_id}.")
    return tenant_id


def own_tenant(request: web.Request, wanted: str | None) -> str | None:
    """Return the tenant that the caller means by ``tenantId``; None: all. A tenant's key may name itself only."""
    own = caller_of(request).tenant_id
    if own is not None and wanted not in {None, own}:
        raise ApiError(403, "tenant_mismatch", "tenantId is not the tenant of this key.", field="tenantId")
    return own or wanted


def _caller(request: web.Request) -> Caller:
    given = request.headers.get("Authorization")
    if given is None:
        local = _local_peer(request) if request.config_dict[CONTROL] else None
        if local is not None:
            return local
        raise ApiError(401, "authentication_required", "Send an API key: Authorization: Bearer KEY.")
    scheme, _, key = given.partition(" ")
    key = key.strip()
    if not key or scheme.lower() != "bearer":
        raise ApiError(401, "authentication_required", "Send an API key: Authorization: Bearer KEY.")
    return _owner(request, key)


def _owner(request: web.Request, key: str) -> Caller:
    """Return whose key it is. An address that guesses is answered 429 for a while, right or wrong."""
    snapshot = parts_of(request).live.snapshot
    guesses = request.config_dict[GUESSES]
    client = request.remote or ""
    counted = None if is_trusted(client, snapshot.settings.limits.trusted_addresses) else network_of(client)
    now = time.monotonic()
    if counted is not None and guesses.full(counted, now):
        wait_s = max(1, math.ceil(guesses.wait_s(counted, now)))
        raise ApiError(429, "rate_limit_exceeded", "Too many wrong API keys from here.", retry_after_s=wait_s)
    if (organisation := snapshot.find_key(key)) is not None:
        return Caller(None, organisation.name, test=key.startswith("ark_test_"))
    found = snapshot.find_credential(key)
    if found is None or found[1].type != "api":
        if counted is not None:
            guesses.hit(counted, now)
        parts_of(request).metrics.auth_failures.inc()
        log.info("key_refused", client=client)
        raise ApiError(401, "invalid_api_key", "This API key is not known.")
    tenant, credential = found
    if tenant.status != "active":
        raise ApiError(403, "tenant_suspended", f"The tenant is {tenant.status}.")
    return Caller(tenant.id, credential.name, test=key.startswith("ark_test_"), hold=credential.hold)


def _local_peer(request: web.Request) -> Caller | None:
    """Return root or the service's own user at the other end of a unix socket, from SO_PEERCRED (socket(7))."""
    transport = request.transport
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or sock.family != socket.AF_UNIX:
        return None
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    if uid not in {0, os.geteuid()}:
        log.warning("peer_refused", uid=uid, pid=pid)
        return None
    return Caller(None, f"uid {uid}")
