"""Opens and clicks, from the message that is sent to the event that says who read it (Ark contract §12)."""

import asyncio
import base64
import json
import random
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import dkim
import pytest
import pytest_asyncio
from ark import Ark
from peers import certificates
from peers.browser import open_browser
from peers.daemon import Relay, signing_key
from peers.dns import DnsServer
from peers.mx import Mx
from yarl import URL

from arkrelay.mail.dkim import load_key, public_record
from arkrelay.mail.markup import read_html

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY, OTHER_KEY = "ark_live_acme-0123456789abcdef", "ark_live_other-0123456789abcdef"
TENANT = f"""
[[credentials]]
name = "rest"
type = "api"
secret = "{KEY}"

[[domains]]
name = "bare.test"
trusted = true

[[track_domains]]
name = "track"
domain = "sender.test"
excluded = ["left.test"]

[unsubscribe]
tags = ["newsletter"]
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
[[track_domains]]
name = "track"
domain = "other.test"
"""
MORE = """
api_requests_per_s = 0
trusted_addresses = ["127.0.0.1/32"]

[public]
url = "https://relay.test"

[tls]
certificate = "cert.pem"
private_key = "key.pem"
[[tls.extra]]
certificate = "track.pem"
private_key = "track.key"

[[listen]]
service = "http"
address = "127.0.0.1:0"
tls = "required"
serve = ["public"]

[[listen]]
service = "bounces"
address = "127.0.0.1:0"
"""
HTML = (
    '<html><body><p>Hello</p><a href="https://dest.test/a?b=1&amp;c=2">read</a> <!-- <a href="http://no.test/"> -->'
    '<a href="https://left.test/x">left</a> <a href="mailto:a@b.test">write</a></body></html>'
)
LINK = re.compile(r"https://track\.sender\.test/[\w-]{8}/[\w-]{16}")
PIXEL = re.compile(r"https://track\.sender\.test/img/[\w-]{8}/[0-9A-Za-z]{16}")


