"""Transactions: every stage from MAIL to the dot with every fault; grouping; two at a time; kept connections."""

import asyncio
import time

import pytest
from peers.certificates import valid
from peers.dial import PATIENT, QUICK, envelope, session
from peers.mx import CLOSE, HANG, RESET, Act, Delay, Drip, Flood, Mx, Script, Then, Turns
from peers.mx import Stage as Act_

from arkrelay.model.reply import Failure, FailureKind, Reply, Stage

PIPELINED = ("PIPELINING", "8BITMIME")
LOCKSTEP = ("8BITMIME",)
ONE_STAGE_S = 1.5
OK = Reply(250, "2.0.0", "queued", Stage.DOT)
BODY = b"Subject: x\r\n\r\nhello\r\n"


def _fails(kind: FailureKind, stage: Stage, detail: str) -> Failure:
    return Failure(kind, stage, detail)


# id, script, what the recipient gets, past the dot, whether the session can go on
FAULTS: list[tuple[str, dict[str, Act], Reply | Failure, bool, bool]] = [
    ("mail-450", {"mail": "450 4.7.1 later"}, Reply(450, "4.7.1", "later", Stage.MAIL), False, True),
    ("mail-550", {"mail": "550 5.7.1 no"}, Reply(550, "5.7.1", "no", Stage.MAIL), False, True),
    ("mail-421", {"mail": Then("421 4.3.2 bye", CLOSE)}, Reply(421, "4.3.2", "bye", Stage.MAIL), False, False),
    ("mail-253", {"mail": "253 fine"}, OK, True, True),
    (
        "mail-354",
        {"mail": "354 hm"},
        _fails(FailureKind.PROTOCOL, Stage.MAIL, "354 is not the reply to MAIL"),
        False,
        False,
    ),
    (
        "mail-closes",
        {"mail": CLOSE},
        _fails(FailureKind.CLOSED, Stage.MAIL, "the peer closed before the reply to MAIL"),
        False,
        False,
    ),
    (
        "mail-resets",
        {"mail": RESET},
        _fails(FailureKind.CLOSED, Stage.MAIL, "the peer reset the connection before the reply to MAIL"),
        False,
        False,
    ),
    (
        "mail-hangs",
        {"mail": HANG},
        _fails(FailureKind.TIMEOUT, Stage.MAIL, "nothing within 0.3 s before the reply to MAIL"),
        False,
        False,
    ),
    (
        "mail-drips",
        {"mail": Drip(b"250 " + b"x" * 200 + b"\r\n", 0.05)},
        _fails(FailureKind.TIMEOUT, Stage.MAIL, "nothing within 0.3 s before the reply to MAIL"),
        False,
        False,
    ),
    ("mail-within-time", {"mail": Delay(0.1, "250 ok")}, OK, True, True),
    (
        "mail-floods",
        {"mail": Flood(b"250-x\r\n")},
        _fails(FailureKind.PROTOCOL, Stage.MAIL, "a reply of more than 100 lines or 32768 octets"),
        False,
        False,
    ),
    (
        "mail-giant-line",
        {"mail": Flood(b"2" * 4096)},
        _fails(FailureKind.PROTOCOL, Stage.MAIL, "a reply line of more than 8192 octets"),
        False,
        False,
    ),
    (
        "mail-garbage",
        {"mail": b"\xff\x00what\r\n"},
        _fails(FailureKind.PROTOCOL, Stage.MAIL, "not an SMTP reply: \\xff\ufffdwhat"),
        False,
        False,
    ),
    (
        "mail-two-codes",
        {"mail": "550-no\n250 yes"},
        _fails(FailureKind.PROTOCOL, Stage.MAIL, "a reply with two codes, 550 and 250"),
        False,
        False,
    ),
    ("rcpt-450", {"rcpt": "450 4.2.0 grey"}, Reply(450, "4.2.0", "grey", Stage.RCPT), False, True),
    ("rcpt-550", {"rcpt": "550 5.1.1 no"}, Reply(550, "5.1.1", "no", Stage.RCPT), False, True),
    (
        "rcpt-550-in-lines",
        {"rcpt": "550-5.1.1 no\n550 5.1.1 such"},
        Reply(550, "5.1.1", "no such", Stage.RCPT),
        False,
        True,
    ),
    ("rcpt-8-bit", {"rcpt": b"550 caf\xe9\x1b\r\n"}, Reply(550, None, "caf\\xe9\ufffd", Stage.RCPT), False, True),
    ("rcpt-252", {"rcpt": "252 perhaps"}, OK, True, True),
    ("rcpt-556", {"rcpt": "556 5.1.10 null"}, Reply(556, "5.1.10", "null", Stage.RCPT), False, True),
    ("rcpt-421", {"rcpt": Then("421 bye", CLOSE)}, Reply(421, None, "bye", Stage.RCPT), False, False),
    (
        "rcpt-closes",
        {"rcpt": CLOSE},
        _fails(FailureKind.CLOSED, Stage.RCPT, "the peer closed before the reply to RCPT"),
        False,
        False,
    ),
    (
        "rcpt-hangs",
        {"rcpt": HANG},
        _fails(FailureKind.TIMEOUT, Stage.RCPT, "nothing within 0.3 s before the reply to RCPT"),
        False,
        False,
    ),
    (
        "rcpt-334",
        {"rcpt": "334 hm"},
        _fails(FailureKind.PROTOCOL, Stage.RCPT, "334 is not the reply to RCPT"),
        False,
        False,
    ),
    ("data-451", {"data": "451 4.3.0 later"}, Reply(451, "4.3.0", "later", Stage.DATA), False, True),
    ("data-554", {"data": "554 5.7.1 no"}, Reply(554, "5.7.1", "no", Stage.DATA), False, True),
    ("data-421", {"data": Then("421 bye", CLOSE)}, Reply(421, None, "bye", Stage.DATA), False, False),
    (
        "data-355",
        {"data": "355 hm"},
        _fails(FailureKind.PROTOCOL, Stage.DATA, "355 is not the reply to DATA"),
        False,
        False,
    ),
    (
        "data-250",
        {"data": "250 hm"},
        _fails(FailureKind.PROTOCOL, Stage.DATA, "250 is not the reply to DATA"),
        False,
        False,
    ),
    (
        "data-closes",
        {"data": CLOSE},
        _fails(FailureKind.CLOSED, Stage.DATA, "the peer closed before the reply to DATA"),
        False,
        False,
    ),
    (
        "data-hangs",
        {"data": HANG},
        _fails(FailureKind.TIMEOUT, Stage.DATA, "nothing within 0.3 s before the reply to DATA"),
        False,
        False,
    ),
    (
        "data-and-an-answer-to-nothing",
        {"data": b"354 go\r\n250 taken\r\n"},
        _fails(FailureKind.PROTOCOL, Stage.DATA, "a reply to nothing (250)"),
        False,
        False,
    ),
    (
        "data-and-half-an-answer",
        {"data": b"354 go\r\n25"},
        _fails(FailureKind.PROTOCOL, Stage.DATA, "the peer spoke before it was asked"),
        False,
        False,
    ),
    (
        "data-and-garbage",
        {"data": b"354 go\r\n\r\n"},
        _fails(FailureKind.PROTOCOL, Stage.DATA, "not an SMTP reply: "),
        False,
        False,
    ),
    ("dot-251", {"dot": "251 forwarded"}, Reply(251, None, "forwarded", Stage.DOT), True, True),
    ("dot-200", {"dot": "200 fine"}, Reply(200, None, "fine", Stage.DOT), True, True),
    ("dot-451", {"dot": "451 4.3.0 later"}, Reply(451, "4.3.0", "later", Stage.DOT), True, True),
    ("dot-554", {"dot": "554 5.7.1 spam"}, Reply(554, "5.7.1", "spam", Stage.DOT), True, True),
    ("dot-421", {"dot": Then("421 bye", CLOSE)}, Reply(421, None, "bye", Stage.DOT), True, False),
    (
        "dot-354",
        {"dot": "354 more"},
        _fails(FailureKind.PROTOCOL, Stage.DOT, "354 is not the reply to the final dot"),
        True,
        False,
    ),
    (
        "dot-closes",
        {"dot": CLOSE},
        _fails(FailureKind.CLOSED, Stage.DOT, "the peer closed before the reply to the final dot"),
        True,
        False,
    ),
    (
        "dot-resets",
        {"dot": RESET},
        _fails(FailureKind.CLOSED, Stage.DOT, "the peer reset the connection before the reply to the final dot"),
        True,
        False,
    ),
    (
        "dot-hangs",
        {"dot": HANG},
        _fails(FailureKind.TIMEOUT, Stage.DOT, "nothing within 0.3 s before the reply to the final dot"),
        True,
        False,
    ),
    (
        "dot-garbage",
        {"dot": b"ok\r\n"},
        _fails(FailureKind.PROTOCOL, Stage.DOT, "not an SMTP reply: ok"),
        True,
        False,
    ),
    (
        "dot-two-codes",
        {"dot": "550-no\n250 yes"},
        _fails(FailureKind.PROTOCOL, Stage.DOT, "a reply with two codes, 550 and 250"),
        True,
        False,
    ),
    ("dot-two-replies", {"dot": b"250 a\r\n250 b\r\n"}, Reply(250, None, "a", Stage.DOT), True, False),
    ("dot-and-garbage", {"dot": b"250 a\r\nrubbish\r\n"}, Reply(250, None, "a", Stage.DOT), True, False),
    ("dot-and-close", {"dot": Then("250 a", CLOSE)}, Reply(250, None, "a", Stage.DOT), True, False),
]


