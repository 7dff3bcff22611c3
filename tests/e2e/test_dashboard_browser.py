"""The dashboard in a browser: it fits, is for everybody, runs nothing of others, and works without a script."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from peers.arkdoor import ArkDoor, open_ark_door
from peers.browser import Browser, Page, open_browser
from peers.panel import fill, pages, send

pytestmark = pytest.mark.asyncio(loop_scope="module")

# What axe-core finds of WCAG 2.2 A and AA and of best practices; the frame is a stranger's and not ours to mend
AXE = """
axe.run({exclude: ["iframe"]}, {resultTypes: ["violations"]}).then(found => found.violations
  .filter(one => ["serious", "critical", "moderate"].includes(one.impact))
  .map(one => `${one.impact} ${one.id}: ${one.nodes.map(node => node.target.join(" ")).slice(0, 3).join("; ")}`))
"""
EVERYTHING_ELSEWHERE = """<title>still</title><script>document.title = parent.document.title = 'run'</script>
<img src="THERE/img" onerror="parent.document.title = 'run'"><link rel=stylesheet href="THERE/css">
<style>@import url(THERE/import); body { background: url(THERE/background) }
@font-face { font-family: x; src: url(THERE/font) } p { font-family: x }</style>
<p style="background: url(THERE/p)">x</p>
<iframe src="THERE/frame"></iframe><object data="THERE/object"></object><embed src="THERE/embed">
<video src="THERE/video" autoplay poster="THERE/poster"></video><script src="THERE/script"></script>
<meta http-equiv=refresh content="0; url=THERE/refresh"><link rel=prefetch href="THERE/prefetch">
<link rel=preconnect href="THERE"><svg><image href="THERE/svg"/></svg><base href="THERE/base/"><img src="relative">
<form action="THERE/form"><input autofocus onfocus="parent.document.title = 'run'"></form>"""
FITS = "document.documentElement.scrollWidth <= window.innerWidth"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory, need: Callable[[str], Path]) -> AsyncIterator[Browser]:
    async with open_browser(need("chromium"), tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ArkDoor]:
    async with open_ark_door(tmp_path_factory.mktemp("dashboard")) as opened:
        yield opened
        assert opened.relay.lines("page_crashed") == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made(door: ArkDoor) -> dict[str, str]:
    return await fill(door)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def empty(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ArkDoor]:
    """Give a relay that nobody has used."""
    async with open_ark_door(tmp_path_factory.mktemp("empty")) as opened:
        yield opened


@pytest.fixture(scope="module")
def axe(need: Callable[[Path], Path]) -> str:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    modules = Path(os.environ.get("ARKRELAY_NODE_MODULES") or cache / "arkrelay-tests" / "node_modules")
    return need(modules / "axe-core" / "axe.min.js").read_text()


async def sign_in(browser: Browser, door: ArkDoor, key: str = "") -> Page:
    """Return a tab that is signed in, by the form, as a person does it."""
    page = await browser.page()
    await page.look_like(1280, 800, "light")
    await page.open(f"{door.bare}/dashboard/sign-in")
    if await page.evaluate("document.getElementById('key') !== null"):
        await page.evaluate(f"document.getElementById('key').value = {key or door.key!r}")
        await leave(page, "document.querySelector('form').requestSubmit()")
    assert await page.evaluate("location.pathname") == "/dashboard/"
    return page


async def leave(page: Page, act: str) -> None:
    """Do what leads to another page, and return when that is there."""
    page.loaded.clear()
    await page.evaluate(act)
    async with asyncio.timeout(20):
        await page.loaded.wait()


async def becomes(page: Page, what: str, wanted: str) -> None:
    """Assert that this is so, in a while: a browser puts the focus when it draws the page, after it has loaded."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            while await page.evaluate(what) != wanted:
                await asyncio.sleep(0.02)
    assert await page.evaluate(what) == wanted


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (768, "light"), (320, "dark")])
@pytest.mark.parametrize("full", [True, False], ids=["full", "empty"])
async def test_every_page_fits_and_is_for_everybody(
    door: ArkDoor,
    empty: ArkDoor,
    made: dict[str, str],
    browser: Browser,
    axe: str,
    tmp_path: Path,
    full: bool,
    width: int,
    scheme: str,
) -> None:
    relay = door if full else empty
    page = await sign_in(browser, relay)
    await page.look_like(width, 800, scheme)
    found = pages(made) if full else [one for one in pages(made) if "/" not in one]
    for path in [*found, "nothing"]:
        await page.open(f"{relay.bare}/dashboard/{path}")
        assert await page.evaluate(FITS), path
        await page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        assert await page.evaluate(FITS), f"{path}, opened"
        await page.evaluate(axe)
        assert await page.evaluate(AXE) == [], path
        await page.screenshot(tmp_path / f"{path.replace('/', '_')}.png")
    assert [one for one in page.complaints if "404" not in one] == []
    assert [one for one in page.requests if not one.startswith((relay.bare, "data:"))] == []


