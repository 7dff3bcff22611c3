"""How many emails each tenant has sent from the sandbox today."""

import sqlite3

from arkrelay.model.message import Submission
from arkrelay.model.settings import Sandbox
from arkrelay.policy.sandbox import check, day_of
from arkrelay.store.database import Store
from arkrelay.store.find import count_from_domain


class SandboxCount:
    """Counts in memory what it has read once a day; a refused or failed email counts as well, which harms nobody."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sent: dict[str, tuple[float, int]] = {}  # by tenant: the day, and emails

    async def admit(self, submission: Submission, settings: Sandbox) -> None:
        """Count an email from the sandbox, or raise Refused (Ark contract §16); one to played recipients passes."""
        real = [one.address for one in submission.recipients if one.address.domain != settings.simulator]
        if not real:
            return
        tenant_id, day = submission.tenant_id, day_of(submission.received_at)
        if self._sent.get(tenant_id, (0.0, 0))[0] != day:

            def read(db: sqlite3.Connection) -> int:
                return count_from_domain(db, tenant_id, settings.domain, day)

            sent = await self._store.read(read)
            if self._sent.get(tenant_id, (0.0, 0))[0] != day:  # another has not been quicker
                self._sent[tenant_id] = (day, sent)
        sent = self._sent[tenant_id][1]
        refused = check(settings, real, sent)
        if refused is not None:
            raise refused
        self._sent[tenant_id] = (day, sent + 1)
