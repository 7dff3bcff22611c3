"""A message that came to one of our addresses, and what it reports: ``parse_report``.

In this order, as each shape may hold one of those behind it: a feedback report (RFC 5965), a read receipt (RFC 8098),
a delivery status notification (RFC 3464), an answer by a program (RFC 3834) unless a mail system wrote it, the fields
of such a notification in a text for people, and a bounce in prose. A vacation notice that quotes a bounce is one by
its header, and of a bounce that quotes our message only what stands before it is read. What is none of these is for a
person.
"""

from collections.abc import Sequence
from dataclasses import replace

from arkrelay.mail import arf, autoreply, bouncetext
from arkrelay.mail.deliverystatus import KINDS, TEXT, findings_in_text, findings_of
from arkrelay.mail.mime import READ_BYTES, Part, walk
from arkrelay.model.address import kept_address
from arkrelay.model.report import ACTIONS, Finding, Report, ReportKind

EXPLANATION = 2000  # characters of the text for people that are kept
LINE = 300  # characters of a field
_TEXTS = ("text/plain", "text/html")
_RETURNED = ("message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers")


def parse_report(content: bytes) -> Report:
    """Return what the message says; never raises, and looks at no more than its first megabyte.

    ``content`` has CRLF line ends. What is not understood is of kind UNKNOWN.
    """
    parts = walk(content)
    top = parts[0].fields
    texts = [part.text() for part in parts if part.kind in _TEXTS and not _is_returned(part)]
    text = "\n".join(texts)
    kind, form, findings, feedback = _judge(parts, text)
    return Report(
        kind=kind,
        form=_line(form),
        findings=tuple(_clean(one) for one in findings),
        sender=_line(top.get("from", "")),
        subject=_line(top.get("subject", "")),
        message_id=_line(top.get("message-id", "")),
        date=_line(top.get("date", "")),
        explanation=_shown(text)[:EXPLANATION].strip(),
        feedback_type=_line(feedback),
        marks=arf.marks(parts, content[:READ_BYTES]),
    )


def _judge(parts: Sequence[Part], text: str) -> tuple[ReportKind, str, tuple[Finding, ...], str]:
    top = parts[0].fields
    if (feedback := arf.feedback_type(parts)) is not None:
        kind = ReportKind.COMPLAINT if feedback in arf.COMPLAINTS else ReportKind.UNKNOWN
        return kind, "feedback report", (), feedback
    if any(part.kind == "message/disposition-notification" for part in parts):
        return ReportKind.AUTO_REPLY, "read receipt", (), ""
    for part in parts:
        if part.kind in KINDS and (findings := findings_of(part)):
            return _kind_of(findings), "delivery status", _explained(findings, text), ""
    bounce = bouncetext.read(top, text)
    answered = autoreply.form_of(top)
    # Servers mark their own bounces as auto-replied (RFC 3834 §5), so those fields tell nothing of a daemon's mail.
    daemon = bounce.by_daemon if bounce is not None else bouncetext.is_daemon(top)
    if answered and not daemon:
        return ReportKind.AUTO_REPLY, answered, (), ""
    if findings := findings_in_text(text):
        return _kind_of(findings), "delivery status in text", findings, ""
    if bounce is not None:
        return ACTIONS[bounce.finding.action], bounce.form, (bounce.finding,), ""
    return (ReportKind.AUTO_REPLY if answered else ReportKind.UNKNOWN), answered, (), ""


def _kind_of(findings: Sequence[Finding]) -> ReportKind:
    """Return the worst that is said of anybody."""
    return min((ACTIONS[one.action] for one in findings), key=list(ReportKind).index)


def _explained(findings: tuple[Finding, ...], text: str) -> tuple[Finding, ...]:
    """Return failures without words of their own with those of the text for people, where a reason may stand.

    The text is read once, however many they are: that is what takes the time, and whoever writes says how many.
    """
    if not text or not any(_is_mute(one) for one in findings):
        return findings
    bounce = bouncetext.read({"from": "mailer-daemon", "subject": "failed"}, text)
    if bounce is None:
        return findings
    return tuple(_with_words_of(bounce.finding, one) if _is_mute(one) else one for one in findings)


def _is_mute(finding: Finding) -> bool:
    return finding.action == "failed" and not finding.text


def _with_words_of(said: Finding, finding: Finding) -> Finding:
    vague = not finding.status or finding.status.endswith(".0.0")
    status = (said.status or finding.status) if vague else finding.status
    return replace(finding, status=status, code=finding.code or said.code, text=said.text)


def _is_returned(part: Part) -> bool:
    return part.kind in _RETURNED or part.fields.get("content-disposition", "").lower().startswith("attachment")


def _clean(finding: Finding) -> Finding:
    """Return the finding with every text of its sender on one line, as replies of peers are (``wire.replies``)."""
    return replace(
        finding,
        address=kept_address(_line(finding.address)),
        original=kept_address(_line(finding.original)),
        text=_line(finding.text, TEXT),
        host=_line(finding.host),
    )


def _line(text: str, most: int = LINE) -> str:
    return _shown(" ".join(text.split()))[:most]


def _shown(text: str) -> str:
    """Return the text without what could speak to a terminal or break a row."""
    return "".join(one if one == "\n" or one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text[:8000])
