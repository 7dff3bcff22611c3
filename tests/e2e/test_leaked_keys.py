"""What a stolen key can do: little, and it is told. Budget of new recipients, and credentials held by themselves."""

import asyncio
import smtplib
import sys
import time
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
SITES = ("rcpt.test", "else.test")
NOBODY = {f"bad{i}@{SITES[i % 2]}": "550 5.1.1 There is no such mailbox" for i in range(200)}
NOBODY |= {f"gone{i}@rcpt.test": "550 5.1.1 There is no such mailbox" for i in range(60)}
BAD = list(NOBODY)
HOUR_S, DAY_S = 3600, 86400
BASE = "/v1/tenants/acme/credentials"


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


async def started(stack: AsyncExitStack, folder: Path, limits: str = "", file: str = "") -> Relay:
    dns = await stack.enter_async_context(DnsServer())
    for site in ("rcpt.test", "else.test"):
        dns.set(site, "MX", f"10 mx.{site}.")
        dns.set(f"mx.{site}", "A", "127.0.0.1")
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


async def budget_lasts() -> None:
    """Return when no day begins soon (UTC), with which a budget would."""
    left_s = DAY_S - time.time() % DAY_S
    await asyncio.sleep(left_s + 0.1 if left_s < 40 else 0)


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
    for address in BAD[:12]:
        await send(relay, KEY, address)
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
    await budget_lasts()
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


async def test_one_site_that_refuses_everybody_holds_no_key(tmp_path: Path, stack: AsyncExitStack) -> None:
    relay = await started(stack, tmp_path, "bad_address_least = 20")
    tokens = [await send(relay, KEY, f"gone{i}@rcpt.test") for i in range(40)]
    for token in tokens:
        await relay.until(f"/v1/emails/{token}", lambda answer: answer["data"]["status"] == "hardfail")
    assert not (await relay.get(f"{BASE}/7"))["data"]["hold"]
    await send(relay, KEY, BAD[1])
    await relay.until(f"{BASE}/7", lambda answer: answer["data"]["hold"])


async def test_a_release_lasts_until_as_much_has_come_again(tmp_path: Path, stack: AsyncExitStack) -> None:
    await budget_lasts()
    relay = await started(stack, tmp_path, "new_recipients_daily = 2")
    for i in range(6):
        await send(relay, KEY, f"new{i}@rcpt.test")
    await relay.until(f"{BASE}/7", lambda answer: answer["data"]["hold"])
    words = ("-m", "arkrelay", "credential", "set", "stolen", "-t", "acme", "-c", str(relay.config), "--renew")
    renewing = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=-1, stderr=-2)
    said = (await renewing.communicate())[0].decode()
    assert "still on hold: look at what it sent, then arkrelay credential release stolen" in said
    key = said.partition("ark_live_")[2].split()[0]
    await relay.call("PATCH", f"{BASE}/7", {"hold": False})
    await relay.kill()
    await relay.start()
    for i in range(5):
        await send(relay, f"ark_live_{key}", f"later{i}@rcpt.test")
    await relay.stop()  # what is to be looked at has been
    await relay.start()
    assert not (await relay.get(f"{BASE}/7"))["data"]["hold"]
    assert len(await events(relay, "NewRecipientsExceeded")) == 1  # of the tenant nothing is forgotten
    await send(relay, f"ark_live_{key}", "later5@rcpt.test")
    await relay.until(f"{BASE}/7", lambda answer: answer["data"]["hold"])


async def test_a_removed_credential_leaves_no_hold_behind(tmp_path: Path, stack: AsyncExitStack) -> None:
    await budget_lasts()
    relay = await started(stack, tmp_path, "new_recipients_daily = 1")
    for i in range(3):
        await send(relay, KEY, f"new{i}@rcpt.test")
    await relay.until(f"{BASE}/7", lambda answer: answer["data"]["hold"])
    file = tmp_path / "tenants" / "acme.toml"
    text = file.read_text()
    file.write_text(text.replace(KEYS.partition('[[credentials]]\nname = "other"')[0], "\n"))
    await relay.call("POST", "/v1/control/reload")
    await relay.call("GET", f"{BASE}/7", status=404)
    file.write_text(text)
    await relay.call("POST", "/v1/control/reload")
    assert not (await relay.get(f"{BASE}/7"))["data"]["hold"]
    await relay.stop()
    await relay.start()
    assert not (await relay.get(f"{BASE}/7"))["data"]["hold"]


async def test_mail_of_a_held_key_that_waits_is_held_when_it_is_due(tmp_path: Path, stack: AsyncExitStack) -> None:
    relay = await started(stack, tmp_path, "bad_address_percent = 40\nbad_address_least = 5")
    waiting = await send(relay, KEY, "ann@nowhere.test")  # whose domain does not answer
    await relay.until(f"/v1/emails/{waiting}", lambda answer: answer["data"]["status"] == "softfail")
    for address in BAD[:5]:
        await send(relay, KEY, address)
    await relay.until(f"{BASE}/7", lambda answer: answer["data"]["hold"])
    await relay.call("POST", "/v1/queue/flush", {})
    await relay.until(f"/v1/emails/{waiting}", lambda answer: answer["data"]["status"] == "held")


async def test_limits_are_told_once_an_hour_over_restarts_too(tmp_path: Path, stack: AsyncExitStack) -> None:
    left_s = HOUR_S - time.time() % HOUR_S
    await asyncio.sleep(left_s + 0.1 if left_s < 40 else 0)  # the limit starts anew at the top of the hour
    relay = await started(stack, tmp_path, "hourly = 10")
    for i in range(10):
        await send(relay, OTHER, f"u{i}@rcpt.test")
    for _ in range(2):
        await send(relay, OTHER, "more@rcpt.test")
        await relay.kill()
        await relay.start()
    (near,), (over,) = await events(relay, "SendLimitApproaching"), await events(relay, "SendLimitExceeded")
    assert (near["data"], over["data"]) == ({"volume": 10, "limit": 10}, {"volume": 11, "limit": 10})
    file = tmp_path / "tenants" / "acme.toml"
    file.write_text(file.read_text().replace("hourly = 10", "hourly = 11"))
    await relay.call("POST", "/v1/control/reload")
    await send(relay, OTHER, "eleventh@rcpt.test")
    await send(relay, OTHER, "twelfth@rcpt.test")
    assert [one["data"]["limit"] for one in await events(relay, "SendLimitExceeded")] == [10, 11]


async def test_smtp_of_a_held_key_goes_on_and_is_held(tmp_path: Path, stack: AsyncExitStack) -> None:
    await budget_lasts()
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
