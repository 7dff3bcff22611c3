"""Port 25: postmaster and nobody else."""

import errno
from pathlib import Path

import pytest
from protocol.smtpd_rig import BOUNCES, Client, running

from arkrelay.smtpd import bounces


async def mail_postmaster(client: Client, content: bytes = b"Subject: help\r\n\r\nhelp\r\n", code: int = 250) -> str:
    await client.expect("EHLO stranger.test", 250)
    await client.expect("MAIL FROM:<ann@stranger.test>", 250)
    await client.expect("RCPT TO:<postmaster@relay.test>", 250)
    await client.expect("DATA", 354)
    return (await client.expect(content + b".", code)).text


async def test_it_announces_no_auth_and_no_dsn(tmp_path: Path) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        client = await rig.connect()
        lines = set((await client.expect("EHLO stranger.test", 250)).lines[1:])
        assert lines == {
            "PIPELINING",
            "SIZE 1000000",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
            "LIMITS RCPTMAX=1000",
            "STARTTLS",
        }
        await client.expect("AUTH PLAIN", 502)
        await client.expect("MAIL FROM:<a@b.test> RET=FULL", 555)


@pytest.mark.parametrize(
    "recipient",
    [
        "postmaster",
        "Postmaster@relay.test",
        "POSTMASTER@rp.relay.test",
        "postmaster@psrp.acme.test",
    ],
)
async def test_postmaster_is_taken(tmp_path: Path, recipient: str) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        client = await rig.connect()
        await client.expect("EHLO stranger.test", 250)
        await client.expect("MAIL FROM:<>", 250)
        await client.expect(f"RCPT TO:<{recipient}>", 250)


@pytest.mark.parametrize(
    "recipient",
    [
        "ann@relay.test",
        "postmaster@elsewhere.test",
        "postmaster@psrp.elsewhere.test",
        "postmaster@acme.test",
        "postmaster%elsewhere.test@relay.test",
        "elsewhere.test!postmaster@relay.test",
        '"postmaster@elsewhere.test"@relay.test',
        "postmaster+x@relay.test",
        "babcdef@rp.relay.test",
        "root@localhost.test",
    ],
)
async def test_everything_else_is_unknown_and_never_relayed(tmp_path: Path, recipient: str) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        client = await rig.connect()
        await client.expect("EHLO stranger.test", 250)
        await client.expect("MAIL FROM:<app@acme.test>", 250)
        assert (await client.expect(f"RCPT TO:<{recipient}>", 550)).text == "5.1.1 No such address here"
        await client.expect("DATA", 554)
        assert rig.notebook.submissions == []


async def test_postmasters_mail_is_kept_as_a_file(tmp_path: Path) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        client = await rig.connect()
        await client.expect("EHLO stranger.test", 250)
        await client.expect("STARTTLS", 220)
        await client.start_tls(rig.tls)
        await mail_postmaster(client)
        (path,) = (tmp_path / "state" / "postmaster").iterdir()
        lines = path.read_bytes().split(b"\r\n")
        assert lines[0] == b"Return-Path: <ann@stranger.test>"
        assert lines[1] == b"Received: from stranger.test (127.0.0.1) by relay.test with ESMTPS;"
        assert path.read_bytes().endswith(b"\r\nSubject: help\r\n\r\nhelp\r\n")
        assert path.suffix == ".eml"
        assert rig.notebook.submissions == []


async def test_a_large_message_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        client = await rig.connect()
        await mail_postmaster(client, b"x" * 999_999 + b"\r\n", 552)
        assert not (tmp_path / "state" / "postmaster").exists()


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 452), (errno.EIO, 451)])
async def test_a_disk_in_trouble_is_the_senders_to_wait_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    def broken(_folder: Path, _content: bytes) -> Path:
        raise OSError(number, "trouble at /secret/path")

    monkeypatch.setattr(bounces, "save_postmaster_mail", broken)
    async with running(tmp_path, BOUNCES) as rig:
        text = await mail_postmaster(await rig.connect(), code=code)
        assert "secret" not in text


@pytest.mark.parametrize("end", [b"\n.\r\n", b"\r\n.\n", b"\r.\r"])
async def test_nothing_is_smuggled_through_it(tmp_path: Path, end: bytes) -> None:
    async with running(tmp_path, BOUNCES) as rig:
        client = await rig.connect()
        smuggled = b"x" + end + b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\ny\r\n"
        await mail_postmaster(client, smuggled, 550 if b"\r." in end.replace(b"\r\n", b"") else 250)
        await client.expect("NOOP", 250)
