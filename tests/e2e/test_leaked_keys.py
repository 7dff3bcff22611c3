"""What a stolen key can do: little, and it is told. Budget of new recipients, and credentials held by themselves."""

import asyncio
import smtplib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Mx, Script
from peers.panel import open_panel

KEY, OTHER = "ark_live_stolen-0123456789abcdef", "ark_live_other-0123456789abcdef"
KEYS = f"""
[[credentials]]
name = "stolen"
type = "api"
secret = "{KEY}"
id = 7
[[credentials]]
name = "other"
type = "api"
secret = "{OTHER}"
"""
NOBODY = {f"bad{i}@rcpt.test": "550 5.1.1 There is no such mailbox" for i in range(200)}
BASE = "/v1/tenants/acme/credentials"


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


async def started(stack: AsyncExitStack, folder: Path, limits: str = "", file: str = "") -> Relay:
    dns = await stack.enter_async_context(DnsServer())
    dns.set("rcpt.test", "MX", "10 mx.rcpt.test.")
    dns.set("mx.rcpt.test", "A", "127.0.0.1")
    mx = await stack.enter_async_context(Mx(Script(rcpt=NOBODY)))
    relay = Relay(
        folder,
        dns=dns.address,
        mx_port=mx.port,
        tenant=f"{KEYS}\n[limits]\n{limits}\n",
        more="api_requests_per_s = 0\n",
    )
    tenant = folder / "tenants" / "acme.toml"
    tenant.write_text(file + tenant.read_text())
    await stack.enter_async_context(relay)
    return relay


async def post(relay: Relay, key: str, path: str, body: dict[str, Any], method: str = "POST") -> tuple[int, Any]:
    """Ask over TCP with a key."""
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
        session.request(method, f"http://127.0.0.1:{relay.port('http')}{path}", json=body) as response,
    ):
        return response.status, await response.json()


async def send(relay: Relay, key: str, *to: str) -> str:
    mail = {"from": "app@sender.test", "to": list(to), "subject": "hello", "text": "Hello."}
    status, answer = await post(relay, key, "/v1/emails", mail)
    assert status == 200, answer
    return str(answer["data"]["id"])


async def events(relay: Relay, kind: str) -> list[dict[str, Any]]:
    found = (await relay.get("/v1/events?limit=1000"))["data"]["events"]
    return [one for one in found if one["event"] == kind]


