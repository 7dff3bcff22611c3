"""The canonical forms of RFC 6376 §3.4, in which signer and verifier compare what mail servers like to change.

Whole-block searches stand in for loops over lines: a body of 4 KB takes a microsecond or two.
"""

import re

from arkrelay.mail.header import Field, value

_WSP_RUN = re.compile(rb"[ \t]+")
_PAIRS_FROM_BEHIND = re.compile(rb"(?:\n\r)++")


def relaxed_field(item: Field) -> bytes:
    """Return the field in relaxed form with its CRLF (RFC 6376 §3.4.2)."""
    text = value(item)
    if b"\t" in text or b"  " in text:
        text = _WSP_RUN.sub(b" ", text)
    return b"%b:%b\r\n" % (item.name, text)


def relaxed_body(body: bytes) -> bytes:
    """Return the body in relaxed form (RFC 6376 §3.4.4); a body that is so already is not copied.

    White space is looked for with plain searches, not line by line: most bodies have no runs of it.
    """
    if b"\t" in body:
        body = body.replace(b"\t", b" ")
    while b"  " in body:  # halves each run, so at most as often as a run has bits in its length
        body = body.replace(b"  ", b" ")
    if b" \r\n" in body:
        body = body.replace(b" \r\n", b"\r\n")
    body = body.removesuffix(b" ")
    return _one_line_end(body) if body else b""


def simple_body(body: bytes) -> bytes:
    """Return the body in simple form (RFC 6376 §3.4.3); an empty one is one CRLF."""
    return _one_line_end(body) or b"\r\n"


def _one_line_end(body: bytes) -> bytes:
    """Return the body with exactly one CRLF at its end, or nothing if it was nothing but line ends."""
    end = len(body.rstrip(b"\r\n"))
    tail = body[end:]
    if tail != b"\r\n" * (len(tail) // 2):  # not canonical: only whole line ends go
        pairs = _PAIRS_FROM_BEHIND.match(tail[::-1])
        end = len(body) - (pairs.end() if pairs else 0)
    if not end:
        return b""
    if end == len(body) - 2:
        return body
    return body[:end] + b"\r\n"
