"""Check the DNS of every sender domain, again and again, and keep what it says.

``states`` is what admission looks at: a domain that is not verified may not send. A resolver in trouble changes
nothing there, because it says nothing about the domain.
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import structlog

from arkrelay.config.ids import stable_uuid
from arkrelay.config.live import Live, Snapshot
from arkrelay.mail.dkim import public_record
from arkrelay.model.dns import MxAnswer
from arkrelay.model.domain import DnsStatus, DomainState
from arkrelay.model.errors import NotFound, StoreError
from arkrelay.model.event import Event, EventKind
from arkrelay.model.reply import Failure, FailureKind
from arkrelay.policy.records import Found, RecordSet, Verdict, Verdicts, judge, wanted
from arkrelay.relay.track_domains import TrackChecker
from arkrelay.store.connection import Connection
from arkrelay.store.database import Store
from arkrelay.store.history import insert_events
from arkrelay.store.lists import all_domain_states, remove_domain_state, set_domain_state
from arkrelay.wire.dns import Resolver

log = structlog.get_logger()

EVERY_S = 3600.0  # Ark contract §13: about hourly
JITTER = 0.1  # share of an hour by which one check may come early or late, so that they spread
TELL_S = 86400.0  # between two events about one domain that goes on failing
AGAIN_S = 60.0  # after the store could not take what a check found
AT_ONCE = 5  # domains; a hundred new ones do not crowd out the look-ups of mail

Key = tuple[str, str]  # tenant id, domain


def records_of(snapshot: Snapshot, tenant_id: str, domain: str) -> RecordSet:
    """Return the records that a tenant's domain needs, with its active DKIM keys."""
    keys = [(signer.selector, public_record(signer.key)) for signer in snapshot.signers(tenant_id, domain)]
    return wanted(domain, keys, snapshot.settings.spf_host, snapshot.settings.return_path_host)


async def inspect(resolver: Resolver, records: RecordSet) -> Verdicts:
    """Return how these records stand in DNS now; nothing comes from the cache, since somebody is waiting for them."""
    spf, return_path, *dkim = await asyncio.gather(
        resolver.txt(records.spf.full_name, fresh=True),
        resolver.cname(records.return_path.full_name, fresh=True),
        *(resolver.txt(record.full_name, fresh=True) for record in records.dkim),
    )
    keys = {record.full_name: answer for record, answer in zip(records.dkim, dkim, strict=True)}
    return judge(records, Found(spf, keys, return_path))


