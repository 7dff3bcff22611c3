"""What came back about a message after its recipient's server had taken it: bounces, complaints, auto-replies."""

from dataclasses import dataclass
from enum import StrEnum

from arkrelay.model.address import address_key


class ReportKind(StrEnum):
    """What a report is about."""

    BOUNCE = "bounce"  # it will not be delivered
    DELAY = "delay"  # it still waits over there
    RECEIPT = "receipt"  # delivered, relayed or expanded (RFC 3464 §2.3.3)
    AUTO_REPLY = "auto_reply"  # a vacation notice, a challenge, a read receipt: of nobody's failure
    COMPLAINT = "complaint"  # the recipient calls it spam
    UNKNOWN = "unknown"  # for a person to read


ACTIONS = {
    "failed": ReportKind.BOUNCE,
    "delayed": ReportKind.DELAY,
    "delivered": ReportKind.RECEIPT,
    "relayed": ReportKind.RECEIPT,
    "expanded": ReportKind.RECEIPT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a report says of one address; empty and 0 where it says nothing.

    ``code`` and ``status`` are of the reply that it quotes (RFC 5321 §4.2, RFC 3463), ``text`` is the rest of it,
    or the reporter's own words.
    """

    action: str  # one of ACTIONS
    address: str = ""
    original: str = ""  # the address that the message was sent to, where it was handed on to another
    status: str = ""
    code: int = 0
    text: str = ""
    host: str = ""  # who refused it


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A message that came to one of our addresses, read; everything in it is its sender's claim.

    ``form`` says by what it was recognised, ``explanation`` is its text for people, cut. ``marks`` are the strings in
    it that look like local parts of our return paths, the likeliest first: only their code proves anything.
    """

    kind: ReportKind
    form: str
    findings: tuple[Finding, ...] = ()
    sender: str = ""
    subject: str = ""
    message_id: str = ""
    date: str = ""
    explanation: str = ""
    feedback_type: str = ""
    marks: tuple[str, ...] = ()

    def about(self, address: str) -> Finding | None:
        """Return what it says of ``address``, or else of whom it names: the return path says for whom it is.

        A message may have been forwarded to an address that we never heard of, so a failure of any is a failure.
        """
        key = address_key(address)
        own = [one for one in self.findings if key in {address_key(one.address), address_key(one.original)}]
        some = own or list(self.findings)
        return min(some, key=lambda one: list(ACTIONS).index(one.action), default=None)

    def kind_for(self, finding: Finding | None) -> ReportKind:
        """Return what it means for the recipient of whom ``finding`` speaks."""
        return self.kind if finding is None else ACTIONS[finding.action]
