"""One post of an event to a webhook: what is asked of the endpoint, what it said, and the record that is kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint said, or why it said nothing: data, whatever happened.

    ``status`` None: no HTTP answer came in time. ``body`` is its beginning. ``error`` is a sentence for a person, and
    None when the endpoint took the event.
    """

    status: int | None
    body: str
    error: str | None
    duration_s: float

    @property
    def success(self) -> bool:
        """Any 2xx (Ark contract §11.5)."""
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class HookDelivery:
    """One attempt to post one event to one webhook (Ark contract §11.5: each attempt has its own record).

    ``owner`` is the tenant whose webhook it is, empty for the platform's; ``tenant_id`` is the tenant that the event
    is about. ``body`` is what was sent, byte for byte (it is ASCII), and ``at`` when.
    """

    public_id: str
    owner: str
    webhook_id: str
    webhook_name: str
    tenant_id: str
    event: str
    url: str
    attempt: int  # 1 for the first
    will_retry: bool
    at: float
    headers: Mapping[str, str]
    body: str = field(repr=False)
    answer: Answer
