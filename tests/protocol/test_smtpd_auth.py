"""AUTH against the running doors: every mechanism, every mistake, every limit."""

import asyncio
import base64
import smtplib
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from protocol.saslclients import Dialogue, cram_md5, digest_md5, plain, scram_sha_256
from protocol.smtpd_rig import (
    ACME,
    API_KEY,
    BOUND,
    HELD_KEY,
    IMPLICIT,
    KEY,
    LOCAL,
    MUTE_KEY,
    OTHER_KEY,
    PUBLIC,
    SUSPENDED_KEY,
    Client,
    Reply,
    Rig,
    running,
)

STRANGERS = "tarpit = '0s'\ntrusted_addresses = []\n"  # as if the clients were not on this machine
ALL = 'auth_mechanisms = ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "DIGEST-MD5"]\n'
FIRST: dict[str, Callable[[str, str], Dialogue]] = {
    "CRAM-MD5": cram_md5,
    "SCRAM-SHA-256": scram_sha_256,
    "DIGEST-MD5": digest_md5,
}
INITIAL = {"SCRAM-SHA-256"}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def converse(client: Client, mechanism: str, dialogue: Dialogue) -> Reply:
    """Run a mechanism to its end and return the last reply."""
    first = next(dialogue)
    reply = await client.ask(f"AUTH {mechanism} {b64(first)}" if mechanism in INITIAL else f"AUTH {mechanism}")
    while reply.code == 334:
        reply = await client.ask(b64(dialogue.send(base64.b64decode(reply.text))))
    return reply


async def log_in(client: Client, mechanism: str, username: str, password: str) -> Reply:
    match mechanism:
        case "PLAIN":
            return await client.ask(f"AUTH PLAIN {b64(plain(username, password))}")
        case "LOGIN":
            assert base64.b64decode((await client.expect("AUTH LOGIN", 334)).text) == b"Username:"
            assert base64.b64decode((await client.expect(b64(username.encode()), 334)).text) == b"Password:"
            return await client.ask(b64(password.encode()))
    return await converse(client, mechanism, FIRST[mechanism](username, password))


async def greeted(rig: Rig, index: int = 0, *, tls: bool = False) -> Client:
    client = await rig.connect(index, tls=tls)
    await client.expect("EHLO client.test", 250)
    return client


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "DIGEST-MD5"])
async def test_every_mechanism_opens_the_door(tmp_path: Path, mechanism: str) -> None:
    async with running(tmp_path, LOCAL, smtp=ALL) as rig:
        for username in ("acme/production", f"acme/{KEY}", KEY):
            client = await greeted(rig)
            reply = await log_in(client, mechanism, username, KEY)
            assert (reply.code, reply.text[:5]) == (235, "2.7.0")
            await client.expect("AUTH PLAIN", 503)
            await client.expect("MAIL FROM:<app@acme.test>", 250)
            await client.expect("RCPT TO:<ann@dest.test>", 250)
            await client.expect("DATA", 354)
            await client.expect("x\r\n.", 250)
        assert {(s.tenant_id, s.credential, s.protocol) for s in rig.notebook.submissions} == {
            ("acme", "production", "ESMTPA")
        }


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "DIGEST-MD5"])
async def test_every_failure_is_told_in_the_same_words(tmp_path: Path, mechanism: str) -> None:
    cases = [
        ("acme/production", "wrong"),
        ("nobody", "wrong"),
        ("other/production", KEY),
        ("acme/production", OTHER_KEY),
        ("gone/production", SUSPENDED_KEY),
        ("acme/held", HELD_KEY),
        ("acme/mute", MUTE_KEY),
        ("acme/rest", API_KEY),
    ]
    async with running(tmp_path, LOCAL, smtp=ALL) as rig:
        heard = set()
        for username, password in cases:
            client = await greeted(rig)
            reply = await log_in(client, mechanism, username, password)
            heard.add((reply.code, reply.text))
            await client.expect("MAIL FROM:<app@acme.test>", 530)
        assert heard == {(535, "5.7.8 Authentication credentials invalid")}


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("method", ["auth_plain", "auth_login", "auth_cram_md5"])
async def test_smtplib_logs_in(tmp_path: Path, method: str, implicit: bool) -> None:
    def send(port: int, context: ssl.SSLContext) -> None:
        host = "127.0.0.1"
        client: smtplib.SMTP
        if implicit:
            client = smtplib.SMTP_SSL(host, port, context=context, timeout=10)
        else:
            client = smtplib.SMTP(host, port, timeout=10)
            client.starttls(context=context)
        with client:
            client.ehlo()
            client.user, client.password = "acme/production", KEY
            client.auth(method.removeprefix("auth_").upper().replace("_", "-"), getattr(client, method))
            client.sendmail("app@acme.test", ["ann@dest.test"], "Subject: x\n\n.dot\n")

    async with running(tmp_path, IMPLICIT if implicit else PUBLIC) as rig:
        rig.tls.check_hostname = False
        await asyncio.to_thread(send, rig.port(), rig.tls)
        assert rig.notebook.submissions[0].content == b"Subject: x\r\n\r\n.dot\r\n"
        assert rig.notebook.submissions[0].protocol == "ESMTPSA"


