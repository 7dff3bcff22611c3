"""The cache alone: room, order, and what a failing look-up leaves behind."""

import pytest

from arkrelay.wire.dnscache import DnsCache, bounded_ttl


def answer(value: str, ttl_s: float = 60.0, asked: list[str] | None = None):  # type: ignore[no-untyped-def] # a closure
    async def fetch() -> tuple[str, float]:
        if asked is not None:
            asked.append(value)
        return value, ttl_s

    return fetch


async def test_a_full_cache_drops_what_expired_before_what_is_old() -> None:
    now = [0.0]
    cache: DnsCache[int, str] = DnsCache(lambda: now[0], max_entries=10)
    for key in range(10):
        await cache.get(key, answer(str(key), ttl_s=5.0 if key >= 5 else 100.0))
    now[0] = 6.0
    await cache.get(10, answer("10"))
    assert [key for key in range(11) if cache.peek(key)] == [0, 1, 2, 3, 4, 10]
    assert len(cache) == 6


async def test_a_full_cache_drops_its_oldest_tenth() -> None:
    cache: DnsCache[int, str] = DnsCache(lambda: 0.0, max_entries=20)
    for key in range(20):
        await cache.get(key, answer(str(key)))
    await cache.get(0, answer("again"), fresh=True)  # no longer the oldest
    await cache.get(20, answer("20"))
    assert [key for key in range(21) if cache.peek(key) is None] == [1, 2]


async def test_a_fetch_that_raises_is_raised_to_who_asked_and_not_kept() -> None:
    cache: DnsCache[str, str] = DnsCache(lambda: 0.0)

    async def broken() -> tuple[str, float]:
        raise RuntimeError("surprise")

    with pytest.raises(RuntimeError, match="surprise"):
        await cache.get("key", broken)
    assert await cache.get("key", answer("well")) == "well"


@pytest.mark.parametrize(
    ("ttl_s", "most_s", "kept_s"), [(0, 60, 5), (30, 60, 30), (90, 60, 60), (-1, 60, 5), (2**31, 3600, 3600)]
)
def test_ttl_bounds(ttl_s: float, most_s: float, kept_s: float) -> None:
    assert bounded_ttl(ttl_s, most_s) == kept_s
