"""An event on its way to a webhook: the job, what the endpoint said, how it fares, and the record that is kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import Recipient

# what webhooks are told (Ark contract §11.1); the last two only where all events are wanted (§20 item 29)
TOLD = frozenset(
    {
        EventKind.SENT,
        EventKind.DELAYED,
        EventKind.FAILED,
        EventKind.HELD,
        EventKind.BOUNCED,
        EventKind.LOADED,
        EventKind.CLICKED,
        EventKind.DNS_ERROR,
        EventKind.LIMIT_APPROACHING,
        EventKind.LIMIT_EXCEEDED,
    }
)


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
    retry_after_s: float | None = None  # its wish (RFC 9110 §10.2.3), as it came

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


@dataclass(frozen=True, slots=True)
class HookJob:
    """One event on its way to one webhook, with what is needed to tell it.

    ``uuid`` is drawn when the job is made and stays for every attempt, by which receivers know a repeat. ``event`` or
    ``recipient`` is None when retention has taken it: then there is nothing left to tell. ``unreadable`` says what of
    it could not be read, and then both are None too.
    """

    id: int
    endpoint: int
    uuid: str
    attempts: int  # made so far
    recipient_id: int | None
    event: Event | None
    recipient: Recipient | None
    unreadable: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What is known of one webhook as somebody who answers: its backlog, its last answer, whether it rests.

    ``gone_at`` is when it answered 410 at ``url``; it receives nothing from then on, until a person enables it or
    gives it another URL.
    """

    id: int
    owner: str  # the tenant whose webhook it is, empty for the platform's
    webhook_id: str
    url: str
    waiting: int = 0
    parked: int = 0
    failures: int = 0  # in a row
    rest_until: float | None = None
    answered_at: float | None = None  # the last attempt, and what came of it
    status: int | None = None
    error: str | None = None
    gone_at: float | None = None


class JobEnd(StrEnum):
    """What becomes of a job after an attempt."""

    DONE = "done"  # also where there was nothing left to tell
    RETRY = "retry"
    PARKED = "parked"
