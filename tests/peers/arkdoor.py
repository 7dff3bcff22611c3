"""What the official clients are given instead of their cloud: a relay, with an MX, DNS and a receiver of webhooks."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
from aiohttp import web
from peers import arkclient
from peers.arkclient import Api, Client, Wire
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Act, Delay, Mx, Received, Script, Stage

from arkrelay.config.tenants import add_key

ACME_KEY, OTHER_KEY, SMTP_KEY = "ark_live_acme-0123456789abcdef", "ark_live_other-0123456789", "secret-of-production"
HOURLY = 100_000  # recipients that acme may mail in an hour

SETTINGS = """\
api_requests_per_s = {requests_per_s}

[public]
url = "https://relay.test"
return_path_host = "rp.relay.test"
spf_host = "spf.relay.test"
track_host = "track.relay.test"

[webhooks]
allow_http = true
allow_destinations = ["127.0.0.0/8"]
"""
ACME = f"""
[[credentials]]
name = "rest"
type = "api"
secret = "{ACME_KEY}"

[limits]
hourly = {HOURLY}
"""
OTHER = f"""
name = "Other Ltd"
[[credentials]]
name = "rest"
type = "api"
secret = "{OTHER_KEY}"
[limits]
hourly = 2
[[domains]]
name = "other.test"
trusted = true
"""


@dataclass(frozen=True)
class Post:
    """What a webhook brought."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """An HTTP server for webhooks; the end of a path says what it answers: ``/any/204``, ``/any/500``."""

    def __init__(self) -> None:
        self.posts: list[Post] = []
        self._port = 0
        self._runner: web.AppRunner | None = None

    def url(self, name: str, status: int = 204) -> str:
        """Return a URL for one webhook."""
        return f"http://127.0.0.1:{self._port}/{name}/{status}"

    def at(self, url: str) -> list[Post]:
        """Return what was posted to this URL."""
        return [post for post in self.posts if url.endswith(post.path)]

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/{name}/{status}", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.posts.append(Post(request.path, request.headers.copy(), await request.read()))
        status = int(request.match_info["status"])
        return web.Response(status=status, text="" if status == 204 else f"answered {status}")


class Manners(Mapping[str, Stage]):
    """Mailboxes by their first word: ``nobody-…`` does not exist, ``busy-…`` may later, ``slow-…`` does slowly."""

    _ACTS: Mapping[str, Act] = {
        "nobody": "550 5.1.1 no such user",
        "busy": "451 4.7.1 try again later",
        "slow": Delay(5, None),
    }

    def __getitem__(self, address: str) -> Stage:
        return self._ACTS[address.partition("-")[0]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ACTS)

    def __len__(self) -> int:
        return len(self._ACTS)


_numbers = itertools.count(1)


def unique(name: str) -> str:
    """Return ``name-1``, ``name-2``, …: tests share one relay."""
    return f"{name}-{next(_numbers)}"


def mailbox(name: str) -> str:
    """Return an address of its own at the MX."""
    return f"{unique(name)}@rcpt.test"


class ArkDoor:
    """The relay, its keys and its surroundings."""

    def __init__(self, relay: Relay, key: str, mx: Mx, dns: DnsServer, receiver: Receiver) -> None:
        self.relay, self.key, self.mx, self.dns, self.receiver = relay, key, mx, dns, receiver
        self.bare = f"http://127.0.0.1:{relay.port('http')}"
        self.base = f"{self.bare}/v1"
        self.http = httpx.AsyncClient(base_url=self.bare, headers={"Authorization": f"Bearer {key}"}, timeout=30)
        self._clients: dict[tuple[object, ...], tuple[Client, Wire]] = {}

    def api(self, *, sync: bool = True, key: str = "", bare: bool = False, **options: Any) -> Api:
        """Return a client with the organisation's key or another; ``bare``: its base URL is without /v1."""
        wanted = (sync, key, bare, *sorted(options.items()))
        if wanted not in self._clients:
            wire, base = Wire(), self.bare if bare else self.base
            self._clients[wanted] = arkclient.open_client(base, key or self.key, wire, sync=sync, **options), wire
        return Api(*self._clients[wanted])

    async def letter(self, address: str, timeout_s: float = 15.0) -> Received:
        """Return the message that the MX took for this address; it is the only one."""
        async with asyncio.timeout(timeout_s):
            while not (found := [one for one in self.mx.messages if address in one.recipients]):
                await asyncio.sleep(0.02)
        (letter,) = found
        return letter

    async def until(self, ask: Callable[[], Any], holds: Callable[[Any], bool], timeout_s: float = 15.0) -> Any:
        """Ask again and again until ``holds(answer)``; return that answer."""
        answer = None
        try:
            async with asyncio.timeout(timeout_s):
                while not holds(answer := await ask()):
                    await asyncio.sleep(0.03)
        except TimeoutError:
            raise AssertionError(f"never held; last: {answer!r}"[:3000]) from None
        return answer

    async def settled(self, api: Api, email_id: str, *statuses: str) -> Any:
        """Return the delivery history of an email once its status is one of these."""
        return await self.until(
            lambda: api("emails.retrieve_deliveries", email_id), lambda shown: shown.data.status in statuses
        )

    async def suppressed(self, api: Api, name: str = "held") -> str:
        """Return an address that acme may not mail: what is sent to it is held, and never leaves."""
        address = mailbox(name)
        await api("tenants.suppressions.create", "acme", address=address)
        return address

    async def close(self) -> None:
        """Close all clients."""
        await self.http.aclose()
        for client, _ in self._clients.values():
            await arkclient.close(client)


@contextlib.asynccontextmanager
async def open_ark_door(folder: Path, *, requests_per_s: float = 1000) -> AsyncIterator[ArkDoor]:
    """Start DNS, MX, receiver and relay."""
    async with DnsServer() as dns, Mx(Script(rcpt=Manners())) as mx, Receiver() as receiver:
        dns.set("rcpt.test", "MX", "10 mx.rcpt.test.")
        dns.set("mx.rcpt.test", "A", "127.0.0.1")
        relay = Relay(
            folder,
            dns=dns.address,
            mx_port=mx.port,
            more=SETTINGS.format(requests_per_s=requests_per_s),
            tenant=ACME,
        )
        relay.config.write_text('default_tenant = "acme"\n' + relay.config.read_text())
        other = folder / "tenants" / "other.toml"
        other.write_text(OTHER)
        other.chmod(0o600)
        _, key = add_key(relay.config, "ops")
        async with relay:
            door = ArkDoor(relay, key, mx, dns, receiver)
            try:
                yield door
            finally:
                await door.close()