@pytest.mark.parametrize("extensions", [PIPELINED, LOCKSTEP], ids=["pipelined", "lockstep"])
@pytest.mark.parametrize(
    ("stages", "result", "past_dot", "goes_on"), [pytest.param(*row[1:], id=row[0]) for row in FAULTS]
)
async def test_a_fault_is_data_in_its_time_and_the_session_goes_on_where_it_can(
    stages: dict[str, Act], result: Reply | Failure, past_dot: bool, goes_on: bool, extensions: tuple[str, ...]
) -> None:
    turns: dict[str, Act_] = {stage: Turns(act, None) for stage, act in stages.items()}
    async with Mx(Script(extensions=extensions, **turns)) as mx, session(mx) as opened:  # type: ignore[arg-type]  # rows of a table
        begun, dots = time.monotonic(), []
        transaction = await opened.send(envelope(), BODY, on_dot=lambda: dots.append(True))
        assert time.monotonic() - begun < ONE_STAGE_S
        assert transaction.results == (result,)
        assert transaction.past_dot is past_dot
        assert bool(dots) is past_dot
        unheard = isinstance(result, Failure) and result.stage is Stage.MAIL and "354" not in result.detail
        assert transaction.untried is unheard
        if goes_on:
            assert opened.open
            assert (await opened.send(envelope(), BODY)).results == (OK,)
            assert mx.messages[-1].content == BODY
        else:
            await opened.quit()
            assert not opened.open
            late = await opened.send(envelope(), BODY)
            assert late.untried
            assert late.results == (Failure(FailureKind.CLOSED, Stage.MAIL, "the connection was closed before"),)


