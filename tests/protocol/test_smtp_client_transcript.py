"""What is kept of a conversation: every step with its time, whatever the peer does, and never a secret."""

import asyncio
import base64

import pytest
from peers.certificates import valid
from peers.dial import PATIENT, QUICK, envelope, target
from peers.mx import HANG, Delay, Mx, Script, Turns, closed_port

from arkrelay.model.delivery import Timeouts
from arkrelay.model.reply import Reply
from arkrelay.model.transcript import Spoken, Who
from arkrelay.policy.transcript import parse
from arkrelay.relay.transcripts import of_transaction, render
from arkrelay.wire.smtp import Session, connect
from arkrelay.wire.transcript import Entry

NO_SIZE = ("PIPELINING", "8BITMIME")


async def _connect(mx: Mx, said: list[Entry], timeouts: Timeouts = PATIENT, **changes: object) -> Session:
    opened = await connect(target(mx.port, **changes), timeouts, said=said)
    assert isinstance(opened, Session), opened
    return opened


async def _send(session: Session, said: list[Entry], *, earlier: int = 0, to: str = "ann@x.test") -> list[Spoken]:
    transaction = await session.send(envelope(to), b"hello\r\n")
    return list(parse(of_transaction(session, said, earlier, transaction)))


def _lines(said: list[Spoken] | tuple[Spoken, ...]) -> list[str]:
    marks = {Who.WE: "> ", Who.PEER: "< ", Who.NOTE: "* "}
    return [marks[one.who] + one.line for one in said]


async def test_the_first_message_has_the_set_up_with_tls_and_all_that_was_said() -> None:
    script = Script(tls=valid().server_context(), extensions=NO_SIZE, rcpt=Delay(0.05, "250 2.1.5 fine"))
    async with Mx(script) as mx:
        said: list[Entry] = []
        session = await _connect(mx, said)
        spoken = await _send(session, said)
        assert _lines(spoken) == [
            f"* connecting to mx.test, 127.0.0.1 port {mx.port}",
            "* connected",
            "< 220 mx.test ESMTP",
            "> EHLO us.test",
            "< 250-mx.test greets you",
            "< 250-PIPELINING",
            "< 250-8BITMIME",
            "< 250 STARTTLS",
            "> STARTTLS",
            "< 220 2.0.0 go ahead",
            "* TLSv1.3, TLS_AES_256_GCM_SHA384, the host is not proved",
            "> EHLO us.test",
            "< 250-mx.test greets you",
            "< 250-PIPELINING",
            "< 250 8BITMIME",
            "> MAIL FROM:<b-1@ret.test>",
            "> RCPT TO:<ann@x.test>",
            "> DATA",
            "< 250 2.1.0 sender ok",
            "< 250 2.1.5 fine",
            "< 354 go ahead",
            "> (7 octets of content, and the final dot)",
            "< 250 2.0.0 queued",
        ]
        times = [one.ms for one in spoken]
        assert times[0] == 0
        assert times == sorted(times)
        rcpt = next(one for one in spoken if one.line == "RCPT TO:<ann@x.test>")
        fine = next(one for one in spoken if one.line == "250 2.1.5 fine")
        assert fine.ms - rcpt.ms >= 50
        session.abort()


async def test_a_later_message_says_that_the_connection_was_kept() -> None:
    async with Mx(Script(extensions=NO_SIZE)) as mx:
        session = await _connect(mx, [])
        await _send(session, [])
        lines = _lines(await _send(session, [], earlier=1, to="bob@x.test"))
        assert lines[0].startswith("* message 2 on a connection to mx.test that is 0.")
        assert lines[1:3] == ["> MAIL FROM:<b-1@ret.test>", "> RCPT TO:<bob@x.test>"]
        assert lines[-1] == "< 250 2.0.0 queued"
        session.abort()


@pytest.mark.parametrize("extensions", [NO_SIZE, ()], ids=["pipelined", "one-by-one"])
async def test_a_refused_recipient_is_told_and_how_it_was_ended(extensions: tuple[str, ...]) -> None:
    async with Mx(Script(extensions=extensions, rcpt="550-5.1.1 no such\n550 5.1.1 user")) as mx:
        session = await _connect(mx, [])
        lines = _lines(await _send(session, []))
        mail, rcpt, no = "> MAIL FROM:<b-1@ret.test>", "> RCPT TO:<ann@x.test>", "< 550-5.1.1 no such"
        if extensions:
            assert lines[1:] == [mail, rcpt, "> DATA", "< 250 2.1.0 sender ok", no, "< 550 5.1.1 user",
                                 "< 503 5.5.1 RCPT first"]  # fmt: skip
        else:
            assert lines[1:] == [mail, "< 250 2.1.0 sender ok", rcpt, no, "< 550 5.1.1 user"]
        session.abort()


