"""What ``arkrelay why`` says of what is no mail: a sender domain of ours, a suppressed address, a tenant.

Each asker hears of its own tenant alone, and an organisation of all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from arkrelay.config.live import Live
from arkrelay.model.address import kept_address, kept_domain
from arkrelay.model.domain import DomainState
from arkrelay.model.event import EventKind
from arkrelay.model.suppression import Cause, Suppression
from arkrelay.model.tenant import Domain, Tenant
from arkrelay.policy.limits import hour_end
from arkrelay.policy.sentences import when
from arkrelay.relay.bursts import BurstGuard
from arkrelay.relay.domains import DomainChecker
from arkrelay.relay.meter import Meter
from arkrelay.store import suppressions
from arkrelay.store.database import Store
from arkrelay.store.history import newest_events

LOOKED_BACK = 200  # events about domains of a tenant that are looked through for when one began to fail
_MADE = {
    Cause.FAILURE: "a delivery that failed",
    Cause.COMPLAINT: "a complaint",
    Cause.UNSUBSCRIBE: "an unsubscription",
    Cause.HAND: "a person",
    Cause.IMPORT: "an import",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """Who knows it."""

    store: Store
    live: Live
    domains: DomainChecker
    meter: Meter
    bursts: BurstGuard

    async def of(self, question: str, tenant_id: str | None, now: float) -> list[tuple[str, str]]:
        """Return the subject and the sentence of each thing of this name; ``tenant_id`` None sees all tenants."""
        tenants = [
            tenant for tenant in self.live.snapshot.tenants.values() if tenant_id is None or tenant.id == tenant_id
        ]
        if "@" in question:
            address = kept_address(question)
            entries = await self.store.read(
                lambda db: [entry for tenant in tenants for entry in suppressions.of_address(db, tenant.id, address)]
            )
            return [(address, _listed(entry)) for entry in entries]
        found = [(one.id, said) for one in tenants if one.id == question for said in self._tenant(one, now)]
        name = kept_domain(question)
        for tenant in tenants:
            domain = tenant.domain(name)
            if domain is not None:
                found.append((name, await self._domain(tenant.id, domain)))
        return found

    async def _domain(self, tenant_id: str, domain: Domain) -> str:
        name, state = domain.name, self.domains.states.get((tenant_id, domain.name))
        if state is None or state.checked_at is None:
            said = f"{name} is a sender domain of {tenant_id}, and its DNS has not been checked yet"
        elif state.verified:
            said = f"{name} is verified: {tenant_id} may send from it (DNS checked {_clock(state.checked_at)})"
        else:
            since = await self._failing_since(state)
            began = f"since {_clock(since)} " if since is not None else ""
            said = f"{name} is not verified {began}for {tenant_id}: {'; '.join(_failing(state))}"
            said += f" (DNS checked {_clock(state.checked_at)})"
        if domain.trusted:
            said += "; it may send all the same, for its file trusts it"
        return f"{said}."

    async def _failing_since(self, state: DomainState) -> float | None:
        """Return when it was first told that the domain, once verified, fails; None: never verified, or not told."""
        if state.verified_at is None:
            return None
        kinds = {EventKind.DNS_ERROR, EventKind.DOMAIN_VERIFIED}
        found, _ = await self.store.read(
            lambda db: newest_events(db, limit=LOOKED_BACK, tenant_id=state.tenant_id, kinds=kinds)
        )
        since = state.told_at
        for one in found:
            if one.event.data.get("domain") == state.domain:
                if one.event.kind is EventKind.DOMAIN_VERIFIED:
                    break
                since = one.event.at
        return since

    def _tenant(self, tenant: Tenant, now: float) -> Iterator[str]:
        in_hour, in_month = self.meter.used(tenant.id, now)
        hourly, monthly = tenant.limits.hourly, tenant.limits.hard_cap_monthly
        if tenant.status != "active":
            yield f"{tenant.id} is {tenant.status}: its mail is not sent."
        used = f"{tenant.id} has sent to {_recipients(in_hour)} this hour"
        if hourly:
            over = ", and what comes beyond them is held" if in_hour >= hourly else ""
            yield f"{used}, of {hourly} that its limit allows{over}; it starts anew {when(hour_end(now), now)}."
        else:
            yield f"{used}, and has no limit."
        if monthly:
            over = "; more is refused" if in_month >= monthly else ""
            sent = f"{tenant.id} has sent to {_recipients(in_month)} this month"
            yield f"{sent}, of {monthly} that its cap allows{over}."
        for one in tenant.credentials:
            if one.held:
                yield f"The key {one.name} is on hold: {one.suspicion or 'its file says so'}."
        for burst in self.bursts.lasting(tenant.id):
            yield f"{burst.site} suppresses nobody until {when(burst.until, now)}: {burst}."


def _failing(state: DomainState) -> Iterator[str]:
    for name, status, error in (
        ("SPF", state.spf, state.spf_error),
        ("DKIM", state.dkim, state.dkim_error),
        ("return path", state.return_path, state.return_path_error),
    ):
        if status != "OK":
            yield f"{name} {str(status or 'not checked').lower()}{f' ({error})' if error else ''}"


def _listed(entry: Suppression) -> str:
    what = f"mail with the tag {entry.stream}" if entry.stream else "what is sent to it"
    return (
        f"{entry.address} is on the suppression list of {entry.tenant_id} since {_clock(entry.created_at)}, by"
        f" {_MADE[entry.cause]} (reason: {entry.reason}): {what} is held."
    )


def _recipients(n: int) -> str:
    return f"{n} recipient{'' if n == 1 else 's'}"


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
