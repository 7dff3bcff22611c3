"""What a stored message holds, for people and for ``expand``: the one place where ``email`` parses mail.

It runs in a thread, on a copy, for one request, and whatever it cannot read is left out: the stored bytes are
the truth and are served as they are by ``raw``.
"""

import asyncio
import base64
import hashlib
from collections.abc import Set as AbstractSet
from email import message_from_bytes
from email.message import Message
from typing import Annotated, Any

import msgspec

from arkrelay.api.model import Answer, Meta
from arkrelay.mail.header import HeaderError, decode_text, scan, split, value

MAX_PARTS = 1000
MAX_DEPTH = 100
MAX_DASHED = 20_000  # lines that may be boundaries; ``email`` compares each line with every open boundary
MAX_PARAMETERS = 2000  # characters of a Content field; ``email`` takes quadratic time for its parameters
CHUNK_BYTES = 3 * 2**18  # encoded at once, some 1 ms: in between the event loop gets its turn; a multiple of 3
_CONTENT_FIELDS = ("Content-Type", "Content-Disposition", "Content-Transfer-Encoding")

# A JSON string as it is written: a message of 14 MB is not to be looked through for quotes again.
Base64 = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "string", "contentEncoding": "base64"})]


class Attachment(Answer):
    """A part with a file name; ``hash`` is SHA-256, in hex."""

    filename: str
    content_type: str
    size: int
    hash: str
    data: Base64


async def content_of(content: bytes | None, wanted: AbstractSet[str]) -> dict[str, Any]:
    """Return the fields that ``wanted`` (content, headers, attachments, raw) adds; empty ones without content."""
    return await asyncio.to_thread(_content_of, content, wanted)


def _content_of(content: bytes | None, wanted: AbstractSet[str]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    if "raw" in wanted:
        data["raw_message"] = _base64(content or b"")
    if "headers" in wanted:
        data["headers"] = _headers(content or b"")
    if wanted & {"content", "attachments"}:
        parts = _leaves(content) if content else []
        if "content" in wanted:
            data["html_body"] = _text(parts, "text/html")
            data["plain_body"] = _text(parts, "text/plain")
        if "attachments" in wanted:
            data["attachments"] = [_attachment(part, name) for part in parts if (name := _filename(part))]
    return data


def _base64(data: bytes) -> msgspec.Raw:
    """Return ``data`` in base64 as a JSON string."""
    view = memoryview(data)
    chunks = [base64.b64encode(view[at : at + CHUNK_BYTES]) for at in range(0, len(data), CHUNK_BYTES)]
    return msgspec.Raw(b'"%s"' % b"".join(chunks))


def _headers(content: bytes) -> dict[str, str]:
    """Return one string per name, repeats joined by a line feed."""
    found: dict[str, list[str]] = {}
    try:
        for field in scan(split(content)[0]):
            name = field.raw.partition(b":")[0].decode("ascii", "replace")
            found.setdefault(name, []).append(decode_text(value(field).replace(b"\t", b" ")))
    except HeaderError:
        return {}
    return {name: "\n".join(values) for name, values in found.items()}


def _leaves(content: bytes) -> list[Message]:
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


def _filename(part: Message) -> str:
    try:
        return part.get_filename() or ""
    except (LookupError, ValueError):  # a charset of RFC 2231 that is none
        return ""


def _text(parts: list[Message], kind: str) -> str | None:
    for part in parts:
        if part.get_content_type() == kind and not _filename(part):
            data = _payload(part)
            try:
                return data.decode(part.get_content_charset() or "utf-8", "replace")
            except (LookupError, ValueError):  # no charset of text, or one with rules of its own
                return data.decode("utf-8", "replace")
    return None


def _attachment(part: Message, filename: str) -> Attachment:
    data = _payload(part)
    return Attachment(
        filename=filename,
        content_type=part.get_content_type(),
        size=len(data),
        hash=hashlib.sha256(data).hexdigest(),
        data=_base64(data),
    )


def _payload(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""
