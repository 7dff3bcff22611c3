"""Signs that a credential is in the wrong hands: it writes to addresses that nobody has, or to everybody.

A stolen key is used for lists that were bought: most of their addresses do not exist, and none was written to before.
Both signs stop a person's own mail too, if it looks like that; then it is held and not lost.

One site alone proves nothing against a key: a broken one refuses everybody as not existing (``policy.burst``), and
what was bought or guessed is spread over many.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

WINDOW_S: Final = 3600.0
BUCKET_S: Final = 60.0
SITES: Final = 2  # at which there are bad addresses, before they say anything of the credential
BUDGETS: Final = 3  # a credential that meets so many times the tenant's budget of first-time recipients in a day


@dataclass(slots=True)
class _Minute:
    minute: int
    total: int = 0
    bad: int = 0
    sites: set[str] = field(default_factory=set)  # where bad ones were, as far as it matters


class BadAddresses:
    """How many of a credential's recipients of the last hour turned out not to exist, and whether at many sites.

    Memory is one row a minute.
    """

    __slots__ = ("_bad", "_buckets", "_total")

    def __init__(self) -> None:
        self._buckets: deque[_Minute] = deque()
        self._total = self._bad = 0

    def add(self, now: float, site: str, *, bad: bool) -> None:
        """Count one recipient at ``site`` that was delivered, or failed for good."""
        minute = int(now // BUCKET_S)
        # a clock that was set back goes on in the last one
        if not self._buckets or self._buckets[-1].minute < minute:
            self._buckets.append(_Minute(minute))
            oldest = minute - int(WINDOW_S // BUCKET_S)
            while self._buckets[0].minute <= oldest:
                gone = self._buckets.popleft()
                self._total -= gone.total
                self._bad -= gone.bad
        last = self._buckets[-1]
        last.total += 1
        last.bad += bad
        if bad and len(last.sites) < SITES:
            last.sites.add(site)
        self._total += 1
        self._bad += bad

    def judge(self, percent: int, least: int) -> str:
        """Return a sentence when more than ``percent`` of at least ``least`` are bad, else nothing; 0: never.

        Nor is one said where all bad ones are at one site.
        """
        if not percent or self._total < least or self._bad * 100 <= percent * self._total:
            return ""
        if len(set().union(*(one.sites for one in self._buckets))) < SITES:
            return ""
        return f"{self._bad} of {self._total} recipients within an hour were addresses that do not exist"


def judge_new(first_times: int, budget: int) -> str:
    """Return a sentence when a credential met far more first-time recipients in a day than its tenant may."""
    if not budget or first_times < BUDGETS * budget:
        return ""
    return (
        f"it wrote to {first_times} new recipients in a day, {BUDGETS} times the tenant's budget of {budget} or more"
    )
