"""The two things we say to systemd and hear from it: sd_notify(3) and sd_listen_fds(3), in a few lines.

Both are plain environment variables and one datagram; a library would be longer than the protocol.
"""

import os
import socket

from arkrelay.base.sockets import spell

FIRST_FD = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)


def notify(state: str) -> None:
    """Tell the service manager ``state`` ("READY=1", "STATUS=…"); without one nothing happens."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)  # noqa: FBT003 -- the socket module's own signature
            sock.sendto(state.encode(), address)
    except OSError:
        pass  # the manager is busy or gone; the next message tells it


def watchdog_s() -> float | None:
    """Return how often the watchdog wants to hear from us, half of WATCHDOG_USEC, or None."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    if not usec.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(usec) / 2_000_000


def inherited() -> dict[str, socket.socket]:
    """Return the listening sockets that systemd opened for us, by their FileDescriptorName; once.

    A second socket of the same name is known by its address.
    """
    count = os.environ.pop("LISTEN_FDS", "")
    pid = os.environ.pop("LISTEN_PID", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if not count.isdigit() or pid != str(os.getpid()):
        return {}
    found: dict[str, socket.socket] = {}
    for index in range(int(count)):
        sock = socket.socket(fileno=FIRST_FD + index)
        sock.set_inheritable(False)
        name = names[index] if index < len(names) else ""
        if name in found:
            name = spell(sock)
        found[name] = sock
    return found
