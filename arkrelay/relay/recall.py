"""What is in memory when its address joins the suppression list is taken back, and held like all other mail to it.

The list is read where mail is accepted and where it is claimed, in one statement for many. A slow peer may keep what
was read then in memory for hours; so whoever writes an entry says for whom, and only where something in memory is for
the same address the list is read once more. What a peer is hearing of just now cannot be taken back: it goes, unless
its connection ends before its turn.
"""

from collections.abc import Callable, Iterable

import structlog

from arkrelay.base.tasks import Tasks
from arkrelay.model.address import address_key
from arkrelay.model.errors import StoreError
from arkrelay.model.message import HoldReason, Recipient
from arkrelay.policy.schedule import Schedule
from arkrelay.store.database import Store
from arkrelay.store.suppressions import among, reason_for

log = structlog.get_logger()


class Recall:
    """Finds recipients in memory whose address was suppressed; ``hold`` is given each with the reason on the list."""

    def __init__(self, store: Store, schedule: Schedule, hold: Callable[[Recipient, str], None]) -> None:
        self._store = store
        self._schedule = schedule
        self._hold = hold
        self._asked: dict[str, set[str]] = {}  # tenant → keys of addresses
        self._in_hand: dict[int, Recipient] = {}  # of connections
        self._reasons: dict[int, str] = {}  # of those in hand whose address was suppressed meanwhile
        self._tasks = Tasks()

    def ask(self, tenant_id: str, addresses: Iterable[str]) -> None:
        """These addresses may have joined the tenant's list, and are on disk there; others do no harm."""
        if not self._asked:
            # not at once: who claimed in the same transaction has yet to hear of it, and does so before this task
            self._tasks.spawn("recall", self._run())
        self._asked.setdefault(tenant_id, set()).update(map(address_key, addresses))

    def taken(self, recipient: Recipient) -> None:
        """A connection has this recipient in hand."""
        self._in_hand[recipient.id] = recipient

    def finished(self, recipient: Recipient) -> str | None:
        """No connection has it in hand any more; return why it must not go to another one, or None."""
        self._in_hand.pop(recipient.id, None)
        return self._reasons.pop(recipient.id, None)

    async def _run(self) -> None:
        asked, self._asked = self._asked, {}
        for tenant_id, keys in asked.items():
            # a person has passed over the list for what bears this reason (see settle)
            met = {
                key
                for one in (*self._ready(tenant_id), *self._in_hand.values())
                if one.message.tenant_id == tenant_id
                and one.hold_reason is not HoldReason.SUPPRESSED
                and (key := address_key(one.address)) in keys
            }
            if met:
                await self._recall(tenant_id, met)

    async def _recall(self, tenant_id: str, keys: set[str]) -> None:
        try:
            found = await self._store.read(lambda db: among(db, tenant_id, keys))
        except StoreError as error:
            log.warning("suppressed_not_recalled", tenant=tenant_id, error=str(error))
            return

        def reason(one: Recipient) -> str | None:
            if one.hold_reason is HoldReason.SUPPRESSED:
                return None
            return reason_for(found, address_key(one.address), one.message.tag, one.message.stream)

        for lane in self._schedule.lanes.values():
            share = lane.shares.get(tenant_id)
            if share is None or not share.ready:
                continue
            for one in share.take_if(lambda one: reason(one) is not None):
                self._hold(one, reason(one) or "")
        for one in self._in_hand.values():
            if one.message.tenant_id == tenant_id and (why := reason(one)) is not None:
                self._reasons[one.id] = why

    def _ready(self, tenant_id: str) -> Iterable[Recipient]:
        for lane in self._schedule.lanes.values():
            share = lane.shares.get(tenant_id)
            if share is not None:
                yield from share.first
                yield from share.bulk
