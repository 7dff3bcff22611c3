"""The N-th thing goes wrong, for every N: database call, write or read of a connection to an MX, DNS query.

The daemon runs in this process, so that a fault can be put exactly there. For N = 1, 2, … five messages are sent and
the N-th step of their way fails, until all five come through without reaching it. Every submission must be
acknowledged or refused with 4xx (and is then sent again); what was acknowledged arrives; nothing arrives twice
unless the relay itself says that it may.
"""

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import PLAIN_EXTENSIONS, Mx, Script

from arkrelay.config.live import Live
from arkrelay.daemon import Daemon
from arkrelay.model.errors import StoreError
from arkrelay.model.message import QUEUED
from arkrelay.policy import outcomes, schedule
from arkrelay.relay import queue, settle, upkeep
from arkrelay.relay.operate import Operator, Selection, Verb
from arkrelay.store import checkpoint, find, writer
from arkrelay.store.connection import Connection
from arkrelay.store.database import Store
from arkrelay.wire import dns as wire_dns

MESSAGES = 5
TRIES = 500  # of one submission that is refused with 4xx
PAUSE_S = 0.01
ARRIVE_S = 20.0
MOST = 400  # more steps than five messages ever take


@dataclass
class Fault:
    """Strikes at one step, once, after it was armed."""

    left: int = 0
    fired: bool = False

    def arm(self, n: int) -> None:
        self.left, self.fired = n, False

    def strikes(self) -> bool:
        if not self.left:
            return False
        self.left -= 1
        self.fired = self.fired or not self.left
        return not self.left


@dataclass
class Office:
    """A daemon in this process with what it needs around it."""

    relay: Relay
    mx: Mx
    acknowledged: list[str] = field(default_factory=list)
    refused: list[bytes] = field(default_factory=list)
    daemon: Daemon | None = None
    task: "asyncio.Task[int] | None" = None

    async def start(self) -> None:
        self.daemon = Daemon(Live(self.relay.config))
        self.task = asyncio.create_task(self.daemon.run())
        while not self.daemon.http.addresses:
            assert not self.task.done(), self.task.exception()
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        assert self.daemon is not None
        assert self.task is not None
        self.daemon._stop.set()
        async with asyncio.timeout(45):
            assert await self.task == 0

    async def send(self, domains: list[str], name: str) -> None:
        """Send one message to each domain, again and again while it is refused for the moment."""
        assert self.daemon is not None
        port = next(int(where.rpartition(":")[2]) for kind, where in self.daemon.listeners() if kind == "submission")
        for number, domain in enumerate(domains):
            to = f"{name}-{number}@{domain}"
            for _ in range(TRIES):
                reply = await _submit(port, to)
                if reply.startswith(b"250"):
                    self.acknowledged.append(to)
                    break
                assert reply.startswith(b"4"), reply
                self.refused.append(reply)
                await asyncio.sleep(PAUSE_S)
            else:
                raise AssertionError(f"refused {TRIES} times: {reply!r}")

    async def arrive(self) -> None:
        """Return when all that was acknowledged has arrived; what is deferred is retried by hand meanwhile."""
        assert self.daemon is not None
        daemon = self.daemon
        operator = Operator(daemon.store, daemon.queue, daemon.live, daemon.meter)
        async with asyncio.timeout(ARRIVE_S):
            while missing := set(self.acknowledged) - {one.recipients[0] for one in self.mx.messages}:
                for to in missing:
                    with contextlib.suppress(StoreError):  # the database may be the one in trouble
                        await operator.many(Verb.RETRY, Selection(statuses=QUEUED, address=to))
                await asyncio.sleep(PAUSE_S)
            while self.daemon.settler.unwritten:
                await asyncio.sleep(PAUSE_S)

    async def uncertain(self) -> Counter[str]:
        """Return how often the relay says of each address that a message may have arrived without its knowing."""
        assert self.daemon is not None
        found: Counter[str] = Counter()
        page = 1
        while rows := await self.daemon.store.read(partial(_page, number=page)):
            found.update({row.address: row.uncertain for row in rows})
            page += 1
        return found


def _page(db: sqlite3.Connection, number: int) -> list[Any]:
    return list(find.page(db, find.Filters(), number, 100))


