"""The one sentence about a recipient, and times for people: command line, REST and log say the same, from here."""

from datetime import UTC, datetime

from arkrelay.model.message import QUEUED, Recipient, Status
from arkrelay.policy.route import TO_ROUTE, split
from arkrelay.policy.schedule import Lane


def sentence(recipient: Recipient, lane: Lane | None, now: float) -> str:
    """Return what is true of ``recipient`` now, as one sentence for a person."""
    to = recipient.address
    tries = "1 attempt" if recipient.attempts == 1 else f"{recipient.attempts} attempts"
    reason = recipient.reason.rstrip(".")
    match recipient.status:
        case Status.SENT:
            return f"Sent: {reason}."
        case Status.HARDFAIL:
            return f"Failed for good after {tries}: {reason}."
        case Status.BOUNCED:
            return f"Accepted by the recipient's server, which later sent it back: {reason}."
        case Status.HELD:
            return f"Held, and sent to {to} only when somebody releases it: {reason}."
        case Status.PENDING | Status.SOFTFAIL:
            return _waiting(recipient, lane, tries, reason, now)


def lane_sentence(lane: Lane, now: float) -> str:
    """Return what a destination is doing now; empty when nothing, for then its messages say all there is."""
    name = called(lane.destination)
    if lane.rest_until > now:
        return (
            f"{name} is left alone until {when(lane.rest_until, now)}, because"
            f"{' its last connection failed:' if lane.rest_failed else ''} {lane.rest_reason}."
        )
    if lane.connections:
        return f"{name} is served by {lane.connections} connection(s); {lane.ready} wait in memory."
    return ""


def called(destination: str) -> str:
    """Return a destination as people call it."""
    _, pool, name = split(destination)
    name = f"the smarthost {name.removeprefix(TO_ROUTE)}" if name.startswith(TO_ROUTE) else name
    return f"{name} (pool {pool})" if pool else name


def span(seconds: float) -> str:
    """Return a length of time in full: "1 d 1 h", "4 min 10 s"."""
    left = int(seconds)
    parts = [
        (left // 86400, "d"),
        (left % 86400 // 3600, "h"),
        (left % 3600 // 60, "min"),
        (left % 60, "s"),
    ]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"


def when(at: float, now: float) -> str:
    """Return a time for a person: the clock in UTC and how far away it is."""
    clock = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"{clock} (in {span(at - now)})" if at - now >= 1 else f"{clock} (now)"


def _waiting(recipient: Recipient, lane: Lane | None, tries: str, reason: str, now: float) -> str:
    due_at = recipient.due_at
    if lane is not None and lane.rest_until > now and (due_at is None or due_at <= lane.rest_until):
        cause = lane.rest_reason
        if lane.rest_failed:
            cause = f"{called(recipient.destination)} could not be reached ({cause})"
        return f"Waits because {cause}; tried again {when(lane.rest_until, now)}."
    if recipient.status in QUEUED and recipient.attempts == 0:
        if recipient.uncertain and due_at is not None:
            return f"Waits to be sent again {when(due_at, now)}: {reason}."
        if due_at is not None and due_at > now:
            return f"Waits for its first attempt at {when(due_at, now)}."
        return f"Accepted and about to be sent to {recipient.address}{': ' + reason if reason else ''}."
    if due_at is None:
        return f"Being delivered now, after {tries}; the last one said: {reason}."
    return f"Deferred after {tries}, next one {when(due_at, now)}; the last one said: {reason}."