async def test_the_page_to_sign_in_is_for_everybody(browser: Browser, empty: ArkDoor, axe: str) -> None:
    page = await browser.page()
    await page.command("Network.clearBrowserCookies")
    for width, scheme in ((1280, "light"), (320, "dark")):
        await page.look_like(width, 800, scheme)
        await page.open(f"{empty.bare}/dashboard/")
        assert await page.evaluate("document.querySelector('[autofocus]').id") == "key"
        assert await page.evaluate(FITS)
        await page.evaluate(axe)
        assert await page.evaluate(AXE) == []


async def test_nothing_that_others_wrote_runs_or_asks_for_anything(door: ArkDoor, browser: Browser) -> None:
    came: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(await reader.readline())
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as elsewhere:
        there = f"http://127.0.0.1:{elsewhere.sockets[0].getsockname()[1]}"
        html = EVERYTHING_ELSEWHERE.replace("THERE", there)
        one = await send(
            door, "ann-frame@rcpt.test", subject="</title><script>document.title='run'</script>", html=html
        )
        page = await sign_in(browser, door)
        await page.open(f"{door.bare}/dashboard/messages/{one}")
        title = await page.evaluate("document.title")
        await page.evaluate("document.querySelector('iframe').scrollIntoView()")
        async with asyncio.timeout(15):
            while not [one for one in page.requests if one.endswith("/html")]:
                await asyncio.sleep(0.05)
        await asyncio.sleep(1.0)  # in which it would have run, and asked
        assert await page.evaluate("document.title") == title != "run"
        # nor when it is opened by itself
        await page.open(f"{door.bare}/dashboard/messages/{one}/html")
        await asyncio.sleep(1.0)
        assert await page.evaluate("document.title") == "still"
        assert await page.evaluate("self.origin") == "null"
        assert came == []


