"""What an attempt means, row by row; and that every outcome reaches the disk, whatever its neighbours do."""

import asyncio
import sqlite3
from dataclasses import replace
from typing import Any, cast

import pytest
from unit.relay.rig import NOW, Rig, rules

from arkrelay.model.attempt import Attempt, BounceClass
from arkrelay.model.delivery import Delivery
from arkrelay.model.event import EventKind
from arkrelay.model.message import Door, HoldReason, Message, Recipient, Status
from arkrelay.model.outcome import Outcome
from arkrelay.model.reply import Failure, FailureKind, Reply, Stage
from arkrelay.model.settings import Settings, Suppression
from arkrelay.policy import outcomes
from arkrelay.policy.describe import describe
from arkrelay.store import suppressions
from arkrelay.store.history import StoredEvent, list_events

RULES = rules()
MESSAGE = Message(1, "acme", Door.SMTP, None, NOW, "<1@sender.test>", "a@sender.test", "sender.test", "a@sender.test")
RECIPIENT = Recipient(7, MESSAGE, "token", "ann@rcpt.test", "rcpt.test", "rcpt.test", due_at=NOW)


def reply(code: int, text: str = "words", enhanced: str | None = None, stage: Stage = Stage.RCPT) -> Reply:
    return Reply(code, enhanced, text, stage)


def failure(kind: FailureKind, stage: Stage = Stage.CONNECT) -> Failure:
    return Failure(kind, stage, "what happened")


def decide(
    result: Reply | Failure,
    recipient: Recipient = RECIPIENT,
    *,
    past_dot: bool = False,
    now: float = NOW,
    **settings: Any,
) -> Outcome:
    attempt = Attempt(
        recipient.id, now, 0.5, result, past_dot=past_dot, host="mx.rcpt.test", address="192.0.2.1", port=25
    )
    given = Settings(hostname="relay.test", **settings)
    return outcomes.decide(recipient, attempt, RULES, given, now, 0.0)


TAKEN = reply(250, "queued as 4711", "2.0.0", Stage.DOT)
LOST = Failure(FailureKind.CLOSED, Stage.DOT, "the peer closed before the reply to the final dot")


@pytest.mark.parametrize(
    ("result", "changes", "status", "due_s", "kinds"),
    [
        pytest.param(TAKEN, {}, Status.SENT, None, ["MessageSent"], id="taken"),
        pytest.param(reply(200), {}, Status.SENT, None, ["MessageSent"], id="any-2xx"),
        pytest.param(reply(450), {}, Status.SOFTFAIL, 300, ["MessageDelayed"], id="4xx"),
        pytest.param(reply(450), {"attempts": 1}, Status.SOFTFAIL, 390, ["MessageDelayed"], id="the-second-wait"),
        pytest.param(reply(450), {"attempts": 17}, Status.HARDFAIL, None, ["MessageDeliveryFailed"], id="the-18th"),
        pytest.param(
            reply(451, "try again in 600 seconds"),
            {},
            Status.SOFTFAIL,
            610,
            ["MessageDelayed"],
            id="the-wait-asked-for",
        ),
        pytest.param(reply(550), {}, Status.HARDFAIL, None, ["MessageDeliveryFailed"], id="5xx"),
        pytest.param(
            reply(554, stage=Stage.GREETING), {}, Status.SOFTFAIL, 300, ["MessageDelayed"], id="5xx-greeting"
        ),
        pytest.param(failure(FailureKind.TIMEOUT), {}, Status.SOFTFAIL, 300, ["MessageDelayed"], id="timeout"),
        pytest.param(failure(FailureKind.RESOLVER), {}, Status.SOFTFAIL, 300, ["MessageDelayed"], id="resolver"),
        pytest.param(failure(FailureKind.NO_DOMAIN), {}, Status.SOFTFAIL, 900, ["MessageDelayed"], id="nxdomain"),
        pytest.param(
            failure(FailureKind.NO_DOMAIN),
            {"attempts": 1},
            Status.HARDFAIL,
            None,
            ["MessageDeliveryFailed"],
            id="again",
        ),
        pytest.param(
            failure(FailureKind.NULL_MX), {}, Status.HARDFAIL, None, ["MessageDeliveryFailed"], id="null-mx"
        ),
        pytest.param(
            failure(FailureKind.EXPIRED), {}, Status.HARDFAIL, None, ["MessageDeliveryFailed"], id="expired"
        ),
        pytest.param(failure(FailureKind.INTERNAL), {}, Status.SOFTFAIL, 300, ["MessageDelayed"], id="our-surprise"),
        pytest.param(failure(FailureKind.INTERNAL), {"attempts": 4}, Status.HELD, None, ["MessageHeld"], id="poison"),
    ],
)
def test_an_attempt_decides(
    result: Reply | Failure, changes: dict[str, Any], status: Status, due_s: float | None, kinds: list[str]
) -> None:
    outcome = decide(result, replace(RECIPIENT, **changes))
    assert outcome.status is status
    assert outcome.due_at == (None if due_s is None else pytest.approx(NOW + due_s))
    assert outcome.attempts == RECIPIENT.attempts + changes.get("attempts", 0) + 1
    assert [str(event.kind) for event in outcome.events] == kinds
    assert outcome.attempt is not None
    assert outcome.reason


