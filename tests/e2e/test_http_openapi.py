"""What /openapi.json promises the relay keeps, whatever it is asked; and /docs is a page of it that needs nothing."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from peers.browser import Browser, open_browser
from peers.daemon import Relay

from arkrelay.config.tenants import add_key

pytestmark = pytest.mark.asyncio(loop_scope="module")

TENANT_KEY = "ark_live_acme-0123456789abcdef"
TENANT = f"""
[[credentials]]
name = "rest"
type = "api"
secret = "{TENANT_KEY}"
[[domains]]
name = "example.com"
trusted = true
"""
MORE = """\
api_requests_per_s = 0

[webhooks]
timeout = "1s"
retry = []

[[listen]]
service = "http"
address = "127.0.0.1:0"
serve = ["metrics"]
"""
# Every other mail is one that can be accepted but for what was drawn, and every other new domain one that may exist.
# A backup goes where the request says, and this is the machine of whoever runs the tests. CPython 3.11 counts over
# all threads how deep it is in a syntax tree, so that a switch in the middle ends hypothesis' look at a lambda.
HOOKS = """\
import itertools
import pathlib
import sys

import schemathesis

sys.setswitchinterval(60)
folder, numbers = pathlib.Path(__file__).parent / "backups", itertools.count()


@schemathesis.hook
def before_call(context, case, kwargs):
    body, name, number = case.body, case.operation.label, next(numbers)
    if not isinstance(body, dict):
        return
    if name == "POST /control/backup" and str(body.get("path")).startswith("/"):
        body["path"] = str(folder / str(number))
    if number % 2:
        if name.startswith("POST /emails"):
            body.update({"from": "a@example.com", "to": ["b@example.net"], "tenantId": "acme"})
        if name == "POST /tenants/{tenantId}/domains":
            body["name"] = f"d{number}.example"
"""
# What goes away, or is suspended, under the run's feet would leave nothing to ask about. A stream does not end.
SETTINGS = """\
generation.deterministic = true

[parameters]
"path.tenantId" = "acme"
"path.emailId" = {emailId}
"path.domainId" = {domainId}
"path.credentialId" = {credentialId}
"path.webhookId" = {webhookId}
"path.trackingId" = {trackingId}
"query.wait" = 0
"query.follow" = false

[[operations]]
include-path-regex = "^/platform/webhooks/.webhookId"
parameters = {{ "path.webhookId" = {platform} }}

[[operations]]
include-name = "PATCH /tenants/{{tenantId}}"
parameters = {{ "path.tenantId" = {changed} }}

[[operations]]
include-name = "DELETE /tenants/{{tenantId}}"
parameters = {{ "path.tenantId" = "none" }}

