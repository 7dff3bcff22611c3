"""A fact about a recipient, a domain or the relay itself, as the append-only event log keeps it."""

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import Any

from arkrelay.model.record import record


class EventKind(StrEnum):
    """What happened. The first eight are the contract's (§11.1), with its spelling; the others are ours."""

    SENT = "MessageSent"
    DELAYED = "MessageDelayed"
    FAILED = "MessageDeliveryFailed"
    HELD = "MessageHeld"
    BOUNCED = "MessageBounced"
    LOADED = "MessageLoaded"
    CLICKED = "MessageLinkClicked"
    DNS_ERROR = "DomainDNSError"
    LIMIT_APPROACHING = "SendLimitApproaching"
    LIMIT_EXCEEDED = "SendLimitExceeded"
    ACCEPTED = "MessageAccepted"
    RELEASED = "MessageReleased"  # put back into the queue by somebody
    UNCERTAIN = "MessageUncertain"  # a crash or a lost reply past the final dot: it may arrive twice
    DOMAIN_VERIFIED = "DomainVerified"
    UNSUBSCRIBED = "RecipientUnsubscribed"  # by one click, the page or mail
    SUPPRESSED = "SuppressionAdded"
    UNSUPPRESSED = "SuppressionRemoved"
    COMPLAINED = "MessageComplained"  # the recipient calls it spam; the contract has no webhook for it
    AUTO_REPLIED = "AutoReply"  # a program answered; of nobody's failure
    REPORTED = "ReportReceived"  # a delay, a receipt, a late bounce, or what a person must read
    DOCTOR_CHANGED = "DoctorChanged"  # what `arkrelay doctor` finds is better or worse than it was
    NOT_BELIEVED = "SuppressionPaused"  # a site calls too many recipients unknown at once
    WEBHOOK_DISABLED = "WebhookDisabled"  # it answered 410
    NEW_RECIPIENTS_EXCEEDED = "NewRecipientsExceeded"  # the tenant's budget of the day, once a day
    CREDENTIAL_HELD = "CredentialHeld"  # by the relay itself: its key may have leaked
    CREDENTIAL_RELEASED = "CredentialReleased"


@record(frozen=True, slots=True)
class Event:
    """One row of the log; ``data`` is JSON: strings, numbers, booleans, null, and lists and maps of these."""

    kind: EventKind
    at: float
    tenant_id: str | None = None
    message_id: int | None = None
    recipient_id: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
