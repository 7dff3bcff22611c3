"""The relay as its users have it: a process with a configuration directory, spoken to by SMTP and HTTP."""

import asyncio
import contextlib
import json
import os
import signal
import smtplib
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

START_S = 20.0
STOP_S = 45.0

CONFIG = """\
hostname = "relay.test"
state_dir = "state"

[[listen]]
service = "submission"
address = "127.0.0.1:0"
tls = "optional"
tenant = "acme"

[[listen]]
service = "http"
address = "127.0.0.1:0"

[delivery]
port = {mx_port}
allow_destinations = ["127.0.0.0/8"]
first_delay = "{first_delay}"
idle_connection = "1s"
messages_per_second = 0
{delivery}

[dns]
nameservers = ["{dns}"]
timeout = "2s"

[limits]
min_free_disk = "1MB"
{more}
"""

TENANT = """\
name = "Acme Inc"

[[credentials]]
name = "production"
type = "smtp"
secret = "secret-of-production"

[[domains]]
name = "sender.test"
trusted = true
[[domains.dkim]]
selector = "s1"
private_key = "dkim/sender.test.pem"
{more}
"""


class Relay:
    """One daemon. ``async with`` starts and stops it; ``kill`` is kill -9, ``start`` starts it again."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.config = folder / "arkrelay.toml"
        self.socket = self.state / "arkrelay.sock"
        self.log = folder / "log.jsonl"
        self.process: asyncio.subprocess.Process | None = None
        self.environment: dict[str, str] = {}
        self.listeners: list[dict[str, str]] = []
        self.write(**settings)

    def write(
        self,
        *,
        dns: str = "127.0.0.1:9",
        mx_port: int = 9,
        delivery: str = "",
        more: str = "",
        tenant: str = "",
        first_delay: str = "5m",
    ) -> None:
        """Write the configuration: one tenant with one trusted domain and a signing key."""
        keys = self.state / "keys" / "dkim"
        keys.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.state.chmod(0o700)
        (self.state / "keys").chmod(0o700)
        key = keys / "sender.test.pem"
        if not key.exists():
            key.write_bytes(signing_key())
            key.chmod(0o600)
        (self.folder / "tenants").mkdir(exist_ok=True)
        self.config.write_text(
            CONFIG.format(dns=dns, mx_port=mx_port, delivery=delivery, more=more, first_delay=first_delay)
        )
        acme = self.folder / "tenants" / "acme.toml"
        acme.write_text(TENANT.format(more=tenant))
        acme.chmod(0o600)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the process and return when it is ready; AssertionError with its log when it ends instead."""
        environment = {**os.environ, **self.environment, "PYTHONWARNINGS": "error::ResourceWarning"}
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "arkrelay", "serve", "-c", str(self.config), stderr=log, env=environment
            )
        async with asyncio.timeout(START_S):
            while self.process.returncode is None:
                with contextlib.suppress(aiohttp.ClientError, OSError, AssertionError):
                    self.listeners = (await self.get("/v1/status"))["data"]["listeners"]
                    return
                await asyncio.sleep(0.02)
        raise AssertionError(f"the daemon ended with {self.process.returncode}: {self.log.read_text()[-3000:]}")

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """End the process in order, and return its exit status."""
        if self.process is None or self.process.returncode is not None:
            return 0 if self.process is None else self.process.returncode or 0
        self.process.send_signal(number)
        async with asyncio.timeout(STOP_S):
            return await self.process.wait()

    async def kill(self) -> None:
        """Kill -9."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    def port(self, service: str = "submission") -> int:
        """Return the port of the first listener of this service on TCP."""
        for listener in self.listeners:
            if listener["service"] == service and not listener["address"].startswith("unix:"):
                return int(listener["address"].rpartition(":")[2])
        raise LookupError(service)

    async def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, status: int = 200
    ) -> dict[str, Any]:
        """Ask the control socket; AssertionError with the answer for another status than expected."""
        connector = aiohttp.UnixConnector(str(self.socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, f"http://arkrelay{path}", json=body) as response,
        ):
            answer: dict[str, Any] = await response.json()
            assert response.status == status, (response.status, answer)
            return answer

    async def get(self, path: str) -> dict[str, Any]:
        """Ask the control socket."""
        return await self.call("GET", path)

    async def until(self, path: str, holds: Any, timeout_s: float = 15.0) -> dict[str, Any]:
        """Ask again and again until ``holds(answer)``; return that answer."""
        answer: dict[str, Any] = {}
        try:
            async with asyncio.timeout(timeout_s):
                while not holds(answer := await self.get(path)):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{path} never held; last: {json.dumps(answer)[:2000]}") from None
        return answer

    async def send(
        self,
        *recipients: str,
        sender: str = "app@sender.test",
        subject: str = "hello",
        body: str = "Hello.\r\n",
        headers: str = "",
        return_path: str | None = None,
    ) -> str:
        """Send one message by SMTP without AUTH, from its sender's address; return its public id."""
        to = ", ".join(recipients)
        text = f"From: {sender}\r\nTo: {to}\r\nSubject: {subject}\r\n{headers}\r\n{body}"
        given = sender if return_path is None else return_path
        return await asyncio.to_thread(self._send, given, recipients, text.encode())

    def _send(self, sender: str, recipients: tuple[str, ...], message: bytes) -> str:
        with smtplib.SMTP("127.0.0.1", self.port(), timeout=20) as client:
            client.ehlo("client.test")
            client.mail(sender)
            for recipient in recipients:
                code, text = client.rcpt(recipient)
                assert code == 250, text
            code, text = client.data(message)
            assert code == 250, text
            return text.decode().rsplit(" ", 1)[1]

    async def logged(
        self, event: str, at_least: int = 1, timeout_s: float = 15.0, **values: Any
    ) -> list[dict[str, Any]]:
        """Return the log lines of this event with these values once there are so many: a daemon gathers for 50 ms."""
        try:
            async with asyncio.timeout(timeout_s):
                while len(found := [line for line in self.lines(event) if values.items() <= line.items()]) < at_least:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{len(found)} lines of {event}, not {at_least}") from None
        return found

    def lines(self, event: str = "") -> list[dict[str, Any]]:
        """Return the log lines of this event, or all, as far as they are written."""
        found = []
        for line in self.log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                row = json.loads(line)
                if not event or row.get("event") == event:
                    found.append(row)
        return found


_key: list[bytes] = []


def signing_key() -> bytes:
    """Return one RSA key for all tests of a run: making one costs half a second."""
    if not _key:
        private = rsa.generate_private_key(65537, 2048)
        _key.append(
            private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    return _key[0]