def test_the_reason_holds_the_words_of_the_peer_and_the_details_only_the_contract() -> None:
    outcome = decide(reply(451, "Greylisted, come back", "4.7.1"))
    assert (
        outcome.details
        == "451 temporarily unavailable: Delivery to ann@rcpt.test failed at 192.0.2.1:25 (mx.rcpt.test)"
    )
    assert outcome.reason == f"{outcome.details}: 451 4.7.1 Greylisted, come back"
    assert decide(TAKEN).reason.endswith(": 250 2.0.0 queued as 4711")


def test_what_no_server_said_has_a_status_code_all_the_same() -> None:
    (event,) = decide(failure(FailureKind.NULL_MX)).events
    assert event.data["smtp_enhanced_code"] == "5.1.10"
    (event,) = decide(failure(FailureKind.TIMEOUT)).events
    assert event.data["smtp_enhanced_code"] == "4.4.2"


def test_giving_up_says_which_end_was_reached() -> None:
    worn_out = decide(reply(450), replace(RECIPIENT, attempts=17))
    assert worn_out.reason.startswith("Maximum number of delivery attempts (18) has been reached. 450 ")
    late = decide(reply(450), now=NOW + 172_800)
    assert late.reason.startswith("No delivery was possible within the lifetime of a message. 450 ")
    message = replace(MESSAGE, expires_at=NOW + 60)
    own = decide(reply(450), replace(RECIPIENT, message=message), now=NOW + 61)
    assert own.reason.startswith("The message's own lifetime ended before it was delivered. 450 ")
    assert own.bounce_class is BounceClass.EXPIRED
    soon = decide(reply(450), replace(RECIPIENT, message=message))
    assert soon.reason.startswith(
        "No further attempt was possible before the end of the message's own lifetime. 450 "
    )
    assert (soon.status, soon.bounce_class) == (Status.HARDFAIL, BounceClass.EXPIRED)
    assert soon.events[0].data["class"] == "expired"
    assert (
        decide(reply(450), replace(RECIPIENT, message=message), suppression=Suppression(on="any-hardfail")).suppress
        is None
    )


# Past the dot.


@pytest.mark.parametrize(
    "result",
    [
        pytest.param(LOST, id="lost"),
        pytest.param(Failure(FailureKind.TIMEOUT, Stage.DOT, "nothing"), id="timeout"),
        pytest.param(Failure(FailureKind.PROTOCOL, Stage.DOT, "rubbish"), id="rubbish"),
        pytest.param(Failure(FailureKind.STOPPED, Stage.DOT, "we closed the connection"), id="we-stopped"),
    ],
)
def test_without_a_reply_to_the_dot_it_may_have_arrived(result: Failure) -> None:
    outcome = decide(result, past_dot=True)
    assert outcome.status is Status.SOFTFAIL
    assert outcome.uncertain == 1
    assert outcome.due_at is not None
    assert outcome.due_at - NOW >= outcomes.UNCERTAIN_PAUSE_S
    assert [event.kind for event in outcome.events] == [EventKind.UNCERTAIN, EventKind.DELAYED]
    assert "may have arrived" in outcome.reason


