"""The disk is full, slow to let go, or fails: clients hear 4xx, nothing acknowledged is lost, and it passes."""

import asyncio
import contextlib
import os
import re
import signal
import smtplib
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Mx

Need = Callable[[str | Path], Path]

SENDERS = 4
SIZE_MB = 48  # 16 of it are the store's reserve
ROOM_AGAIN_S = 30.0


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        server.set("rcpt.test", "MX", "10 mx.rcpt.test.")
        server.set("mx.rcpt.test", "A", "127.0.0.1")
        yield server


@pytest.fixture
def small_disk(tmp_path: Path, need: Need) -> Iterator[Path]:
    """Give a folder whose ``state`` is a file system of its own, with little room."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    done = subprocess.run(
        [need("mount"), "-t", "tmpfs", "-o", f"size={SIZE_MB}m,mode=0700", "tmpfs", state],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = f"a small file system wants root: {done.stderr.strip()}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    try:
        yield tmp_path
    finally:
        subprocess.run([need("umount"), "--lazy", state], check=True)


class Ledger:
    """Clients that send without pause and write down what they were told."""

    def __init__(self, relay: Relay, size: int = 3000) -> None:
        self.relay = relay
        self.size = size
        self.acknowledged: dict[str, float] = {}
        self.refused: list[tuple[float, int, str]] = []
        self.slowest_s = 0.0
        self.stopping = False

    async def __aenter__(self) -> Self:
        self.task = asyncio.gather(*(asyncio.to_thread(self._client, number) for number in range(SENDERS)))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stopping = True
        await self.task

    def _client(self, number: int) -> None:
        sent = 0
        while not self.stopping:
            try:
                with smtplib.SMTP("127.0.0.1", self.relay.port(), timeout=60) as client:
                    while not self.stopping:
                        self._send(client, f"c{number}-{sent}@rcpt.test")
                        sent += 1
            except smtplib.SMTPResponseException as error:
                self.refused.append((time.monotonic(), error.smtp_code, str(error.smtp_error)))
            except smtplib.SMTPServerDisconnected as error:
                self.refused.append((time.monotonic(), 0, str(error)))

    def _send(self, client: smtplib.SMTP, to: str) -> None:
        began = time.monotonic()
        text = f"From: app@sender.test\r\nSubject: {to}\r\n\r\n{'x' * 70}\r\n"
        text += "y" * 70 + "\r\n" + ("z" * 70 + "\r\n") * (self.size // 72)
        client.sendmail("app@sender.test", [to], text)
        self.acknowledged[to] = time.monotonic()
        self.slowest_s = max(self.slowest_s, self.acknowledged[to] - began)

    def accepted_after(self, at: float) -> bool:
        return any(one > at for one in list(self.acknowledged.values()))

    def refused_after(self, at: float) -> list[tuple[int, str]]:
        return [(code, text) for when, code, text in list(self.refused) if when > at]

    async def until(self, holds: Callable[[], bool], timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s):
            while not holds():
                await asyncio.sleep(0.05)


async def nothing_waits(relay: Relay) -> None:
    def holds(answer: dict[str, dict[str, dict[str, int]]]) -> bool:
        queue = answer["data"]["queue"]
        return queue["pending"] + queue["softfail"] == 0

    await relay.until("/v1/status", holds, timeout_s=45)


def balanced(ledger: Ledger, mx: Mx) -> None:
    """Assert that everything acknowledged arrived, once."""
    arrived = Counter(one.recipients[0] for one in mx.messages)
    assert set(ledger.acknowledged) - set(arrived) == set()
    assert [name for name, count in arrived.items() if count > 1] == []


@pytest.mark.timeout(150)
async def test_a_full_disk_refuses_for_the_moment_and_loses_nothing(small_disk: Path, dns: DnsServer) -> None:
    async with Mx() as mx, Relay(small_disk, dns=dns.address, mx_port=mx.port) as relay:
        async with Ledger(relay) as ledger:
            await ledger.until(lambda: len(ledger.acknowledged) > 50, 20)
            full_at = time.monotonic()
            filler = relay.state / "filler"
            await asyncio.to_thread(_fill, filler)
            await ledger.until(lambda: len(ledger.refused_after(full_at)) > 20, 30)
            answer = await relay.until("/v1/status", lambda one: not one["data"]["ready"])
            assert "disk" in answer["data"]["reason"]
            filler.unlink()
            room_at = time.monotonic()
            await ledger.until(lambda: ledger.accepted_after(room_at), ROOM_AGAIN_S)
        assert {code for code, _ in ledger.refused_after(0)} == {452}
        assert all("4.3.1" in text for _, text in ledger.refused_after(0)), ledger.refused_after(0)[:3]
        await nothing_waits(relay)
        balanced(ledger, mx)
        await relay.logged("disk_low")
        await relay.logged("disk_room_again")
        assert await relay.stop() == 0


def _fill(path: Path) -> None:
    """Write until there is no room at all, and what is given back meanwhile as well."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 20, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)


