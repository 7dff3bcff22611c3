"""One-click unsubscription (RFC 8058, RFC 2369): the header fields, and tokens that nobody else can make.

A token is ``u`` and 42 characters of hexadecimal: 8 bytes of the recipient's number, 13 bytes of HMAC-SHA256 over
tenant, number and stream (104 bits). It stands in the URL and is the local part of the mailto address as well, so it
obeys what RFC 5321 §4.5.3.1.1 allows there, and has no case. It does not expire: it is good as long as the record
of its recipient is kept.

Big mailbox providers want a link in the body beside the fields (Google's guidelines for senders, "Make it easy to
unsubscribe"). Where it stands is said by a placeholder, since nobody but the writer of a mail knows its footer.
"""

import hashlib
import hmac
import re

MAC_BYTES = 13
TOKEN = re.compile(r"u[0-7][0-9a-f]{41}")  # SQLite has no numbers of 64 bits
# Ours, with what editors make of braces in a link and put before it, and Postmark's, so that templates can move.
PLACEHOLDER = re.compile(
    rb"(?:https?://)?(?:(?:\{\{|%7[Bb]%7[Bb])(?: |%20)?unsubscribe_url(?: |%20)?(?:\}\}|%7[Dd]%7[Dd])"
    rb"|\{\{\{ ?pm:unsubscribe ?\}\}\})"
)
_PURPOSE = b"arkrelay unsubscribe\0"


class UnsubscribeTokens:
    """Makes and checks tokens under one secret."""

    __slots__ = ("_keyed",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 16:
            raise ValueError("the secret for unsubscription needs at least 16 bytes")
        self._keyed = hmac.new(secret, _PURPOSE, hashlib.sha256)

    def make(self, tenant_id: str, recipient_id: int, stream: str) -> str:
        """Return the token by which this recipient leaves this stream."""
        return "u" + (recipient_id.to_bytes(8, "big") + self._code(tenant_id, recipient_id, stream)).hex()

    def recipient_of(self, token: str) -> int | None:
        """Return the number that a token names, which proves nothing yet; None for what is no token."""
        token = token.lower()
        return int.from_bytes(bytes.fromhex(token[1:17]), "big") if TOKEN.fullmatch(token) else None

    def proves(self, token: str, tenant_id: str, recipient_id: int, stream: str) -> bool:
        """Return whether we made this token for just these."""
        return hmac.compare_digest(token.lower().encode(), self.make(tenant_id, recipient_id, stream).encode())

    def _code(self, tenant_id: str, recipient_id: int, stream: str) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(b"\0".join((tenant_id.encode(), str(recipient_id).encode(), stream.encode("utf-8", "replace"))))
        return keyed.digest()[:MAC_BYTES]


def render_fields(url: str, address: str, *, one_click: bool) -> bytes:
    """Return List-Unsubscribe with the https URL and the mailto, if there is one, and List-Unsubscribe-Post.

    RFC 2369 §3.2 has the mailto; RFC 8058 §3.1 wants one HTTPS URI, and §4 a signature that covers both fields:
    without one there is no ``one_click``.
    """
    mailto = f",\r\n\t<mailto:{address}?subject=unsubscribe>" if address else ""
    post = "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" if one_click else ""
    return f"List-Unsubscribe: <{url}>{mailto}\r\n{post}".encode()
