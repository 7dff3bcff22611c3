"""Webhooks of the platform: where the events of all tenants are posted (Ark contract §8.12, §11).

As a tenant's, with the contract's differences: no uuid and no ``allEvents`` (no events named means all), bodies are
always wrapped and name the tenant, and the list of attempts is over all webhooks.
"""

from typing import Annotated, Any

from arkrelay.api.ask import Ask
from arkrelay.api.hooks import (
    EventName,
    Moment,
    Replayed,
    SentRequest,
    TestEvent,
    ToldEvent,
    Url,
    attempt_of,
    in_force,
    milliseconds,
    pick,
    posted,
    replayed,
    request_of,
    tested,
)
from arkrelay.api.model import Answer, Body, Line, Meta, Nothing, Page, Paged
from arkrelay.api.settings import changing, newest_first
from arkrelay.api.suppressions import Message
from arkrelay.model.errors import Conflict
from arkrelay.model.hook import HookDelivery
from arkrelay.model.tenant import Webhook as Configured
from arkrelay.relay.hooks import Hook
from arkrelay.relay.hooksettings import Wish
from arkrelay.store.hooks import Filters, list_deliveries

Events = Annotated[list[EventName], Meta(max_length=100)]  # empty: all


class NewPlatformWebhook(Body):
    """A webhook to be; it is enabled."""

    name: Line
    url: Url
    events: Events | None = None


class PlatformWebhookChange(Body):
    """What is to become different; what is absent or null stays."""

    name: Line | None = None
    url: Url | None = None
    events: Events | None = None
    enabled: bool | None = None


class PlatformDeliveryList(Paged):
    """Which attempts; times are Unix seconds."""

    webhook_id: str | None = None
    tenant_id: str | None = None
    event: ToldEvent | None = None
    success: bool | None = None
    after: Moment | None = None
    before: Moment | None = None


class PlatformWebhookSummary(Answer):
    """A webhook in the list."""

    id: str
    name: str
    url: str
    events: list[str]
    enabled: bool
    created_at: str


class PlatformWebhook(PlatformWebhookSummary):
    """A webhook; no ``events``: all."""

    updated_at: str


class PlatformDelivery(Answer):
    """One attempt to post one event; ``statusCode`` null: no HTTP answer came. ``error`` is beyond the contract."""

    id: str
    webhook_id: str
    tenant_id: str
    event: str
    url: str
    attempt: int
    status_code: int | None
    success: bool
    will_retry: bool
    timestamp: str
    error: str | None


class PlatformResponse(Answer):
    """What came back: the beginning of the body, how long it took (ms), what went wrong (beyond the contract)."""

    body: str | None
    duration: int
    error: str | None


class PlatformDeliveryDetail(PlatformDelivery):
    """One attempt with all that was said."""

    webhook_name: str
    request: SentRequest
    response: PlatformResponse


class PlatformTested(Answer):
    """The result of a test; ``statusCode`` 0: no HTTP answer came. It is a delivery as well (beyond the contract)."""

    success: bool
    duration_ms: int
    status_code: int
    error: str | None
    delivery_id: str


async def create(ask: Ask[Nothing, NewPlatformWebhook]) -> PlatformWebhook:
    """Add a webhook."""
    body, wish = ask.body, Wish(events=ask.body.events)
    with changing(ask):
        return _shape(await ask.parts.hook_settings.add(ask.caller.tenant_id, None, body.name, body.url, wish))


async def list_all(ask: Ask[Nothing, Nothing]) -> list[PlatformWebhookSummary]:
    """All of them, newest first."""
    known = newest_first(ask.snapshot.platform.webhooks)
    return [PlatformWebhookSummary(**_summary(in_force(ask, None, one))) for one in known]


async def retrieve(ask: Ask[Nothing, Nothing]) -> PlatformWebhook:
    """One webhook."""
    return _shape(_find(ask).webhook)


