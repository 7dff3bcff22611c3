"""What a running relay makes of mail that comes back to it, as users see it."""

import asyncio
import contextlib
import smtplib
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Mx

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOUNCES = """
[[listen]]
service = "bounces"
address = "127.0.0.1:0"

[retention]
content = "90d"
messages = "90d"
"""
QMAIL = """From: MAILER-DAEMON@mx.rcpt.test
Subject: failure notice
{date}
Hi. This is the qmail-send program at mx.rcpt.test.
I'm afraid I wasn't able to deliver your message to the following addresses.

<{to}>:
Sorry, no mailbox here by that name. (#5.1.1)
"""


DSN = """From: MAILER-DAEMON@mx.rcpt.test
Subject: Undelivered Mail Returned to Sender
Message-ID: <{id}@mx.rcpt.test>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b
Content-Type: text/plain

It could not be delivered.
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.rcpt.test

Final-Recipient: rfc822; {to}
Action: {action}
Status: {status}
Diagnostic-Code: smtp; {diagnostic}

--b--
"""


def dsn(
    to: str, action: str = "failed", status: str = "5.1.1", diagnostic: str = "550 5.1.1 gone", number: int = 1
) -> str:
    return DSN.format(to=to, action=action, status=status, diagnostic=diagnostic, id=number)


@dataclass
class World:
    relay: Relay
    mx: Mx
    dns: DnsServer

    async def sent(self, to: str) -> tuple[str, str]:
        """Send a message; return its id, and its return path when it has arrived."""
        count = len(self.mx.messages)
        token = await self.relay.send(to)
        return token, await self.arrived(token, count + 1)

    async def arrived(self, token: str, count: int) -> str:
        """Return the return path of the message that arrives as number ``count``, when the relay knows of it."""
        message = (await self.mx.wait(count))[count - 1]
        await self.relay.until(f"/v1/emails/{token}", lambda answer: answer["data"]["status"] == "sent")
        assert message.return_path is not None
        return message.return_path

    async def comes(self, to: str, content: str, sender: str = "") -> None:
        """Hand a message to the relay's port 25, which takes it."""

        def send() -> None:
            with smtplib.SMTP("127.0.0.1", self.relay.port("bounces"), timeout=30) as client:
                assert client.docmd("EHLO", "mx.rcpt.test")[0] == 250
                assert client.docmd("MAIL", f"FROM:<{sender}>")[0] == 250
                assert client.docmd("RCPT", f"TO:<{to}>")[0] == 250
                assert client.data(content.replace("\n", "\r\n").encode())[0] == 250

        await asyncio.to_thread(send)

    async def status(self, token: str) -> str:
        return str((await self.relay.get(f"/v1/emails/{token}"))["data"]["status"])

    async def reports(self, token: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.relay.get(f"/v1/emails/{token}/reports"))["data"]["reports"]
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("relay")
    async with DnsServer() as dns, Mx() as mx:
        dns.set("rcpt.test", "MX", "10 mx.rcpt.test.")
        dns.set("mx.rcpt.test", "A", "127.0.0.1")
        async with Relay(folder, dns=dns.address, mx_port=mx.port, more=BOUNCES) as relay:
            yield World(relay, mx, dns)


@pytest.mark.parametrize("dated", [True, False], ids=["dated", "undated"])
async def test_the_same_words_after_a_retry_are_no_copy(world: World, dated: bool) -> None:
    to = f"dated-{dated}@rcpt.test".lower()
    token, return_path = await world.sent(to)
    for number in (1, 2):
        date = f"Date: Mon, {number:02d} Feb 2027 10:00:00 +0000\n" if dated else ""
        for _ in range(2):  # the second is a copy
            await world.comes(return_path, QMAIL.format(to=to, date=date))
            assert await world.status(token) == "bounced"
            assert len(await world.reports(token)) == number
        if number == 1:
            count = len(world.mx.messages)
            await world.relay.call("POST", f"/v1/emails/{token}/retry")
            assert await world.arrived(token, count + 1) == return_path


