"""Clients that flood, drip, say nothing, read nothing or come too often."""

import asyncio
import gc
import os
import socket
import struct
from pathlib import Path

import pytest
from protocol.smtpd_rig import BOUNCES, BOUND, IMPLICIT, LOCAL, WAIT_S, Client, Rig, running

from arkrelay.smtpd import transaction

SHORT = 'idle_timeout = "150ms"\n'
STRANGERS = "tarpit = '0s'\ntrusted_addresses = []\n"


async def drip(client: Client, data: bytes, every_s: float = 0.02) -> None:
    """Send byte by byte, for ever, until the server has gone."""
    while not client.reader.at_eof():
        for byte in data:
            client.send(bytes([byte]))
            await asyncio.sleep(every_s)
            if client.reader.at_eof():
                return


@pytest.mark.parametrize("listen", [BOUND, LOCAL, BOUNCES])
async def test_a_silent_client_is_told_and_closed(tmp_path: Path, listen: str) -> None:
    async with running(tmp_path, listen, smtp=SHORT) as rig:
        client = await rig.connect()
        reply = await client.reply()
        assert (reply.code, reply.text[:5]) == (421, "4.4.2")
        assert await client.ended() == b""
        await rig.until_idle()


@pytest.mark.parametrize("data", [b"x", b"NOOP\r\n"], ids=["an-endless-command", "noop"])
async def test_dripping_does_not_keep_a_session(tmp_path: Path, data: bytes) -> None:
    async with running(tmp_path, smtp=SHORT) as rig:
        client = await rig.connect()
        async with asyncio.timeout(WAIT_S):
            dripping = asyncio.create_task(drip(client, data))
            rest = await client.reader.read()
            dripping.cancel()
            await asyncio.gather(dripping, return_exceptions=True)
        assert rest.endswith(b"421 4.4.2 Timeout, closing connection\r\n")
        await rig.until_idle()


async def test_data_below_the_least_rate_is_cut(tmp_path: Path) -> None:
    async with running(tmp_path, smtp=SHORT) as rig:
        client = await rig.connect()
        await client.to_data()
        async with asyncio.timeout(WAIT_S):
            dripping = asyncio.create_task(drip(client, b"x\r\n"))
            last = await client.reader.readline()  # behind it may come a reset, since we were still sending
            dripping.cancel()
            await asyncio.gather(dripping, return_exceptions=True)
        assert last.startswith(b"421 4.4.2 ")
        assert rig.notebook.submissions == []


async def test_a_steady_upload_may_take_longer_than_the_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "MIN_RATE", 100.0)
    async with running(tmp_path, smtp=SHORT) as rig:
        client = await rig.connect()
        await client.to_data()
        loop = asyncio.get_running_loop()
        started = loop.time()
        while loop.time() - started < 0.6:
            client.send(b"x" * 10 + b"\r\n")
            await asyncio.sleep(0.02)
        await client.expect(".", 250)
        assert len(rig.notebook.submissions) == 1


@pytest.mark.parametrize("command", [b"NOOP\r\n", b"EHLO x\r\n", b"RCPT TO:<a@dest.test>\r\n"])
async def test_a_client_that_never_reads_is_dropped(tmp_path: Path, command: bytes) -> None:
    """Its replies fill the socket, the server stops reading, and the deadline aborts what close() would wait for."""
    limits = "tarpit = '0s'\nconnections_per_address = 0\n"
    async with running(tmp_path, smtp='idle_timeout = "300ms"\nmax_recipients = 1000000\n', limits=limits) as rig:
        loop = asyncio.get_running_loop()
        sockets = [socket.socket() for _ in range(2)]
        try:
            for sock in sockets:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # soon full
                sock.setblocking(False)
                await loop.sock_connect(sock, ("127.0.0.1", rig.port()))
                await loop.sock_recv(sock, 10)  # of the greeting; nothing more is read

            async def pour(sock: socket.socket) -> None:
                try:
                    await loop.sock_sendall(sock, b"EHLO x\r\nMAIL FROM:<a@acme.test>\r\n")
                    while True:
                        await loop.sock_sendall(sock, command * 1000)
                except OSError:
                    return

            async with asyncio.timeout(WAIT_S):
                pouring = asyncio.gather(*(pour(sock) for sock in sockets))
                most = 0
                while rig.doors.sessions:
                    most = max(most, *(len(s.input.buffer) for s in rig.doors._shared.sessions))
                    await asyncio.sleep(0.01)
                await pouring
            assert most <= 400_000
        finally:
            for sock in sockets:
                sock.close()


