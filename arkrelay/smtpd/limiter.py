"""What one client address may take: connections at once and per minute, and failed AUTH per minute and day.

IPv6 clients are counted by /64, the smallest network that one customer gets. Failed AUTH is also counted by the
wider networks around it, with three and nine times the limit, since a botnet rents neighbours. Nothing here
looks at a clock; ``now`` is monotonic seconds.
"""

import ipaddress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from arkrelay.model.settings import Limits
from arkrelay.policy.limits import is_trusted

MINUTE_S: Final = 60.0
DAY_S: Final = 86_400.0
# prefix lengths and how many times the limit of one address the network may take
V4_NETWORKS: Final = ((32, 1), (26, 3), (21, 9))
V6_NETWORKS: Final = ((64, 1), (48, 3), (32, 9))
MAX_ENTRIES: Final = 100_000  # ~20 MB; an attacker with many networks pushes out the oldest, not our memory


@dataclass(slots=True)
class _Window:
    """A count that starts anew when its time is over."""

    length_s: float
    started_at: float = float("-inf")
    count: int = 0

    def current(self, now: float) -> int:
        return self.count if now - self.started_at < self.length_s else 0

    def add(self, now: float) -> int:
        if now - self.started_at >= self.length_s:
            self.started_at, self.count = now, 0
        self.count += 1
        return self.count


@dataclass(slots=True)
class _Connections:
    open: int = 0
    told_at: float = float("-inf")  # when a refusal of this address was last logged
    minute: _Window = field(default_factory=lambda: _Window(MINUTE_S))

    def idle(self, now: float) -> bool:
        return self.open == 0 and self.minute.current(now) == 0


@dataclass(slots=True)
class _Failures:
    minute: _Window = field(default_factory=lambda: _Window(MINUTE_S))
    day: _Window = field(default_factory=lambda: _Window(DAY_S))

    def idle(self, now: float) -> bool:
        return self.day.current(now) == 0


class Limiter:
    """The counts of all SMTP listeners; an address is text as a socket gives it, or "" for a unix socket."""

    def __init__(self) -> None:
        self._connections: dict[str, _Connections] = {}
        self._failures: dict[str, _Failures] = {}

    def connect(self, address: str, limits: Limits, now: float) -> str | None:
        """Count a new connection and return None, or count nothing and return why it may not be.

        Each None wants one ``disconnect`` later.
        """
        if not address:
            return None
        key = _networks(address)[0][0]
        entry = self._connections.get(key)
        if entry is None:
            _make_room(self._connections, now)
            entry = self._connections[key] = _Connections()
        if is_trusted(address, limits.trusted_addresses):
            entry.open += 1  # counted all the same, so that a reload which changes who is trusted finds it right
            return None
        if 0 < limits.connections_per_address <= entry.open:
            return "too many connections at once"
        if 0 < limits.connections_per_minute <= entry.minute.current(now):
            return "too many connections per minute"
        entry.open += 1
        entry.minute.add(now)
        return None

    def worth_telling(self, address: str, now: float) -> bool:
        """Return whether a refusal of this address is news: once a minute, so that a flood does not fill the log."""
        entry = self._connections.get(_networks(address)[0][0]) if address else None
        if entry is None:
            return True
        if now - entry.told_at < MINUTE_S:
            return False
        entry.told_at = now
        return True

    def disconnect(self, address: str) -> None:
        """Take back one connection that ``connect`` counted; unknown addresses are ignored."""
        if not address:
            return
        entry = self._connections.get(_networks(address)[0][0])
        if entry is not None and entry.open:
            entry.open -= 1

    def auth_failed(self, address: str, limits: Limits, now: float) -> None:
        """Count one failed AUTH, for the address and the networks around it."""
        if is_trusted(address, limits.trusted_addresses):
            return
        for key, _ in _networks(address):
            entry = self._failures.get(key)
            if entry is None:
                _make_room(self._failures, now)
                entry = self._failures[key] = _Failures()
            entry.minute.add(now)
            entry.day.add(now)

    def auth_succeeded(self, address: str) -> None:
        """Forget the failures of this address; those of the networks around it stay."""
        if address:
            self._failures.pop(_networks(address)[0][0], None)

    def auth_blocked(self, address: str, limits: Limits, now: float) -> bool:
        """Return whether this address has failed so often that its next AUTH is not even looked at."""
        if not self._failures or is_trusted(address, limits.trusted_addresses):
            return False
        for key, times in _networks(address):
            entry = self._failures.get(key)
            if entry is None:
                continue
            if 0 < limits.auth_failures_per_minute * times <= entry.minute.current(now):
                return True
            if 0 < limits.auth_failures_per_day * times <= entry.day.current(now):
                return True
        return False


def _make_room(entries: dict[str, _Connections] | dict[str, _Failures], now: float) -> None:
    if len(entries) < MAX_ENTRIES:
        return
    for key in [key for key, entry in entries.items() if entry.idle(now)]:
        del entries[key]
    # all in use: the oldest tenth goes, so that this walk stays rare
    for key in list(entries)[: max(0, len(entries) - MAX_ENTRIES * 9 // 10)]:
        del entries[key]


@lru_cache(maxsize=4096)
def plain_address(address: str) -> str:
    """Return the address as text, an IPv4 one for an IPv4 client of a dual-stack socket."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)


@lru_cache(maxsize=4096)
def _networks(address: str) -> tuple[tuple[str, int], ...]:
    """Return the address's networks, narrowest first, each with its share of the limit."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ((address, 1),)
    table = V4_NETWORKS if parsed.version == 4 else V6_NETWORKS
    return tuple((str(ipaddress.ip_network((parsed, bits), strict=False)), times) for bits, times in table)