async def test_too_little_room_is_refused_before_anything_breaks(tmp_path: Path) -> None:
    relay = Relay(tmp_path)
    text = relay.config.read_text()
    relay.config.write_text(text.replace('min_free_disk = "1MB"', 'min_free_disk = "1000000GB"'))
    async with relay:
        with smtplib.SMTP("127.0.0.1", relay.port(), timeout=20) as client:
            client.ehlo("client.test")
            code, said = await asyncio.to_thread(client.mail, "app@sender.test")
            assert (code, said[:5]) == (452, b"4.3.1")
        status = (await relay.get("/v1/status"))["data"]
        assert not status["ready"]
        assert re.search(r"MB free on the disk, at least \d+ MB are needed", status["reason"])
        relay.config.write_text(text)
        await relay.call("POST", "/v1/control/reload")
        await relay.until("/v1/status", lambda one: one["data"]["ready"])
        await relay.send("ann@rcpt.test")


@contextlib.contextmanager
def locked(database: Path) -> Iterator[None]:
    """Keep every other process from writing."""
    db = sqlite3.connect(database, isolation_level=None, timeout=20)
    try:
        db.execute("BEGIN EXCLUSIVE")
        yield
        db.execute("ROLLBACK")
    finally:
        db.close()


@pytest.mark.timeout(90)
async def test_a_database_that_is_locked_for_three_seconds_is_noticed_by_nobody(
    tmp_path: Path, dns: DnsServer
) -> None:
    async with Mx() as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay:
        async with Ledger(relay) as ledger:
            await ledger.until(lambda: len(ledger.acknowledged) > 20, 20)
            with locked(relay.state / "arkrelay.db"):
                await asyncio.sleep(3)  # as long as the lock is held is the point of the test
            unlocked_at = time.monotonic()
            await ledger.until(lambda: ledger.accepted_after(unlocked_at + 0.5), 20)
        assert ledger.refused == []
        assert 2.5 < ledger.slowest_s < 10
        await nothing_waits(relay)
        balanced(ledger, mx)


@pytest.mark.timeout(90)
async def test_a_database_that_stays_locked_refuses_with_451_until_it_is_free(tmp_path: Path, dns: DnsServer) -> None:
    async with Mx() as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay:
        async with Ledger(relay) as ledger:
            await ledger.until(lambda: len(ledger.acknowledged) > 20, 20)
            with locked(relay.state / "arkrelay.db"):
                answer = await relay.until("/v1/status", lambda one: not one["data"]["ready"], timeout_s=20)
                assert "locked by another process" in answer["data"]["reason"]
                with smtplib.SMTP("127.0.0.1", relay.port(), timeout=20) as client:
                    client.ehlo("client.test")
                    code, said = await asyncio.to_thread(client.mail, "app@sender.test")
                    assert (code, said[:5]) == (451, b"4.3.0")
            unlocked_at = time.monotonic()
            await ledger.until(lambda: ledger.accepted_after(unlocked_at + 0.5), ROOM_AGAIN_S)
        assert {code for code, _ in ledger.refused_after(0)} <= {451}
        await nothing_waits(relay)
        balanced(ledger, mx)


@contextlib.asynccontextmanager
async def injected(relay: Relay, strace: Path, call: str, error: str) -> AsyncIterator[None]:
    """Let a system call of the daemon fail, each time: the first one may be of a commit that no client waits for."""
    assert relay.process is not None
    tracer = await asyncio.create_subprocess_exec(
        *(strace, "-f", "-q", "-p", str(relay.process.pid)),
        *("-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when=1+"),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(10):
            while not _traced(relay.process.pid):
                if tracer.returncode is not None:
                    break
                await asyncio.sleep(0.02)
        if not _traced(relay.process.pid):
            _, said = await tracer.communicate()
            reason = f"strace cannot attach: {said.decode().strip()}"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            tracer.send_signal(signal.SIGINT)  # it lets go of the daemon and ends
        await tracer.wait()


def _traced(pid: int) -> bool:
    """Return whether every thread of the process has a tracer."""
    statuses = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return all("TracerPid:\t0\n" not in status for status in statuses)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("call", "error", "codes"),
    [
        pytest.param("fdatasync", "EIO", {451}, id="fsync-fails"),
        pytest.param("pwrite64", "ENOSPC", {452, 451}, id="no-room-for-a-write"),
        pytest.param("pwrite64", "EIO", {451}, id="write-fails"),
    ],
)
async def test_a_commit_that_fails_is_not_acknowledged_and_the_store_comes_back(
    tmp_path: Path, dns: DnsServer, need: Need, call: str, error: str, codes: set[int]
) -> None:
    async with Mx() as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay:
        async with Ledger(relay, size=500) as ledger:
            await ledger.until(lambda: len(ledger.acknowledged) > 20, 20)
            failed_at = time.monotonic()
            async with injected(relay, need("strace"), call, error):
                await ledger.until(lambda: bool(ledger.refused_after(failed_at)), 30)
            healed_at = time.monotonic()
            await ledger.until(lambda: ledger.accepted_after(healed_at), ROOM_AGAIN_S)
        assert {code for code, _ in ledger.refused_after(0)} <= codes, ledger.refused[:5]
        await nothing_waits(relay)
        balanced(ledger, mx)
        await relay.logged("store_in_trouble")
        assert await relay.stop() == 0
        await relay.start()  # and the database is sound
