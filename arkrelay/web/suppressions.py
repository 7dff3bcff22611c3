"""Addresses that a tenant may not mail: the list, newest first, one looked up, one added, one removed."""

from aiohttp import web

from arkrelay.model.address import AddressError, kept_address, parse_mailbox
from arkrelay.model.errors import Conflict, NotFound
from arkrelay.model.suppression import Cause, Suppression
from arkrelay.relay.suppress import suppress, unsuppress
from arkrelay.store import suppressions
from arkrelay.store.browse import Taken
from arkrelay.store.suppressions import Entries
from arkrelay.web.visit import Page, Visit, place

PER_PAGE = 100
REASON_CHARS = 500


async def show(visit: Visit) -> Page:
    """Return one page of the list of the tenant that is chosen."""
    tenant, below = visit.chosen_tenant(), visit.older
    address, cause = visit.asked("address"), visit.asked("cause")
    found: list[Suppression] = []
    taken = Taken([], None)
    if tenant is not None and address:
        one = await visit.parts.store.read(lambda db: suppressions.get(db, tenant.id, kept_address(address)))
        found = [] if one is None else [one]
    elif tenant is not None:
        entries = Entries(cause=Cause(cause) if cause in set(Cause) else None)
        found, taken = await visit.parts.store.read(
            lambda db: suppressions.browse(db, tenant.id, entries, below, PER_PAGE)
        )
    return Page(
        "suppressions.html",
        "Suppressions",
        {
            "tenant": tenant,
            "tenants": visit.tenants,
            "found": found,
            "older": place(taken.older),
            "looked_to": taken.older.at if taken.unfinished and taken.older else None,
            "first": below is None,
            "asked": {"address": address, "cause": cause},
            "causes": list(Cause),
        },
    )


async def add(visit: Visit) -> web.StreamResponse:
    """Put an address on the list."""
    visit.require_changer()
    tenant, reason = visit.tenant(visit.path["tenant"]), visit.given("reason") or "manual"
    try:
        address = str(parse_mailbox(visit.given("address"), utf8=True))
    except AddressError as error:
        raise Conflict(f"This is not an address: {error}") from None
    if len(reason) > REASON_CHARS or not reason.isprintable():
        raise Conflict(f"A reason is one line of up to {REASON_CHARS} characters")
    await suppress(visit.parts.store, visit.parts.queue, tenant.id, address, reason)
    visit.say(f"{address} is not mailed any more.")
    return visit.go("suppressions", tenant=tenant.id)


async def remove(visit: Visit) -> web.StreamResponse:
    """Take an address off the list."""
    visit.require_changer()
    tenant, address = visit.tenant(visit.path["tenant"]), visit.given("address")
    if not await unsuppress(visit.parts.store, tenant.id, address):
        raise NotFound(f"{address} is not on the list.")
    visit.say(f"{address} may be mailed again.")
    return visit.go("suppressions", tenant=tenant.id)
