"""The header block of a message as bytes: where each field begins and ends, and nothing more.

One regular expression walks over the block; nothing is decoded, re-folded or written again, so what we do not
mean to change stays as it came. The standard library's parser is kept away from untrusted mail: it recurses, it
takes seconds for one long address list, and writing its result again alters a message (CVE-2024-6923,
CVE-2026-1299 are of that kind). Line ends are CRLF here: the doors have made them so.
"""

import binascii
import re
from typing import NamedTuple

CRLF = b"\r\n"
HEADER_LIMIT = 262_144  # bytes; Postfix takes 102 400, long DKIM, ARC and reference chains stay far below
FIELD_LIMIT = 1000
LINE_LIMIT = 998  # RFC 5322 §2.1.1, without CRLF
TEXT_LIMIT = 998  # characters of a decoded field: as long as a subject may be

# RFC 5322 §2.2: a name of printable ASCII without colon, then lines of which all but the first are folded.
# Anchored to line starts: `findall` would else try a long line without a colon from each of its characters.
_FIELD = re.compile(rb"^(([!-9;-~]++):[^\r\n\0]*+\r\n(?:[ \t][^\r\n\0]*+\r\n)*+)", re.MULTILINE)
_SPACE_BEFORE_COLON = re.compile(rb"[!-9;-~]+[ \t]+:")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ENCODED_WORD = re.compile(rb"=\?([!->@-~]{1,40})\?([BbQq])\?([!->@-~]*)\?=")
_BETWEEN_WORDS = re.compile(rb"\?=[ \t]+(?==\?)")
_Q_ESCAPE = re.compile(rb"=([0-9A-Fa-f]{2})")
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]")
# Python also knows codecs that are no charsets (idna, unicode_escape, zlib): a peer must not choose among those.
_CHARSET = re.compile(
    r"(utf-?8|(us-)?ascii|utf-?16|utf-?32|utf-?7|latin|iso-?8859|iso-?2022|windows-|cp-?\d|koi8|gb|big5|euc|shift|ks"
    r"|tis|mac|hz|viscii)[a-z0-9_-]*",
    re.IGNORECASE,
)


class HeaderError(ValueError):
    """The header cannot be taken as it is; the message says which line or field and why, and quotes no content."""


class Field(NamedTuple):
    """One field: its ``name`` in lower case, and the whole of it as it came, with its last CRLF, as ``raw``.

    A tuple and not a dataclass, because a message makes ten of them and this costs a third.
    """

    name: bytes
    raw: bytes


def split(content: bytes) -> tuple[bytes, bytes]:
    """Return the header block, with the CRLF of its last field, and the body; the empty line between is dropped.

    ``header + CRLF + body`` is the message again. One that begins with an empty line has an empty header. One
    without an empty line is all header with an empty body (RFC 5322 §2.1: the body is optional), and a missing
    last CRLF is added to it; whether it is a header at all is for ``scan`` to say.
    """
    if content.startswith(CRLF):
        return b"", content[2:]
    end = content.find(b"\r\n\r\n")
    if end >= 0:
        return content[: end + 2], content[end + 4 :]
    if content and not content.endswith(CRLF):
        return content + CRLF, b""
    return content, b""


def scan(header: bytes) -> list[Field]:
    """Return the fields in their order; their ``raw`` bytes joined are the block again.

    Raises ``HeaderError`` for a block over 256 KB, more than 1000 fields, a line over 998 octets, and for a line
    that is no field: without a colon, with a space before it (``From :`` reads as From to some and as nothing to
    others), with NUL, a bare CR or a bare LF. About 4 µs for a block of ten fields.
    """
    if len(header) > HEADER_LIMIT:
        raise HeaderError(f"the header is longer than {HEADER_LIMIT} bytes")
    found = _FIELD.findall(header)
    if len(found) > FIELD_LIMIT:
        raise HeaderError(f"the header has more than {FIELD_LIMIT} fields")
    total = 0
    fields = []
    for raw, name in found:
        length = len(raw)
        total += length
        if length > LINE_LIMIT:
            _check_lines(header, raw)
        fields.append(Field(name.lower(), raw))
    if total != len(header):
        _explain(header)
    return fields


def find(fields: list[Field], name: bytes) -> list[Field]:
    """Return the fields of this lower-case name, in their order."""
    return [field for field in fields if field.name == name]


