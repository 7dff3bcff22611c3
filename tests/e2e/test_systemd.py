"""What the daemon tells systemd (sd_notify(3)): ready, status, watchdog, reload; and how it stops."""

import asyncio
import signal
import smtplib
import socket
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from peers.daemon import START_S, Relay
from peers.dns import DnsServer
from peers.mx import HANG, Delay, Mx, Script, Stage
from peers.systemd import WAIT_S, Datagrams, Launched, datagrams

from arkrelay.config.live import Live
from arkrelay.daemon import LOOP_STUCK_S, Daemon
from arkrelay.store.usage import totals

T = TypeVar("T", bound=Relay)


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Datagrams]:
    """Stand for systemd at the other end of sd_notify(3)."""
    async with datagrams(tmp_path / "notify") as found:
        yield found


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        server.set("rcpt.test", "MX", "10 mx.rcpt.test.")
        server.set("mx.rcpt.test", "A", "127.0.0.1")
        yield server


def notifying(relay: T, watchdog_s: float | None = None) -> T:
    """Tell the daemon about its manager."""
    relay.environment["NOTIFY_SOCKET"] = str(relay.folder / "notify")
    if watchdog_s is not None:
        relay.environment["WATCHDOG_USEC"] = str(int(watchdog_s * 1_000_000))
    return relay


async def test_ready_is_said_when_everything_answers(tmp_path: Path, manager: Datagrams) -> None:
    relay = notifying(Launched(tmp_path))
    await relay.launch()
    await manager.until(lambda lines: "READY=1" in lines)
    relay.listeners = (await relay.get("/v1/status"))["data"]["listeners"]  # the very first request
    with smtplib.SMTP("127.0.0.1", relay.port(), timeout=5) as client:
        assert client.noop()[0] == 250
    assert manager.lines().count("READY=1") == 1
    await relay.stop()


