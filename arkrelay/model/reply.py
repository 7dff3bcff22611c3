"""What a peer said, or the way in which it said nothing: ``Reply`` and ``Failure``."""

from dataclasses import dataclass
from enum import StrEnum

from arkrelay.model.peertls import TlsPolicy, TlsResult
from arkrelay.model.record import record


class Stage(StrEnum):
    """Where in a conversation something happened, in order."""

    RESOLVE = "resolve"
    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "dot"  # the content and its final dot were written


class FailureKind(StrEnum):
    """Why there was no reply to act upon."""

    NO_DOMAIN = "no_domain"  # NXDOMAIN
    NULL_MX = "null_mx"  # RFC 7505: the domain says that it takes no mail
    NO_ADDRESS = "no_address"  # the domain exists, with no MX and no address
    RESOLVER = "resolver"  # SERVFAIL, REFUSED, timeouts: the resolver's trouble, never the recipient's
    FORBIDDEN = "forbidden"  # every address of the MX is loopback, private or otherwise refused
    LOOP = "loop"  # the best MX is this machine
    REFUSED = "refused"  # connection refused
    UNREACHABLE = "unreachable"  # no route, or any other error of connect
    TIMEOUT = "timeout"
    CLOSED = "closed"  # the peer closed or reset the connection
    TLS = "tls"  # TLS was demanded and did not come about
    NO_REQUIRETLS = "no_requiretls"  # the message demands REQUIRETLS (RFC 8689), which cannot be had
    ENCRYPTION_NEEDED = "encryption_needed"  # the message demands TLS, which cannot be had
    PROTOCOL = "protocol"  # an answer that is not SMTP
    TOO_LARGE = "too_large"  # over the SIZE that the peer announced
    NO_SMTPUTF8 = "no_smtputf8"  # RFC 6531 §3.2: needed, not offered
    EXPIRED = "expired"  # the message's own lifetime ended before a try
    STOPPED = "stopped"  # we are shutting down
    INTERNAL = "internal"  # a surprise of ours; never the message's fault


@record(frozen=True, slots=True)
class Reply:
    """One complete SMTP reply (RFC 5321 §4.2): ``text`` is valid Unicode, without control characters, cut to 500."""

    code: int
    enhanced: str | None  # "5.1.1" (RFC 3463), as the peer gave it
    text: str
    stage: Stage

    def __str__(self) -> str:
        return " ".join(str(part) for part in (self.code, self.enhanced, self.text) if part)


@dataclass(frozen=True, slots=True)
class Failure:
    """No reply came, or none that counts; ``detail`` says in words what happened, cut to 500.

    ``tls`` says what was wrong with TLS, ``policy`` on whose word that mattered; None where it was not TLS.
    """

    kind: FailureKind
    stage: Stage
    detail: str
    tls: TlsResult | None = None
    policy: TlsPolicy | None = None

    def __str__(self) -> str:
        return self.detail