async def test_it_works_without_a_script(door: ArkDoor, made: dict[str, str], browser: Browser) -> None:
    page = await sign_in(browser, door)
    one = await send(door, "busy-plain@rcpt.test")
    await door.settled(door.api(), one, "softfail")
    await page.command("Emulation.setScriptExecutionDisabled", value=True)
    await page.open(f"{door.bare}/dashboard/messages/{one}")
    assert await page.evaluate("document.documentElement.className") == ""
    assert await page.evaluate("document.querySelector('[data-copy]').checkVisibility()") is False
    await leave(page, "document.querySelector('form[action$=hold] button').click()")
    assert "somebody releases it" in await page.evaluate("document.querySelector('[role=status]').textContent")
    await page.look_like(320, 800, "light")
    await page.open(f"{door.bare}/dashboard/events")
    assert await page.evaluate("document.querySelector('nav a').checkVisibility()") is False
    await page.evaluate("document.getElementById('menu').click()")
    assert await page.evaluate("document.querySelector('nav a').checkVisibility()") is True


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (320, "dark")])
@pytest.mark.parametrize("script", [True, False], ids=["script", "plain"])
async def test_a_webhook_is_made_changed_and_deleted_by_its_forms(
    door: ArkDoor, browser: Browser, axe: str, tmp_path: Path, script: bool, width: int, scheme: str
) -> None:
    page = await sign_in(browser, door)
    await page.look_like(width, 800, scheme)
    await page.command("Emulation.setScriptExecutionDisabled", value=not script)

    async def fits(name: str) -> None:
        assert await page.evaluate(FITS), name
        if script:
            await page.evaluate(axe)
            assert await page.evaluate(AXE) == [], name
        await page.screenshot(tmp_path / f"{name}.png")

    async def write(field: str, text: str) -> None:
        await page.evaluate(f"document.getElementById({field!r}).select()")
        await page.command("Input.insertText", text=text)

    async def text(selector: str) -> str:
        return str(await page.evaluate(f"document.querySelector({selector!r}).textContent"))

    choice = "document.querySelector('[name=event-MessageSent]').checkVisibility()"
    button = "document.querySelector('.settings .main').click()"
    name, url = f"Browser {width} {script}", door.receiver.url("browser")
    await page.open(f"{door.bare}/dashboard/webhooks?tenant=acme")
    await write("hook-name", name)
    await write("hook-url", "https://10.0.0.1/hooks")
    assert await page.evaluate(choice) is False, "all events: there is nothing to choose"
    await page.evaluate("document.querySelector('[value=some]').click()")
    assert await page.evaluate(choice) is True
    await leave(page, button)
    assert "Events: choose one or more" in await text("[role=alert]")
    await becomes(page, "document.activeElement.value", "some")
    await fits("no-event")
    await page.evaluate("document.querySelector('[name=event-MessageSent]').click()")
    await leave(page, button)
    assert "URL: 10.0.0.1 may not be posted to" in await text("#hook-problem")
    await becomes(page, "document.activeElement.id", "hook-url")
    assert await page.evaluate("document.getElementById('hook-name').value") == name
    await fits("no-url")
    await write("hook-url", url)
    await leave(page, button)
    assert f"{name} is made" in await text("[role=status]")
    assert (await page.evaluate("location.pathname")).startswith("/dashboard/webhooks/acme/")

    await page.evaluate("document.querySelector('#change summary').click()")
    await fits("change")
    await page.evaluate("document.querySelector('[name=enabled]').click()")
    await write("hook-name", f"{name} renamed")
    page.loaded.clear()
    await page.press("Enter")
    await page.loaded.wait()
    assert (await text("h1"), await text(".to .status")) == (f"{name} renamed", "disabled")
    assert await page.evaluate("document.querySelector('.confirm form').checkVisibility()") is False
    await page.evaluate("document.querySelector('.confirm summary').click()")
    box = "document.querySelector('.confirm > div').getBoundingClientRect()"
    assert await page.evaluate(f"(box => box.left >= 0 && box.right <= innerWidth)({box})")
    await fits("delete")
    await leave(page, "document.querySelector('.confirm button').click()")
    assert "is deleted" in await text("[role=status]")
    assert await page.evaluate("location.pathname + location.search") == "/dashboard/webhooks?tenant=acme"
    assert [one for one in page.complaints if "400" not in one] == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (320, "light"), (320, "dark")])
@pytest.mark.parametrize("script", [True, False], ids=["script", "plain"])
async def test_all_that_match_are_held_and_released_by_a_bar_of_verbs(
    door: ArkDoor, browser: Browser, axe: str, tmp_path: Path, script: bool, width: int, scheme: str
) -> None:
    tag = f"bar {width} {scheme} {script}"
    for number in range(3):
        one = await send(door, f"busy-{number}@rcpt.test", tag=tag)
        await door.settled(door.api(), one, "softfail")
    page = await sign_in(browser, door)
    await page.look_like(width, 800, scheme)
    await page.command("Emulation.setScriptExecutionDisabled", value=not script)
    await page.open(f"{door.bare}/dashboard/messages?status=softfail&tag={tag.replace(' ', '+')}&tenant=acme")
    where = await page.evaluate("location.href")
    for verb, said in (
        ("retry", "3 messages match. They are tried again now, whatever they wait for."),
        ("delete", "3 messages match. They are not sent, and fail for good. This cannot be undone."),
        ("hold", "3 messages match. They are not sent until somebody releases them."),
    ):
        bar = f"document.querySelector('.bulk [value={verb}]').closest('details')"
        assert await page.evaluate(f"{bar}.querySelector('form').checkVisibility()") is False
        await page.evaluate(f"{bar}.querySelector('summary').focus()")
        await page.press("Enter")
        assert await page.evaluate(f"{bar}.querySelector('form').checkVisibility()") is True
        assert await page.evaluate("document.querySelectorAll('.bulk details[open]').length") == 1
        assert said in " ".join(str(await page.evaluate(f"{bar}.textContent")).split())
        box = f"{bar}.querySelector('div').getBoundingClientRect()"
        assert await page.evaluate(f"(box => box.left >= 0 && box.right <= innerWidth)({box})")
        assert await page.evaluate(FITS)
        if script:
            await page.evaluate(axe)
            assert await page.evaluate(AXE) == []
        await page.screenshot(tmp_path / f"{verb}.png")
    await page.press("Tab")
    assert await page.evaluate("document.activeElement.value") == "hold"
    page.loaded.clear()
    await page.press("Enter")
    async with asyncio.timeout(20):
        await page.loaded.wait()
    assert "3 are held" in await page.evaluate("document.querySelector('[role=status]').textContent")
    assert await page.evaluate("location.href") == where
    assert await page.evaluate("document.querySelector('.bulk')") is None
    await page.screenshot(tmp_path / "held.png")
    await page.open(where.replace("softfail", "held"))
    await page.evaluate("document.querySelector('.bulk summary').click()")
    await leave(page, "document.querySelector('.bulk [value=release]').click()")
    assert "3 are released" in await page.evaluate("document.querySelector('[role=status]').textContent")
    assert page.complaints == []


