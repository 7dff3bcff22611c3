"""Webhooks that a person makes, changes and removes over HTTP: what REST and the dashboard let through, and write.

A URL is looked at when it is given, as far as its text tells; where it leads is judged at each post. What is refused
is a ChangeRefused that names the setting, and then nothing is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from arkrelay.config import tenants
from arkrelay.config.live import Live
from arkrelay.model.errors import Conflict
from arkrelay.model.tenant import Webhook
from arkrelay.relay.hooks import Hook, Hooks
from arkrelay.relay.hooktargets import Targets
from arkrelay.relay.settings import ChangeRefused, Editor

NAME_CHARS: Final = 1000  # as long as any line that the API takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a webhook is to be; None: as it is, or for a new one as the contract has it (§8.9)."""

    name: str | None = None
    url: str | None = None
    events: Sequence[str] | None = None
    all_events: bool | None = None
    enabled: bool | None = None


class HookSettings:
    """Changes the webhooks of tenants, and for the owner None the platform's.

    ``asker`` is the tenant whose key asks, None for the organisation: what it is told of a failure depends on that.
    Whether it may ask at all is for the caller to know. NotFound and Conflict as ``config.tenants`` raises them.
    """

    def __init__(self, live: Live, editor: Editor, hooks: Hooks, targets: Targets) -> None:
        self._live, self._editor, self._hooks, self._targets = live, editor, hooks, targets

    def in_force(self, owner: str | None, webhook: Webhook) -> Webhook:
        """Return a webhook as it is in force: not enabled after its endpoint said that it is gone."""
        return self._targets.effective(owner, webhook)

    async def add(self, asker: str | None, owner: str | None, name: str, url: str, wish: Wish) -> Webhook:
        """Return a new webhook, in force; who says nothing about events gets all."""
        self._check(name, url)
        snapshot = self._live.snapshot
        tenant, most = snapshot.tenants.get(owner or ""), snapshot.settings.webhooks.max_per_tenant
        if tenant is not None and len(tenant.webhooks) >= most:
            raise Conflict(f"A tenant may have {most} webhooks ([webhooks] max_per_tenant): remove one first.")
        all_ = not wish.events if wish.all_events is None else wish.all_events
        settings = {**subscription(wish.events, all_=all_), "enabled": wish.enabled is not False}
        return await self._editor.change(
            asker, lambda: tenants.add_webhook(self._live.snapshot, owner, name, url, **settings)
        )

    async def change(self, asker: str | None, hook: Hook, wish: Wish) -> Webhook:
        """Return the webhook as it is from now on; ``hook`` is what its file says.

        ``events`` alone end ``all_events``. To enable one undoes also what the relay itself did to it.
        """
        owner, webhook = hook.owner, hook.webhook
        self._check(wish.name, wish.url)
        changes: dict[str, Any] = {"name": wish.name, "url": wish.url, "enabled": wish.enabled}
        changes = {key: value for key, value in changes.items() if value is not None}
        if wish.events is not None or wish.all_events is not None:
            changes |= subscription(wish.events or webhook.events, all_=bool(wish.all_events))
        if wish.enabled and webhook.enabled:
            del changes["enabled"]  # its file says so already
        if changes:
            webhook = await self._editor.change(
                asker, lambda: tenants.change_webhook(self._live.snapshot, owner, webhook.id, changes)
            )
        if wish.enabled:
            await self._targets.enable(owner, webhook.id)
        return self.in_force(owner, webhook)

    async def remove(self, asker: str | None, hook: Hook) -> None:
        """Remove a webhook: nothing is posted to it any more."""
        await self._editor.change(
            asker, lambda: tenants.remove_webhook(self._live.snapshot, hook.owner, hook.webhook.id)
        )

    def _check(self, name: str | None, url: str | None) -> None:
        """Refuse what nothing would ever be posted to, with the reason."""
        if name is not None and len(name) > NAME_CHARS:
            raise ChangeRefused("unfit", f"name: is longer than {NAME_CHARS} characters.", "name")
        reason = None if url is None else self._hooks.refusal(url)
        if reason is not None:
            raise ChangeRefused("unfit", f"url: {reason}.", "url")


def subscription(events: Sequence[str] | None, *, all_: bool) -> dict[str, Any]:
    """Return the settings of ``[[webhooks]]`` for all events, or for those that are named, or for none."""
    if all_:
        return {"events": None, "all_events": None}
    return {"events": list(dict.fromkeys(events or ())), "all_events": None if events else False}