def test_the_pause_after_a_lost_reply_is_five_minutes_also_with_a_quick_schedule() -> None:
    outcome = decide(LOST, past_dot=True, delivery=Delivery(first_delay_s=1.0))
    assert outcome.due_at == NOW + 300


@pytest.mark.parametrize(
    ("changes", "settings"),
    [
        pytest.param({"uncertain": 3}, {}, id="the-fourth-copy"),
        pytest.param({}, {"delivery": Delivery(uncertain="hold")}, id="policy"),
    ],
)
def test_what_may_have_arrived_is_held_for_a_person(changes: dict[str, Any], settings: dict[str, Any]) -> None:
    outcome = decide(LOST, replace(RECIPIENT, **changes), past_dot=True, **settings)
    assert outcome.status is Status.HELD
    assert outcome.hold_reason is HoldReason.UNCERTAIN
    assert [event.kind for event in outcome.events] == [EventKind.UNCERTAIN, EventKind.HELD]


def test_what_may_have_arrived_never_fails_for_want_of_attempts_or_time() -> None:
    outcome = decide(LOST, replace(RECIPIENT, attempts=17), past_dot=True, now=NOW + 1_000_000)
    assert outcome.status is Status.SOFTFAIL


def test_a_refusal_after_the_dot_is_a_refusal() -> None:
    outcome = decide(reply(550, stage=Stage.DOT), past_dot=True)
    assert outcome.status is Status.HARDFAIL
    assert outcome.uncertain == 0


def test_what_we_stopped_before_the_dot_is_no_attempt() -> None:
    before = replace(RECIPIENT, status=Status.SOFTFAIL, attempts=3, reason="said before")
    outcome = decide(Failure(FailureKind.STOPPED, Stage.MAIL, "stopping"), before)
    assert (outcome.status, outcome.attempts, outcome.reason) == (Status.SOFTFAIL, 3, "said before")
    assert outcome.attempt is None
    assert outcome.events == ()
    assert outcome.due_at is not None
    assert NOW <= outcome.due_at <= NOW + 60


# Suppression.


@pytest.mark.parametrize(
    ("on", "result", "attempts", "reason"),
    [
        pytest.param("recipient", reply(550, "User unknown", "5.1.1"), 0, "hard fail", id="blames-the-recipient"),
        pytest.param("recipient", reply(550, "Spam", "5.7.1"), 0, None, id="blames-the-content"),
        pytest.param("recipient", reply(450), 17, None, id="worn-out"),
        pytest.param("any-hardfail", reply(550, "Spam", "5.7.1"), 0, "hard fail", id="any"),
        pytest.param("any-hardfail", reply(450), 17, "too many soft fails", id="any-worn-out"),
        pytest.param("any-hardfail", reply(450), 0, None, id="any-soft"),
        pytest.param("off", reply(550, "User unknown", "5.1.1"), 0, None, id="off"),
    ],
)
def test_what_suppresses_is_a_setting(on: str, result: Reply, attempts: int, reason: str | None) -> None:
    outcome = decide(result, replace(RECIPIENT, attempts=attempts), suppression=Suppression(on=on))
    assert (outcome.suppress and outcome.suppress.reason) == reason


@pytest.mark.parametrize("site", ["rcpt.test", ""])
def test_a_delivery_to_a_site_takes_an_automatic_entry_off_the_list(site: str) -> None:
    attempt = Attempt(RECIPIENT.id, NOW, 0.5, TAKEN, past_dot=True, host="mx.rcpt.test", site=site)
    outcome = outcomes.decide(RECIPIENT, attempt, RULES, Settings(hostname="relay.test"), NOW, 0.0)
    assert outcome.unsuppress is bool(site)