async def test_a_client_that_reads_late_gets_every_reply(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", rig.port()))
            async with asyncio.timeout(WAIT_S):
                await loop.sock_recv(sock, 100)
                commands = (
                    b"EHLO x\r\nMAIL FROM:<a@acme.test>\r\n" + b"RCPT TO:<a@dest.test>\r\n" * 20_000 + b"QUIT\r\n"
                )
                (session,) = rig.doors._shared.sessions
                blocked, pause = asyncio.Event(), session.pause_writing

                def noted() -> None:
                    pause()
                    blocked.set()

                session.pause_writing = noted  # type: ignore[method-assign]  # to learn that it happened
                sending = asyncio.create_task(loop.sock_sendall(sock, commands))
                await blocked.wait()
                heard = b""
                while chunk := await loop.sock_recv(sock, 65_536):
                    heard += chunk
                await sending
        assert heard.count(b"250 2.1.5 ") == 1000
        assert heard.count(b"452 4.5.3 ") == 19_000
        assert heard.endswith(b"221 2.0.0 Bye\r\n")


async def test_a_full_socket_is_aborted_at_the_deadline(tmp_path: Path) -> None:
    """The same without the limits on commands: the transport's buffer is not empty when the time is over."""
    async with running(tmp_path, smtp=SHORT) as rig:
        client = await rig.connect()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport can
        (session,) = rig.doors._shared.sessions
        filler = b"x" * 1_000_000
        while session.live_transport().get_write_buffer_size() == 0:
            session.live_transport().write(filler)
        await rig.until_idle()


@pytest.mark.parametrize("flood", [b"x", b"NOOP\r\n", b"\r\n", b"\xff", b"RCPT TO:<a@b.test>\r\n", b"AUTH PLAIN\r\n"])
async def test_a_flood_is_ended_and_costs_no_memory(tmp_path: Path, flood: bytes) -> None:
    async with running(tmp_path, LOCAL, smtp='idle_timeout = "1s"\n') as rig:
        client = await rig.connect()
        (session,) = rig.doors._shared.sessions
        most = 0
        reading = asyncio.create_task(client.ended())
        try:
            for _ in range(200):
                client.send(flood * (50_000 // len(flood)))
                await client.writer.drain()
                most = max(most, len(session.input.buffer))
                if reading.done():
                    break
        except OSError:
            pass
        await reading
        assert most <= 400_000


async def test_resets_at_every_stage_leave_nothing(tmp_path: Path) -> None:
    stages = ["EHLO x", "MAIL FROM:<a@acme.test>", "RCPT TO:<a@dest.test>", "DATA", "half a line"]
    async with running(tmp_path) as rig:
        for count in range(len(stages) + 1):
            client = await rig.connect()
            for command in stages[:count]:
                if command == stages[-1]:
                    client.send(command.encode())
                    await client.writer.drain()
                else:
                    assert (await client.ask(command)).code in (250, 354)
            client.reset()
            await rig.until_idle()
        assert rig.notebook.submissions == []


async def test_bytes_before_the_greeting_are_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        with socket.socket() as sock:
            sock.connect(("127.0.0.1", rig.port()))  # the loop has not turned: nobody has accepted yet
            sock.sendall(b"EHLO early.test\r\nMAIL FROM:<a@acme.test>\r\n")
            client = Client(*await asyncio.open_connection(sock=sock.dup()))
            rig.clients.append(client)
            reply = await client.reply()
            assert (reply.code, reply.text[:5]) == (554, "5.5.0")
            assert await client.ended() == b""


# Limits of one address.


async def test_connections_at_once_are_limited_per_address(tmp_path: Path) -> None:
    async with running(tmp_path, limits=STRANGERS + "connections_per_address = 3\n") as rig:
        clients = [await rig.connect() for _ in range(3)]
        refused = await rig.connect(greeted=False)
        reply = await refused.reply()
        assert (reply.code, reply.text[:5]) == (421, "4.7.0")
        assert await refused.ended() == b""
        for client in clients:
            client.reset()
        await rig.until_idle()
        await rig.connect()


async def test_connections_per_minute_are_limited_per_address(tmp_path: Path) -> None:
    async with running(tmp_path, BOUND + IMPLICIT, limits=STRANGERS + "connections_per_minute = 3\n") as rig:
        for _ in range(3):
            client = await rig.connect()
            await client.expect("QUIT", 221)
        refused = await rig.connect(greeted=False)
        assert (await refused.reply()).code == 421
        encrypted = await rig.connect(1, greeted=False)
        assert await encrypted.ended() == b""  # nothing in the clear where TLS is spoken


async def test_the_doors_leave_descriptors_for_the_rest(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        rig.doors._shared.max_sessions = 5
        for _ in range(5):
            await rig.connect()
        for _ in range(20):
            client = await rig.connect(greeted=False)
            assert (await client.reply()).code == 421
        for client in rig.clients[:5]:
            client.reset()
        await rig.until_idle()
        await rig.connect()


async def test_an_idle_connection_is_cheap_and_freed(tmp_path: Path) -> None:
    def resident() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    async def connect(rig: Rig) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", rig.port()))
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_recv(sock, 100)
        return sock

    limits = "tarpit = '0s'\nconnections_per_address = 0\n"
    async with running(tmp_path, limits=limits) as rig:
        sockets = [await connect(rig) for _ in range(20)]
        before = resident()
        sockets += [await connect(rig) for _ in range(200)]
        grown = resident() - before
        for sock in sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        await rig.until_idle()
        gc.collect()
        assert grown / 200 < 40_000
