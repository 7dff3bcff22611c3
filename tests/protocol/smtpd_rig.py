"""The SMTP doors running on real sockets, a client that says exactly what it is told, and a submitter that notes."""

import asyncio
import contextlib
import functools
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from peers.certificates import authority, valid

from arkrelay.base.metrics import Metrics
from arkrelay.config.live import Live
from arkrelay.mail.unsubscribe import UnsubscribeTokens
from arkrelay.mail.verp import ReturnPaths
from arkrelay.model.address import Address
from arkrelay.model.errors import Refused
from arkrelay.model.message import Accepted, Submission
from arkrelay.policy.classify import Rules
from arkrelay.relay.bursts import BurstGuard
from arkrelay.relay.inbound import Inbound
from arkrelay.relay.mailboxes import Mailboxes
from arkrelay.relay.notices import Notices
from arkrelay.relay.sign import Signing
from arkrelay.relay.submit import Submitter
from arkrelay.relay.unsubscribe import Unsubscriber
from arkrelay.smtpd.listener import Doors
from arkrelay.store.database import Store
from arkrelay.wire.tls import ServerCertificate

WAIT_S = 10.0  # nothing in these tests may take longer
KEY = "k3y-of-production-0123456789abcdef"
API_KEY = "api-key-0123456789abcdef"
HELD_KEY = "held-key-0123456789abcdef"
MUTE_KEY = "mute-key-0123456789abcdef"
OTHER_KEY = "other-key-0123456789abcdef"
SUSPENDED_KEY = "suspended-key-0123456789abcdef"
NAMED_KEY = "named-key-0123456789abcdef"

ACME = f"""
name = "Acme Inc"
[[credentials]]
name = "production"
secret = "{KEY}"
[[credentials]]
name = "rest"
type = "api"
secret = "{API_KEY}"
[[credentials]]
name = "held"
secret = "{HELD_KEY}"
hold = true
[[credentials]]
name = "mute"
secret = "{MUTE_KEY}"
permissions = []
[[credentials]]
name = "named"
secret = "{NAMED_KEY}"
username = "mailer"
[[domains]]
name = "acme.test"
trusted = true
"""
OTHER = f"""
name = "Other Ltd"
[[credentials]]
name = "production"
secret = "{OTHER_KEY}"
"""
SUSPENDED = f"""
name = "Gone"
status = "suspended"
[[credentials]]
name = "production"
secret = "{SUSPENDED_KEY}"
"""
LOCAL = '[[listen]]\nservice = "submission"\naddress = "127.0.0.1:0"\ntls = "optional"\n'
BOUND = LOCAL + 'tenant = "acme"\n'
PUBLIC = '[[listen]]\nservice = "submission"\naddress = "127.0.0.1:0"\n'
IMPLICIT = '[[listen]]\nservice = "submissions"\naddress = "127.0.0.1:0"\n'
BOUNCES = '[[listen]]\nservice = "bounces"\naddress = "127.0.0.1:0"\n'


@functools.cache
def rules() -> Rules:
    return Rules.load()


class Notebook:
    """A submitter that keeps what it is given, waits when told, and fails when told."""

    def __init__(self) -> None:
        self.submissions: list[Submission] = []
        self.error: Exception | None = None
        self.sender_error: Exception | None = None
        self.unready: Refused | None = None
        self.gate: asyncio.Event | None = None
        self.entered = asyncio.Event()
        self.finished = asyncio.Event()
        self.senders: list[tuple[str, str | None, Address | None]] = []

    def not_ready(self) -> Refused | None:
        return self.unready

    def check_sender(self, tenant_id: str, credential: str | None, return_path: Address | None) -> None:
        self.senders.append((tenant_id, credential, return_path))
        if self.sender_error is not None:
            raise self.sender_error

    async def submit(self, submission: Submission) -> Accepted:
        self.entered.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.submissions.append(submission)
        self.finished.set()
        tokens = tuple(f"tok{len(self.submissions)}-{i}" for i in range(len(submission.recipients)))
        return Accepted(len(self.submissions), tokens)


@dataclass
class Reply:
    code: int
    lines: list[str]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


class Client:
    """One connection that sends bytes as they are given and reads replies line by line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def line(self) -> str:
        async with asyncio.timeout(WAIT_S):
            return (await self.reader.readline()).decode("ascii")

    async def reply(self) -> Reply:
        """Return the next reply; code 0 when the server has closed."""
        lines: list[str] = []
        while True:
            try:
                line = await self.line()
            except ConnectionResetError:
                line = ""
            if not line:
                return Reply(0, lines)
            assert line.endswith("\r\n")
            lines.append(line[4:-2])
            if line[3] == " ":
                return Reply(int(line[:3]), lines)

    async def ask(self, command: str | bytes) -> Reply:
        self.send((command.encode() if isinstance(command, str) else command) + b"\r\n")
        return await self.reply()

    async def expect(self, command: str | bytes, code: int) -> Reply:
        reply = await self.ask(command)
        assert reply.code == code, (command, reply)
        return reply

    async def ended(self) -> bytes:
        """Return what still comes until the server closes."""
        async with asyncio.timeout(WAIT_S):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    async def start_tls(self, context: ssl.SSLContext) -> None:
        async with asyncio.timeout(WAIT_S):
            await self.writer.start_tls(context, server_hostname="relay.test")

    async def to_rcpt(self, *recipients: str) -> None:
        """Open a transaction up to RCPT."""
        await self.expect("EHLO client.test", 250)
        await self.expect("MAIL FROM:<app@acme.test>", 250)
        for recipient in recipients or ("ann@dest.test",):
            await self.expect(f"RCPT TO:<{recipient}>", 250)

    async def to_data(self) -> None:
        """Open a transaction up to the 354."""
        await self.to_rcpt()
        await self.expect("DATA", 354)

    def reset(self) -> None:
        """Drop the connection so that the peer sees RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(WAIT_S):
                await self.writer.wait_closed()