async def test_a_key_whose_addresses_do_not_exist_is_held_and_its_owner_is_not(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    relay = await started(
        stack, tmp_path, "bad_address_percent = 40\nbad_address_least = 10", file='managed = "file"\n'
    )
    before = (tmp_path / "tenants" / "acme.toml").read_text()
    credential = f"{BASE}/7"
    for i in range(4):
        await send(relay, OTHER, f"good{i}@rcpt.test")
    for i in range(12):
        await send(relay, KEY, f"bad{i}@rcpt.test")
    shown = (await relay.until(credential, lambda answer: answer["data"]["hold"]))["data"]
    assert "10 of 10 recipients within an hour" in shown["holdReason"]
    assert (tmp_path / "tenants" / "acme.toml").read_text() == before

    token = await send(relay, KEY, "victim@rcpt.test")  # accepted, and held
    held = (await relay.get(f"/v1/emails/{token}"))["data"]
    assert held["status"] == "held"
    (said,) = (await relay.get(f"/v1/why?q={token}"))["data"]["sentences"]
    assert "The credential stolen is on hold: 10 of 10 recipients within an hour" in said["sentence"]
    fine = await send(relay, OTHER, "good@rcpt.test")
    await relay.until(f"/v1/emails/{fine}", lambda answer: answer["data"]["status"] == "sent")
    (event,) = await events(relay, "CredentialHeld")
    assert (event["tenantId"], event["data"]["credential"]) == ("acme", "stolen")
    (line,) = await relay.logged("credential_held")
    assert (line["level"], line["credential"]) == ("warning", "stolen")

    # it frees neither itself nor its mail, and makes no other key
    refused: list[tuple[str, dict[str, Any], str]] = [
        (credential, {"hold": False}, "PATCH"),
        (BASE, {"name": "new", "type": "api"}, "POST"),
        (f"/v1/emails/{token}/retry", {}, "POST"),
        *((f"/v1/queue/{verb}", {"ids": [token]}, "POST") for verb in ("release", "retry", "hold", "delete")),
        *((f"/v1/queue/{verb}", {"all": True}, "POST") for verb in ("release", "flush", "hold", "delete")),
        (f"{BASE}/7?reveal=true", {}, "GET"),
        ("/v1/tenants/acme/suppressions", {"address": "victim@rcpt.test"}, "POST"),
        ("/v1/tenants/acme/suppressions/victim@rcpt.test", {}, "DELETE"),
    ]
    for path, body, method in refused:
        status, answer = await post(relay, KEY, path, body, method)
        assert (status, answer["error"]["code"]) == (403, "credential_on_hold"), path
    async with open_panel(f"http://127.0.0.1:{relay.port('http')}") as panel:
        await panel.sign_in(KEY)
        for path, fields in (
            ("credentials/acme/add", {"name": "new", "type": "api"}),
            ("webhooks", {"name": "new", "url": "https://elsewhere.test/", "which": "all"}),
            (f"messages/{token}/release", {}),
            *(("messages?status=held", {"verb": verb}) for verb in ("hold", "release", "delete", "retry")),
        ):
            assert "This key is on hold: it may change nothing" in (await panel.post(path, fields)).said, path

    await relay.kill()
    await relay.start()
    assert (await relay.get(credential))["data"]["hold"]
    await relay.call("POST", "/v1/control/reload")
    assert (await relay.get(credential))["data"]["hold"]
    freed = (await relay.call("PATCH", credential, {"hold": False}))["data"]  # also where the file is hand-managed
    assert (freed["hold"], freed["holdReason"]) == (False, None)
    assert len(await events(relay, "CredentialReleased")) == 1
    sent = await send(relay, KEY, "ann@rcpt.test")
    await relay.until(f"/v1/emails/{sent}", lambda answer: answer["data"]["status"] == "sent")
    await relay.call("POST", "/v1/queue/release", {"ids": [token]})
    await relay.until(f"/v1/emails/{token}", lambda answer: answer["data"]["status"] == "sent")


async def test_a_budget_of_new_recipients_holds_them_and_three_budgets_hold_the_key(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    relay = await started(stack, tmp_path, "new_recipients_daily = 3")
    tokens = [await send(relay, KEY, f"new{i}@rcpt.test") for i in range(4)]
    for token in tokens[:3]:
        await relay.until(f"/v1/emails/{token}", lambda answer: answer["data"]["status"] == "sent")
    assert (await relay.get(f"/v1/emails/{tokens[3]}"))["data"]["status"] == "held"
    (said,) = (await relay.get(f"/v1/why?q={tokens[3]}"))["data"]["sentences"]
    assert "budget of 3 such recipients a day is used up" in said["sentence"]
    (event,) = await events(relay, "NewRecipientsExceeded")
    assert event["data"] == {"limit": 3, "volume": 4, "credential": "stolen"}
    known = await send(relay, OTHER, "new0@rcpt.test")
    await relay.until(f"/v1/emails/{known}", lambda answer: answer["data"]["status"] == "sent")
    assert not (await relay.get(f"{BASE}/7"))["data"]["hold"]
    for i in range(4, 9):
        await send(relay, KEY, f"new{i}@rcpt.test")
    shown = (await relay.until(f"{BASE}/7", lambda answer: answer["data"]["hold"]))["data"]
    assert "wrote to 9 new recipients in a day" in shown["holdReason"]
    assert (await relay.get(f"/v1/emails/{await send(relay, KEY, 'new0@rcpt.test')}"))["data"]["status"] == "held"
    assert len(await events(relay, "NewRecipientsExceeded")) == 1


async def test_mail_of_a_held_key_that_waits_is_held_when_it_is_due(tmp_path: Path, stack: AsyncExitStack) -> None:
    relay = await started(stack, tmp_path, "bad_address_percent = 40\nbad_address_least = 5")
    waiting = await send(relay, KEY, "ann@nowhere.test")  # whose domain does not answer
    await relay.until(f"/v1/emails/{waiting}", lambda answer: answer["data"]["status"] == "softfail")
    for i in range(5):
        await send(relay, KEY, f"bad{i}@rcpt.test")
    await relay.until(f"{BASE}/7", lambda answer: answer["data"]["hold"])
    await relay.call("POST", "/v1/queue/flush", {})
    await relay.until(f"/v1/emails/{waiting}", lambda answer: answer["data"]["status"] == "held")


async def test_limits_are_told_once_an_hour_over_restarts_too(tmp_path: Path, stack: AsyncExitStack) -> None:
    relay = await started(stack, tmp_path, "hourly = 10")
    for i in range(10):
        await send(relay, OTHER, f"u{i}@rcpt.test")
    for _ in range(2):
        await send(relay, OTHER, "more@rcpt.test")
        await relay.kill()
        await relay.start()
    (near,), (over,) = await events(relay, "SendLimitApproaching"), await events(relay, "SendLimitExceeded")
    assert (near["data"], over["data"]) == ({"volume": 10, "limit": 10}, {"volume": 11, "limit": 10})


async def test_smtp_of_a_held_key_goes_on_and_is_held(tmp_path: Path, stack: AsyncExitStack) -> None:
    relay = await started(stack, tmp_path, "new_recipients_daily = 1")

    def submit(to: str) -> str:
        with smtplib.SMTP("127.0.0.1", relay.port(), timeout=20) as client:
            client.login("production", "secret-of-production")
            client.mail("app@sender.test")
            client.rcpt(to)
            code, text = client.data(b"From: app@sender.test\r\nSubject: x\r\n\r\nx\r\n")
            assert code == 250, text
            return text.decode().rsplit(" ", 1)[1]

    for i in range(3):
        await asyncio.to_thread(submit, f"u{i}@rcpt.test")
    rows = (await relay.get(BASE))["data"]
    (mine,) = [one for one in rows if one["name"] == "production"]
    await relay.until(f"{BASE}/{mine['id']}", lambda answer: answer["data"]["hold"])
    token = await asyncio.to_thread(submit, "u0@rcpt.test")
    assert (await relay.get(f"/v1/emails/{token}"))["data"]["status"] == "held"