@pytest.mark.parametrize("result", [reply(450), failure(FailureKind.TIMEOUT)])
def test_passing_over_the_suppression_list_lasts_while_the_message_waits(result: Reply | Failure) -> None:
    passed = replace(RECIPIENT, hold_reason=HoldReason.SUPPRESSED)
    assert decide(result, passed).hold_reason is HoldReason.SUPPRESSED
    assert decide(LOST, passed, past_dot=True).hold_reason is HoldReason.SUPPRESSED
    assert decide(reply(550), passed).hold_reason is None
    held = replace(passed, status=Status.HELD)
    assert outcomes.passed_over(held) is HoldReason.SUPPRESSED
    assert outcomes.passed_over(replace(held, hold_reason=HoldReason.OPERATOR)) is None


# After a crash.


def test_after_a_crash_what_the_peer_took_is_sent_and_what_it_may_have_taken_follows_policy() -> None:
    assert outcomes.taken_before_crash(RECIPIENT, NOW).status is Status.SENT
    again = outcomes.uncertain_after_crash(RECIPIENT, "retry", NOW, rebooted=False)
    assert (again.status, again.due_at, again.uncertain) == (Status.PENDING, NOW, 1)
    assert [event.kind for event in again.events] == [EventKind.UNCERTAIN]
    held = outcomes.uncertain_after_crash(RECIPIENT, "hold", NOW, rebooted=True)
    assert (held.status, held.hold_reason, held.uncertain) == (Status.HELD, HoldReason.UNCERTAIN, 1)
    assert "the machine went down" in held.reason
    fourth = outcomes.uncertain_after_crash(replace(RECIPIENT, uncertain=3), "retry", NOW, rebooted=False)
    assert fourth.status is Status.HELD


# On disk.


async def test_outcomes_are_on_disk_when_told_and_their_next_time_is_known(rig: Rig) -> None:
    one, other = rig.recipient("ann@rcpt.test"), rig.recipient("bob@other.test")
    await rig.accept(one, other, leased=True)
    told: list[str] = []
    rig.settler.attempted(one, Attempt(one.id, NOW, 0.1, TAKEN, past_dot=True), lambda: told.append("one"))
    rig.settler.attempted(other, Attempt(other.id, NOW, 0.1, reply(450)), lambda: told.append("other"))
    assert rig.settler.unwritten == 2
    assert await rig.settler.drained(10)
    assert told == ["one", "other"]
    assert (await rig.load(one)).status is Status.SENT
    assert (await rig.load(other)).status is Status.SOFTFAIL
    lane = rig.queue.lane("other.test")
    assert lane is not None
    assert lane.table_due == (await rig.load(other)).due_at


async def test_an_outcome_that_cannot_be_written_keeps_no_other_from_the_disk(rig: Rig) -> None:
    good, poison, late = (rig.recipient(f"{name}@rcpt.test") for name in ("good", "poison", "late"))
    await rig.accept(good, poison, late, leased=True)
    for one in (good, poison, late):
        attempts = cast("int", object()) if one is poison else 1  # SQLite has no such type
        rig.settler.settle(Outcome(one, NOW, Status.SENT, "taken", attempts))
    async with asyncio.timeout(20):
        await rig.until(lambda: rig.settler.unwritten == 1)
    assert (await rig.load(good)).status is Status.SENT
    assert (await rig.load(late)).status is Status.SENT
    assert (await rig.load(poison)).status is Status.PENDING
    assert not await rig.settler.drained(0.01)