async def update(ask: Ask[Nothing, PlatformWebhookChange]) -> PlatformWebhook:
    """Change a webhook; it is in force from the answer on."""
    hook, body = Hook(None, pick(ask.snapshot.platform.webhooks, ask.path("webhookId"))), ask.body
    all_ = None if body.events is None else not body.events
    wish = Wish(name=body.name, url=body.url, events=body.events, all_events=all_, enabled=body.enabled)
    with changing(ask):
        return _shape(await ask.parts.hook_settings.change(ask.caller.tenant_id, hook, wish))


async def delete(ask: Ask[Nothing, Nothing]) -> Message:
    """Remove a webhook: nothing is posted to it any more."""
    hook = _find(ask)
    with changing(ask):
        await ask.parts.hook_settings.remove(ask.caller.tenant_id, hook)
    return Message(message=f"Webhook {hook.webhook.id} is removed.")


async def list_attempts(ask: Ask[PlatformDeliveryList, Nothing]) -> Page[PlatformDelivery]:
    """One page of what was posted, newest first: also to webhooks that are no more."""
    query = ask.query
    known = {one.uuid: one.id for one in ask.snapshot.platform.webhooks}
    filters = Filters(
        owner="",
        webhook_id=None if query.webhook_id is None else known.get(query.webhook_id, query.webhook_id),
        tenant_id=query.tenant_id,
        event=query.event,
        success=query.success,
        after=query.after,
        before=query.before,
    )
    rows, total = await ask.parts.store.read(lambda db: list_deliveries(db, filters, query.page, query.per_page))
    return Page(
        [PlatformDelivery(**attempt_of(one), tenant_id=one.tenant_id) for one in rows],
        query.page,
        query.per_page,
        total,
    )


async def retrieve_attempt(ask: Ask[Nothing, Nothing]) -> PlatformDeliveryDetail:
    """One attempt, with what was sent and what came back."""
    one = await posted(ask, None)
    webhook = _webhook_of(ask, one)
    return PlatformDeliveryDetail(
        **attempt_of(one),
        tenant_id=one.tenant_id,
        webhook_name=one.webhook_name if webhook is None else webhook.name,
        request=request_of(one),
        response=PlatformResponse(
            body=one.answer.body if one.answer.status is not None else None,
            duration=milliseconds(one),
            error=one.answer.error,
        ),
    )


async def replay(ask: Ask[Nothing, Nothing]) -> Replayed:
    """Post again what was posted, with a new time and signature; the answer says how it went."""
    one = await posted(ask, None)
    webhook = _webhook_of(ask, one)
    if webhook is None:
        raise Conflict("The webhook of this delivery is removed.")
    return await replayed(ask, Hook(None, in_force(ask, None, webhook)), one)


async def test(ask: Ask[Nothing, TestEvent]) -> PlatformTested:
    """Post an example of an event, subscribed to or not; the answer says how it went, and is 200 either way."""
    one = await tested(ask, _find(ask), ask.body.event)
    return PlatformTested(
        success=one.answer.success,
        duration_ms=milliseconds(one),
        status_code=one.answer.status or 0,
        error=one.answer.error,
        delivery_id=one.public_id,
    )


def _find(ask: Ask[Any, Any]) -> Hook:
    return Hook(None, in_force(ask, None, pick(ask.snapshot.platform.webhooks, ask.path("webhookId"))))


def _webhook_of(ask: Ask[Any, Any], delivery: HookDelivery) -> Configured | None:
    """Return the webhook of a delivery, unless it is removed."""
    return next((one for one in ask.snapshot.platform.webhooks if one.id == delivery.webhook_id), None)


def _summary(one: Configured) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "url": one.url,
        "events": list(one.events),
        "enabled": one.enabled,
        "created_at": one.created_at,
    }


def _shape(one: Configured) -> PlatformWebhook:
    return PlatformWebhook(**_summary(one), updated_at=one.updated_at)
