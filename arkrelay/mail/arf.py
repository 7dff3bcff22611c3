"""Feedback reports: a recipient calls a message spam, and its provider tells us (RFC 5965, RFC 6590, RFC 9477).

Whom it is about is taken from what only that message can have carried: our return path, or the id beside our
``CFBL-Address``. Addresses are often redacted, and everybody can write one.
"""

import re
from collections.abc import Iterable, Sequence

from arkrelay.mail.mime import Part, read_fields

KIND = "message/feedback-report"
# RFC 5965 §7.3 and its registry. "not-spam", "auth-failure" and "dmarc" say nothing against the mail. "virus" is
# what a scanner says of a content, and no wish of the recipient's: nobody is suppressed, and a person must read it.
COMPLAINTS = frozenset({"abuse", "fraud", "other", "opt-out", "opt-out-list", "complaint", "miscategorized"})
MAX_MARKS = 8

_MARK = re.compile(r"(?<![0-9a-z])b[0-9a-f]{50}(?![0-9a-z])", re.IGNORECASE)
_LEGACY_SENDER = re.compile(r"staff@(?:hotmail|live|outlook|msn)\.com", re.IGNORECASE)
_LEGACY_SUBJECT = re.compile(r"complaint about message from", re.IGNORECASE)
_COMMENT = re.compile(r"\([^()]*\)")  # RFC 5322 §3.2.2
_RETURNED = frozenset({"message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers"})


def feedback_type(parts: Sequence[Part]) -> str | None:
    """Return what sort of feedback this is, in lower case; empty: it does not say; None: it is no feedback report."""
    for part in parts:
        if part.kind == KIND:
            return _COMMENT.sub("", _fields(part).get("feedback-type", "")).strip().lower()[:40]
    top = parts[0].fields
    # Outlook's older programme: no report part, the message itself attached
    if _LEGACY_SENDER.search(top.get("from", "")) and _LEGACY_SUBJECT.search(top.get("subject", "")):
        return "abuse"
    return None


def marks(parts: Sequence[Part], content: bytes) -> tuple[str, ...]:
    """Return what looks like our return paths: that of the envelope first, then the header's, then any other."""
    texts: list[str] = []
    for part in parts:
        if part.kind == KIND:
            fields = _fields(part)
            texts += [fields.get("original-mail-from", ""), fields.get("original-envelope-id", "")]
    for part in parts:
        if part.kind in _RETURNED:
            fields = read_fields(_block(part).partition(b"\r\n\r\n")[0])
            texts += [fields.get(name, "") for name in ("return-path", "cfbl-feedback-id", "x-envelope-from")]
    texts.append(content.decode("latin-1"))
    texts += [part.decoded().decode("latin-1") for part in parts if part.encoding]
    return tuple(_first(match[0].lower() for text in texts for match in _MARK.finditer(text)))


def _fields(part: Part) -> dict[str, str]:
    """Return the fields of a report, also of one that has empty lines between them."""
    return read_fields(_block(part).replace(b"\r\n\r\n", b"\r\n"))


def _block(part: Part) -> bytes:
    """Return what the part says, with CRLF line ends; some are encoded, though RFC 2046 §5.2 wants them plain."""
    return part.decoded().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _first(found: Iterable[str]) -> list[str]:
    some: dict[str, None] = {}
    for one in found:
        some[one] = None
        if len(some) == MAX_MARKS:
            break
    return list(some)
