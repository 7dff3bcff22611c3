"""What the machine is on the network, read from /proc as the kernel writes it."""

import ipaddress
import socket
from pathlib import Path

import pytest

from arkrelay.wire.machine import own_addresses, system_ipv6

# /proc/net/fib_trie of a machine with 127.0.0.1 and 192.0.2.2/24 (Linux 6.1), shortened
FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     +-- 192.0.2.0/24 2 0 2
        |-- 192.0.2.0
           /24 link UNICAST
        |-- 192.0.2.2
           /32 host LOCAL
        |-- 192.0.2.255
           /32 link BROADCAST
"""
LOOPBACK = "00000000000000000000000000000001 01 80 10 80       lo"
LINK_LOCAL = "fe80000000000000021122fffe334455 02 40 20 80     eth0"
GLOBAL = "2a0104f8000000000000000000000002 02 40 00 80     eth0"


def proc(folder: Path, *, v4: str | None = FIB_TRIE, v6: list[str] | None = None) -> Path:
    if v4 is not None:
        (folder / "fib_trie").write_text(v4)
    if v6 is not None:
        (folder / "if_inet6").write_text("".join(f"{line}\n" for line in v6))
    return folder


def test_own_addresses_are_those_of_all_interfaces(tmp_path: Path) -> None:
    found = own_addresses(proc(tmp_path, v6=[LOOPBACK, LINK_LOCAL, GLOBAL]))
    assert found == {"127.0.0.1", "192.0.2.2", "::1", "fe80::211:22ff:fe33:4455", "2a01:4f8::2"}


def test_networks_and_broadcasts_are_not_ours(tmp_path: Path) -> None:
    found = own_addresses(proc(tmp_path))
    assert found == {"127.0.0.1", "192.0.2.2"}


def test_the_address_by_which_the_system_would_send_is_global_or_none() -> None:
    found = system_ipv6()
    assert found is None or ipaddress.ip_address(found).is_global


def test_a_machine_that_tells_nothing_has_no_addresses(tmp_path: Path) -> None:
    assert own_addresses(tmp_path / "missing") == frozenset()
    assert own_addresses(proc(tmp_path, v4="", v6=[])) == frozenset()


def test_this_machine_knows_the_address_it_is_reached_by() -> None:
    assert "127.0.0.1" in own_addresses()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.77", 9))  # nothing is sent; TEST-NET-1, RFC 5737
        except OSError:
            pytest.skip("this machine has no route to anywhere")
        assert sock.getsockname()[0] in own_addresses()
