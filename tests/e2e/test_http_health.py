"""What monitors see: metrics that move, readiness that tells why not, and an end that keeps nobody waiting."""

import asyncio
import smtplib
import time
from pathlib import Path

import aiohttp
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Mx
from prometheus_client import parser


async def page(relay: Relay) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return every sample of /metrics, read as Prometheus does."""
    url = f"http://127.0.0.1:{relay.port('http')}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = await response.text()
    families = list(parser.text_string_to_metric_families(text))
    assert all(family.documentation for family in families)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


async def test_metrics_move_when_mail_is_sent(tmp_path: Path) -> None:
    async with DnsServer() as dns, Mx() as mx:
        dns.set("rcpt.test", "MX", "10 mx.rcpt.test.")
        dns.set("mx.rcpt.test", "A", "127.0.0.1")
        async with Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay:
            before = await page(relay)
            assert before["arkrelay_up", ()] == 1
            for status in ("pending", "sent", "softfail", "hardfail", "bounced", "held"):
                assert before["arkrelay_recipients", (("status", status),)] == 0
            await relay.send("ann@rcpt.test", "bob@rcpt.test")
            await relay.until("/v1/emails?status=sent", lambda answer: answer["total"] == 2)
            after = before
            async with asyncio.timeout(30):  # the gauges are up to 10 s old
                while after["arkrelay_recipients", (("status", "sent"),)] != 2:
                    await asyncio.sleep(0.1)
                    after = await page(relay)
            assert after["arkrelay_recipients_accepted_total", (("door", "smtp"),)] == 2
            assert after["arkrelay_recipients_settled_total", (("status", "sent"),)] == 2
            assert after["arkrelay_commit_seconds_count", ()] >= 1
            assert after["arkrelay_http_connections", ()] >= 1
            assert set(before) <= set(after)


async def test_without_room_on_the_disk_nothing_is_accepted_and_it_is_told_why(tmp_path: Path) -> None:
    relay = Relay(tmp_path)
    relay.config.write_text(relay.config.read_text().replace('min_free_disk = "1MB"', 'min_free_disk = "900TB"'))
    async with relay, aiohttp.ClientSession() as session:
        base = f"http://127.0.0.1:{relay.port('http')}"
        async with session.get(f"{base}/readyz") as response:
            assert response.status == 503
            assert "free on the disk" in await response.text()
        async with session.get(f"{base}/healthz") as response:
            assert (response.status, await response.text()) == (200, "ok\n")
        status = (await relay.get("/v1/status"))["data"]
        assert status["ready"] is False
        assert "free on the disk" in status["reason"]
        assert (await page(relay))["arkrelay_up", ()] == 0
        code, text = await asyncio.to_thread(_mail_from, relay.port())
        assert (code, text.split()[0]) == (452, b"4.3.1")
        body = {"from": "app@sender.test", "to": ["a@b.test"], "rawMessage": "RnJvbTogYXBwQHNlbmRlci50ZXN0DQoNCg=="}
        answer = await relay.call("POST", "/v1/emails/raw", body, status=507)
        assert answer["error"]["code"] == "insufficient_storage"


def _mail_from(port: int) -> tuple[int, bytes]:
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        client.ehlo("client.test")
        return client.mail("app@sender.test")


async def test_who_waits_for_events_is_answered_when_the_daemon_stops(tmp_path: Path) -> None:
    async with Relay(tmp_path) as relay:
        waiting = asyncio.create_task(relay.get("/v1/events?after=1000000&wait=30"))
        await relay.until("/v1/status", lambda answer: answer["data"]["ready"])
        began = time.monotonic()
        assert await relay.stop() == 0
        answer = await waiting
        assert answer["data"] == {"events": [], "next": 1000000, "last": 0}
        assert time.monotonic() - began < 15


async def test_who_waits_for_events_gets_the_first_one(tmp_path: Path) -> None:
    async with Relay(tmp_path) as relay:
        waiting = asyncio.create_task(relay.get("/v1/events?wait=30&tenantId=acme"))
        id_ = await relay.send("ann@nowhere.test")
        events = (await waiting)["data"]["events"]
        assert events[0]["event"] == "MessageAccepted"
        assert events[0]["emailId"] == id_


async def test_the_sockets_are_gone_after_the_end_and_a_dead_one_is_replaced(tmp_path: Path) -> None:
    relay = Relay(tmp_path)
    await relay.start()
    await relay.kill()
    assert relay.socket.is_socket()
    async with relay:
        assert (await relay.get("/v1/status"))["data"]["epoch"] == 2
    assert not relay.socket.exists()
