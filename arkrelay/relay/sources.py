"""Our own addresses: which this machine has, and which of them the world can look up.

Large receivers refuse IPv6 from an address whose PTR record does not lead to a name that leads back, and no other DNS
mistake costs people who run their own mail more. So with ``ip_family = "auto"`` an IPv6 address is used only when it
does (RFC 1912 §2.1); an IPv4 address is used in any case, and what was found about it is shown.

Looked at when the daemon starts, when the configuration changes, and hourly; every minute while an address is missing
on this machine or DNS did not answer. A resolver in trouble changes nothing, because it says nothing of the address.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

import structlog

from arkrelay.config.live import Live
from arkrelay.model.delivery import Source
from arkrelay.model.reply import Failure
from arkrelay.wire.dns import Resolver

log = structlog.get_logger()

EVERY_S = 3600.0
SOON_S = 60.0
NAMES_MAX = 5  # PTR records of one address that are looked at


@dataclass(frozen=True, slots=True)
class SourceState:
    """What is known of one address: is it here, which name it has, and whether that leads back (None: not known)."""

    source: Source
    present: bool
    name: str = ""
    matches: bool | None = None
    reason: str = "not looked at yet"

    def usable(self, ip_family: str) -> bool:
        """Return whether mail may leave from it, by the setting ``delivery.ip_family``."""
        family = family_of(self.source.address)
        if not self.present or (ip_family != "auto" and ip_family != str(family)):
            return False
        return family == 4 or ip_family == "6" or self.matches is True


class Sources:
    """The addresses of ``[[source]]`` and ``source_addresses``, or the one IPv6 address that the system would choose.

    ``machine`` returns the addresses that this machine has, ``system_ipv6`` the one from which it would connect.
    """

    def __init__(
        self,
        live: Live,
        resolver: Resolver,
        machine: Callable[[], frozenset[str]],
        system_ipv6: Callable[[], str | None],
    ) -> None:
        self._live = live
        self._resolver = resolver
        self._machine = machine
        self._system_ipv6 = system_ipv6
        self._changed = asyncio.Event()
        self.states: dict[str, SourceState] = {}
        self.look()

    def of(self, pool: str) -> tuple[Source, ...]:
        """Return the addresses from which mail of ``pool`` may leave now."""
        ip_family = self._live.snapshot.settings.delivery.ip_family
        return tuple(
            state.source
            for state in self.states.values()
            if state.source.pool == pool and self.configured and state.usable(ip_family)
        )

    def families(self, pool: str) -> tuple[int, ...]:
        """Return the address families by which mail of ``pool`` may leave now, in the order of their use."""
        if self.configured:
            found = {family_of(source.address) for source in self.of(pool)}
            return tuple(family for family in (6, 4) if family in found)
        ip_family = self._live.snapshot.settings.delivery.ip_family
        if ip_family != "auto":
            return (int(ip_family),)
        return (6, 4) if any(state.usable("auto") for state in self.states.values()) else (4,)

    def missing(self, pool: str) -> str:
        """Return why mail of ``pool`` cannot leave at all now, or an empty string."""
        if not self.configured or self.of(pool):
            return ""
        own = [state for state in self.states.values() if state.source.pool == pool]
        reasons = ", ".join(f"{state.source.address}: {self.fault(state)}" for state in own)
        name = f'the pool "{pool}"' if pool else "this mail"
        return f"no address of ours can be used for {name} ({reasons or 'there is no [[source]] for it'})"

    def fault(self, state: SourceState) -> str:
        """Return why an address is not used, or an empty string."""
        ip_family = self._live.snapshot.settings.delivery.ip_family
        if state.usable(ip_family):
            return ""
        if not state.present:
            return "this machine does not have it"
        if ip_family not in {"auto", str(family_of(state.source.address))}:
            return f'delivery.ip_family is "{ip_family}"'
        return state.reason

    @property
    def configured(self) -> bool:
        """Whether our addresses are named; else the system chooses."""
        return bool(self._live.snapshot.settings.sources)

    def changed(self) -> None:
        """Say that the configuration was swapped."""
        self.look()
        self._changed.set()

    def look(self) -> bool:
        """Find out which of the addresses this machine has, without DNS; return whether all are there."""
        sources = self._live.snapshot.settings.sources
        if not sources:
            system = self._system_ipv6()
            sources = (Source(address=system),) if system is not None else ()
        own = self._machine()
        states = {}
        for source in sources:
            old = self.states.get(source.address) or SourceState(source, present=False)
            present = source.address in own or ip_address(source.address).is_loopback
            states[source.address] = SourceState(source, present, old.name, old.matches, old.reason)
            if not present and self.states.get(source.address, old).present:
                log.warning("source_address_missing", address=source.address)
        self.states = states
        return all(state.present for state in states.values())

    async def run(self) -> None:
        """Look at all of them, again and again, until cancelled."""
        while True:
            certain = self.look()
            for state in list(self.states.values()):
                certain = await self._ask(state) and certain
            self._changed.clear()
            pause_s = EVERY_S * random.uniform(0.9, 1.1) if certain else SOON_S  # noqa: S311 -- spreads work only
            try:
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _ask(self, state: SourceState) -> bool:
        """Look the address up both ways and keep the answer; return False when DNS was in trouble."""
        address = state.source.address
        names = await self._resolver.ptr(address)
        if isinstance(names, Failure):
            return False
        matches, name, reason = False, "", f"{address} has no PTR record"
        for name in names[:NAMES_MAX]:
            back = await self._resolver.addresses(name, (family_of(address),))
            if not isinstance(back, Failure) and address in back.addresses:
                matches, reason = True, ""
                break
            reason = f"its PTR record says {name}, which does not lead back to {address}"
        new = SourceState(state.source, state.present, name, matches, reason)
        old = self.states.get(address)
        if old is not None and old.source == state.source:
            self.states[address] = new
            if old.matches != matches:
                told = log.info if matches or family_of(address) == 4 else log.warning
                told("source_address", address=address, name=name, matches=matches, reason=reason)
        return True


def family_of(address: str) -> int:
    """Return 4 or 6."""
    return 6 if ":" in address else 4
