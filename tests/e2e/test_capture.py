"""``delivery.mode = "capture"``: the whole path runs, and everything ends in files; nothing leaves the machine."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Delay, Mx, Script, Turns
from peers.office import record, verdicts


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        server.set("rcpt.test", "MX", "10 mx.rcpt.test.")
        server.set("mx.rcpt.test", "A", "127.0.0.1")
        yield server


async def test_captured_mail_is_signed_told_as_sent_and_does_not_leave(tmp_path: Path, dns: DnsServer) -> None:
    async with Mx() as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port, delivery='mode = "capture"') as relay:
        token = await relay.send("ann@rcpt.test", "bob@elsewhere.test", subject="Grüße", body="one\r\n.\r\ntwo ü\r\n")
        answer = await relay.until("/v1/emails", lambda one: all(row["status"] == "sent" for row in one["data"]))
        assert answer["total"] == 2
        folder = relay.state / "capture"
        files = {path.stem: path for path in folder.iterdir()}
        assert set(files) == {row["id"] for row in answer["data"]}
        assert folder.stat().st_mode & 0o077 == 0
        assert files[token].stat().st_mode & 0o177 == 0

        head, _, rest = files[token].read_bytes().partition(b"X-Original-To: ann@rcpt.test\r\n")
        assert head.startswith(b"Return-Path: <b")
        assert head.endswith(b"@rp.relay.test>\r\n")
        assert rest.endswith("\r\n\r\none\r\n.\r\ntwo ü\r\n".encode())
        assert verdicts(rest, {"s1": record()}) == [True]

        sentence = (await relay.get(f"/v1/why?q={token}"))["data"]["sentences"][0]["sentence"]
        assert f"captured in {files[token]}" in sentence
        assert [one["event"] for one in (await relay.get("/v1/events"))["data"]["events"]].count("MessageSent") == 2
        assert mx.conversations == []
        assert [one for one in dns.queries if one.name.endswith(("rcpt.test", "elsewhere.test"))] == []


async def test_a_capture_box_that_cannot_be_written_defers_and_loses_nothing(tmp_path: Path, dns: DnsServer) -> None:
    settings: dict[str, Any] = {"dns": dns.address, "delivery": 'mode = "capture"'}
    async with Relay(tmp_path, **settings) as relay:
        blocked = relay.state / "capture"
        blocked.write_text("a file in the place of the folder")
        token = await relay.send("ann@rcpt.test")
        answer = await relay.until(f"/v1/emails/{token}", lambda one: one["data"]["status"] == "softfail")
        assert "the capture box failed" in answer["data"]["reason"]
        assert answer["data"]["attempts"] == 1
        blocked.unlink()
        await relay.call("POST", f"/v1/emails/{token}/retry")
        await relay.until(f"/v1/emails/{token}", lambda one: one["data"]["status"] == "sent")
        assert len(relay.lines("recipient_settled")) < 10  # it waited in between, and did not try in a circle


async def test_a_reload_to_capture_ends_what_a_kept_connection_would_still_send(
    tmp_path: Path, dns: DnsServer
) -> None:
    slow = Script(dot=Turns(None, Delay(1.0, None)))
    delivery = 'mode = "deliver"\nconnections_per_site = 1'
    async with Mx(slow) as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port, delivery=delivery) as relay:
        config = relay.config.read_text().replace('idle_connection = "1s"', 'idle_connection = "60s"')

        async def reload(mode: str) -> None:
            relay.config.write_text(config.replace('mode = "deliver"', f'mode = "{mode}"'))
            await relay.call("POST", "/v1/control/reload")

        async def sent(token: str) -> str:
            """Return where it went."""
            answer = await relay.until(f"/v1/emails/{token}", lambda one: one["data"]["status"] == "sent")
            return "captured" if "captured in" in answer["data"]["reason"] else "delivered"

        await reload("deliver")
        assert await sent(await relay.send("a@rcpt.test")) == "delivered"
        waiting = [await relay.send(f"b{number}@rcpt.test") for number in range(6)]  # two in flight, four behind them
        await reload("capture")
        where = [await sent(token) for token in waiting]
        assert where[-4:] == ["captured"] * 4
        assert await sent(await relay.send("c@rcpt.test")) == "captured"
        assert len(mx.messages) == 1 + where.count("delivered")
        await reload("deliver")
        assert await sent(await relay.send("d@rcpt.test")) == "delivered"
