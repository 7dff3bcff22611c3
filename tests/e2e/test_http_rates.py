"""The rate of requests: exact however many come at once, told in every answer, shared with SMTP where it is set."""

import asyncio
import smtplib
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import ark
import pytest
from peers.daemon import Relay

from arkrelay.config.tenants import add_key

ONE, TWO, GONE = "ark_live_one-0123456789abcdef", "ark_live_two-0123456789abcdef", "ark_live_gone-0123456789abcdef"
CREDENTIALS = "".join(
    f'[[credentials]]\nname = "{name}"\ntype = "api"\nsecret = "{key}"\n'
    for name, key in (("one", ONE), ("two", TWO))
)
SUSPENDED = f'name = "Gone"\nstatus = "suspended"\n[[credentials]]\nname = "x"\ntype = "api"\nsecret = "{GONE}"\n'
NAMES = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


class Door:
    """A relay with two keys of one tenant and one of the organisation, and a client with many connections."""

    def __init__(self, relay: Relay, session: aiohttp.ClientSession, organisation: str) -> None:
        self.relay, self.session, self.organisation = relay, session, organisation
        self.base = f"http://127.0.0.1:{relay.port('http')}"

    async def ask(
        self, path: str = "/v1/limits", key: str = ONE, method: str = "GET", **more: Any
    ) -> aiohttp.ClientResponse:
        headers = {"Authorization": f"Bearer {key}", **more.pop("headers", {})}
        async with self.session.request(method, self.base + path, headers=headers, **more) as response:
            await response.read()
            return response

    async def statuses(self, count: int, **more: Any) -> Counter[int]:
        answers = await asyncio.gather(*(self.ask(**more) for _ in range(count)))
        return Counter(answer.status for answer in answers)

    async def set(self, old: str, new: str) -> None:
        text = self.relay.config.read_text()
        assert old in text
        self.relay.config.write_text(text.replace(old, new))
        await self.relay.call("POST", "/v1/control/reload")

    async def mail(self, sender: str = "app@sender.test") -> tuple[int, str]:
        """Return the reply to MAIL."""
        return await asyncio.to_thread(self._mail, sender)

    def _mail(self, sender: str) -> tuple[int, str]:
        with smtplib.SMTP("127.0.0.1", self.relay.port(), timeout=10) as client:
            client.ehlo("client.test")
            code, text = client.mail(sender)
            return code, text.decode()


@asynccontextmanager
async def opened(folder: Path, limits: str) -> AsyncIterator[Door]:
    relay = Relay(folder, more=limits, tenant=CREDENTIALS)
    gone = folder / "tenants" / "gone.toml"
    gone.write_text(SUSPENDED)
    gone.chmod(0o600)
    _, key = add_key(relay.config, "ops")
    async with relay, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield Door(relay, session, key)


async def test_50_requests_at_once_never_get_more_than_the_limit_within_a_second(tmp_path: Path) -> None:
    async with opened(tmp_path, "api_requests_per_s = 7") as door:
        statuses: Counter[int] = Counter()
        end = time.monotonic() + 3.2
        while time.monotonic() < end:
            statuses += await door.statuses(50)
        assert set(statuses) == {200, 429}
        # by the clock of the relay: a request is let in within some milliseconds of its beginning
        # (30 000 refusals on their way to the log let the last of them take a second or two)
        path = "/v1/logs?statusCode=200&endpoint=limits.retrieve&perPage=100"
        shown = await door.relay.until(path, lambda one: len(one["data"]) >= statuses[200])
        passed = sorted(datetime.fromisoformat(one["timestamp"]).timestamp() for one in shown["data"])
        assert len(passed) == statuses[200] >= 21  # the limit, and no less
        for start in passed:
            assert sum(start <= at < start + 0.98 for at in passed) <= 7


async def test_each_key_has_its_own_rate_and_every_answer_tells_it(tmp_path: Path) -> None:
    async with opened(tmp_path, "api_requests_per_s = 6") as door:
        asked: list[tuple[str, str, dict[str, Any], int]] = [
            ("GET", "/v1/limits", {}, 200),
            ("GET", "/v1/nothing", {}, 404),
            ("DELETE", "/v1/limits", {}, 405),
            ("POST", "/v1/emails", {"data": b"{"}, 400),
            ("POST", "/v1/emails", {"data": b"x", "headers": {"Content-Encoding": "gzip"}}, 415),
            ("GET", "/v1/tenants", {}, 403),
            ("GET", "/v1/limits", {}, 429),
            ("GET", "/v1/nothing", {}, 429),
        ]
        answers = [await door.ask(path, method=method, **more) for method, path, more, _ in asked]
        assert [answer.status for answer in answers] == [status for *_, status in asked]
        told = [tuple(int(answer.headers[name]) for name in NAMES) for answer in answers]
        assert [limit for limit, _, _ in told] == [6] * 8
        assert [remaining for _, remaining, _ in told] == [5, 4, 3, 2, 1, 0, 0, 0]
        assert all(0 <= reset - time.time() < 3 for _, _, reset in told)
        refused = await answers[6].json()
        assert refused["error"]["code"] == "rate_limit_exceeded"
        assert 1 <= int(answers[6].headers["Retry-After"]) <= 60
        data = (await answers[0].json())["data"]["rateLimit"]
        assert (data["limit"], data["remaining"], data["period"]) == (6, 5, "second")  # it counts, too
        for key, status in ((TWO, 200), (door.organisation, 200), (GONE, 403)):
            answer = await door.ask(key=key)
            assert (answer.status, answer.headers["X-RateLimit-Remaining"]) == (status, "5")
        unknown = await door.ask(key="ark_live_nobody")
        assert (unknown.status, unknown.headers.get("X-RateLimit-Limit")) == (401, None)
        entry = (await door.relay.get(f"/v1/logs/{answers[6].headers['X-Request-Id']}"))["data"]
        assert entry["rateLimit"] == {"limit": 6, "remaining": 0, "reset": told[6][2], "limited": True}
        assert (entry["endpoint"], entry["error"]["code"]) == ("limits.retrieve", "rate_limit_exceeded")


