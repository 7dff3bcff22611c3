"""TLS at the doors: STARTTLS and implicit, and what an attacker in the middle may try."""

import asyncio
import base64
import ssl
from pathlib import Path

import pytest
from protocol.saslclients import plain
from protocol.smtpd_rig import BOUND, IMPLICIT, KEY, PUBLIC, WAIT_S, Client, running

from arkrelay.smtpd import connection

LOGIN = "AUTH PLAIN " + base64.b64encode(plain("acme/production", KEY)).decode()


async def send_message(client: Client) -> None:
    await client.to_rcpt()
    await client.expect("DATA", 354)
    await client.expect("x\r\n.", 250)


async def test_submission_wants_starttls_before_anything_else(tmp_path: Path) -> None:
    async with running(tmp_path, PUBLIC) as rig:
        client = await rig.connect()
        lines = (await client.expect("EHLO client.test", 250)).lines
        assert "STARTTLS" in lines
        assert not any(line.startswith("AUTH") for line in lines)
        assert (await client.expect(LOGIN, 538)).text.startswith("5.7.11 ")
        assert "STARTTLS" in (await client.expect("MAIL FROM:<app@acme.test>", 530)).text
        await client.expect("STARTTLS now", 501)
        assert (await client.expect("STARTTLS", 220)).text.startswith("2.0.0 ")
        await client.start_tls(rig.tls)
        await client.expect("MAIL FROM:<app@acme.test>", 530)
        lines = (await client.expect("EHLO client.test", 250)).lines
        assert "STARTTLS" not in lines
        assert "AUTH PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256" in lines
        await client.expect("STARTTLS", 503)
        await client.expect(LOGIN, 235)
        await send_message(client)
        assert rig.notebook.submissions[0].protocol == "ESMTPSA"
        assert rig.notebook.submissions[0].credential == "production"


async def test_submissions_offers_auth_inside_its_tls(tmp_path: Path) -> None:
    async with running(tmp_path, IMPLICIT) as rig:
        client = await rig.connect(tls=True)
        await client.expect("EHLO client.test", 250)
        await client.expect("STARTTLS", 503)
        await client.expect("MAIL FROM:<app@acme.test>", 530)
        await client.expect(LOGIN, 235)
        await send_message(client)
        assert rig.notebook.submissions[0].protocol == "ESMTPSA"
        await client.expect("QUIT", 221)
        await client.close()
        await rig.until_idle()


@pytest.mark.parametrize(
    "injected", [b"NOOP\r\n", b"MAIL FROM:<evil@acme.test>\r\n", b"x", b"x" * 5000, b"x" * 300_000]
)
async def test_bytes_behind_starttls_are_refused_and_the_connection_closed(tmp_path: Path, injected: bytes) -> None:
    async with running(tmp_path, PUBLIC) as rig:
        client = await rig.connect()
        await client.expect("EHLO client.test", 250)
        client.send(b"STARTTLS\r\n" + injected)
        reply = await client.reply()
        assert (reply.code, reply.text[:5]) == (554, "5.5.0")
        assert await client.ended() == b""
        await client.close()
        await rig.until_idle()


async def test_all_that_was_said_in_the_clear_is_forgotten(tmp_path: Path) -> None:
    async with running(tmp_path, BOUND) as rig:
        client = await rig.connect()
        await client.expect("EHLO liar.test", 250)
        await client.expect(LOGIN, 235)
        await client.expect("MAIL FROM:<app@acme.test>", 250)
        await client.expect("STARTTLS", 220)
        await client.start_tls(rig.tls)
        await client.expect("RCPT TO:<ann@dest.test>", 503)
        await client.expect("MAIL FROM:<app@acme.test>", 503)
        await client.expect(LOGIN, 503)
        await client.expect("EHLO client.test", 250)
        await client.expect(LOGIN, 235)
        await send_message(client)
        assert rig.notebook.submissions[0].helo == "client.test"


