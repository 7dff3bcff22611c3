"""How sessions with peers came out, for TLS reports (RFC 8460): gathered in memory, written now and then."""

import asyncio
import json
import time

import structlog

from arkrelay.model.errors import StoreError
from arkrelay.model.peertls import StsPolicy, TlsPolicy, TlsResult
from arkrelay.policy import mtasts
from arkrelay.store import peertls as rows
from arkrelay.store.database import Store
from arkrelay.store.peertls import Counted

log = structlog.get_logger()

DAY_S = 86_400  # RFC 8460 §4.1: reports are of UTC days
MAX_WAITING = 10_000  # counters in memory; more are written at once
WRITE_S = 60.0  # counters of so long are lost with a crash

TYPES = {TlsPolicy.STS: "sts", TlsPolicy.DANE: "tlsa"}  # RFC 8460 §4.4; all others are no-policy-found
NO_POLICY = "no-policy-found"


class TlsCounts:
    """The counters that are not on disk yet."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[Counted, int] = {}

    def add(
        self,
        domain: str,
        host: str,
        address: str,
        policy: TlsPolicy | None,
        result: TlsResult | None,
        sts: StsPolicy | None = None,
    ) -> None:
        """Count one session, or one host that was passed over; ``result`` None is a success."""
        shown = TYPES.get(policy, NO_POLICY) if policy is not None else NO_POLICY
        said = json.dumps(mtasts.lines(sts)) if shown == "sts" and sts is not None else "[]"
        day = int(time.time() // DAY_S) * DAY_S
        key = Counted(day, domain, shown, said, host, address, "" if result is None else result.value)
        self._waiting[key] = self._waiting.get(key, 0) + 1
        if len(self._waiting) >= MAX_WAITING:
            counts, self._waiting = self._waiting, {}
            self._store.write_later(lambda db: rows.add_results(db, counts))

    def not_fetched(self, domain: str) -> None:
        """Count mail that went without a policy because it could not be fetched (RFC 8460 §4.3.2.2)."""
        self.add(domain, "", "", TlsPolicy.STS, TlsResult.STS_FETCH_ERROR)

    async def run(self) -> None:
        """Write what was counted, for ever."""
        while True:
            await asyncio.sleep(WRITE_S)
            await self.write()

    async def write(self) -> None:
        """Put what was counted on disk; when the database refuses, it is kept for the next time."""
        if not self._waiting:
            return
        counts, self._waiting = self._waiting, {}
        try:
            await self._store.write(lambda db: rows.add_results(db, counts))
        except StoreError as error:
            log.warning("tls_results_not_written", error=str(error))
            for key, n in counts.items():
                self._waiting[key] = self._waiting.get(key, 0) + n
