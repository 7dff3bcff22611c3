"""How many requests a key may make, or a tenant by REST and SMTP together (Ark contract §4, §14.2).

All of it happens on the event loop, a look and its count in one step, so parallel requests never both take the last
place. Times are monotonic: a clock that jumps opens and shuts nothing.
"""

import math
import time
from collections.abc import Hashable
from dataclasses import dataclass

from arkrelay.model.settings import Limits
from arkrelay.policy.limits import SlidingWindow

SECOND_S = 1.0
RETRY_MAX_S = 60  # SDKs do not heed a longer Retry-After (Ark contract §6)


@dataclass(frozen=True, slots=True)
class Rate:
    """What a key has left after a request; ``wait_s`` is None when it was let in."""

    limit: int
    remaining: int
    reset_at: int  # Unix seconds
    wait_s: float | None

    @property
    def headers(self) -> dict[str, str]:
        """The three headers of every response."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset_at),
        }

    @property
    def retry_after_s(self) -> int:
        """When a refused request may be repeated, in whole seconds that SDKs heed: 1 to 60."""
        return min(RETRY_MAX_S, max(1, math.ceil(self.wait_s or 0.0)))


class RateLimits:
    """A sliding window for each key; one per daemon, so that all listeners share it."""

    def __init__(self) -> None:
        self._window = SlidingWindow(1, SECOND_S)

    @property
    def seconds(self) -> float:
        """How long the window is."""
        return self._window.seconds

    def hit(self, key: Hashable, per_second: float, now: float | None = None) -> Rate | None:
        """Count a request of ``key``, if it may be made now; None when there is no limit (0).

        A limit below one means one request in so many seconds: 0.1 is one in ten. Otherwise only whole requests
        count: 2.5 lets two through in any second. ``now`` is monotonic.
        """
        if not per_second:
            return None
        self._use(per_second)
        now = time.monotonic() if now is None else now
        allowed = self._window.hit(key, now)
        wait_s = None if allowed else max(0.001, self._window.wait_s(key, now))
        return self._rate(key, now, wait_s)

    def look(self, key: Hashable, per_second: float, now: float | None = None) -> Rate | None:
        """Return what ``key`` has left; nothing is counted."""
        if not per_second:
            return None
        self._use(per_second)
        return self._rate(key, time.monotonic() if now is None else now, None)

    def hit_by_mail(self, tenant_id: str, limits: Limits) -> Rate | None:
        """Count a message that came by SMTP where it shares its tenant's rate with REST; None: it does not."""
        if not limits.rate_shared_with_smtp:
            return None
        return self.hit(shared_key(tenant_id), limits.api_requests_per_s)

    def _use(self, per_second: float) -> None:
        """Follow the setting, which a reload may change."""
        self._window.limit = max(1, math.floor(per_second))
        self._window.seconds = SECOND_S if per_second >= 1 else 1 / per_second

    def _rate(self, key: Hashable, now: float, wait_s: float | None) -> Rate:
        limit = self._window.limit
        remaining = max(0, limit - self._window.count(key, now))
        return Rate(limit, remaining, math.ceil(time.time() + self._window.seconds), wait_s)


def shared_key(tenant_id: str) -> Hashable:
    """Return under what a tenant's requests and messages are counted together; no key of its own is that."""
    return ("tenant", tenant_id)
