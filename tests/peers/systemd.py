"""systemd, as far as a daemon sees it: who hears its datagrams, and a process started as systemd starts one."""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from peers import certificates
from peers.daemon import START_S, Relay

WAIT_S = 15.0


class Datagrams(asyncio.DatagramProtocol):
    """What was sent to a socket of systemd's, in order."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self._news = asyncio.Event()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received.append(data)
        self._news.set()

    def lines(self) -> list[str]:
        """Return every assignment of every datagram."""
        return [line for data in self.received for line in data.decode().split("\n")]

    async def until(self, holds: Callable[[list[str]], bool], timeout_s: float = WAIT_S) -> list[str]:
        """Wait until ``holds(lines)``; AssertionError with the lines when it never does."""
        try:
            async with asyncio.timeout(timeout_s):
                while not holds(self.lines()):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"never came; the last of {len(self.lines())}: {self.lines()[-8:]}") from None
        return self.lines()


@contextlib.asynccontextmanager
async def datagrams(path: Path) -> AsyncIterator[Datagrams]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Datagrams, local_addr=str(path), family=socket.AF_UNIX)
    try:
        yield protocol
    finally:
        transport.close()


class Launched(Relay):
    """A daemon whose interpreter runs ``code`` first, which ends by being arkrelay."""

    code = ""
    pass_fds: Sequence[int] = ()
    prefix: Sequence[str | Path] = ()

    async def launch(self) -> None:
        """Start the process, and do not wait for it."""
        environment = {**os.environ, **self.environment}
        program = ["-c", self.code] if self.code else ["-m", "arkrelay", "serve", "-c"]
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.prefix,
                sys.executable,
                *program,
                str(self.config),
                stderr=log,
                env=environment,
                pass_fds=self.pass_fds,
            )

    async def start(self) -> None:
        """Start the process and return when it answers."""
        await self.launch()
        await self.ready()

    async def ready(self) -> None:
        assert self.process is not None
        async with asyncio.timeout(2 * START_S):
            while self.process.returncode is None:
                with contextlib.suppress(Exception):  # whatever a daemon says that is not there yet
                    self.listeners = (await self.get("/v1/status"))["data"]["listeners"]
                    return
                await asyncio.sleep(0.05)
        raise AssertionError(f"the daemon ended with {self.process.returncode}: {self.log.read_text()[-3000:]}")


def write_certificate(folder: Path) -> None:
    """Write cert.pem and key.pem for ``relay.test``, as the ``[tls]`` of a test names them."""
    pair = certificates.valid("relay.test")
    for name, source in (("cert.pem", pair.certificate), ("key.pem", pair.private_key)):
        (folder / name).write_bytes(source.read_bytes())
        (folder / name).chmod(0o600)
