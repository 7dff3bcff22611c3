"""What the tests of real clients share: a relay with all its doors, a DNS server and an MX; programs run with a
limit; and what must be true of a message that arrived."""

import base64
import contextlib
import email
import email.policy
import functools
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import dkim
from cryptography.hazmat.primitives import serialization
from peers import certificates, processes
from peers.daemon import Relay, signing_key
from peers.dns import DnsServer
from peers.mx import PLAIN_EXTENSIONS, Mx, Received, Script
from peers.processes import Ran

from arkrelay.mail.dkim import public_record

HOST = "127.0.0.1"
USERNAME, PASSWORD = "acme/production", "secret-of-production"
PROGRAM_S = 40.0

DOORS = """\
tarpit = "50ms"

[[listen]]
service = "submission"
address = "127.0.0.1:0"

[[listen]]
service = "submissions"
address = "127.0.0.1:0"

[smtp]
auth_mechanisms = ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "DIGEST-MD5"]

[tls]
certificate = "cert.pem"
private_key = "key.pem"
"""


@dataclass(frozen=True)
class Door:
    """One way in, as a client's settings name it; without a name and password where none is needed."""

    name: str  # "local" | "submission" | "submissions"
    port: int
    tls: str  # "none" | "starttls" | "implicit"
    username: str = ""
    password: str = ""


@dataclass(frozen=True)
class Letter:
    """What a person writes; ``order`` is the same as JSON for the small scripts in ``e2e/clients``."""

    to: str
    bcc: str = ""
    sender: str = "app@sender.test"
    subject: str = "Grüße aus Zürich: 50 % off, naïve ✉"
    text: str = "Guten Tag,\n\n.a line that begins with a dot\n.\n..\ntrailing spaces   \nnaïve café ✓\n\nBye\n"
    html: str = "<html><body><p>Grüße, <b>fett</b> &amp; schön</p></body></html>\n"
    attachment: bytes = bytes(range(256)) * 40
    filename: str = "Zeugnis ü.bin"
    headers: Mapping[str, str] = field(  # Nodemailer writes every name like this, whatever it is given
        default_factory=lambda: {"X-Ark-Tag": "welcome", "X-Ark-Metadata-Order": "A-17", "X-Mailer-Test": "kept"}
    )

    def order(self) -> dict[str, Any]:
        return asdict(self) | {"attachment": base64.b64encode(self.attachment).decode()}


class Office:
    """One relay with its doors, its DNS server and the MX of ``rcpt.test``."""

    def __init__(self, relay: Relay, dns: DnsServer, mx: Mx, folder: Path) -> None:
        self.relay, self.dns, self.mx, self.folder = relay, dns, mx, folder
        self.ca_file = certificates.authority().ca_file
        self._recipients = 0

    def door(self, name: str, password: str = PASSWORD) -> Door:
        """Return the settings of a door: ``local`` needs no password, the others do."""
        plain, starttls = (
            int(listener["address"].rpartition(":")[2])
            for listener in self.relay.listeners
            if listener["service"] == "submission"
        )
        if name == "local":
            return Door(name, plain, "none")
        if name == "submission":
            return Door(name, starttls, "starttls", USERNAME, password)
        return Door(name, self.relay.port("submissions"), "implicit", USERNAME, password)

    def recipient(self, name: str = "ann") -> str:
        """Return an address that nobody has used before."""
        self._recipients += 1
        return f"{name}{self._recipients}@rcpt.test"

    async def arrived(self, recipient: str) -> Received:
        """Return the message that the MX took for this recipient."""
        return (await self.all_arrived(recipient, 1))[0]

    async def all_arrived(self, recipient: str, at_least: int) -> list[Received]:
        """Return the messages that the MX took for this recipient, once there are so many."""
        while True:
            seen = len(self.mx.messages)
            found = [received for received in self.mx.messages if recipient in received.recipients]
            if len(found) >= at_least:
                return found
            await self.mx.wait(seen + 1, 30.0)

    async def shown(self, recipient: str) -> dict[str, Any]:
        """Return what the relay tells about the newest message to this recipient."""
        page = await self.relay.until(f"/v1/emails?to={recipient}", lambda answer: answer["total"] > 0)
        answer: dict[str, Any] = (await self.relay.get(f"/v1/emails/{page['data'][0]['id']}"))["data"]
        return answer

    async def known(self, recipient: str) -> bool:
        """Return whether the relay accepted anything for this recipient."""
        return bool((await self.relay.get(f"/v1/emails?to={recipient}"))["total"])

    async def run(
        self,
        *command: str | Path,
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
    ) -> Ran:
        """Run a program without the settings of whoever runs the tests; it is ended when it takes too long."""
        return await processes.run(self.folder, *command, limit_s=PROGRAM_S, stdin=stdin, environment=environment)

    def settings(self, door: Door, *letters: Letter, **options: Any) -> str:
        """Return the JSON that a script of ``e2e/clients`` takes as its argument."""
        where = asdict(door) | {"host": HOST, "ca": str(self.ca_file)}
        return json.dumps({**where, "letters": [letter.order() for letter in letters], **options})

    async def check(self, letter: Letter, recipient: str = "") -> Received:
        """Assert that the letter arrived as written, signed, and without what was meant for the relay only."""
        received = await self.arrived(recipient or letter.to)
        message = parse(received.content)
        assert message["Subject"] == letter.subject
        assert message["From"].addresses[0].addr_spec == letter.sender
        assert lines(message, "plain") == letter.text.rstrip("\n").split("\n")
        if letter.html:
            assert lines(message, "html") == letter.html.rstrip("\n").split("\n")
        if letter.attachment:
            (attached,) = message.iter_attachments()
            assert attached.get_filename() == letter.filename
            assert attached.get_payload(decode=True) == letter.attachment
        assert_clean(received.content)
        assert message["X-Mailer-Test"] == letter.headers.get("X-Mailer-Test")
        shown = await self.shown(recipient or letter.to)
        assert shown["tag"] == letter.headers.get("X-Ark-Tag")
        metadata = {
            key.removeprefix("X-Ark-Metadata-"): value
            for key, value in letter.headers.items()
            if key.startswith("X-Ark-Metadata-")
        }
        assert (shown["metadata"] or {}) == metadata
        assert shown["subject"] == letter.subject
        return received


