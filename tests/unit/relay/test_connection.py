"""One connection's life: the daemon's parts in this process, in moments that are hard to hit from outside."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import HANG, Mx, Script

from arkrelay.config.live import Live
from arkrelay.daemon import Daemon
from arkrelay.model.address import parse_mailbox
from arkrelay.model.message import Door, Recipient, RecipientRequest, Status, Submission
from arkrelay.relay.deliver import Courier
from arkrelay.store import queue as rows
from arkrelay.store.journal import Journal


class Office:
    """A running daemon of this process and the MX of ``rcpt.test``."""

    def __init__(self, daemon: Daemon, mx: Mx) -> None:
        self.daemon, self.mx = daemon, mx

    async def send(self, *addresses: str) -> list[str]:
        """Submit one message; return its public ids."""
        author = parse_mailbox("app@sender.test")
        people = tuple(RecipientRequest(parse_mailbox(address)) for address in addresses)
        content = b"From: app@sender.test\r\nSubject: x\r\n\r\nx\r\n"
        submission = Submission(Door.SMTP, "acme", None, author, people, content, time.time())
        return list((await self.daemon.submitter.submit(submission)).tokens)

    async def load(self, token: str) -> Recipient:
        return await self.daemon.store.read(lambda db: rows.load_recipient(db, token))

    async def becomes(self, token: str, status: Status, timeout_s: float = 20.0) -> Recipient:
        async with asyncio.timeout(timeout_s):
            while (one := await self.load(token)).status is not status:
                await asyncio.sleep(0.01)
        return one


@contextlib.asynccontextmanager
async def open_office(folder: Path, script: Script | None = None, **delivery: Any) -> AsyncIterator[Office]:
    async with DnsServer() as dns, Mx(script) as mx:
        for domain in ("rcpt.test", "other.test"):
            dns.set(domain, "A", "127.0.0.1")
        relay = Relay(folder, dns=dns.address, mx_port=mx.port)
        text = relay.config.read_text()
        for key, value in {"idle_connection": '"50ms"', **delivery}.items():
            line = f"{key} = {value}\n"
            text = (
                text.replace('idle_connection = "1s"\n', line)
                if key in text
                else text.replace("[dns]", f"{line}[dns]")
            )
        relay.config.write_text(text)
        daemon = Daemon(Live(relay.config))
        running = asyncio.create_task(daemon.run())
        while not daemon.http.addresses:
            assert not running.done(), running.exception()
            await asyncio.sleep(0.01)
        try:
            yield Office(daemon, mx)
        finally:
            daemon._stop.set()
            async with asyncio.timeout(40):
                assert await running == 0


async def test_mail_that_arrives_during_a_pause_goes_after_it_and_nothing_spins_meanwhile(tmp_path: Path) -> None:
    async with open_office(tmp_path, idle_connection='"1m"') as office:
        queue = office.daemon.queue
        await office.becomes((await office.send("ann@rcpt.test"))[0], Status.SENT)
        (kept,) = office.mx.conversations
        leased = asyncio.create_task(office.send("bob@rcpt.test"))
        await asyncio.sleep(0)
        queue.paused = "the disk is full"  # between its reservation and its hand-over, or just after
        (token,) = await leased
        for _ in range(50):  # the idle connection is woken for nothing, and the loop still comes by
            await asyncio.sleep(0)
            for serving in queue._serving.values():
                for connection in serving:
                    connection.wake()
        assert (await office.load(token)).status is Status.PENDING
        queue.paused = ""
        await office.becomes(token, Status.SENT)
        assert office.mx.conversations[0] is kept


async def test_a_peer_that_does_not_answer_quit_delays_nobody(tmp_path: Path) -> None:
    async with open_office(tmp_path, Script(quit=HANG)) as office:
        await office.becomes((await office.send("ann@rcpt.test"))[0], Status.SENT)
        (first,) = office.mx.conversations
        async with asyncio.timeout(10):
            while "QUIT" not in first.commands:
                await asyncio.sleep(0.01)
        began = time.monotonic()
        await office.becomes((await office.send("bob@rcpt.test"))[0], Status.SENT)
        assert time.monotonic() - began < 4  # QUIT is waited for 5 s
        assert len(office.mx.conversations) == 2


async def test_a_bug_on_the_way_lets_one_destination_rest_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Courier.plan

    async def surprise(self: Courier, destination: str) -> Any:
        if destination == "rcpt.test":
            raise RuntimeError("a bug")
        return await plan(self, destination)

    async with open_office(tmp_path) as office:
        monkeypatch.setattr(Courier, "plan", surprise)
        (bad,) = await office.send("ann@rcpt.test")
        (good,) = await office.send("bob@other.test")
        await office.becomes(good, Status.SENT)
        lane = office.daemon.queue.lane("rcpt.test")
        assert lane is not None
        assert lane.rest_until > time.time() + 30
        assert (await office.load(bad)).status is Status.PENDING
        monkeypatch.setattr(Courier, "plan", plan)
        office.daemon.queue.end_rests(["rcpt.test"])
        await office.becomes(bad, Status.SENT)


async def test_a_message_that_cannot_be_begun_is_deferred_and_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Journal.begin
    refused: list[int] = []

    def once(self: Journal, recipient_id: int) -> int:
        if not refused:
            refused.append(recipient_id)
            raise OSError(28, "No space left on device")
        return begin(self, recipient_id)

    async with open_office(tmp_path) as office:
        monkeypatch.setattr(Journal, "begin", once)
        tokens = await office.send("ann@rcpt.test", "bob@rcpt.test", "cat@rcpt.test")
        for token in tokens[1:]:
            await office.becomes(token, Status.SENT)
        first = await office.becomes(tokens[0], Status.SOFTFAIL)
        assert "No space left on device" in first.reason
        assert len(office.mx.messages) == 2
        assert office.daemon.journal.busy == 0


async def test_a_connection_takes_so_many_messages_and_no_more(tmp_path: Path) -> None:
    async with open_office(tmp_path, messages_per_connection=2, connections_per_site=1) as office:
        tokens = await office.send(*(f"n{number}@rcpt.test" for number in range(5)))
        for token in tokens:
            await office.becomes(token, Status.SENT)
        assert [len([m for m in office.mx.messages if m.connection == n]) for n in range(3)] == [2, 2, 1]
        assert len(office.mx.conversations) == 3


async def test_an_idle_connection_makes_room_for_another_domain_of_its_site(tmp_path: Path) -> None:
    async with open_office(tmp_path, idle_connection='"1m"', concurrency=1) as office:
        await office.becomes((await office.send("ann@rcpt.test"))[0], Status.SENT)
        await office.becomes((await office.send("bob@other.test"))[0], Status.SENT)
        assert len(office.mx.conversations) == 2


LISTED = "554 5.7.1 Service unavailable; Client host blocked using zen.spamhaus.org"


async def test_a_site_that_lists_our_address_gets_no_more_than_was_under_way_and_rests_longer_each_time(
    tmp_path: Path,
) -> None:
    async with open_office(tmp_path, Script(rcpt=LISTED), connections_per_site=1) as office:
        queue, site = office.daemon.queue, "rcpt.test"
        tokens = await office.send(*(f"n{number}@rcpt.test" for number in range(8)))
        for listings in (1, 2):
            async with asyncio.timeout(20):
                while queue.pace.state(site).blocks != listings or queue.connections:
                    await asyncio.sleep(0.01)
            ended = [(await office.load(token)).status for token in tokens].count(Status.HARDFAIL)
            assert ended <= 2 * listings  # two transactions are under way at once
            rest_s = queue.pace.state(site).rest_until - time.time()
            assert 0.85 < rest_s / (3600 * 2 ** (listings - 1)) < 1.15
            queue.pace._lanes[site].rest_until = 0.0  # hours later
            lane = queue.lane(site)
            assert lane is not None
            lane.rest_until = 0.0
            queue.kick(lane)


async def test_what_is_in_flight_past_its_dot_when_we_must_stop_is_uncertain(tmp_path: Path) -> None:
    async with open_office(tmp_path, Script(dot=HANG)) as office:
        (token,) = await office.send("ann@rcpt.test")
        await office.mx.wait(1)
        assert not await office.daemon.queue.stop(0.05)
        assert await office.daemon.settler.drained(10)
        one = await office.load(token)
        assert (one.status, one.uncertain) == (Status.SOFTFAIL, 1)
        assert one.due_at is not None
        assert one.due_at >= time.time() + 290
