"""How much each tenant has sent this hour and this month, exact under parallel senders.

The numbers live in the database, written in the transaction that accepts the mail; here is a copy in memory
that is read and raised in one step of the event loop, so two senders can never both take the last place.

Time goes forwards here. A message that took long to come in bears a time of the hour before: it counts in this one,
and clears nothing.
"""

import time
from dataclasses import dataclass, field

from arkrelay.model.event import Event
from arkrelay.policy.limits import hour_start, month_start
from arkrelay.store.database import Store
from arkrelay.store.usage import granted_since, told_in, told_of

HOUR_S = 3600


@dataclass(slots=True)
class _Count:
    hour: int
    in_hour: int
    month: tuple[int, int]
    in_month: int
    told: set[str] = field(default_factory=set)  # of the hour's limit: see ``told_of``


class Meter:
    """Recipients accepted per tenant, in the current hour (from the top, UTC) and calendar month (UTC)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counts: dict[str, _Count] = {}

    async def load(self, tenant_ids: list[str]) -> None:
        """Read what was used before this start; a tenant that is not loaded begins at zero."""
        now = time.time()
        for tenant_id in tenant_ids:
            hour, month, told = await self._store.read(
                lambda db, tenant_id=tenant_id: (  # type: ignore[misc]  # mypy cannot type a default in a lambda
                    granted_since(db, tenant_id, hour_start(now)),
                    granted_since(db, tenant_id, month_start(now)),
                    told_in(db, tenant_id, now),
                )
            )
            self._counts[tenant_id] = _Count(_hour(now), hour, _month(now), month, set(told))

    def used(self, tenant_id: str, now: float) -> tuple[int, int]:
        """Return the recipients of this hour and of this month."""
        count = self._count(tenant_id, now)
        return count.in_hour, count.in_month

    def add(self, tenant_id: str, recipients: int, now: float) -> None:
        """Count recipients; negative when their message did not come about after all.

        What was counted in an hour that is over is given back to its month alone.
        """
        count = self._count(tenant_id, now)
        if recipients < 0 and _hour(now) < count.hour:
            if _month(now) == count.month:
                count.in_month = max(0, count.in_month + recipients)
            return
        count.in_hour = max(0, count.in_hour + recipients)
        count.in_month = max(0, count.in_month + recipients)

    def tells(self, event: Event) -> bool:
        """Return whether this is to be told of its limit: once in an hour, over restarts too."""
        told = self._count(event.tenant_id or "", event.at).told
        if told_of(event) in told:
            return False
        told.add(told_of(event))
        return True

    def untold(self, event: Event) -> None:
        """Take back that something was told: the message that told it did not come about."""
        count = self._count(event.tenant_id or "", event.at)
        if _hour(event.at) == count.hour:
            count.told.discard(told_of(event))

    def _count(self, tenant_id: str, now: float) -> _Count:
        count = self._counts.get(tenant_id)
        if count is None:
            count = self._counts[tenant_id] = _Count(_hour(now), 0, _month(now), 0)
        hour, month = _hour(now), _month(now)
        if hour > count.hour:
            count.hour, count.in_hour, count.told = hour, 0, set()
            if month != count.month:  # a month begins with an hour
                count.month, count.in_month = month, 0
        elif hour < count.hour - 1:  # the clock was set back: what was counted stays, until an hour of it is over
            count.hour, count.month = hour, month
        return count


def _hour(now: float) -> int:
    return int(now // HOUR_S)


def _month(now: float) -> tuple[int, int]:
    moment = time.gmtime(now)
    return moment.tm_year, moment.tm_mon