@dataclass
class Rig:
    doors: Doors
    live: Live
    notebook: Notebook
    folder: Path
    tls: ssl.SSLContext
    store: Store
    return_paths: ReturnPaths
    unsubscribes: UnsubscribeTokens
    clients: list[Client] = field(default_factory=list)

    def endpoint(self, index: int = 0) -> str:
        return self.doors.addresses[index][1]

    def port(self, index: int = 0) -> int:
        return int(self.endpoint(index).rpartition(":")[2])

    async def connect(self, index: int = 0, *, tls: bool = False, greeted: bool = True) -> Client:
        """Connect to the listener of this number, and read its greeting."""
        endpoint = self.endpoint(index)
        async with asyncio.timeout(WAIT_S):
            if endpoint.startswith("unix:"):
                pair = await asyncio.open_unix_connection(endpoint.removeprefix("unix:"))
            else:
                host, _, port = endpoint.rpartition(":")
                pair = await asyncio.open_connection(
                    host.strip("[]"),
                    int(port),
                    ssl=self.tls if tls else None,
                    server_hostname="relay.test" if tls else None,
                )
        client = Client(*pair)
        self.clients.append(client)
        if greeted:
            reply = await client.reply()
            assert reply.code == 220, reply
        return client

    async def until_idle(self) -> None:
        """Return when the server has no connection left."""
        async with asyncio.timeout(WAIT_S):
            await self.doors._shared.emptied()


def write_config(folder: Path, listen: str, smtp: str = "", limits: str = "tarpit = '0s'\n") -> Path:
    pair = valid("relay.test")
    pair.private_key.chmod(0o600)
    tenants = folder / "tenants"
    tenants.mkdir(exist_ok=True)
    for name, text in (("acme", ACME), ("other", OTHER), ("gone", SUSPENDED)):
        (tenants / f"{name}.toml").write_text(text)
        (tenants / f"{name}.toml").chmod(0o600)
    path = folder / "arkrelay.toml"
    path.write_text(
        f'hostname = "relay.test"\nstate_dir = "{folder}/state"\ntenants_dir = "tenants"\n'
        f'[tls]\ncertificate = "{pair.certificate}"\nprivate_key = "{pair.private_key}"\n'
        f"{listen}[smtp]\n{smtp}[limits]\n{limits}"
    )
    path.chmod(0o600)
    return path


@contextlib.asynccontextmanager
async def running(
    folder: Path, listen: str = BOUND, smtp: str = "", limits: str = "tarpit = '0s'\n"
) -> AsyncIterator[Rig]:
    """The doors of this configuration, drained at the end; no connection may be left behind by then."""
    live = Live(write_config(folder, listen, smtp, limits))
    settings = live.snapshot.settings
    assert settings.tls is not None
    notebook = Notebook()
    certificate = ServerCertificate(settings.tls.certificate, settings.tls.private_key)
    with contextlib.closing(Store.open(settings.state_dir)) as store:
        async with _serving(live, notebook, store, certificate, folder) as rig:
            yield rig


@contextlib.asynccontextmanager
async def _serving(
    live: Live, notebook: Notebook, store: Store, certificate: ServerCertificate, folder: Path
) -> AsyncIterator[Rig]:
    return_paths = ReturnPaths(live.snapshot.return_path_secret())
    signing = Signing()
    unsubscribes = UnsubscribeTokens(live.snapshot.unsubscribe_secret())
    mailboxes = Mailboxes(live, return_paths, unsubscribes)
    notices = Notices(store, live, signing)
    inbound = Inbound(
        store,
        live,
        mailboxes,
        rules(),
        Metrics(),
        BurstGuard(store, live, lambda host: host),
        notices,
        Unsubscriber(store, live, unsubscribes),
        lambda host: host,
        lambda *_due: None,
    )
    doors = Doors(live, cast("Submitter", notebook), inbound, certificate)
    await doors.start()
    client_context = ssl.create_default_context(cafile=str(authority().ca_file))
    rig = Rig(doors, live, notebook, folder, client_context, store, return_paths, unsubscribes)
    try:
        yield rig
    finally:
        for client in rig.clients:
            with contextlib.suppress(AttributeError):  # Python 3.11.2, for a TLS transport that was closed twice
                client.writer.transport.abort()
        if notebook.gate is not None:
            notebook.gate.set()
        await doors.drain(WAIT_S)
        signing.close()
        assert doors.sessions == 0


def contents(notebook: Notebook) -> Sequence[bytes]:
    return [submission.content for submission in notebook.submissions]
