"""Senders that ask for it hear what became of their mail, once, at their return path; nobody else does."""

import asyncio
import smtplib
from collections.abc import AsyncIterator, Sequence
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import HANG, PLAIN_EXTENSIONS, Delay, Mx, Received, Script, Turns

NO = "550 5.1.1 who is that?"
LATER = "451 4.2.0 come back"
SIGNING_HOST = """
[[domains]]
name = "relay.test"
trusted = true
[[domains.dkim]]
selector = "s2"
private_key = "dkim/sender.test.pem"
"""


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        for domain in ("rcpt.test", "sender.test"):
            server.set(domain, "MX", f"10 mx.{domain}.")
            server.set(f"mx.{domain}", "A", "127.0.0.1")
        yield server


async def submit(
    relay: Relay,
    recipient: str = "bob@rcpt.test",
    *,
    sender: str = "app@sender.test",
    mail: Sequence[str] = (),
    rcpt: Sequence[str] = (),
    body: bytes = b"Hello.\r\n",
) -> str:
    """Send one message with these parameters; return its public id."""

    def send() -> str:
        with smtplib.SMTP("127.0.0.1", relay.port(), timeout=20) as client:
            client.ehlo("client.test")
            if "SMTPUTF8" in mail:
                client.command_encoding = "utf-8"
            for answer in (client.docmd(" ".join([f"MAIL FROM:<{sender}>", *mail])),
                           client.docmd(" ".join([f"RCPT TO:<{recipient}>", *rcpt]))):  # fmt: skip
                assert answer[0] == 250, answer
            head = (
                f"From: app@sender.test\r\nTo: {recipient}\r\nSubject: Order 17\r\nMessage-ID: <17@sender.test>\r\n"
            )
            code, text = client.data(head.encode() + b"\r\n" + body)
            assert code == 250, text
            return text.decode().rsplit(" ", 1)[1]

    return await asyncio.to_thread(send)


def notices(mx: Mx) -> list[Received]:
    return [one for one in mx.messages if one.return_path == ""]


async def notice(mx: Mx, count: int = 1) -> tuple[Received, EmailMessage]:
    """Return the newest notice when there are ``count``, and no more."""
    async with asyncio.timeout(15):
        while len(notices(mx)) < count:
            await asyncio.sleep(0.02)
    found = notices(mx)
    assert len(found) == count
    message = message_from_bytes(found[-1].content, policy=default)
    assert isinstance(message, EmailMessage)
    return found[-1], message


def of_recipient(message: EmailMessage) -> dict[str, str]:
    parts: Any = message.get_payload()
    return {name: str(text) for group in parts[1].get_payload() for name, text in group.items()}


async def ended(relay: Relay, token: str, status: str) -> dict[str, Any]:
    answer = await relay.until(f"/v1/emails/{token}", lambda one: one["data"]["status"] == status)
    found: dict[str, Any] = answer["data"]
    return found


async def no_notice(relay: Relay) -> None:
    """Assert that none was ever written."""
    assert relay.lines("notice_written") == []
    assert (await relay.get("/v1/emails?tag=dsn&tenantId=acme"))["data"] == []


