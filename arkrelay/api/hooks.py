"""What webhooks of tenants and of the platform share: names of events, URLs, tests, replays (Ark contract §11)."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from arkrelay.api.ask import Ask
from arkrelay.api.model import Answer, Body, Meta
from arkrelay.api.refusal import ApiError
from arkrelay.api.settings import require_changer
from arkrelay.api.shapes import iso
from arkrelay.model.hook import HookDelivery
from arkrelay.model.tenant import Webhook as Configured
from arkrelay.relay.hooks import Hook
from arkrelay.store.hooks import find_delivery

EventName = Literal[
    "MessageSent",
    "MessageDelayed",
    "MessageDeliveryFailed",
    "MessageHeld",
    "MessageBounced",
    "MessageLoaded",
    "MessageLinkClicked",
    "DomainDNSError",
]
# who takes all events is told of these too, though they cannot be named (Ark contract §11.1)
ToldEvent = Literal[EventName, "SendLimitApproaching", "SendLimitExceeded"]
Url = Annotated[str, Meta(min_length=1, max_length=2000)]
Moment = Annotated[int, Meta(ge=0, le=2**40)]  # Unix seconds


class TestEvent(Body):
    """Of which event an example is to be posted."""

    event: EventName


class SentRequest(Answer):
    """What was posted: the headers, with the signature, and the body."""

    headers: dict[str, str]
    payload: dict[str, Any]


class Replayed(Answer):
    """The result of posting a delivery again, which is a delivery of its own."""

    success: bool
    original_delivery_id: str
    new_delivery_id: str
    status_code: int | None
    duration: int
    timestamp: str


async def replayed(ask: Ask[Any, Any], hook: Hook, original: HookDelivery) -> Replayed:
    """Post a delivery again; 409 for a webhook that is disabled."""
    require_changer(ask)
    new = await ask.parts.hooks.replay(hook, original)
    return Replayed(
        success=new.answer.success,
        original_delivery_id=original.public_id,
        new_delivery_id=new.public_id,
        status_code=new.answer.status,
        duration=milliseconds(new),
        timestamp=iso(new.at),
    )


async def tested(ask: Ask[Any, Any], hook: Hook, event: str) -> HookDelivery:
    """Post an example of an event."""
    require_changer(ask)
    return await ask.parts.hooks.test(hook, event)


def in_force(ask: Ask[Any, Any], owner: str | None, webhook: Configured) -> Configured:
    """Return a webhook as it is in force: not enabled after its endpoint said that it is gone."""
    return ask.parts.hook_settings.in_force(owner, webhook)


def milliseconds(delivery: HookDelivery) -> int:
    """Return how long the endpoint took."""
    return round(delivery.answer.duration_s * 1000)


def pick(webhooks: Sequence[Configured], wanted: str) -> Configured:
    """Return the webhook with this id or uuid, or raise 404."""
    found = next((one for one in webhooks if wanted in {one.id, one.uuid}), None)
    if found is None:
        raise ApiError(404, "not_found", f"There is no webhook {wanted[:100]}.")
    return found


async def posted(ask: Ask[Any, Any], owner: str | None, webhook_id: str | None = None) -> HookDelivery:
    """Return the delivery that the path names, of this owner and webhook, or raise 404."""
    wanted = ask.path("deliveryId")
    found = await ask.parts.store.read(lambda db: find_delivery(db, owner or "", wanted, webhook_id))
    if found is None:
        raise ApiError(404, "not_found", f"There is no delivery {wanted[:100]}.")
    return found


def attempt_of(one: HookDelivery) -> dict[str, Any]:
    """Return what every list says of an attempt."""
    return {
        "id": one.public_id,
        "webhook_id": one.webhook_id,
        "event": one.event,
        "url": one.url,
        "attempt": one.attempt,
        "status_code": one.answer.status,
        "success": one.answer.success,
        "will_retry": one.will_retry,
        "timestamp": iso(one.at),
        "error": one.answer.error,
    }


def request_of(one: HookDelivery) -> SentRequest:
    """Return what was posted."""
    return SentRequest(headers=dict(one.headers), payload=json.loads(one.body))
