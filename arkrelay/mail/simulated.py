"""A bounce (RFC 3464) and a complaint (RFC 5965) as a stranger's server would write them, for the simulator."""

from arkrelay.mail.trace import render_date

_HOST = "simulator.invalid"  # RFC 2606: nobody's
_PARTS = """\
From: {sender}\r
To: <{to}>\r
Subject: {subject}\r
Date: {date}\r
Message-ID: <{number}@simulator.invalid>\r
Auto-Submitted: auto-replied\r
MIME-Version: 1.0\r
Content-Type: multipart/report; report-type={kind}; boundary="simulated"\r
\r
--simulated\r
Content-Type: text/plain; charset=us-ascii\r
\r
{text}\r
--simulated\r
Content-Type: message/{kind}\r
\r
{fields}--simulated\r
Content-Type: text/rfc822-headers\r
\r
Return-Path: <{to}>\r
Message-ID: {message_id}\r
\r
--simulated--\r
"""


def render_bounce(return_path: str, recipient: str, message_id: str, at: float) -> bytes:
    """Return the report that the message could not be delivered after all, as it comes to ``return_path``."""
    fields = (
        f"Reporting-MTA: dns; {_HOST}\r\n\r\nFinal-Recipient: rfc822; {recipient}\r\nAction: failed\r\n"
        "Status: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1 simulated: the mailbox has gone\r\n\r\n"
    )
    return _render(
        "delivery-status",
        f"Mail Delivery Subsystem <MAILER-DAEMON@{_HOST}>",
        "Undelivered Mail Returned to Sender",
        "The mailbox has gone. This report is simulated.",
        fields,
        return_path,
        message_id,
        at,
    )


def render_complaint(return_path: str, recipient: str, message_id: str, at: float) -> bytes:
    """Return the report that the recipient calls the message spam."""
    fields = (
        "Feedback-Type: abuse\r\nUser-Agent: arkrelay-simulator\r\nVersion: 1\r\n"
        f"Original-Mail-From: <{return_path}>\r\nOriginal-Rcpt-To: <{recipient}>\r\n\r\n"
    )
    return _render(
        "feedback-report",
        f"Feedback <feedback@{_HOST}>",
        "Complaint about message",
        "A reader calls this message spam. This report is simulated.",
        fields,
        return_path,
        message_id,
        at,
    )


def _render(
    kind: str, sender: str, subject: str, text: str, fields: str, to: str, message_id: str, at: float
) -> bytes:
    whole = _PARTS.format(
        kind=kind,
        sender=sender,
        subject=subject,
        text=text,
        fields=fields,
        to=to,
        message_id=message_id,
        date=render_date(at),
        number=f"{at:.6f}",
    )
    return whole.encode("utf-8", "replace")