async def _submit(port: int, to: str) -> bytes:
    """Return the last reply, which is that to the message or the first that is not 2xx or 3xx."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(30):
            lines = ("", "EHLO c.test", "MAIL FROM:<app@sender.test>", f"RCPT TO:<{to}>", "DATA")
            for line in (*lines, f"From: app@sender.test\r\nSubject: {to}\r\n\r\nx\r\n."):
                if line:
                    writer.write(line.encode() + b"\r\n")
                while (reply := await reader.readline())[3:4] == b"-":
                    pass
                if reply[:1] not in (b"2", b"3"):
                    return reply or b"421 closed"
            return reply
    finally:
        writer.close()


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        yield server


@pytest.fixture
async def mx() -> AsyncIterator[Mx]:
    async with Mx() as server:
        yield server


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses after trouble: they are for people and disks, and not what is tested here."""
    monkeypatch.setattr(queue, "STORE_TROUBLE_S", PAUSE_S)
    monkeypatch.setattr(settle, "RETRY_WRITE_S", PAUSE_S)
    monkeypatch.setattr(outcomes, "STOPPED_PAUSE_S", PAUSE_S)
    monkeypatch.setattr(queue, "TICK_S", PAUSE_S)
    monkeypatch.setattr(upkeep, "DISK_S", PAUSE_S)
    monkeypatch.setattr(writer, "RETRY_S", PAUSE_S)
    monkeypatch.setattr(writer, "LATER_S", PAUSE_S)
    monkeypatch.setattr(checkpoint, "INTERVAL_S", PAUSE_S)
    monkeypatch.setattr(checkpoint, "NUDGE_EVERY", 1)
    monkeypatch.setattr(wire_dns, "TROUBLE_TTL_S", PAUSE_S)


@contextlib.asynccontextmanager
async def office_of(folder: Path, dns: DnsServer, mx: Mx, **settings: Any) -> AsyncIterator[Office]:
    """Give a running daemon; at the end compare what was acknowledged with what arrived, also over a restart."""
    dns.set("rcpt.test", "A", "127.0.0.1")
    relay = Relay(folder, dns=dns.address, mx_port=mx.port, **settings)
    text = relay.config.read_text().replace('idle_connection = "1s"', 'idle_connection = "10ms"')
    relay.config.write_text(text.replace('timeout = "2s"', 'timeout = "200ms"'))
    office = Office(relay, mx)
    await office.start()
    try:
        yield office
        await office.arrive()
        await office.stop()
        await office.start()
        await office.arrive()
        arrived = Counter(one.recipients[0] for one in mx.messages)
        uncertain = await office.uncertain()
        assert {name for name, count in arrived.items() if count > 1 + uncertain[name]} == set()
        assert set(arrived) == set(office.acknowledged), "something arrived that was refused"
    finally:
        if office.task is not None and not office.task.done():
            await office.stop()


async def until_untouched(fault: Fault, run: Callable[[int], Awaitable[None]], stride: int = 1) -> int:
    """Let the N-th step fail for N = 1, 1 + stride, … until a run does not reach it; return that N."""
    for n in range(1, MOST, stride):
        fault.arm(n)
        await run(n)
        if not fault.fired:
            return n
    raise AssertionError("it never came through untouched")


# -- the database -----------------------------------------------------------------------------------------------


class Faulty(Connection):
    """The writing connection, one of whose calls fails before anything is done."""

    fault: ClassVar[Fault]
    code: ClassVar[int]

    def execute(self, *args: Any) -> sqlite3.Cursor:
        self._strike()
        return super().execute(*args)

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        self._strike()
        return super().executemany(*args)

    def _strike(self) -> None:
        if self.fault.strikes():
            error = sqlite3.OperationalError("injected")
            error.sqlite_errorcode = self.code
            raise error


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("way", ["in-memory", "from-the-table"])
@pytest.mark.parametrize(
    "code",
    [
        pytest.param(sqlite3.SQLITE_IOERR, id="io-error"),
        pytest.param(sqlite3.SQLITE_FULL, id="full"),
        pytest.param(sqlite3.SQLITE_BUSY, id="busy"),
        pytest.param(sqlite3.SQLITE_ERROR, id="statement"),
    ],
)
async def test_no_database_call_that_fails_loses_or_doubles_anything(
    tmp_path: Path, dns: DnsServer, mx: Mx, monkeypatch: pytest.MonkeyPatch, code: int, way: str
) -> None:
    fault = Fault()
    faulty = cast("type[Connection]", type("Armed", (Faulty,), {"fault": fault, "code": code}))
    monkeypatch.setattr("arkrelay.daemon.Store.open", partial(Store.open, factory=faulty))
    if way == "from-the-table":
        monkeypatch.setattr(schedule, "HANDOVER_MESSAGES", 0)
    async with office_of(tmp_path, dns, mx) as office:

        async def run(n: int) -> None:
            await office.send(["rcpt.test"] * MESSAGES, f"n{n}")
            await office.arrive()

        steps = await until_untouched(fault, run)
        assert steps > 5 * MESSAGES
        fault.arm(0)


