"""What several answers share: times, what a reply meant, and an email in short (Ark contract §7, §8.1)."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, overload

from arkrelay.api.model import Answer, Meta, field
from arkrelay.model.message import Recipient, Status

Iso = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]  # what ``iso`` makes
Classification = Literal[
    "invalid_recipient",
    "no_mailbox",
    "not_accepting_mail",
    "mailbox_full",
    "message_too_large",
    "spam_block",
    "policy_violation",
    "tls_required",
    "connection_error",
    "dns_error",
    "temporarily_unavailable",
    "protocol_error",
    "unclassified",
]


class EmailSummary(Answer):
    """One recipient of one message, which REST calls an email."""

    id: str
    tenant_id: str
    from_: str = field(name="from")
    to: str
    subject: str
    status: Status
    tag: str | None
    timestamp: float
    timestamp_iso: Iso


@overload
def iso(at: float) -> str: ...


@overload
def iso(at: None) -> None: ...


@overload
def iso(at: float | None) -> str | None: ...


def iso(at: float | None) -> str | None:
    """Return Unix seconds as ISO 8601 in UTC with ``Z`` and milliseconds."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def summary(recipient: Recipient) -> dict[str, Any]:
    """Return the fields of an ``EmailSummary``, for one or for what has more."""
    message = recipient.message
    return {
        "id": recipient.token,
        "tenant_id": message.tenant_id,
        "from_": message.author,
        "to": recipient.address,
        "subject": message.subject,
        "status": recipient.status,
        "tag": message.tag,
        "timestamp": message.accepted_at,
        "timestamp_iso": iso(message.accepted_at),
    }
