"""Listening sockets: bound or refused, never half."""

import socket
from pathlib import Path

import pytest

from arkrelay.base.sockets import bind, bind_unix, spell


async def test_a_free_port_is_bound_and_spelt() -> None:
    (sock,) = await bind("127.0.0.1", 0)
    with sock:
        assert spell(sock) == f"127.0.0.1:{sock.getsockname()[1]}"


async def test_a_port_in_use_is_refused_with_nothing_left_open() -> None:
    (first,) = await bind("127.0.0.1", 0)
    with first:
        first.listen()
        with pytest.raises(OSError, match="in use"):
            await bind("127.0.0.1", first.getsockname()[1])


def test_a_dead_sockets_file_is_replaced_and_has_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    first, _ = bind_unix(path, 0o660)
    first.close()  # its file stays, and nobody listens
    second, inode = bind_unix(path, 0o600)
    with second:
        assert path.stat().st_ino == inode
        assert path.stat().st_mode & 0o777 == 0o600
        assert spell(second) == f"unix:{path}"


def test_a_socket_with_a_listener_and_any_other_file_are_left(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    first, inode = bind_unix(path, 0o600)
    with first:
        first.listen()
        with pytest.raises(OSError, match="listens"):
            bind_unix(path, 0o600)
        assert path.stat().st_ino == inode
    other = tmp_path / "file"
    other.write_text("keep me")
    with pytest.raises(OSError, match="in use"):
        bind_unix(other, 0o600)
    assert other.read_text() == "keep me"


def test_an_ipv6_socket_is_spelt_in_brackets() -> None:
    with socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::1", 0))
        assert spell(sock) == f"[::1]:{sock.getsockname()[1]}"