@pytest.mark.parametrize("extensions", [PIPELINED, LOCKSTEP], ids=["pipelined", "lockstep"])
async def test_each_recipient_gets_its_own_reply(extensions: tuple[str, ...]) -> None:
    rcpt: dict[str, Act_] = {"b@x.test": "550 5.1.1 no", "c@x.test": "452 4.5.3 too many", "d@x.test": "251 fwd"}
    async with Mx(Script(extensions=extensions, rcpt=rcpt)) as mx, session(mx) as opened:
        transaction = await opened.send(envelope("a@x.test", "b@x.test", "c@x.test", "d@x.test"), BODY)
        assert transaction.results == (
            OK,
            Reply(550, "5.1.1", "no", Stage.RCPT),
            Reply(452, "4.5.3", "too many", Stage.RCPT),
            OK,
        )
        assert mx.messages[0].recipients == ["a@x.test", "d@x.test"]


async def test_a_421_at_a_later_recipient_leaves_the_refusals_before_it() -> None:
    rcpt: dict[str, Act_] = {"b@x.test": "550 no", "c@x.test": Then("421 bye", CLOSE)}
    async with Mx(Script(rcpt=rcpt)) as mx, session(mx) as opened:
        transaction = await opened.send(envelope("a@x.test", "b@x.test", "c@x.test"), BODY)
        bye = Reply(421, None, "bye", Stage.RCPT)
        assert transaction.results == (bye, Reply(550, None, "no", Stage.RCPT), bye)


