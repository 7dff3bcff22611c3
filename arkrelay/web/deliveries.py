"""What was posted to a webhook, with what came back; to post it again, and to post an example."""

import json

from aiohttp import web

from arkrelay.model.errors import Conflict, NotFound
from arkrelay.model.hook import HookDelivery
from arkrelay.model.tenant import WEBHOOK_EVENTS
from arkrelay.relay.hooks import Hook
from arkrelay.store.hooks import find_delivery
from arkrelay.web.visit import Page, Visit
from arkrelay.web.webhooks import find_hook


async def show(visit: Visit) -> Page:
    """Return one attempt with all that was said."""
    hook = find_hook(visit)
    one = await _find(visit, hook)
    try:
        body = json.dumps(json.loads(one.body), indent=2, ensure_ascii=False)
    except ValueError:
        body = one.body
    return Page("delivery.html", "Delivery", {"hook": hook, "owner": visit.path["owner"], "one": one, "body": body})


async def replay(visit: Visit) -> web.StreamResponse:
    """Post it again."""
    visit.require_changer()
    hook = find_hook(visit)
    new = await visit.parts.hooks.replay(hook, await _find(visit, hook))
    return _tell(visit, new)


async def test(visit: Visit) -> web.StreamResponse:
    """Post an example of an event."""
    visit.require_changer(test=True)
    hook, event = find_hook(visit), visit.given("event")
    if event not in WEBHOOK_EVENTS:
        raise Conflict("Choose one of the events")
    return _tell(visit, await visit.parts.hooks.test(hook, event))


def _tell(visit: Visit, new: HookDelivery) -> web.StreamResponse:
    if new.answer.success:
        visit.say(f"Posted: the endpoint answered {new.answer.status}.")
    else:
        visit.say(f"Posted, and not taken: {new.answer.error or 'no answer'}.".replace("..", "."), good=False)
    return visit.go("webhooks", visit.path["owner"], visit.path["id"], "deliveries", new.public_id)


async def _find(visit: Visit, hook: Hook) -> HookDelivery:
    wanted, owner, webhook_id = visit.path["delivery"], hook.owner or "", hook.webhook.id
    found = await visit.parts.store.read(lambda db: find_delivery(db, owner, wanted, webhook_id))
    if found is None:
        raise NotFound("There is no such delivery.")
    return found
