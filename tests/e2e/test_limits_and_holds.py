"""What is accepted and not sent, what is refused, and how a person gets it moving: limits, holds, suppressions."""

import asyncio
import base64
import smtplib
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Mx, Script

HOUR_S = 3600
QUICK = 'tarpit = "50ms"'  # goes into [limits]
CLIENTS, EACH, HOURLY = 50, 4, 100


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        server.set("rcpt.test", "MX", "10 mx.rcpt.test.")
        server.set("mx.rcpt.test", "A", "127.0.0.1")
        yield server


async def email(relay: Relay, token: str) -> dict[str, Any]:
    answer: dict[str, Any] = (await relay.get(f"/v1/emails/{token}?expand=deliveries"))["data"]
    return answer


async def becomes(relay: Relay, token: str, status: str) -> dict[str, Any]:
    """Return the email when it has this status."""
    answer = await relay.until(f"/v1/emails/{token}", lambda one: one["data"]["status"] == status)
    found: dict[str, Any] = answer["data"]
    return found


async def why(relay: Relay, question: str) -> str:
    sentence: str = (await relay.get(f"/v1/why?q={question}"))["data"]["sentences"][0]["sentence"]
    return sentence


async def events(relay: Relay) -> list[str]:
    return [one["event"] for one in (await relay.get("/v1/events?limit=1000"))["data"]["events"]]


async def test_mail_over_the_hourly_limit_is_accepted_held_explained_and_released(
    tmp_path: Path, dns: DnsServer
) -> None:
    async with (
        Mx() as mx,
        Relay(tmp_path, dns=dns.address, mx_port=mx.port, tenant="[limits]\nhourly = 3\n") as relay,
    ):
        left_s = HOUR_S - time.time() % HOUR_S
        await asyncio.sleep(left_s if left_s < 20 else 0)  # the limit starts anew at the top of the hour
        within = [await relay.send(f"n{number}@rcpt.test") for number in range(3)]
        over = [await relay.send(f"n{number}@rcpt.test") for number in (3, 4)]
        for token in within:
            await becomes(relay, token, "sent")
        for token in over:
            assert (await email(relay, token))["status"] == "held"
            sentence = await why(relay, token)
            assert sentence.startswith("Held, and sent to n")
            assert "send limit of 3 recipients an hour" in sentence
        queue = await relay.get("/v1/queue?status=held")
        assert {row["holdReason"] for row in queue["data"]} == {"send_limit"}
        assert (await relay.call("POST", "/v1/queue/release", {"ids": over[:1]}))["data"]["count"] == 1
        await becomes(relay, over[0], "sent")
        await relay.call("POST", f"/v1/emails/{over[1]}/retry")
        await becomes(relay, over[1], "sent")
        assert Counter(one.recipients[0] for one in mx.messages) == {f"n{n}@rcpt.test": 1 for n in range(5)}


async def test_the_monthly_cap_refuses_and_keeps_nothing(tmp_path: Path, dns: DnsServer) -> None:
    tenant = "[limits]\nhard_cap_monthly = 2\n"
    async with Mx() as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port, tenant=tenant) as relay:
        await relay.send("ann@rcpt.test", "bob@rcpt.test")
        with pytest.raises(AssertionError, match=r"452|Send limit exceeded"):
            await relay.send("cat@rcpt.test")
        assert await _replies(relay, "cat@rcpt.test") == 452
        assert (await relay.get("/v1/emails"))["total"] == 2
        await mx.wait(2)


async def test_fifty_parallel_senders_never_exceed_the_limit(tmp_path: Path, dns: DnsServer) -> None:
    tenant = f"[limits]\nhourly = {HOURLY}\n"
    more = "connections_per_address = 0\nconnections_per_minute = 0"
    async with Mx() as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port, tenant=tenant, more=more) as relay:
        began = time.time() // HOUR_S
        replies = await asyncio.gather(*(asyncio.to_thread(_client, relay, number) for number in range(CLIENTS)))
        assert Counter(code for some in replies for code in some) == {250: CLIENTS * EACH}
        answer = await relay.until("/v1/status", lambda one: one["data"]["queue"]["pending"] == 0, timeout_s=30)
        hours = 1 + time.time() // HOUR_S - began  # the limit may have started anew in between
        sent = answer["data"]["queue"]["sent"]
        assert answer["data"]["queue"]["held"] == CLIENTS * EACH - sent
        assert HOURLY <= sent <= HOURLY * hours
        assert len(mx.messages) == sent


def _client(relay: Relay, number: int) -> list[int]:
    codes = []
    with smtplib.SMTP("127.0.0.1", relay.port(), timeout=30) as client:
        client.ehlo("client.test")
        for one in range(EACH):
            client.mail("app@sender.test")
            client.rcpt(f"c{number}-{one}@rcpt.test")
            codes.append(client.data(b"From: app@sender.test\r\nSubject: x\r\n\r\nx\r\n")[0])
    return codes


