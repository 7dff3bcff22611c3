"""What this machine is on the network: its own addresses, and whether it has a global IPv6 one.

Read from /proc, because the standard library cannot list addresses of interfaces.
"""

import re
import socket
from ipaddress import IPv6Address, ip_address
from pathlib import Path

PROC = Path("/proc/self/net")  # /proc/net is missing under systemd's ProcSubset=pid
SOMEWHERE = "2001:500:88::1"  # any address in the middle of the Internet; nothing goes there
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


def system_ipv6() -> str | None:
    """Return the global IPv6 address from which this machine would connect to the world, or None without one.

    Nothing is sent: a datagram socket that is connected only asks the routing table.
    """
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.connect((SOMEWHERE, 25))
            address = IPv6Address(str(probe.getsockname()[0]))
    except (OSError, ValueError):
        return None
    return str(address) if address.is_global else None


def _ipv6(proc: Path) -> list[IPv6Address]:
    """Each line of if_inet6 starts with the address as 32 hex digits."""
    try:
        lines = (proc / "if_inet6").read_text().splitlines()
    except OSError:
        return []
    addresses = [ip_address(int(line.split()[0], 16).to_bytes(16, "big")) for line in lines if line.strip()]
    return [address for address in addresses if isinstance(address, IPv6Address)]