@contextlib.asynccontextmanager
async def open_office(folder: Path, *, tenant: str = "") -> AsyncIterator[Office]:
    """Start DNS, MX and relay; the MX speaks every extension."""
    pair = certificates.valid("relay.test")
    for name, source in (("cert.pem", pair.certificate), ("key.pem", pair.private_key)):
        (folder / name).write_bytes(source.read_bytes())
        (folder / name).chmod(0o600)
    script = Script(extensions=(*PLAIN_EXTENSIONS, "SMTPUTF8"))
    async with DnsServer() as dns, Mx(script) as mx:
        dns.set("rcpt.test", "MX", "10 mx.rcpt.test.")
        dns.set("mx.rcpt.test", "A", HOST)
        async with Relay(folder, dns=dns.address, mx_port=mx.port, more=DOORS, tenant=tenant) as relay:
            yield Office(relay, dns, mx, folder)
        assert mx.violations == []


def parse(content: bytes) -> EmailMessage:
    """Return the message as a reader's program sees it."""
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def lines(message: EmailMessage, kind: str) -> list[str]:
    """Return the lines of the body of this kind, decoded; line ends and empty last lines do not count."""
    body = message.get_body((kind,))
    assert body is not None, f"no text/{kind}"
    text: str = body.get_content()
    return text.replace("\r\n", "\n").rstrip("\n").split("\n")


def assert_clean(content: bytes) -> None:
    """Assert a valid signature, no field that was meant for the relay, no Bcc, and no client's address."""
    names = [name.lower() for name in parse(content)]
    assert [name for name in names if name.startswith(("x-ark-", "x-pm-")) or name == "bcc"] == []
    assert names.count("date") == names.count("message-id") == names.count("received") == 1
    assert HOST not in parse(content)["Received"]
    assert verdicts(content, {"s1": record()}) == [True]


@functools.cache
def record() -> str:
    """Return the DNS record of the key with which every test relay signs."""
    key = serialization.load_pem_private_key(signing_key(), None)
    return public_record(key)  # type: ignore[arg-type]  # the function is for RSA and Ed25519, which this is


def verdicts(content: bytes, records: Mapping[str, str], domain: str = "sender.test") -> list[bool]:
    """Return dkimpy's verdict on every signature, from the top; ``records`` are the TXT values by selector."""

    def fetch(name: bytes, timeout: int = 5) -> bytes | None:
        found = records.get(name.decode().removesuffix(f"._domainkey.{domain}."))
        return None if found is None else found.encode()

    def judge(index: int) -> bool:
        try:
            return bool(dkim.DKIM(content).verify(idx=index, dnsfunc=fetch))
        except dkim.DKIMException:  # a message or a signature that is none
            return False

    return [judge(index) for index in range(len(parse(content).get_all("DKIM-Signature", [])))]