class DomainChecker:
    """Knows the DNS state of every sender domain; ``load`` before use, ``run`` until cancelled."""

    def __init__(
        self,
        resolver: Resolver,
        store: Store,
        live: Live,
        *,
        clock: Callable[[], float] = time.time,
        dice: random.Random | None = None,
    ) -> None:
        self.states: dict[Key, DomainState] = {}
        self.tracks = TrackChecker(resolver, store, live, clock)
        self._resolver = resolver
        self._store = store
        self._live = live
        self._clock = clock
        self._dice = dice or random.Random()  # noqa: S311 -- spreads work, guards nothing
        self._due_at: dict[Key, float] = {}
        self._checked: dict[Key, RecordSet] = {}  # what the last check looked for
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()

    async def load(self) -> None:
        """Fill ``states`` from the database, and plan each domain's next check from its last."""
        await self.tracks.load()
        self.states = await self._store.read(all_domain_states)
        now = self._clock()
        for key, state in self.states.items():
            self._due_at[key] = now if state.checked_at is None else self._next_at(min(state.checked_at, now))
        self._forget_removed()

    def changed(self) -> None:
        """Say that the configuration was swapped: new and changed domains are checked now, removed ones forgotten."""
        self._forget_removed()
        self._changed.set()

    async def check(self, tenant_id: str, domain: str, *, scheduled: bool = False) -> DomainState:
        """Look up the domain's records now, and return its new state, which is on disk with its events.

        A part that could not be asked keeps its status; before its first answer, its error says why. The first
        time all parts are OK, and each time they are again, ``DomainVerified`` is logged. A ``scheduled`` check
        of a domain that was once verified and is not now logs ``DomainDNSError`` (Ark contract §13): when it begins
        to fail, and once a day while it does.
        Raises NotFound for a domain that is not the tenant's, and StoreError when the state could not be written.
        """
        self._require(tenant_id, domain)
        snapshot = self._live.snapshot
        key = (tenant_id, domain)
        records = records_of(snapshot, tenant_id, domain)
        verdicts = await inspect(self._resolver, records)
        async with self._writing:
            self._require(tenant_id, domain)  # removed meanwhile, it must not come back
            old = self.states.get(key) or DomainState(tenant_id, domain)
            new = self._merged(old, verdicts)
            self._checked[key] = records
            self._due_at[key] = self._next_at(self._clock())
            if _answered(verdicts):
                events = await self._events(snapshot, old, new, scheduled=scheduled)
                if any(event.kind is EventKind.DNS_ERROR for event in events):
                    new = replace(new, told_at=self._clock())
                await self._write(new, events)
            self.states[key] = new
        if new.verified != old.verified:
            log.info("domain_verified" if new.verified else "domain_not_verified", tenant=tenant_id, domain=domain)
        return new

    def _require(self, tenant_id: str, domain: str) -> None:
        tenant = self._live.snapshot.tenants.get(tenant_id)
        if tenant is None or tenant.domain(domain) is None:
            raise NotFound(f"{domain} is not a domain of tenant {tenant_id}")

    async def run(self) -> None:
        """Check each domain about once an hour, and a new one at once."""
        while True:
            self._changed.clear()
            self._forget_removed()
            due = self._due()
            for start in range(0, len(due), AT_ONCE):
                await asyncio.gather(*(self._check_scheduled(key) for key in due[start : start + AT_ONCE]))
            next_at = min(self._due_at.values(), default=self._clock() + EVERY_S)
            try:
                async with asyncio.timeout(max(next_at - self._clock(), 0.0)):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _check_scheduled(self, key: Key) -> None:
        try:
            await self.check(*key, scheduled=True)
            await self.tracks.check_under(*key)
        except NotFound:
            self._due_at.pop(key, None)  # removed while we looked
        except StoreError as error:
            log.warning("domain_state_not_written", tenant=key[0], domain=key[1], error=str(error))
            self._due_at[key] = self._clock() + AGAIN_S
        except Exception:
            log.exception("domain_check_failed", tenant=key[0], domain=key[1])
            self._due_at[key] = self._next_at(self._clock())

    def _due(self) -> list[Key]:
        """Return the domains to be checked now, those never checked first."""
        now = self._clock()
        snapshot = self._live.snapshot
        for tenant in snapshot.tenants.values():
            for domain in tenant.domains:
                key = (tenant.id, domain.name)
                if key in self._checked and records_of(snapshot, *key) != self._checked[key]:
                    self._due_at[key] = now
                self._due_at.setdefault(key, now)
        self._due_at |= dict.fromkeys(self.tracks.wanted(), now)
        return sorted((key for key, at in self._due_at.items() if at <= now), key=lambda key: key in self.states)

    def _forget_removed(self) -> None:
        """Drop domains that are no longer configured: one added later under the same name starts unverified."""
        self.tracks.forget_removed()
        snapshot = self._live.snapshot
        here = {(tenant.id, domain.name) for tenant in snapshot.tenants.values() for domain in tenant.domains}
        for key in [key for key in self._due_at if key not in here]:
            del self._due_at[key]
            self._checked.pop(key, None)
        for tenant_id, domain in [key for key in self.states if key not in here]:
            del self.states[tenant_id, domain]
            self._store.write_later(_removal(tenant_id, domain))

    def _next_at(self, checked_at: float) -> float:
        return checked_at + EVERY_S * (1 + self._dice.uniform(-JITTER, JITTER))

    def _merged(self, old: DomainState, verdicts: Verdicts) -> DomainState:
        now = self._clock()
        spf, spf_error = _part(verdicts.spf, old.spf, old.spf_error)
        dkim, dkim_error = _part(verdicts.dkim, old.dkim, old.dkim_error)
        return_path, return_path_error = _part(verdicts.return_path, old.return_path, old.return_path_error)
        new = DomainState(
            tenant_id=old.tenant_id,
            domain=old.domain,
            spf=spf,
            spf_error=spf_error,
            dkim=dkim,
            dkim_error=dkim_error,
            return_path=return_path,
            return_path_error=return_path_error,
            checked_at=now if _answered(verdicts) else old.checked_at,
            verified_at=old.verified_at,
            told_at=old.told_at,
        )
        if not new.verified:
            return new
        return replace(new, verified_at=now if old.verified_at is None else old.verified_at, told_at=None)

    async def _events(
        self, snapshot: Snapshot, old: DomainState, new: DomainState, *, scheduled: bool
    ) -> tuple[Event, ...]:
        if new.verified and not old.verified:
            kind = EventKind.DOMAIN_VERIFIED
        elif scheduled and not new.verified and new.verified_at is not None and self._tells(new):
            kind = EventKind.DNS_ERROR
        else:
            return ()
        mx = _judge_mx(new.domain, await self._resolver.mx(new.domain))
        return (Event(kind, self._clock(), new.tenant_id, data=_payload(snapshot, new, mx)),)

    def _tells(self, state: DomainState) -> bool:
        """Return whether it is time to tell that a domain fails: a receiver that hears it hourly stops listening."""
        return state.told_at is None or self._clock() - state.told_at >= TELL_S * (1 - JITTER)

    async def _write(self, state: DomainState, events: tuple[Event, ...]) -> None:
        def job(db: Connection) -> None:
            set_domain_state(db, state)
            insert_events(db, events)

        await self._store.write(job)


