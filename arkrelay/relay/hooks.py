"""Post one event to one webhook: signed, sent, recorded; and the two posts that a person asks for, test and replay.

``tell`` and ``post`` are what ``hookqueue`` needs, which decides when; ``attempt`` leaves the record on disk as well.
What is told about an event, and the form of a body, is decided in ``policy.payloads``.
"""

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import structlog

from arkrelay import __version__
from arkrelay.base.metrics import Metrics
from arkrelay.config.hookkeys import HookKeys
from arkrelay.config.ids import stable_uuid
from arkrelay.config.live import Live, Snapshot
from arkrelay.model.errors import Conflict
from arkrelay.model.hook import HookDelivery, HookJob
from arkrelay.model.tenant import Webhook
from arkrelay.policy.payloads import body_of, payload_of, refreshed
from arkrelay.policy.route import parse_networks
from arkrelay.policy.samples import sample
from arkrelay.store.database import Store
from arkrelay.store.hooks import insert_delivery
from arkrelay.wire.https import Poster

log = structlog.get_logger()

PREFIX, PLATFORM_PREFIX = "whr_", "pwd_"  # of delivery ids (Ark contract §7)


@dataclass(frozen=True, slots=True)
class Hook:
    """A webhook and whose it is: a tenant's, or for None the platform's."""

    owner: str | None
    webhook: Webhook


@dataclass(frozen=True, slots=True)
class Told:
    """What is told to a webhook: the event's name, the tenant that it is about, and the body."""

    event: str
    tenant_id: str
    body: Mapping[str, Any]


def server_of(snapshot: Snapshot, tenant_id: str) -> dict[str, Any]:
    """Return a tenant as payloads show it (Ark contract §11.2, ``server``)."""
    tenant = snapshot.tenants.get(tenant_id)
    return {
        "uuid": stable_uuid("tenant", "", tenant_id),
        "name": tenant_id if tenant is None else tenant.name,
        "permalink": tenant_id,
        "organization": snapshot.settings.hostname,
    }


def new_uuid() -> str:
    """Return a new id by which receivers know a repeat."""
    return str(uuid.uuid4())


class Hooks:
    """Makes attempts at webhooks."""

    def __init__(
        self,
        store: Store,
        live: Live,
        poster: Poster,
        keys: HookKeys,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._live = live
        self._poster = poster
        self._metrics = metrics
        self._clock = clock
        self.keys = keys
        self.on_taken: Callable[[Hook], Awaitable[None]] | None = (
            None  # told of what a person had posted, and was taken
        )

    def refusal(self, url: str) -> str | None:
        """Return why nothing would ever be posted to this URL, as far as that shows without a look-up, or None."""
        settings = self._live.snapshot.settings.webhooks
        return self._poster.refusal(url, parse_networks(settings.allow_destinations), allow_http=settings.allow_http)

    async def attempt(self, hook: Hook, told: Told, *, number: int = 1, last: bool = True) -> HookDelivery:
        """Post once, and return the record of it, which is on disk; see ``post``.

        With ``last`` a failure will not be tried again. Raises StoreError when the attempt could not be recorded: it
        was made all the same.
        """
        made = await self.post(hook, told, number=number)
        delivery = replace(made, will_retry=not made.answer.success and not last)
        await self._store.write(lambda db: insert_delivery(db, delivery))
        if delivery.answer.success and self.on_taken is not None:
            await self.on_taken(hook)
        return delivery

    async def post(self, hook: Hook, told: Told, *, number: int = 1) -> HookDelivery:
        """Post once, and return the record of it, which is to be kept; ``number`` counts attempts at an event from 1.

        The body goes out in the bytes that are signed and kept.
        """
        settings = self._live.snapshot.settings.webhooks
        content = json.dumps(told.body, separators=(",", ":"), allow_nan=False)
        kid, signature = await asyncio.to_thread(self.keys.sign, content.encode("ascii"))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"arkrelay/{__version__}",
            "X-Ark-Signature": signature,
            "X-Ark-Signature-KID": kid,
        }
        at = self._clock()
        answer = await self._poster.post(
            hook.webhook.url,
            content.encode("ascii"),
            headers,
            timeout_s=settings.timeout_s,
            allow=parse_networks(settings.allow_destinations),
            allow_http=settings.allow_http,
        )
        delivery = HookDelivery(
            public_id=(PLATFORM_PREFIX if hook.owner is None else PREFIX) + self._store.new_token(at),
            owner=hook.owner or "",
            webhook_id=hook.webhook.id,
            webhook_name=hook.webhook.name,
            tenant_id=told.tenant_id,
            event=told.event,
            url=hook.webhook.url,
            attempt=number,
            will_retry=False,
            at=at,
            headers=headers,
            body=content,
            answer=answer,
        )
        self.count("taken" if answer.success else "failed")
        log.info(
            "webhook_posted",
            webhook=hook.webhook.id,
            tenant=told.tenant_id,
            hook_event=told.event,
            delivery=delivery.public_id,
            attempt=number,
            status=answer.status,
            error=answer.error,
            seconds=round(answer.duration_s, 3),
        )
        return delivery

    def count(self, result: str) -> None:
        """Count an event that was posted, or dropped because retention had taken it."""
        self._metrics.webhook_posts.labels(result).inc()

    def tell(self, hook: Hook, job: HookJob) -> Told | None:
        """Return what ``hook`` is told of a job's event if it is posted now; None: retention has taken it."""
        event = job.event
        if event is None:
            return None
        snapshot, tenant_id = self._live.snapshot, event.tenant_id or ""
        payload = payload_of(event, job.recipient, server_of(snapshot, tenant_id))
        if payload is None:
            return None
        body = body_of(
            event.kind,
            payload,
            form=snapshot.settings.webhooks.body,
            uuid=job.uuid,
            at=self._clock(),
            tenant_id=tenant_id if hook.owner is None else None,
        )
        return Told(event.kind, tenant_id, body)

    async def test(self, hook: Hook, event: str) -> HookDelivery:
        """Post sample data of this event, whatever the webhook is subscribed to (Ark contract §11.5).

        Also to a disabled one: no event goes there, and a person wants to know before enabling it whether one could.
        Raises ValueError for an event that is never told.
        """
        snapshot, now = self._live.snapshot, self._clock()
        platform = hook.owner is None
        tenant_id = _example_tenant(snapshot) if hook.owner is None else hook.owner
        body = body_of(
            event,
            sample(event, now, server_of(snapshot, tenant_id)),
            form=snapshot.settings.webhooks.body,
            uuid=new_uuid(),
            at=now,
            tenant_id=tenant_id if platform else None,
            test=platform,
        )
        return await self.attempt(hook, Told(event, tenant_id, body))

    async def replay(self, hook: Hook, delivery: HookDelivery) -> HookDelivery:
        """Post what was posted before, with a new time, uuid and signature, to where the webhook points now.

        It is not tried again when it fails (Ark contract §11.5). Raises Conflict for a disabled webhook.
        """
        if not hook.webhook.enabled:
            raise Conflict("The webhook is disabled and receives nothing: enable it first.")
        body = refreshed(json.loads(delivery.body), uuid=new_uuid(), at=self._clock())
        return await self.attempt(hook, Told(delivery.event, delivery.tenant_id, body))


def _example_tenant(snapshot: Snapshot) -> str:
    """Return the tenant that a test of a platform webhook is about: the default one, else the first."""
    return snapshot.settings.default_tenant or next(iter(sorted(snapshot.tenants)), "example")
