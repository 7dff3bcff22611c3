"""An address that a tenant may not mail, and why it is on the list."""

from dataclasses import dataclass
from enum import StrEnum

from arkrelay.model.attempt import BounceClass


class Cause(StrEnum):
    """Who or what put an address on the list; the first three are automatic."""

    FAILURE = "failure"  # hard failures and bounces; the only cause that a later delivery lifts
    COMPLAINT = "complaint"
    UNSUBSCRIBE = "unsubscribe"
    HAND = "hand"
    IMPORT = "import"


AUTOMATIC = frozenset({Cause.FAILURE, Cause.COMPLAINT, Cause.UNSUBSCRIBE})


@dataclass(frozen=True, slots=True)
class Suppress:
    """A failed recipient's address joins the list, once ``times`` of its messages ended so within ``within_s``."""

    reason: str
    times: int = 1
    within_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Suppression:
    """One entry; without a ``stream`` it covers all mail of the tenant, else mail with that tag.

    ``bounce_class`` and ``recipient_id`` say which failure, or whose complaint, made an automatic one.
    """

    id: int
    tenant_id: str
    address: str
    reason: str
    created_at: float
    automatic: bool
    stream: str = ""
    cause: Cause = Cause.FAILURE
    bounce_class: BounceClass | None = None
    recipient_id: int | None = None
