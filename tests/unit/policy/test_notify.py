"""NOTIFY against outcome: who is told, and what."""

from dataclasses import replace
from typing import Any

import pytest

from arkrelay.model.attempt import Attempt, BounceClass
from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import Door, Message, Recipient, Status
from arkrelay.model.outcome import Outcome
from arkrelay.model.reply import Failure, FailureKind, Reply, Stage
from arkrelay.model.settings import Dsn
from arkrelay.policy import notify
from arkrelay.policy.notify import Action

NOW = 1_800_000_000.0
HOURS_4 = 4 * 3600.0
MESSAGE = Message(1, "acme", Door.SMTP, None, NOW, "<1@sender.test>", "a@sender.test", "sender.test", "a@sender.test")
RECIPIENT = Recipient(7, MESSAGE, "token", "ann@rcpt.test", "rcpt.test", "rcpt.test", due_at=NOW)
TAKEN = Attempt(7, NOW, 0.1, Reply(250, "2.0.0", "taken", Stage.DOT))
ALL = "SUCCESS,FAILURE,DELAY"


def outcome(status: Status, recipient: Recipient, *, at: float = NOW, **more: Any) -> Outcome:
    return Outcome(recipient, at, status, "so it was", 1, **more)


@pytest.mark.parametrize(
    ("words", "failures", "failed", "relayed"),
    [
        (None, "asked", None, None),
        (None, "always", Action.FAILED, None),
        (None, "never", None, None),
        ("NEVER", "asked", None, None),
        ("NEVER", "always", None, None),
        ("FAILURE", "asked", Action.FAILED, None),
        ("FAILURE", "always", Action.FAILED, None),
        ("FAILURE", "never", None, None),
        ("SUCCESS", "asked", None, Action.RELAYED),
        ("SUCCESS", "always", None, Action.RELAYED),
        ("DELAY", "always", None, None),
        (ALL, "asked", Action.FAILED, Action.RELAYED),
    ],
)
def test_notify_decides_who_is_told(
    words: str | None, failures: str, failed: Action | None, relayed: Action | None
) -> None:
    settings, recipient = Dsn(failures=failures), replace(RECIPIENT, notify=words)
    assert notify.action_for(outcome(Status.HARDFAIL, recipient), settings) is failed
    assert notify.action_for(outcome(Status.SENT, recipient, attempt=TAKEN), settings) is relayed
    assert notify.action_for(outcome(Status.BOUNCED, recipient), settings) is failed
    for status in (Status.SOFTFAIL, Status.PENDING, Status.HELD):
        assert notify.action_for(outcome(status, recipient), settings) is None


@pytest.mark.parametrize("dsn", [True, False])
def test_success_is_the_peers_to_tell_where_it_offers_dsn(*, dsn: bool) -> None:
    sent = outcome(Status.SENT, replace(RECIPIENT, notify=ALL), attempt=replace(TAKEN, dsn=dsn))
    assert notify.action_for(sent, Dsn()) is (None if dsn else Action.RELAYED)


@pytest.mark.parametrize(
    ("words", "tell_at", "after_s", "due_s"),
    [
        (None, None, HOURS_4, None),
        ("NEVER", None, HOURS_4, None),
        ("SUCCESS,FAILURE", None, HOURS_4, None),
        ("DELAY", None, HOURS_4, HOURS_4),
        (ALL, None, 60.0, 60.0),
        ("DELAY", None, 0.0, None),
        ("DELAY", NOW + 5, HOURS_4, 5.0),
        ("FAILURE", NOW + 5, HOURS_4, None),
    ],
)
def test_a_delay_notice_is_due_when_asked_for(
    words: str | None, tell_at: float | None, after_s: float, due_s: float | None
) -> None:
    due_at = notify.delay_at(words, NOW, tell_at, Dsn(delay_after_s=after_s))
    assert due_at == (None if due_s is None else NOW + due_s)


@pytest.mark.parametrize(("age_s", "action"), [(-1.0, None), (0.0, Action.DELAYED), (1.0, Action.DELAYED)])
def test_a_delay_is_told_by_the_first_failed_attempt_after_it(age_s: float, action: Action | None) -> None:
    recipient = replace(RECIPIENT, notify=ALL, delay_at=NOW)
    assert notify.action_for(outcome(Status.SOFTFAIL, recipient, at=NOW + age_s), Dsn()) is action


@pytest.mark.parametrize("changes", [{"return_path": None}, {"door": Door.DSN}, {"test": True}])
@pytest.mark.parametrize("status", [Status.HARDFAIL, Status.SENT, Status.SOFTFAIL])
def test_some_mail_is_never_told_of(changes: dict[str, Any], status: Status) -> None:
    recipient = replace(RECIPIENT, message=replace(MESSAGE, **changes), notify=ALL, delay_at=NOW)
    assert notify.action_for(outcome(status, recipient), Dsn(failures="always")) is None


@pytest.mark.parametrize(
    ("result", "said", "status", "diagnostic"),
    [
        (Reply(550, "5.1.1", "no", Stage.RCPT), "5.1.1", "5.1.1", ("smtp", "550 5.1.1 no")),
        (Reply(550, None, "no", Stage.RCPT), None, "5.0.0", ("smtp", "550 no")),
        (Reply(451, "5.1.1", "odd", Stage.RCPT), None, "4.0.0", ("smtp", "451 5.1.1 odd")),
        (Reply(250, "2.0.0", "ok", Stage.DOT), None, "2.0.0", ("smtp", "250 2.0.0 ok")),
        (Failure(FailureKind.TIMEOUT, Stage.CONNECT, "slow"), "4.4.2", "4.4.2", ("x-arkrelay", "slow")),
        (None, None, "5.4.7", None),
    ],
)
def test_status_and_diagnostic_are_the_peers_or_ours(
    result: Reply | Failure | None, said: str | None, status: str, diagnostic: tuple[str, str] | None
) -> None:
    attempt = None if result is None else Attempt(7, NOW, 0.1, result)
    events = (Event(EventKind.FAILED, NOW, data={"smtp_enhanced_code": said}),)
    found = outcome(Status.HARDFAIL, RECIPIENT, attempt=attempt, events=events)
    assert (notify.status_of(found), notify.diagnostic_of(found)) == (status, diagnostic)


def test_every_end_comes_with_advice() -> None:
    for bounce_class in (None, *BounceClass):
        for action in Action:
            assert notify.advice(action, bounce_class).endswith(".")
    assert "spelling" in notify.advice(Action.FAILED, BounceClass.NO_MAILBOX)


@pytest.mark.parametrize(
    ("ret", "action", "original", "whole"),
    [
        ("FULL", Action.FAILED, "asked", True),
        ("FULL", Action.FAILED, "headers", False),
        ("HDRS", Action.FAILED, "asked", False),
        (None, Action.FAILED, "asked", False),
        ("FULL", Action.DELAYED, "asked", False),
        ("FULL", Action.RELAYED, "asked", False),
    ],
)
def test_only_a_failure_brings_the_whole_message_back(
    ret: str | None,
    action: Action,
    original: str,
    whole: bool,
) -> None:
    assert notify.whole_original(replace(MESSAGE, ret=ret), action, Dsn(original=original)) is whole
