"""Who is signed in: sessions in memory, by the hash of a random token that only the browser's cookie has.

A session knows the digest of the key that opened it, and not the key. It ends with the key: when that is removed,
replaced or put on hold, or its tenant suspended; and after ``IDLE_S`` without a request, and with the process.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

from arkrelay.config.snapshot import Snapshot
from arkrelay.relay.callers import Caller, still_caller

IDLE_S = 12 * 3600.0
MOST = 1000  # sessions; the one that was idle for longest goes first
TOKEN_BYTES = 32  # 256 random bits


@dataclass(slots=True)
class Session:
    """One browser that is signed in; ``csrf`` stands in every form, and ``notices`` are shown on the next page."""

    caller: Caller
    key_digest: bytes | None = field(repr=False)  # None: a local peer, who needs no key
    seen_at: float  # monotonic seconds
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(TOKEN_BYTES), repr=False)
    notices: list[tuple[str, str]] = field(default_factory=list)  # (good or bad, sentence)
    closed: bool = False  # signed out

    def holds(self, snapshot: Snapshot) -> bool:
        """Take over what the key may do now; return False when it opens nothing any more, or was signed out."""
        if self.closed:
            return False
        if self.key_digest is None:
            return True
        caller = still_caller(snapshot, self.caller, self.key_digest)
        if caller is None or caller.hold or caller.suspended:
            return False
        self.caller = caller
        return True

    def accepts(self, token: str) -> bool:
        """Return whether a form comes from a page of this session."""
        return hmac.compare_digest(self.csrf.encode(), token.encode("utf-8", "replace"))


class Sessions:
    """All sessions of one daemon."""

    def __init__(self) -> None:
        self._open: dict[bytes, Session] = {}  # in the order of their last request

    def __len__(self) -> int:
        return len(self._open)

    def open(self, caller: Caller, key_digest: bytes | None, now: float) -> tuple[str, Session]:
        """Return a new session and its token, which is kept nowhere."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        session = self._open[_hash(token)] = Session(caller, key_digest, now)
        while len(self._open) > MOST:
            del self._open[next(iter(self._open))]
        return token, session

    def find(self, token: str, snapshot: Snapshot, now: float) -> Session | None:
        """Return the session of this token, with what its key may do now; None when it has ended."""
        name = _hash(token)
        session = self._open.pop(name, None)
        if session is None or now - session.seen_at > IDLE_S:
            return None
        if not session.holds(snapshot):
            return None
        session.seen_at = now
        self._open[name] = session
        return session

    def close(self, token: str) -> None:
        """End the session of this token."""
        session = self._open.pop(_hash(token), None)
        if session is not None:
            session.closed = True


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
