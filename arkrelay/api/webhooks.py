"""Webhooks of a tenant: where its events are posted, what was posted, and to post again (Ark contract §8.9, §11).

A webhook takes all events, or those that it names, which may be none. One that says nothing about events takes all:
nobody registers a webhook that shall never be called, and the configuration files and the platform's webhooks mean
the same by saying nothing. Names need not be unique. What may be written is decided in ``relay.hooksettings``.
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
from arkrelay.model.tenant import Webhook as Configured
from arkrelay.relay.hooks import Hook
from arkrelay.relay.hooksettings import Wish
from arkrelay.store.hooks import Filters, list_deliveries

Events = Annotated[list[EventName], Meta(min_length=1, max_length=100)]


class NewWebhook(Body):
    """A webhook to be; ``allEvents`` makes ``events`` of no matter, and without either it takes all."""

    name: Line
    url: Url
    events: Events | None = None
    all_events: bool | None = None
    enabled: bool | None = None


class WebhookChange(Body):
    """What is to become different; what is absent or null stays. ``events`` alone ends ``allEvents``."""

    name: Line | None = None
    url: Url | None = None
    events: Events | None = None
    all_events: bool | None = None
    enabled: bool | None = None


class DeliveryList(Paged):
    """Which attempts; times are Unix seconds."""

    after: Moment | None = None
    before: Moment | None = None
    event: ToldEvent | None = None
    success: bool | None = None


class WebhookSummary(Answer):
    """A webhook in the list."""

    id: str
    name: str
    url: str
    enabled: bool
    events: list[str]
    all_events: bool


class WebhookList(Answer):
    """All webhooks of a tenant, newest first."""

    webhooks: list[WebhookSummary]


class Webhook(Answer):
    """A webhook; ``events`` is empty where ``allEvents`` is true."""

    id: str
    uuid: str
    name: str
    url: str
    events: list[str]
    all_events: bool
    enabled: bool
    created_at: str


class WebhookDelivery(Answer):
    """One attempt to post one event; ``statusCode`` null: no HTTP answer came. ``error`` is beyond the contract."""

    id: str
    webhook_id: str
    event: str
    url: str
    attempt: int
    status_code: int | None
    success: bool
    will_retry: bool
    timestamp: str
    error: str | None


class EndpointResponse(Answer):
    """What came back: the beginning of the body, and what went wrong (beyond the contract)."""

    status_code: int | None
    body: str | None
    error: str | None


class WebhookDeliveryDetail(WebhookDelivery):
    """One attempt with all that was said."""

    webhook_name: str
    request: SentRequest
    response: EndpointResponse


class Tested(Answer):
    """The result of a test; ``duration`` in milliseconds. It is a delivery as well, named beyond the contract."""

    success: bool
    event: str
    status_code: int | None
    duration: int
    body: str | None
    error: str | None
    delivery_id: str


async def create(ask: Ask[Nothing, NewWebhook]) -> Webhook:
    """Add a webhook."""
    tenant_id, body = ask.tenant.id, ask.body
    wish = Wish(events=body.events, all_events=body.all_events, enabled=body.enabled)
    with changing(ask):
        return _shape(await ask.parts.hook_settings.add(ask.caller.tenant_id, tenant_id, body.name, body.url, wish))


async def list_all(ask: Ask[Nothing, Nothing]) -> WebhookList:
    """All of them, newest first."""
    return WebhookList(
        webhooks=[
            WebhookSummary(
                id=one.id,
                name=one.name,
                url=one.url,
                enabled=one.enabled,
                events=list(one.events),
                all_events=one.takes_all,
            )
            for one in (in_force(ask, ask.tenant.id, each) for each in newest_first(ask.tenant.webhooks))
        ]
    )


async def retrieve(ask: Ask[Nothing, Nothing]) -> Webhook:
    """One webhook."""
    return _shape(_find(ask).webhook)


async def update(ask: Ask[Nothing, WebhookChange]) -> Webhook:
    """Change a webhook; it is in force from the answer on."""
    hook, body = Hook(ask.tenant.id, pick(ask.tenant.webhooks, ask.path("webhookId"))), ask.body
    wish = Wish(name=body.name, url=body.url, events=body.events, all_events=body.all_events, enabled=body.enabled)
    with changing(ask):
        return _shape(await ask.parts.hook_settings.change(ask.caller.tenant_id, hook, wish))


async def delete(ask: Ask[Nothing, Nothing]) -> Message:
    """Remove a webhook: nothing is posted to it any more."""
    hook = _find(ask)
    with changing(ask):
        await ask.parts.hook_settings.remove(ask.caller.tenant_id, hook)
    return Message(message=f"Webhook {hook.webhook.id} is removed.")


async def list_attempts(ask: Ask[DeliveryList, Nothing]) -> Page[WebhookDelivery]:
    """One page of what was posted to it, newest first."""
    hook, query = _find(ask), ask.query
    filters = Filters(
        owner=ask.tenant.id,
        webhook_id=hook.webhook.id,
        event=query.event,
        success=query.success,
        after=query.after,
        before=query.before,
    )
    rows, total = await ask.parts.store.read(lambda db: list_deliveries(db, filters, query.page, query.per_page))
    return Page([WebhookDelivery(**attempt_of(one)) for one in rows], query.page, query.per_page, total)


async def retrieve_attempt(ask: Ask[Nothing, Nothing]) -> WebhookDeliveryDetail:
    """One attempt, with what was sent and what came back."""
    hook = _find(ask)
    one = await posted(ask, hook.owner, hook.webhook.id)
    return WebhookDeliveryDetail(
        **attempt_of(one),
        webhook_name=hook.webhook.name,
        request=request_of(one),
        response=EndpointResponse(
            status_code=one.answer.status,
            body=one.answer.body if one.answer.status is not None else None,
            error=one.answer.error,
        ),
    )


async def replay(ask: Ask[Nothing, Nothing]) -> Replayed:
    """Post again what was posted, with a new time and signature; the answer says how it went."""
    hook = _find(ask)
    return await replayed(ask, hook, await posted(ask, hook.owner, hook.webhook.id))


async def test(ask: Ask[Nothing, TestEvent]) -> Tested:
    """Post an example of an event, subscribed to or not; the answer says how it went, and is 200 either way."""
    one = await tested(ask, _find(ask), ask.body.event)
    answer = one.answer
    return Tested(
        success=answer.success,
        event=one.event,
        status_code=answer.status,
        duration=milliseconds(one),
        body=answer.body if answer.status is not None else None,
        error=answer.error,
        delivery_id=one.public_id,
    )


def _find(ask: Ask[Any, Any]) -> Hook:
    tenant = ask.tenant
    return Hook(tenant.id, in_force(ask, tenant.id, pick(tenant.webhooks, ask.path("webhookId"))))


def _shape(one: Configured) -> Webhook:
    return Webhook(
        id=one.id,
        uuid=one.uuid,
        name=one.name,
        url=one.url,
        events=list(one.events),
        all_events=one.takes_all,
        enabled=one.enabled,
        created_at=one.created_at,
    )
