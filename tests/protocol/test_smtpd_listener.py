"""Sockets: TCP, IPv6, unix, inherited ones; stopping."""

import asyncio
import os
import socket
from pathlib import Path
from typing import cast

import pytest
from protocol.smtpd_rig import BOUNCES, BOUND, IMPLICIT, LOCAL, PUBLIC, WAIT_S, Notebook, running, write_config
from structlog.testing import capture_logs

from arkrelay.config.live import Live
from arkrelay.model.errors import ConfigError
from arkrelay.relay.inbound import Inbound
from arkrelay.relay.submit import Submitter
from arkrelay.smtpd.listener import Doors, pair

V6 = BOUND.replace("127.0.0.1", "[::1]")


def unix(path: Path, tenant: str = 'tenant = "acme"\n') -> str:
    return f'[[listen]]\nservice = "submission"\naddress = "unix:{path}"\ntls = "none"\n{tenant}'


async def test_it_answers_on_ipv6(tmp_path: Path) -> None:
    async with running(tmp_path, V6) as rig:
        assert rig.endpoint().startswith("[::1]:")
        client = await rig.connect()
        await client.to_data()
        await client.expect("x\r\n.", 250)
        assert rig.notebook.submissions[0].client == "::1"


async def test_it_answers_on_a_unix_socket_and_knows_who_is_there(tmp_path: Path) -> None:
    path = tmp_path / "submit.sock"
    async with running(tmp_path, unix(path) + unix(tmp_path / "auth.sock", "")) as rig:
        assert rig.doors.addresses[0] == ("submission", f"unix:{path}")
        assert path.stat().st_mode & 0o777 == 0o660
        client = await rig.connect()
        await client.to_data()
        await client.expect("x\r\n.", 250)
        assert rig.notebook.submissions[0].client == f"unix:{os.getuid()}"
        other = await rig.connect(1)
        assert any(line.startswith("AUTH ") for line in (await other.expect("EHLO x", 250)).lines)
        await other.expect("MAIL FROM:<a@acme.test>", 530)
    assert not path.exists()


async def test_a_dead_process_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "submit.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with running(tmp_path, unix(path)) as rig:
        await rig.connect()
        second = Doors(rig.live, cast("Submitter", Notebook()), cast("Inbound", None), None)
        with pytest.raises(ConfigError, match="another process listens there"):
            await second.start()
        await rig.connect()


async def test_an_address_in_use_is_named_and_nothing_stays_bound(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path = write_config(tmp_path, BOUND + BOUND.replace(":0", f":{port}"))
        doors = Doors(Live(path), cast("Submitter", Notebook()), cast("Inbound", None), None)
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}"):
            await doors.start()
        assert doors._servers == []


async def test_sockets_of_systemd_are_used(tmp_path: Path) -> None:
    path = write_config(tmp_path, BOUND.replace(":0", ":587") + BOUNCES.replace(":0", ":25"))
    passed = {
        "submission": socket.create_server(("127.0.0.1", 0)),
        "127.0.0.1:25": socket.create_server(("127.0.0.1", 0)),
    }
    ports = {name: sock.getsockname()[1] for name, sock in passed.items()}
    doors = Doors(Live(path), cast("Submitter", Notebook()), cast("Inbound", None), None)
    await doors.start(passed)
    assert doors.addresses == [
        ("submission", f"127.0.0.1:{ports['submission']}"),
        ("bounces", f"127.0.0.1:{ports['127.0.0.1:25']}"),
    ]
    await doors.drain(WAIT_S)


