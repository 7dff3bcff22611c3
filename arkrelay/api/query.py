"""What a query string says: pages, numbers, times, states, addresses, and whose mail is asked for."""

import math
import re
from datetime import UTC, datetime

from aiohttp import web

from arkrelay.api.auth import own_tenant
from arkrelay.api.errors import ApiError
from arkrelay.model.address import AddressError, parse_mailbox
from arkrelay.model.message import Status

PER_PAGE = 30  # Ark contract §3, as is the next
MAX_PER_PAGE = 100
_WHOLE = re.compile(r"-?[0-9]{1,19}")
_SECONDS = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,9})?")


def page_of(request: web.Request) -> tuple[int, int]:
    """Return ``page`` and ``perPage`` of the query."""
    return integer(request, "page", 1, 1, 2**31), integer(request, "perPage", PER_PAGE, 1, MAX_PER_PAGE)


def integer(request: web.Request, name: str, default: int, low: int, high: int) -> int:
    """Return a whole number of the query, or refuse it by name."""
    given = request.query.get(name)
    if not given:
        return default
    if not _WHOLE.fullmatch(given) or not low <= int(given) <= high:
        raise ApiError(400, "validation_error", f"{name} must be a whole number from {low} to {high}.", field=name)
    return int(given)


def moment(request: web.Request, name: str) -> float | None:
    """Return a time of the query, Unix seconds or ISO 8601 (Ark contract §7), or None when it is absent."""
    given = request.query.get(name)
    if not given:
        return None
    if _SECONDS.fullmatch(given):
        return float(given)
    try:
        parsed = datetime.fromisoformat(given)
        at = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        at = math.nan
    if not math.isfinite(at):
        raise ApiError(400, "validation_error", f"{name} must be Unix seconds or an ISO 8601 time.", field=name)
    return at


def statuses_of(request: web.Request) -> tuple[Status, ...]:
    """Return the states named by ``status``, comma-separated."""
    names = [name.strip() for name in request.query.get("status", "").split(",") if name.strip()]
    try:
        return tuple(dict.fromkeys(Status(name) for name in names))
    except ValueError:
        known = ", ".join(Status)
        raise ApiError(400, "validation_error", f"status must be one of: {known}.", field="status") from None


def address(request: web.Request, name: str) -> str | None:
    """Return an address of the query as the database has it; what is none is looked for as it stands, in vain."""
    given = request.query.get(name)
    return None if not given else canonical_address(given)


def canonical_address(given: str) -> str:
    """Return the address with its domain in A-labels, or ``given`` when it is no address."""
    try:
        return str(parse_mailbox(given, utf8=True))
    except AddressError:
        return given


def tenant_filter(request: web.Request) -> str | None:
    """Return the tenant that a list is restricted to: the caller's own, or the one that ``tenantId`` names."""
    return own_tenant(request, request.query.get("tenantId") or None)
