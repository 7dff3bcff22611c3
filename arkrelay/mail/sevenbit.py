"""A message in seven bits, for a peer that does not offer 8BITMIME (RFC 6152 §3).

Every leaf of the MIME tree that holds a byte above 127 is encoded again: text as quoted-printable, anything else
as base64 (RFC 2045 §6). Everything else keeps its bytes. The tree is walked with a list of what is left to do,
never by recursion, and never beyond the limits of ``leaves``.

What cannot be kept: a signature over the old bytes. Our own DKIM signature is made afterwards, by the caller;
a ``multipart/signed`` should be seven-bit to begin with (RFC 1847 §2.1), and one that is not loses its signature
here, as it would at any other relay. Bytes above 127 in header fields stay: they are a matter of SMTPUTF8.
"""

import re
from typing import NamedTuple

from arkrelay.mail.header import CRLF, split
from arkrelay.mail.leaves import DEPTH_LIMIT, PART_LIMIT, delimiters
from arkrelay.mail.mediatype import (
    CONTENT_TYPE,
    ENCODING,
    IDENTITY,
    content_type,
    encoding_of,
    make_mime,
    replace_field,
    set_encoding,
)
from arkrelay.mail.transfer import to_base64, to_quoted_printable

_EIGHT_BIT = re.compile(rb"[\x80-\xff]")
_MESSAGES = frozenset({b"message/rfc822", b"message/news"})  # hold a message; may not be encoded (RFC 2046 §5.2.1)


class _Entity(NamedTuple):
    """A header and body still to be looked at: the bytes of ``content`` from ``start`` to ``end``."""

    start: int
    end: int
    depth: int
    default_type: bytes
    whole: bool  # a message, not a part: it carries MIME-Version


class _Piece(NamedTuple):
    """Bytes that are done, waiting for what comes before them."""

    data: bytes


def to_seven_bit(content: bytes) -> bytes:
    """Return the message with no byte above 127 in any body; ``content`` itself if it has none.

    Never raises for any bytes. A multipart without a usable boundary, too deep or with too many parts becomes
    one ``application/octet-stream`` in base64 that holds all its bytes, because a multipart itself may not be
    encoded (RFC 2045 §6.4). An encoding that nobody knows is replaced. Text between the parts, which no reader
    shows, gets ``?`` for each such byte. A message that is not MIME and has 8-bit text becomes MIME, with the
    charset utf-8 if it is that, or else unknown-8bit (RFC 1428 §3). CPU work: for large mail use a thread.
    """
    if content.isascii():
        return content
    done: list[bytes] = []
    todo: list[_Entity | _Piece] = [_Entity(0, len(content), 0, b"text/plain", whole=True)]
    parts = 0
    while todo:
        item = todo.pop()
        if isinstance(item, _Piece):
            done.append(item.data)
            continue
        next_items = _open(content, item, PART_LIMIT - parts)
        parts += _count_entities(next_items)
        todo.extend(reversed(next_items))
    return b"".join(done)


def _open(content: bytes, entity: _Entity, parts_left: int) -> "list[_Entity | _Piece]":
    """Return what stands in the place of this entity: pieces, and the entities inside it still to be opened."""
    data = content[entity.start : entity.end]
    header, body = split(data)
    if body.isascii():
        return [_Piece(data)]
    kind, parameters = content_type(header, entity.default_type)
    body_start = entity.end - len(body)
    if kind in _MESSAGES or kind.startswith(b"multipart/"):
        inside: list[_Entity | _Piece] = []
        if entity.depth < DEPTH_LIMIT and encoding_of(header) in IDENTITY:
            if kind in _MESSAGES:
                inside = [_Entity(body_start, entity.end, entity.depth + 1, b"text/plain", whole=True)]
            else:
                inside = _open_multipart(content, body_start, entity, kind, parameters.get(b"boundary", b""))
        if inside and _count_entities(inside) <= parts_left:
            return [_Piece(replace_field(header, ENCODING, b"") + CRLF), *inside]
        header = replace_field(header, CONTENT_TYPE, b"Content-Type: application/octet-stream\r\n")
        return [_Piece(set_encoding(header, b"base64") + CRLF + to_base64(body))]
    return [_Piece(_encode_leaf(header, body, kind, whole=entity.whole))]


def _count_entities(items: "list[_Entity | _Piece]") -> int:
    return sum(isinstance(item, _Entity) for item in items)


def _open_multipart(
    content: bytes, start: int, entity: _Entity, kind: bytes, boundary: bytes
) -> "list[_Entity | _Piece]":
    """Return the pieces between and around the parts, and the parts; nothing without a part, or with too many."""
    if not boundary or not boundary.isascii():
        return []
    default = b"message/rfc822" if kind == b"multipart/digest" else b"text/plain"  # RFC 2046 §5.1.5
    items: list[_Entity | _Piece] = []
    position = start
    in_part = False
    for match in delimiters(content, start, entity.end, boundary):
        if in_part:
            items.append(_Entity(position, match.start(), entity.depth + 1, default, whole=False))
        else:
            items.append(_Piece(_without_eight_bit(content[position : match.start()])))
        stop = max(match.start(), position)  # position is past the match's line end in an empty preamble or part
        after = min(match.end() + 2, entity.end)
        in_part = match[1] is None
        items.append(_Piece(content[stop : after if in_part else match.end()]))
        position = after if in_part else match.end()
        if not in_part or len(items) > 2 * PART_LIMIT + 2:  # a piece to each part, and one before them
            break
    if not items or len(items) > 2 * PART_LIMIT + 2:
        return []
    if in_part:  # cut off: the last part runs to the end
        items.append(_Entity(position, entity.end, entity.depth + 1, default, whole=False))
    else:
        items.append(_Piece(_without_eight_bit(content[position : entity.end])))
    return items


def _encode_leaf(header: bytes, body: bytes, kind: bytes, *, whole: bool) -> bytes:
    encoding = encoding_of(header)
    if encoding == b"base64":  # broken already: decoders skip what is not of the alphabet (RFC 2045 §6.8)
        return header + CRLF + _EIGHT_BIT.sub(b"", body)
    if encoding == b"quoted-printable":
        return header + CRLF + _EIGHT_BIT.sub(lambda match: b"=%02X" % match[0][0], body)
    if whole:
        header = make_mime(header, body)
    if kind.startswith((b"text/", b"message/")) and b"\0" not in body:
        return set_encoding(header, b"quoted-printable") + CRLF + to_quoted_printable(body)
    return set_encoding(header, b"base64") + CRLF + to_base64(body)


def _without_eight_bit(text: bytes) -> bytes:
    return text if text.isascii() else _EIGHT_BIT.sub(b"?", text)