async def test_it_is_used_with_the_keyboard(door: ArkDoor, made: dict[str, str], browser: Browser) -> None:
    page = await sign_in(browser, door)
    await page.open(f"{door.bare}/dashboard/")
    await page.press("Tab")
    assert await page.evaluate("document.activeElement.className") == "skip"
    await page.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "content"
    await page.type("/")
    assert await page.evaluate("document.activeElement.name") == "q"
    await page.type("busy-1@rcpt.test")
    page.loaded.clear()
    await page.press("Enter")
    await page.loaded.wait()
    assert await page.evaluate("new URLSearchParams(location.search).get('to')") == "busy-1@rcpt.test"
    page.loaded.clear()
    await page.type("gu")
    await page.loaded.wait()
    assert await page.evaluate("location.pathname") == "/dashboard/usage"
    await page.type("?")
    assert await page.evaluate("document.getElementById('keys').open") is True
    await page.press("Escape")
    assert await page.evaluate("document.getElementById('keys').open") is False
    for _ in range(30):
        await page.press("Tab")
        shown = "(one => one === document.body || one.matches(':focus-visible') && getComputedStyle(one).outlineStyle"
        assert await page.evaluate(f"{shown} !== 'none')(document.activeElement)")


async def test_events_appear_by_themselves(door: ArkDoor, browser: Browser) -> None:
    page = await sign_in(browser, door)
    await page.open(f"{door.bare}/dashboard/events")
    async with asyncio.timeout(15):
        while await page.evaluate("document.querySelector('[data-live]').textContent") != "Live":
            await asyncio.sleep(0.05)
    await send(door, "busy-live@rcpt.test", subject="<img src=x onerror=alert(1)>")
    first = "document.querySelector('tbody tr')?.textContent ?? ''"  # of an empty log: no row yet
    async with asyncio.timeout(15):
        while not ("busy-live@rcpt.test" in (row := await page.evaluate(first)) and "MessageDelayed" in row):
            await asyncio.sleep(0.05)
    assert await page.evaluate("document.querySelector('tbody a').pathname.startsWith('/dashboard/messages/')")
    assert page.complaints == []
    await page.evaluate("document.querySelector('[data-pause]').click()")
    assert await page.evaluate("document.querySelector('[data-live]').textContent") == "Stopped"


async def test_the_colours_are_what_was_chosen(door: ArkDoor, browser: Browser) -> None:
    page = await sign_in(browser, door)
    ground = "getComputedStyle(document.body).backgroundColor"
    light = await page.evaluate(ground)
    await page.look_like(1280, 800, "dark")
    await page.open(f"{door.bare}/dashboard/")
    dark = await page.evaluate(ground)
    assert dark != light
    await leave(page, "document.querySelector('.themes [value=light]').click()")
    assert await page.evaluate(ground) == light
    await leave(page, "document.querySelector('.themes [value=auto]').click()")
    assert await page.evaluate(ground) == dark
