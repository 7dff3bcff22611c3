"""The environment and datagrams of systemd: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3)."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from arkrelay.base import systemd

FIRST = 200  # sockets of a test begin here: the low numbers are pytest's


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    """Stand for the service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        yield sock


@pytest.mark.parametrize("abstract", [False, True])
def test_a_state_reaches_the_manager(
    abstract: bool, manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"@arkrelay-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    manager.bind("\0" + path[1:] if abstract else path)
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    systemd.notify("READY=1\nSTATUS=bücher")
    assert manager.recv(4096).decode() == "READY=1\nSTATUS=bücher"


def test_without_a_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    systemd.notify("READY=1")


def test_a_manager_that_does_not_read_holds_nobody_up(
    manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    for _ in range(10_000):  # its queue is full long before; a blocking send would stop here
        systemd.notify("WATCHDOG=1")
    assert manager.recv(4096) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        pytest.param("30000000", None, 15.0, id="half-of-it"),
        pytest.param("30000000", "own", 15.0, id="for-us"),
        pytest.param("30000000", "1", None, id="for-another-process"),
        pytest.param(None, None, None, id="none"),
        pytest.param("", None, None, id="empty"),
        pytest.param("-5", None, None, id="negative"),
        pytest.param("soon", None, None, id="rubbish"),
    ],
)
def test_the_watchdog_is_fed_twice_in_its_time(
    usec: str | None, pid: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert systemd.watchdog_s() == seconds


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """Give listening sockets, and pass them on by number as systemd does."""
    monkeypatch.setattr(systemd, "FIRST_FD", FIRST)
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    for index, sock in enumerate(sockets):
        os.dup2(sock.fileno(), FIRST + index, inheritable=True)
    yield sockets
    for sock in sockets:
        sock.close()
    for index in range(len(sockets)):
        try:
            os.close(FIRST + index)
        except OSError:
            pass  # closed by the test


def announce(monkeypatch: pytest.MonkeyPatch, count: int | str, names: str | None, pid: int | None = None) -> None:
    monkeypatch.setenv("LISTEN_FDS", str(count))
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() if pid is None else pid))
    if names is None:
        monkeypatch.delenv("LISTEN_FDNAMES", raising=False)
    else:
        monkeypatch.setenv("LISTEN_FDNAMES", names)


def close(found: dict[str, socket.socket]) -> None:
    for sock in found.values():
        sock.close()


def port(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def test_sockets_come_by_their_names(passed: list[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    announce(monkeypatch, 3, "bounces:submission:submissions")
    found = systemd.inherited()
    assert {name: port(sock) for name, sock in found.items()} == {
        name: port(sock) for name, sock in zip(("bounces", "submission", "submissions"), passed, strict=True)
    }
    close(found)


def test_sockets_come_once_and_are_not_for_our_children(
    passed: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(monkeypatch, 3, "a:b:c")
    found = systemd.inherited()
    assert not any(sock.get_inheritable() for sock in found.values())
    assert [name for name in os.environ if name.startswith("LISTEN_")] == []
    assert systemd.inherited() == {}
    close(found)


def test_a_second_socket_of_one_name_is_known_by_its_address(
    passed: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(monkeypatch, 3, "submission:submission:submission")
    found = systemd.inherited()
    assert set(found) == {"submission", *(f"127.0.0.1:{port(sock)}" for sock in passed[1:])}
    close(found)


def test_an_ipv6_address_has_its_brackets(monkeypatch: pytest.MonkeyPatch, passed: list[socket.socket]) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as v6:
        os.dup2(v6.fileno(), FIRST + 1)
        announce(monkeypatch, 2, "bounces:bounces")
        found = systemd.inherited()
        assert set(found) == {"bounces", f"[::1]:{port(v6)}"}
        close(found)


@pytest.mark.parametrize(
    ("count", "pid"),
    [
        pytest.param(3, 1, id="for-another-process"),
        pytest.param("", None, id="none"),
        pytest.param("-1", None, id="negative"),
        pytest.param("many", None, id="rubbish"),
        pytest.param(0, None, id="zero"),
    ],
)
def test_what_is_not_for_us_is_left_alone(
    count: int | str, pid: int | None, passed: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(monkeypatch, count, "a:b:c", pid)
    assert systemd.inherited() == {}
    os.fstat(FIRST)  # still open


def test_sockets_without_names_come_by_their_addresses(
    passed: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(monkeypatch, 3, None)
    found = systemd.inherited()
    assert {port(sock) for sock in found.values()} == {port(sock) for sock in passed}
    close(found)