async def test_a_lost_reply_to_the_dot_does_not_touch_those_refused_before() -> None:
    async with Mx(Script(rcpt={"b@x.test": "550 no"}, dot=CLOSE)) as mx, session(mx) as opened:
        transaction = await opened.send(envelope("a@x.test", "b@x.test"), BODY)
        assert [result.stage for result in transaction.results] == [Stage.DOT, Stage.RCPT]
        assert transaction.past_dot
        assert len(mx.messages) == 1


async def test_nobody_accepted_and_354_all_the_same_ends_in_a_lone_dot() -> None:
    async with Mx(Script(rcpt=Turns("550 no", None), data="354 go")) as mx, session(mx) as opened:
        transaction = await opened.send(envelope(), BODY)
        assert transaction.results == (Reply(550, None, "no", Stage.RCPT),)
        assert not transaction.past_dot
        assert (await opened.send(envelope(), BODY)).results == (OK,)
        assert mx.lone_dots == 1
        assert [message.content for message in mx.messages] == [BODY]
        assert "RSET" not in mx.conversations[0].commands


async def test_where_pipelining_is_offered_a_transaction_is_two_segments() -> None:
    async with Mx(Script(extensions=PIPELINED)) as mx, session(mx) as opened:
        await opened.send(envelope("a@x.test", "b@x.test"), BODY)
        assert mx.conversations[0].segments[1:] == [
            b"MAIL FROM:<b-1@ret.test>\r\nRCPT TO:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n",
            BODY + b".\r\n",
        ]


async def test_the_next_group_goes_behind_the_dot() -> None:
    async with Mx(Script(extensions=PIPELINED)) as mx, session(mx) as opened:
        first, second = opened.send(envelope("a@x.test"), BODY), opened.send(envelope("b@x.test"), BODY)
        assert opened.room == 0
        assert (await first).results == (await second).results == (OK,)
        assert mx.conversations[0].segments[1:] == [
            b"MAIL FROM:<b-1@ret.test>\r\nRCPT TO:<a@x.test>\r\nDATA\r\n",
            BODY + b".\r\nMAIL FROM:<b-1@ret.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n",
            BODY + b".\r\n",
        ]


async def test_a_busy_session_needs_one_segment_a_message() -> None:
    async with Mx(Script(extensions=PIPELINED)) as mx, session(mx) as opened:
        ahead = opened.send(envelope(), BODY)
        for _ in range(20):
            following = opened.send(envelope(), BODY)
            assert (await ahead).results == (OK,)
            ahead = following
        await ahead
        assert len(mx.messages) == 21
        assert len(mx.conversations[0].segments) == 1 + 21 + 1


async def test_without_pipelining_each_command_waits() -> None:
    async with Mx(Script(extensions=LOCKSTEP)) as mx, session(mx) as opened:
        await asyncio.gather(opened.send(envelope("a@x.test"), BODY), opened.send(envelope("b@x.test"), BODY))
        assert mx.conversations[0].segments[1:5] == [
            b"MAIL FROM:<b-1@ret.test>\r\n",
            b"RCPT TO:<a@x.test>\r\n",
            b"DATA\r\n",
            BODY + b".\r\n",
        ]


