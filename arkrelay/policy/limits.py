"""How much may be done: a sliding window for requests, and how full a tenant's send limit is.

A window belongs to one owner, who calls it from one thread and passes a monotonic time, so that no clock jump
opens or shuts a door. What a tenant has sent is counted by others, in the transaction that accepts the mail;
here is only the judgement about two numbers. A limit of 0 means none, as in every configuration file.
"""

import contextlib
import ipaddress
from array import array
from bisect import bisect_right
from collections.abc import Hashable
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache

WARN_SHARE = 0.9  # Ark contract §8.4: `approaching` above 90 %
MAX_KEYS = 4096  # keys that one window remembers; 4096 times 300 doubles are 10 MB


class SlidingWindow:
    """At most ``limit`` hits of one key within any ``seconds``, exactly; a refused hit does not count.

    Memory is bounded: no more than ``limit`` times for each of ``max_keys`` keys. A key that is idle for
    ``seconds`` is forgotten, and when there are too many, the one idle for longest: who hits on floods with
    new keys and is not himself forgotten.
    """

    __slots__ = ("_hits", "limit", "max_keys", "seconds")

    def __init__(self, limit: int, seconds: float, max_keys: int = MAX_KEYS) -> None:
        self.limit, self.seconds, self.max_keys = limit, seconds, max_keys
        self._hits: dict[Hashable, array[float]] = {}  # in order of the last hit: the front is idle longest

    def __len__(self) -> int:
        return len(self._hits)

    def hit(self, key: Hashable, now: float) -> bool:
        """Return whether ``key`` may do it now, and count it if so."""
        if not self.limit:
            return True
        self._forget_idle(now)
        times = self._fresh(key, now)
        if len(times) >= self.limit:
            return False
        times.append(now)
        self._hits.pop(key, None)
        self._hits[key] = times
        if len(self._hits) > self.max_keys:
            del self._hits[next(iter(self._hits))]
        return True

    def count(self, key: Hashable, now: float) -> int:
        """Return how many hits of ``key`` the last ``seconds`` saw."""
        return len(self._fresh(key, now))

    def full(self, key: Hashable, now: float) -> bool:
        """Return whether ``hit`` would refuse now; nothing is counted."""
        return bool(self.limit) and self.count(key, now) >= self.limit

    def wait_s(self, key: Hashable, now: float) -> float:
        """Return how many seconds pass until ``hit`` is allowed; 0 when it is."""
        if not self.full(key, now):
            return 0.0
        return self._hits[key][-self.limit] + self.seconds - now

    def forget(self, key: Hashable) -> None:
        """Make ``key`` as good as new."""
        self._hits.pop(key, None)

    def _fresh(self, key: Hashable, now: float) -> "array[float]":
        times = self._hits.get(key)
        if times is None:
            return array("d")
        if times[0] <= now - self.seconds:
            del times[: bisect_right(times, now - self.seconds)]
            if not times:
                del self._hits[key]
        return times

    def _forget_idle(self, now: float) -> None:
        for _ in range(2):  # two go for one that comes: the table shrinks by itself, at a bounded price
            oldest = next(iter(self._hits), None)
            if oldest is None or self._hits[oldest][-1] > now - self.seconds:
                return
            del self._hits[oldest]


class Level(StrEnum):
    """How much of a send limit is used (Ark contract §8.4)."""

    WITHIN = "within"
    APPROACHING = "approaching"  # above 90 %
    EXCEEDED = "exceeded"  # this much does not fit


def level(used: int, limit: int, adding: int = 0) -> Level:
    """Return where ``adding`` more recipients on top of ``used`` lead; exactly ``limit`` still fits.

    Without ``adding`` it tells the state as it is shown: exceeded when not one more fits.
    """
    if not limit:
        return Level.WITHIN
    if used + max(adding, 1) > limit:
        return Level.EXCEEDED
    return Level.APPROACHING if used + adding > limit * WARN_SHARE else Level.WITHIN


def no_place(used: tuple[int, int], limits: tuple[int, int]) -> str:
    """Return why more does not fit, of what was used in this hour and month and may be (0: no limit)."""
    (in_hour, in_month), (hourly, cap) = used, limits
    if cap and (not hourly or cap - in_month <= hourly - in_hour):
        return f"The send limit of {cap} recipients a month is reached ({in_month} used)"
    return (
        f"The send limit of {hourly} recipients an hour is reached ({in_hour} used):"
        " it starts anew at the top of the hour"
    )


def warns(used: int, limit: int, adding: int) -> bool:
    """Return whether it is these ``adding`` recipients that pass 90 %, so that one event tells it once."""
    threshold = limit * WARN_SHARE
    return bool(limit) and used <= threshold < used + adding


def hour_start(now: float) -> float:
    """Return the top of the hour (Unix seconds)."""
    return now - now % 3600


def month_start(now: float) -> float:
    """Return the first moment of the month (UTC)."""
    first = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return first.timestamp()


def hour_end(now: float) -> float:
    """Return the next top of the hour, when hourly limits start anew (Ark contract §8.4)."""
    return hour_start(now) + 3600


@lru_cache(maxsize=4096)
def is_trusted(address: str, networks: tuple[str, ...]) -> bool:
    """Return whether the limits leave this client address alone; the client of a unix socket (empty) always is."""
    if not address:
        return True
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return any((mapped or parsed) in network for network in _parsed(networks))


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 that one IPv6 customer gets."""
    with contextlib.suppress(ValueError):
        parsed = ipaddress.ip_address(address.partition("%")[0])
        mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
        if parsed.version == 4 or mapped is not None:
            return str(mapped or parsed)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address


@lru_cache(maxsize=16)
def _parsed(networks: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(network, strict=False) for network in networks)