@pytest.mark.parametrize(
    ("ret", "body", "kind"),
    [
        pytest.param("FULL", b"Gr\xc3\xbc\xc3\x9fe\r\n", "message/rfc822", id="full"),
        pytest.param("HDRS", b"Hello.\r\n", "text/rfc822-headers", id="headers"),
        pytest.param("FULL", b"Hello.\r\n" * 9000, "text/rfc822-headers", id="full-but-large"),
    ],
)
async def test_a_failure_is_told_with_what_the_sender_gave_us(
    tmp_path: Path, dns: DnsServer, ret: str, body: bytes, kind: str
) -> None:
    async with (
        Mx(Script(rcpt={"bob@rcpt.test": NO})) as mx,
        Relay(tmp_path, dns=dns.address, mx_port=mx.port, tenant=SIGNING_HOST) as relay,
    ):
        parameters = [f"RET={ret}", "ENVID=order+2B17", "BODY=8BITMIME"]
        token = await submit(
            relay, mail=parameters, rcpt=["NOTIFY=FAILURE", "ORCPT=rfc822;Bobby+2B1@old.test"], body=body
        )
        received, message = await notice(mx)
        assert received.recipients == ["app@sender.test"]
        assert (message["To"], message["From"]) == ("app@sender.test", "MAILER-DAEMON <postmaster@relay.test>")
        assert message["References"] == "<17@sender.test>"
        assert "d=relay.test;" in message["DKIM-Signature"]
        found = of_recipient(message)
        assert found.pop("Arrival-Date")
        assert found.pop("Last-Attempt-Date")
        assert found == {
            "Original-Envelope-Id": "order+17",
            "Reporting-MTA": "dns; relay.test",
            "Original-Recipient": "rfc822; Bobby+1@old.test",
            "Final-Recipient": "rfc822; bob@rcpt.test",
            "Action": "failed",
            "Status": "5.1.1",
            "Remote-MTA": "dns; mx.rcpt.test",
            "Diagnostic-Code": f"smtp; {NO}",
            "Final-Log-ID": token,
        }
        parts: Any = message.get_payload()
        assert parts[2].get_content_type() == kind
        if kind == "message/rfc822":
            assert body in received.content
        (row,) = (await relay.get("/v1/emails?tag=dsn&tenantId=acme"))["data"]
        assert (row["from"], row["to"], row["tag"]) == ("postmaster@relay.test", "app@sender.test", "dsn")
        usage = (await ended(relay, row["id"], "sent"))["status"]
        assert usage == "sent"


@pytest.mark.parametrize(
    ("sender", "rcpt", "more"),
    [
        pytest.param("app@sender.test", [], "", id="nobody-asked"),
        pytest.param("app@sender.test", ["NOTIFY=NEVER"], '[dsn]\nfailures = "always"\n', id="never"),
        pytest.param("", ["NOTIFY=FAILURE"], '[dsn]\nfailures = "always"\n', id="null-sender"),
        pytest.param("app@sender.test", ["NOTIFY=FAILURE"], '[dsn]\nfailures = "never"\n', id="turned-off"),
    ],
)
async def test_nobody_else_is_told(tmp_path: Path, dns: DnsServer, sender: str, rcpt: list[str], more: str) -> None:
    async with (
        Mx(Script(rcpt={"bob@rcpt.test": NO})) as mx,
        Relay(tmp_path, dns=dns.address, mx_port=mx.port, more=more) as relay,
    ):
        await ended(relay, await submit(relay, sender=sender, rcpt=rcpt), "hardfail")
        await no_notice(relay)


async def test_a_suppressed_return_path_gets_no_notice(tmp_path: Path, dns: DnsServer) -> None:
    async with (
        Mx(Script(rcpt={"bob@rcpt.test": NO})) as mx,
        Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay,
    ):
        await relay.call("POST", "/v1/tenants/acme/suppressions", {"address": "APP@sender.test"}, status=201)
        await ended(relay, await submit(relay, rcpt=["NOTIFY=FAILURE"]), "hardfail")
        assert (await relay.get("/v1/emails?tag=dsn&tenantId=acme"))["data"] == []
        assert len(await relay.logged("notice_not_sent")) == 1


async def test_failures_are_told_unasked_where_the_settings_say_so_and_a_notice_that_fails_ends_there(
    tmp_path: Path, dns: DnsServer
) -> None:
    more = '[dsn]\nfailures = "always"\n'
    async with (
        Mx(Script(rcpt={"bob@rcpt.test": NO, "app@sender.test": NO})) as mx,
        Relay(tmp_path, dns=dns.address, mx_port=mx.port, more=more) as relay,
    ):
        await ended(relay, await submit(relay), "hardfail")
        answer = await relay.until("/v1/emails?tag=dsn&tenantId=acme", lambda one: one["data"])
        (row,) = answer["data"]
        await ended(relay, row["id"], "hardfail")
        assert len(await relay.logged("notice_written")) == 1
        assert len((await relay.get("/v1/emails?tenantId=acme"))["data"]) == 2
        assert mx.messages == []