@pytest.mark.parametrize(
    ("command", "code", "enhanced"),
    [
        ("AUTH", 501, "5.5.4"),
        ("AUTH PLAIN a b", 501, "5.5.4"),
        ("AUTH XOAUTH2", 504, "5.5.4"),
        ("AUTH DIGEST-MD5", 504, "5.5.4"),
        ("AUTH PLAIN !!!", 501, "5.5.2"),
        ("AUTH PLAIN =", 501, "5.5.2"),
        ("AUTH PLAIN AGE=", 501, "5.5.2"),
        ("AUTH CRAM-MD5 =", 501, "5.5.2"),
        ("AUTH SCRAM-SHA-256 =", 501, "5.5.2"),
        ("AUTH plain " + b64(plain("acme/production", KEY)), 235, "2.7.0"),
        ("auth Plain " + b64(plain("acme/production", KEY, authzid="acme/production")), 235, "2.7.0"),
        ("AUTH PLAIN " + b64(plain("acme/production", KEY, authzid="ceo")), 535, "5.7.8"),
        ("AUTH PLAIN " + b64(plain("acme/production", "x" * 9000)), 535, "5.7.8"),
        ("AUTH PLAIN " + "x" * 12_400, 500, "5.5.2"),
    ],
)
async def test_each_auth_command_has_its_answer(tmp_path: Path, command: str, code: int, enhanced: str) -> None:
    async with running(tmp_path, LOCAL) as rig:
        client = await greeted(rig)
        reply = await client.expect(command, code)
        assert reply.lines[0].split(" ")[0] == enhanced
        await client.expect("NOOP", 250)


@pytest.mark.parametrize(
    ("answer", "code", "enhanced"),
    [
        ("*", 501, "5.7.0"),
        ("!", 501, "5.5.2"),
        ("YWJj\u00e9", 501, "5.5.2"),
        ("", 501, "5.5.2"),
        ("x" * 13_000, 500, "5.5.6"),
        (b64(b"\0" + b"n" * 4000 + b"\0" + b"x" * 4000), 535, "5.7.8"),
        (b64(plain("acme/production", KEY)), 235, "2.7.0"),
    ],
)
async def test_each_answer_to_a_challenge_has_its_reply(
    tmp_path: Path, answer: str, code: int, enhanced: str
) -> None:
    async with running(tmp_path, LOCAL) as rig:
        client = await greeted(rig)
        assert (await client.expect("AUTH PLAIN", 334)).text == ""
        reply = await client.expect(answer, code)
        assert reply.lines[0].split(" ")[0] == enhanced
        await client.expect("NOOP", 250)


async def test_login_takes_its_name_as_initial_response(tmp_path: Path) -> None:
    async with running(tmp_path, LOCAL) as rig:
        client = await greeted(rig)
        await client.expect(f"AUTH LOGIN {b64(b'acme/production')}", 334)
        await client.expect(b64(KEY.encode()), 235)
        client = await greeted(rig)
        await client.expect("AUTH LOGIN =", 334)
        await client.expect(b64(KEY.encode()), 235)  # the password alone identifies


async def test_a_bound_listener_needs_no_password_and_takes_one(tmp_path: Path) -> None:
    async with running(tmp_path, BOUND) as rig:
        client = await greeted(rig)
        assert (await log_in(client, "PLAIN", "other/production", OTHER_KEY)).code == 235
        await client.to_rcpt()
        assert rig.notebook.senders[-1][:2] == ("other", "production")
        client = await greeted(rig)
        await client.to_rcpt()
        assert rig.notebook.senders[-1][:2] == ("acme", None)


async def test_five_failures_end_the_connection(tmp_path: Path) -> None:
    async with running(tmp_path, LOCAL) as rig:
        client = await greeted(rig)
        for _ in range(4):
            assert (await log_in(client, "PLAIN", "acme/production", "wrong")).code == 535
        reply = await log_in(client, "PLAIN", "acme/production", "wrong")
        assert (reply.code, reply.text[:5]) == (421, "4.7.0")
        assert await client.ended() == b""


async def test_an_address_that_failed_too_often_is_not_listened_to(tmp_path: Path) -> None:
    async with running(tmp_path, LOCAL, limits=STRANGERS + "auth_failures_per_minute = 3\n") as rig:
        for _ in range(3):
            assert (await log_in(await greeted(rig), "PLAIN", "acme/production", "wrong")).code == 535
        client = await greeted(rig)
        reply = await log_in(client, "PLAIN", "acme/production", KEY)
        assert (reply.code, reply.text[:5]) == (421, "4.7.0")
        assert await client.ended() == b""


