"""A TLS report as a mail (RFC 8460 §5.3): a line for people, and the report as a gzipped file."""

from collections.abc import Sequence

from arkrelay.mail.fields import Mailbox, address_field, text_field
from arkrelay.mail.header import CRLF
from arkrelay.mail.transfer import to_base64
from arkrelay.model.address import Address
from arkrelay.model.tlsreport import Report

BOUNDARY = "=_tls-report"  # "=_" stands in no base64 and in no line of ours


def render_mail(report: Report, packed: bytes, author: Address, recipients: Sequence[Address]) -> bytes:
    """Return the mail that carries ``packed``, the report gzipped; Date and Message-ID are added by ``mail.intake``.

    It asks to be delivered whatever the state of the recipient's TLS: that is what it tells of (RFC 8689 §3).
    """
    head = [
        address_field("From", [Mailbox(report.organisation, author)]),
        address_field("To", [Mailbox("", recipient) for recipient in recipients]),
        text_field(
            "Subject", f"Report Domain: {report.domain} Submitter: {report.hostname} Report-ID: <{report.id}>"
        ),
        text_field("TLS-Report-Domain", report.domain),
        text_field("TLS-Report-Submitter", report.hostname),
        text_field("TLS-Required", "No"),
        text_field("Auto-Submitted", "auto-generated"),
        b"MIME-Version: 1.0\r\n",
        f'Content-Type: multipart/report; report-type="tlsrpt";\r\n\tboundary="{BOUNDARY}"\r\n'.encode(),
    ]
    people = (
        f"This is a TLS report (RFC 8460) of {report.organisation} about mail to {report.domain}.\r\n"
        f"Questions: {report.contact}\r\n"
    )
    parts = [
        b'Content-Type: text/plain; charset="utf-8"\r\nContent-Transfer-Encoding: base64\r\n\r\n',
        to_base64(people.encode()),
        f'\r\n--{BOUNDARY}\r\nContent-Type: application/tlsrpt+gzip;\r\n\tname="{report.file}"\r\n'.encode(),
        b"Content-Transfer-Encoding: base64\r\n",
        f'Content-Disposition: attachment;\r\n\tfilename="{report.file}"\r\n\r\n'.encode(),
        to_base64(packed),
    ]
    return b"".join(
        [*head, CRLF, f"--{BOUNDARY}\r\n".encode(), *parts, f"\r\n--{BOUNDARY}--\r\n".encode()],
    )
