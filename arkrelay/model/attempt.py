"""One try at one recipient, and what it means."""

from dataclasses import dataclass
from enum import StrEnum

from arkrelay.model.peertls import TlsPolicy
from arkrelay.model.record import record
from arkrelay.model.reply import Failure, Reply


class BounceClass(StrEnum):
    """Why a recipient was not reached, in our own words (contract §10, first column)."""

    BAD_ADDRESS = "bad_address"
    NO_MAILBOX = "no_mailbox"
    NOT_ACCEPTING = "not_accepting"
    MAILBOX_FULL = "mailbox_full"
    TOO_LARGE = "too_large"
    BLOCKLISTED = "blocklisted"
    CONTENT_SPAM = "content_spam"
    POLICY = "policy"
    ROUTING = "routing"
    TLS_REQUIRED = "tls_required"
    CONNECTION = "connection"
    NO_DOMAIN = "no_domain"
    RESOLVER = "resolver"
    TRY_LATER = "try_later"
    EXPIRED = "expired"  # the message's own lifetime ended
    PROTOCOL = "protocol"
    OTHER = "other"


# (name, code) on REST, and on webhooks; contract §10. The codes collide in meaning: never copy one across.
REST_CLASS: dict[BounceClass, tuple[str, int]] = {
    BounceClass.BAD_ADDRESS: ("invalid_recipient", 10),
    BounceClass.NO_MAILBOX: ("no_mailbox", 11),
    BounceClass.NOT_ACCEPTING: ("not_accepting_mail", 12),
    BounceClass.MAILBOX_FULL: ("mailbox_full", 20),
    BounceClass.TOO_LARGE: ("message_too_large", 21),
    BounceClass.BLOCKLISTED: ("spam_block", 30),
    BounceClass.CONTENT_SPAM: ("spam_block", 30),
    BounceClass.POLICY: ("policy_violation", 31),
    BounceClass.ROUTING: ("policy_violation", 31),
    BounceClass.TLS_REQUIRED: ("tls_required", 32),
    BounceClass.CONNECTION: ("connection_error", 40),
    BounceClass.NO_DOMAIN: ("dns_error", 41),
    BounceClass.RESOLVER: ("dns_error", 41),
    BounceClass.TRY_LATER: ("temporarily_unavailable", 42),
    BounceClass.EXPIRED: ("temporarily_unavailable", 42),
    BounceClass.PROTOCOL: ("protocol_error", 50),
    BounceClass.OTHER: ("unclassified", 99),
}
WEBHOOK_CLASS: dict[BounceClass, tuple[str, int]] = {
    BounceClass.BAD_ADDRESS: ("invalid_recipient", 10),
    BounceClass.NO_MAILBOX: ("invalid_recipient", 10),
    BounceClass.NOT_ACCEPTING: ("inactive_mailbox", 11),
    BounceClass.MAILBOX_FULL: ("mailbox_full", 12),
    BounceClass.TOO_LARGE: ("policy_rejection", 32),
    BounceClass.BLOCKLISTED: ("spam_block", 30),
    BounceClass.CONTENT_SPAM: ("spam_content", 31),
    BounceClass.POLICY: ("policy_rejection", 32),
    BounceClass.ROUTING: ("routing_error", 22),
    BounceClass.TLS_REQUIRED: ("policy_rejection", 32),
    BounceClass.CONNECTION: ("connection_error", 40),
    BounceClass.NO_DOMAIN: ("invalid_domain", 20),
    BounceClass.RESOLVER: ("dns_failure", 21),
    BounceClass.TRY_LATER: ("transient_failure", 42),
    BounceClass.EXPIRED: ("transient_failure", 42),
    BounceClass.PROTOCOL: ("protocol_error", 41),
    BounceClass.OTHER: ("unclassified", 99),
}
BLAMES_RECIPIENT = frozenset({BounceClass.BAD_ADDRESS, BounceClass.NO_MAILBOX, BounceClass.NOT_ACCEPTING})


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """How the conversation was encrypted; ``verified``: the certificate was valid for the host."""

    version: str  # "TLSv1.3"
    cipher: str
    verified: bool


@record(frozen=True, slots=True)
class Attempt:
    """One try at one recipient at one peer; ``result`` is data, whatever happened.

    ``past_dot``: the final dot was written. With a ``Failure`` as the result nobody knows whether the peer
    took the message, and the recipient is ``uncertain`` (RFC 1047).
    """

    recipient_id: int
    started_at: float
    duration_s: float
    result: Reply | Failure
    past_dot: bool = False
    host: str | None = None  # the MX or smarthost name
    address: str | None = None  # the IP address spoken to
    port: int | None = None
    tls: TlsInfo | None = None
    policy: TlsPolicy | None = None  # on whose word TLS was demanded; None: no peer was spoken to
    dsn: bool = False  # the peer offers RFC 3461: it is the one who tells the sender of success
    source: str | None = None  # our address that it was spoken to from; None: not known
    site: str = ""  # whose connections it counts to (``policy.providers``); empty: no site was spoken to
    transcript: str = ""  # what was said (``policy.transcript``); empty: not kept


@dataclass(frozen=True, slots=True)
class Classified:
    """What a reply or failure means; ``wait_s`` is the wait that its text asked for, if it named one."""

    bounce_class: BounceClass
    permanent: bool
    wait_s: float | None = None
    lane: str = ""  # "slow": the peer wants less of us; "block": it does not want our address at all


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long a recipient is tried (``[delivery]`` of arkrelay.toml)."""

    max_attempts: int = 18
    first_delay_s: float = 300.0
    factor: float = 1.3
    lifetime_s: float = 172800.0