@dataclass
class World:
    relay: Relay
    mx: Mx
    dns: DnsServer

    @property
    def plain(self) -> str:
        return f"http://127.0.0.1:{self.relay.port('http')}"

    @property
    def tls_port(self) -> int:
        found = [one["address"] for one in self.relay.listeners if one["service"] == "http"]
        return int(found[1].rpartition(":")[2])

    async def send(self, *to: str, key: str = KEY, sender: str = "app@sender.test", **fields: Any) -> dict[str, Any]:
        body = {"from": sender, "to": list(to), "subject": "hello", **fields}
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
            session.post(f"{self.plain}/v1/emails", json=body) as response,
        ):
            answer: dict[str, Any] = await response.json()
            assert response.status == 200, answer
            return dict(answer["data"])

    async def arrived(self, to: str) -> bytes:
        """Return the content of the message to this address."""
        async with asyncio.timeout(10):
            while True:
                for one in self.mx.messages:
                    if to in one.recipients:
                        return one.content
                await self.mx.wait(len(self.mx.messages) + 1)

    async def fetch(
        self, url: str, method: str = "GET", host: str = "", headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Ask the plain listener as a mail program would ask the host of ``url``."""
        parsed = URL(url, encoded=True)
        fields = {
            "Host": host or parsed.host or "",
            "User-Agent": "Mozilla/5.0 (X11) Firefox/128.0",
            **(headers or {}),
        }
        where = URL(self.plain + parsed.raw_path_qs, encoded=True)
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, where, headers=fields, allow_redirects=False) as response,
        ):
            return response.status, dict(response.headers), await response.read()

    async def activity(self, token: str, opens: int = 0, clicks: int = 0) -> dict[str, Any]:
        answer = await self.relay.until(
            f"/v1/emails/{token}?expand=activity",
            lambda one: (
                one["data"]["activity"]["openCount"] >= opens and one["data"]["activity"]["clickCount"] >= clicks
            ),
        )
        return dict(answer["data"]["activity"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("tracking")
    for names, host in ((("cert.pem", "key.pem"), "relay.test"), (("track.pem", "track.key"), "track.sender.test")):
        pair = certificates.valid(host)
        for name, source in zip(names, (pair.certificate, pair.private_key), strict=True):
            (folder / name).write_bytes(source.read_bytes())
            (folder / name).chmod(0o600)
    async with DnsServer() as dns, Mx() as mx:
        dns.set("rcpt.test", "MX", "10 mx.rcpt.test.")
        dns.set("mx.rcpt.test", "A", "127.0.0.1")
        for domain in ("sender.test", "other.test"):
            dns.set(f"track.{domain}", "CNAME", "track.relay.test.")
        relay = Relay(folder, dns=dns.address, mx_port=mx.port, more=MORE, tenant=TENANT)
        other = folder / "tenants" / "other.toml"
        other.write_text(OTHER)
        other.chmod(0o600)
        async with relay:
            made = World(relay, mx, dns)
            for tenant in ("acme", "other"):
                await relay.until(
                    f"/v1/tenants/{tenant}/tracking", lambda one: one["data"]["trackDomains"][0]["dnsOk"]
                )
            yield made


def links(content: bytes) -> list[str]:
    return LINK.findall(content.decode())


async def test_html_is_rewritten_where_it_must_be_and_nowhere_else(world: World) -> None:
    await world.send("html@rcpt.test", html=HTML, text="Read https://dest.test/a?b=1&c=2.")
    content = (await world.arrived("html@rcpt.test")).decode()
    link, pixel = links(content.encode())[0], PIXEL.findall(content)
    assert len(set(links(content.encode()))) == 1, "the same URL in text and HTML"
    assert f"Read {link}." in content
    assert len(pixel) == 1
    assert content.index(pixel[0]) < content.index("</body>")
    for left in ("http://no.test/", "https://left.test/x", "mailto:a@b.test"):
        assert left in content
    assert "dest.test" not in content


async def test_smtp_is_rewritten_like_rest_and_signed_afterwards(world: World) -> None:
    body = base64.encodebytes(HTML.encode()).replace(b"\n", b"\r\n").decode()
    headers = "MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n"
    await world.relay.send("smtp@rcpt.test", headers=headers, body=body)
    content = await world.arrived("smtp@rcpt.test")
    decoded = base64.b64decode(content.partition(b"\r\n\r\n")[2])
    assert links(decoded)
    assert PIXEL.search(decoded.decode())
    record = public_record(load_key(signing_key(), "rsa-sha256"))
    assert dkim.verify(content, dnsfunc=lambda _name, timeout=5: record.encode())


async def test_a_link_leads_on_and_the_click_is_an_event(world: World) -> None:
    sent = await world.send("click@rcpt.test", html=HTML)
    link = links(await world.arrived("click@rcpt.test"))[0]
    status, headers, body = await world.fetch(link)
    assert (status, headers["Location"], body) == (307, "https://dest.test/a?b=1&c=2", b"")
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in headers
    (click,) = (await world.activity(sent["id"], clicks=1))["clicks"]
    assert click["url"] == "https://dest.test/a?b=1&c=2"
    assert click["ipAddress"] == "127.0.0.1"
    assert click["visitor"] == "person"
    assert "Firefox" in click["userAgent"]


async def test_an_open_is_an_event_of_its_recipient_alone(world: World) -> None:
    sent = await world.send("one@rcpt.test", "two@rcpt.test", html=HTML)
    contents = [await world.arrived(f"{name}@rcpt.test") for name in ("one", "two")]
    pixels = [PIXEL.findall(content.decode())[0] for content in contents]
    assert pixels[0] != pixels[1]
    ids = {re.search(rb"Message-ID: (\S+)", content)[1] for content in contents}  # type: ignore[index]
    assert len(ids) == 1
    status, headers, body = await world.fetch(pixels[1])
    assert (status, headers["Content-Type"]) == (200, "image/png")
    assert body.startswith(b"\x89PNG")
    assert len((await world.activity(sent["ids"][1], opens=1))["opens"]) == 1
    assert (await world.activity(sent["ids"][0]))["opens"] == []


async def test_looking_ahead_is_no_reading(world: World) -> None:
    sent = await world.send("ahead@rcpt.test", html=HTML)
    content = await world.arrived("ahead@rcpt.test")
    link, pixel = links(content)[0], PIXEL.findall(content.decode())[0]
    for url in (link, pixel):
        assert (await world.fetch(url, "HEAD"))[0] in {200, 307}
        for name, value in (("Purpose", "prefetch"), ("Sec-Purpose", "prefetch;prerender"), ("X-Moz", "prefetch")):
            assert (await world.fetch(url, headers={name: value}))[0] in {200, 307}
    await world.fetch(pixel, headers={"User-Agent": "Mozilla/5.0 (via ggpht.com GoogleImageProxy)"})
    await world.fetch(link, headers={"User-Agent": "BarracudaScanner/1"})
    found = await world.activity(sent["id"], opens=1, clicks=1)
    assert [one["visitor"] for one in found["opens"]] == ["proxy"]
    assert [one["visitor"] for one in found["clicks"]] == ["scanner"]


@pytest.mark.parametrize(
    ("fields", "opens", "clicks"),
    [
        pytest.param({"trackOpens": False}, False, True, id="no-opens"),
        pytest.param({"trackClicks": False}, True, False, id="no-clicks"),
        pytest.param({"headers": {"X-AMP": "skip"}}, False, False, id="x-amp"),
        pytest.param({"headers": {"X-PM-TrackLinks": "TextOnly"}}, True, False, id="text-only"),
        pytest.param({"headers": {"X-PM-TrackLinks": "None", "X-PM-TrackOpens": "false"}}, False, False, id="none"),
    ],
)
async def test_a_message_may_opt_out(
    world: World, request: pytest.FixtureRequest, fields: dict[str, Any], *, opens: bool, clicks: bool
) -> None:
    to = f"{request.node.callspec.id}@rcpt.test"
    await world.send(to, html=HTML + '<a href="https+notrack://plain.test/">', text="none", **fields)
    content = (await world.arrived(to)).decode()
    assert bool(PIXEL.search(content)) is opens
    assert bool(links(content.encode())) is clicks
    assert 'href="https://plain.test/"' in content
    assert "X-AMP" not in content


@pytest.mark.parametrize(
    ("name", "fields", "opens", "clicks"),
    [("all", {}, True, True), ("none", {"trackOpens": False, "trackClicks": False}, False, False)],
)
async def test_an_email_of_a_batch_may_opt_out(
    world: World, name: str, fields: dict[str, Any], *, opens: bool, clicks: bool
) -> None:
    one = {"to": f"batch-{name}@rcpt.test", "subject": "x", "html": HTML, "unsubscribe": "offers", **fields}
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session,
        session.post(f"{world.plain}/v1/emails/batch", json={"from": "app@sender.test", "emails": [one]}) as response,
    ):
        assert response.status == 200, await response.text()
    content = (await world.arrived(f"batch-{name}@rcpt.test")).decode()
    assert bool(PIXEL.search(content)) is opens
    assert bool(links(content.encode())) is clicks
    assert "List-Unsubscribe: <https://relay.test/u/" in content


async def test_text_that_is_made_of_html_has_whole_links(world: World) -> None:
    html = '<p><a href="https://dest.test/c?utm=1">https://dest.test/a</a> and <a href="https://dest.test/d">more</a></p>'
    await world.send("label@rcpt.test", html=html)
    content = (await world.arrived("label@rcpt.test")).decode()
    found = re.search(rf"\[https://dest\.test/a\]\(({LINK.pattern})\) and \[more\]\(({LINK.pattern})\)", content)
    assert found is not None, content
    for link, url in zip(found.groups(), ("https://dest.test/c?utm=1", "https://dest.test/d"), strict=True):
        assert (await world.fetch(link))[1]["Location"] == url
        assert (await world.fetch(f"{link}_"))[1]["Location"] == url, "with what a program took along"


async def test_without_a_track_domain_the_scheme_that_nobody_knows_is_mended_too(world: World) -> None:
    await world.send("scheme@rcpt.test", html='<a href="https+notrack://x.test/">x</a>', sender="app@bare.test")
    assert 'href="https://x.test/"' in (await world.arrived("scheme@rcpt.test")).decode()


async def test_without_a_signature_there_is_no_one_click(world: World) -> None:
    await world.send("unsigned@rcpt.test", html=HTML, sender="app@bare.test", unsubscribe="offers")
    content = (await world.arrived("unsigned@rcpt.test")).decode()
    assert "DKIM-Signature" not in content
    assert "List-Unsubscribe: <https://relay.test/u/" in content
    assert "List-Unsubscribe-Post" not in content


async def test_a_link_of_a_host_that_is_a_track_domain_no_more_is_unknown(world: World) -> None:
    await world.send("former@rcpt.test", html=HTML)
    content = await world.arrived("former@rcpt.test")
    for url in (links(content)[0], PIXEL.findall(content.decode())[0]):
        status, headers, body = await world.fetch(url, host="track.former.test")
        assert (status, headers["Content-Type"].partition(";")[0]) == (404, "text/plain")
        assert b"no such link" in body


async def test_nobody_is_led_where_no_tenant_wrote(world: World) -> None:
    await world.send("forged@rcpt.test", html=HTML)
    link = links(await world.arrived("forged@rcpt.test"))[0]
    head, token = link.rsplit("/", 1)

    def forged(at: int) -> str:
        return token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]

    for url in (
        *(f"{head}/{forged(at)}" for at in range(16)),
        f"{head}/{'A' * 16}",
        f"{head}/https://evil.test",
        f"{head}/{token}/",
        f"{head}//evil.test",
        f"{head}/{token}%0d%0aX:1",
        f"{head}/<script>",
        "https://track.sender.test//evil.test/%2f..",
    ):
        status, headers, body = await world.fetch(url)
        assert status == 404, url
        assert "Location" not in headers
        assert b"evil" not in body
        assert b"<" not in body
    status, headers, _ = await world.fetch(f"{link}?url=https://evil.test")
    assert headers["Location"] == "https://dest.test/a?b=1&c=2"
    # another tenant's host does not lend its name
    assert (await world.fetch(link, host="track.other.test"))[0] == 404
    assert (await world.fetch(link, host="relay.test"))[0] == 404
    assert (await world.fetch(link, "POST"))[0] == 405


async def test_an_unknown_message_has_a_pixel_and_an_unknown_tenant_none(world: World) -> None:
    await world.send("pixel@rcpt.test", html=HTML)
    pixel = PIXEL.findall((await world.arrived("pixel@rcpt.test")).decode())[0]
    for token in ("AAAAAAAAAAAAAAAA", "A" * 7000, "-", "%00"):
        assert (await world.fetch(pixel.rsplit("/", 1)[0] + f"/{token}"))[0] == 200
    assert (await world.fetch("https://track.sender.test/img/AAAAAAAA/AAAAAAAAAAAAAAAA"))[0] == 404


async def test_the_api_is_not_on_a_track_host(world: World) -> None:
    for path in ("/v1/emails", "/healthz", "/docs", "/.well-known/jwks.json"):
        assert (await world.fetch(f"https://track.sender.test{path}", headers={"Authorization": f"Bearer {KEY}"}))[
            0
        ] == 404


async def test_a_proxy_in_front_says_who_came_by_and_its_client_does_not(world: World) -> None:
    sent = await world.send("proxy@rcpt.test", html=HTML)
    link = links(await world.arrived("proxy@rcpt.test"))[0]
    await world.fetch(link, headers={"X-Forwarded-For": "192.0.2.1, 203.0.113.9"})
    assert (await world.activity(sent["id"], clicks=1))["clicks"][0]["ipAddress"] == "203.0.113.9"


async def test_a_flood_from_one_client_is_cut_and_others_are_served(world: World) -> None:
    sent = await world.send("flood@rcpt.test", html=HTML)
    content = await world.arrived("flood@rcpt.test")
    pixel = URL(PIXEL.findall(content.decode())[0])
    seen = set()
    connector = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
    async with aiohttp.ClientSession(connector=connector, headers={"Host": "track.sender.test"}) as session:
        for _ in range(700):
            async with session.get(URL(world.plain + pixel.path)) as response:
                seen.add(response.status)
    assert seen == {200, 429}
    assert (await world.fetch(links(content)[0]))[0] == 307
    found = await world.activity(sent["id"], opens=1, clicks=1)
    assert found["openCount"] == 30, "repeats of one client at one message"


async def test_a_network_of_ipv6_is_one_client(world: World) -> None:
    sent = await world.send("network@rcpt.test", html=HTML)
    pixel = PIXEL.findall((await world.arrived("network@rcpt.test")).decode())[0]
    for number in range(35):
        await world.fetch(pixel, headers={"X-Forwarded-For": f"2001:db8:1:1::{number:x}"})
    await world.fetch(pixel, headers={"X-Forwarded-For": "2001:db8:1:2::1"})
    found = await world.activity(sent["id"], opens=31)
    assert found["openCount"] == 31
    assert {one["ipAddress"] for one in found["opens"]} >= {"2001:db8:1:1::1", "2001:db8:1:2::1"}


async def test_a_signed_message_is_left_alone(world: World) -> None:
    body = (
        "--b\r\nContent-Type: text/html\r\n\r\n" + HTML + "\r\n--b\r\nContent-Type: application/pgp-signature\r\n\r\n"
        "x\r\n--b--\r\n"
    )
    headers = 'MIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary="b"\r\n'
    await world.relay.send("signed@rcpt.test", headers=headers, body=body)
    assert (await world.arrived("signed@rcpt.test")).partition(b"\r\n\r\n")[2] == body.encode()


async def test_a_track_host_shows_its_own_certificate(world: World) -> None:
    context = ssl.create_default_context(cafile=str(certificates.authority().ca_file))
    for host in ("track.sender.test", "relay.test"):
        url = f"https://127.0.0.1:{world.tls_port}/"
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, ssl=context, server_hostname=host) as response,
        ):
            assert response.status in {401, 404}


async def test_the_official_client_reads_what_was_done(world: World) -> None:
    sent = await world.send("sdk@rcpt.test", html=HTML)
    content = await world.arrived("sdk@rcpt.test")
    await world.fetch(PIXEL.findall(content.decode())[0])
    await world.fetch(links(content)[0])
    await world.activity(sent["id"], opens=1, clicks=1)
    client = Ark(api_key=KEY, base_url=f"{world.plain}/v1")
    found = client.emails.retrieve(sent["id"], expand="activity").data.activity
    assert found is not None
    assert found.opens is not None
    assert found.clicks is not None
    assert found.opens[0].ip_address == "127.0.0.1"
    assert found.clicks[0].url == "https://dest.test/a?b=1&c=2"
    assert abs((found.clicks[0].timestamp or 0) - time.time()) < 60


PIECES = (
    "<a href='", '<a href="', "<a href=", "<A\nHREF = ", "http://x.test/%d", "http://y.test/?a=%d&amp;b&sect=1", "'>",
    '">', ">", "</a>", "<!--", "-->", "--!>", "<!-->", "<!--->", "<script>", "</script>", "<style>", "</style >", "<",
    "</body>", "<p x='", '<img alt="', "' ", '" ', "/>", "=", "x", "<title>", "</title>", "<textarea>",
    "</textarea/>",
    "<b/", "<?php ", "?>", "<![CDATA[", "]]>", "</", "<!doctype x", "&quot;", "\n", "<br/", "<a/href=http://z.test/%d>",
    "<a\thref='http://t.test/%d'x>", "<xmp>", "</xmp>", "<a b=c'd href='http://w.test/%d'>",
)  # fmt: skip
FOUND = """(%s).map(html => [...new DOMParser().parseFromString(html, 'text/html').querySelectorAll('a')]
  .map(one => (one.getAttribute('href') || '').trim()).filter(one => /^https?:\\/\\/[^\\/\\\\]/i.test(one))
  .map(one => { try { return new URL(one).href; } catch { return ''; } }).filter(one => one))"""


async def test_a_browser_finds_the_same_links_in_html_that_is_broken(
    need: Callable[[str], Path], tmp_path: Path
) -> None:
    chance = random.Random(8058)
    documents = [
        "<p>" + "".join(chance.choices(PIECES, k=chance.randint(2, 14))).replace("%d", str(number))
        for number in range(1500)
    ]
    ours = [
        [link.url for link in found.links] if found is not None else []
        for found in (read_html(one.encode(), "utf-8", lambda: False) for one in documents)
    ]
    (tmp_path / "empty.html").write_text("<p>")
    async with open_browser(need("chromium"), tmp_path) as browser:
        page = await browser.page()
        await page.open((tmp_path / "empty.html").as_uri())
        theirs = await page.evaluate(FOUND % json.dumps(documents))
        spelled = await page.evaluate(f"({json.dumps(ours)}).map(some => some.map(one => new URL(one).href))")
    different = [
        (document, left, right)
        for document, left, right in zip(documents, theirs, spelled, strict=True)
        if set(left) != set(right)
    ]
    assert different == []
    assert sum(map(bool, ours)) > 200


async def test_a_browser_fetches_the_pixel_and_follows_the_link(
    world: World, need: Callable[[str], Path], tmp_path: Path
) -> None:
    sent = await world.send("browser@rcpt.test", html=HTML)
    content = (await world.arrived("browser@rcpt.test")).decode()
    start = content.index("<html>")
    page_file = tmp_path / "mail.html"
    page_file.write_text(content[start : content.index("</html>", start) + 7])
    switches = (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--remote-debugging-port=0",
        "--ignore-certificate-errors",
        f"--host-resolver-rules=MAP track.sender.test 127.0.0.1:{world.tls_port}, MAP dest.test 127.0.0.1:9",
    )
    async with open_browser(need("chromium"), tmp_path, switches) as browser:
        page = await browser.page()
        await page.open(page_file.as_uri())
        assert (await world.activity(sent["id"], opens=1))["opens"][0]["userAgent"].startswith("Mozilla/5.0")
        await page.evaluate("document.querySelector('a').click()")
        (click,) = (await world.activity(sent["id"], clicks=1))["clicks"]
        assert click["url"] == "https://dest.test/a?b=1&c=2"


async def test_a_click_before_a_stop_is_kept_and_links_go_on_working(world: World) -> None:
    sent = await world.send("stop@rcpt.test", html=HTML)
    link = links(await world.arrived("stop@rcpt.test"))[0]
    assert (await world.fetch(link))[0] == 307
    assert await world.relay.stop() == 0
    await world.relay.start()
    assert len((await world.activity(sent["id"], clicks=1))["clicks"]) == 1
    assert (await world.fetch(link))[0] == 307


async def test_what_is_tracked_is_told_to_prometheus(world: World) -> None:
    sent = await world.send("metrics@rcpt.test", html=HTML)
    await world.fetch(links(await world.arrived("metrics@rcpt.test"))[0])
    await world.activity(sent["id"], clicks=1)
    async with aiohttp.ClientSession() as session, session.get(f"{world.plain}/metrics") as response:
        assert 'arkrelay_tracked_total{visitor="person",what="click"}' in await response.text()
