"""A temporary relay in a process of its own, and what becomes of one message handed to it."""

import asyncio
import os
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import arkrelay
from arkrelay.cli.client import Daemon, Denied, Door, NotRunning
from arkrelay.cli.demo_peers import LOOPBACK, Delivered, DnsServer, Mx, Zone
from arkrelay.cli.demo_story import Story, compose, judge_dkim
from arkrelay.cli.records import records_of
from arkrelay.cli.setup import Made, Plan, write_configuration
from arkrelay.cli.shapes import smtp_username
from arkrelay.cli.state import Failed
from arkrelay.cli.submit import Parcel, SmtpDoor, rest_body, send_smtp
from arkrelay.config import tenants
from arkrelay.wire.tls import self_signed

HOSTNAME = "relay.sender.test"  # RFC 2606 §2: nobody's
SENDER = "sender.test"
RECIPIENT = "recipient.test"
MX_HOST = f"mx.{RECIPIENT}"
TENANT = "demo"
READY_S = 20.0
ARRIVES_S = 20.0
STOPS_S = 35.0  # the daemon gives work in flight 30 s
POLL_S = 0.05
LOG_LINES = 20
T = TypeVar("T")


class DemoRelay:
    """The relay and its world; ``start`` before use, ``stop`` in any case."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "arkrelay.toml"
        self.addresses: dict[str, str] = {}
        self._zone = Zone()
        self._mx = Mx()
        self._dns: DnsServer | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._made: Made | None = None
        self._ports = (0, 0, 0)
        self._key = ""

    async def start(self) -> None:
        """Have everything running, the sender's domain verified."""
        self._dns = await DnsServer.start(self._zone)
        await self._mx.start(MX_HOST, self._certificate())
        self._ports = free_ports()
        self._made = await asyncio.to_thread(write_configuration, self._plan(self._dns.port))
        self._key = tenants.add_key(self.config, "demo")[1]
        self._fill_zone(self._made)
        await self._serve()
        await self._until_ready()
        path = f"/v1/tenants/{TENANT}/domains/{SENDER}/verify"
        found = (await Daemon(self.config).request("POST", path)).get("data") or {}
        if not found.get("verified"):
            raise Failed(f"{SENDER} did not verify against its own DNS server: {found.get('dnsRecords')}")
        self._describe(self._made)

    async def tell(self, how: str) -> Story:
        """Send one message by SMTP or REST, and return what became of it."""
        author, recipient = f"hello@{SENDER}", f"{how.lower()}@{RECIPIENT}"
        content = compose(author, recipient, how)
        parcel = Parcel(content, author, author, (recipient,))
        began = time.monotonic()
        if how == "SMTP":
            await self._by_smtp(parcel)
        else:
            await self._rest().request("POST", "/v1/emails/raw", rest_body(parcel, TENANT))
        arrived = await self._arrival(recipient)
        took_s = time.monotonic() - began
        row = await self._settled(recipient)
        dkim, dkim_text = judge_dkim(arrived, SENDER, self._zone.texts)
        why = await self._rest().request("GET", "/v1/why", q=str(row.get("id", recipient)))
        sentences = [str(one.get("sentence")) for one in why["data"].get("sentences", [])]
        return Story(
            how=how,
            id=str(row.get("id", "-")),
            author=author,
            recipient=recipient,
            delivered=arrived is not None,
            host=f"{MX_HOST} at {LOOPBACK}:{self._mx.port}",
            tls=arrived.tls if arrived else "",
            dkim=dkim,
            dkim_text=dkim_text,
            status=str(row.get("status", "")),
            why=" ".join(sentences),
            took_s=took_s,
        )

    async def stop(self) -> None:
        """End the relay's process, which is the only one that is ended, and close the servers."""
        process = self._process
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(STOPS_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        await self._mx.close()
        if self._dns is not None:
            self._dns.close()

    def log_tail(self) -> list[str]:
        """Return the last lines that the relay logged."""
        try:
            return (self.folder / "log").read_text(errors="replace").splitlines()[-LOG_LINES:]
        except OSError:
            return []

    def _plan(self, dns_port: int) -> Plan:
        extra = {
            "dns": {"nameservers": [f"{LOOPBACK}:{dns_port}"]},
            "delivery": {"port": self._mx.port, "allow_destinations": [f"{LOOPBACK}/32"]},
            "log": {"format": "json"},
            "limits": {
                "min_free_disk": "1MB",
                "api_requests_per_s": 100,
            },  # whoever tries it pastes many lines at once
        }
        return Plan(self.folder, self.folder / "state", HOSTNAME, TENANT, SENDER, self._ports, extra)

    def _certificate(self) -> ssl.SSLContext:
        paths = (self.folder / "mx.pem", self.folder / "mx.key")
        for path, pem in zip(paths, self_signed(MX_HOST), strict=True):
            path.touch(0o600)
            path.write_bytes(pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*paths)
        return context

    def _fill_zone(self, made: Made) -> None:
        for record in records_of(made.snapshot, made.domain).all:
            if record.type == "TXT":
                self._zone.add_text(record.full_name, record.value)
            else:
                self._zone.add(record.full_name, record.type, f"{record.value}.")
        settings = made.snapshot.settings
        self._zone.add_text(settings.spf_host, f"v=spf1 ip4:{LOOPBACK} -all")
        self._zone.add(settings.return_path_host, "MX", f"10 {HOSTNAME}.")
        self._zone.add(HOSTNAME, "A", LOOPBACK)
        self._zone.add(RECIPIENT, "MX", f"10 {MX_HOST}.")
        self._zone.add(MX_HOST, "A", LOOPBACK)

    async def _serve(self) -> None:
        package = str(Path(arkrelay.__file__).parent.parent)
        paths = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        with (self.folder / "log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "arkrelay", "serve", "-c", str(self.config)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": paths},
                start_new_session=True,  # ^C is for us, and we end it in order
            )

    async def _until_ready(self) -> None:
        async def ready() -> bool | None:
            process = self._process
            if process is None or process.returncode is not None:
                raise Failed("the relay ended before it was ready", "its log is above")
            try:
                return bool((await Daemon(self.config).request("GET", "/v1/status"))["data"].get("ready")) or None
            except (NotRunning, Denied):
                return None

        if await _until(ready, READY_S) is None:
            raise Failed(f"the relay was not ready within {READY_S:g} s", "its log is above")

    def _rest(self) -> Daemon:
        port = self._ports[2]
        return Daemon(self.config, Door("rest", base=f"http://{LOOPBACK}:{port}"), self._key)

    async def _by_smtp(self, parcel: Parcel) -> None:
        if self._made is None:
            raise Failed("the relay was not started")
        door = SmtpDoor("demo", host=LOOPBACK, port=self._ports[1], tls="required")
        await send_smtp(door, parcel, (smtp_username(TENANT, self._made.credential), self._made.key))

    async def _arrival(self, recipient: str) -> Delivered | None:
        try:
            async with asyncio.timeout(ARRIVES_S):
                while True:
                    arrived = await self._mx.arrived.get()
                    if arrived.recipient == recipient:
                        return arrived
        except TimeoutError:
            return None

    async def _settled(self, recipient: str) -> dict[str, Any]:
        """Return the row of this recipient, once its outcome is written, or as it is when that takes too long."""
        row: dict[str, Any] = {}

        async def settled() -> bool | None:
            found = (await self._rest().request("GET", "/v1/emails", to=recipient)).get("data") or []
            row.update(found[0] if found else {})
            return True if row.get("status") not in {None, "pending"} else None

        await _until(settled, ARRIVES_S)
        return row

    def _describe(self, made: Made) -> None:
        plain, secure, http = self._ports
        self.addresses = {
            "smtp": f"{LOOPBACK}:{secure} (STARTTLS), {LOOPBACK}:{plain}",
            "smtp name": smtp_username(TENANT, made.credential),
            "smtp password": made.key,
            "rest": f"http://{LOOPBACK}:{http}/v1",
            "rest key": self._key,
            "sender domain": SENDER,
            "recipient domain": RECIPIENT,
            "configuration": str(self.config),
            "log": str(self.folder / "log"),
        }


async def _until(check: Callable[[], Awaitable[T | None]], timeout_s: float) -> T | None:
    """Return the first answer of ``check`` that is not None; None when there is none in time."""
    ends = time.monotonic() + timeout_s
    while (answer := await check()) is None and time.monotonic() < ends:  # noqa: ASYNC110 -- it is in another process
        await asyncio.sleep(POLL_S)
    return answer


def free_ports() -> tuple[int, int, int]:
    """Return three ports of loopback that were free a moment ago."""
    sockets = [socket.create_server((LOOPBACK, 0)) for _ in range(3)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports[0], ports[1], ports[2]
