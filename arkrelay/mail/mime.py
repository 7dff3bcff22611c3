"""The parts of a message that somebody sent us, to be read and never to be written again (RFC 2045, RFC 2046).

The walk does not recurse and its work is bounded, whatever is nested or left open: so many bytes, parts and levels,
and the rest is not looked at. Nothing here raises; what is malformed is read as plain text, as people would read it.
"""

import binascii
import html
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from arkrelay.mail.header import decode_charset, decode_words

READ_BYTES = 1_000_000  # of a message; a report's own words stand before the message that it is about
MAX_PARTS = 64
MAX_DEPTH = 8
HEADER_BYTES = 65_536
MAX_FIELDS = 300
TEXT_BYTES = 65_536  # of one part, before decoding
VALUE_BYTES = 2000  # of one field

_FIELD = re.compile(rb"([!-9;-~]{1,100})[ \t]{0,10}:[ \t]?(.*)", re.DOTALL)
_PARAMETER = re.compile(
    r';\s*([a-z0-9_-]{1,40})\*?\d{0,2}\*?\s*=\s*(?:"([^"]{0,300})"|([^;\s"]{0,300}))', re.IGNORECASE
)
_TAG = re.compile(r"<[^<>]*>")
_NOT_SHOWN = re.compile(r"<(style|script|head)\b", re.IGNORECASE)
_NEW_LINE = re.compile(r"<(?:br|/p|/div|/tr|/li|/h[1-6]|/table)\b[^<>]*>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its type in lower case, its first field of each name (lower case), and its bytes as they came."""

    kind: str
    parameters: Mapping[str, str]
    fields: Mapping[str, str]
    body: bytes
    depth: int

    @property
    def encoding(self) -> str:
        """The transfer encoding, where the bytes have one that must be undone; else empty."""
        name = self.fields.get("content-transfer-encoding", "").strip().lower()
        return name if name in {"base64", "quoted-printable"} else ""

    def decoded(self) -> bytes:
        """Return the bytes without their transfer encoding."""
        data = self.body[:TEXT_BYTES]
        match self.encoding:
            case "base64":
                return _from_base64(data)
            case "quoted-printable":
                return binascii.a2b_qp(data)
        return data

    def text(self) -> str:
        """Return the part decoded, with "\\n" line ends; markup is left out."""
        text = decode_charset(self.parameters.get("charset", ""), self.decoded()).replace("\r\n", "\n")
        return plain(text) if self.kind == "text/html" else text


def walk(content: bytes) -> list[Part]:
    """Return the parts in their order, the whole message first; a multipart stands before what is in it."""
    found: list[Part] = []
    waiting = [(content[:READ_BYTES], 0)]
    while waiting and len(found) < MAX_PARTS:
        data, depth = waiting.pop()
        part = _part(data, depth)
        found.append(part)
        boundary = part.parameters.get("boundary", "")
        if part.kind.startswith("multipart/") and boundary and depth < MAX_DEPTH:
            inner = list(_split(part.body, boundary.encode("latin-1", "replace"), MAX_PARTS - len(found)))
            waiting += [(one, depth + 1) for one in reversed(inner)]
    return found


def read_fields(block: bytes) -> dict[str, str]:
    """Return the first field of each name, in lower case, with its value unfolded and decoded."""
    fields: dict[str, str] = {}
    lines: list[bytes] = []
    for line in block[:HEADER_BYTES].split(b"\r\n")[: 4 * MAX_FIELDS]:
        if line[:1] in {b" ", b"\t"} and lines:
            lines[-1] += line
        else:
            lines.append(line)
    for line in lines[:MAX_FIELDS]:
        match = _FIELD.fullmatch(line)
        if match is not None:
            name = match[1].decode("ascii").lower()
            fields.setdefault(name, decode_words(match[2][:VALUE_BYTES].strip()))
    return fields


def head_and_body(data: bytes) -> tuple[bytes, bytes]:
    """Return what stands before the first empty line and what stands behind it."""
    if data.startswith(b"\r\n"):
        return b"", data[2:]
    head, _, body = data.partition(b"\r\n\r\n")
    return head, body


def plain(text: str) -> str:
    """Return what a reader sees of HTML, roughly: lines where blocks end, and no markup."""
    text = _NEW_LINE.sub("\n", _without_hidden(text))
    text = html.unescape(_TAG.sub(" ", text))
    return "\n".join(line for line in (" ".join(line.split()) for line in text.split("\n")) if line)


def _without_hidden(text: str) -> str:
    """Return the text without styles and scripts; one that does not end hides the rest."""
    shown, at, lower = [], 0, text.lower()
    while (start := _NOT_SHOWN.search(text, at)) is not None:
        shown.append(text[at : start.start()])
        at = lower.find(f"</{start[1].lower()}", start.end())
        if at < 0:
            return " ".join(shown)
    return " ".join((*shown, text[at:]))


def _part(data: bytes, depth: int) -> Part:
    head, body = head_and_body(data)
    fields = read_fields(head)
    declared = fields.get("content-type", "text/plain")
    kind = declared.partition(";")[0].strip().lower()
    parameters: dict[str, str] = {}
    for match in _PARAMETER.finditer(declared):
        parameters.setdefault(match[1].lower(), match[2] if match[2] is not None else match[3])
    return Part(kind or "text/plain", parameters, fields, body, depth)


def _split(body: bytes, boundary: bytes, most: int) -> Iterator[bytes]:
    """Yield up to ``most`` parts; the last one needs no delimiter behind it, for messages are cut on their way."""
    delimiter = b"--" + boundary
    at = 0 if body.startswith(delimiter) else body.find(b"\r\n" + delimiter) + 2
    if at < 2 and not body.startswith(delimiter):
        return
    while most > 0:
        line_end = body.find(b"\r\n", at)
        if line_end < 0 or body.startswith(b"--", at + len(delimiter)):
            return
        following = body.find(b"\r\n" + delimiter, line_end)
        yield body[line_end + 2 : following] if following >= 0 else body[line_end + 2 :]
        if following < 0:
            return
        at, most = following + 2, most - 1


def _from_base64(data: bytes) -> bytes:
    data = re.sub(rb"[^A-Za-z0-9+/]", b"", data)
    data = data[: len(data) - (len(data) % 4 == 1)]
    return binascii.a2b_base64(data + b"=" * (-len(data) % 4))
