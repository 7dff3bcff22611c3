"""Webhooks: the list, one with what was posted to it, and to make, change and delete one by REST's own rules."""

from aiohttp import web

from arkrelay.model.errors import Conflict, NotFound
from arkrelay.model.tenant import WEBHOOK_EVENTS, Tenant, Webhook
from arkrelay.relay.hooks import Hook
from arkrelay.relay.settings import ChangeRefused
from arkrelay.store.hooks import Filters, browse_deliveries
from arkrelay.web.hookform import HookForm
from arkrelay.web.visit import Page, Visit, place

PER_PAGE = 50
PLATFORM = "platform"  # in paths, where a tenant's id stands else: the organisation's own


async def show_all(visit: Visit) -> Page:
    """Return the list of all webhooks, or of one tenant's."""
    return _list(visit, HookForm(owner=visit.wanted_tenant or visit.snapshot.settings.default_tenant or ""))


async def add(visit: Visit) -> Page | web.StreamResponse:
    """Make a webhook."""
    visit.require_changer()
    form = HookForm.typed(visit)
    path = visit.caller.tenant_id or form.owner
    owner = _owner(visit, path)
    owner_id = None if owner is None else owner.id
    try:
        made = await visit.parts.hook_settings.add(visit.caller.tenant_id, owner_id, form.name, form.url, form.wish())
    except (ChangeRefused, Conflict) as error:
        return _list(visit, form.refused(error))
    events = "Post an example to see whether it answers" if made.enabled else "It is disabled, and gets nothing yet"
    visit.say(f"{made.name} is made. {events}.")
    return visit.go("webhooks", path, made.id)


async def show(visit: Visit) -> Page:
    """Return one webhook and one page of what was posted to it."""
    return await _page(visit, HookForm.of(find_hook(visit).webhook))


async def change(visit: Visit) -> Page | web.StreamResponse:
    """Change a webhook."""
    visit.require_changer()
    hook, form = _configured(visit), HookForm.typed(visit)
    try:
        wish = form.changes(hook.webhook, find_hook(visit).webhook)
        if wish is None:
            visit.say("Nothing is different: nothing was changed.")
        else:
            made = await visit.parts.hook_settings.change(visit.caller.tenant_id, hook, wish)
            visit.say(f"{made.name} is changed{'' if made.enabled else ', and disabled: it gets nothing'}.")
    except (ChangeRefused, Conflict) as error:
        return await _page(visit, form.refused(error))
    return visit.go("webhooks", visit.path["owner"], hook.webhook.id)


async def remove(visit: Visit) -> web.StreamResponse:
    """Delete a webhook."""
    visit.require_changer()
    hook = _configured(visit)
    await visit.parts.hook_settings.remove(visit.caller.tenant_id, hook)
    visit.say(f"{hook.webhook.name} is deleted: nothing is posted to it any more.")
    return visit.go("webhooks", tenant=hook.owner)


def find_hook(visit: Visit) -> Hook:
    """Return the webhook that the path names as it is in force; the platform's are unknown to a tenant's key."""
    hook = _configured(visit)
    return Hook(hook.owner, visit.parts.hook_settings.in_force(hook.owner, hook.webhook))


def _configured(visit: Visit) -> Hook:
    """Return the webhook that the path names as its file has it."""
    owner, wanted = _owner(visit, visit.path["owner"]), visit.path["id"]
    webhooks = visit.snapshot.platform.webhooks if owner is None else owner.webhooks
    found = next((one for one in webhooks if one.id == wanted), None)
    if found is None:
        raise NotFound("There is no such webhook.")
    return Hook(None if owner is None else owner.id, found)


def _owner(visit: Visit, path: str) -> Tenant | None:
    """Return whose webhooks a path is about: a tenant's, or for None the platform's."""
    if path == PLATFORM and PLATFORM not in visit.snapshot.tenants:
        visit.require_organisation()
        return None
    return visit.tenant(path)


def _list(visit: Visit, form: HookForm) -> Page:
    """Return the list, with the form of a new webhook below it."""
    organisation, settings = visit.caller.tenant_id is None, visit.parts.hook_settings
    wanted = None if visit.wanted_tenant is None else visit.tenant(visit.wanted_tenant)
    if organisation and len(visit.tenants) == 1:
        wanted = None  # there is nothing to choose from, and the platform's are shown beside its own
    chosen = visit.tenants if wanted is None else [wanted]
    platform: tuple[Webhook, ...] = visit.snapshot.platform.webhooks if organisation and wanted is None else ()
    owners = [(one.id, one.name) for one in chosen if one.managed != "file"]
    if organisation and wanted is None and PLATFORM not in visit.snapshot.tenants:
        owners.append((PLATFORM, "All tenants"))
    return Page(
        "webhooks.html",
        "Webhooks",
        {
            "found": [(one, settings.in_force(one.id, hook)) for one in chosen for hook in one.webhooks],
            "platform": [settings.in_force(None, one) for one in platform],
            "tenants": visit.tenants,
            "wanted": wanted.id if organisation and wanted is not None else None,
            "owners": owners,
            "form": form,
            "events": WEBHOOK_EVENTS,
        },
        400 if form.problem else 200,
    )


async def _page(visit: Visit, form: HookForm) -> Page:
    """Return the page of a webhook, with its form."""
    hook, below = find_hook(visit), visit.older
    owner = None if hook.owner is None else visit.tenant(hook.owner)
    success = {"failed": False, "taken": True}.get(visit.asked("result"))
    filters = Filters(owner=hook.owner or "", webhook_id=hook.webhook.id, success=success)
    found, taken = await visit.parts.store.read(lambda db: browse_deliveries(db, filters, below, PER_PAGE))
    return Page(
        "webhook.html",
        hook.webhook.name,
        {
            "hook": hook,
            "owner": visit.path["owner"],
            "whose": "all tenants" if owner is None else owner.name,
            "read_only": owner is not None and owner.managed == "file",
            "gone": _configured(visit).webhook.enabled and not hook.webhook.enabled,
            "found": found,
            "older": place(taken.older),
            "looked_to": taken.older.at if taken.unfinished and taken.older else None,
            "first": below is None,
            "result": visit.asked("result"),
            "form": form,
            "events": WEBHOOK_EVENTS,
        },
        400 if form.problem else 200,
    )
