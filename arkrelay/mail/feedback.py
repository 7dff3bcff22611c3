"""The fields that tell a mailbox provider where complaints about a message go (RFC 9477).

The address is below the author's domain, so that the author's own signature vouches for it (§3.1); both fields are
signed. The id is a return path's local part: what it names, nobody else can name.
"""

FIELDS = frozenset({b"cfbl-address", b"cfbl-feedback-id"})


def render_feedback(author_domain: str, mark: str | None) -> bytes:
    """Return the fields with their CRLF; without a ``mark`` for a message of several recipients."""
    address = f"CFBL-Address: fbl@psrp.{author_domain}; report=arf\r\n"
    return (address + (f"CFBL-Feedback-ID: {mark}\r\n" if mark is not None else "")).encode("ascii")
