"""Credentials of a tenant. A key is on a page once: when it was made, or when somebody asks to see it."""

import asyncio
import contextlib
import re

from aiohttp import web

from arkrelay.config import tenants
from arkrelay.model.errors import Conflict, NotFound, StoreError
from arkrelay.model.tenant import Credential, Tenant
from arkrelay.relay.callers import managing_refusal
from arkrelay.store import lists
from arkrelay.web.visit import Page, Visit

NAME = re.compile(r"[a-zA-Z0-9_-]{1,50}")


async def show(visit: Visit) -> Page:
    """Return the credentials of the tenant that is chosen."""
    return await _page(visit, visit.chosen_tenant())


async def add(visit: Visit) -> Page:
    """Make a credential, and show its key."""
    tenant, name, kind = visit.tenant(visit.path["tenant"]), visit.given("name"), visit.given("type")
    _require_manager(visit)
    if not NAME.fullmatch(name):
        raise Conflict("A name has up to 50 letters, digits, dashes and underscores")
    if kind not in {"smtp", "api"}:
        raise Conflict("Choose SMTP or API")
    made, key = await visit.parts.editor.change(
        visit.caller.tenant_id,
        lambda: tenants.add_credential(visit.snapshot, tenant.id, name, kind=kind, test=visit.caller.test),
    )
    # one of its name may have been removed by hand
    visit.parts.store.write_later(lambda db: lists.forget_last_used(db, tenant.id, made.name))
    return await _page(visit, visit.tenant(tenant.id), (made, key, "made"))


async def reveal(visit: Visit) -> Page:
    """Show the key of a credential."""
    tenant, found = _find(visit)
    _require_manager(visit, found)
    key = await asyncio.to_thread(visit.snapshot.reveal, found.secret)  # off the loop: its file may be elsewhere
    if key is None:
        why = "only its SHA-256 is kept" if found.secret.startswith("sha256:") else "its file cannot be read"
        raise Conflict(f"The key of {found.name} cannot be revealed: {why}")
    return await _page(visit, tenant, (found, key, "revealed"))


async def hold(visit: Visit) -> web.StreamResponse:
    """Put a credential on hold, or release it."""
    tenant, found = _find(visit)
    _require_manager(visit, found)
    _refuse_self(visit, found, "put itself on hold")
    after = await visit.parts.editor.change(
        visit.caller.tenant_id,
        lambda: tenants.change_credential(visit.snapshot, tenant.id, found.id, {"hold": not found.hold}),
    )
    done = "on hold: it opens no door, and what it sent and waits is held" if after.hold else "released: it may send"
    visit.say(f"{found.name} is {done}.")
    return visit.go("credentials", tenant=tenant.id)


async def remove(visit: Visit) -> web.StreamResponse:
    """Remove a credential."""
    tenant, found = _find(visit)
    _require_manager(visit, found)
    _refuse_self(visit, found, "delete itself")
    gone = await visit.parts.editor.change(
        visit.caller.tenant_id, lambda: tenants.remove_credential(visit.snapshot, tenant.id, found.id)
    )
    with contextlib.suppress(StoreError):  # it is gone all the same
        await visit.parts.store.write(lambda db: lists.forget_last_used(db, tenant.id, gone.name))
    visit.say(f"{gone.name} is deleted: its key is refused from now on.")
    return visit.go("credentials", tenant=tenant.id)


async def _page(visit: Visit, tenant: Tenant | None, shown: tuple[Credential, str, str] | None = None) -> Page:
    used: dict[str, float] = {}
    if tenant is not None:
        used = await visit.parts.store.read(lambda db: lists.last_used(db, tenant.id))
    return Page(
        "credentials.html",
        "Credentials",
        {
            "tenant": tenant,
            "tenants": visit.tenants,
            "used": used,
            "shown": shown,
            "refusal": managing_refusal(visit.snapshot, visit.caller),
            "tests": {one.name for one in tenant.credentials if visit.snapshot.is_test(tenant.id, one.name)}
            if tenant is not None
            else set(),
        },
    )


def _find(visit: Visit) -> tuple[Tenant, Credential]:
    tenant = visit.tenant(visit.path["tenant"])
    found = next((one for one in tenant.credentials if str(one.id) == visit.path["id"]), None)
    if found is None:
        raise NotFound("There is no such credential.")
    return tenant, found


def _require_manager(visit: Visit, found: Credential | None = None) -> None:
    """Raise Conflict for a key that may not manage this credential, or make one; test keys manage test keys."""
    test = found is None or visit.snapshot.is_test(visit.path["tenant"], found.name)
    visit.require_changer(test=test)
    refusal = managing_refusal(visit.snapshot, visit.caller)
    if refusal:
        raise Conflict(refusal)


def _refuse_self(visit: Visit, credential: Credential, what: str) -> None:
    if visit.caller.tenant_id is not None and visit.caller.name == credential.name:
        raise Conflict(f"The key that you are signed in with cannot {what}: use another")
