"""What a report that came back means for the one recipient whose return path it came to.

A bounce ends a recipient that was sent. One whose copy may have arrived, because no reply to its final dot was
seen, is ended as well: the report proves that it had arrived, and another copy would bounce too. Of any other state
(it waits, it failed, somebody holds it, a connection has it in hand) a report is noted and changes nothing: it is
late, of an earlier copy, or of a peer that refused what it also took.

Its class comes from the rules that replies have; whatever its status, it is final, for its server has given up.
"""

from arkrelay.model.attempt import REST_CLASS, Attempt, BounceClass, Classified
from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import HoldReason, Recipient, Status
from arkrelay.model.outcome import Outcome
from arkrelay.model.reply import Reply, Stage
from arkrelay.model.report import Finding, Report, ReportKind
from arkrelay.model.settings import Settings
from arkrelay.policy.classify import Rules, classify
from arkrelay.policy.describe import bounced as describe_bounced
from arkrelay.policy.suppress import on_bounce

_EVENT = {ReportKind.AUTO_REPLY: EventKind.AUTO_REPLIED, ReportKind.COMPLAINT: EventKind.COMPLAINED}
_NOTHING = Finding(action="failed")
_MAY_HAVE_ARRIVED = frozenset({Status.PENDING, Status.SOFTFAIL})


def bounce_class_of(finding: Finding | None, rules: Rules) -> BounceClass:
    """Return the class of a failure that somebody else reports."""
    said = finding or _NOTHING
    code = said.code if said.code // 100 in {4, 5} else 450 if said.status.startswith("4") else 550
    status = said.status if said.status[:1] in {"4", "5"} else None
    classified = classify(Reply(code, status, said.text, Stage.DOT), rules, attempts=1)
    return classified.bounce_class


def ends(recipient: Recipient, kind: ReportKind, *, in_hand: bool) -> bool:
    """Return whether a report of this kind ends the recipient as bounced."""
    if kind is not ReportKind.BOUNCE:
        return False
    if recipient.status is Status.SENT:
        return True
    uncertain = recipient.uncertain > 0 and not in_hand
    held = recipient.status is Status.HELD and recipient.hold_reason is HoldReason.UNCERTAIN
    return uncertain and (held or recipient.status in _MAY_HAVE_ARRIVED)


def bounced(
    recipient: Recipient,
    report: Report,
    finding: Finding | None,
    report_id: int,
    to: str,
    rules: Rules,
    settings: Settings,
    now: float,
) -> Outcome:
    """Return the outcome of a recipient whose message came back; ``to`` is the return path that it came to.

    The event has what the contract's webhook shows of the bounce itself (§11.2): a message that came in.
    """
    said = finding or _NOTHING
    bounce_class = bounce_class_of(finding, rules)
    classified = Classified(bounce_class, permanent=True)
    result = Reply(said.code, said.status or None, said.text, Stage.DOT)
    details = describe_bounced(recipient, classified, said.code, said.host)
    name, code = REST_CLASS[bounce_class]
    data: dict[str, object] = {
        "id": report_id,
        "token": f"report-{report_id}",
        "message_id": report.message_id.strip("<>"),
        "to": to,
        "from": report.sender,
        "subject": report.subject,
        "timestamp": now,
        "status": "Bounced",
        "details": details,
        "output": str(result),
        "form": report.form,
        "classification": name,
        "classification_code": code,
        "class": str(bounce_class),
        "smtp_enhanced_code": said.status or None,
        "remote_host": said.host or None,
    }
    message = recipient.message
    return Outcome(
        recipient,
        now,
        Status.BOUNCED,
        f"{details}: {result}" if str(result) else details,
        recipient.attempts,
        attempt=Attempt(recipient.id, now, 0.0, result, past_dot=True, host=said.host or None),
        details=details,
        bounce_class=bounce_class,
        events=(Event(EventKind.BOUNCED, now, message.tenant_id, message.id, recipient.id, data),),
        suppress=on_bounce(bounce_class, settings.suppression),
        uncertain=recipient.uncertain,
    )


def told(recipient: Recipient, finding: Finding, now: float) -> Outcome:
    """Return what a sender is told of a report that changes nothing; it is never applied."""
    code = 250 if finding.action != "delayed" else 450
    result = Reply(finding.code or code, finding.status or None, finding.text, Stage.DOT)
    who = finding.host or "The recipient's mail server"
    sentence = f"{who} reports: {finding.action}{f' ({result})' if finding.text else ''}"
    attempt = Attempt(recipient.id, now, 0.0, result, past_dot=True, host=finding.host or None)
    return Outcome(recipient, now, recipient.status, sentence, recipient.attempts, attempt=attempt)


def noted(
    recipient: Recipient, report: Report, kind: ReportKind, finding: Finding | None, report_id: int, now: float
) -> Event:
    """Return the event of a report that leaves the recipient in its state."""
    data: dict[str, object] = {
        "report": report_id,
        "kind": str(kind),
        "form": report.form,
        "from": report.sender,
        "subject": report.subject,
    }
    if finding is not None:
        data |= {"smtp_enhanced_code": finding.status or None, "output": finding.text, "action": finding.action}
    if report.feedback_type:
        data["feedback_type"] = report.feedback_type
    message = recipient.message
    event = _EVENT.get(kind, EventKind.REPORTED)
    return Event(event, now, message.tenant_id, message.id, recipient.id, data)
