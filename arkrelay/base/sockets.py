"""Sockets and transports: what every door does the same way with them."""

import asyncio
import os
import socket
from pathlib import Path
from typing import cast


async def bind(host: str, port: int) -> list[socket.socket]:
    """Return one socket per address of ``host``, bound and not yet listening; raises OSError with none left open."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            sock.setblocking(False)  # noqa: FBT003 -- the socket module's own signature
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def bind_unix(path: Path, mode: int) -> tuple[socket.socket, int]:
    """Return a socket bound to ``path`` with this mode, and its inode, by which its owner knows it again.

    The socket of a dead process is replaced; one on which somebody listens, and any other file, is left (OSError).
    """
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()  # nobody listens
            else:
                raise OSError("another process listens there")
    sock = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o777 & ~mode)  # it must never be open to more than it should
    try:
        sock.setblocking(False)  # noqa: FBT003 -- the socket module's own signature
        sock.bind(str(path))
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(mask)
    return sock, path.stat().st_ino


def spell(sock: socket.socket) -> str:
    """Return the address of a bound socket as the configuration files spell it."""
    bound = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{bound}"
    return f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}"


def pass_on(transport: asyncio.Transport, data: bytes) -> None:
    """Give bytes that we were given too soon to the protocol that now reads this transport."""
    protocol = cast("asyncio.BufferedProtocol", transport.get_protocol())
    while data and not transport.is_closing():
        buffer = memoryview(protocol.get_buffer(len(data)))
        count = min(len(buffer), len(data))
        buffer[:count] = data[:count]
        protocol.buffer_updated(count)
        data = data[count:]
