"""The header fields of a part that say what it is and how it is written (RFC 2045, RFC 2183)."""

import re

from arkrelay.mail.header import CRLF

IDENTITY = frozenset({b"", b"7bit", b"8bit", b"binary"})  # encodings that are none (RFC 2045 §6.2)
CONTENT_TYPE = re.compile(rb"^content-type[ \t]*:([^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)", re.IGNORECASE | re.MULTILINE)
ENCODING = re.compile(
    rb"^content-transfer-encoding[ \t]*:([^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)", re.IGNORECASE | re.MULTILINE
)
_DISPOSITION = re.compile(
    rb"^content-disposition[ \t]*:([^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)", re.IGNORECASE | re.MULTILINE
)
_MIME_VERSION = re.compile(rb"^mime-version[ \t]*:", re.IGNORECASE | re.MULTILINE)
_COMMENT = re.compile(rb"(\"(?:[^\"\\]|\\.)*+\")|\((?:[^()\\]|\\.)*+\)")  # RFC 5322 §3.2.2, or a quoted string
_TYPE = re.compile(rb"[ \t]*([!#$%&'*+.^_`|~0-9a-z-]+/[!#$%&'*+.^_`|~0-9a-z-]+)", re.IGNORECASE)
_PARAMETER = re.compile(rb"[ \t]*;[ \t]*([^\s=;\"]+)[ \t]*=[ \t]*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;\"]*))")


def content_type(header: bytes, default: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """Return the lower-case media type and its parameters; the first of each name counts."""
    field = CONTENT_TYPE.search(header)
    if field is None:
        return default, {}
    text = _unfolded(field[1])
    match = _TYPE.match(text)
    if match is None:
        return b"text/plain", {}  # RFC 2045 §5.2: what cannot be read is plain text
    return match[1].lower(), _parameters(text, match.end())


def disposition(header: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """Return the lower-case Content-Disposition (RFC 2183) and its parameters; without one it is inline."""
    field = _DISPOSITION.search(header)
    if field is None:
        return b"inline", {}
    text = _unfolded(field[1])
    word = text.partition(b";")[0]
    return word.strip().lower(), _parameters(text, len(word))


def _unfolded(value: bytes) -> bytes:
    """Return the value of a field in one line, without comments."""
    text = value.replace(CRLF, b"")
    return _COMMENT.sub(lambda match: match[1] or b" ", text) if b"(" in text else text


def _parameters(text: bytes, position: int) -> dict[bytes, bytes]:
    parameters: dict[bytes, bytes] = {}
    while found := _PARAMETER.match(text, position):
        position = found.end()
        quoted = re.sub(rb"\\(.)", rb"\1", found[2]) if found[2] is not None else found[3]
        parameters.setdefault(found[1].lower(), quoted)
    return parameters


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


def make_mime(header: bytes, body: bytes) -> bytes:
    """Return the header with MIME-Version and Content-Type, without which an encoding means nothing."""
    if not _MIME_VERSION.search(header):
        header += b"MIME-Version: 1.0\r\n"
    if not CONTENT_TYPE.search(header):
        try:
            body.decode()
            charset = b"utf-8"
        except UnicodeDecodeError:
            charset = b"unknown-8bit"
        header += b"Content-Type: text/plain; charset=" + charset + CRLF
    return header
