"""Replies as they go on the wire: one line, printable ASCII, with an enhanced status code (RFC 2034)."""

import re
import secrets
from dataclasses import dataclass
from typing import Final

import structlog

from arkrelay.model.errors import Refused, StoreError, StoreFull

log = structlog.get_logger()

# RFC 5321 §4.5.3.1.5: a reply line is at most 512 octets with code and CRLF
TEXT_CHARS: Final = 480
_UNPRINTABLE = re.compile(r"[^ -~]")


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply that is decided but not sent."""

    code: int
    enhanced: str
    text: str

    def render(self) -> bytes:
        """Return the line with its CRLF; what is not printable ASCII becomes "?", so nothing adds a line."""
        text = self.text if self.text.isascii() and self.text.isprintable() else _UNPRINTABLE.sub("?", self.text)
        return f"{self.code} {self.enhanced} {text[:TEXT_CHARS]}\r\n".encode("ascii")


def answer_to(error: Exception) -> Answer:
    """Return what a client hears of this exception: a refusal in its own words, our trouble as a 4xx.

    A surprise is logged with its traceback and a reference, and only the reference is shown. It is never a
    5xx: the message may be fine, and a 5xx would bounce it.
    """
    match error:
        case Refused():
            return Answer(error.code, error.enhanced, error.text)
        case StoreFull():
            return Answer(452, "4.3.1", "No storage left, try again later")
        case StoreError():
            log.warning("smtp_store_trouble", error=str(error))
            return Answer(451, "4.3.0", "Temporary trouble, try again later")
    reference = secrets.token_hex(4)
    log.error("smtp_internal_error", reference=reference, exc_info=error)
    return Answer(451, "4.3.0", f"Temporary trouble, try again later (reference {reference})")
