"""What this machine is on the network: its own addresses, and whether it has a global IPv6 one.

Read from /proc, because the standard library cannot list addresses of interfaces.
"""

import re
from ipaddress import IPv6Address, ip_address
from pathlib import Path

PROC = Path("/proc/self/net")  # /proc/net is missing under systemd's ProcSubset=pid
_LOCAL = re.compile(r"\|-- (\S+)\n\s+/32 host LOCAL")


def own_addresses(proc: Path = PROC) -> frozenset[str]:
    """Return every address of every interface; empty where /proc does not tell."""
    found: set[str] = set()
    try:
        found.update(_LOCAL.findall((proc / "fib_trie").read_text()))
    except OSError:
        pass
    found.update(str(address) for address in _ipv6(proc))
    return frozenset(found)


def has_global_ipv6(proc: Path = PROC) -> bool:
    """Return whether mail may leave by IPv6: some interface has a global address."""
    return any(address.is_global for address in _ipv6(proc))


def _ipv6(proc: Path) -> list[IPv6Address]:
    """Each line of if_inet6 starts with the address as 32 hex digits."""
    try:
        lines = (proc / "if_inet6").read_text().splitlines()
    except OSError:
        return []
    addresses = [ip_address(int(line.split()[0], 16).to_bytes(16, "big")) for line in lines if line.strip()]
    return [address for address in addresses if isinstance(address, IPv6Address)]
