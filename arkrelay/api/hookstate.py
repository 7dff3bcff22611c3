"""How webhooks fare: what waits for each, what it answered last, when it is asked next; beyond Ark's contract."""

from typing import Annotated

from arkrelay.api.ask import Ask
from arkrelay.api.hooks import pick
from arkrelay.api.model import Answer, Body, Line, Meta, Nothing
from arkrelay.api.refusal import ApiError
from arkrelay.api.shapes import Iso, iso
from arkrelay.relay.hooktargets import EndpointView


class WebhookState(Answer):
    """One webhook; ``tenantId`` null: the platform's. ``parked`` counts events whose schedule is over."""

    id: str
    tenant_id: str | None
    name: str
    url: str
    enabled: bool
    waiting: int
    parked: int
    failures: int
    status_code: int | None
    error: str | None
    answered_at: Iso | None
    next_at: Iso | None
    rest_until: Iso | None
    gone_at: Iso | None


class WebhookStates(Answer):
    """Every webhook."""

    webhooks: list[WebhookState]


class Again(Body):
    """Which parked events are to be posted again: from this moment on (Unix seconds), of all webhooks or of some."""

    since: Annotated[float, Meta(ge=0, le=2**40)] = 0.0
    tenant_id: Line | None = None
    platform: bool = False
    webhook_id: Line | None = None


class Replaying(Answer):
    """How many events wait again."""

    replayed: int


async def list_all(ask: Ask[Nothing, Nothing]) -> WebhookStates:
    """How each webhook fares."""
    return WebhookStates(webhooks=[_shape(one) for one in await ask.parts.hook_queue.targets.look()])


async def replay(ask: Ask[Nothing, Again]) -> Replaying:
    """Let parked events be posted again, with the ids that they had."""
    body, tenants = ask.body, ask.snapshot.tenants
    if body.platform and body.tenant_id is not None:
        raise ApiError(400, "validation_error", "Give tenantId or platform, not both.", field="platform")
    if body.tenant_id is not None and body.tenant_id not in tenants:
        raise ApiError(404, "not_found", f"There is no tenant {body.tenant_id[:100]}.")
    owner = "" if body.platform else body.tenant_id
    if body.webhook_id is not None:
        known = {id_: tenant.webhooks for id_, tenant in tenants.items()} | {"": ask.snapshot.platform.webhooks}
        pick([one for id_ in known if owner in {None, id_} for one in known[id_]], body.webhook_id)
    return Replaying(replayed=await ask.parts.hook_queue.targets.put_back(owner, body.webhook_id, body.since))


def _shape(one: EndpointView) -> WebhookState:
    row, webhook = one.row, one.webhook
    return WebhookState(
        id=webhook.id,
        tenant_id=row.owner or None,
        name=webhook.name,
        url=webhook.url,
        enabled=webhook.enabled,
        waiting=row.waiting,
        parked=row.parked,
        failures=row.failures,
        status_code=row.status,
        error=row.error,
        answered_at=iso(row.answered_at),
        next_at=iso(one.next_at),
        rest_until=iso(row.rest_until),
        gone_at=iso(row.gone_at),
    )