async def test_a_suspended_tenant_is_refused_from_the_reload_on(tmp_path: Path, dns: DnsServer) -> None:
    async with Mx() as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port, more=QUICK) as relay:
        await becomes(relay, await relay.send("ann@rcpt.test"), "sent")
        _edit(relay, 'name = "Acme Inc"', 'name = "Acme Inc"\nstatus = "suspended"')
        await relay.call("POST", "/v1/control/reload")
        assert await _replies(relay, "bob@rcpt.test") == 550
        assert await asyncio.to_thread(_login, relay, "acme/production", "secret-of-production") == 535
        _edit(relay, 'status = "suspended"', 'status = "active"')
        await relay.call("POST", "/v1/control/reload")
        await becomes(relay, await relay.send("bob@rcpt.test"), "sent")


async def test_a_credential_on_hold_is_refused_at_every_door(tmp_path: Path, dns: DnsServer) -> None:
    key = '[[credentials]]\nname = "key"\ntype = "api"\nsecret = "secret-of-the-key"\nhold = true\n'
    async with Mx() as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port, tenant=key, more=QUICK) as relay:
        _edit(relay, 'type = "smtp"', 'type = "smtp"\nhold = true')
        await relay.call("POST", "/v1/control/reload")
        assert await asyncio.to_thread(_login, relay, "acme/production", "secret-of-production") == 535
        raw = base64.b64encode(b"From: app@sender.test\r\nSubject: x\r\n\r\nx\r\n").decode()
        body = {"from": "app@sender.test", "to": ["ann@rcpt.test"], "rawMessage": raw}
        url = f"http://127.0.0.1:{relay.port('http')}/v1/emails/raw"
        headers = {"Authorization": "Bearer secret-of-the-key"}
        async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as response:
            assert response.status == 403, await response.text()
            assert (await response.json())["error"]["code"] == "credential_on_hold"
        assert (await relay.get("/v1/emails"))["total"] == 0
        await becomes(relay, await relay.send("bob@rcpt.test"), "sent")  # the tenant's other ways in are open
        assert len(mx.messages) == 1


async def test_a_suppressed_address_is_held_until_it_is_taken_off_or_passed_over(
    tmp_path: Path, dns: DnsServer
) -> None:
    async with Mx() as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay:
        body = {"address": "Ann@rcpt.test", "reason": "asked us to stop"}
        await relay.call("POST", "/v1/tenants/acme/suppressions", body, status=201)
        token = await relay.send("ann@RCPT.test")
        held = await becomes(relay, token, "held")
        assert held["reason"] == "Recipient (ann@rcpt.test) is on the suppression list (reason: asked us to stop)"
        assert "is on the suppression list (reason: asked us to stop)" in await why(relay, "ann@rcpt.test")
        assert "MessageHeld" in await events(relay)
        assert mx.conversations == []
        await relay.call("POST", f"/v1/emails/{token}/retry")  # Ark contract §8.1: passes over the list
        await becomes(relay, token, "sent")
        again = await relay.send("ann@rcpt.test")
        await becomes(relay, again, "held")
        await relay.call("DELETE", "/v1/tenants/acme/suppressions/ann@rcpt.test")
        await becomes(relay, await relay.send("ann@rcpt.test"), "sent")


async def test_passing_over_the_list_lasts_until_the_message_has_ended(tmp_path: Path, dns: DnsServer) -> None:
    async with Mx(Script(rcpt="451 4.3.0 later")) as mx:
        settings: dict[str, Any] = {"dns": dns.address, "mx_port": mx.port, "first_delay": "1s"}
        async with Relay(tmp_path, **settings) as relay:
            await relay.call("POST", "/v1/tenants/acme/suppressions", {"address": "ann@rcpt.test"}, status=201)
            token = await relay.send("ann@rcpt.test")
            await relay.call("POST", f"/v1/emails/{token}/retry")
            await becomes(relay, token, "softfail")
            mx.script.rcpt = None
            await becomes(relay, token, "sent")


async def test_an_address_that_does_not_exist_is_suppressed_and_not_tried_again(
    tmp_path: Path, dns: DnsServer
) -> None:
    async with (
        Mx(Script(rcpt="550 5.1.1 User unknown")) as mx,
        Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay,
    ):
        await becomes(relay, await relay.send("ann@rcpt.test"), "hardfail")
        found = (await relay.get("/v1/tenants/acme/suppressions"))["data"]
        assert [(row["address"], row["automatic"]) for row in found] == [("ann@rcpt.test", True)]
        assert "SuppressionAdded" in await events(relay)
        refused = len([command for one in mx.conversations for command in one.commands if command[:4] == "RCPT"])
        await becomes(relay, await relay.send("ann@rcpt.test"), "held")
        later = [command for one in mx.conversations for command in one.commands if command[:4] == "RCPT"]
        assert len(later) == refused == 1


