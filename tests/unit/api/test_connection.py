"""Slow, greedy and rude clients on real sockets; the watch's clock is turned by hand."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import structlog
from aiohttp import web
from peers.certificates import authority, valid

from arkrelay.api.app import new_handler
from arkrelay.api.auth import watch_connection
from arkrelay.api.connection import Connection, Connections, Deadlines
from arkrelay.api.errors import answer_errors, finish_headers
from arkrelay.policy.limits import is_trusted, network_of

WAIT_S = 20.0
BIG = 30_000_000  # more than the kernel's buffers take
Trusted = Callable[[str], bool]


class Door:
    """A small server: /ok answers, /slow when ``gate`` is set, /big with more than a socket holds, /echo the body."""

    def __init__(self, connections: Connections) -> None:
        self.connections = connections
        self.port = 0
        self.gate = asyncio.Event()
        self.entered = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    async def ok(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def slow(self, _: web.Request) -> web.Response:
        self.entered.set()
        await self.gate.wait()
        return web.Response(text="slow")

    async def big(self, _: web.Request) -> web.Response:
        self.entered.set()
        return web.Response(body=b"x" * BIG)

    async def echo(self, request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def connect(self, *, tls: bool = False) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = ssl.create_default_context(cafile=authority().ca_file) if tls else None
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        self._writers.append(writer)
        return reader, writer

    async def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def turn(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.connections.turn()

    async def counted(self, number: int) -> None:
        """Return when the server sees so many connections."""
        async with asyncio.timeout(WAIT_S):
            while True:
                if len(self.connections) == number:
                    return
                await asyncio.sleep(0.005)

    async def cut(self, reader: asyncio.StreamReader) -> bytes:
        """Turn the clock until the connection ends, and return what came before that."""
        found = b""
        async with asyncio.timeout(WAIT_S):
            while True:
                self.connections.turn()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.01):
                        try:
                            data = await reader.read(65536)
                        except OSError:
                            return found
                        if not data:
                            return found
                        found += data


@asynccontextmanager
async def opened(
    most: int = 100, *, trusted: Trusted = lambda _: True, tls: bool = False, handshake_s: float = 10.0
) -> AsyncIterator[Door]:
    connections = Connections(most, Deadlines(handshake_s=handshake_s), trusted)
    door = Door(connections)
    app = web.Application(middlewares=[watch_connection, answer_errors], client_max_size=2 * BIG)
    app.on_response_prepare.append(finish_headers)
    app.router.add_get("/ok", door.ok)
    app.router.add_get("/slow", door.slow)
    app.router.add_get("/big", door.big)
    app.router.add_post("/echo", door.echo)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    assert runner.server is not None
    handler = partial(new_handler, runner.server)
    context = valid("relay.test").server_context if tls else None
    server = await asyncio.get_running_loop().create_server(
        partial(Connection, connections, handler, context), "127.0.0.1", 0
    )
    door.port = server.sockets[0].getsockname()[1]
    try:
        yield door
    finally:
        await door.close()
        server.close()
        await runner.cleanup()
        connections.abort()
        await door.counted(0)


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Return status, fields and body of one answer."""
    async with asyncio.timeout(WAIT_S):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        return int(head[0].split()[1]), fields, await reader.readexactly(int(fields["content-length"]))


async def test_a_silent_connection_is_cut() -> None:
    async with opened() as door:
        reader, _ = await door.connect()
        await door.counted(1)
        door.turn(9)
        assert len(door.connections) == 1
        assert await door.cut(reader) == b""
        await door.counted(0)


