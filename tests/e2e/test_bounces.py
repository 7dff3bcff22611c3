"""A real Postfix takes a message and sends it back later: the official client sees ``bounced``, and why."""

import asyncio
import os
import smtplib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from ark import AsyncArk
from peers.certificates import self_signed, valid
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import closed_port
from peers.office import HOST
from peers.postfix import DOMAINS, RETURN_PATHS, Postfix

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOST = {"gone@full.test": "5.1.1 The mailbox is gone", "full@full.test": "5.2.2 The mailbox is full"}
KEY = "ark_live_0123456789abcdef0123456789abcdef"
MORE = """
[tls]
certificate = "{certificate}"
private_key = "{private_key}"

[[listen]]
service = "bounces"
address = "127.0.0.1:{port}"

[[listen]]
service = "http"
address = "127.0.0.1:0"
"""


@dataclass(frozen=True)
class World:
    relay: Relay
    postfix: Postfix
    port: int
    client: AsyncArk

    async def bounced(self, to: str) -> tuple[str, dict[str, Any]]:
        """Send to this address and return its id and detail when it has come back."""
        token = await self.relay.send(to)
        answer = await self.relay.until(
            f"/v1/emails/{token}?expand=deliveries", lambda answer: answer["data"]["status"] == "bounced", 30.0
        )
        return token, answer["data"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(need: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    need("postfix")
    if os.geteuid() != 0:
        pytest.skip("Postfix needs root")
    port, mx_port = closed_port(), closed_port()
    pair = valid("relay.test")
    folder = tmp_path_factory.mktemp("relay")
    async with (
        DnsServer() as dns,
        Postfix(mx_port, self_signed("mx.full.test"), ("ann@full.test",), returns_to=port, lost=LOST) as postfix,
    ):
        dns.set("full.test", "MX", "10 mx.full.test.")
        dns.set("mx.full.test", "A", DOMAINS["full.test"][0])
        (folder / "platform.toml").write_text(f'[[keys]]\nname = "ops"\nsecret = "{KEY}"\n')
        (folder / "platform.toml").chmod(0o600)
        private_key = folder / "tls.pem"
        private_key.write_bytes(pair.private_key.read_bytes())
        private_key.chmod(0o600)
        more = MORE.format(certificate=pair.certificate, private_key=private_key, port=port)
        async with Relay(folder, dns=dns.address, mx_port=mx_port, more=more) as relay:
            client = AsyncArk(api_key=KEY, base_url=f"http://127.0.0.1:{relay.port('http')}/v1", max_retries=0)
            yield World(relay, postfix, port, client)
            await client.close()


async def test_the_official_client_sees_a_bounce_and_its_class(world: World) -> None:
    token, _ = await world.bounced("gone@full.test")
    shown = (await world.client.emails.retrieve(token)).data
    assert shown.status == "bounced"
    deliveries = (await world.client.emails.retrieve_deliveries(token)).data.deliveries
    assert [one.status for one in deliveries] == ["sent", "bounced"]
    assert deliveries[1].classification == "invalid_recipient"
    assert deliveries[1].smtp_enhanced_code == "5.1.1"
    assert "The mailbox is gone" in str(deliveries[1].output)
    # Ark contract §9.3: the customer decides about those that come back later
    assert (
        await world.client.tenants.suppressions.retrieve("gone@full.test", tenant_id="acme")
    ).data.suppressed is False
    sentence = (await world.relay.get(f"/v1/why?q={token}"))["data"]["sentences"][0]["sentence"]
    assert sentence.startswith("Accepted by the recipient's server, which later sent it back: ")
    assert "The mailbox is gone" in sentence


async def test_the_event_has_what_the_webhook_shows(world: World) -> None:
    token, _ = await world.bounced("full@full.test")
    rows = (await world.relay.get("/v1/events?limit=1000&type=MessageBounced"))["data"]["events"]
    (data,) = [row["data"] for row in rows if row["emailId"] == token]
    assert data["class"] == "mailbox_full"
    assert data["to"].endswith(f"@{RETURN_PATHS}")
    assert data["subject"] == "Undelivered Mail Returned to Sender"
    assert data["from"] == "Mail Delivery System <MAILER-DAEMON@mx.full.test>"
    (report,) = (await world.relay.get(f"/v1/emails/{token}/reports"))["data"]["reports"]
    assert (report["kind"], report["form"]) == ("bounce", "delivery status")
    assert "message/delivery-status" in report["content"]
    assert data["id"] == report["id"]


async def test_a_receipt_that_was_asked_for_is_noted_and_changes_nothing(world: World) -> None:
    def send() -> str:
        with smtplib.SMTP(HOST, world.relay.port(), timeout=30) as client:
            client.ehlo("client.test")
            client.mail("app@sender.test")
            client.rcpt("ann@full.test", ("NOTIFY=SUCCESS,FAILURE",))
            code, text = client.data(b"From: app@sender.test\r\nTo: ann@full.test\r\n\r\nHello\r\n")
            assert code == 250
            return text.decode().rsplit(" ", 1)[1]

    token = await asyncio.to_thread(send)
    answer = await world.relay.until(f"/v1/emails/{token}/reports", lambda answer: answer["data"]["reports"], 30.0)
    assert [one["kind"] for one in answer["data"]["reports"]] == ["receipt"]
    assert (await world.relay.get(f"/v1/emails/{token}"))["data"]["status"] == "sent"


async def test_it_comes_in_over_tls_and_nothing_else_does(world: World) -> None:
    await world.bounced("gone@full.test")
    taken = [line for line in world.postfix.log.splitlines() if f"@{RETURN_PATHS}>" in line and "status=sent" in line]
    assert taken
    assert "TLS connection established to 127.0.0.1" in world.postfix.log

    def refused() -> int:
        with smtplib.SMTP(HOST, world.port, timeout=30) as client:
            client.ehlo("stranger.test")
            client.starttls()
            client.ehlo("stranger.test")
            client.mail("")
            return client.rcpt("ann@full.test")[0]

    assert await asyncio.to_thread(refused) == 550


async def test_a_complaint_suppresses_for_the_official_client(world: World) -> None:
    token = await world.relay.send("ann@full.test")
    await world.relay.until(f"/v1/emails/{token}", lambda answer: answer["data"]["status"] == "sent", 30.0)
    stored = await world.postfix.wait("ann@full.test", token.encode())
    report = (
        b"From: fbl@provider.test\r\nSubject: complaint\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: text/plain\r\n\r\nSpam.\r\n"
        b"--b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nVersion: 1\r\n\r\n"
        b"--b\r\nContent-Type: message/rfc822\r\n\r\n" + stored + b"\r\n--b--\r\n"
    )

    def send() -> None:
        with smtplib.SMTP(HOST, world.port, timeout=30) as client:
            client.sendmail("fbl@provider.test", [f"fbl@{RETURN_PATHS}"], report)

    await asyncio.to_thread(send)
    found = (await world.client.tenants.suppressions.retrieve("ann@full.test", tenant_id="acme")).data
    assert (found.suppressed, found.reason) == (True, "complaint")
    again = await world.relay.send("ann@full.test")
    assert (await world.relay.get(f"/v1/emails/{again}"))["data"]["status"] == "held"
    undone = await world.relay.call(
        "POST", "/v1/tenants/acme/suppressions/undo", {"cause": "complaint", "dryRun": False}
    )
    assert undone["data"] == {"removed": 1, "addresses": ["ann@full.test"], "dryRun": False}
