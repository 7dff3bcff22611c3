"""What a submitter hands us, and what we keep of it: submissions, messages, recipients, envelopes."""

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum

from arkrelay.model.address import Address
from arkrelay.model.attempt import BounceClass
from arkrelay.model.record import record


class Door(StrEnum):
    """The way by which a message came in."""

    SMTP = "smtp"
    REST = "rest"
    DSN = "dsn"  # our own: a notice to a sender about a message of his (RFC 3464)


class Status(StrEnum):
    """The state of one recipient (contract §9.1), in REST's spelling."""

    PENDING = "pending"
    SENT = "sent"
    SOFTFAIL = "softfail"
    HARDFAIL = "hardfail"
    BOUNCED = "bounced"
    HELD = "held"


PRIORITIES = ("transactional", "bulk")
QUEUED = frozenset({Status.PENDING, Status.SOFTFAIL})
SIMULATOR = "simulator:"  # the destination of mail to recipients that are played; no domain is written like this


class HoldReason(StrEnum):
    """Why mail was accepted and not sent (contract §9.4)."""

    SUPPRESSED = "suppressed"
    SEND_LIMIT = "send_limit"
    CREDENTIAL = "credential_on_hold"
    NEW_RECIPIENTS = "new_recipients"  # the tenant's budget for addresses that it never wrote to
    TENANT = "tenant_suspended"
    OPERATOR = "operator"  # somebody said `queue hold`
    UNCERTAIN = "uncertain"  # past the final dot at a crash, and policy says hold
    POISON = "internal_error"  # our own surprise, again and again: a person must look


@record(frozen=True, slots=True)
class RecipientRequest:
    """One RCPT as the submitter gave it, with its DSN parameters (RFC 3461 §4)."""

    address: Address
    notify: str | None = None  # "NEVER", or a comma list of SUCCESS, FAILURE, DELAY
    orcpt: str | None = None  # xtext as received, case kept


@record(frozen=True, slots=True)
class Submission:
    """A message handed to us by an authenticated client, before anything was decided about it.

    ``content`` has canonical line ends (CRLF only) and is not dot-stuffed. ``return_path`` None is the null path.
    """

    door: Door
    tenant_id: str
    credential: str | None  # its name; None for a listener bound to a tenant
    return_path: Address | None
    recipients: tuple[RecipientRequest, ...]
    content: bytes
    received_at: float  # Unix seconds
    helo: str = ""
    client: str = ""  # address of the client, for the log and never for a header
    protocol: str = "ESMTP"  # the "with" of Received (RFC 3848): ESMTP, ESMTPA, ESMTPS, ESMTPSA, UTF8SMTP…, HTTP
    smtputf8: bool = False  # declared on MAIL (RFC 6531)
    ret: str | None = None  # FULL | HDRS (RFC 3461 §4.3)
    envid: str | None = None  # xtext as received
    expires_at: float | None = None
    tell_at: float | None = None  # when its sender wants to hear that it still waits (RFC 2852, mode N)
    requiretls: bool = False  # declared on MAIL (RFC 8689 §4.1)
    test: bool = False  # by a test key: everything happens but the delivery (Ark contract §16)
    priority: str | None = None  # one of PRIORITIES, or None: its header or its credential says
    tag: str | None = None  # from REST; None: what the header says
    metadata: Mapping[str, str] | None = None  # likewise
    track_opens: bool | None = None  # likewise
    track_clicks: bool | None = None  # likewise
    unsubscribe: str | None = None  # likewise: the stream of one-click unsubscribe


@record(frozen=True, slots=True)
class Message:
    """One accepted submission, without its content: what every recipient of it shares."""

    id: int
    tenant_id: str
    door: Door
    credential: str | None
    accepted_at: float
    message_id: str  # with angle brackets
    author: str  # addr-spec of the From field
    author_domain: str
    return_path: str | None  # as the submitter gave it; None: null path
    subject: str = ""
    tag: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    size_bytes: int = 0
    eight_bit: bool = False  # a byte above 127 in the content (RFC 6152)
    smtputf8: bool = False  # header or an address needs RFC 6531
    ret: str | None = None
    envid: str | None = None
    expires_at: float | None = None
    test: bool = False
    tell_at: float | None = None
    bulk: bool = False  # goes behind what people wait for
    stream: str | None = None  # what its recipients may unsubscribe from; empty: from all mail of the tenant

    @property
    def counts(self) -> bool:
        """Whether it counts as something that its tenant sent: not by a test key, and not a notice of ours."""
        return not self.test and self.door is not Door.DSN


@record(frozen=True, slots=True)
class Recipient:
    """One address of one message: what we queue, retry and report; REST calls it an email."""

    id: int
    message: Message
    token: str  # the public id
    address: str  # as it goes on the wire
    domain: str  # A-labels, lower case
    destination: str  # what queue and pacing are keyed by: a domain, or "route:NAME"
    status: Status = Status.PENDING
    attempts: int = 0
    due_at: float | None = None  # None: not queued
    reason: str = ""  # why it waits, is held, or ended: one sentence
    hold_reason: HoldReason | None = None
    bounce_class: BounceClass | None = None
    notify: str | None = None
    orcpt: str | None = None
    uncertain: int = 0  # how often the final dot was sent and no reply seen
    delay_at: float | None = None  # when a delay notice is due; None: nobody asked, or it was sent

    @property
    def counts(self) -> bool:
        """Whether it counts as somebody to whom its tenant wrote: one that is played does not."""
        return self.destination != SIMULATOR and self.message.counts


@record(frozen=True, slots=True)
class Accepted:
    """A submission that is on disk: the public ids in the order of its recipients."""

    message_id: int
    tokens: tuple[str, ...]
    held: HoldReason | None = None
    message_id_header: str = ""  # with angle brackets
    sandbox: bool = False  # from the sandbox domain (Ark contract §16)


@record(frozen=True, slots=True)
class Envelope:
    """The addresses of one SMTP transaction (RFC 5321 §2.3.1), as they go on the wire, without angle brackets."""

    return_path: str | None  # None: the null path, <> on the wire
    recipients: tuple[str, ...]
    smtputf8: bool = False
    eight_bit: bool = False
    requiretls: bool = False  # RFC 8689: only where the peer promises the same
    size_bytes: int = 0
    ret: str | None = None
    envid: str | None = None
    notify: tuple[str | None, ...] = ()  # beside ``recipients``, or empty
    orcpt: tuple[str | None, ...] = ()
    by: tuple[int, str] | None = None  # seconds that are left, and the mode R or N (RFC 2852 §4)
