"""Recipients that are played: what becomes of mail to each name at the simulator's domain.

A name may be followed by "+anything", so that an address which a test has put on the suppression list can be had
again under another.
"""

from dataclasses import dataclass
from enum import StrEnum

from arkrelay.model.reply import Reply, Stage

SLOW_S = 10.0  # as long as a busy receiver takes for the final dot
AFTER_S = 1.0  # from delivery to what its reader does


class Afterwards(StrEnum):
    """What comes back after the message was taken."""

    BOUNCE = "bounce"
    COMPLAINT = "complaint"
    OPEN = "open"
    CLICK = "click"
    UNSUBSCRIBE = "unsubscribe"


@dataclass(frozen=True, slots=True)
class Part:
    """What one recipient does: answer, perhaps late, and something afterwards; ``suppressed``: it is never asked."""

    reply: Reply
    wait_s: float = 0.0
    afterwards: Afterwards | None = None
    suppressed: bool = False


_OK = Reply(250, "2.0.0", "simulated: taken", Stage.DOT)
PARTS = {
    "ok": Part(_OK),
    "slow": Part(_OK, wait_s=SLOW_S),
    "softfail": Part(Reply(451, "4.3.0", "simulated: try again later", Stage.RCPT)),
    "full": Part(Reply(452, "4.2.2", "simulated: mailbox full", Stage.RCPT)),
    "hardfail": Part(Reply(550, "5.1.1", "simulated: no such user", Stage.RCPT)),
    "policy": Part(Reply(554, "5.7.1", "simulated: message refused by policy", Stage.DOT)),
    "suppressed": Part(_OK, suppressed=True),
} | {str(kind): Part(_OK, afterwards=kind) for kind in Afterwards}
_UNKNOWN = Part(Reply(550, "5.1.1", f"simulated: no such user, but {', '.join(sorted(PARTS))}", Stage.RCPT))


def left_undone(address: str, *, unsubscribable: bool) -> str:
    """Return a sentence when the reader could not do its part with a message that it got, else nothing."""
    if part_of(address).afterwards is not Afterwards.UNSUBSCRIBE or unsubscribable:
        return ""
    return "Its reader found no way to unsubscribe: the message does not offer one."


def part_of(address: str) -> Part:
    """Return what the recipient with this address does; an unknown name is told the known ones."""
    return PARTS.get(address.rpartition("@")[0].partition("+")[0].lower(), _UNKNOWN)