# -- connections to an MX ----------------------------------------------------------------------------------------


class Cut:
    """A transport that breaks in the middle of its N-th write."""

    def __init__(self, transport: asyncio.Transport, fault: Fault) -> None:
        self._transport, self._fault = transport, fault

    def write(self, data: bytes) -> None:
        if self._fault.strikes():
            self._transport.write(bytes(data[: len(data) // 2]))
            self._transport.close()  # what was written still goes out
        else:
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def break_connections(monkeypatch: pytest.MonkeyPatch, port: int, how: str, fault: Fault) -> None:
    """Break connecting, writing or reading towards this port."""
    loop = asyncio.get_running_loop()
    connect = loop.create_connection

    async def create_connection(factory: Callable[[], Any], host: str, to: int, **options: Any) -> Any:
        if to != port:
            return await connect(factory, host, to, **options)
        if how == "connect" and fault.strikes():
            raise OSError(113, "No route to host")

        def made() -> Any:
            protocol = factory()
            return _Reader(protocol, fault) if how == "read" else _Writer(protocol, fault, how)

        transport, protocol = await connect(made, host, to, **options)
        return transport, protocol.inner

    monkeypatch.setattr(loop, "create_connection", create_connection)


class _Between(asyncio.Protocol):
    """Stands between asyncio and the client's protocol."""

    def __init__(self, inner: Any, fault: Fault, how: str = "") -> None:
        self.inner, self.fault, self.how = inner, fault, how

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.inner.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()


class _Writer(_Between):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        shown = Cut(cast("asyncio.Transport", transport), self.fault) if self.how == "write" else transport
        self.inner.connection_made(shown)


class _Reader(_Between):
    """Loses what the peer said, and the connection with it."""

    def data_received(self, data: bytes) -> None:
        if self.fault.strikes():
            self.transport.abort()
        else:
            self.inner.data_received(data)


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("extensions", [PLAIN_EXTENSIONS, ()], ids=["pipelining", "one-by-one"])
@pytest.mark.parametrize("how", ["connect", "write", "read"])
async def test_no_connection_that_breaks_loses_anything_or_doubles_it_unsaid(
    tmp_path: Path,
    dns: DnsServer,
    mx: Mx,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    extensions: tuple[str, ...],
) -> None:
    fault = Fault()
    mx.script = Script(extensions=extensions)
    break_connections(monkeypatch, mx.port, how, fault)
    async with office_of(tmp_path, dns, mx) as office:

        async def run(n: int) -> None:
            await mx.wait_closed()  # each run connects
            await office.send(["rcpt.test"] * MESSAGES, f"n{n}")
            await office.arrive()

        steps = await until_untouched(fault, run)
        assert steps >= (2 if how == "connect" else 5)
        fault.arm(0)


# -- DNS ---------------------------------------------------------------------------------------------------------


class Unreliable(DnsServer):
    """One query of many is answered badly, or twice in a row, for the resolver asks again."""

    trouble: Fault
    how: str

    def _fault(self, name: str, rdtype: str) -> str | None:
        if self.trouble.strikes():
            self.fail(name, rdtype, self.how, 2)
        return super()._fault(name, rdtype)


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("how", ["servfail", "timeout", "garbage", "tcp-close"])
async def test_no_query_that_fails_loses_or_doubles_anything(tmp_path: Path, mx: Mx, how: str) -> None:
    trouble = Fault()
    async with Unreliable() as dns:
        dns.trouble, dns.how = trouble, how
        async with office_of(tmp_path, dns, mx) as office:

            async def run(n: int) -> None:
                domains = [f"d{n}-{number}.test" for number in range(MESSAGES)]  # nothing of them is known yet
                for domain in domains:
                    dns.set(domain, "MX", f"10 mx.{domain}.")
                    dns.set(f"mx.{domain}", "A", "127.0.0.1")
                await office.send(domains, "someone")
                await office.arrive()

            steps = await until_untouched(trouble, run)
            assert steps > 2 * MESSAGES - 1
            trouble.arm(0)