async def test_a_reload_changes_the_rate_at_once_and_0_ends_it(tmp_path: Path) -> None:
    async with opened(tmp_path, "api_requests_per_s = 3") as door:
        assert await door.statuses(20) == {200: 3, 429: 17}
        await door.set("api_requests_per_s = 3", "api_requests_per_s = 20")
        assert (await door.statuses(40, key=TWO))[200] >= 20
        await door.set("api_requests_per_s = 20", "api_requests_per_s = 0.02")
        assert await door.statuses(10, key=door.organisation) == {200: 1, 429: 9}
        slow = await door.ask(key=door.organisation)
        assert 40 <= int(slow.headers["Retry-After"]) <= 50
        assert slow.headers["X-RateLimit-Limit"] == "1"
        await door.set("api_requests_per_s = 0.02", "api_requests_per_s = 0.001")
        assert (await door.ask(key=door.organisation)).headers["Retry-After"] == "60"
        await door.set("api_requests_per_s = 0.001", "api_requests_per_s = 0")
        assert await door.statuses(60) == {200: 60}
        assert "X-RateLimit-Limit" not in (await door.ask()).headers


async def test_the_official_client_waits_as_it_is_told_and_gets_through(tmp_path: Path) -> None:
    async with opened(tmp_path, "api_requests_per_s = 2") as door:
        async with ark.AsyncArk(api_key=ONE, base_url=f"{door.base}/v1", max_retries=3) as client:
            began = time.monotonic()
            await asyncio.gather(*(client.limits.retrieve() for _ in range(4)))
            assert 0.8 < time.monotonic() - began < 8
        async with ark.AsyncArk(api_key=TWO, base_url=f"{door.base}/v1", max_retries=0) as client:
            with pytest.raises(ark.RateLimitError):
                await asyncio.gather(*(client.limits.retrieve() for _ in range(3)))


async def test_smtp_has_no_rate_of_its_own_unless_it_is_shared(tmp_path: Path) -> None:
    async with opened(tmp_path, "api_requests_per_s = 2") as door:
        assert {(await door.mail())[0] for _ in range(6)} == {250}
        assert await door.statuses(6) == {200: 2, 429: 4}


async def test_one_rate_for_requests_and_mail_of_a_tenant_where_it_is_set(tmp_path: Path) -> None:
    limits = "api_requests_per_s = 0.2\nrate_shared_with_smtp = true"
    async with opened(tmp_path, limits) as door:
        assert await door.statuses(4) == {200: 1, 429: 3}
        assert (await door.ask(key=TWO)).status == 429  # another key of the tenant
        code, text = await door.mail()
        assert (code, text.split(" ")[0]) == (450, "4.7.1")
        assert text.endswith(" s")
        assert (await door.mail("app@stranger.test"))[
            0
        ] == 550  # what will never do is said as before, and not counted
        assert (await door.ask(key=door.organisation)).status == 200  # which is no tenant's
        await door.set("api_requests_per_s = 0.2", "api_requests_per_s = 5")
        await asyncio.sleep(1.1)
        sent = [await door.mail() for _ in range(5)]
        assert {code for code, _ in sent} == {250}
        assert (await door.mail())[0] == 450
        refused = await door.ask(key=TWO)
        assert (refused.status, refused.headers["X-RateLimit-Remaining"]) == (429, "0")
        await asyncio.sleep(1.1)
        assert await door.relay.send("ann@rcpt.test")
        assert (await door.ask()).headers["X-RateLimit-Remaining"] == "3"


async def test_clients_take_the_refusal_for_a_moments(tmp_path: Path) -> None:
    async with opened(tmp_path, "api_requests_per_s = 1\nrate_shared_with_smtp = true") as door:

        def send() -> list[str]:
            """Send three messages on one connection, each again until it is taken."""
            said = []
            with smtplib.SMTP("127.0.0.1", door.relay.port(), timeout=10) as client:
                for number in range(3):
                    while True:
                        try:
                            client.sendmail(
                                "app@sender.test", ["ann@rcpt.test"], f"From: app@sender.test\r\n\r\n{number}\r\n"
                            )
                            said.append("sent")
                            break
                        except smtplib.SMTPSenderRefused as refused:
                            said.append(f"refused with {refused.smtp_code}")
                            time.sleep(0.4)
            return said

        said = await asyncio.to_thread(send)
        assert said.count("sent") == 3
        assert said.count("refused with 450") == len(said) - 3 >= 2
        assert (await door.relay.get("/v1/emails"))["total"] == 3