def value(field: Field) -> bytes:
    """Return what follows the colon, unfolded (RFC 5322 §2.2.3) and without white space at either end."""
    body = field.raw[len(field.name) + 1 :]
    return body.replace(CRLF, b"").strip(b" \t")


def decode_words(raw: bytes, limit: int = 20 * TEXT_LIMIT) -> str:
    """Return the text of an unfolded value with its encoded words decoded (RFC 2047); never raises.

    Only the first ``limit`` bytes are read: an encoded character takes up to 12, and its frame besides. What
    cannot be decoded stays as written, bytes that are not UTF-8 become U+FFFD. The text may hold control
    characters: ``decode_text`` gives one without them.
    """
    raw = raw[:limit]
    if b"=?" not in raw:
        return raw.decode("utf-8", "replace")
    raw = _BETWEEN_WORDS.sub(b"?=", raw)  # white space between two encoded words is not shown (RFC 2047 §6.2)
    parts: list[tuple[str, bytes]] = []  # neighbours of one charset are decoded together: senders split characters
    end = 0
    for match in _ENCODED_WORD.finditer(raw):
        if match.start() > end:
            parts.append(("", raw[end : match.start()]))
        end = match.end()
        charset = match[1].decode("ascii").partition("*")[0].lower()  # RFC 2231 §5: a language may follow
        if not _CHARSET.fullmatch(charset):
            parts.append(("", match[0]))
            continue
        decoded = _decode_q(match[3]) if match[2] in b"Qq" else _decode_b(match[3])
        if parts and parts[-1][0] == charset:
            parts[-1] = (charset, parts[-1][1] + decoded)
        else:
            parts.append((charset, decoded))
    parts.append(("", raw[end:]))
    return "".join(_decode_part(charset, data) for charset, data in parts)


def decode_text(raw: bytes) -> str:
    """Return the text of an unfolded value for people: at most 998 characters, no control characters, no error."""
    text = decode_words(raw)
    if not text.isprintable():
        text = _CONTROL.sub("", text)
    return text[:TEXT_LIMIT]


def decode_charset(charset: str, data: bytes) -> str:
    """Return bytes as text by the name of a charset; never raises, what cannot be decoded becomes U+FFFD."""
    return _decode_part(charset.lower() if _CHARSET.fullmatch(charset) else "", data)


def has_control(text: str) -> bool:
    """Whether the text holds a control character, a line or paragraph separator, or half a surrogate pair."""
    return not text.isprintable() and _CONTROL.search(text) is not None


def _decode_q(data: bytes) -> bytes:
    return _Q_ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), data.replace(b"_", b" "))


def _decode_b(data: bytes) -> bytes:
    data = _NOT_BASE64.sub(b"", data)
    data = data[: len(data) - (len(data) % 4 == 1)]  # one left-over character holds no whole byte
    return binascii.a2b_base64(data + b"=" * (-len(data) % 4))


def _decode_part(charset: str, data: bytes) -> str:
    try:
        text = data.decode(charset or "utf-8", "replace")
        # UTF-7 can write half a surrogate pair, which no output takes
        return text if text.isprintable() else _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
    except (LookupError, ValueError):  # a charset that Python lacks, or a codec that cannot replace
        return data.decode("ascii", "replace")


def _check_lines(header: bytes, raw: bytes) -> None:
    """Raise if a line of this field is too long; a field of many lines may be longer than one."""
    lines = raw.split(CRLF)
    for number, line in enumerate(lines):
        if len(line) > LINE_LIMIT:
            before = header.count(CRLF, 0, header.find(raw))
            raise HeaderError(f"header line {before + number + 1} is longer than {LINE_LIMIT} octets")


def _explain(header: bytes) -> None:
    """Raise with the number of the first line that is no part of a field."""
    position = 0
    while match := _FIELD.match(header, position):
        position = match.end()
    number = header.count(CRLF, 0, position) + 1
    line, ended, _ = header[position:].partition(CRLF)
    if b"\0" in header[position:] and (b"\0" in line or not ended):
        reason = "holds a NUL"
    elif b"\r" in line or b"\n" in line:
        reason = "holds a bare CR or LF"
    elif _SPACE_BEFORE_COLON.match(line):
        reason = "has a space before the colon"
    elif line[:1] in b" \t":
        reason = "continues a field that does not exist"
    elif line.startswith(b":"):
        reason = "has no field name"
    else:
        reason = "is not a header field"
    raise HeaderError(f"header line {number} {reason}")