async def test_a_head_that_drips_is_cut() -> None:
    async with opened() as door:
        reader, writer = await door.connect()
        writer.write(b"GET /ok HTTP/1.1\r\nHost: x\r\n")
        await door.counted(1)

        async def drip() -> None:
            with contextlib.suppress(OSError):
                while True:
                    writer.write(b"X-A: b\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.001)

        dripping = asyncio.create_task(drip())
        assert await door.cut(reader) == b""
        dripping.cancel()


async def test_a_kept_connection_may_be_idle_and_its_next_head_may_not_drip() -> None:
    async with opened() as door:
        reader, writer = await door.connect()
        for _ in range(2):
            writer.write(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await answer(reader))[2] == b"ok"
            door.turn(60)
        writer.write(b"GET /ok HT")
        await writer.drain()
        assert await door.cut(reader) == b""


async def test_a_request_that_takes_long_is_not_cut() -> None:
    async with opened() as door:
        reader, writer = await door.connect()
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await door.entered.wait()
        door.turn(600)
        door.gate.set()
        assert (await answer(reader))[2] == b"slow"


async def test_requests_sent_together_are_all_answered() -> None:
    async with opened() as door:
        reader, writer = await door.connect()
        writer.write(
            b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n" * 3
            + b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
        )
        assert [(await answer(reader))[2] for _ in range(4)] == [b"ok", b"ok", b"ok", b"abc"]


async def test_who_does_not_read_the_answer_is_cut() -> None:
    async with opened() as door:
        _, writer = await door.connect()
        transport = writer.transport
        assert isinstance(transport, asyncio.ReadTransport)
        transport.pause_reading()
        writer.write(b"GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await door.entered.wait()
        for _ in range(20):  # until the answer fills the socket
            await asyncio.sleep(0)
        door.turn(59)
        assert len(door.connections) == 1
        async with asyncio.timeout(WAIT_S):
            while len(door.connections):
                door.connections.turn()
                await asyncio.sleep(0.001)


async def test_a_long_answer_has_longer_to_be_read() -> None:
    async with opened() as door:
        reader, writer = await door.connect()
        writer.write(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        await door.entered.wait()
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.01)
        door.turn(120)  # 60 s and a second for each 10 000 bytes
        async with asyncio.timeout(WAIT_S):
            assert len(await reader.readexactly(BIG)) == BIG


async def test_no_more_connections_than_the_limit() -> None:
    async with opened(2) as door:
        _, first = await door.connect()
        await door.connect()
        await door.counted(2)
        reader, _ = await door.connect()
        with contextlib.suppress(OSError):
            assert await reader.read() == b""
        first.close()
        await door.counted(1)
        reader, writer = await door.connect()
        writer.write(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await answer(reader))[0] == 200


async def test_one_stranger_gets_half_of_them() -> None:
    with structlog.testing.capture_logs() as logs:
        async with opened(4, trusted=lambda _: False) as door:
            await door.connect()
            await door.connect()
            await door.counted(2)
            for _ in range(3):
                reader, _ = await door.connect()
                with contextlib.suppress(OSError):
                    assert await reader.read() == b""
    assert [line["event"] for line in logs] == ["too_many_connections"]


async def test_tls_is_served_and_a_hanging_handshake_is_counted_and_cut() -> None:
    async with opened(tls=True, handshake_s=2.0) as door:
        reader, writer = await door.connect(tls=True)
        writer.write(b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await answer(reader))[2] == b"ok"
        reader, _ = await door.connect()
        await door.counted(2)
        async with asyncio.timeout(WAIT_S):
            with contextlib.suppress(OSError):
                assert await reader.read() == b""
        await door.counted(1)


async def test_plain_http_on_a_tls_port_ends_without_an_answer() -> None:
    async with opened(tls=True) as door:
        reader, writer = await door.connect()
        writer.write(b"GET /ok HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ark_live_x\r\n\r\n")
        async with asyncio.timeout(WAIT_S):
            with contextlib.suppress(OSError):
                assert b"HTTP" not in await reader.read()
        await door.counted(0)


async def test_data_that_comes_with_the_handshake_is_not_lost() -> None:
    async with opened(tls=True) as door:
        for _ in range(20):
            reader, writer = await door.connect(tls=True)
            writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc")
            assert (await answer(reader))[2] == b"abc"


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", id="tls-hello"),
        pytest.param(b"EHLO client.test\r\n\r\n", id="smtp"),
        pytest.param(b"GET /ok\r\n\r\n", id="http-0.9"),
        pytest.param(b"GET /ok HTTP/1.1\r\nAuthorization Bearer ark_live_secret\r\n\r\n", id="no-colon"),
        pytest.param(b"GET /ok HTTP/1.1\r\nAuthorization : Bearer ark_live_secret\r\n\r\n", id="space-before-colon"),
        pytest.param(b"GET /ok HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", id="long-field"),
        pytest.param(b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", id="long-target"),
        pytest.param(b"GET /ok HTTP/1.1\r\n" + b"X: a\r\n" * 1000 + b"\r\n", id="many-fields"),
        pytest.param(b"GET /ok HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", id="host-twice"),
        pytest.param(
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="length-and-chunks",
        ),
        pytest.param(
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", id="length-twice"
        ),
        pytest.param(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc", id="length-with-sign"),
        pytest.param(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\nabc", id="negative-length"),
        pytest.param(
            b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            id="unknown-transfer-encoding",
        ),
        pytest.param(
            b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            id="chunked-not-last",
        ),
        pytest.param(
            b"POST /echo HTTP/1.1\r\nHost: x\r\n" + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
            id="chunked-twice",
        ),
        pytest.param(b"GET /ok HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", id="nul"),
    ],
)
async def test_what_is_not_clearly_http_is_refused_without_echo(request_bytes: bytes) -> None:
    with structlog.testing.capture_logs() as logs:
        async with opened() as door:
            reader, writer = await door.connect()
            writer.write(request_bytes + b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n")
            status, fields, body = await answer(reader)
            async with asyncio.timeout(WAIT_S):
                with contextlib.suppress(OSError):
                    assert await reader.read() == b""  # what stood behind it was not taken for a request
    assert 400 <= status < 500
    assert json.loads(body)["meta"]["requestId"] == fields["x-request-id"]
    assert b"secret" not in body
    assert [line for line in logs if line["log_level"] != "debug"] == []
    assert "secret" not in str(logs)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_one_client_is_an_ipv4_address_or_a_64(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("127.0.0.9", True),
        ("::ffff:127.0.0.1", True),
        ("::1", True),
        ("192.0.2.1", False),
        ("", True),
        ("odd", False),
    ],
)
def test_trusted_addresses_are_networks(address: str, trusted: bool) -> None:
    assert is_trusted(address, ("127.0.0.0/8", "::1/128")) is trusted