async def test_parallel_tries_are_counted_exactly(tmp_path: Path) -> None:
    async with running(tmp_path, LOCAL, limits=STRANGERS + "auth_failures_per_minute = 5\n") as rig:
        clients = [await greeted(rig) for _ in range(20)]
        replies = await asyncio.gather(*(log_in(client, "PLAIN", "x", "wrong") for client in clients))
        codes = [reply.code for reply in replies]
        assert (codes.count(535), codes.count(421)) == (5, 15)


async def test_a_trusted_address_is_never_shut_out(tmp_path: Path) -> None:
    async with running(tmp_path, LOCAL, limits="tarpit = '0s'\nauth_failures_per_minute = 1\n") as rig:
        for _ in range(3):
            assert (await log_in(await greeted(rig), "PLAIN", "x", "wrong")).code == 535
        assert (await log_in(await greeted(rig), "PLAIN", "acme/production", KEY)).code == 235


async def test_a_failure_is_told_after_the_tarpit_and_a_success_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, LOCAL, limits="tarpit = '300ms'\n") as rig:
        client = await greeted(rig)
        started = time.monotonic()
        assert (await log_in(client, "SCRAM-SHA-256", "acme/production", "wrong")).code == 535
        assert time.monotonic() - started >= 0.29
        started = time.monotonic()
        assert (await log_in(client, "PLAIN", "acme/production", KEY)).code == 235
        assert time.monotonic() - started < 0.29


async def test_a_failure_is_one_line_for_fail2ban_without_any_secret(tmp_path: Path) -> None:
    async with running(tmp_path, LOCAL, smtp=ALL) as rig:
        with structlog.testing.capture_logs() as lines:
            for username in (
                "acme/production",
                f"acme/{OTHER_KEY}",
                OTHER_KEY,
                "hunter2\r\nauth_failed client=1.1.1.1",
            ):
                await log_in(await greeted(rig), "LOGIN", username, "wr0ng-password")
            await log_in(await greeted(rig), "PLAIN", "acme/production", KEY)
        failed = [line for line in lines if line["event"] == "auth_failed"]
        assert [(line["client"], line["mechanism"], line["username"]) for line in failed] == [
            ("127.0.0.1", "LOGIN", "acme"),
            ("127.0.0.1", "LOGIN", "acme"),
            ("127.0.0.1", "LOGIN", "-"),
            ("127.0.0.1", "LOGIN", "-"),
        ]
        assert list(failed[0])[:3] == ["client", "mechanism", "username"]
        for secret in (KEY, OTHER_KEY, "wr0ng-password", "hunter2"):
            assert secret not in repr(lines)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        pytest.param(ACME, 250, id="nothing-changed"),
        pytest.param(ACME.replace(KEY, "another-key-0123456789"), 530, id="another-secret"),
        pytest.param(ACME.replace('"Acme Inc"', '"Acme Inc"\nstatus = "suspended"'), 530, id="suspended"),
        pytest.param(ACME.replace(f'secret = "{KEY}"', f'secret = "{KEY}"\nhold = true'), 530, id="on-hold"),
        pytest.param(ACME.replace('"production"', '"renamed"'), 530, id="gone"),
    ],
)
async def test_a_running_session_ends_with_its_credential(tmp_path: Path, changed: str, code: int) -> None:
    async with running(tmp_path, LOCAL) as rig:
        client = await greeted(rig)
        assert (await log_in(client, "PLAIN", "acme/production", KEY)).code == 235
        await client.expect("MAIL FROM:<app@acme.test>", 250)
        (tmp_path / "tenants" / "acme.toml").write_text(changed)
        rig.live.reload()
        await client.expect("RCPT TO:<ann@dest.test>", code)
        await client.expect("RSET", 250)
        await client.expect("MAIL FROM:<app@acme.test>", code)


async def test_a_mechanism_that_is_switched_off_is_neither_offered_nor_taken(tmp_path: Path) -> None:
    async with running(tmp_path, LOCAL, smtp='auth_mechanisms = ["SCRAM-SHA-256"]\n') as rig:
        client = await rig.connect()
        assert "AUTH SCRAM-SHA-256" in (await client.expect("EHLO client.test", 250)).lines
        assert (await log_in(client, "PLAIN", "acme/production", KEY)).code == 504
        old = rig.live.snapshot
        smtp = replace(old.settings.smtp, auth_mechanisms=())
        rig.live.snapshot = replace(old, settings=replace(old.settings, smtp=smtp))
        assert not any(line.startswith("AUTH") for line in (await client.expect("EHLO client.test", 250)).lines)


async def test_a_client_that_leaves_within_auth_is_forgotten(tmp_path: Path) -> None:
    async with running(tmp_path, LOCAL, limits="tarpit = '1h'\n") as rig:
        for leave in (True, False):
            client = await greeted(rig)
            await client.expect("AUTH LOGIN", 334)
            await client.expect(b64(b"acme/production"), 334)
            if leave:
                client.writer.write_eof()
            else:
                client.send(b"d3Jvbmc=\r\n")
                await client.writer.drain()
                await asyncio.sleep(0)
                client.reset()
            await rig.until_idle()
