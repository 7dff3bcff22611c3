"""A letter as bytes: header fields, text, HTML and attachments put together, without the ``email`` package.

``email`` takes sixteen times as long, and its writer has been talked into header injection before (CVE-2024-6923,
CVE-2026-1299). Every encoding is chosen here, so the boundary is sure not to stand in any part, and no line is longer
than 998 octets. Date and Message-ID are left to ``mail.intake``, through which every message goes.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from arkrelay.mail.attachment import Attachment, Part, render
from arkrelay.mail.fields import LetterError, Mailbox, address_field, check_line, text_field
from arkrelay.mail.header import CRLF, HEADER_LIMIT, LINE_LIMIT
from arkrelay.mail.transfer import to_base64, to_quoted_printable

HEADER_ROOM = HEADER_LIMIT - 4096  # what a header may have before ours are added: Date, Message-ID
HEADERS = 100  # fields of the client's own
HEADER_VALUE = 8000  # characters of one

_NAME = re.compile(r"[A-Za-z0-9-]{1,76}")
# They have fields of their own in REST, are ours to write, or speak for somebody else.
_RESERVED = frozenset(
    {
        "authentication-results",
        "bcc",
        "cc",
        "date",
        "dkim-signature",
        "from",
        "message-id",
        "mime-version",
        "received",
        "reply-to",
        "return-path",
        "sender",
        "subject",
        "to",
    }
)
_RESERVED_PREFIXES = ("arc-", "content-", "resent-")
_CONTROLS = bytes((*range(9), *range(11, 32), 127))  # but tab and LF
_BEYOND_ASCII = bytes(range(128, 256))
_HEAVY_QP = 6  # one byte in so many escaped, and base64 is the shorter: 1 + 2/6 = 4/3


@dataclass(frozen=True, slots=True)
class Letter:
    """What a person or program wants to say, and to whom; there is no Bcc, for it is in no header."""

    author: Mailbox
    to: Sequence[Mailbox]
    subject: str
    text: str | None = None
    html: str | None = None
    cc: Sequence[Mailbox] = ()
    reply_to: Mailbox | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    attachments: Sequence[Attachment] = ()


def compose(letter: Letter, token: str) -> bytes:
    """Return the message with CRLF line ends; ``token`` is random, letters and digits, and makes the boundaries.

    Raises LetterError naming what cannot be written. About 13 µs for a letter of 3 KB with text and HTML in ASCII
    (timeit, one core), 40 ms for an attachment of 10 MB.
    """
    entity = _content(letter, token)
    header = b"".join(_header(letter))
    if len(header) > HEADER_ROOM:
        raise LetterError("headers", f"make a header of more than {HEADER_ROOM} bytes")
    return b"".join((header, *entity))


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise LetterError for a header that a client may not set, and for a name or value that is none.

    Names without case count once: a field twice is read in two ways.
    """
    if len(headers) > HEADERS:
        raise LetterError("headers", f"must be at most {HEADERS}")
    seen: set[str] = set()
    for name, value in headers.items():
        where, lower = f"headers.{name}", name.lower()
        if not _NAME.fullmatch(name):
            raise LetterError(f"headers.{name[:100]}", "must have a name of 1 to 76 letters, digits and hyphens")
        if lower in _RESERVED or lower.startswith(_RESERVED_PREFIXES):
            raise LetterError(where, "is not yours to set")
        if lower in seen:
            raise LetterError(where, "stands twice")
        if len(value) > HEADER_VALUE:
            raise LetterError(where, f"must have at most {HEADER_VALUE} characters")
        check_line(value, where)
        seen.add(lower)


def _header(letter: Letter) -> list[bytes]:
    check_line(letter.subject, "subject")
    check_headers(letter.headers)
    for where, mailboxes in (("from", (letter.author,)), ("to", letter.to), ("cc", letter.cc)):
        for mailbox in mailboxes:
            check_line(mailbox.name, where)
    fields = [address_field("From", (letter.author,)), address_field("To", letter.to)]
    if letter.cc:
        fields.append(address_field("Cc", letter.cc))
    if letter.reply_to is not None:
        check_line(letter.reply_to.name, "replyTo")
        fields.append(address_field("Reply-To", (letter.reply_to,)))
    fields.append(text_field("Subject", letter.subject))
    fields += [text_field(name, value) for name, value in letter.headers.items()]
    fields.append(b"MIME-Version: 1.0\r\n")
    return fields


def _content(letter: Letter, token: str) -> list[bytes]:
    """Return the Content fields, an empty line and the body, in pieces to be joined once."""
    parts = []
    if letter.text is not None:
        parts.append(_text_part(b"plain", letter.text))
    if letter.html is not None:
        parts.append(_text_part(b"html", letter.html))
    attached = [render(one, f"attachments[{number}]") for number, one in enumerate(letter.attachments)]
    if not parts:
        raise LetterError("text", "or html is required")
    boundary = _boundary(token, [*parts, *attached])
    if len(parts) == 1:
        body = [parts[0].header, parts[0].body]
    else:
        body = _multipart(b"alternative", b"=_a" + boundary, [[part.header, part.body] for part in parts])
    if attached:
        inside = [body, *([part.header, part.body] for part in attached)]
        body = _multipart(b"mixed", b"=_m" + boundary, inside)
    if not body[-1].endswith(CRLF):
        body.append(CRLF)
    return body


def _multipart(kind: bytes, boundary: bytes, entities: Sequence[Sequence[bytes]]) -> list[bytes]:
    """Return a multipart (RFC 2046 §5.1.1); the line end before a delimiter belongs to it, not to the part."""
    pieces = [b'Content-Type: multipart/%b;\r\n boundary="%b"\r\n' % (kind, boundary)]
    for entity in entities:
        pieces.append(b"\r\n--%b\r\n" % boundary)
        pieces += entity
    pieces.append(b"\r\n--%b--\r\n" % boundary)
    return pieces


def _boundary(token: str, parts: Sequence[Part]) -> bytes:
    """Return what stands in no part. Base64 and quoted-printable never hold "=_" and need not be searched."""
    boundary = token.encode()
    while any(part.identity and boundary in part.body for part in parts):
        boundary += b"x"
    return boundary


def _text_part(subtype: bytes, text: str) -> Part:
    """Return a text part in UTF-8, as it is where that is ASCII in lines that mail may have (RFC 5322 §2.1.1)."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    data = text.encode()
    plain = data.translate(None, _CONTROLS) == data if data.isascii() else False
    short = len(text) <= LINE_LIMIT or max(map(len, data.split(b"\n"))) <= LINE_LIMIT
    body = data.replace(b"\n", CRLF)
    encoding = b"7bit"
    if not (plain and short):
        escaped = len(data) - len(data.translate(None, _BEYOND_ASCII + _CONTROLS))
        if escaped * _HEAVY_QP > len(data):
            body, encoding = to_base64(body).removesuffix(CRLF), b"base64"
        else:
            body, encoding = to_quoted_printable(body), b"quoted-printable"
    header = b"Content-Type: text/%b; charset=utf-8\r\nContent-Transfer-Encoding: %b\r\n\r\n" % (subtype, encoding)
    return Part(header, body, encoding == b"7bit")