async def test_an_attempt_that_we_fail_to_understand_is_deferred(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(result: Reply | Failure, *rest: Any) -> str:
        if isinstance(result, Failure):
            return describe(result, *rest)
        raise ArithmeticError("a bug")

    monkeypatch.setattr(outcomes, "describe", stumble)
    refused, taken = rig.recipient("ann@rcpt.test"), rig.recipient("bob@rcpt.test")
    await rig.accept(refused, taken, leased=True)
    rig.settler.attempted(refused, Attempt(refused.id, NOW, 0.1, reply(550)))
    rig.settler.attempted(taken, Attempt(taken.id, NOW, 0.1, TAKEN, past_dot=True))
    assert await rig.settler.drained(10)
    assert ((await rig.load(refused)).status, (await rig.load(refused)).uncertain) == (Status.SOFTFAIL, 0)
    assert "ArithmeticError: a bug" in (await rig.load(refused)).reason
    assert ((await rig.load(taken)).status, (await rig.load(taken)).uncertain) == (Status.SOFTFAIL, 1)


async def test_outcomes_wait_while_the_database_is_locked(rig: Rig) -> None:
    one = rig.recipient()
    await rig.accept(one, leased=True)
    other = sqlite3.connect(rig.store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        rig.settler.attempted(one, Attempt(one.id, NOW, 0.1, TAKEN, past_dot=True))
        assert not await rig.settler.drained(0.2)
        assert (await rig.load(one)).status is Status.PENDING
    finally:
        other.execute("ROLLBACK")
        other.close()
    assert await rig.settler.drained(20)
    assert (await rig.load(one)).status is Status.SENT


def test_the_class_of_a_failure_is_kept() -> None:
    assert decide(failure(FailureKind.TIMEOUT)).bounce_class is BounceClass.CONNECTION
    assert decide(TAKEN).bounce_class is None


# The burst guard.


async def test_a_site_that_refuses_too_many_suppresses_nobody_and_says_so_once(rig: Rig) -> None:
    unknown = reply(550, "User unknown", "5.1.1")

    def refused(number: int, site: str) -> Outcome:
        one = rig.recipient(f"a{number}@rcpt.test")
        return rig.settler.attempted(one, Attempt(one.id, NOW, 0.1, unknown, host="mx.rcpt.test", site=site))

    outcomes = [refused(number, "google") for number in range(60)]
    assert [one.suppress is not None for one in outcomes] == [True] * 49 + [False] * 11
    assert outcomes[50].reason.endswith(
        "(not suppressed: google refused 51 of 51 recipients as unknown within an hour)"
    )
    assert refused(61, "yahoo").suppress is not None
    assert outcomes[59].events[0].data["details"].startswith("550 invalid recipient")
    assert await rig.settler.drained(5)
    told: list[StoredEvent] = []
    while not told:
        told = await rig.store.read(lambda db: list_events(db, kinds=[EventKind.NOT_BELIEVED]))
    assert [(one.event.tenant_id, one.event.data["site"], one.event.data["failed"]) for one in told] == [
        ("acme", "google", 50)
    ]


async def test_exact_ark_behaviour_believes_every_site(rig: Rig) -> None:
    rig.folder.main('[suppression]\non = "any-hardfail"\n', hostname="relay.test")
    rig.live.reload()
    for number in range(80):
        one = rig.recipient(f"a{number}@rcpt.test")
        attempt = Attempt(one.id, NOW, 0.1, reply(550, "User unknown", "5.1.1"), site="google")
        assert rig.settler.attempted(one, attempt).suppress is not None
    await rig.settler.drained(5)


async def test_the_third_full_mailbox_within_a_week_suppresses(rig: Rig) -> None:
    for number, listed in enumerate((False, False, True)):
        one = rig.recipient("ann@rcpt.test")
        await rig.accept(one)
        written = asyncio.Event()
        rig.settler.attempted(one, Attempt(one.id, NOW, 0.1, reply(552, "Mailbox full", "5.2.2")), written.set)
        await asyncio.wait_for(written.wait(), 5)
        found = await rig.store.read(lambda db: suppressions.get(db, "acme", "ann@rcpt.test"))
        assert (found is not None) is listed, number
        if found is not None:
            assert (found.reason, found.bounce_class, found.recipient_id) == (
                "mailbox full", BounceClass.MAILBOX_FULL, one.id,
            )  # fmt: skip
