"""A message says where complaints about it go (RFC 9477), and one that comes there finds its recipient."""

import asyncio
import smtplib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Mx
from peers.office import HOST, parse, record, verdicts

MORE = """
[public]
complaint_address = true

[[listen]]
service = "bounces"
address = "127.0.0.1:0"
"""


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        server.set("rcpt.test", "MX", "10 mx.rcpt.test.")
        server.set("mx.rcpt.test", "A", "127.0.0.1")
        yield server


async def verify(relay: Relay) -> None:
    """Return when the relay has seen the return path's record."""
    (domain,) = (await relay.get("/v1/tenants/acme/domains"))["data"]["domains"]
    checked = (await relay.call("POST", f"/v1/tenants/acme/domains/{domain['id']}/verify"))["data"]
    assert checked["dnsRecords"]["returnPath"]["status"] == "OK"


async def test_a_complaint_is_matched_by_the_id_in_the_signed_header(tmp_path: Path, dns: DnsServer) -> None:
    dns.set("psrp.sender.test", "CNAME", "rp.relay.test.")
    async with Mx() as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port, more=MORE) as relay:
        await verify(relay)
        token = await relay.send("ann@rcpt.test")
        await mx.wait(1)
        content = mx.messages[0].content
        assert parse(content)["CFBL-Address"] == "fbl@psrp.sender.test; report=arf"
        assert verdicts(content, {"s1": record()}) == [True]
        assert verdicts(content.replace(b"report=arf", b"report=xarf"), {"s1": record()}) == [False]
        await relay.until(f"/v1/emails/{token}", lambda answer: answer["data"]["status"] == "sent")
        report = (
            b"Content-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n"
            b"--b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nVersion: 1\r\n\r\n"
            b"--b\r\nContent-Type: text/rfc822-headers\r\n\r\n" + content.partition(b"\r\n\r\n")[0] + b"\r\n--b--\r\n"
        )

        def complain() -> None:
            with smtplib.SMTP(HOST, relay.port("bounces"), timeout=20) as client:
                client.sendmail("fbl@rcpt.test", ["fbl@psrp.sender.test"], report)

        await asyncio.to_thread(complain)
        found = (await relay.get("/v1/tenants/acme/suppressions/ann@rcpt.test"))["data"]
        assert (found["suppressed"], found["reason"]) == (True, "complaint")


async def test_without_a_verified_return_path_or_with_many_recipients_nothing_false_is_said(
    tmp_path: Path, dns: DnsServer
) -> None:
    async with Mx() as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port, more=MORE) as relay:
        await relay.send("ann@rcpt.test")
        await mx.wait(1)
        assert b"CFBL-" not in mx.messages[0].content
        dns.set("psrp.sender.test", "CNAME", "rp.relay.test.")
        await verify(relay)
        await relay.send("ann@rcpt.test", "bob@rcpt.test")
        await mx.wait(3)
        assert b"\r\nCFBL-Address: fbl@psrp.sender.test; report=arf\r\n" in mx.messages[1].content
        assert b"CFBL-Feedback-ID" not in mx.messages[1].content
