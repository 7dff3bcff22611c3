"""Two header fields of a part that say what it is and how it is written: Content-Type and its encoding (RFC 2045)."""

import re

from arkrelay.mail.header import CRLF

CONTENT_TYPE = re.compile(rb"^content-type[ \t]*:([^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)", re.IGNORECASE | re.MULTILINE)
ENCODING = re.compile(
    rb"^content-transfer-encoding[ \t]*:([^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)", re.IGNORECASE | re.MULTILINE
)
_TYPE = re.compile(rb"[ \t]*([!#$%&'*+.^_`|~0-9a-z-]+/[!#$%&'*+.^_`|~0-9a-z-]+)", re.IGNORECASE)
_PARAMETER = re.compile(rb"[ \t]*;[ \t]*([^\s=;\"]+)[ \t]*=[ \t]*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;\"]*))")


def content_type(header: bytes, default: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """Return the lower-case media type and its parameters; the first of each name counts."""
    field = CONTENT_TYPE.search(header)
    if field is None:
        return default, {}
    text = field[1].replace(CRLF, b"")
    match = _TYPE.match(text)
    if match is None:
        return b"text/plain", {}  # RFC 2045 §5.2: what cannot be read is plain text
    parameters: dict[bytes, bytes] = {}
    position = match.end()
    while found := _PARAMETER.match(text, position):
        position = found.end()
        quoted = re.sub(rb"\\(.)", rb"\1", found[2]) if found[2] is not None else found[3]
        parameters.setdefault(found[1].lower(), quoted)
    return match[1].lower(), parameters


def encoding_of(header: bytes) -> bytes:
    """Return the Content-Transfer-Encoding in lower case, empty where there is none."""
    field = ENCODING.search(header)
    return field[1].partition(b"(")[0].strip().lower() if field else b""


def set_encoding(header: bytes, encoding: bytes) -> bytes:
    """Return the header with this Content-Transfer-Encoding."""
    return replace_field(header, ENCODING, b"Content-Transfer-Encoding: " + encoding + CRLF)


def replace_field(header: bytes, pattern: re.Pattern[bytes], field: bytes) -> bytes:
    """Return the header with the first such field replaced and the others gone, or with it at the end."""
    first = pattern.search(header)
    if first is None:
        return header + field
    return header[: first.start()] + field + pattern.sub(b"", header[first.end() :])
