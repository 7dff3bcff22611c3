"""When which step of a rotation of DKIM keys is due: publish, seen, switch, retire, each with its overlap.

At every moment a message is signed by a key that receivers find: a new key signs only a while after DNS was seen to
have it, and the old one stays in DNS until what it signed has arrived or is no longer valid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

SEEN_S = (
    900.0  # all nameservers of a zone have it then; nobody asked for a new selector before, so no cache denies it
)
RETIRE_S = 7 * 86400.0  # x= of our signatures, and longer than the mail lives in our queue or a peer's

Step = Literal["publish", "see", "activate", "retire"]


@dataclass(frozen=True, slots=True)
class KeyState:
    """One key: ``since_at`` is when it came into its state, ``seen_at`` when DNS was first seen to have it.

    Both are Unix seconds, None where nobody wrote it down.
    """

    selector: str
    state: str  # active | published | retired
    since_at: float | None = None
    seen_at: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The next step and when it is due (Unix seconds; None: it waits for somebody, or for DNS), in words as well."""

    step: Step
    due_at: float | None
    sentence: str

    def due(self, now: float) -> bool:
        """Whether the step can be taken by itself: "see" always can be tried."""
        return self.step == "see" or (self.due_at is not None and self.due_at <= now)


def plan(keys: Sequence[KeyState]) -> Plan:
    """Return what comes next for a domain with these keys."""
    published = [key for key in keys if key.state == "published"]
    retired = [key for key in keys if key.state == "retired"]
    if published and all(key.seen_at is not None for key in published):
        seen_at = max(key.seen_at or 0.0 for key in published)
        return Plan("activate", seen_at + SEEN_S, f"DNS has {_names(published)}: it is to sign next")
    if published:
        waiting = [key for key in published if key.seen_at is None]
        return Plan("see", None, f"{_names(waiting)} waits until DNS has it")
    if retired:
        since = [key.since_at for key in retired]
        due_at = None if None in since else max(at for at in since if at is not None) + RETIRE_S
        return Plan(
            "retire", due_at, f"{_names(retired)} stays in DNS for mail that it signed, and is to be removed next"
        )
    return Plan("publish", None, "no rotation is under way")


def _names(keys: Sequence[KeyState]) -> str:
    return " and ".join(key.selector for key in keys)
