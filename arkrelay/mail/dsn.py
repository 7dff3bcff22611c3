"""Notices to a sender of what became of a recipient: multipart/report, as bytes (RFC 3464, RFC 6522, RFC 6533).

Three parts: a text for people, the same for programs, and what the notice is about. One notice is about one
recipient. It goes to the return path; only if that needs SMTPUTF8 does the notice, too. To everybody else an address
beyond ASCII is written in the seven-bit form of RFC 6533 §3, so that the notice arrives everywhere.
"""

import re
import textwrap
from dataclasses import dataclass

from arkrelay.mail.fields import text_field
from arkrelay.mail.header import CRLF, HeaderError, has_control, scan, split
from arkrelay.mail.trace import render_date
from arkrelay.mail.transfer import to_base64, to_quoted_printable

ORIGINAL_BYTES = 65_536  # more than this of the original does not come back, whatever was asked for
LINE = 76
VALUE_OCTETS = 900  # of a field for programs; a line has 998 (RFC 5322 §2.1.1)

_ENCODED = re.compile(r"\+([0-9A-F]{2})")  # RFC 3461 §4: hexchar
_PLAIN = re.compile(r"[!-*,-<>-\[\]-~]")  # RFC 6533 §3: QCHAR, what stands for itself in an address
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SPACES = re.compile(r"\s+")
_SUBJECT = {
    "failed": "Not delivered to {}",
    "delayed": "Not yet delivered to {}",
    "relayed": "Handed on to the mail server of {}",
    "delivered": "Delivered to {}",
    "expanded": "Delivered to the list {}",
}
_OPENING = {
    "failed": "your message could not be delivered to",
    "delayed": "your message could not be delivered yet to",
    "relayed": "your message was taken by the recipient's mail server, which tells senders nothing more, for",
    "delivered": "your message was delivered to",
    "expanded": "your message was delivered to the members of",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a notice says; times are Unix seconds, ``action`` is that of RFC 3464 §2.3.3.

    ``sentence`` says what happened and ``advice`` what to do. ``envid`` and ``orcpt`` are xtext as the submitter gave
    it; ``message_id`` and ``original_message_id`` have their angle brackets. ``diagnostic`` is a type and a text.
    """

    action: str
    hostname: str
    return_path: str
    at: float
    message_id: str
    boundary: str
    original_message_id: str
    original_subject: str
    arrived_at: float
    address: str
    token: str
    status: str
    sentence: str
    advice: str
    envid: str | None = None
    orcpt: str | None = None
    remote_host: str | None = None
    diagnostic: tuple[str, str] | None = None
    attempted_at: float | None = None
    retry_until: float | None = None


def subject_of(report: Report) -> str:
    """Return the Subject of the notice."""
    return _SUBJECT[report.action].format(report.address)


def render(report: Report, original: bytes, *, whole: bool) -> bytes:
    """Return the notice with CRLF line ends, to be signed; ``original`` empty: its content is no longer kept.

    With ``whole`` all of the original comes back unless it has more than 64 KB, else its header.
    """
    utf8 = not report.return_path.isascii()
    parts = [_text_part(report), _status_part(report, utf8=utf8)]
    if original:
        parts.append(_original_part(original, utf8=utf8, whole=whole and len(original) <= ORIGINAL_BYTES))
    boundary = report.boundary
    while any(boundary.encode() in part for part in parts):
        boundary += "="
    eight_bit = any(not part.isascii() for part in parts)
    body = b"".join(b"--%b\r\n%b\r\n" % (boundary.encode(), part) for part in parts)
    return b"".join((_header(report, boundary, eight_bit=eight_bit), CRLF, body, b"--%b--\r\n" % boundary.encode()))


def decode_xtext(text: str) -> str:
    """Return what xtext stands for (RFC 3461 §4); what is none stays as it is."""
    return _ENCODED.sub(lambda match: chr(int(match[1], 16)), text)


def _header(report: Report, boundary: str, *, eight_bit: bool) -> bytes:
    references = f"References: {report.original_message_id}\r\n" if report.original_message_id else ""
    encoding = "Content-Transfer-Encoding: 8bit\r\n" if eight_bit else ""
    return b"".join(
        (
            # RFC 3464 §2: a person who is responsible for this host; the name is what filters know notices by
            f"From: MAILER-DAEMON <postmaster@{report.hostname}>\r\n".encode(),
            f"To: {report.return_path}\r\n".encode(),
            text_field("Subject", subject_of(report)),
            f"Date: {render_date(report.at)}\r\nMessage-ID: {report.message_id}\r\n{references}".encode(),
            b"Auto-Submitted: auto-replied\r\n",  # RFC 3834 §5
            b"MIME-Version: 1.0\r\n",
            b"Content-Type: multipart/report; report-type=delivery-status;\r\n",
            f'\tboundary="{boundary}"\r\n{encoding}'.encode(),
        )
    )


def _text_part(report: Report) -> bytes:
    """Return the part for people."""
    about = [f"It was accepted on {render_date(report.arrived_at)}."]
    if report.original_subject:
        about.insert(0, f"Its subject is: {report.original_subject}")
    paragraphs = [
        f"Hello, this is the mail relay {report.hostname}:",
        _OPENING[report.action],
        f"    {report.address}",
        *about,
        f"What happened: {report.sentence}",
        f"What to do: {report.advice}",
    ]
    if report.retry_until is not None:
        paragraphs.append(f"The relay gives up on {render_date(report.retry_until)}.")
    text = "\n\n".join(
        textwrap.fill(one, LINE, break_long_words=False, break_on_hyphens=False) if one[:4] != "    " else one
        for one in paragraphs
    )
    body = (text.replace("\n", "\r\n") + "\r\n").encode()
    longest = max(map(len, body.split(CRLF)))
    if body.isascii() and longest <= VALUE_OCTETS:
        return b"Content-Type: text/plain; charset=us-ascii\r\n\r\n" + body
    head = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    return head + to_quoted_printable(body)


def _status_part(report: Report, *, utf8: bool) -> bytes:
    """Return the part for programs: fields of the message, an empty line, fields of the recipient."""
    envid = decode_xtext(report.envid) if report.envid else ""
    message = [
        ("Original-Envelope-Id", envid if not has_control(envid) else ""),
        ("Reporting-MTA", f"dns; {report.hostname}"),
        ("Arrival-Date", render_date(report.arrived_at)),
    ]
    recipient = [
        ("Original-Recipient", _original_recipient(report.orcpt)),
        ("Final-Recipient", _address(report.address, utf8=utf8)),
        ("Action", report.action),
        ("Status", report.status),
        ("Remote-MTA", f"dns; {report.remote_host}" if report.remote_host else ""),
        ("Diagnostic-Code", "; ".join(report.diagnostic) if report.diagnostic else ""),
        ("Last-Attempt-Date", "" if report.attempted_at is None else render_date(report.attempted_at)),
        ("Final-Log-ID", report.token),
        ("Will-Retry-Until", "" if report.retry_until is None else render_date(report.retry_until)),
    ]
    lines = [_field(name, value, utf8=utf8) for name, value in message if value]
    lines += [CRLF, *(_field(name, value, utf8=utf8) for name, value in recipient if value)]
    body = b"".join(lines)
    kind = b"message/global-delivery-status" if utf8 else b"message/delivery-status"
    encoding = b"" if body.isascii() else b"Content-Transfer-Encoding: 8bit\r\n"
    return b"Content-Type: %b\r\n%b\r\n%b" % (kind, encoding, body)


def _field(name: str, value: str, *, utf8: bool) -> bytes:
    """Return one field on one line: a peer's words have no place for a line end, and ASCII unless ``utf8``."""
    plain = _CONTROL.sub("?", _SPACES.sub(" ", value))
    octets = plain.encode() if utf8 else plain.encode("ascii", "replace")
    return f"{name}: ".encode() + octets[:VALUE_OCTETS].decode("utf-8", "ignore").encode() + CRLF


def _address(address: str, *, utf8: bool) -> str:
    """Return an address with its type: rfc822, or the utf-8 of RFC 6533 §3, where only ``utf8`` admits it plainly."""
    if address.isascii():
        return f"rfc822; {address}"
    written = [
        one if _PLAIN.fullmatch(one) or (utf8 and ord(one) > 127) else f"\\x{{{ord(one):02X}}}" for one in address
    ]
    return f"utf-8; {''.join(written)}"


def _original_recipient(orcpt: str | None) -> str:
    """Return ORCPT as a field: type and address, its xtext undone; the escapes of RFC 6533 §3 stay."""
    kind, semicolon, address = (orcpt or "").partition(";")
    decoded = decode_xtext(address)
    return f"{kind}; {decoded}" if semicolon and decoded and not has_control(decoded) else ""


def _original_part(original: bytes, *, utf8: bool, whole: bool) -> bytes:
    """Return the original or its header as a part; a header beyond ASCII makes it one of RFC 6533 §6."""
    header = split(original)[0]
    data = original if whole else _cut(header)
    international = not header.isascii() and _is_utf8(header)
    if whole:
        kind = b"message/global" if international else b"message/rfc822"
    elif international:
        kind = b"message/global-headers"
    else:
        kind = b"text/rfc822-headers"
    if data.isascii():
        return b"Content-Type: %b\r\n\r\n%b" % (kind, data)
    if (international and not utf8) or not (whole or international):
        # in seven bits to whoever may not take UTF-8 in a header; RFC 6532 §3.7 lets these types be encoded
        return b"Content-Type: %b\r\nContent-Transfer-Encoding: base64\r\n\r\n%b" % (kind, to_base64(data))
    return b"Content-Type: %b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n%b" % (kind, data)


def _cut(header: bytes) -> bytes:
    """Return the header, or as many of its first fields as have room."""
    if len(header) <= ORIGINAL_BYTES:
        return header
    try:
        fields = scan(header)
    except HeaderError:  # not as it was accepted: nothing that we could cut
        return b""
    kept: list[bytes] = []
    room = ORIGINAL_BYTES
    for field in fields:
        room -= len(field.raw)
        if room < 0:
            break
        kept.append(field.raw)
    return b"".join(kept)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
