"""What an attempt, an operator or the passing of time means for one recipient: the unit that ``settle`` writes."""

from arkrelay.model.attempt import Attempt, BounceClass
from arkrelay.model.event import Event
from arkrelay.model.message import HoldReason, Recipient, Status
from arkrelay.model.record import record
from arkrelay.model.suppression import Suppress


@record(frozen=True, slots=True)
class Outcome:
    """The new state of ``recipient``, and everything that is written with it in one transaction.

    ``due_at`` is set exactly when ``status`` is pending or softfail. ``suppress`` puts the
    address on the tenant's suppression list; ``unsuppress`` takes off it what failures have put there.
    """

    recipient: Recipient
    at: float
    status: Status
    reason: str
    attempts: int
    due_at: float | None = None
    attempt: Attempt | None = None
    details: str = ""  # contract §8.1, `details` of a delivery
    hold_reason: HoldReason | None = None
    bounce_class: BounceClass | None = None
    events: tuple[Event, ...] = ()
    suppress: Suppress | None = None
    unsuppress: bool = False
    uncertain: int = 0  # the recipient's new count of attempts without a reply to the final dot
    destination: str | None = None  # where it waits from now on; None: where it did
    lane: str = ""  # what the attempt says of us at this site, see ``Classified``
