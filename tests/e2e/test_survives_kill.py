"""Promises 1, 2, 8 and 9: what was answered 250 arrives, whatever ends the process and however often in a minute;
doubles only past the final dot and never after an orderly stop; each start is quick, and nothing stays locked."""

import asyncio
import contextlib
import random
import smtplib
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Delay, Mx, Script

SENDERS = 8
STORM = 20  # ends and starts
STORM_S = 60.0
START_S = 5.0  # half a second on an idle machine


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        server.set("rcpt.test", "MX", "10 mx.rcpt.test.")
        server.set("mx.rcpt.test", "A", "127.0.0.1")
        yield server


class Ledger:
    """Clients that send without pause and write down what was acknowledged."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.acknowledged: set[str] = set()
        self.sent = 0
        self.stopping = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send from several clients at once inside the block; they end with it, however it ends."""
        clients = [asyncio.create_task(asyncio.to_thread(self._client, number)) for number in range(SENDERS)]
        try:
            yield
        finally:
            self.stopping = True
            await asyncio.gather(*clients)

    def _client(self, number: int) -> None:
        dice = random.Random(number)
        while not self.stopping:
            with (
                contextlib.suppress(OSError, smtplib.SMTPException, LookupError),
                smtplib.SMTP("127.0.0.1", self.relay.port(), timeout=10) as client,
            ):
                for _ in range(20):
                    self._send(client, number, dice)

    def _send(self, client: smtplib.SMTP, number: int, dice: random.Random) -> None:
        self.sent += 1
        name = f"m{number}-{self.sent}-{dice.randrange(10**9)}"
        body = "x" * dice.randrange(20000)
        text = f"Subject: {name}\r\nFrom: app@sender.test\r\nTo: {name}@rcpt.test\r\n\r\n{body}\r\n"
        client.sendmail("app@sender.test", [f"{name}@rcpt.test"], text)
        self.acknowledged.add(f"{name}@rcpt.test")


@pytest.mark.timeout(180)
async def test_nothing_acknowledged_is_lost_when_the_process_is_killed_twenty_times_in_a_minute(
    tmp_path: Path, dns: DnsServer
) -> None:
    async with Mx(Script(dot=Delay(0.02, "250 2.0.0 taken"))) as mx:
        relay = Relay(tmp_path, dns=dns.address, mx_port=mx.port)
        await relay.start()
        ledger = Ledger(relay)
        dice, starts, began = random.Random(7), [], time.monotonic()
        async with ledger.running():
            for _ in range(STORM):
                await asyncio.sleep(dice.uniform(0.1, 0.7))  # the moment of the kill is the point of the test
                await relay.kill()
                starts.append(await _start(relay))
            took_s = time.monotonic() - began
        await relay.until("/v1/status", lambda answer: _waiting(answer) == 0, timeout_s=60)
        await relay.stop()

    arrived = Counter(one.recipients[0] for one in mx.messages)
    assert len(ledger.acknowledged) > 20 * STORM
    assert ledger.acknowledged - set(arrived) == set()
    doubles = sum(count - 1 for count in arrived.values())
    uncertain = sum(row["uncertain"] for row in relay.lines("recovered"))
    assert doubles <= uncertain, "a double that the relay did not know of"
    assert max(starts) < START_S, starts
    assert took_s < STORM_S
    assert _leased(relay) == 0


@pytest.mark.timeout(120)
async def test_a_recipient_past_its_final_dot_is_told_to_be_uncertain(tmp_path: Path, dns: DnsServer) -> None:
    async with Mx(Script(dot=Delay(3600, "250 never"))) as mx:
        relay = Relay(tmp_path, dns=dns.address, mx_port=mx.port, delivery='uncertain = "hold"')
        await relay.start()
        token = await relay.send("ann@rcpt.test")
        async with asyncio.timeout(20):
            while not any(one.undecided for one in mx.conversations):  # until its final dot has come
                await asyncio.sleep(0.01)
        await relay.kill()
        await relay.start()
        answer = await relay.until(f"/v1/emails/{token}", lambda answer: answer["data"]["status"] == "held")
        assert "may have arrived" in answer["data"]["reason"]
        events = (await relay.get("/v1/events"))["data"]["events"]
        assert [one["event"] for one in events] == ["MessageAccepted", "MessageUncertain", "MessageHeld"]
        await relay.stop()


@pytest.mark.timeout(120)
async def test_stopping_in_order_twenty_times_under_load_loses_and_doubles_nothing(
    tmp_path: Path, dns: DnsServer
) -> None:
    async with Mx() as mx:
        relay = Relay(tmp_path, dns=dns.address, mx_port=mx.port)
        await relay.start()
        ledger = Ledger(relay)
        starts, began = [], time.monotonic()
        async with ledger.running():
            for _ in range(STORM):
                await asyncio.sleep(0.3)  # load builds up
                assert await relay.stop() == 0
                assert _leased(relay) == 0, "what was not begun goes back to the queue"
                starts.append(await _start(relay))
            took_s = time.monotonic() - began
        await relay.until("/v1/status", lambda answer: _waiting(answer) == 0, timeout_s=60)
        await relay.stop()
    arrived = Counter(one.recipients[0] for one in mx.messages)
    assert ledger.acknowledged - set(arrived) == set()
    assert [name for name, count in arrived.items() if count > 1] == []
    assert relay.lines("recovered") == []
    assert max(starts) < START_S, starts
    assert took_s < STORM_S


async def _start(relay: Relay) -> float:
    """Start it, and return how long it took until it answered."""
    began = time.monotonic()
    await relay.start()
    return time.monotonic() - began


def _leased(relay: Relay) -> int:
    """Return how many recipients the file says are in some process's hands; for when there is none."""
    with contextlib.closing(sqlite3.connect(relay.state / "arkrelay.db")) as db:
        return int(db.execute("SELECT count(*) FROM recipients WHERE lease != 0").fetchone()[0])


def _waiting(answer: dict[str, dict[str, dict[str, int]]]) -> int:
    queue = answer["data"]["queue"]
    return queue["pending"] + queue["softfail"]