def _answered(verdicts: Verdicts) -> bool:
    return any(part.status is not None for part in (verdicts.spf, verdicts.dkim, verdicts.return_path))


def _part(verdict: Verdict, status: str | None, error: str | None) -> tuple[str | None, str | None]:
    """Return the new status and error of one part, whose old ones stay when DNS could not be asked."""
    if verdict.status is None and status is not None:
        return status, error
    return verdict.status, verdict.error


def _judge_mx(domain: str, answer: MxAnswer | Failure) -> Verdict:
    """Return whether replies to ``domain`` find a mail host; reported in events and needed for nothing."""
    match answer:
        case MxAnswer(implicit=False):
            return Verdict(DnsStatus.OK)
        case MxAnswer():
            return Verdict(DnsStatus.MISSING, f"{domain} has no MX record: replies may not arrive")
        case Failure(kind=FailureKind.RESOLVER):
            return Verdict(None, answer.detail)
        case Failure(kind=FailureKind.NULL_MX):
            return Verdict(DnsStatus.INVALID, answer.detail)
        case _:
            return Verdict(DnsStatus.MISSING, answer.detail)


def _payload(snapshot: Snapshot, state: DomainState, mx: Verdict) -> dict[str, Any]:
    """Return the fields of ``DomainDNSError`` (Ark contract §11.2)."""
    tenant = snapshot.tenants[state.tenant_id]
    domain = tenant.domain(state.domain)
    return {
        "server": {
            "uuid": stable_uuid("tenant", "", tenant.id),
            "name": tenant.name,
            "permalink": tenant.id,
            "organization": snapshot.settings.hostname,
        },
        "domain": state.domain,
        "uuid": domain.uuid if domain is not None else None,
        "dns_checked_at": state.checked_at,
        "spf_status": state.spf,
        "spf_error": state.spf_error,
        "dkim_status": state.dkim,
        "dkim_error": state.dkim_error,
        "mx_status": mx.status,
        "mx_error": mx.error,
        "return_path_status": state.return_path,
        "return_path_error": state.return_path_error,
    }


def _removal(tenant_id: str, domain: str) -> Callable[[Connection], None]:
    return lambda db: remove_domain_state(db, tenant_id, domain)