async def test_a_public_socket_never_serves_a_listener_for_this_machine(tmp_path: Path) -> None:
    """Such a one may do without TLS and password."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    public = PUBLIC.replace("127.0.0.1:0", f"0.0.0.0:{port}")
    path = write_config(tmp_path, BOUND + public + unix(tmp_path / "submit.sock"))
    passed = {"submission": socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)}
    live = Live(path)
    pairs, unused = pair(live.snapshot.listeners, passed)
    assert {live.snapshot.listeners[index].address for index in pairs} == {f"0.0.0.0:{port}"}
    assert unused == {}
    pairs, unused = pair([live.snapshot.listeners[0], live.snapshot.listeners[2]], passed)
    assert (pairs, unused) == ({}, passed)
    passed["submission"].close()


async def test_a_socket_for_both_families_serves_both_listeners(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    path = write_config(
        tmp_path, BOUNCES.replace("127.0.0.1:0", f"0.0.0.0:{port}") + BOUNCES.replace("127.0.0.1:0", f"[::]:{port}")
    )
    passed = {"bounces": socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)}
    doors = Doors(Live(path), cast("Submitter", Notebook()), cast("Inbound", None), None)
    await doors.start(passed)
    assert doors.addresses == [("bounces", f"[::]:{port}")]
    for host in ("127.0.0.1", "::1"):
        reader, writer = await asyncio.open_connection(host, port)
        assert (await reader.readline()).startswith(b"220 ")
        writer.close()
        await writer.wait_closed()
    await doors.drain(WAIT_S)


async def test_a_socket_that_nobody_wants_is_closed(tmp_path: Path) -> None:
    path = write_config(tmp_path, BOUND)
    passed = {"bounces": socket.create_server(("127.0.0.1", 0))}
    doors = Doors(Live(path), cast("Submitter", Notebook()), cast("Inbound", None), None)
    with capture_logs() as lines:
        await doors.start(passed)
    assert passed["bounces"].fileno() == -1
    assert [line["name"] for line in lines if line["event"] == "inherited_socket_unused"] == ["bounces"]
    await doors.drain(WAIT_S)


async def test_small_replies_are_not_delayed(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        await rig.connect()
        (session,) = rig.doors._shared.sessions
        sock = session.live_transport().get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_stop_tells_idle_clients_and_lets_transactions_finish(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        idle, uploading, committing = await rig.connect(), await rig.connect(), await rig.connect()
        await idle.expect("EHLO client.test", 250)
        await uploading.to_data()
        await committing.to_data()
        rig.notebook.gate = asyncio.Event()
        committing.send(b"committing\r\n.\r\n")
        async with asyncio.timeout(WAIT_S):
            await rig.notebook.entered.wait()
            draining = asyncio.create_task(rig.doors.drain(WAIT_S))
            reply = await idle.reply()
            assert (reply.code, reply.text[:5]) == (421, "4.3.2")
            assert await idle.ended() == b""
            with pytest.raises(OSError, match=r"refused|Connect call failed"):
                await asyncio.open_connection("127.0.0.1", rig.port())
            uploading.send(b"uploading\r\n.\r\n")
            rig.notebook.gate.set()
            for client in (uploading, committing):
                assert [(await client.reply()).code for _ in range(2)] == [250, 421]
                assert await client.ended() == b""
            await draining
        assert rig.doors.sessions == 0
        assert {s.content for s in rig.notebook.submissions} == {b"committing\r\n", b"uploading\r\n"}


async def test_a_stop_waits_no_longer_than_it_was_told(tmp_path: Path) -> None:
    async with running(tmp_path, LOCAL + BOUND) as rig:
        client = await rig.connect(1)
        await client.to_data()
        async with asyncio.timeout(WAIT_S):
            await rig.doors.drain(0.05)
        assert rig.doors.sessions == 0
        assert await client.ended() == b""
        assert rig.notebook.submissions == []


async def test_a_stop_ends_handshakes_too(tmp_path: Path) -> None:
    async with running(tmp_path, IMPLICIT) as rig:
        client = await rig.connect(greeted=False)
        async with asyncio.timeout(WAIT_S):
            await asyncio.sleep(0)
            await rig.doors.drain(0.05)
        assert rig.doors.sessions == 0
        assert await client.ended() == b""


async def test_a_commit_without_its_client_is_waited_for(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        rig.notebook.gate = asyncio.Event()
        client = await rig.connect()
        await client.to_data()
        client.send(b"x\r\n.\r\n")
        async with asyncio.timeout(WAIT_S):
            await rig.notebook.entered.wait()
            client.reset()
            await rig.until_idle()
            draining = asyncio.create_task(rig.doors.drain(WAIT_S))
            await asyncio.sleep(0)
            assert not draining.done()
            rig.notebook.gate.set()
            await draining
        assert len(rig.notebook.submissions) == 1
