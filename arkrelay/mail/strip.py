"""Taking our own signatures off again, for a message whose bytes have to change on the way."""

import re

from arkrelay.mail.header import CRLF, Field, scan, split, value

_DOMAIN = re.compile(rb"(?:^|;)\s*d\s*=\s*([^;\s]*)")


def signed_by(field: Field) -> str:
    """Return the ``d=`` of a DKIM-Signature field in lower case, empty when it has none (RFC 6376 §3.5)."""
    match = _DOMAIN.search(value(field))
    return match[1].decode("ascii", "replace").lower() if match else ""


def strip_signatures(content: bytes, domains: frozenset[str]) -> bytes:
    """Return the message without the DKIM-Signature fields of these domains; every other byte stays."""
    header, body = split(content)
    kept = [f.raw for f in scan(header) if f.name != b"dkim-signature" or signed_by(f) not in domains]
    return b"".join(kept) + CRLF + body
