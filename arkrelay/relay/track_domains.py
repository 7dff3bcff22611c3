"""Check the DNS of track domains, and keep what it says: links lead there only while it is right (Ark contract §12).

``relay.domains`` says when: each track domain is looked at together with its sender domain.
"""

import asyncio
from collections.abc import Callable

import structlog

from arkrelay.config.live import Live, Snapshot
from arkrelay.model.domain import TrackState
from arkrelay.model.errors import NotFound
from arkrelay.model.tenant import TrackDomain
from arkrelay.policy.records import Record, judge_alias, wanted_alias
from arkrelay.store.connection import Connection
from arkrelay.store.database import Store
from arkrelay.store.lists import all_track_states, remove_track_state, set_track_state
from arkrelay.wire.dns import Resolver

log = structlog.get_logger()

Key = tuple[str, str]  # tenant id, full name


def alias_of(snapshot: Snapshot, track: TrackDomain) -> Record:
    """Return the record that a track domain needs."""
    return wanted_alias(track.full_name, snapshot.settings.track_host)


class TrackChecker:
    """Knows the DNS state of every track domain; ``load`` before use."""

    def __init__(self, resolver: Resolver, store: Store, live: Live, clock: Callable[[], float]) -> None:
        self.states: dict[Key, TrackState] = {}
        self._resolver = resolver
        self._store = store
        self._live = live
        self._clock = clock
        self._checked: dict[Key, Record] = {}  # what the last check looked for
        self._writing = asyncio.Lock()

    async def load(self) -> None:
        """Fill ``states`` from the database."""
        self.states = await self._store.read(all_track_states)
        snapshot = self._live.snapshot
        self._checked = {
            (tenant.id, track.full_name): alias_of(snapshot, track)
            for tenant in snapshot.tenants.values()
            for track in tenant.track_domains
            if (tenant.id, track.full_name) in self.states
        }
        self.forget_removed()

    def forget_removed(self) -> None:
        """Drop track domains that are no longer configured: one made later under the same name starts unchecked."""
        here = {
            (tenant.id, track.full_name)
            for tenant in self._live.snapshot.tenants.values()
            for track in tenant.track_domains
        }
        for key in [key for key in self.states if key not in here]:
            del self.states[key]
            self._checked.pop(key, None)
            self._store.write_later(_removal(*key))

    def wanted(self) -> set[Key]:
        """Return (tenant id, sender domain) of the track domains that were never looked up as they are now."""
        snapshot = self._live.snapshot
        return {
            (tenant.id, track.domain)
            for tenant in snapshot.tenants.values()
            for track in tenant.track_domains
            if self._checked.get((tenant.id, track.full_name)) != alias_of(snapshot, track)
        }

    async def check_under(self, tenant_id: str, domain: str) -> None:
        """Look up the track domain of a sender domain, if it has one."""
        tenant = self._live.snapshot.tenants.get(tenant_id)
        for track in tenant.track_domains if tenant is not None else ():
            if track.domain == domain:
                await self.check(tenant_id, track.id)

    async def check(self, tenant_id: str, track_id: str) -> TrackState:
        """Look the track domain's record up now, and return its new state, which is on disk.

        When DNS could not be asked it keeps its status; before the first answer its error says why. Raises NotFound
        for a track domain that is not the tenant's, and StoreError when the state could not be written.
        """
        record, key = self._record(tenant_id, track_id)
        verdict = judge_alias(record, await self._resolver.cname(record.full_name, fresh=True))
        async with self._writing:
            old = self.states.get(key) or TrackState(*key)
            if verdict.status is not None:
                new = TrackState(*key, verdict.status, verdict.error, self._clock())
            else:
                new = old if old.status is not None else TrackState(*key, error=verdict.error)
            if self._record(tenant_id, track_id)[1] != key:
                raise NotFound(f"there is no track domain {track_id}")
            self._checked[key] = record
            if verdict.status is not None:
                await self._store.write(lambda db: set_track_state(db, new))
            self.states[key] = new
        if new.ok != old.ok:
            log.info("track_domain_ok" if new.ok else "track_domain_not_ok", tenant=tenant_id, name=key[1])
        return new

    def _record(self, tenant_id: str, track_id: str) -> tuple[Record, Key]:
        snapshot = self._live.snapshot
        tenant = snapshot.tenants.get(tenant_id)
        for track in tenant.track_domains if tenant is not None else ():
            if track.id == track_id:
                return alias_of(snapshot, track), (tenant_id, track.full_name)
        raise NotFound(f"there is no track domain {track_id}")


def _removal(tenant_id: str, name: str) -> Callable[[Connection], None]:
    return lambda db: remove_track_state(db, tenant_id, name)
