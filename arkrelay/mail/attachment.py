"""Attachments: their base64 goes into the message as it came, checked and in lines of 76, and is never decoded.

Only ``message/rfc822`` is, for which base64 is not allowed (RFC 2046 §5.2.1). Other ``message/*`` types make a reader
fetch things or believe a delivery report, and a ``multipart/*`` has an inside that nobody checked: refused, both.
"""

import binascii
import re
from dataclasses import dataclass

from arkrelay.mail.fields import LetterError, check_line, parameter
from arkrelay.mail.header import CRLF, LINE_LIMIT
from arkrelay.mail.transfer import wrap_base64

ATTACHMENT_BYTES = 10 * 1024 * 1024  # Ark contract §15: 10 MB, where 5 MB of html are 5 242 880
FILENAME_LIMIT = 255  # characters; file systems take 255 bytes
TYPE_LIMIT = 255  # characters of a media type with its parameters
MESSAGE = "message/rfc822"

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_WORD = r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+"  # RFC 2045 §5.1
_PARAMETER = rf";[ ]*{_WORD}=(?:{_WORD}|\"[^\"\\\x00-\x1f\x7f-\U0010ffff]*\")"
_TYPE = re.compile(rf"({_WORD}/{_WORD})((?:[ ]*{_PARAMETER})*)[ ]*;?")
_EACH = re.compile(_PARAMETER)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file as a client sends it."""

    content: str  # base64, in lines or not
    content_type: str
    filename: str


@dataclass(frozen=True, slots=True)
class Part:
    """One entity of a message, ready to stand between two boundaries."""

    header: bytes  # with the empty line behind it
    body: bytes
    identity: bool  # the body is not encoded, so a boundary might stand in it


def render(attachment: Attachment, where: str) -> Part:
    """Return the part; raises LetterError whose field begins with ``where``."""
    media_type, parameters = _media_type(attachment.content_type, f"{where}.contentType")
    name = attachment.filename
    if not 0 < len(name) <= FILENAME_LIMIT:
        raise LetterError(f"{where}.filename", f"must have 1 to {FILENAME_LIMIT} characters")
    check_line(name, f"{where}.filename")
    encoded = _checked(attachment.content, f"{where}.content")
    if media_type == MESSAGE:
        body = _message(encoded, f"{where}.content")
        encoding = "7bit" if body.isascii() else "8bit"
    else:
        body, encoding = wrap_base64(encoded).removesuffix(CRLF), "base64"
    header = (
        f"Content-Type: {media_type}{parameters}\r\nContent-Transfer-Encoding: {encoding}\r\n"
        f"Content-Disposition: attachment{parameter('filename', name)}\r\n\r\n"
    )
    return Part(header.encode(), body, media_type == MESSAGE)


def _media_type(given: str, field: str) -> tuple[str, str]:
    """Return the type in lower case, and its parameters as they were given, each on its line."""
    found = _TYPE.fullmatch(given) if len(given) <= TYPE_LIMIT else None
    if found is None:
        raise LetterError(field, "must be a media type such as application/pdf or text/plain; charset=utf-8")
    media_type = found[1].lower()
    if media_type.startswith("multipart/") or (media_type.startswith("message/") and media_type != MESSAGE):
        raise LetterError(field, f"must not be {media_type}: send it as application/octet-stream")
    return media_type, "".join(f";\r\n {one[1:].lstrip()}" for one in _EACH.findall(found[2]))


def _checked(given: str, field: str) -> bytes:
    """Return base64 without line ends; nothing but the alphabet of RFC 4648 §4 and its padding is in it."""
    data = given.encode("ascii", "replace")  # a "?" is not of the alphabet
    if b"\n" in data or b"\r" in data:
        data = data.translate(None, CRLF)
    rest = data.translate(None, _ALPHABET)
    if len(data) % 4 or rest not in {b"", b"=", b"=="} or not data.endswith(rest):
        raise LetterError(field, "must be base64 with its padding")
    if len(data) // 4 * 3 - len(rest) > ATTACHMENT_BYTES:
        raise LetterError(field, f"must not be more than {ATTACHMENT_BYTES} bytes", too_large=True)
    return data


def _message(encoded: bytes, field: str) -> bytes:
    """Return an attached message with CRLF line ends: it may be 7bit or 8bit only (RFC 2046 §5.2.1)."""
    lines = binascii.a2b_base64(encoded).replace(CRLF, b"\n").split(b"\n")
    if any(len(line) > LINE_LIMIT or b"\r" in line or b"\0" in line for line in lines):
        raise LetterError(
            field,
            f"must have lines of at most {LINE_LIMIT} bytes to be {MESSAGE}: send it as application/octet-stream",
        )
    return CRLF.join(lines)
