"""Webhooks and what was posted to them, with what came back, and to post it again."""

import json

from aiohttp import web

from arkrelay.model.errors import Conflict, NotFound
from arkrelay.model.hook import HookDelivery
from arkrelay.model.tenant import WEBHOOK_EVENTS, Webhook
from arkrelay.relay.hooks import Hook
from arkrelay.store.hooks import Filters, browse_deliveries, find_delivery
from arkrelay.web.visit import Page, Visit, place

PER_PAGE = 50
PLATFORM = "platform"  # in paths, where a tenant's id stands else: the organisation's own


async def show_all(visit: Visit) -> Page:
    """Return the list of all webhooks."""
    found = [(tenant, one) for tenant in visit.tenants for one in tenant.webhooks]
    platform = visit.snapshot.platform.webhooks if visit.caller.tenant_id is None else ()
    return Page("webhooks.html", "Webhooks", {"found": found, "platform": platform})


async def show(visit: Visit) -> Page:
    """Return one webhook and one page of what was posted to it."""
    hook, below = _hook(visit), visit.older
    success = {"failed": False, "taken": True}.get(visit.asked("result"))
    filters = Filters(owner=hook.owner or "", webhook_id=hook.webhook.id, success=success)
    found, taken = await visit.parts.store.read(lambda db: browse_deliveries(db, filters, below, PER_PAGE))
    return Page(
        "webhook.html",
        hook.webhook.name,
        {
            "hook": hook,
            "owner": visit.path["owner"],
            "found": found,
            "older": place(taken.older),
            "looked_to": taken.older.at if taken.unfinished and taken.older else None,
            "first": below is None,
            "result": visit.asked("result"),
            "samples": WEBHOOK_EVENTS,
        },
    )


async def show_delivery(visit: Visit) -> Page:
    """Return one attempt with all that was said."""
    hook = _hook(visit)
    one = await _delivery(visit, hook)
    try:
        body = json.dumps(json.loads(one.body), indent=2, ensure_ascii=False)
    except ValueError:
        body = one.body
    return Page("delivery.html", "Delivery", {"hook": hook, "owner": visit.path["owner"], "one": one, "body": body})


async def replay(visit: Visit) -> web.StreamResponse:
    """Post it again."""
    visit.require_changer()
    hook = _hook(visit)
    new = await visit.parts.hooks.replay(hook, await _delivery(visit, hook))
    return _tell(visit, new)


async def test(visit: Visit) -> web.StreamResponse:
    """Post an example of an event."""
    visit.require_changer()
    hook, event = _hook(visit), visit.given("event")
    if event not in WEBHOOK_EVENTS:
        raise Conflict("Choose one of the events")
    return _tell(visit, await visit.parts.hooks.test(hook, event))


def _tell(visit: Visit, new: HookDelivery) -> web.StreamResponse:
    if new.answer.success:
        visit.say(f"Posted: the endpoint answered {new.answer.status}.")
    else:
        visit.say(f"Posted, and not taken: {new.answer.error or 'no answer'}.".replace("..", "."), good=False)
    return visit.go("webhooks", visit.path["owner"], visit.path["id"], "deliveries", new.public_id)


def _hook(visit: Visit) -> Hook:
    """Return the webhook that the path names; the platform's are unknown to a tenant's key."""
    owner, wanted = visit.path["owner"], visit.path["id"]
    webhooks: tuple[Webhook, ...]
    if owner == PLATFORM and PLATFORM not in visit.snapshot.tenants:
        visit.require_organisation()
        webhooks, whose = visit.snapshot.platform.webhooks, None
    else:
        tenant = visit.tenant(owner)
        webhooks, whose = tenant.webhooks, tenant.id
    found = next((one for one in webhooks if one.id == wanted), None)
    if found is None:
        raise NotFound("There is no such webhook.")
    return Hook(whose, found)


async def _delivery(visit: Visit, hook: Hook) -> HookDelivery:
    wanted, owner, webhook_id = visit.path["delivery"], hook.owner or "", hook.webhook.id
    found = await visit.parts.store.read(lambda db: find_delivery(db, owner, wanted, webhook_id))
    if found is None:
        raise NotFound("There is no such delivery.")
    return found
