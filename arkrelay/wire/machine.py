"""What this machine is: its own addresses, which of them the world sees, and whether its clock is kept right.

Addresses are read from /proc, because the standard library cannot list those of interfaces.
"""

import ctypes
import re
import socket
from ipaddress import IPv6Address, ip_address
from pathlib import Path

PROC = Path("/proc/self/net")  # /proc/net is missing under systemd's ProcSubset=pid
SOMEWHERE = "2001:500:88::1"  # any address in the middle of the Internet; nothing goes there
SOMEWHERE_V4 = "192.33.4.12"  # likewise
TIMEX_BYTES = 256  # struct timex has 208 on 64-bit Linux
TIMEX_STATUS_AT = 5 * ctypes.sizeof(ctypes.c_long)  # behind modes (padded), offset, freq, maxerror, esterror
STA_UNSYNC, TIME_ERROR = 0x40, 5  # linux/timex.h
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


def system_ipv4() -> str | None:
    """Return the global IPv4 address from which this machine would connect to the world, or None without one.

    None as well behind a translation of addresses (NAT): the machine does not know what the world sees.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((SOMEWHERE_V4, 25))
            address = ip_address(str(probe.getsockname()[0]))
    except (OSError, ValueError):
        return None
    return str(address) if address.is_global else None


def clock_is_kept() -> bool | None:
    """Return whether a time service keeps the kernel's clock (adjtimex(2): STA_UNSYNC is off); None: not told."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        buffer = (ctypes.c_char * TIMEX_BYTES)()  # modes = 0: nothing is set
        state = library.adjtimex(buffer)
    except (OSError, AttributeError):
        return None
    if state < 0:
        return None
    status = ctypes.c_int.from_buffer(buffer, TIMEX_STATUS_AT).value
    return state != TIME_ERROR and not status & STA_UNSYNC


def _ipv6(proc: Path) -> list[IPv6Address]:
    """Each line of if_inet6 starts with the address as 32 hex digits."""
    try:
        lines = (proc / "if_inet6").read_text().splitlines()
    except OSError:
        return []
    addresses = [ip_address(int(line.split()[0], 16).to_bytes(16, "big")) for line in lines if line.strip()]
    return [address for address in addresses if isinstance(address, IPv6Address)]
