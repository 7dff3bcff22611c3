"""What a stored message holds, for people: the one place where ``email`` parses mail.

It runs in a thread, on a copy, for one request, and whatever it cannot read is left out: the stored bytes are
the truth, and are served as they are.
"""

from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message

from arkrelay.mail.header import HeaderError, decode_text, scan, split, value

MAX_PARTS = 1000
MAX_DEPTH = 100
MAX_DASHED = 20_000  # lines that may be boundaries; ``email`` compares each line with every open boundary
MAX_PARAMETERS = 2000  # characters of a Content field; ``email`` takes quadratic time for its parameters
_CONTENT_FIELDS = ("Content-Type", "Content-Disposition", "Content-Transfer-Encoding")


@dataclass(frozen=True, slots=True)
class Attached:
    """A part with a file name, decoded."""

    filename: str
    content_type: str
    data: bytes


def headers_of(content: bytes) -> list[tuple[str, str]]:
    """Return name and decoded value of each header field, in their order; nothing where there is no header."""
    found: list[tuple[str, str]] = []
    try:
        for field in scan(split(content)[0]):
            name = field.raw.partition(b":")[0].decode("ascii", "replace")
            found.append((name, decode_text(value(field).replace(b"\t", b" "))))
    except HeaderError:
        return []
    return found


def leaves_of(content: bytes) -> list[Message]:
    """Return the parts that are not multipart, walked without recursion and within bounds."""
    if content.count(b"\n--") > MAX_DASHED:
        return []
    try:
        waiting = [(message_from_bytes(content), 0)]
    except (RecursionError, ValueError, LookupError):
        return []
    leaves: list[Message] = []
    while waiting and len(leaves) < MAX_PARTS:
        part, depth = waiting.pop()
        payload = part.get_payload()
        if part.is_multipart() and isinstance(payload, list) and depth < MAX_DEPTH:
            waiting += [(child, depth + 1) for child in reversed(payload) if isinstance(child, Message)]
        elif all(len(str(part.get(name, ""))) <= MAX_PARAMETERS for name in _CONTENT_FIELDS):
            leaves.append(part)
    return leaves


def text_of(parts: list[Message], kind: str) -> str | None:
    """Return the first text of this type ("text/html") that is no attachment, decoded; None when there is none."""
    for part in parts:
        if part.get_content_type() == kind and not _filename(part):
            data = _payload(part)
            try:
                return data.decode(part.get_content_charset() or "utf-8", "replace")
            except (LookupError, ValueError):  # no charset of text, or one with rules of its own
                return data.decode("utf-8", "replace")
    return None


def attachments_of(parts: list[Message]) -> list[Attached]:
    """Return the parts with a file name."""
    return [Attached(name, part.get_content_type(), _payload(part)) for part in parts if (name := _filename(part))]


def _filename(part: Message) -> str:
    try:
        return part.get_filename() or ""
    except (LookupError, ValueError):  # a charset of RFC 2231 that is none
        return ""


def _payload(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""
