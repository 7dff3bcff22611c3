"""Return paths that name the recipient they were made for, and that nobody else can make.

A bounce comes to an address of ours; which recipient it is about is read from that address and never from the
bounce's text, which anybody can write. So a forged one can at worst be wrong about a recipient whose return path
its sender has seen.

The local part is ``b`` and 50 characters of hexadecimal: 8 bytes of recipient id, 4 bytes of hours since 1970, 13
bytes of HMAC-SHA256 (104 bits). 51 characters of the 64 that RFC 5321 §4.5.3.1.1 allows, all of them letters and
digits, and without case: some hosts fold it. Base32 would save ten of them, and is written in Python: 2 % of the
path of a message.
"""

import hashlib
import hmac
import re

LIFETIME_S = 30 * 86400.0  # bounces come while the peer's own queue tries (RFC 5321 §4.5.4.1: days), not months
PERIOD_S = 7 * 86400.0  # longer than a message waits unless a person has it tried again (RFC 5321 §4.5.4.1: 4-5 days)
PREFIX = "b"
MAC_BYTES = 13
_HOUR_S = 3600
_LOCAL_PART = re.compile(r"b[0-9a-f]{50}")
_PURPOSE = b"arkrelay return path\0"  # keeps these codes apart from others made with the same secret


def stamp_at(accepted_at: float, now: float) -> float:
    """Return the time to stamp the return path with of a message that is sent now: at most a week ago.

    It is the same for all attempts of the first week, and of each week that follows: greylisting knows an envelope by
    its return path. So bounces find their way for at least 23 days from sending, however old the message is.
    """
    return accepted_at + max(now - accepted_at, 0.0) // PERIOD_S * PERIOD_S


class ReturnPaths:
    """Makes and reads local parts under one secret; another secret's are not recognised."""

    __slots__ = ("_keyed",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 16:
            raise ValueError("the secret for return paths needs at least 16 bytes")
        self._keyed = hmac.new(secret, _PURPOSE, hashlib.sha256)

    def local_part(self, recipient_id: int, at: float) -> str:
        """Return the local part for this recipient; it is good for 30 days from ``at`` (Unix seconds)."""
        payload = recipient_id.to_bytes(8, "big") + int(at // _HOUR_S).to_bytes(4, "big")
        return PREFIX + (payload + self._code(payload)).hex()

    def parse(self, local: str, now: float) -> int | None:
        """Return the recipient id, or None: not of this form, not made by us, or too old.

        One from the future is taken, because its code is good and our clock may have been set back.
        """
        local = local.lower()
        if not _LOCAL_PART.fullmatch(local):
            return None
        raw = bytes.fromhex(local[len(PREFIX) :])
        payload, code = raw[:12], raw[12:]
        if not hmac.compare_digest(code, self._code(payload)):
            return None
        if now - int.from_bytes(payload[8:], "big") * _HOUR_S > LIFETIME_S + _HOUR_S:  # stamps are whole hours
            return None
        return int.from_bytes(payload[:8], "big")

    def _code(self, payload: bytes) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(payload)
        return keyed.digest()[:MAC_BYTES]
