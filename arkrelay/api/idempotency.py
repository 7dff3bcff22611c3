"""One effect for one ``Idempotency-Key``, however often a client repeats its request (Ark contract §5).

A claim is made before anything happens and given back when the request has ended. What the request answered is kept
for 24 hours: for mail in the transaction that accepts it, so that a crash between commit and answer repeats nothing;
for everything else right after it was done. Only successes are kept, so a corrected request may use its key again.
"""

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from arkrelay.api.refusal import ApiError
from arkrelay.model.receipt import Receipt, ReceiptKey
from arkrelay.store import receipts
from arkrelay.store.database import Store

HEADER = "Idempotency-Key"
LIFETIME_S = 86400.0
FORM = r"[A-Za-z0-9_\-.~]{1,255}"
_FORM = re.compile(FORM)


class Claim:
    """The right to answer for one key; ``body`` is the answer once it is made."""

    def __init__(self, key: ReceiptKey, fingerprint: bytes, render: Callable[[object], bytes]) -> None:
        self.key = key
        self._fingerprint = fingerprint
        self._render = render
        self.receipt: Receipt | None = None

    def answered(self, data: object, status: int) -> Receipt:
        """Return what is to be kept of the answer, made once."""
        if self.receipt is None:
            self.receipt = Receipt(self.key, self._fingerprint, status, self._render(data), time.time())
        return self.receipt


@dataclass(frozen=True, slots=True)
class Replay:
    """The stored answer of a request that was made before."""

    receipt: Receipt


class Idempotency:
    """The claims under way, and the way to the stored answers; one per daemon."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._claimed: dict[ReceiptKey, bytes] = {}

    async def claim(
        self, owner: str, request: web.Request, path: str, body: bytes, render: Callable[[object], bytes]
    ) -> Claim | Replay | None:
        """Return a claim to be given back by ``release``, the stored answer, or None without a key.

        Raises ApiError: 400 for a key of another form, 409 while the same request is under way, and 409 that forbids
        to repeat it when the key was used for another body.
        """
        given = request.headers.get(HEADER)
        if given is None:
            return None
        if not _FORM.fullmatch(given):
            message = f"{HEADER} must be 1 to 255 characters of A-Z a-z 0-9 _ - . ~"
            raise ApiError(400, "validation_error", message, field=HEADER)
        key = ReceiptKey(owner, request.method, path, given)
        fingerprint = hashlib.sha256(body).digest()
        if (running := self._claimed.get(key)) is not None:
            if running != fingerprint:
                raise _other_body()
            raise ApiError(
                409, "idempotency_in_progress", "The first request with this key is under way.", retry_after_s=1
            )
        self._claimed[key] = fingerprint
        try:
            found = await self._store.read(lambda db: receipts.find(db, key, time.time() - LIFETIME_S))
        except BaseException:
            del self._claimed[key]
            raise
        if found is None:
            return Claim(key, fingerprint, render)
        del self._claimed[key]
        if found.fingerprint != fingerprint:
            raise _other_body()
        return Replay(found)

    async def keep(self, receipt: Receipt) -> None:
        """Keep an answer that no other transaction kept."""
        await self._store.write(lambda db: receipts.insert(db, receipt))

    def release(self, claim: Claim) -> None:
        """End the claim: the next request with this key finds the stored answer, or may try again."""
        self._claimed.pop(claim.key, None)


def _other_body() -> ApiError:
    message = "This Idempotency-Key was used for another request body."
    return ApiError(409, "idempotency_conflict", message, field=HEADER, retry=False)