@pytest.mark.parametrize("extensions", [PIPELINED, LOCKSTEP], ids=["pipelined", "lockstep"])
@pytest.mark.parametrize("stage", ["mail", "rcpt", "data"])
async def test_a_refused_transaction_is_reset_before_the_next(stage: str, extensions: tuple[str, ...]) -> None:
    turns: dict[str, Act_] = {stage: Turns("550 no", None)}
    async with Mx(Script(extensions=extensions, **turns)) as mx, session(mx) as opened:  # type: ignore[arg-type]  # a stage by its name
        first, second = opened.send(envelope(), BODY), opened.send(envelope(), BODY)
        assert [type(one) for one in (await first).results] == [Reply]
        assert (await first).results[0].stage.value == stage
        assert (await second).results == (OK,)
        assert mx.conversations[0].commands.count("RSET") == 1


@pytest.mark.parametrize(
    ("rset", "result"),
    [
        ("502 what?", Reply(502, None, "what?", Stage.MAIL)),
        (CLOSE, Failure(FailureKind.CLOSED, Stage.MAIL, "the peer closed before the reply to RSET")),
    ],
)
async def test_a_peer_that_cannot_reset_is_left(rset: Act, result: Reply | Failure) -> None:
    async with Mx(Script(mail=Turns("450 no", None), rset=rset)) as mx, session(mx) as opened:
        await opened.send(envelope(), BODY)
        assert (await opened.send(envelope(), BODY)).results == (result,)
        assert not opened.open


@pytest.mark.parametrize("dot", [Then("421 bye", CLOSE), CLOSE, HANG, b"rubbish\r\n"])
async def test_a_connection_lost_at_the_dot_leaves_the_next_transaction_untried(dot: Act) -> None:
    async with Mx(Script(dot=dot)) as mx, session(mx) as opened:
        first, second = opened.send(envelope(), BODY), opened.send(envelope(), BODY)
        assert (await first).past_dot
        assert not (await first).untried
        lost = await second
        assert lost.untried
        assert not lost.past_dot
        assert isinstance(lost.results[0], Failure)
        assert (lost.results[0].kind, lost.results[0].stage) == (FailureKind.CLOSED, Stage.MAIL)
        assert len(mx.messages) + len(mx.refused) == 1


async def test_a_kept_connection_that_the_peer_ends_is_closed_at_once() -> None:
    async with Mx(Script(idle=Then("421 4.4.2 idle", CLOSE))) as mx, session(mx) as opened:
        assert (await opened.send(envelope(), BODY)).results == (OK,)
        await mx.wait_closed()
        await opened.quit()
        assert not opened.open
        assert opened.room == 0
        assert opened.idle_since is None


async def test_an_idle_session_knows_since_when_and_has_no_deadline() -> None:
    async with Mx() as mx, session(mx) as opened:
        future = opened.send(envelope(), BODY)
        busy = opened.idle_since
        await future
        assert busy is None
        assert opened.idle_since == pytest.approx(asyncio.get_running_loop().time(), abs=0.5)
        await asyncio.sleep(QUICK.command_s * 1.5)  # longer than any stage may take
        assert opened.open


async def test_the_limit_of_transactions_is_obeyed() -> None:
    async with Mx(Script(extensions=("PIPELINING", "LIMITS MAILMAX=1 RCPTMAX=7"))) as mx, session(mx) as opened:
        assert opened.extensions.rcpt_max == 7
        assert opened.room == 2
        first = opened.send(envelope(), BODY)
        assert not opened.open
        assert (await first).results == (OK,)
        assert (await opened.send(envelope(), BODY)).untried
        assert len(mx.messages) == 1


async def test_what_the_peer_cannot_take_is_not_sent() -> None:
    async with Mx(Script(extensions=("PIPELINING", "SIZE 20"))) as mx, session(mx) as opened:
        (large,) = (await opened.send(envelope(), b"x" * 30)).results
        (utf8,) = (await opened.send(envelope("ü@x.test", smtputf8=True), b"x")).results
        assert isinstance(large, Failure)
        assert isinstance(utf8, Failure)
        assert (large.kind, utf8.kind) == (FailureKind.TOO_LARGE, FailureKind.NO_SMTPUTF8)
        with pytest.raises(ValueError, match="8BITMIME"):
            opened.send(envelope(eight_bit=True), b"\xff")
        assert mx.conversations[0].commands == ["EHLO us.test"]
        assert (await opened.send(envelope(), b"x")).results == (OK,)


