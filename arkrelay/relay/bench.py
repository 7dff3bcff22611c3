"""What each check of the doctor gets to look with, and the answers that several of them need."""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TypeVar

from arkrelay.config.snapshot import Snapshot
from arkrelay.mail.verp import ReturnPaths
from arkrelay.model.reply import Failure
from arkrelay.model.settings import Listen
from arkrelay.policy import spf
from arkrelay.policy.dmarc import Found, walk
from arkrelay.policy.doctor import Address
from arkrelay.policy.spf import SpfResult, check_host
from arkrelay.wire.dns import Resolver

NAMES_MAX = 5  # PTR records of one address that are looked at
Q = TypeVar("Q")
A = TypeVar("A")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What this machine says of itself; each is asked at every look."""

    own: Callable[[], frozenset[str]]
    ipv4: Callable[[], str | None]  # the global address from which it would connect
    ipv6: Callable[[], str | None]
    clock_is_kept: Callable[[], bool | None]
    listeners: Callable[[], Sequence[tuple[Listen, str]]] | None  # what is bound; None: no daemon runs here


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """One look: configuration, resolver and machine at this moment. ``now`` is Unix seconds."""

    snapshot: Snapshot
    resolver: Resolver
    machine: Machine
    own: frozenset[str]
    return_paths: ReturnPaths | None  # None: the host key cannot be read
    addresses: tuple[Address, ...]
    resolver_ok: bool
    now: float

    async def spf(self, address: Address, sender: str) -> SpfResult:
        """Return what a receiver makes of SPF for mail of ``sender`` from ``address``."""

        async def ask(question: spf.Question) -> spf.Answer:
            return await self.resolver.records(question.name, question.kind)

        return await answered(check_host(address.address, sender, address.ehlo), ask)

    async def dmarc(self, domain: str) -> Found:
        """Return the DMARC record that applies to ``domain``, and its organisational domain."""
        return await answered(walk(domain), self.resolver.txt)


async def answered(asking: Generator[Q, A, R], ask: Callable[[Q], Awaitable[A]]) -> R:
    """Run a pure generator of questions to its end, with the answers of ``ask``."""
    try:
        question = next(asking)
        while True:
            question = asking.send(await ask(question))
    except StopIteration as end:
        result: R = end.value
        return result


async def ptr_of(resolver: Resolver, address: str) -> tuple[Sequence[str] | Failure, str | None]:
    """Return the names of an address, and the first of them that leads back to it."""
    names = await resolver.ptr(address)
    if isinstance(names, Failure):
        return names, None
    for name in names[:NAMES_MAX]:
        back = await resolver.records(name, "AAAA" if ":" in address else "A")
        if not isinstance(back, Failure) and address in back:
            return names, name
    return names, None


async def hosts_of(resolver: Resolver, name: str) -> Sequence[str] | Failure:
    """Return the addresses of ``name`` of both families; () when there are none."""
    four, six = await asyncio.gather(resolver.records(name, "A"), resolver.records(name, "AAAA"))
    if isinstance(four, Failure) and isinstance(six, Failure):
        return four
    return tuple(address for answer in (four, six) if not isinstance(answer, Failure) for address in answer)


def is_private(address: str) -> bool:
    """Return whether the world sees another address in its place; loopback is what a test sends from."""
    parsed = ip_address(address)
    return not parsed.is_global and not parsed.is_loopback
