"""The dashboard as a browser without a script has it: pages by GET, forms by POST, a jar of cookies."""

import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import aiohttp
from peers.arkdoor import ArkDoor

HOSTILE = "<script>alert(1)</script>\"'><img src=//evil.test/x onerror=alert(2)>"


@dataclass(frozen=True)
class Shown:
    """An answer: ``where`` it was, after what it led to."""

    status: int
    text: str
    headers: Mapping[str, str]
    where: str

    @property
    def said(self) -> str:
        """The page's words, without its markup."""
        return " ".join(unescape(re.sub(r"<[^>]+>", " ", self.text)).split())

    def links(self, beginning: str) -> list[str]:
        """Return the links that begin so."""
        return [unescape(one) for one in re.findall(r'href="([^"]*)"', self.text) if one.startswith(beginning)]


class Panel:
    """One browser."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self.session, self.base = session, base

    async def get(self, path: str = "", *, follow: bool = True, **headers: str) -> Shown:
        return await self.ask("GET", path, follow=follow, headers=headers)

    async def post(
        self, path: str, fields: Mapping[str, str] | None = None, *, csrf: str | None = None, **headers: str
    ) -> Shown:
        """Send a form with the token of this session, or with another."""
        token = await self.token() if csrf is None else csrf
        return await self.ask("POST", path, data={**(fields or {}), "csrf": token}, headers=headers)

    async def ask(self, method: str, path: str, *, follow: bool = True, **more: Any) -> Shown:
        url = path if path.startswith("http") else f"{self.base}/dashboard/{path.removeprefix('/dashboard/')}"
        async with self.session.request(method, url, allow_redirects=follow, **more) as answer:
            text = (await answer.read()).decode("utf-8", "replace")
            return Shown(answer.status, text, answer.headers.copy(), str(answer.url.relative()))

    async def token(self) -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', (await self.get("domains")).text)
        return "" if found is None else found[1]

    async def sign_in(self, key: str) -> Shown:
        return await self.ask("POST", "sign-in", data={"key": key})


class _Attributes(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [(tag, name, value or "") for name, value in attrs or [("", "")]]


def attributes(page: str) -> list[tuple[str, str, str]]:
    """Return tag, name and value of every attribute of a page."""
    reader = _Attributes()
    reader.feed(page)
    return reader.found


@contextlib.asynccontextmanager
async def open_panel(base: str, socket: Path | None = None) -> AsyncIterator[Panel]:
    """Open a browser of its own; with ``socket`` by way of a unix socket."""
    connector = aiohttp.UnixConnector(str(socket)) if socket is not None else aiohttp.TCPConnector()
    jar = aiohttp.CookieJar(unsafe=True)  # the host is an address
    async with aiohttp.ClientSession(connector=connector, cookie_jar=jar) as session:
        yield Panel(session, base)


async def send(door: ArkDoor, to: str, **more: Any) -> str:
    """Send one mail of acme's, and return its id."""
    mail = {"from": "Shop <app@sender.test>", "to": [to], "subject": "Parcel", "text": "Hello.", "tenantId": "acme"}
    answer = await door.http.post("/v1/emails", json={**mail, **more})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"]["id"])


async def fill(door: ArkDoor) -> dict[str, str]:
    """Give acme something on every page, some of it hostile; return the ids of what was made, by page."""
    api = door.api()
    made: dict[str, str] = {}
    for state, to in (
        ("sent", "ann-1@rcpt.test"),
        ("softfail", "busy-1@rcpt.test"),
        ("hardfail", "nobody-1@rcpt.test"),
    ):
        made[state] = await send(
            door,
            to,
            subject=f"Parcel {HOSTILE}",
            html=f"<h1>Hello</h1><script>parent.document.title='run'</script>{HOSTILE}",
            text=f"Hello. {HOSTILE}",
            tag="orders",
            metadata={"order": HOSTILE},
        )
        await door.settled(api, made[state], state)
    await api("tenants.suppressions.create", "acme", address="held-1@rcpt.test", reason=HOSTILE)
    made["held"] = await send(door, "held-1@rcpt.test", subject="x" * 300)
    hook = (await api("tenants.webhooks.create", "acme", name=HOSTILE, url=door.receiver.url("orders", 500))).data
    made["webhook"] = hook.id
    posted = await door.http.post(f"/v1/tenants/acme/webhooks/{hook.id}/test", json={"event": "MessageSent"})
    made["delivery"] = posted.json()["data"]["deliveryId"]
    await api("tenants.domains.create", "acme", name="shop.example.com")
    assert (await door.http.get("/v1/doctor?fresh=true", timeout=60)).status_code == 200
    listed = (await door.http.get("/v1/logs?perPage=1")).json()
    made["request"] = listed["data"][0]["requestId"]
    return made


def pages(made: Mapping[str, str]) -> list[str]:
    """Return every page, given what ``fill`` made."""
    return [
        "",
        "messages",
        *(f"messages/{made[name]}" for name in ("sent", "softfail", "hardfail", "held")),
        "domains",
        "domains/acme/shop.example.com",
        "credentials?tenant=acme",
        "suppressions?tenant=acme",
        "webhooks",
        f"webhooks/acme/{made['webhook']}",
        f"webhooks/acme/{made['webhook']}/deliveries/{made['delivery']}",
        "events",
        "usage",
        "usage?period=today",
        "doctor",
        "requests",
        f"requests/{made['request']}",
    ]
