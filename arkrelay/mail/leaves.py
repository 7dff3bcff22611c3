"""Where the text of a message stands: its leaf parts as stretches of its bytes (RFC 2045, RFC 2046).

Nothing is decoded or copied, so whoever changes a part leaves every other byte as it came. The walk has a list of
what is left to do and does not recurse, and it gives up on a message of more than 1000 parts or 100 levels.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from arkrelay.mail.mediatype import content_type, disposition, encoding_of

DEPTH_LIMIT = 100  # Postfix stops there too
PART_LIMIT = 1000
# What is inside is covered by a signature or a key that is not ours (RFC 1847, RFC 8551, RFC 3156).
SEALED = frozenset({b"multipart/signed", b"multipart/encrypted"})


class TooMuch(ValueError):
    """The message has more parts or levels than are looked at, or took too long."""


class Leaf(NamedTuple):
    """A part without parts: its header from ``start``, with the empty line, its body from ``body`` to ``end``."""

    start: int
    body: int
    end: int
    kind: bytes  # media type in lower case
    charset: bytes  # lower case; empty: it does not say
    encoding: bytes  # lower case; empty: it does not say
    flowed: bool  # lines of text/plain are joined by their readers without a space (RFC 3676 §4.5)


class _Entity(NamedTuple):
    start: int
    end: int
    depth: int
    default_type: bytes


def text_leaves(content: bytes, expired: Callable[[], bool]) -> list[Leaf]:
    """Return the parts that a reader shows as the message: text, no attachment, not inside anything sealed.

    Raises ``TooMuch`` for a message beyond the limits, or when ``expired`` says so.
    """
    found: list[Leaf] = []
    todo = [_Entity(0, len(content), 0, b"text/plain")]
    seen = 0
    while todo:
        entity = todo.pop()
        seen += 1
        if seen > PART_LIMIT or entity.depth > DEPTH_LIMIT or expired():
            raise TooMuch(f"more than {PART_LIMIT} parts or {DEPTH_LIMIT} levels, or too slow")
        header, start = _header(content, entity)
        kind, parameters = content_type(header, entity.default_type)
        if kind.startswith(b"multipart/"):
            if kind not in SEALED and (boundary := parameters.get(b"boundary", b"")):
                default = b"message/rfc822" if kind == b"multipart/digest" else b"text/plain"
                inside = _inside(content, start, entity, boundary, default)
                todo.extend(reversed(inside))
            continue
        if kind not in {b"text/html", b"text/plain"} or _is_attachment(header, parameters):
            continue
        flowed = parameters.get(b"delsp", b"").lower() == b"yes"
        charset = parameters.get(b"charset", b"").lower()
        found.append(Leaf(entity.start, start, entity.end, kind, charset, encoding_of(header), flowed))
    return found


def delimiters(content: bytes, start: int, end: int, boundary: bytes) -> Iterator[re.Match[bytes]]:
    """Yield the delimiter lines of a multipart whose body is there, each from the line end before it.

    A line end is part of a delimiter (RFC 2046 §5.1.1): the empty line that ended the header has that of a first one.
    ``match[1]`` is not None for the last.
    """
    line = re.compile(rb"\r\n--" + re.escape(boundary) + rb"(--)?[ \t]*(?=\r\n|\Z)")
    return line.finditer(content, max(start - 2, 0), end)


def _header(content: bytes, entity: _Entity) -> tuple[bytes, int]:
    """Return the header of a part, and where its body begins; as ``header.split``, without a copy of the body."""
    if content.startswith(b"\r\n", entity.start, entity.end):
        return b"", entity.start + 2
    end = content.find(b"\r\n\r\n", entity.start, entity.end)
    if end < 0:
        return content[entity.start : entity.end] + b"\r\n", entity.end
    return content[entity.start : end + 2], end + 4


def _inside(content: bytes, start: int, entity: _Entity, boundary: bytes, default: bytes) -> list[_Entity]:
    """Return the parts of a multipart, without the line end that belongs to the delimiter (RFC 2046 §5.1.1)."""
    parts: list[_Entity] = []
    position: int | None = None
    for match in delimiters(content, start, entity.end, boundary):
        if position is not None:
            parts.append(_Entity(position, max(match.start(), position), entity.depth + 1, default))
            if len(parts) > PART_LIMIT:
                raise TooMuch(f"more than {PART_LIMIT} parts")
        position = None if match[1] is not None else min(match.end() + 2, entity.end)
        if position is None:
            break
    if position is not None:  # cut off: the last part runs to the end
        parts.append(_Entity(position, entity.end, entity.depth + 1, default))
    return parts


def _is_attachment(header: bytes, parameters: dict[bytes, bytes]) -> bool:
    """Whether a part is a file: not inline (RFC 2183 §2.8: then it is an attachment), or with a file's name."""
    word, more = disposition(header)
    # a parameter may come in pieces, or with its charset (RFC 2231 §3, §4)
    names = {name.partition(b"*")[0] for name in (*parameters, *more)}
    return word != b"inline" or not names.isdisjoint({b"name", b"filename"})