async def test_a_bound_listener_under_tls_is_esmtps(tmp_path: Path) -> None:
    async with running(tmp_path, BOUND) as rig:
        client = await rig.connect()
        await client.expect("EHLO client.test", 250)
        await client.expect("STARTTLS", 220)
        await client.start_tls(rig.tls)
        await send_message(client)
        assert rig.notebook.submissions[0].protocol == "ESMTPS"


@pytest.mark.parametrize("listen", [PUBLIC, IMPLICIT])
@pytest.mark.parametrize("rubbish", [b"EHLO client.test\r\n", b"\x16\x03\x01" + b"\xff" * 100, b""])
async def test_a_failed_handshake_leaves_nothing_behind(tmp_path: Path, listen: str, rubbish: bytes) -> None:
    async with running(tmp_path, listen) as rig:
        client = await rig.connect(greeted=listen == PUBLIC)
        if listen == PUBLIC:
            await client.expect("EHLO client.test", 250)
            await client.expect("STARTTLS", 220)
        client.send(rubbish)
        client.writer.write_eof()
        await client.ended()
        await rig.until_idle()
        fresh = await rig.connect(tls=listen == IMPLICIT)
        await fresh.expect("NOOP", 250)


async def test_a_silent_handshake_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HANDSHAKE_S", 0.05)
    async with running(tmp_path, IMPLICIT) as rig:
        client = await rig.connect(greeted=False)
        assert await client.ended() == b""
        await rig.until_idle()


async def test_old_tls_is_not_spoken(tmp_path: Path) -> None:
    async with running(tmp_path, IMPLICIT) as rig:
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname = False
        old.verify_mode = ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="deprecated"):
            old.minimum_version = ssl.TLSVersion.TLSv1
        with pytest.warns(DeprecationWarning, match="deprecated"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with asyncio.timeout(WAIT_S):
                await asyncio.open_connection("127.0.0.1", rig.port(), ssl=old)
        await rig.until_idle()


@pytest.mark.parametrize("cut", [False, True])
async def test_large_messages_pass_through_tls(tmp_path: Path, cut: bool) -> None:
    async with running(tmp_path, IMPLICIT) as rig:
        client = await rig.connect(tls=True)
        await client.expect("EHLO client.test", 250)
        await client.expect(LOGIN, 235)
        await client.to_rcpt()
        await client.expect("DATA", 354)
        body = (b"y" * 900 + b"\r\n") * 2000
        client.send(body[: len(body) // 2] if cut else body + b".\r\n")
        if cut:
            await client.writer.drain()
            client.reset()
            await rig.until_idle()
            assert rig.notebook.submissions == []
        else:
            assert (await client.reply()).code == 250
            assert rig.notebook.submissions[0].content == body


@pytest.mark.parametrize("listen", [IMPLICIT, PUBLIC])
def test_uvloop_reads_early_and_loses_nothing(tmp_path: Path, listen: str) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def talk() -> None:
        async with running(tmp_path, listen) as rig:
            for _ in range(10):
                client = await rig.connect(tls=listen == IMPLICIT)
                if listen == PUBLIC:
                    await client.expect("EHLO client.test", 250)
                    await client.expect("STARTTLS", 220)
                    await client.start_tls(rig.tls)
                await client.expect("EHLO client.test", 250)
                await client.expect(LOGIN, 235)
                await send_message(client)
                await client.expect("QUIT", 221)
                await client.close()
            assert len(rig.notebook.submissions) == 10

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(talk())


async def test_the_client_may_speak_in_the_same_breath_as_its_handshake(tmp_path: Path) -> None:
    """A flood right behind the handshake must not pause a transport that nobody resumes."""
    async with running(tmp_path, PUBLIC) as rig:
        client = await rig.connect()
        await client.expect("EHLO client.test", 250)
        await client.expect("STARTTLS", 220)
        await client.start_tls(rig.tls)
        client.send(b"EHLO client.test\r\n" + b"RCPT TO:<x@dest.test>\r\n" * 5)
        assert (await client.reply()).code == 250
        assert [(await client.reply()).code for _ in range(5)] == [530] * 5
