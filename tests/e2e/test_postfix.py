"""Postfix as the recipients' MX: what it offers is used, what it stores is what was sent, what it refuses is told."""

import asyncio
import os
import smtplib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from peers.certificates import self_signed
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import closed_port
from peers.office import HOST, parse, record, verdicts
from peers.postfix import DOMAINS, RETURN_PATHS, SMALL_BYTES, Postfix

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAMES = ("ann", "bob", "cid", "many1", "many2", "many3")
MAILBOXES = (*(f"{name}@{domain}" for domain in DOMAINS for name in NAMES), "jörg@full.test")
ACCESS = "later@full.test 450 4.2.0 Greylisted, come back in 5 minutes\nfull@full.test 552 5.2.2 Mailbox is full\n"

BODY = (
    b"Hello\r\n.\r\n..\r\n.dot\r\n\r\ntrailing  \r\n\t\r\n"
    + bytes(range(128, 256))
    + b"\r\n"
    + b"x" * 3000
    + b"\r\n\r\n\r\nend\r\n\r\n"
)
EIGHT_BIT = (
    b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n"
)


@dataclass(frozen=True)
class Pair:
    """The two ends."""

    relay: Relay
    postfix: Postfix

    async def send(
        self,
        to: str,
        body: bytes = b"Hello\r\n",
        *,
        header: bytes = b"",
        mail: tuple[str, ...] = (),
        rcpt: tuple[str, ...] = (),
    ) -> str:
        """Send one message by SMTP without AUTH; return its public id."""
        message = b"From: app@sender.test\r\nTo: %s\r\nSubject: hi\r\n%s\r\n%s" % (to.encode(), header, body)
        return await asyncio.to_thread(self._send, to, message, mail, rcpt)

    def _send(self, to: str, message: bytes, mail: tuple[str, ...], rcpt: tuple[str, ...]) -> str:
        with smtplib.SMTP(HOST, self.relay.port(), timeout=30) as client:
            client.ehlo("client.test")
            if not to.isascii():
                client.command_encoding = "utf-8"
            assert client.mail("app@sender.test", mail)[0] == 250
            assert client.rcpt(to, rcpt)[0] == 250
            code, text = client.data(message)
            assert code == 250, text
            return text.decode().rsplit(" ", 1)[1]

    async def settled(self, token: str, status: str) -> dict[str, Any]:
        """Return the message with its deliveries once it has this status."""
        answer = await self.relay.until(
            f"/v1/emails/{token}?expand=deliveries", lambda answer: answer["data"]["status"] == status, 30.0
        )
        data: dict[str, Any] = answer["data"]
        return data

    async def why(self, token: str) -> str:
        sentence: str = (await self.relay.get(f"/v1/why?q={token}"))["data"]["sentences"][0]["sentence"]
        return sentence

    async def events(self, address: str) -> list[str]:
        """Return the names of the events that concern this address, oldest first."""
        rows = (await self.relay.get("/v1/events?limit=1000"))["data"]["events"]
        return [row["event"] for row in rows if address in (row["to"], row["data"].get("address"))]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(need: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    need("postfix")
    if os.geteuid() != 0:
        pytest.skip("Postfix needs root")
    async with (
        DnsServer() as dns,
        Postfix(closed_port(), self_signed("mx.full.test"), MAILBOXES, ACCESS) as postfix,
    ):
        for domain, (address, _) in DOMAINS.items():
            dns.set(domain, "MX", f"10 mx.{domain}.")
            dns.set(f"mx.{domain}", "A", address)
        async with Relay(tmp_path_factory.mktemp("relay"), dns=dns.address, mx_port=postfix.port) as relay:
            yield Pair(relay, postfix)
        assert postfix.complaints == []


async def test_a_message_arrives_octet_by_octet_over_tls(pair: Pair) -> None:
    token = await pair.send("ann@full.test", BODY, header=EIGHT_BIT)
    stored = await pair.postfix.wait("ann@full.test")
    assert stored.partition(b"\r\n\r\n")[2] == BODY
    assert verdicts(stored, {"s1": record()}) == [True]
    message = parse(stored)
    first = " ".join(message["Received"].split())
    assert first.startswith("from relay.test")
    assert "using TLSv1.3" in first
    assert "with ESMTPS " in first
    assert "for <ann@full.test>" in first
    assert message["Return-Path"].endswith(f"@{RETURN_PATHS}>")
    assert message["Return-Path"] != "<app@sender.test>"
    (delivery,) = (await pair.settled(token, "sent"))["deliveries"]
    assert delivery["code"] == 250
    assert "queued as" in delivery["output"]
    assert delivery["sentWithSsl"] is True
    assert delivery["tls"]["version"] == "TLSv1.3"


async def test_a_recipient_in_utf8(pair: Pair) -> None:
    token = await pair.send("jörg@full.test", mail=("SMTPUTF8", "BODY=8BITMIME"))
    stored = await pair.postfix.wait("jörg@full.test")
    assert b"with UTF8SMTPS " in stored
    assert "for <jörg@full.test>".encode() in stored
    assert verdicts(stored, {"s1": record()}) == [True]
    await pair.settled(token, "sent")


async def test_the_sender_s_wish_for_a_report_is_passed_on(pair: Pair) -> None:
    token = await pair.send(
        "bob@full.test",
        mail=("RET=HDRS", "ENVID=order-17"),
        rcpt=("NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;bobby@elsewhere.test"),
    )
    await pair.settled(token, "sent")
    report = await pair.postfix.wait(f"@{RETURN_PATHS}", b"bobby@elsewhere.test")
    assert parse(report).get_content_type() == "multipart/report"
    assert b"Original-Envelope-Id: order-17" in report
    assert b"Original-Recipient: rfc822;bobby@elsewhere.test" in report
    assert b"Action: delivered" in report
    assert b"text/rfc822-headers" in report  # RET=HDRS


async def test_many_recipients_of_one_message_each_get_their_own(pair: Pair) -> None:
    recipients = [f"many{number}@full.test" for number in (1, 2, 3)]
    await pair.relay.send(*recipients, subject="to many")
    stored = [await pair.postfix.wait(recipient, b"to many") for recipient in recipients]
    assert len({parse(content)["Return-Path"] for content in stored}) == len(recipients)
    assert [pair.postfix.count(recipient) for recipient in recipients] == [1, 1, 1]


async def test_an_unknown_user_fails_for_good_and_is_suppressed(pair: Pair) -> None:
    token = await pair.send("nobody@full.test")
    shown = await pair.settled(token, "hardfail")
    (delivery,) = shown["deliveries"]
    assert (delivery["code"], delivery["smtpEnhancedCode"]) == (550, "5.1.1")
    assert delivery["classification"] == "invalid_recipient"
    assert "User unknown" in delivery["output"]
    assert "User unknown" in await pair.why(token)
    suppressed = (await pair.relay.get("/v1/tenants/acme/suppressions/nobody@full.test"))["data"]
    assert suppressed["suppressed"] is True
    assert await pair.events("nobody@full.test") == ["MessageAccepted", "MessageDeliveryFailed", "SuppressionAdded"]
    again = await pair.send("nobody@full.test")
    assert "suppress" in (await pair.settled(again, "held"))["reason"].lower()


async def test_a_deferral_waits_and_says_until_when(pair: Pair) -> None:
    before = time.time()
    token = await pair.send("later@full.test")
    shown = await pair.settled(token, "softfail")
    (delivery,) = shown["deliveries"]
    assert (delivery["code"], delivery["smtpEnhancedCode"]) == (450, "4.2.0")
    assert "Greylisted, come back in 5 minutes" in shown["reason"]
    assert shown["dueAt"] > before + 60
    why = await pair.why(token)
    assert "Greylisted" in why
    assert "next" in why.lower() or "again" in why.lower(), why


async def test_a_full_mailbox_is_called_so(pair: Pair) -> None:
    token = await pair.send("full@full.test")
    (delivery,) = (await pair.settled(token, "hardfail"))["deliveries"]
    assert delivery["classification"] == "mailbox_full"


@pytest.mark.parametrize("domain", ["small.test", "bare.test"])
async def test_a_message_that_is_too_large_for_it_fails_at_once(pair: Pair, domain: str) -> None:
    """``small.test`` announces SIZE, ``bare.test`` only refuses."""
    token = await pair.send(f"ann@{domain}", b"0123456789abcdef\r\n" * (SMALL_BYTES // 16))
    shown = await pair.settled(token, "hardfail")
    (delivery,) = shown["deliveries"]
    assert delivery["classification"] == "message_too_large"
    why = await pair.why(token)
    assert "size" in why.lower() or "large" in why.lower(), why
    assert pair.postfix.count(f"ann@{domain}") == 0
    await pair.send(f"bob@{domain}")
    await pair.postfix.wait(f"bob@{domain}")


async def test_a_server_that_offers_nothing_gets_plain_smtp(pair: Pair) -> None:
    body = "naïve\r\n.\r\nend\r\n".encode("iso-8859-1")
    token = await pair.send("cid@bare.test", body, header=EIGHT_BIT)
    stored = await pair.postfix.wait("cid@bare.test")
    assert stored.isascii()
    assert parse(stored).get_content().replace("\r\n", "\n") == "naïve\n.\nend\n"
    assert verdicts(stored, {"s1": record()}) == [True]
    (delivery,) = (await pair.settled(token, "sent"))["deliveries"]
    assert delivery["sentWithSsl"] is False


async def test_a_server_without_smtputf8_cannot_have_such_a_recipient(pair: Pair) -> None:
    token = await pair.send("jörg@bare.test", mail=("SMTPUTF8",))
    shown = await pair.settled(token, "hardfail")
    assert "SMTPUTF8" in shown["reason"]