@pytest.mark.parametrize("offered", [True, False])
async def test_success_is_told_by_whoever_is_the_last_to_know(
    tmp_path: Path, dns: DnsServer, *, offered: bool
) -> None:
    extensions = (*PLAIN_EXTENSIONS, "DSN") if offered else PLAIN_EXTENSIONS
    async with (
        Mx(Script(extensions=extensions)) as mx,
        Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay,
    ):
        await ended(relay, await submit(relay, mail=["RET=FULL"], rcpt=["NOTIFY=SUCCESS"]), "sent")
        if offered:
            await no_notice(relay)
            assert "NOTIFY=SUCCESS" in mx.messages[0].recipient_parameters[0]
        else:
            _, message = await notice(mx)
            found = of_recipient(message)
            assert (found["Action"], found["Status"]) == ("relayed", "2.0.0")
            parts: Any = message.get_payload()
            assert parts[2].get_content_type() == "text/rfc822-headers"


async def test_a_delay_is_told_once(tmp_path: Path, dns: DnsServer) -> None:
    async with (
        Mx(Script(rcpt={"bob@rcpt.test": Turns(LATER, LATER, LATER, LATER, None)})) as mx,
        Relay(
            tmp_path, dns=dns.address, mx_port=mx.port, first_delay="500ms", delivery="factor = 1",
            more='[dsn]\ndelay_after = "1s"\n',
        ) as relay,
    ):  # fmt: skip
        token = await submit(relay, rcpt=["NOTIFY=DELAY,FAILURE"])
        assert (await ended(relay, token, "sent"))["attempts"] == 5
        _, message = await notice(mx)
        found = of_recipient(message)
        assert (found["Action"], found["Status"]) == ("delayed", "4.2.0")
        assert found["Will-Retry-Until"]


async def test_by_with_n_tells_of_a_delay_and_goes_on(tmp_path: Path, dns: DnsServer) -> None:
    extensions = (*PLAIN_EXTENSIONS, "DELIVERBY 3600")
    async with (
        Mx(Script(rcpt={"bob@rcpt.test": Turns(LATER, None)}, extensions=extensions)) as mx,
        Relay(tmp_path, dns=dns.address, mx_port=mx.port, first_delay="300ms") as relay,
    ):
        token = await submit(relay, mail=["BY=-5;N"])
        await ended(relay, token, "sent")
        _, message = await notice(mx)
        assert of_recipient(message)["Action"] == "delayed"
        (told,) = [one for one in mx.messages if one.return_path]
        assert " BY=-" in f" {told.mail_parameters}"
        assert ";N" in told.mail_parameters


@pytest.mark.parametrize(
    ("extension", "said"), [("DELIVERBY", True), ("DELIVERBY 3000", True), ("DELIVERBY 7000", False), ("", False)]
)
async def test_a_deadline_goes_to_peers_that_know_it(
    tmp_path: Path, dns: DnsServer, extension: str, *, said: bool
) -> None:
    extensions = (*PLAIN_EXTENSIONS, extension) if extension else PLAIN_EXTENSIONS
    async with (
        Mx(Script(extensions=extensions)) as mx,
        Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay,
    ):
        await ended(relay, await submit(relay, mail=["BY=3600;R"]), "sent")
        words = [one for one in mx.messages[0].mail_parameters.split() if one.startswith("BY=")]
        assert bool(words) is said
        if said:
            seconds, mode = words[0].removeprefix("BY=").split(";")
            assert 3500 < int(seconds) <= 3600
            assert mode == "R"