async def test_a_message_of_any_age_comes_back(world: World) -> None:
    token, return_path = await world.sent("old@rcpt.test")
    await world.comes(return_path, QMAIL.format(to="old@rcpt.test", date=""))
    with contextlib.closing(sqlite3.connect(world.relay.state / "arkrelay.db", isolation_level=None)) as db:
        db.execute("UPDATE messages SET accepted_at = accepted_at - ?", (40 * 86400,))
    count = len(world.mx.messages)
    await world.relay.call("POST", f"/v1/emails/{token}/retry")
    again = await world.arrived(token, count + 1)
    await world.comes(again, QMAIL.format(to="old@rcpt.test", date=""))
    assert await world.status(token) == "bounced"


async def test_what_was_sent_for_a_domain_comes_back_after_it_has_gone(tmp_path: Path) -> None:
    async with DnsServer() as dns, Mx() as mx:
        dns.set("rcpt.test", "MX", "10 mx.rcpt.test.")
        dns.set("mx.rcpt.test", "A", "127.0.0.1")
        dns.set("psrp.sender.test", "CNAME", "rp.relay.test.")
        async with Relay(tmp_path, dns=dns.address, mx_port=mx.port, more=BOUNCES) as relay:
            world = World(relay, mx, dns)
            (domain,) = (await relay.get("/v1/tenants/acme/domains"))["data"]["domains"]
            path = f"/v1/tenants/acme/domains/{domain['id']}"
            await relay.call("POST", f"{path}/verify")
            token, return_path = await world.sent("bob@rcpt.test")
            assert return_path.endswith("@psrp.sender.test")
            await relay.call("DELETE", path)
            await world.comes(return_path, QMAIL.format(to="bob@rcpt.test", date=""))
            assert await world.status(token) == "bounced"


async def test_what_a_bounce_says_cannot_speak_to_a_terminal(world: World) -> None:
    token, return_path = await world.sent("red@rcpt.test")
    await world.comes(return_path, dsn("red@rcpt.test", diagnostic="550 5.1.1 \x1b[31mred\x07 gone"))
    data = (await world.relay.get(f"/v1/emails/{token}?expand=deliveries"))["data"]
    rows = (await world.relay.get("/v1/events?limit=1000&type=MessageBounced"))["data"]["events"]
    (event,) = [row["data"] for row in rows if row["emailId"] == token]
    for text in (data["reason"], data["deliveries"][-1]["output"], event["output"]):
        assert "\N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER} gone" in text
        assert text.isprintable()


async def test_postmasters_mail_is_told_of_and_none_goes_unsaid(tmp_path: Path) -> None:
    async with DnsServer() as dns, Mx() as mx:
        folder = tmp_path / "state" / "postmaster"
        folder.mkdir(parents=True, mode=0o700)
        (folder / "20270101T000000-1-aa.part").write_bytes(b"half of a message")
        async with Relay(tmp_path, dns=dns.address, mx_port=mx.port, more=BOUNCES) as relay:
            world = World(relay, mx, dns)
            assert list(folder.iterdir()) == []
            assert (await relay.get("/v1/status"))["data"]["postmaster"] == {"waiting": 0, "folder": str(folder)}
            await world.comes("postmaster@relay.test", "Subject: first\n\nhelp\n", "ann@rcpt.test")
            (first,) = folder.iterdir()
            long = "Subject: spam\n\n" + "x" * 70 + "\n" + ("y" * 70 + "\n") * 15_000
            await world.comes("abuse@relay.test", long, "ann@rcpt.test")
            (cut,) = await relay.logged("postmaster_mail_cut")
            assert (cut["size_bytes"], cut["kept_bytes"]) == (len(long.replace("\n", "\r\n")), 1_000_000)
            for number in range(199):
                (folder / f"29990101T000000-{number}.eml").write_bytes(b"Subject: more\r\n\r\n")
            await world.comes("postmaster@relay.test", "Subject: last\n\nhelp\n", "ann@rcpt.test")
            (dropped,) = await relay.logged("postmaster_mail_dropped")
            assert first.name in dropped["files"]
            assert (await relay.get("/v1/status"))["data"]["postmaster"]["waiting"] == 200
