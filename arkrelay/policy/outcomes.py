"""What an attempt, a person or a crash means for one recipient: the table of outcomes.

Every end of a recipient's wait is made here, with its events, and nothing is written here: ``relay.settle`` does
that. A peer's failure is data and a surprise defers; what may have arrived is never failed, and what cannot be
explained by a peer is held for a person. What comes back after the end is judged in ``reports``.
"""

from collections.abc import Callable
from dataclasses import replace

from arkrelay.model.attempt import REST_CLASS, Attempt, BounceClass, Classified
from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import HoldReason, Recipient, Status
from arkrelay.model.outcome import Outcome
from arkrelay.model.reply import Failure, FailureKind, Reply, Stage
from arkrelay.model.settings import Settings
from arkrelay.policy.classify import Rules, classify
from arkrelay.policy.describe import describe, enhanced_of, exhausted
from arkrelay.policy.retry import next_attempt_at
from arkrelay.policy.route import moves_to
from arkrelay.policy.suppress import on_failure

UNCERTAIN_PAUSE_S = 300.0  # the least wait before a message that may have arrived is sent again
UNCERTAIN_COPIES = 4  # at most so many copies of one message, ever; then a person decides
STOPPED_PAUSE_S = 5.0  # before a recipient that could not be begun is looked at again
REFUSED = "Refused: "  # how the reason begins of what was kept though policy refused it (``smtp.errors``)
POISON_ATTEMPTS = 5  # surprises of ours in a row before a recipient is held for a person
_RELEASABLE = frozenset({HoldReason.SUPPRESSED, HoldReason.CREDENTIAL})  # what would hold it again when it is due
STATUS_EVENT = {
    Status.SENT: EventKind.SENT,
    Status.SOFTFAIL: EventKind.DELAYED,
    Status.HARDFAIL: EventKind.FAILED,
    Status.HELD: EventKind.HELD,
}