@pytest.mark.timeout(60)
async def test_what_waits_beyond_its_lifetime_fails_though_no_attempt_is_due(tmp_path: Path, dns: DnsServer) -> None:
    """The host is left alone for minutes after it hung up; the message fails within one all the same."""
    async with (
        Mx(Script(banner="421 4.3.2 not now")) as mx,
        Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay,
    ):
        await ended(relay, await submit(relay, "first@rcpt.test"), "softfail")
        failed = await ended(relay, await submit(relay, mail=["BY=2;R"]), "hardfail")
        assert failed["reason"].startswith("The message's own lifetime ended before it was delivered.")
        assert failed["attempts"] == 0
        events = (await relay.get("/v1/events?limit=100"))["data"]["events"]
        (event,) = [one for one in events if one["event"] == "MessageDeliveryFailed"]
        assert (event["data"]["class"], event["data"]["smtp_enhanced_code"]) == ("expired", "5.4.7")
        answer = await relay.until("/v1/emails?tag=dsn&tenantId=acme", lambda one: one["data"])
        assert answer["data"][0]["subject"] == "Not delivered to bob@rcpt.test"


async def test_an_international_sender_is_told_over_smtputf8(tmp_path: Path, dns: DnsServer) -> None:
    extensions = (*PLAIN_EXTENSIONS, "SMTPUTF8")
    async with (
        Mx(Script(rcpt={"bü@rcpt.test": NO}, extensions=extensions)) as mx,
        Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay,
    ):
        await submit(relay, "bü@rcpt.test", sender="ü@sender.test", mail=["SMTPUTF8"], rcpt=["NOTIFY=FAILURE"])
        received, _ = await notice(mx)
        assert received.recipients == ["ü@sender.test"]
        assert "SMTPUTF8" in received.mail_parameters
        assert "Final-Recipient: utf-8; bü@rcpt.test\r\n".encode() in received.content


@pytest.mark.timeout(60)
async def test_a_kill_neither_loses_nor_doubles_a_notice(tmp_path: Path, dns: DnsServer) -> None:
    turns = Turns(HANG, None)
    async with Mx(Script(rcpt={"bob@rcpt.test": NO, "app@sender.test": turns})) as mx:
        relay = Relay(tmp_path, dns=dns.address, mx_port=mx.port)
        await relay.start()
        token = await submit(relay, rcpt=["NOTIFY=FAILURE"])
        await relay.until("/v1/emails?tag=dsn&tenantId=acme", lambda one: one["data"] and turns.taken)
        await relay.kill()
        await relay.start()
        await notice(mx)
        await ended(relay, token, "hardfail")
        await relay.stop()
        assert len(notices(mx)) == 1


@pytest.mark.timeout(60)
async def test_a_kill_before_the_failure_is_written_ends_in_one_notice(tmp_path: Path, dns: DnsServer) -> None:
    async with Mx(Script(rcpt={"bob@rcpt.test": Turns(Delay(2, NO), NO)})) as mx:
        relay = Relay(tmp_path, dns=dns.address, mx_port=mx.port)
        await relay.start()
        await submit(relay, rcpt=["NOTIFY=FAILURE"])
        await mx.wait_open()
        await relay.kill()
        await relay.start()
        await notice(mx)
        await relay.stop()
        assert len(notices(mx)) == 1


async def test_a_lifetime_that_nobody_can_read_is_told_in_the_log(tmp_path: Path, dns: DnsServer) -> None:
    async with Mx() as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay:
        token = await relay.send("ann@rcpt.test", headers="X-Ark-Expires: 2h\r\n")
        await ended(relay, token, "sent")
        (line,) = await relay.logged("expires_ignored")
        assert (line["id"], line["value"]) == (token, "2h")


