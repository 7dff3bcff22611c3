"""The doctor's look, and what this machine says of itself, where no daemon runs."""

import asyncio
from pathlib import Path
from typing import Any

from arkrelay.cli.state import Failed
from arkrelay.config.live import Live
from arkrelay.config.snapshot import Snapshot
from arkrelay.mail.verp import ReturnPaths
from arkrelay.model.errors import NotFound
from arkrelay.policy.doctor import Address
from arkrelay.policy.finding import Report
from arkrelay.relay.bench import Machine
from arkrelay.relay.doctor import Doctor
from arkrelay.relay.doctordns import find_addresses
from arkrelay.wire.dns import Resolver
from arkrelay.wire.machine import clock_is_kept, own_addresses, system_ipv4, system_ipv6

MACHINE = Machine(own=own_addresses, ipv4=system_ipv4, ipv6=system_ipv6, clock_is_kept=clock_is_kept, listeners=None)


def look_here(config: Path, domain: str) -> dict[str, Any]:
    """Return a report in the shape of REST, of what can be looked at without the daemon; raise Failed."""
    live = Live(config)
    return_paths = ReturnPaths(live.snapshot.return_path_secret()) if live.snapshot.host_key else None
    doctor = Doctor(live, lambda: resolver_of(live.snapshot), MACHINE, return_paths)
    try:
        return _shape(asyncio.run(doctor.look(domain)))
    except NotFound as error:
        raise Failed(str(error)) from None


def addresses_here(snapshot: Snapshot) -> list[Address]:
    """Return the addresses from which mail leaves, as the world sees them."""

    async def find() -> list[Address]:
        resolver = resolver_of(snapshot)
        try:
            return await find_addresses(snapshot.settings, MACHINE, resolver)
        finally:
            await resolver.close()

    return asyncio.run(find())


def resolver_of(snapshot: Snapshot) -> Resolver:
    """Return a resolver by ``[dns]``, with an empty cache."""
    dns = snapshot.settings.dns
    return Resolver(dns.nameservers, dns.timeout_s, trust_ad=dns.trust_ad)


def _shape(report: Report) -> dict[str, Any]:
    findings = [
        {
            "check": one.check,
            "subject": one.subject,
            "domain": one.domain or None,
            "level": str(one.level),
            "found": one.found,
            "expected": one.expected or None,
            "advice": one.advice or None,
        }
        for one in report.findings
    ]
    return {"checkedAt": report.at or None, **report.counts(), "findings": findings}