def decide(
    recipient: Recipient,
    attempt: Attempt,
    rules: Rules,
    settings: Settings,
    now: float,
    dice: float,
    *,
    another_way: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Return what ``attempt`` means for ``recipient``; ``dice`` in [-1, 1] spreads the retries.

    What a site refused for the sake of our address is not final, and due at once, where ``another_way`` says that it
    can leave from another address, or by a ``[[route]]``. A route ``after`` so many attempts is taken from here.
    """
    result = attempt.result
    if isinstance(result, Reply) and 200 <= result.code < 300:
        return _sent(recipient, attempt, now)
    if isinstance(result, Failure) and result.kind is FailureKind.STOPPED and not attempt.past_dot:
        return Outcome(
            recipient,
            now,
            recipient.status,
            recipient.reason,
            recipient.attempts,
            due_at=now + STOPPED_PAUSE_S,
            hold_reason=passed_over(recipient),
            uncertain=recipient.uncertain,
        )
    attempts = recipient.attempts + 1
    classified = classify(result, rules, attempts=attempts)
    if isinstance(result, Failure) and attempt.past_dot:
        return _uncertain(recipient, attempt, classified, settings, now, dice)
    if isinstance(result, Failure) and result.kind is FailureKind.INTERNAL and attempts >= POISON_ATTEMPTS:
        reason = f"Held after {attempts} internal errors: {result.detail}"
        return _held(recipient, attempt, HoldReason.POISON, reason, attempts, now)
    details = describe(result, classified, recipient, attempt.host, attempt.address, attempt.port)
    due_at, destination = None, None
    if classified.lane == "block" and another_way():
        classified, due_at = replace(classified, permanent=False), now
    elif not classified.permanent:
        message, policy = recipient.message, settings.delivery.retry_policy()
        wait_s, expires_at = classified.wait_s, message.expires_at
        due_at = next_attempt_at(
            policy, attempts, message.accepted_at, now, dice, wait_s=wait_s, expires_at=expires_at
        )
        if due_at is None:
            details = _gave_up(recipient, attempts, settings, details, now)
            if attempts < policy.max_attempts and _own_end(recipient, settings):
                classified = replace(classified, bounce_class=BounceClass.EXPIRED)
    status = Status.HARDFAIL if due_at is None else Status.SOFTFAIL
    if due_at is not None:
        destination = moves_to(recipient.destination, recipient.domain, settings.route, attempts)
    return Outcome(
        recipient,
        now,
        status,
        _with_reply(details, result),
        attempts,
        due_at=due_at,
        attempt=attempt,
        details=details,
        hold_reason=None if due_at is None else passed_over(recipient),
        bounce_class=classified.bounce_class,
        events=(_event(recipient, attempt, status, details, now, classified, due_at),),
        suppress=on_failure(classified, status, settings.suppression),
        uncertain=recipient.uncertain,
        destination=destination,
        lane=classified.lane,
    )


def release_at(recipient: Recipient, now: float, reason: str, past: HoldReason | None) -> Outcome:
    """Return the outcome that puts a recipient back into the queue, due at once; ``past``: it passes over this."""
    event = Event(
        EventKind.RELEASED, now, recipient.message.tenant_id, recipient.message.id, recipient.id, {"details": reason}
    )
    return Outcome(
        recipient,
        now,
        Status.PENDING,
        reason,
        recipient.attempts,
        due_at=now,
        hold_reason=past,
        events=(event,),
        uncertain=recipient.uncertain,
    )


def was_refused(recipient: Recipient) -> bool:
    """Return whether policy refused this when it was submitted: none of it is checked or signed, so it never goes."""
    return recipient.status is Status.HARDFAIL and not recipient.attempts and recipient.reason.startswith(REFUSED)


def passed_over(recipient: Recipient) -> HoldReason | None:
    """Return the hold that a person has passed over: the same does not hold this one again."""
    return recipient.hold_reason if recipient.hold_reason in _RELEASABLE else None


def hold(recipient: Recipient, hold_reason: HoldReason, reason: str, now: float) -> Outcome:
    """Return the outcome that keeps a recipient out of the queue until somebody releases it."""
    return _held(recipient, None, hold_reason, reason, recipient.attempts, now)


def fail(recipient: Recipient, reason: str, now: float) -> Outcome:
    """Return the outcome that ends a recipient without another attempt (deleted, expired while held)."""
    event = Event(
        EventKind.FAILED,
        now,
        recipient.message.tenant_id,
        recipient.message.id,
        recipient.id,
        {"status": "HardFail", "details": reason, "output": ""},
    )
    return Outcome(
        recipient,
        now,
        Status.HARDFAIL,
        reason,
        recipient.attempts,
        details=reason,
        bounce_class=recipient.bounce_class,
        events=(event,),
        uncertain=recipient.uncertain,
    )


def expired(recipient: Recipient, now: float) -> Outcome:
    """Return the outcome of a recipient whose message has reached ``expires_at`` without another attempt."""
    reason = "The message's own lifetime ended before it was delivered."
    if recipient.uncertain:
        reason += " A copy of it may have arrived."
    if recipient.attempts and recipient.reason:
        reason += f" {recipient.reason}"
    failed = fail(recipient, reason, now)
    name, code = REST_CLASS[BounceClass.EXPIRED]
    data = {
        "classification": name,
        "classification_code": code,
        "class": str(BounceClass.EXPIRED),
        "smtp_enhanced_code": "5.4.7",  # RFC 3463 §3.5: delivery time expired
    }
    events = tuple(replace(event, data={**event.data, **data}) for event in failed.events)
    return replace(failed, bounce_class=BounceClass.EXPIRED, events=events)


def taken_before_crash(recipient: Recipient, now: float) -> Outcome:
    """Return the outcome of a recipient whose 2xx had come when the process died, before it was written."""
    reply = Reply(250, None, "the reply was seen just before a crash", Stage.DOT)
    return _sent(recipient, Attempt(recipient.id, now, 0.0, reply, past_dot=True), now)


def uncertain_after_crash(recipient: Recipient, policy: str, now: float, *, rebooted: bool) -> Outcome:
    """Return the outcome of a recipient that may have been past its final dot when the process died.

    ``policy`` is ``delivery.uncertain``: "retry" tries again at once, because a reply may simply have been lost
    with us; "hold" leaves it to a person.
    """
    what = "the machine went down" if rebooted else "the process ended"
    reason = f"{what} after this may have been sent and before a reply was recorded: it may have arrived"
    count = recipient.uncertain + 1
    event = Event(
        EventKind.UNCERTAIN,
        now,
        recipient.message.tenant_id,
        recipient.message.id,
        recipient.id,
        {"details": reason, "copies": count, "policy": policy},
    )
    if policy == "hold" or count >= UNCERTAIN_COPIES:
        held = _held(recipient, None, HoldReason.UNCERTAIN, reason, recipient.attempts, now)
        return replace(held, events=(event, *held.events), uncertain=count)
    return Outcome(
        recipient,
        now,
        recipient.status,
        reason,
        recipient.attempts,
        due_at=now,
        hold_reason=passed_over(recipient),
        events=(event,),
        uncertain=count,
    )


def _sent(recipient: Recipient, attempt: Attempt, now: float) -> Outcome:
    details = describe(attempt.result, None, recipient, attempt.host, attempt.address, attempt.port)
    return Outcome(
        recipient,
        now,
        Status.SENT,
        _with_reply(details, attempt.result),
        recipient.attempts + 1,
        attempt=attempt,
        details=details,
        events=(_event(recipient, attempt, Status.SENT, details, now),),
        unsuppress=bool(attempt.site),  # a peer of the world has it: no test key, capture box or played recipient
        uncertain=recipient.uncertain,
    )


def _uncertain(
    recipient: Recipient, attempt: Attempt, classified: Classified, settings: Settings, now: float, dice: float
) -> Outcome:
    """The final dot was written and no reply seen: send again after a longer pause, or hold; never fail.

    RFC 1047 describes the duplicate that this may make; losing the message would be worse.
    """
    count = recipient.uncertain + 1
    attempts = recipient.attempts + 1
    reason = (
        f"The connection to {attempt.host or recipient.domain} ended after the message was sent and before its"
        f" reply ({attempt.result}): it may have arrived"
    )
    event = Event(
        EventKind.UNCERTAIN,
        now,
        recipient.message.tenant_id,
        recipient.message.id,
        recipient.id,
        {"details": reason, "remote_host": attempt.host, "copies": count},
    )
    if count >= UNCERTAIN_COPIES or settings.delivery.uncertain == "hold":
        held = _held(recipient, attempt, HoldReason.UNCERTAIN, reason, attempts, now)
        return replace(held, events=(event, *held.events), uncertain=count)
    due_at = next_attempt_at(settings.delivery.retry_policy(), attempts, recipient.message.accepted_at, now, dice)
    due_at = max(due_at or 0.0, now + UNCERTAIN_PAUSE_S)
    return Outcome(
        recipient,
        now,
        Status.SOFTFAIL,
        reason,
        attempts,
        due_at=due_at,
        attempt=attempt,
        details=reason,
        hold_reason=passed_over(recipient),
        bounce_class=classified.bounce_class,
        events=(event, _event(recipient, attempt, Status.SOFTFAIL, reason, now, classified, due_at)),
        uncertain=count,
    )


def _held(
    recipient: Recipient, attempt: Attempt | None, hold_reason: HoldReason, reason: str, attempts: int, now: float
) -> Outcome:
    event = Event(
        EventKind.HELD,
        now,
        recipient.message.tenant_id,
        recipient.message.id,
        recipient.id,
        {"status": "Held", "details": reason, "output": "", "hold_reason": str(hold_reason)},
    )
    return Outcome(
        recipient,
        now,
        Status.HELD,
        reason,
        attempts,
        attempt=attempt,
        details=reason,
        hold_reason=hold_reason,
        events=(event,),
        uncertain=recipient.uncertain,
    )


def _with_reply(details: str, result: Reply | Failure) -> str:
    """Return the contract's sentence with the peer's own words, which it leaves out and a person wants."""
    return f"{details}: {result}" if isinstance(result, Reply) else details


def _gave_up(recipient: Recipient, attempts: int, settings: Settings, details: str, now: float) -> str:
    expires_at = recipient.message.expires_at
    if expires_at is not None and now >= expires_at:
        return f"The message's own lifetime ended before it was delivered. {details}"
    if attempts >= settings.delivery.max_attempts:
        return exhausted(attempts, details)
    if _own_end(recipient, settings):
        return f"No further attempt was possible before the end of the message's own lifetime. {details}"
    return f"No delivery was possible within the lifetime of a message. {details}"


def _own_end(recipient: Recipient, settings: Settings) -> bool:
    """Return whether it is the message's own lifetime that ends its waiting first."""
    message = recipient.message
    return message.expires_at is not None and message.expires_at < message.accepted_at + settings.delivery.lifetime_s


def _event(
    recipient: Recipient,
    attempt: Attempt,
    status: Status,
    details: str,
    now: float,
    classified: Classified | None = None,
    due_at: float | None = None,
) -> Event:
    """Return the contract's delivery event (§11.2), with what a webhook needs and no more."""
    result = attempt.result
    data: dict[str, object] = {
        "details": details,
        "output": str(result) if isinstance(result, Reply) else "",
        "sent_with_ssl": attempt.tls is not None,
        "time": round(attempt.duration_s, 3),
        "remote_host": attempt.host,
    }
    if classified is not None:
        name, code = REST_CLASS[classified.bounce_class]
        data |= {"classification": name, "classification_code": code, "class": str(classified.bounce_class)}
        data["smtp_enhanced_code"] = enhanced_of(result, permanent=classified.permanent)
        data["next_attempt_at"] = due_at
    return Event(STATUS_EVENT[status], now, recipient.message.tenant_id, recipient.message.id, recipient.id, data)
