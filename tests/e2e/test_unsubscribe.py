"""Leaving a list: by a mail program's one click, and on the page (RFC 8058, RFC 2369)."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from email import message_from_bytes
from email.policy import SMTP
from pathlib import Path
from typing import Any

import aiohttp
import dkim
import pytest
import pytest_asyncio
from peers.browser import SWITCHES, open_browser
from peers.daemon import Relay, signing_key
from peers.dns import DnsServer
from peers.mx import Mx

from arkrelay.mail.dkim import load_key, public_record

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "ark_live_acme-0123456789abcdef"
TENANT = f"""
[[credentials]]
name = "rest"
type = "api"
secret = "{KEY}"

[unsubscribe]
tags = ["newsletter"]
"""
MORE = """
api_requests_per_s = 0

[public]
url = "https://mail.relay.test/ark"

[[listen]]
service = "bounces"
address = "127.0.0.1:0"
"""
URL = re.compile(r"List-Unsubscribe: <https://mail\.relay\.test/ark(/u/u[0-9a-f]{42})>")
# what a person can read: a contrast of at least 4.5 to 1 (WCAG 2.2, 1.4.3), of every text with its ground
CONTRAST = """(() => {
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const linear = c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => [r, g, b].map(c => linear(c / 255))
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const ground = one => { for (; one; one = one.parentElement) {
    const found = parse(getComputedStyle(one).backgroundColor); if (found.length < 4 || found[3] > 0) return found; }
    return [255, 255, 255]; };
  return Math.min(...[...document.querySelectorAll('h1, p, strong, button')].map(one => {
    const [a, b] = [light(parse(getComputedStyle(one).color)), light(ground(one))].sort((x, y) => y - x);
    return (a + .05) / (b + .05); }));
})()"""


@dataclass
class World:
    relay: Relay
    mx: Mx

    async def send(self, to: str, **fields: Any) -> tuple[str, str]:
        """Send by REST; return the id, and the message when it has arrived."""
        body = {"from": "app@sender.test", "to": [to], "subject": "hello", "text": "Hello.", **fields}
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session,
            session.post(f"{self.base}/v1/emails", json=body) as response,
        ):
            answer = await response.json()
            assert response.status == 200, answer
        return str(answer["data"]["id"]), (await self.arrived(to)).decode()

    async def arrived(self, to: str) -> bytes:
        async with asyncio.timeout(10):
            while True:
                for one in reversed(self.mx.messages):
                    if to in one.recipients:
                        return one.content
                await self.mx.wait(len(self.mx.messages) + 1)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.relay.port('http')}"

    async def fetch(self, path: str, method: str = "GET", data: Any = None) -> tuple[int, dict[str, str], str]:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.base + path, data=data, allow_redirects=False) as response,
        ):
            return response.status, dict(response.headers), await response.text()

    async def status(self, to: str, **fields: Any) -> str:
        """Return what becomes of a further message to this address, at once."""
        body = {"from": "app@sender.test", "to": [to], "subject": "again", "text": "Again.", **fields}
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session,
            session.post(f"{self.base}/v1/emails", json=body) as response,
        ):
            token = (await response.json())["data"]["id"]
        answer = await self.relay.until(f"/v1/emails/{token}", lambda one: one["data"]["status"] != "pending")
        return str(answer["data"]["status"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("unsubscribe")
    async with DnsServer() as dns, Mx() as mx:
        dns.set("rcpt.test", "MX", "10 mx.rcpt.test.")
        dns.set("mx.rcpt.test", "A", "127.0.0.1")
        async with Relay(folder, dns=dns.address, mx_port=mx.port, more=MORE, tenant=TENANT) as relay:
            yield World(relay, mx)


def path_of(content: str) -> str:
    found = URL.search(content)
    assert found is not None, content
    return found[1]


async def test_a_tag_that_says_so_brings_both_fields_and_both_are_signed(world: World) -> None:
    _, content = await world.send("tag@rcpt.test", tag="newsletter")
    token = path_of(content).rpartition("/")[2]
    assert f"<mailto:{token}@rp.relay.test?subject=unsubscribe>" in content
    assert "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in content
    signed = re.sub(r"\s", "", content.partition("DKIM-Signature:")[2].partition("; bh=")[0]).lower()
    assert ":list-unsubscribe:" in signed
    assert ":list-unsubscribe-post:" in signed
    record = public_record(load_key(signing_key(), "rsa-sha256"))
    assert dkim.verify(content.encode(), dnsfunc=lambda _name, timeout=5: record.encode())


@pytest.mark.parametrize(
    ("fields", "offered"),
    [
        pytest.param({}, False, id="nothing-said"),
        pytest.param({"tag": "receipt"}, False, id="another-tag"),
        pytest.param({"unsubscribe": "offers"}, True, id="rest-field"),
        pytest.param({"headers": {"X-Ark-Unsubscribe": "offers"}}, True, id="header"),
        pytest.param({"tag": "newsletter", "headers": {"List-Unsubscribe": "<mailto:me@x.test>"}}, False, id="own"),
    ],
)
async def test_it_is_offered_only_where_somebody_said_so(
    world: World, request: pytest.FixtureRequest, fields: dict[str, Any], *, offered: bool
) -> None:
    _, content = await world.send(f"{request.node.callspec.id}@rcpt.test", **fields)
    assert bool(URL.search(content)) is offered
    assert content.count("List-Unsubscribe:") == (1 if offered or "own" in request.node.callspec.id else 0)
    assert "X-Ark-Unsubscribe" not in content


async def test_one_click_ends_the_stream_and_no_other(world: World) -> None:
    _, content = await world.send("click@rcpt.test", tag="newsletter")
    status, headers, text = await world.fetch(path_of(content), "POST", {"List-Unsubscribe": "One-Click"})
    assert status == 200
    assert "Set-Cookie" not in headers
    assert "Location" not in headers
    assert "Unsubscribed" in text
    assert await world.status("click@rcpt.test", tag="newsletter") == "held"
    assert await world.status("CLICK@rcpt.test", tag="newsletter") == "held"
    assert await world.status("click@rcpt.test", tag="receipt") == "sent"
    assert await world.status("click@rcpt.test", tag="newsletter") == "held", "a delivery does not lift it"
    found = (await world.relay.get("/v1/tenants/acme/suppressions"))["data"]
    (entry,) = [one for one in found if one["address"] == "click@rcpt.test"]
    assert entry["reason"] == "unsubscribe"
    events = (await world.relay.get("/v1/events?type=RecipientUnsubscribed&limit=500"))["data"]["events"]
    mine = [one for one in events if one["data"]["address"] == "click@rcpt.test"]
    assert [one["data"]["stream"] for one in mine] == ["newsletter"]
    assert mine[0]["data"]["by"] == "one-click"


MANY_PARTS = "--b\r\n\r\n\r\n" * 1100


@pytest.mark.parametrize(
    ("name", "headers", "body", "others"),
    [
        pytest.param("own", "X-Ark-Unsubscribe: offers\r\nList-Unsubscribe: <mailto:me@x.test>\r\n", "x\r\n", 0),
        pytest.param("tag", "X-Ark-Tag: newsletter\r\nList-Unsubscribe: <mailto:me@x.test>\r\n", "x\r\n", 0),
        pytest.param("null", "X-Ark-Unsubscribe: offers\r\n", "x\r\n", 0),
        pytest.param(
            "parts",
            "X-Ark-Unsubscribe: offers\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n",
            MANY_PARTS,
            0,
        ),
        pytest.param("large", "X-Ark-Unsubscribe: offers\r\n", ("y" * 78 + "\r\n") * 40_000, 3),
    ],
    ids=["own", "tag", "null", "parts", "large"],
)
async def test_who_has_left_a_stream_gets_nothing_of_it_however_it_is_sent(
    world: World, name: str, headers: str, body: str, others: int
) -> None:
    gone, there = f"{name}-gone@rcpt.test", f"{name}-there@rcpt.test"
    stream = {"tag": "newsletter"} if name == "tag" else {"unsubscribe": "offers"}
    _, content = await world.send(gone, **stream)
    assert (await world.fetch(path_of(content), "POST"))[0] == 200
    more = [f"{name}-{number}@rcpt.test" for number in range(others)]
    return_path = "" if name == "null" else None
    await world.relay.send(gone, *more, there, headers=headers, body=body, return_path=return_path)
    content = (await world.arrived(there)).decode()
    found = await world.relay.until(
        f"/v1/emails?to={gone}", lambda answer: "pending" not in [one["status"] for one in answer["data"]]
    )
    assert sorted(one["status"] for one in found["data"]) == ["held", "sent"]
    offered = name in {"parts", "large"}
    assert bool(URL.search(content)) is offered
    if name == "large":
        assert list(world.relay.state.glob("bodies/*/*.eml")), "they were not all in memory"
        assert content.endswith("\r\n" + body)
        assert len({path_of((await world.arrived(one)).decode()) for one in [*more, there]}) == others + 1


async def test_to_leave_twice_is_to_leave_once(world: World) -> None:
    _, content = await world.send("twice@rcpt.test", unsubscribe="offers")
    for _ in range(3):
        assert (await world.fetch(path_of(content), "POST"))[0] == 200
    events = (await world.relay.get("/v1/events?type=RecipientUnsubscribed&limit=500"))["data"]["events"]
    assert len([one for one in events if one["data"]["address"] == "twice@rcpt.test"]) == 1


async def test_an_entry_that_is_not_its_owners_wish_leaves_the_button(world: World) -> None:
    _, content = await world.send("listed@rcpt.test", unsubscribe="offers")
    list_url, headers = f"{world.base}/v1/tenants/acme/suppressions", {"Authorization": f"Bearer {KEY}"}
    entry = {"address": "listed@rcpt.test", "reason": "ask again in march", "stream": "offers"}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(list_url, json=entry) as response:
            assert response.status == 201, await response.text()
        assert "<button" in (await world.fetch(path_of(content)))[2]
        assert "Unsubscribed" in (await world.fetch(path_of(content), "POST", {"page": "1"}))[2]
        assert "<button" not in (await world.fetch(path_of(content)))[2]
        async with session.get(f"{list_url}/listed@rcpt.test") as response:
            assert (await response.json())["data"]["reason"] == "unsubscribe", "whose wish it is stays to be seen"


async def test_looking_changes_nothing(world: World) -> None:
    _, content = await world.send("look@rcpt.test", tag="newsletter")
    for method in ("GET", "HEAD"):
        assert (await world.fetch(path_of(content), method))[0] == 200
    assert (await world.fetch(path_of(content), "PUT"))[0] == 405
    assert await world.status("look@rcpt.test", tag="newsletter") == "sent"


async def test_a_forged_token_is_refused(world: World) -> None:
    _, content = await world.send("forge@rcpt.test", tag="newsletter")
    path = path_of(content)
    number = int(path[4:20], 16)
    for forged in (
        f"/u/u{number:016x}{'0' * 26}",
        f"/u/u{number - 1:016x}{path[20:]}",
        path[:-1] + ("0" if path[-1] != "0" else "1"),
        "/u/u",
        "/u/<script>alert(1)<script>",
        "/u/" + "u" * 5000,
        f"/u/u{2**64 - 1:016x}{'0' * 26}",
    ):
        status, _, text = await world.fetch(forged, "POST")
        assert status == 404, forged
        assert "<script" not in text
    assert await world.status("forge@rcpt.test", tag="newsletter") == "sent"
    assert (await world.fetch("/ark" + path))[0] == 200, "a proxy may leave the path of public.url on"


async def test_what_a_sender_named_cannot_run_on_the_page(world: World) -> None:
    _, content = await world.send("xss@rcpt.test", unsubscribe="<img src=x onerror=alert(1)>")
    _, headers, text = await world.fetch(path_of(content))
    assert "<img" not in text
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "script" not in text


async def test_each_recipient_has_a_link_of_its_own(world: World) -> None:
    await world.relay.send(
        "left@rcpt.test", "right@rcpt.test", headers="X-Ark-Tag: newsletter\r\nMIME-Version: 1.0\r\n"
    )
    left, right = [(await world.arrived(f"{one}@rcpt.test")).decode() for one in ("left", "right")]
    assert path_of(left) != path_of(right)
    await world.fetch(path_of(left), "POST")
    assert await world.status("left@rcpt.test", tag="newsletter") == "held"
    assert await world.status("right@rcpt.test", tag="newsletter") == "sent"


async def test_a_link_stands_in_the_body_where_its_writer_wants_it(world: World) -> None:
    html = '<p>Offers.</p><a href="{{unsubscribe_url}}">No more</a> <a href="https://shop.test/">Shop</a>'
    _, content = await world.send("visible@rcpt.test", tag="newsletter", text=None, html=html)
    message = message_from_bytes(content.encode(), policy=SMTP)
    address = "https://mail.relay.test/ark" + path_of(content)
    parts = {part.get_content_type(): part.get_content() for part in message.walk() if not part.is_multipart()}
    assert f'<a href="{address}">No more</a> <a href="https://shop.test/">Shop</a>' in parts["text/html"]
    assert f"[No more]({address})" in parts["text/plain"], "the text that is made of HTML has it too"
    record = public_record(load_key(signing_key(), "rsa-sha256"))
    assert dkim.verify(content.encode(), dnsfunc=lambda _name, timeout=5: record.encode())

    await world.relay.send(
        "smtp@rcpt.test", headers="X-Ark-Unsubscribe: offers\r\n", body="Leave: {{unsubscribe_url}}\r\n"
    )
    content = (await world.arrived("smtp@rcpt.test")).decode()
    assert content.endswith(f"\r\n\r\nLeave: https://mail.relay.test/ark{path_of(content)}\r\n")

    _, content = await world.send("receipt@rcpt.test", tag="receipt", text="Leave: {{unsubscribe_url}}")
    assert "Leave: {{unsubscribe_url}}" in content, "of what cannot be left there is no link"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
async def test_the_page_is_used_in_a_browser(
    world: World, need: Callable[[str], Path], tmp_path: Path, width: int, scheme: str
) -> None:
    to = f"a-rather-long-name-{width}-{scheme}@rcpt.test"
    _, content = await world.send(to, unsubscribe="Offers & news of the month")
    address = world.base + path_of(content)
    async with open_browser(need("chromium"), tmp_path, SWITCHES) as browser:
        page = await browser.page()
        await page.look_like(width, 640, scheme)
        await page.open(address)
        assert [one for one in page.requests if not one.startswith("data:")] == [address]
        assert page.complaints == []
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert await page.evaluate("document.querySelector('button').getBoundingClientRect().height >= 44")
        assert await page.evaluate(CONTRAST) >= 4.5
        await page.screenshot(tmp_path / f"ask-{width}-{scheme}.png")
        await page.press("Tab")
        assert await page.evaluate("document.activeElement.tagName") == "BUTTON"
        page.loaded.clear()
        await page.evaluate("document.querySelector('button').click()")
        async with asyncio.timeout(10):
            await page.loaded.wait()
        assert await page.evaluate("document.querySelector('h1').textContent") == "Unsubscribed"
        assert await page.evaluate(CONTRAST) >= 4.5
        await page.screenshot(tmp_path / f"done-{width}-{scheme}.png")
    assert await world.status(to, unsubscribe="Offers & news of the month") == "held"
    events = (await world.relay.get("/v1/events?type=RecipientUnsubscribed&limit=500"))["data"]["events"]
    assert [one["data"]["by"] for one in events if one["data"]["address"] == to] == ["page"]
