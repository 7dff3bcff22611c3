"""Rotations of DKIM keys that go on by themselves: for domains with ``rotation = "auto"``, step by step when due.

A rotation is begun by a person, who publishes the new key's record. From then on the daemon looks whether DNS has it,
lets it sign, and removes the old one when nothing that it signed is under way any more. Each step is an edit of the
tenant's file, as the command line makes it.
"""

import asyncio
import datetime as dt
import random
import time
from collections.abc import Awaitable, Callable

import structlog

from arkrelay.config import tenants
from arkrelay.config.live import Live
from arkrelay.config.snapshot import Snapshot
from arkrelay.mail.dkim import public_record
from arkrelay.model.domain import DnsStatus
from arkrelay.model.errors import ArkrelayError
from arkrelay.model.tenant import Domain
from arkrelay.policy.records import wanted
from arkrelay.policy.rotation import KeyState, Plan, plan
from arkrelay.relay.domains import inspect
from arkrelay.wire.dns import Resolver

log = structlog.get_logger()

EVERY_S = 300.0  # while no rotation is under way a look costs nothing but a walk over the domains
JITTER = 0.1


class Rotations:
    """Takes due steps; ``run`` until cancelled. ``reload`` brings an edited file into force."""

    def __init__(
        self,
        live: Live,
        resolver: Resolver,
        reload: Callable[[], Awaitable[object]],
        editing: asyncio.Lock,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._live = live
        self._resolver = resolver
        self._reload = reload
        self._editing = editing
        self._clock = clock

    async def run(self) -> None:
        """Look every five minutes."""
        while True:
            await asyncio.sleep(EVERY_S * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 -- spreads work only
            try:
                await self.look()
            except Exception:  # a fault of ours in one rotation must not end all others
                log.exception("rotation_failed")

    async def look(self) -> int:
        """Take every step that is due, and return how many were."""
        taken = 0
        for tenant in list(self._live.snapshot.tenants.values()):
            for domain in tenant.domains:
                if domain.rotation == "auto":
                    taken += await self._advance(tenant.id, domain)
        return taken

    async def _advance(self, tenant_id: str, domain: Domain) -> bool:
        due = plan_of(domain)
        if due.step == "publish" or not due.due(self._clock()):
            return False
        try:
            if due.step in {"see", "activate"} and not await in_dns(self._resolver, self._live.snapshot, domain):
                return False
            async with self._editing:
                await asyncio.to_thread(
                    tenants.rotate_dkim, self._live.snapshot.path, tenant_id, domain.name, due.step
                )
            await self._reload()
        except (ArkrelayError, OSError) as error:  # a file that is changed by hand, or broken meanwhile
            log.warning("rotation_stopped", tenant=tenant_id, domain=domain.name, step=due.step, error=str(error))
            return False
        log.info("rotation", tenant=tenant_id, domain=domain.name, step=due.step)
        return True


def plan_of(domain: Domain) -> Plan:
    """Return what comes next for the keys of a domain."""
    return plan([KeyState(key.selector, key.state, _at(key.since), _at(key.seen)) for key in domain.dkim])


async def in_dns(resolver: Resolver, snapshot: Snapshot, domain: Domain) -> bool:
    """Return whether DNS has every published key of the domain, asked afresh."""
    keys = []
    for key in domain.dkim:
        loaded = snapshot.dkim_keys.get((key.private_key, domain.name, key.selector, key.algorithm))
        if key.state == "published" and loaded is not None:
            keys.append((key.selector, public_record(loaded.signer.key)))
    records = wanted(domain.name, keys, snapshot.settings.spf_host, snapshot.settings.return_path_host)
    verdicts = await inspect(resolver, records)
    return bool(keys) and all(verdict.status is DnsStatus.OK for verdict in verdicts.keys.values())


def _at(text: str) -> float | None:
    """Return an ISO 8601 time, which was checked on loading, as Unix seconds."""
    if not text:
        return None
    at = dt.datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=dt.UTC)).timestamp()