async def test_mail_that_waits_is_held_when_its_address_is_suppressed_meanwhile(
    tmp_path: Path, dns: DnsServer
) -> None:
    async with (
        Mx(Script(rcpt="451 4.3.0 later")) as mx,
        Relay(tmp_path, dns=dns.address, mx_port=mx.port, first_delay="1s") as relay,
    ):
        token = await relay.send("ann@rcpt.test")
        await becomes(relay, token, "softfail")
        await relay.call("POST", "/v1/tenants/acme/suppressions", {"address": "ann@rcpt.test"}, status=201)
        await becomes(relay, token, "held")
        assert "suppression list" in await why(relay, token)


async def test_held_mail_fails_when_nobody_releases_it_in_time(tmp_path: Path, dns: DnsServer) -> None:
    more = '[retention]\nheld = "1s"\n'
    async with Mx() as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port, more=more) as relay:
        await relay.call("POST", "/v1/tenants/acme/suppressions", {"address": "ann@rcpt.test"}, status=201)
        token = await relay.send("ann@rcpt.test")
        accepted_at = (await becomes(relay, token, "held"))["timestamp"]
        async with asyncio.timeout(20):
            while (await email(relay, token))["status"] == "held":
                await relay.call("POST", "/v1/control/db/prune", {})
                await asyncio.sleep(0.1)
        failed = await email(relay, token)
        assert failed["status"] == "hardfail"
        assert failed["reason"].startswith("Held for ")
        assert failed["reason"].endswith(" and not released")
        assert time.time() - accepted_at >= 1
        assert (await events(relay))[-1] == "MessageDeliveryFailed"
        assert mx.conversations == []


@pytest.mark.parametrize(
    ("expires", "words"),
    [
        pytest.param(
            "2020-01-01T00:00:00Z",
            "The message's own lifetime ended before it was delivered.",
            id="before-the-first-try",
        ),
        pytest.param(
            "60",
            "No further attempt was possible before the end of the message's own lifetime.",
            id="before-the-next-try",
        ),
    ],
)
async def test_a_message_with_a_lifetime_of_its_own_is_given_up_at_its_end(
    tmp_path: Path, dns: DnsServer, expires: str, words: str
) -> None:
    async with (
        Mx(Script(rcpt="451 4.3.0 later")) as mx,
        Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay,
    ):
        token = await relay.send("ann@rcpt.test", headers=f"X-Ark-Expires: {expires}\r\n")
        failed = await becomes(relay, token, "hardfail")
        assert words in failed["reason"]
        assert mx.messages == []


async def test_refused_mail_may_be_accepted_and_logged_instead(tmp_path: Path, dns: DnsServer) -> None:
    more = '[smtp]\nerrors = "accept-and-log"\n'
    async with Mx() as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port, more=more) as relay:
        code, text = await asyncio.to_thread(_deliver, relay, b"From: boss@bank.test\r\nSubject: x\r\n\r\nx\r\n")
        assert code == 250, text
        failed = await becomes(relay, text.rsplit(" ", 1)[1], "hardfail")
        assert failed["reason"].startswith("Refused: 550 5.7.1 The domain bank.test is not a sender domain")
        assert (await events(relay)) == ["MessageDeliveryFailed"]
        answer = await relay.call("POST", f"/v1/emails/{failed['id']}/retry", status=409)
        assert "was refused when it was submitted" in answer["error"]["message"]
        assert (await relay.call("POST", "/v1/queue/retry", {"ids": [failed["id"]]}))["data"]["count"] == 0
        await becomes(relay, await relay.send("ann@rcpt.test"), "sent")
        assert len(mx.messages) == 1


def _edit(relay: Relay, old: str, new: str) -> None:
    file = relay.folder / "tenants" / "acme.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


async def _replies(relay: Relay, to: str) -> int:
    """Return the code that ends a submission to this address."""

    def send() -> int:
        with smtplib.SMTP("127.0.0.1", relay.port(), timeout=20) as client:
            client.ehlo("client.test")
            code, _ = client.mail("app@sender.test")
            if code == 250:
                code, _ = client.rcpt(to)
            if code == 250:
                code, _ = client.data(b"From: app@sender.test\r\nSubject: x\r\n\r\nx\r\n")
            return code

    return await asyncio.to_thread(send)


def _login(relay: Relay, username: str, password: str) -> int:
    with smtplib.SMTP("127.0.0.1", relay.port(), timeout=20) as client:
        client.ehlo("client.test")
        try:
            return client.login(username, password)[0]
        except smtplib.SMTPAuthenticationError as error:
            return error.smtp_code


def _deliver(relay: Relay, message: bytes) -> tuple[int, str]:
    with smtplib.SMTP("127.0.0.1", relay.port(), timeout=20) as client:
        client.ehlo("client.test")
        client.mail("app@sender.test")
        client.rcpt("ann@rcpt.test")
        code, text = client.data(message)
        return code, text.decode()