REPORT = """\
From: MAILER-DAEMON@mx.rcpt.test
To: {to}
Subject: {subject}
Message-ID: <report-{action}@mx.rcpt.test>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: text/plain

This is the mail system at mx.rcpt.test.

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.rcpt.test

Final-Recipient: rfc822; bob@rcpt.test
Action: {action}
Status: {status}
Diagnostic-Code: smtp; {said}

--b--
"""
BOUNCES = """
[[listen]]
service = "bounces"
address = "127.0.0.1:0"
"""


@pytest.mark.parametrize(
    ("notify", "action", "status", "said", "subject"),
    [
        ("FAILURE", "failed", "5.1.1", "550 5.1.1 no such mailbox", "Not delivered to bob@rcpt.test"),
        ("SUCCESS,FAILURE", "delivered", "2.1.5", "250 2.1.5 delivered", "Delivered to bob@rcpt.test"),
        ("SUCCESS", "relayed", "2.0.0", "250 2.0.0 handed on", "Handed on to the mail server of bob@rcpt.test"),
        ("DELAY", "delayed", "4.4.1", "451 4.4.1 it waits", "Not yet delivered to bob@rcpt.test"),
        ("SUCCESS", "failed", "5.1.1", "550 5.1.1 no such mailbox", ""),
        ("FAILURE", "delivered", "2.1.5", "250 2.1.5 delivered", ""),
        ("NEVER", "failed", "5.1.1", "550 5.1.1 no such mailbox", ""),
    ],
)
async def test_what_a_peer_reports_later_reaches_the_sender_who_asked_for_it(
    tmp_path: Path, dns: DnsServer, notify: str, action: str, status: str, said: str, subject: str
) -> None:
    offers = Script(extensions=(*PLAIN_EXTENSIONS, "DSN"))
    async with Mx(offers) as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port, more=BOUNCES) as relay:
        token = await submit(relay, rcpt=[f"NOTIFY={notify}"], mail=["ENVID=order-17"])
        await mx.wait(1)
        to = mx.messages[0].return_path
        report = REPORT.format(to=to, action=action, status=status, said=said, subject=subject or "report")

        def come_back() -> None:
            with smtplib.SMTP("127.0.0.1", relay.port("bounces"), timeout=20) as client:
                client.sendmail("", [to], report.replace("\n", "\r\n"))

        await asyncio.to_thread(come_back)
        await asyncio.to_thread(come_back)  # a copy is told once
        await relay.until(f"/v1/emails/{token}/reports", lambda one: one["data"]["reports"])
        if not subject:
            other = await submit(relay, recipient="ann@rcpt.test", rcpt=["NOTIFY=SUCCESS"])
            await mx.wait(2)
            assert other
            assert notices(mx) == []
            return
        received, message = await notice(mx)
        assert received.recipients == ["app@sender.test"]
        assert message["Subject"] == subject
        assert of_recipient(message)["Action"] == action
        assert of_recipient(message)["Status"] == status
        assert "order-17" in received.content.decode()


async def test_a_sender_hears_of_each_action_once_however_many_reports_say_so(tmp_path: Path, dns: DnsServer) -> None:
    offers = Script(extensions=(*PLAIN_EXTENSIONS, "DSN"))
    async with Mx(offers) as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port, more=BOUNCES) as relay:
        token = await submit(relay, rcpt=["NOTIFY=SUCCESS"])
        await mx.wait(1)
        to = mx.messages[0].return_path

        def come_back() -> None:
            with smtplib.SMTP("127.0.0.1", relay.port("bounces"), timeout=20) as client:
                for number in range(5):
                    for action in ("delivered", "expanded"):
                        report = REPORT.format(to=to, action=action, status="2.0.0", said="250 ok", subject=number)
                        client.sendmail("", [to], report.replace("\n", "\r\n"))

        await asyncio.to_thread(come_back)
        assert len((await relay.get(f"/v1/emails/{token}/reports"))["data"]["reports"]) == 10
        await notice(mx, 2)
        assert (await relay.get("/v1/emails?tag=dsn"))["total"] == 2