async def test_a_poisoned_recipient_is_left_out_and_the_others_are_served() -> None:
    async with Mx() as mx, session(mx) as opened:
        transaction = await opened.send(envelope("a@x.test", "b@x>\r\nRSET", "c@x.test"), BODY)
        assert transaction.results[0] == transaction.results[2] == OK
        poisoned = transaction.results[1]
        assert isinstance(poisoned, Failure)
        assert poisoned.kind is FailureKind.INTERNAL
        assert mx.messages[0].recipients == ["a@x.test", "c@x.test"]
        nobody = await opened.send(envelope("a b@x.test"), BODY)
        assert isinstance(nobody.results[0], Failure)


async def test_a_third_transaction_at_once_is_a_bug_of_ours() -> None:
    async with Mx() as mx, session(mx) as opened:
        under_way = [opened.send(envelope(), BODY), opened.send(envelope(), BODY)]
        with pytest.raises(ValueError, match="two transactions"):
            opened.send(envelope(), BODY)
        await asyncio.gather(*under_way)


async def test_no_journal_no_dot() -> None:
    def journal() -> None:
        raise OSError("disk full")

    async with Mx() as mx, session(mx) as opened:
        transaction = await opened.send(envelope(), BODY, on_dot=journal)
        assert not transaction.past_dot
        (failure,) = transaction.results
        assert isinstance(failure, Failure)
        assert (failure.kind, failure.stage) == (FailureKind.INTERNAL, Stage.DATA)
        await mx.wait_closed()
        assert mx.messages == []


async def test_a_cancelled_transaction_ends_the_connection() -> None:
    async with Mx(Script(mail=HANG)) as mx, session(mx, PATIENT) as opened:
        future = opened.send(envelope(), BODY)
        future.cancel()
        await mx.wait_closed()
        assert not opened.open


async def test_abort_tells_all_that_is_under_way() -> None:
    async with Mx(Script(mail=HANG)) as mx, session(mx, PATIENT) as opened:
        futures = [opened.send(envelope(), BODY), opened.send(envelope(), BODY)]
        opened.abort()
        for transaction in await asyncio.gather(*futures):
            assert isinstance(transaction.results[0], Failure)
            assert transaction.results[0].kind is FailureKind.STOPPED
            assert transaction.untried


@pytest.mark.parametrize(
    ("quit_act", "longest_s"),
    [
        pytest.param(None, 1, id="answered"),
        pytest.param(CLOSE, 1, id="closed"),
        pytest.param(b"rubbish\r\n", 1, id="rubbish"),
        pytest.param("500 no", 1, id="refused"),
    ],
)
async def test_quit_is_said_and_over(quit_act: Act, longest_s: float) -> None:
    script = Script(tls=valid().server_context(), quit=quit_act)
    async with Mx(script) as mx, session(mx) as opened:
        await opened.send(envelope(), BODY)
        begun = time.monotonic()
        await opened.quit()
        assert time.monotonic() - begun < longest_s
        assert mx.conversations[0].commands[-1] == "QUIT"


async def test_quit_cuts_off_what_is_under_way() -> None:
    async with Mx(Script(mail=HANG)) as mx, session(mx, PATIENT) as opened:
        future = opened.send(envelope(), BODY)
        await opened.quit()
        assert (await future).untried
        assert "QUIT" not in mx.conversations[0].commands


async def test_tls_that_breaks_under_way_is_a_closed_connection() -> None:
    async with Mx(Script(tls=valid().server_context())) as mx, session(mx) as opened:
        assert (await opened.send(envelope(), BODY)).results == (OK,)
        mx.conversations[0].raw.write(b"this is not a TLS record at all\r\n")
        await mx.wait_closed()
        assert not opened.open


async def test_a_peer_that_never_answers_quit_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arkrelay.wire.session.QUIT_S", 0.2)
    async with Mx(Script(quit=HANG)) as mx, session(mx) as opened:
        begun = time.monotonic()
        await opened.quit()
        assert time.monotonic() - begun < 1
        await mx.wait_closed()
