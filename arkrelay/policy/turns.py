"""Who waits for a connection of a lane, and whose turn it is when one is free.

A provider hosts a thousand domains, and each is a destination. Who waits is therefore not asked in the order of
coming but by tenant: the one whose mail went by the lane longest ago comes first, so that one tenant's thousand
destinations cost another's single mail one turn. A turn costs by the tenants that wait, not by their destinations.
"""

from collections.abc import Collection, Sequence

MAX_LANES = 1000  # with tenants remembered; the lane that served longest ago is forgotten first
MAX_TENANTS = 1000  # remembered of a lane


class Turns:
    """The line of each lane, and the order in which its tenants were served."""

    __slots__ = ("_count", "_lines", "_places", "_served")

    def __init__(self) -> None:
        self._count = 0
        self._served: dict[str, dict[str, int]] = {}
        self._lines: dict[str, dict[str, dict[str, None]]] = {}  # by lane and tenant: destinations, as they came
        self._places: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}  # by destination: lanes, tenants

    def wait(self, destination: str, lanes: Sequence[str], tenants: Collection[str]) -> None:
        """Put a destination with mail of these tenants into the lines of these lanes, and of no other."""
        self.leave(destination)
        self._places[destination] = tuple(lanes), tuple(tenants)
        for lane in lanes:
            line = self._lines.setdefault(lane, {})
            for tenant_id in tenants:
                line.setdefault(tenant_id, {})[destination] = None

    def leave(self, destination: str) -> None:
        """Take a destination out of every line."""
        lanes, tenants = self._places.pop(destination, ((), ()))
        for lane in lanes:
            line = self._lines[lane]
            for tenant_id in tenants:
                del line[tenant_id][destination]
                if not line[tenant_id]:
                    del line[tenant_id]
            if not line:
                del self._lines[lane]

    def places(self, destination: str) -> tuple[str, ...]:
        """Return the lanes in whose lines a destination stands; empty: it does not wait."""
        return self._places.get(destination, ((), ()))[0]

    def lanes(self) -> list[str]:
        """Return the lanes that somebody waits for."""
        return list(self._lines)

    def wanted(self, lane: str) -> bool:
        """Return whether somebody waits for this lane."""
        return lane in self._lines

    def served(self, lane: str, tenant_id: str) -> None:
        """Remember that a message of this tenant went by ``lane``."""
        self._count += 1
        tenants = self._served.pop(lane, None) or {}
        self._served[lane] = tenants
        tenants.pop(tenant_id, None)
        tenants[tenant_id] = self._count
        if len(tenants) > MAX_TENANTS:
            del tenants[next(iter(tenants))]
        if len(self._served) > MAX_LANES:
            del self._served[next(iter(self._served))]

    def next(self, lane: str) -> str | None:
        """Return the destination whose turn it is, which leaves every line; None when nobody waits."""
        line = self._lines.get(lane)
        if line is None:
            return None
        served = self._served.get(lane, {})
        tenant_id = min(line, key=lambda one: served.get(one, 0))
        destination = next(iter(line[tenant_id]))
        self.leave(destination)
        return destination
