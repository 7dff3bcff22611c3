"""The stored answer of a request that must have one effect only (Ark contract §5)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReceiptKey:
    """Under what an answer is kept: who asked, what, and the client's own key."""

    owner: str
    method: str
    path: str
    key: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """An answer, and by ``fingerprint`` (SHA-256 of the request's body) what it was the answer to."""

    key: ReceiptKey
    fingerprint: bytes
    status: int
    body: bytes
    at: float
