"""What a stored message holds, as REST's ``expand`` shows it; ``relay.reading`` takes it apart."""

import asyncio
import base64
import hashlib
from collections.abc import Set as AbstractSet
from typing import Annotated, Any

import msgspec

from arkrelay.api.model import Answer, Meta
from arkrelay.relay.reading import Attached, attachments_of, headers_of, leaves_of, text_of

CHUNK_BYTES = 3 * 2**18  # encoded at once, some 1 ms: in between the event loop gets its turn; a multiple of 3

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
        parts = leaves_of(content) if content else []
        if "content" in wanted:
            data["html_body"] = text_of(parts, "text/html")
            data["plain_body"] = text_of(parts, "text/plain")
        if "attachments" in wanted:
            data["attachments"] = [_attachment(one) for one in attachments_of(parts)]
    return data


def _base64(data: bytes) -> msgspec.Raw:
    """Return ``data`` in base64 as a JSON string."""
    view = memoryview(data)
    chunks = [base64.b64encode(view[at : at + CHUNK_BYTES]) for at in range(0, len(data), CHUNK_BYTES)]
    return msgspec.Raw(b'"%s"' % b"".join(chunks))


def _headers(content: bytes) -> dict[str, str]:
    """Return one string per name, repeats joined by a line feed."""
    found: dict[str, list[str]] = {}
    for name, value in headers_of(content):
        found.setdefault(name, []).append(value)
    return {name: "\n".join(values) for name, values in found.items()}


def _attachment(one: Attached) -> Attachment:
    return Attachment(
        filename=one.filename,
        content_type=one.content_type,
        size=len(one.data),
        hash=hashlib.sha256(one.data).hexdigest(),
        data=_base64(one.data),
    )
