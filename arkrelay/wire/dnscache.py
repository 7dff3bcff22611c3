"""Answers kept for their TTL, and one look-up at a time for everybody who asks the same question."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from arkrelay.base.tasks import Tasks

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MIN_TTL_S = 5.0  # a TTL of 0 would look up again for each message of one batch
MAX_TTL_S = 3600.0  # a moved mail server is found within the hour, whatever its old TTL was
MAX_ENTRIES = 20_000  # some 20 MB when full


class DnsCache(Generic[K, V]):
    """A bounded map from question to answer; ``clock`` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, max_entries: int = MAX_ENTRIES) -> None:
        self._clock = clock
        self._max_entries = max_entries
        self._entries: dict[K, tuple[float, V]] = {}
        self._flights: dict[K, asyncio.Task[V]] = {}
        self._tasks = Tasks()

    def __len__(self) -> int:
        return len(self._entries)

    def peek(self, key: K) -> V | None:
        """Return the answer that is known and still good. This is what each message pays."""
        entry = self._entries.get(key)
        if entry is None or entry[0] <= self._clock():
            return None
        return entry[1]

    async def get(self, key: K, fetch: Callable[[], Awaitable[tuple[V, float]]], *, fresh: bool = False) -> V:
        """Return the answer, from memory or from ``fetch``, which returns it with the seconds it may be kept.

        Callers with the same key share one ``fetch``; ``fresh`` goes past memory, not past a look-up under way.
        Cancelling a caller leaves the look-up running: others may wait for it, and its answer is kept.
        """
        if not fresh and (known := self.peek(key)) is not None:
            return known
        flight = self._flights.get(key)
        if flight is None:
            flight = self._tasks.spawn(f"dns {key}", self._fetch(key, fetch))
            self._flights[key] = flight
            flight.add_done_callback(lambda _: self._flights.pop(key, None))
        return await asyncio.shield(flight)

    async def close(self) -> None:
        """Cancel what is under way; those who wait for it are cancelled too."""
        await self._tasks.cancel()

    async def _fetch(self, key: K, fetch: Callable[[], Awaitable[tuple[V, float]]]) -> V:
        value, ttl_s = await fetch()
        self._entries.pop(key, None)  # so that the order of the map is the order of arrival
        if len(self._entries) >= self._max_entries:
            self._make_room()
        self._entries[key] = (self._clock() + ttl_s, value)
        return value

    def _make_room(self) -> None:
        """Drop what has expired; when that is less than a tenth, the oldest tenth as well."""
        now = self._clock()
        self._entries = {key: entry for key, entry in self._entries.items() if entry[0] > now}
        surplus = len(self._entries) - self._max_entries * 9 // 10
        for key in list(self._entries)[: max(surplus, 0)]:
            del self._entries[key]


def bounded_ttl(ttl_s: float, most_s: float = MAX_TTL_S) -> float:
    """Return the TTL between ``MIN_TTL_S`` and ``most_s``."""
    return max(MIN_TTL_S, min(ttl_s, most_s))
