"""Commands against the running doors: what is announced, what is accepted, what each mistake is told."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from protocol.smtpd_rig import BOUND, LOCAL, PUBLIC, Rig, contents, running

from arkrelay.model.address import Address
from arkrelay.model.errors import Refused, StoreError
from arkrelay.model.message import RecipientRequest

NO_TLS = BOUND.replace('"optional"', '"none"')


async def test_a_message_becomes_a_submission(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        client = await rig.connect()
        await client.expect("EHLO client.test", 250)
        await client.expect("MAIL FROM:<app@Acme.Test> SIZE=20 BODY=8BITMIME RET=HDRS ENVID=id+2B1", 250)
        await client.expect("RCPT TO:<Ann@Dest.Test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Ann@Dest.Test", 250)
        await client.expect('RCPT TO:<"b b"@dest.test>', 250)
        await client.expect("DATA", 354)
        reply = await client.expect(b"Subject: x\r\n\r\n..\r\n.", 250)
        assert reply.text == "2.0.0 Ok: queued as tok1-0"
        submission = rig.notebook.submissions[0]
        assert submission.tenant_id == "acme"
        assert submission.credential is None
        assert submission.return_path == Address("app", "acme.test")
        assert submission.recipients == (
            RecipientRequest(Address("Ann", "dest.test"), "SUCCESS,DELAY", "rfc822;Ann@Dest.Test"),
            RecipientRequest(Address('"b b"', "dest.test")),
        )
        assert submission.content == b"Subject: x\r\n\r\n.\r\n"
        assert (submission.helo, submission.client) == ("client.test", "127.0.0.1")
        assert (submission.protocol, submission.ret, submission.envid) == ("ESMTP", "HDRS", "id+2B1")
        assert (await client.ask("QUIT")).text == "2.0.0 Bye"
        assert await client.ended() == b""


async def test_ehlo_announces_what_the_door_does_and_nothing_else(tmp_path: Path) -> None:
    async with running(tmp_path, BOUND + NO_TLS + PUBLIC) as rig:
        for index, extra in ((0, {"STARTTLS", "AUTH PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256"}), (2, {"STARTTLS"})):
            client = await rig.connect(index)
            lines = (await client.ask("EHLO client.test")).lines
            assert lines[0] == "relay.test"
            assert set(lines[1:]) == extra | {
                "PIPELINING",
                "SIZE 14000000",
                "8BITMIME",
                "SMTPUTF8",
                "ENHANCEDSTATUSCODES",
                "DSN",
                "DELIVERBY",
                "LIMITS RCPTMAX=1000",
            }
        client = await rig.connect(1)
        assert "STARTTLS" not in (await client.ask("EHLO client.test")).lines
        assert (await client.ask("STARTTLS")).code == 454


async def test_a_reload_is_seen_by_running_sessions(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        client = await rig.connect()
        assert "SIZE 14000000" in (await client.ask("EHLO client.test")).lines
        old = rig.live.snapshot
        smtp = replace(old.settings.smtp, max_message_bytes=1000)
        rig.live.snapshot = replace(old, settings=replace(old.settings, smtp=smtp))
        assert "SIZE 1000" in (await client.ask("EHLO client.test")).lines


@pytest.mark.parametrize(
    ("command", "code", "enhanced"),
    [
        ("MAIL FROM:<a@acme.test", 501, "5.1.7"),
        ("MAIL FROM:a@acme.test", 501, "5.1.7"),
        ("MAIL FROM:<a..b@acme.test>", 501, "5.1.7"),
        ("MAIL FROM:<.a@acme.test>", 501, "5.1.7"),
        ("MAIL FROM:<a@-x.test>", 501, "5.1.7"),
        ("MAIL FROM:<@route.test:a@acme.test>", 501, "5.1.7"),
        ("MAIL FROM:<a(comment)@acme.test>", 501, "5.1.7"),
        ("MAIL FROM:<" + "x" * 65 + "@acme.test>", 501, "5.1.7"),
        ("MAIL FROM:<a@" + ".".join(["x" * 60] * 5) + ">", 501, "5.1.7"),
        ("MAIL FROM:<a@acme.test.>", 501, "5.1.7"),
        ("MAIL FROM:<=?utf-8?q?a=0d=0aRCPT=20TO=3a=3cz=40z.test=3e?=@x.test>", 501, "5.1.7"),
        ("MAIL FROM:<a@=?utf-8?q?evil=2etest?=>", 501, "5.1.7"),
        ("MAIL TO:<a@acme.test>", 501, "5.5.4"),
        ("MAIL", 501, "5.5.4"),
        ("MAIL FROM:", 501, "5.1.7"),
        ("MAIL FROM:<a@acme.test> SIZE=1 SIZE=2", 501, "5.5.4"),
        ("MAIL FROM:<a@acme.test> SIZE=14000001", 552, "5.3.4"),
        ("MAIL FROM:<a@acme.test> MT-PRIORITY=3", 555, "5.5.4"),
        ("MAIL FROM:<a@acme.test> BODY=BINARYMIME", 501, "5.5.4"),
        (b"MAIL FROM:<a\rb@acme.test>", 500, "5.5.2"),
        (b"MAIL FROM:<a\0b@acme.test>", 500, "5.5.2"),
        (b"MAIL FROM:<a\tb@acme.test>", 500, "5.5.2"),
        (b"MAIL FROM:<\xff@acme.test>", 500, "5.5.2"),
        ("MAIL FROM:<é@acme.test>", 550, "5.6.7"),
        ("MAIL FROM:<a@é.test>", 550, "5.6.7"),
        ("RCPT TO:<a@dest.test>", 503, "5.5.1"),
        ("DATA", 503, "5.5.1"),
        ("DATA now", 501, "5.5.4"),
        ("RSET now", 501, "5.5.4"),
        ("QUIT now", 501, "5.5.4"),
        ("NOOP " + "x" * 600, 500, "5.5.2"),
        ("é", 500, "5.5.2"),
        ("", 502, "5.5.1"),
        ("XYZZY", 502, "5.5.1"),
        ("EXPN list", 502, "5.5.1"),
        ("BDAT 10", 502, "5.5.1"),
        ("EHLO", 501, "5.5.4"),
        ("EHLO a b", 501, "5.5.4"),
        ("EHLO " + "x" * 300, 501, "5.5.4"),
        ("HELO", 501, "5.5.4"),
        ("VRFY ann", 252, "2.5.2"),
        ("HELP", 214, "2.0.0"),
        ("NOOP anything", 250, "2.0.0"),
        ("mail from:<a@acme.test>", 250, "2.1.0"),
        ("MAIL FROM: <a@acme.test>", 250, "2.1.0"),
        ("MAIL FROM:<>", 250, "2.1.0"),
        ("MAIL FROM:<a@acme.test> AUTH=<> ", 250, "2.1.0"),
        ("MAIL FROM:<é@é.test> SMTPUTF8", 250, "2.1.0"),
        ("MAIL FROM:<a@acme.test> ENVID=" + "x" * 100 + " AUTH=" + "x" * 490, 250, "2.1.0"),
    ],
)
async def test_each_command_has_its_answer_and_the_session_goes_on(
    tmp_path: Path, command: str | bytes, code: int, enhanced: str
) -> None:
    async with running(tmp_path) as rig:
        client = await rig.connect()
        await client.expect("EHLO client.test", 250)
        reply = await client.expect(command, code)
        assert reply.lines[0].split(" ")[0] == enhanced
        await client.expect("NOOP", 250)
        assert not any("\0" in line or "é" in line for line in reply.lines)


@pytest.mark.parametrize(
    ("command", "code", "enhanced"),
    [
        ("RCPT TO:<>", 501, "5.1.3"),
        ("RCPT TO:<a@dest.test> NOTIFY=SOMETIMES", 501, "5.5.4"),
        ("RCPT TO:<a@dest.test> SIZE=1", 555, "5.5.4"),
        ("RCPT TO:<a@dest.test> ORCPT=rfc822;a+0D+0Ab", 501, "5.5.4"),
        ("RCPT TO:<é@dest.test>", 553, "5.6.7"),
        ("RCPT TO:<a@[127.0.0.1]>", 501, "5.1.3"),
        ("RCPT FROM:<a@dest.test>", 501, "5.5.4"),
        ("MAIL FROM:<b@acme.test>", 503, "5.5.1"),
        ("AUTH PLAIN", 503, "5.5.1"),
        ("DATA", 554, "5.5.1"),
        ("RCPT TO:<a@dest.test> ORCPT=rfc822;" + "x" * 490 + " NOTIFY=SUCCESS,FAILURE,DELAY", 250, "2.1.5"),
        ("rcpt to:<a%b!c@dest.test>", 250, "2.1.5"),
    ],
)
async def test_each_command_within_a_transaction(tmp_path: Path, command: str, code: int, enhanced: str) -> None:
    async with running(tmp_path) as rig:
        client = await rig.connect()
        await client.expect("EHLO client.test", 250)
        await client.expect("MAIL FROM:<app@acme.test>", 250)
        reply = await client.expect(command, code)
        assert reply.lines[0].split(" ")[0] == enhanced
        await client.expect("RCPT TO:<ann@dest.test>", 250)


async def test_utf8_addresses_need_smtputf8_on_that_mail(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        client = await rig.connect()
        await client.expect("EHLO client.test", 250)
        await client.expect("MAIL FROM:<app@acme.test> SMTPUTF8", 250)
        await client.expect("RCPT TO:<zoë@dest.test>", 250)
        await client.expect("DATA", 354)
        await client.expect("Subject: x\r\n\r\nx\r\n.", 250)
        submission = rig.notebook.submissions[0]
        assert submission.smtputf8
        assert submission.protocol == "UTF8SMTP"
        assert submission.recipients[0].address == Address("zoë", "dest.test")
        await client.expect("MAIL FROM:<app@acme.test>", 250)
        await client.expect("RCPT TO:<zoë@dest.test>", 553)


async def test_postmaster_without_domain_is_ours(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        client = await rig.connect()
        await client.expect("EHLO client.test", 250)
        await client.expect("MAIL FROM:<app@acme.test>", 250)
        await client.expect("RCPT TO:<Postmaster>", 250)
        await client.expect("DATA", 354)
        await client.expect("x\r\n.", 250)
        address = rig.notebook.submissions[0].recipients[0].address
        assert address == Address("postmaster", "relay.test")


async def test_helo_speaks_smtp_without_extensions(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        client = await rig.connect()
        assert (await client.ask("HELO client.test")).lines == ["relay.test"]
        await client.expect("MAIL FROM:<app@acme.test> SIZE=1", 555)
        await client.expect("AUTH PLAIN", 503)
        await client.expect("MAIL FROM:<app@acme.test>", 250)
        await client.expect("RCPT TO:<ann@dest.test>", 250)
        await client.expect("DATA", 354)
        await client.expect("x\r\n.", 250)
        assert rig.notebook.submissions[0].protocol == "SMTP"


async def test_an_odd_host_name_is_taken_but_cannot_speak_in_received(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        client = await rig.connect()
        await client.expect("MAIL FROM:<app@acme.test>", 503)
        await client.expect("EHLO my_(host);by=x", 250)
        await client.expect("MAIL FROM:<app@acme.test>", 250)
        await client.expect("RCPT TO:<ann@dest.test>", 250)
        await client.expect("DATA", 354)
        await client.expect("x\r\n.", 250)
        assert rig.notebook.submissions[0].helo == "my_?host??by?x"


@pytest.mark.parametrize("command", ["RSET", "EHLO again.test", "HELO again.test"])
async def test_rset_and_hello_drop_the_transaction(tmp_path: Path, command: str) -> None:
    async with running(tmp_path) as rig:
        client = await rig.connect()
        await client.to_rcpt()
        await client.expect(command, 250)
        await client.expect("RCPT TO:<ann@dest.test>", 503)


async def test_recipients_over_the_limit_are_told_to_come_again(tmp_path: Path) -> None:
    async with running(tmp_path, smtp="max_recipients = 3\n") as rig:
        client = await rig.connect()
        await client.to_rcpt("a@dest.test", "b@dest.test", "c@dest.test")
        for _ in range(20):
            reply = await client.expect("RCPT TO:<d@dest.test>", 452)
            assert reply.text.startswith("4.5.3 ")
        await client.expect("DATA", 354)
        await client.expect("x\r\n.", 250)
        assert len(rig.notebook.submissions[0].recipients) == 3


async def test_pipelined_commands_are_answered_in_order_in_few_writes(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        client = await rig.connect()
        await client.expect("EHLO client.test", 250)
        for count in range(1, 4):
            client.send(b"MAIL FROM:<app@acme.test>\r\nRCPT TO:<a@dest.test>\r\nRCPT TO:<>\r\nDATA\r\n")
            assert [(await client.reply()).code for _ in range(4)] == [250, 250, 501, 354]
            await client.expect("x\r\n.", 250)
            assert len(rig.notebook.submissions) == count


async def test_the_next_group_may_follow_the_final_dot(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        client = await rig.connect()
        await client.to_data()
        client.send(b"one\r\n.\r\nMAIL FROM:<app@acme.test>\r\nRCPT TO:<a@dest.test>\r\nDATA\r\n")
        assert [(await client.reply()).code for _ in range(4)] == [250, 250, 250, 354]
        await client.expect("two\r\n.", 250)
        assert contents(rig.notebook) == [b"one\r\n", b"two\r\n"]


async def test_ten_errors_end_the_session_and_an_accepted_message_clears_them(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        client = await rig.connect()
        await client.expect("EHLO client.test", 250)
        for _ in range(9):
            await client.expect("XYZZY", 502)
        await client.to_data()
        await client.expect("x\r\n.", 250)
        for _ in range(10):
            await client.expect("XYZZY", 502)
        assert (await client.ask("NOOP")).text.startswith("4.7.0 ")
        assert await client.ended() == b""


async def test_commands_without_mail_are_not_taken_for_ever(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        client = await rig.connect()
        await client.expect("EHLO client.test", 250)
        client.send(b"NOOP\r\n" * 120)
        codes = [(await client.reply()).code for _ in range(100)]
        assert codes == [250] * 99 + [421]


@pytest.mark.parametrize("verb", ["GET / HTTP/1.1", "POST / HTTP/1.1", "CONNECT x:25 HTTP/1.1"])
async def test_a_browser_is_turned_away(tmp_path: Path, verb: str) -> None:
    async with running(tmp_path) as rig:
        client = await rig.connect()
        client.send(f"{verb}\r\nHost: x\r\n\r\nEHLO x\r\n".encode())
        assert (await client.reply()).code == 554
        assert await client.ended() == b""


@pytest.mark.parametrize(
    "command", [b"NOOP\n", b"EHLO x\nMAIL FROM:<a@acme.test>\r\n", b"\n", b"AUTH LOGIN\r\nYQ==\n"]
)
async def test_a_bare_line_feed_ends_the_session(tmp_path: Path, command: bytes) -> None:
    async with running(tmp_path) as rig:
        client = await rig.connect()
        await client.expect("EHLO client.test", 250)
        client.send(command)
        reply = await client.reply()
        while reply.code == 334:
            reply = await client.reply()
        assert (reply.code, reply.text[:5]) == (554, "5.5.2")
        assert await client.ended() == b""


# What policy and the store say.


async def test_policy_speaks_at_mail_in_its_own_words(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        client = await rig.connect()
        await client.expect("EHLO client.test", 250)
        rig.notebook.sender_error = Refused(553, "5.7.1", "The domain is not verified")
        assert (await client.expect("MAIL FROM:<a@x.test>", 553)).text == "5.7.1 The domain is not verified"
        assert rig.notebook.senders == [("acme", None, Address("a", "x.test"))]
        rig.notebook.sender_error = None
        rig.notebook.unready = Refused(452, "4.3.1", "No room")
        await client.expect("MAIL FROM:<a@acme.test>", 452)
        rig.notebook.unready = Refused(421, "4.3.2", "Stopping")
        await client.expect("MAIL FROM:<a@acme.test>", 421)
        assert await client.ended() == b""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused(550, "5.7.1", "not yours\r\n250 2.0.0 Ok"), 550),
        (StoreError("database is locked"), 451),
        (RuntimeError("boom"), 451),
        (MemoryError(), 451),
    ],
)
async def test_a_failed_commit_is_answered_and_the_session_goes_on(
    tmp_path: Path, error: Exception, code: int
) -> None:
    async with running(tmp_path) as rig:
        client = await rig.connect()
        await client.to_data()
        rig.notebook.error = error
        reply = await client.expect("x\r\n.", code)
        assert len(reply.lines) == 1
        assert "boom" not in reply.text
        assert "locked" not in reply.text
        rig.notebook.error = None
        await client.expect("MAIL FROM:<app@acme.test>", 250)
        await client.expect("RCPT TO:<ann@dest.test>", 250)
        await client.expect("DATA", 354)
        await client.expect("x\r\n.", 250)


async def test_a_surprise_at_mail_is_temporary(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        client = await rig.connect()
        await client.expect("EHLO client.test", 250)
        rig.notebook.sender_error = RuntimeError("secret detail")
        reply = await client.expect("MAIL FROM:<a@acme.test>", 451)
        assert "secret" not in reply.text
        assert "reference" in reply.text


async def test_nothing_is_relayed_without_a_password(tmp_path: Path) -> None:
    async with running(tmp_path, LOCAL + PUBLIC) as rig:
        for index in (0, 1):
            client = await rig.connect(index)
            await client.expect("EHLO client.test", 250)
            for command in ("MAIL FROM:<a@acme.test>", "RCPT TO:<a@b.test>", "DATA", "VRFY a", "MAIL rubbish"):
                reply = await client.expect(command, 530)
                assert reply.text.startswith("5.7.0 ")
        assert (await client.ask("AUTH PLAIN AGEAYg==")).code == 538
        assert rig.notebook.submissions == []


async def test_many_sessions_at_once_keep_their_envelopes(tmp_path: Path) -> None:
    async def one(rig: Rig, number: int) -> None:
        client = await rig.connect()
        await client.to_rcpt(f"r{number}@dest.test")
        await client.expect("DATA", 354)
        await client.expect(f"body {number}\r\n.", 250)

    async with running(tmp_path) as rig:
        await asyncio.gather(*(one(rig, number) for number in range(30)))
        pairs = {(s.recipients[0].address.local, s.content) for s in rig.notebook.submissions}
        assert pairs == {(f"r{number}", f"body {number}\r\n".encode()) for number in range(30)}