[[operations]]
include-name-regex = "^DELETE /(tenants/.tenantId./|platform/)"
[operations.parameters]
"path.domainId" = "none"
"path.credentialId" = 7
"path.webhookId" = "none"
"path.trackingId" = "none"
"""
CHECKS = (
    "not_a_server_error",
    "negative_data_rejection",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


@dataclass(frozen=True)
class Described:
    """A relay, its organisation key, and what it says of itself."""

    relay: Relay
    key: str
    document: dict[str, Any]

    @property
    def address(self) -> str:
        return f"http://{self.relay.listeners[1]['address']}"

    async def ask(self, method: str, path: str, body: Any = None, key: str | None = "") -> aiohttp.ClientResponse:
        """Ask as the organisation, or with another key (None: none); the answer is read."""
        headers = {} if key is None else {"Authorization": f"Bearer {key or self.key}"}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.address + path, json=body, headers=headers) as response,
        ):
            await response.read()
            return response

    async def made(self, path: str, body: dict[str, Any]) -> Any:
        """Create something and return its id."""
        response = await self.ask("POST", f"/v1{path}", body)
        answer = await response.json()
        assert response.status in {200, 201}, answer
        return answer["data"]["id"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def described(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Described]:
    folder = tmp_path_factory.mktemp("openapi")
    relay = Relay(folder, more=MORE, tenant=TENANT, delivery='mode = "capture"')
    _, key = add_key(relay.config, "ops")
    async with relay:
        document = (await Described(relay, key, {}).ask("GET", "/openapi.json", key=None)).json()
        yield Described(relay, key, await document)


@pytest.mark.parametrize("prefix", ["", "/v1"])
@pytest.mark.parametrize(
    ("path", "media"), [("/openapi.json", "application/json; charset=utf-8"), ("/docs", "text/html; charset=utf-8")]
)
async def test_it_is_shown_to_anybody_where_the_api_is_served(
    described: Described, prefix: str, path: str, media: str
) -> None:
    for method in ("GET", "HEAD"):
        answer = await described.ask(method, prefix + path, key=None)
        assert (answer.status, answer.headers["Content-Type"]) == (200, media)
    assert (await described.ask("POST", prefix + path, key=None)).status == 405


async def test_a_listener_without_the_api_does_not_describe_it(described: Described) -> None:
    metrics = f"http://{described.relay.listeners[2]['address']}"
    async with aiohttp.ClientSession() as session:
        for path in ("/openapi.json", "/docs"):
            async with session.get(metrics + path) as response:
                assert response.status == 404


async def test_neither_tells_a_secret(described: Described) -> None:
    for path in ("/openapi.json", "/docs"):
        text = await (await described.ask("GET", path, key=None)).text()
        for secret in (described.key, TENANT_KEY, str(described.relay.folder), "sender.test"):
            assert secret not in text


# the page, in a browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory, need: Callable[[str], Path]) -> AsyncIterator[Browser]:
    async with open_browser(need("chromium"), tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390, 320])
async def test_the_page_asks_for_nothing_else_and_fits(
    described: Described, browser: Browser, width: int, scheme: str
) -> None:
    page = await browser.page()
    await page.look_like(width, 800, scheme)
    await page.open(f"{described.address}/docs#emails.send")
    assert [one.partition("#")[0] for one in page.requests if not one.startswith("data:")] == [
        f"{described.address}/docs"
    ]
    assert page.complaints == []
    await page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert await page.evaluate("document.querySelectorAll('article').length") == sum(
        len(methods) for methods in described.document["paths"].values()
    )
    assert await page.evaluate(
        "document.getElementById('emails.send').getBoundingClientRect().top < window.innerHeight"
    )


LUMINANCE = """
(() => {
  const channel = v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const parse = text => text.match(/[0-9.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = one => {
    for (; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return parse(getComputedStyle(document.body).backgroundColor);
  };
  const found = {};
  for (const one of document.querySelectorAll("a, p, code, h1, h2, h3, h4, dt, dd, span, summary, var, pre")) {
    const [a, b] = [light(parse(getComputedStyle(one).color)), light(behind(one))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found[one.tagName + "." + one.className] = ratio;
  }
  return found;
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_its_text_can_be_read(described: Described, browser: Browser, scheme: str) -> None:
    """WCAG 2.2 success criterion 1.4.3: a contrast of 4.5 to 1."""
    page = await browser.page()
    await page.look_like(1280, 800, scheme)
    await page.open(f"{described.address}/docs")
    assert await page.evaluate(LUMINANCE) == {}


async def test_it_is_used_with_the_keyboard(described: Described, browser: Browser) -> None:
    page = await browser.page()
    await page.look_like(1280, 800, "light")
    await page.open(f"{described.address}/docs")
    await page.press("Tab")
    assert await page.evaluate("document.activeElement.className") == "skip"
    await page.press("Enter")
    assert await page.evaluate("location.hash + document.activeElement.id") == "#contentcontent"
    await page.open(f"{described.address}/docs")
    seen = []
    for _ in range(6):
        await page.press("Tab")
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        seen.append(await page.evaluate(f"[document.activeElement.getAttribute('href'), {outline}]"))
    assert [link for link, _ in seen][:3] == ["#content", "openapi.json", "#content"]
    assert all(style == "solid" for _, style in seen)


# everything that the document allows, and some that it does not


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ids(described: Described) -> dict[str, Any]:
    """Make one of everything, and return what stands for each path parameter."""
    acme, hook = "/tenants/acme", {"name": "hook", "url": "https://hooks.example/x", "allEvents": True}
    rows = (await (await described.ask("GET", f"/v1{acme}/domains")).json())["data"]["domains"]
    domains = {row["name"]: row["id"] for row in rows}
    mail = {"from": "a@example.com", "to": ["b@example.net"], "subject": "x", "text": "x"}
    found: dict[str, Any] = {
        "emailId": await described.made("/emails", mail),
        "domainId": str(domains["sender.test"]),
        "credentialId": await described.made(f"{acme}/credentials", {"name": "mine", "type": "smtp"}),
        "webhookId": await described.made(f"{acme}/webhooks", hook),
        "trackingId": await described.made(f"{acme}/tracking", {"domainId": domains["sender.test"], "name": "track"}),
    }
    found["platform"] = await described.made("/platform/webhooks", {"name": "all", "url": "https://hooks.example/y"})
    found["changed"] = await described.made("/tenants", {"name": "Changed Ltd"})
    return found


async def run(described: Described, folder: Path, key: str, values: dict[str, Any], *options: str) -> str:
    """Let schemathesis ask every operation, and return what it says; AssertionError when something did not hold."""
    settings = SETTINGS.format(**{name: json.dumps(value) for name, value in values.items()})
    (folder / "schemathesis.toml").write_text(settings)
    (folder / "hooks.py").write_text(HOOKS)
    (folder / "backups").mkdir()
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("st"),
        *("--config-file", "schemathesis.toml", "run", f"{described.address}/openapi.json"),
        *("-H", f"Authorization: Bearer {key}", "--checks", ",".join(CHECKS), "--no-shrink", "-w", "1"),
        *("--continue-on-failure", "--suppress-health-check", "all", "--request-timeout", "15"),
        *options,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, "\n".join(line[:300] for line in said.splitlines())[:20000]
    return said


@pytest.mark.timeout(120)
@pytest.mark.parametrize("who", ["organisation", "tenant"])
async def test_whatever_is_asked_the_answer_is_as_described(
    described: Described, ids: dict[str, Any], tmp_path: Path, who: str
) -> None:
    key = described.key if who == "organisation" else TENANT_KEY
    phases = ("examples,coverage,fuzzing", "15") if who == "organisation" else ("fuzzing", "8")
    said = await run(described, tmp_path, key, ids, "--phases", phases[0], "-n", phases[1])
    operations = sum(len(methods) for methods in described.document["paths"].values())
    assert re.search(rf"Tested: {operations}\b", said), said[-3000:]
    assert described.relay.lines("request_crashed") == []
    assert (await described.ask("GET", "/readyz", key=None)).status == 200
