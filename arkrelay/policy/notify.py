"""Which notice (RFC 3461, RFC 3464) a sender gets of what became of a recipient, and what it says.

Users of a relay read failures in webhooks and lists, so a notice is sent only where somebody asked: by NOTIFY, or for
failures by ``dsn.failures``. None is ever about a message with a null return path, a notice among them, so that
nothing can go round in circles (RFC 5321 §4.5.5). What a peer reports later comes to our own return path and not to
the sender's, so it is ours to pass on what the sender asked for (RFC 3461 §5.2.5, as for an alias of one address).
"""

from enum import StrEnum

from arkrelay.model.attempt import BounceClass
from arkrelay.model.message import Message, Recipient, Status
from arkrelay.model.outcome import Outcome
from arkrelay.model.reply import Reply
from arkrelay.model.report import Finding, ReportKind
from arkrelay.model.settings import Dsn

EXPIRED = "5.4.7"  # RFC 3463 §3.5: what failed without an attempt has waited too long
DIAGNOSTIC_TYPE = "x-arkrelay"  # of what no server said (RFC 3464 §2.3.6: a name of our own begins with x-)


class Action(StrEnum):
    """The Action field of a notice (RFC 3464 §2.3.3), as far as a relay has something to say."""

    FAILED = "failed"
    DELAYED = "delayed"
    RELAYED = "relayed"
    DELIVERED = "delivered"
    EXPANDED = "expanded"


_ADVICE = {
    BounceClass.BAD_ADDRESS: "Check the address: its spelling, and whether it is still in use.",
    BounceClass.NO_MAILBOX: "Check the address: its spelling, and whether it is still in use.",
    BounceClass.NOT_ACCEPTING: "Reach the recipient in another way: this address takes no mail.",
    BounceClass.NO_DOMAIN: "Check what stands behind the @: no such mail domain was found.",
    BounceClass.MAILBOX_FULL: "Try again later, or reach the recipient in another way: the mailbox is full.",
    BounceClass.TOO_LARGE: "Send less in one message, or a link instead of an attachment.",
    BounceClass.BLOCKLISTED: "Ask the administrator of your mail relay: the other side refuses mail from it.",
    BounceClass.CONTENT_SPAM: "Ask the recipient's administrator why the message was taken for spam.",
    BounceClass.POLICY: "Ask the recipient's administrator: the rules of the other side refuse the message.",
    BounceClass.TLS_REQUIRED: "Ask the administrator of your mail relay: no safe connection could be made.",
    BounceClass.EXPIRED: "Send it again if it still matters: the time that you had set for it is over.",
}
_TRY_AGAIN = "Try again later; if it fails again, ask the administrator of your mail relay."


def action_for(outcome: Outcome, settings: Dsn) -> Action | None:
    """Return the notice that the recipient's change of state calls for, or None.

    Without NOTIFY, RFC 3461 §4.1 leaves delays to us: there is none. Success is ours to tell only where the peer
    does not offer DSN, for else it was handed the wish (§5.2.2); when nobody remembers what the peer offered (a crash
    came in between), it is told.
    """
    recipient = outcome.recipient
    if not _is_told(recipient.message):
        return None
    words = _words(recipient.notify)
    match outcome.status:
        case Status.HARDFAIL | Status.BOUNCED:
            asked = settings.failures == "always" if not words else "FAILURE" in words
            return Action.FAILED if asked and settings.failures != "never" else None
        case Status.SOFTFAIL:
            due = recipient.delay_at is not None and outcome.at >= recipient.delay_at
            return Action.DELAYED if due else None
        case Status.SENT:
            told_by_peer = outcome.attempt is not None and outcome.attempt.dsn
            return Action.RELAYED if "SUCCESS" in words and not told_by_peer else None
        case _:
            return None


def action_for_report(recipient: Recipient, kind: ReportKind, finding: Finding | None) -> Action | None:
    """Return the notice that a peer's report calls for which left the recipient in its state, or None."""
    if finding is None or not _is_told(recipient.message):
        return None
    words = _words(recipient.notify)
    if kind is ReportKind.RECEIPT and "SUCCESS" in words:
        return Action(finding.action)
    return Action.DELAYED if kind is ReportKind.DELAY and "DELAY" in words else None


def delay_at(notify: str | None, accepted_at: float, tell_at: float | None, settings: Dsn) -> float | None:
    """Return when a delay notice is due, if NOTIFY asks for one: ``tell_at`` of RFC 2852's mode N, or as set."""
    if "DELAY" not in _words(notify):
        return None
    if tell_at is not None:
        return tell_at
    return accepted_at + settings.delay_after_s if settings.delay_after_s else None


def status_of(outcome: Outcome) -> str:
    """Return the status code of the recipient (RFC 3463): the peer's, or the one that fits what we saw.

    One of class 4 stays so in a notice of failure: RFC 3463 §2 says just that, given up after trying.
    """
    result = outcome.attempt.result if outcome.attempt is not None else None
    if isinstance(result, Reply):
        first = str(result.code)[0]
        return result.enhanced if result.enhanced and result.enhanced[0] == first else f"{first}.0.0"
    for event in outcome.events:
        found = event.data.get("smtp_enhanced_code")
        if isinstance(found, str):
            return found
    return EXPIRED


def diagnostic_of(outcome: Outcome) -> tuple[str, str] | None:
    """Return type and text of the diagnostic (RFC 3464 §2.3.6): the peer's reply, or what we saw; None: neither."""
    if outcome.attempt is None:
        return None
    result = outcome.attempt.result
    return ("smtp", str(result)) if isinstance(result, Reply) else (DIAGNOSTIC_TYPE, str(result))


def advice(action: Action, bounce_class: BounceClass | None) -> str:
    """Return what the sender can do now, as one sentence."""
    match action:
        case Action.DELAYED:
            return "You need not do anything: it is tried again and again."
        case Action.DELIVERED | Action.EXPANDED:
            return "You need not do anything: it has arrived."
        case Action.RELAYED:
            return "You need not do anything. Whether it was read, or put into a mailbox, nobody told us."
        case Action.FAILED:
            return _TRY_AGAIN if bounce_class is None else _ADVICE.get(bounce_class, _TRY_AGAIN)


def whole_original(message: Message, action: Action, settings: Dsn) -> bool:
    """Return whether the notice brings the whole message back (RFC 3461 §4.3: RET is for failures only)."""
    return action is Action.FAILED and message.ret == "FULL" and settings.original == "asked"


def _is_told(message: Message) -> bool:
    return message.return_path is not None and message.counts


def _words(notify: str | None) -> frozenset[str]:
    return frozenset(notify.split(",")) if notify else frozenset()