async def test_a_peer_that_says_nothing_is_told_with_when_we_gave_up() -> None:
    async with Mx(Script(extensions=NO_SIZE, dot=HANG)) as mx:
        session = await _connect(mx, [], QUICK)
        spoken = await _send(session, [])
        assert _lines(spoken)[-2:] == [
            "> (7 octets of content, and the final dot)",
            "* nothing within 0.3 s before the reply to the final dot",
        ]
        assert spoken[-1].ms - spoken[-2].ms >= 290


async def test_a_failed_connection_tells_the_whole_walk_over_the_hosts() -> None:
    async with Mx(Script(banner="554 5.7.1 not you")) as rude, Mx(Script(banner=HANG)) as silent:
        said: list[Entry] = []
        shut = closed_port()
        for port in (shut, rude.port, silent.port):
            assert not isinstance(await connect(target(port), QUICK, said=said), Session)
        assert _lines(parse(render(said))) == [
            f"* connecting to mx.test, 127.0.0.1 port {shut}",
            "* connection refused",
            f"* connecting to mx.test, 127.0.0.1 port {rude.port}",
            "* connected",
            "< 554 5.7.1 not you",
            f"* connecting to mx.test, 127.0.0.1 port {silent.port}",
            "* connected",
            "* nothing within 0.3 s before its greeting",
        ]


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
@pytest.mark.parametrize("secret", ["a secret of ours", "x"], ids=["long", "short"])
async def test_no_secret_is_in_it_in_any_form_even_where_the_peer_repeats_it(mechanism: str, secret: str) -> None:
    echo = f"535 5.7.8 wrong: {secret} {base64.b64encode(secret.encode()).decode()}"
    initial = base64.b64encode(f"\0me\0{secret}".encode()).decode()
    script = Script(users={"me": secret}, mechanisms=mechanism)
    async with Mx(script) as mx:
        said: list[Entry] = []
        session = await _connect(mx, said, username="me", secret=secret)
        text = render(said)
        assert f"AUTH {mechanism} ***" in text
        assert "235 2.7.0 hello" in text
        session.abort()
        mx.script = Script(users={"me": "another"}, mechanisms=mechanism, auth=Turns(f"{echo} {initial}"))
        refused: list[Entry] = []
        result = await connect(target(mx.port, username="me", secret=secret), PATIENT, said=refused)
        assert isinstance(result, Reply)
        if len(secret) > 1:
            for shown in (text, render(refused), str(result)):
                for form in (secret, base64.b64encode(secret.encode()).decode().rstrip("="), initial.rstrip("=")):
                    assert form not in shown
        assert "wrong: ***" in render(refused)
        assert "wrong: ***" in str(result)


async def test_controls_and_octets_that_are_no_text_do_not_reach_it() -> None:
    async with Mx(Script(extensions=NO_SIZE, dot=b"250 \x1b[2J\x00 \xff fine\r\n")) as mx:
        session = await _connect(mx, [])
        spoken = await _send(session, [])
        assert spoken[-1].line == "250 \ufffd[2J\ufffd \\xff fine"
        session.abort()


async def test_a_big_content_has_a_time_for_its_beginning_and_one_for_its_dot() -> None:
    async with Mx(Script(extensions=NO_SIZE, upload=Delay(0.1, b""), upload_after=1)) as mx:
        session = await _connect(mx, [])
        transaction = await session.send(envelope("ann@x.test"), b"0123456789abcde\r\n" * 500_000)
        spoken = parse(of_transaction(session, [], 0, transaction))
        begun = next(one for one in spoken if one.line == "the content begins")
        dot = next(one for one in spoken if one.line == "(8500000 octets of content, and the final dot)")
        assert begun.ms <= dot.ms
        assert spoken[-1].line == "250 2.0.0 queued"
        session.abort()
        await asyncio.sleep(0)
