"""Chromium, told what to do through its DevTools protocol: one page at a time, and everything that it asked for."""

import asyncio
import base64
import contextlib
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp

START_S = 30.0
ANSWER_S = 20.0
SWITCHES = (
    "--headless=new",
    "--no-sandbox",  # tests run as root, and the page is our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-port=0",
)


@dataclass
class Page:
    """A tab: ``requests`` are the addresses it asked for, ``complaints`` what stands in its console."""

    browser: "Browser"
    session: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    loaded: asyncio.Event = field(default_factory=asyncio.Event)

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        return await self.browser.command(method, self.session, **parameters)

    async def look_like(self, width: int, height: int, scheme: str, scale: float = 1) -> None:
        """Be a window of this size, in a light or dark system; a narrow one is a phone."""
        await self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        wishes = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wishes.items()]
        await self.command("Emulation.setEmulatedMedia", features=features)

    async def open(self, url: str) -> None:
        """Load a page, and return when it has everything that it asked for."""
        self.loaded.clear()
        found = await self.command("Page.navigate", url=url)
        assert "errorText" not in found, found
        async with asyncio.timeout(ANSWER_S):
            await self.loaded.wait()

    async def evaluate(self, expression: str) -> Any:
        """Return what a JavaScript expression is."""
        found = await self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def press(self, key: str) -> None:
        """Press a key that has a name."""
        for kind in ("keyDown", "keyUp"):
            named = {"key": key, "code": key, "windowsVirtualKeyCode": _CODES[key]}
            if kind == "keyDown" and key in _TEXTS:
                named["text"] = _TEXTS[key]
            await self.command("Input.dispatchKeyEvent", type=kind, **named)

    async def type(self, text: str) -> None:
        """Press the keys of a text."""
        for letter in text:
            await self.command("Input.dispatchKeyEvent", type="keyDown", key=letter, text=letter)
            await self.command("Input.dispatchKeyEvent", type="keyUp", key=letter)

    async def screenshot(self, path: Path) -> None:
        """Write what the window shows as a PNG."""
        found = await self.command("Page.captureScreenshot", format="png")
        await asyncio.to_thread(path.write_bytes, base64.b64decode(found["data"]))

    def hear(self, method: str, said: dict[str, Any]) -> None:
        match method:
            case "Network.requestWillBeSent":
                self.requests.append(said["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(f"{said['entry']['level']}: {said['entry']['text']}")
            case "Runtime.exceptionThrown":
                self.complaints.append(str(said["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.complaints.append(str(said["args"]))
            case "Page.loadEventFired":
                self.loaded.set()


_CODES = {"Tab": 9, "Enter": 13, "Escape": 27}
_TEXTS = {"Enter": "\r"}  # without it a form is not sent


class Browser:
    """A running Chromium."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        self._reader = asyncio.create_task(self._read())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader

    async def page(self) -> Page:
        """Open a tab."""
        target = (await self.command("Target.createTarget", url="about:blank"))["targetId"]
        session = (await self.command("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Network", "Log", "Runtime", "Page"):
            await page.command(f"{domain}.enable")
        return page

    async def command(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Return the answer to a command of the protocol; AssertionError when it is an error."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json(
            {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        )
        async with asyncio.timeout(ANSWER_S):
            found: dict[str, Any] = await answer
        return found

    async def _read(self) -> None:
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                answer = self._waiting.pop(said["id"])
                if "error" in said:
                    answer.set_exception(AssertionError(said["error"]))
                else:
                    answer.set_result(said["result"])
            elif said.get("sessionId") in self._pages:
                self._pages[said["sessionId"]].hear(said["method"], said["params"])


@contextlib.asynccontextmanager
async def open_browser(program: Path, folder: Path, switches: Sequence[str] = SWITCHES) -> AsyncIterator[Browser]:
    """Start ``program`` with a profile in ``folder``, and end it afterwards."""
    with (folder / "browser.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(program), *switches, f"--user-data-dir={folder / 'profile'}", stdout=log, stderr=log
        )
    try:
        where = folder / "profile" / "DevToolsActivePort"
        async with asyncio.timeout(START_S):
            while not where.exists() or "\n" not in where.read_text():
                assert process.returncode is None, (folder / "browser.log").read_text()[-2000:]
                await asyncio.sleep(0.05)
        port, path = where.read_text().split("\n")[:2]
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"http://127.0.0.1:{port}{path}", max_msg_size=0) as socket,
            Browser(socket) as browser,
        ):
            yield browser
            with contextlib.suppress(AssertionError, TimeoutError):
                await browser.command("Browser.close")
    finally:
        if process.returncode is None:
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
