"""When a site rejects so many recipients at once that it is not the recipients: the burst guard of suppression.

For each site the recipients that it took or refused for good are counted over the last hour, in slots of five
minutes. When more than so many per cent of enough of them were refused as unknown, the site is not believed for an
hour after the last time that this was so.

What a tenant's own recipients show counts for that tenant alone: a bad list of one must not let the dead addresses of
another be mailed again and again. What all tenants' recipients together show counts for everybody when at least two
tenants have seen it, and then it is our address that the site does not want. No tenant is told another's numbers.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

WINDOW_S = 3600.0
SLOT_S = 300.0
SITES = 4096  # the one that was quiet longest goes; 2 MB or so with a tenant or two at each
WITNESS = 5  # a tenant has seen it with a fifth of the recipients that are enough: one dead address is no evidence
EVERYBODY = ""  # in the place of a tenant


@dataclass(slots=True)
class _Slot:
    number: int
    counts: dict[str, list[int]] = field(default_factory=dict)  # tenant, or EVERYBODY → ended, and blamed of these


@dataclass(frozen=True, slots=True)
class Burst:
    """Why a site is not believed: of ``seen`` recipients within an hour, ``failed`` were called unknown.

    They are the tenant's own, or without ``tenant_id`` those of all tenants.
    """

    site: str
    tenant_id: str | None
    failed: int
    seen: int
    until: float

    def __str__(self) -> str:
        if self.tenant_id is None:
            return f"{self.site} refused too many recipients of several senders as unknown within an hour"
        return f"{self.site} refused {self.failed} of {self.seen} recipients as unknown within an hour"


@dataclass(slots=True)
class _Site:
    slots: deque[_Slot] = field(default_factory=deque)
    bursts: dict[str, Burst] = field(default_factory=dict)  # tenant, or EVERYBODY

    def count(self, tenant_id: str, now: float, *, blamed: bool) -> None:
        """Count one recipient, and forget what is older than the window, or from a clock that was ahead."""
        slots, number = self.slots, int(now // SLOT_S)
        if not slots or slots[-1].number != number:
            slots.append(_Slot(number))
            while slots[0].number <= number - WINDOW_S // SLOT_S or slots[0].number > number:
                slots.popleft()
        counts = slots[-1].counts
        for name in (EVERYBODY, tenant_id):
            both = counts.get(name)
            if both is None:
                both = counts[name] = [0, 0]
            both[0] += 1
            both[1] += blamed

    def sums(self, tenant_id: str) -> tuple[int, int]:
        """Return how many recipients have ended, and how many of them were called unknown."""
        counts = [slot.counts[tenant_id] for slot in self.slots if tenant_id in slot.counts]
        return sum(one[0] for one in counts), sum(one[1] for one in counts)

    def tenants(self) -> set[str]:
        """Return the tenants of which something is counted."""
        return {tenant_id for slot in self.slots for tenant_id in slot.counts if tenant_id != EVERYBODY}


@dataclass(frozen=True, slots=True)
class Counted:
    """What is known of a site and outlives the process: the counts of each slot, and the bursts."""

    site: str
    slots: list[tuple[int, dict[str, list[int]]]]
    bursts: list[Burst]


class Bursts:
    """The counts of all sites; not for several threads."""

    def __init__(self) -> None:
        self._sites: dict[str, _Site] = {}
        self.changed: set[str] = set()  # sites that called somebody unknown since ``counted`` took them

    def note(
        self, site: str, tenant_id: str, now: float, *, blamed: bool, percent: float, least: int
    ) -> tuple[Burst, ...]:
        """Count one recipient that ended at ``site``; return the bursts that begin with it.

        ``percent`` or ``least`` of 0 counts and never finds one.
        """
        found = self._sites.get(site)
        if found is None:
            if len(self._sites) >= SITES:
                self._sites.pop(min(self._sites, key=lambda name: _last(self._sites[name])))
            found = self._sites[site] = _Site()
        found.count(tenant_id, now, blamed=blamed)
        if not blamed:
            return ()
        self.changed.add(site)
        if not percent or not least:
            return ()
        both = (self._begin(site, found, name, now, percent, least) for name in (tenant_id, EVERYBODY))
        return tuple(one for one in both if one is not None)

    @staticmethod
    def _begin(site: str, found: _Site, name: str, now: float, percent: float, least: int) -> Burst | None:
        """Let a burst begin, or go on, where the counts say so; return one that begins."""
        seen, failed = found.sums(name)
        if seen < least or failed * 100 <= seen * percent:
            return None
        if name == EVERYBODY and not _has_two_witnesses(found, percent, least):
            return None
        before = found.bursts.get(name)
        burst = found.bursts[name] = Burst(site, name or None, failed, seen, now + WINDOW_S)
        return burst if before is None or before.until <= now else None

    def burst(self, site: str, tenant_id: str, now: float) -> Burst | None:
        """Return why the site is not believed now when it is about this tenant's recipients, or None."""
        found = self._sites.get(site)
        if found is None or not found.bursts:
            return None
        some = (found.bursts.get(name) for name in (tenant_id, EVERYBODY))
        return next((one for one in some if one is not None and one.until > now), None)

    def lasting(self, now: float) -> list[Burst]:
        """Return all bursts that are not over."""
        return [one for site in self._sites.values() for one in site.bursts.values() if one.until > now]

    def tenants_at(self, site: str) -> set[str]:
        """Return the tenants whose recipients a site has judged within the hour."""
        found = self._sites.get(site)
        return set() if found is None else found.tenants()

    def counted(self) -> list[Counted]:
        """Return the sites that have changed since the last call, to be kept."""
        found = [
            Counted(
                name,
                [(slot.number, {key: list(both) for key, both in slot.counts.items()}) for slot in site.slots],
                list(site.bursts.values()),
            )
            for name in self.changed
            if (site := self._sites.get(name)) is not None
        ]
        self.changed.clear()
        return found

    def restore(self, counted: Iterable[Counted], now: float) -> None:
        """Take over what was kept, as far as it still means something."""
        oldest = now // SLOT_S - WINDOW_S // SLOT_S
        for one in counted:
            slots = deque(_Slot(number, counts) for number, counts in one.slots if oldest < number <= now // SLOT_S)
            bursts = {burst.tenant_id or EVERYBODY: burst for burst in one.bursts if burst.until > now}
            if slots or bursts:
                self._sites[one.site] = _Site(slots, bursts)


def _has_two_witnesses(site: _Site, percent: float, least: int) -> bool:
    witnesses = 0
    for tenant_id in site.tenants():
        seen, failed = site.sums(tenant_id)
        witnesses += seen * WITNESS >= least and failed * 100 > seen * percent
    return witnesses > 1


def _last(site: _Site) -> int:
    return site.slots[-1].number if site.slots else 0
