"""The log of events followed once, for all webhooks: each event becomes a job for each webhook that wants it."""

from collections.abc import Callable, Mapping
from uuid import uuid4

from arkrelay.model.hook import TOLD
from arkrelay.relay.hooktargets import Key, Target
from arkrelay.store import hookjobs
from arkrelay.store.database import Store
from arkrelay.store.hookjobs import NewJob

STRETCH = 2000  # events that one read looks at
JOBS = 1000  # in one write, some 20 ms of the writer


class HookLog:
    """Where the log was followed to; one caller at a time."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._cursor = 0

    async def start(self) -> None:
        """Take up where the last process left off."""
        self._cursor = await self._store.write(hookjobs.start_cursor)

    async def follow(self, targets: Mapping[Key, Target]) -> tuple[set[Key], bool]:
        """Make jobs of the next events for these webhooks; return for which there were any, and whether more follows.

        Without a webhook nothing is read, and only the end of the log is remembered.
        """
        hooks = {key: target.hook.webhook for key, target in targets.items()}
        kinds = frozenset(kind for kind in TOLD if any(hook.takes(kind) for hook in hooks.values()))
        after = self._cursor
        events, end = await self._store.read(lambda db: hookjobs.read_told(db, after, STRETCH, kinds))
        if end == after:
            return set(), False
        more = end == after + STRETCH
        owners: dict[str, list[Key]] = {}
        for key in hooks:
            owners.setdefault(key[0], []).append(key)
        jobs: list[NewJob] = []
        told: set[Key] = set()
        for event in events:
            if len(jobs) >= JOBS:
                end, more = event.seq - 1, True
                break
            for owner in dict.fromkeys((event.tenant_id or "", "")):
                for key in owners.get(owner, ()):
                    if hooks[key].takes(event.kind):
                        told.add(key)
                        jobs.append(NewJob(targets[key].id, event.seq, event.recipient_id, uuid4()))
        now = self._clock()
        self._cursor = await self._store.write(lambda db: hookjobs.insert_jobs(db, jobs, now, after, end))
        return told, more
