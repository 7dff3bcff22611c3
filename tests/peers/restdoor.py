"""A relay with several tenants and HTTP listeners of every kind, and a client that asks one question at a time."""

import base64
import contextlib
import io
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from peers import certificates
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Mx
from yarl import URL

from arkrelay.config.tenants import add_key

ACME_KEY, HELD_KEY, TEST_KEY = (
    "ark_live_acme-0123456789abcdef",
    "ark_live_held-0123456789",
    "ark_test_acme-0123456789",
)
SMTP_KEY, OTHER_KEY, GONE_KEY = "secret-of-production", "ark_live_other-0123456789abcdef", "ark_live_gone-0123456789"
STRANGER = "127.0.0.2"  # a client address that is not trusted

CREDENTIALS = f"""
[[credentials]]
name = "rest"
type = "api"
secret = "{ACME_KEY}"
[[credentials]]
name = "held"
type = "api"
secret = "{HELD_KEY}"
hold = true
[[credentials]]
name = "test"
type = "api"
secret = "{TEST_KEY}"
"""
OTHER = f"""
name = "Other Ltd"
[[credentials]]
name = "rest"
type = "api"
secret = "{OTHER_KEY}"
[[domains]]
name = "other.test"
trusted = true
"""
GONE = f"""
name = "Gone"
status = "suspended"
[[credentials]]
name = "rest"
type = "api"
secret = "{GONE_KEY}"
"""
LISTENERS = """\
trusted_addresses = ["127.0.0.1/32"]
api_requests_per_s = 0

[retention]
content = "1s"

[tls]
certificate = "cert.pem"
private_key = "key.pem"

[[listen]]
service = "http"
address = "127.0.0.1:0"
tls = "required"

[[listen]]
service = "http"
address = "127.0.0.1:0"
serve = ["metrics"]

[[listen]]
service = "http"
address = "unix:{folder}/api.sock"
"""


@dataclass(frozen=True)
class Answer:
    """What came back; ``body`` is the decoded JSON, empty when it was none."""

    status: int
    headers: Mapping[str, str]
    text: str
    body: dict[str, Any]

    @property
    def data(self) -> Any:
        return self.body["data"]

    @property
    def code(self) -> str:
        return str(self.body["error"]["code"])

    @property
    def field(self) -> str | None:
        field: str | None = self.body["error"].get("field")
        return field


class RestDoor:
    """The relay, an organisation key, and where its listeners are."""

    def __init__(self, relay: Relay, key: str, mx: Mx) -> None:
        self.relay, self.key, self.mx = relay, key, mx
        bound = [listener["address"] for listener in relay.listeners if listener["service"] == "http"]
        tcp = [address for address in bound if not address.startswith("unix:")]
        self.plain, self.tls, self.metrics = f"http://{tcp[0]}", f"https://{tcp[1]}", f"http://{tcp[2]}"
        self.unix = relay.folder / "api.sock"

    @property
    def port(self) -> int:
        return int(self.plain.rpartition(":")[2])

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = "",
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        base: str = "",
        source: str = "",
        socket: Path | None = None,
    ) -> Answer:
        """Ask as the organisation, or with another key (None: none), from another address, or on a unix socket."""
        fields = {"Content-Type": "application/json", **(headers or {})}
        if key is not None:
            fields["Authorization"] = f"Bearer {key or self.key}"
        connector: aiohttp.BaseConnector = (
            aiohttp.UnixConnector(str(socket))
            if socket
            else aiohttp.TCPConnector(local_addr=(source, 0) if source else None)
        )
        content = json.dumps(body).encode() if body is not None else data
        url = URL((base or self.plain) + path, encoded=True)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(
                method, url, data=None if content is None else io.BytesIO(content), headers=fields, ssl=False
            ) as response,
        ):
            text = (await response.read()).decode()
            decoded = {}
            with contextlib.suppress(ValueError):
                decoded = json.loads(text)
            return Answer(response.status, response.headers.copy(), text, decoded)

    async def send(self, *recipients: str, key: str = "", **fields: Any) -> Answer:
        """Submit a raw message."""
        body = {"from": "app@sender.test", "to": list(recipients), "rawMessage": raw(*recipients), **fields}
        return await self.ask("POST", "/v1/emails/raw", body, key=key)

    async def logged(self, answer: Answer) -> Any:
        """Return the entry of a request in the log, with its bodies."""
        found = await self.ask("GET", f"/v1/logs/{answer.headers['X-Request-Id']}")
        assert found.status == 200, found.text
        return found.data

    async def log(self, query: str = "", key: str = "") -> list[dict[str, Any]]:
        """Return a page of the log."""
        answer = await self.ask("GET", f"/v1/logs?{query}", key=key)
        assert answer.status == 200, answer.text
        rows: list[dict[str, Any]] = answer.body["data"]
        return rows

    async def held(self, name: str) -> str:
        """Return the id of an email that waits for nothing but a person: its recipient is suppressed."""
        address = f"{name}@held.test"
        await self.ask("POST", "/v1/tenants/acme/suppressions", {"address": address})
        answer = await self.send(address)
        return str(answer.data["id"])


def raw(*recipients: str, author: str = "app@sender.test", body: str = "Hello.\r\n") -> str:
    """Return a message in base64."""
    head = f"From: App <{author}>\r\nTo: {', '.join(recipients)}\r\nSubject: hello\r\n\r\n"
    return base64.b64encode((head + body).encode()).decode()


@contextlib.asynccontextmanager
async def open_rest_door(folder: Path) -> AsyncIterator[RestDoor]:
    """Start DNS, MX and relay."""
    show_certificate(folder)
    async with DnsServer() as dns, Mx() as mx:
        dns.set("rcpt.test", "MX", "10 mx.rcpt.test.")
        dns.set("mx.rcpt.test", "A", "127.0.0.1")
        relay = Relay(
            folder, dns=dns.address, mx_port=mx.port, more=LISTENERS.format(folder=folder), tenant=CREDENTIALS
        )
        for name, text in (("other", OTHER), ("gone", GONE)):
            path = folder / "tenants" / f"{name}.toml"
            path.write_text(text)
            path.chmod(0o600)
        _, key = add_key(relay.config, "ops")
        async with relay:
            yield RestDoor(relay, key, mx)


def show_certificate(folder: Path, host: str = "relay.test") -> None:
    """Put a certificate for ``host`` where the relay has it."""
    pair = certificates.valid(host)
    for name, source in (("cert.pem", pair.certificate), ("key.pem", pair.private_key)):
        new = folder / f"{name}.new"
        new.write_bytes(source.read_bytes())
        new.chmod(0o600)
        new.rename(folder / name)
