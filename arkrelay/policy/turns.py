"""Whose turn it is when one connection to a site is free and several destinations wait for it.

A provider hosts a thousand domains, and each is a destination. Who waits is therefore not asked in the order of
coming but by tenant: the one whose mail went to the site longest ago comes first, so that one tenant's thousand
destinations cost another's single mail one turn.
"""

from collections.abc import Iterable, Mapping

MAX_SITES = 1000  # with tenants remembered; the site that was served longest ago is forgotten first
MAX_TENANTS = 1000  # remembered of a site


class Turns:
    """The order in which tenants were served, site by site."""

    __slots__ = ("_count", "_served")

    def __init__(self) -> None:
        self._count = 0
        self._served: dict[str, dict[str, int]] = {}

    def served(self, site: str, tenant_id: str) -> None:
        """Remember that a message of this tenant went to ``site``."""
        self._count += 1
        tenants = self._served.pop(site, None) or {}
        self._served[site] = tenants
        tenants.pop(tenant_id, None)
        tenants[tenant_id] = self._count
        if len(tenants) > MAX_TENANTS:
            del tenants[next(iter(tenants))]
        if len(self._served) > MAX_SITES:
            del self._served[next(iter(self._served))]

    def next(self, site: str, waiting: Iterable[tuple[str, Mapping[str, object]]]) -> str | None:
        """Return the destination to be served next, out of (destination, its tenants) in the order of coming."""
        served = self._served.get(site, {})
        best: tuple[int, str] | None = None
        for destination, tenants in waiting:
            last = min((served.get(tenant_id, 0) for tenant_id in tenants), default=self._count)
            if best is None or last < best[0]:
                best = (last, destination)
        return None if best is None else best[1]