async def test_a_daemon_that_cannot_start_never_says_ready(tmp_path: Path, manager: Datagrams) -> None:
    relay = notifying(Launched(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = relay.config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{taken.getsockname()[1]}", 1)
        relay.config.write_text(text)
        await relay.launch()
        assert relay.process is not None
        assert await asyncio.wait_for(relay.process.wait(), START_S) == 1
    assert "READY=1" not in manager.lines()
    assert f"cannot listen on 127.0.0.1:{taken}"[:25] in relay.log.read_text()


async def test_status_tells_the_queue_and_the_watchdog_is_fed(
    tmp_path: Path, manager: Datagrams, dns: DnsServer
) -> None:
    async with (
        Mx(Script(rcpt="450 4.2.0 greylisted")) as mx,
        notifying(Relay(tmp_path, dns=dns.address, mx_port=mx.port), watchdog_s=0.2) as relay,
    ):
        await relay.send("ann@rcpt.test", "bob@rcpt.test")
        await manager.until(lambda lines: any("0 pending, 2 deferred, 0 held" in line for line in lines))
        fed = manager.lines().count("WATCHDOG=1")
        await manager.until(lambda lines: lines.count("WATCHDOG=1") >= fed + 3)
    said = manager.lines()
    assert "STOPPING=1" in said
    after = said[said.index("STOPPING=1") + 1 :]
    assert all(line.startswith(("STATUS=stopping", "WATCHDOG=1")) for line in after)


def told_ready(times: int, lines: list[str]) -> bool:
    return lines.count("READY=1") == times


async def test_a_reload_is_announced_and_its_end_too(tmp_path: Path, manager: Datagrams) -> None:
    async with notifying(Relay(tmp_path)) as relay:
        await manager.until(lambda lines: "READY=1" in lines)
        assert relay.process is not None
        good = relay.config.read_text()
        for number, text in enumerate((good, "nonsense = 1\n" + good, good), 2):
            relay.config.write_text(text)
            relay.process.send_signal(signal.SIGHUP)
            lines = await manager.until(partial(told_ready, number))
            told = [line for line in lines if line.startswith(("RELOADING", "MONOTONIC_USEC", "READY"))]
            assert [line.partition("=")[0] for line in told[-3:]] == ["RELOADING", "MONOTONIC_USEC", "READY"]
            microseconds = int(told[-2].partition("=")[2])
            assert 0 <= time.monotonic_ns() // 1000 - microseconds < WAIT_S * 1e6
        assert [row["key"] for row in await relay.logged("reload_refused")] == ["nonsense"]
        await relay.send("ann@rcpt.test")  # the last good configuration is in force


async def test_a_stuck_delivery_loop_starves_the_watchdog(
    tmp_path: Path, manager: Datagrams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    daemon = Daemon(Live(Relay(tmp_path).config))
    daemon.queue.ticked_at = time.monotonic() - LOOP_STUCK_S - 1
    telling = asyncio.create_task(daemon._tell_systemd())
    try:
        stuck = await manager.until(lambda lines: len(lines) >= 5)
        assert all(line.startswith("STATUS=the delivery loop does not come by") for line in stuck)
        daemon.queue.ticked_at = time.monotonic()
        await manager.until(lambda lines: "WATCHDOG=1" in lines)
    finally:
        telling.cancel()
        await daemon._shut_down()


async def test_a_database_that_cannot_be_read_does_not_starve_the_watchdog(
    tmp_path: Path, manager: Datagrams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart would not mend the disk, and the queue lives on."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    daemon = Daemon(Live(Relay(tmp_path).config))
    daemon._counts = await daemon.store.read(totals)
    await daemon.store.write(lambda db: db.execute("ALTER TABLE counters RENAME TO gone"))
    with pytest.raises(Exception, match="counters"):
        await daemon.store.read(totals)
    telling = asyncio.create_task(daemon._tell_systemd())
    try:
        await manager.until(lambda lines: lines.count("WATCHDOG=1") >= 3)
        assert not telling.done()
    finally:
        telling.cancel()
        await daemon.store.write(lambda db: db.execute("ALTER TABLE gone RENAME TO counters"))
        await daemon._shut_down()


# -- stopping -------------------------------------------------------------------------------------------------------


async def in_flight(mx: Mx) -> None:
    """Wait until a final dot was sent that has no answer yet."""
    async with asyncio.timeout(WAIT_S):
        while not any(one.undecided for one in mx.conversations):
            await asyncio.sleep(0.01)


async def test_a_stop_waits_for_the_answer_to_a_final_dot(tmp_path: Path, manager: Datagrams, dns: DnsServer) -> None:
    async with Mx(Script(dot=Delay(2.0, "250 2.0.0 taken"))) as mx:
        relay = notifying(Relay(tmp_path, dns=dns.address, mx_port=mx.port))
        await relay.start()
        token = await relay.send("ann@rcpt.test")
        await in_flight(mx)
        assert await relay.stop() == 0
        assert manager.lines()[-1] == "STOPPING=1"
        assert len(mx.messages) == 1
        await relay.start()
        assert (await relay.get(f"/v1/emails/{token}"))["data"]["status"] == "sent"
        assert relay.lines("recovered") == []
        await relay.stop()
    assert len(mx.messages) == 1


@pytest.mark.timeout(120)
@pytest.mark.parametrize("stage", [pytest.param("dot", id="final-dot"), pytest.param("rcpt", id="rcpt")])
async def test_a_stop_waits_no_longer_than_half_a_minute(stage: str, tmp_path: Path, dns: DnsServer) -> None:
    hang: dict[str, Stage] = {stage: HANG}
    async with Mx(Script(**hang)) as mx:  # type: ignore[arg-type]  # one of its stages, by name
        relay = Relay(tmp_path, dns=dns.address, mx_port=mx.port, delivery='uncertain = "hold"')
        await relay.start()
        token = await relay.send("ann@rcpt.test")
        await mx.wait_open()
        if stage == "dot":
            await mx.wait(1)  # a final dot without an answer counts as taken
        began = time.monotonic()
        assert await relay.stop() == 0
        assert time.monotonic() - began < 35
        await relay.start()
        wanted = "held" if stage == "dot" else "pending"
        answer = (await relay.get(f"/v1/emails/{token}"))["data"]
        assert answer["status"] in {wanted, "softfail" if stage == "rcpt" else wanted}
        await relay.kill()
