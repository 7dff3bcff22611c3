"""When a site rejects so many recipients at once that it is not the recipients: the burst guard of suppression.

For each site the recipients that it took or refused for good are counted over the last hour, in slots of five
minutes. When more than so many per cent of enough of them were refused as unknown, the site is not believed for an
hour after the last time that this was so. All tenants count together: what a site thinks of our address, it thinks of
it for all.
"""

from collections import deque
from dataclasses import dataclass, field

WINDOW_S = 3600.0
SLOT_S = 300.0
SITES = 4096  # the one that was quiet longest goes; 2 MB at most


@dataclass(slots=True)
class _Slot:
    number: int
    ended: int = 0
    blamed: int = 0


@dataclass(slots=True)
class _Site:
    slots: deque[_Slot] = field(default_factory=deque)
    until: float = 0.0  # not believed before then
    failed: int = 0
    seen: int = 0


@dataclass(frozen=True, slots=True)
class Burst:
    """Why a site is not believed: of ``seen`` recipients within an hour, ``failed`` were called unknown."""

    site: str
    failed: int
    seen: int
    until: float

    def __str__(self) -> str:
        return f"{self.site} refused {self.failed} of {self.seen} recipients as unknown within an hour"


class Bursts:
    """The counts of all sites; not for several threads."""

    def __init__(self) -> None:
        self._sites: dict[str, _Site] = {}

    def note(self, site: str, now: float, *, blamed: bool, percent: float, least: int) -> bool:
        """Count one recipient that ended at ``site``; return True when from now on the site is not believed.

        ``percent`` or ``least`` of 0 counts and never trips.
        """
        found = self._sites.get(site)
        if found is None:
            if len(self._sites) >= SITES:
                self._sites.pop(min(self._sites, key=lambda name: _last(self._sites[name])))
            found = self._sites[site] = _Site()
        slots, number = found.slots, int(now // SLOT_S)
        if not slots or slots[-1].number != number:
            slots.append(_Slot(number))
            while slots[0].number <= number - WINDOW_S // SLOT_S or slots[0].number > number:
                slots.popleft()
        slots[-1].ended += 1
        if not blamed:
            return False
        slots[-1].blamed += 1
        seen, failed = sum(slot.ended for slot in slots), sum(slot.blamed for slot in slots)
        if not percent or not least or seen < least or failed * 100 <= seen * percent:
            return False
        new = found.until <= now
        found.until, found.failed, found.seen = now + WINDOW_S, failed, seen
        return new

    def burst(self, site: str, now: float) -> Burst | None:
        """Return why the site is not believed now, or None."""
        found = self._sites.get(site)
        if found is None or found.until <= now:
            return None
        return Burst(site, found.failed, found.seen, found.until)


def _last(site: _Site) -> int:
    return site.slots[-1].number if site.slots else 0
