"""``arkrelay why``: one plain sentence about a message, an address or a destination.

The sentence names the state, what it waits for, when something happens next, and the last reply. It is made
here and nowhere else, so that command line, REST and log say the same.
"""

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from arkrelay.model.errors import NotFound
from arkrelay.model.message import QUEUED, Recipient, Status
from arkrelay.model.report import ReportKind
from arkrelay.policy.schedule import Lane
from arkrelay.relay.queue import Queue
from arkrelay.store import queue as rows
from arkrelay.store import reports
from arkrelay.store.database import Store
from arkrelay.store.reports import StoredReport

_CAME_BACK = {
    ReportKind.COMPLAINT: "Its recipient called it spam ({clock}).",
    ReportKind.UNKNOWN: "On {clock} something came back that a person must read ({subject}): arkrelay message show.",
    ReportKind.DELAY: "Its server said on {clock} that it still waits there.",
    ReportKind.RECEIPT: "Its server confirmed it on {clock}.",
}
NEWEST = 20  # recipients that an answer about an address or a domain names


@dataclass(frozen=True, slots=True)
class Why:
    """The answer about one thing: a recipient (with its public id), or a destination."""

    subject: str
    sentence: str
    id: str | None = None


async def why(question: str, store: Store, queue: Queue, tenant_id: str | None = None) -> list[Why]:
    """Return the sentences about a public id, an address, or a domain; raises NotFound when none is known.

    ``tenant_id`` None sees all tenants; otherwise another tenant's mail is unknown.
    """
    now = time.time()
    recipient = await store.read(lambda db: _find(db, question))
    if recipient is not None and tenant_id in {None, recipient.message.tenant_id}:
        return [await with_reports(about(recipient, queue, now), recipient, store)]
    text = question.lower()
    address, domain = (text, None) if "@" in text else (None, text)
    found = await store.read(
        lambda db: rows.find_recipients(db, tenant_id=tenant_id, address=address, domain=domain, per_page=NEWEST)
    )
    answers = [about(r, queue, now) for r in found]
    lane = queue.lane(text)
    if lane is not None and tenant_id is None and (said := lane_sentence(lane, now)):
        answers.insert(0, Why(text, said))
    if not answers:
        raise NotFound(f"nothing is known of {question}: no message, address or destination of that name")
    return answers


def about(recipient: Recipient, queue: Queue, now: float) -> Why:
    """Return the answer about a recipient as it was read just now."""
    if queue.paused and recipient.status in QUEUED:
        said = f"Waits because nothing is sent at the moment: {queue.paused}."
    else:
        said = sentence(recipient, queue.lane(recipient.destination), now)
    return Why(recipient.address, said, recipient.token)


async def with_reports(answer: Why, recipient: Recipient, store: Store) -> Why:
    """Return the answer with what came back about the recipient and did not change its state."""
    found = await store.read(lambda db: reports.list_reports(db, recipient.id))
    said = came_back(found)
    return replace(answer, sentence=f"{answer.sentence} {said}") if said else answer


def came_back(found: Sequence[StoredReport]) -> str:
    """Return a sentence about the newest report of the kind that matters most, or nothing."""
    for kind, words in _CAME_BACK.items():
        some = [one for one in found if one.kind is kind]
        if some:
            clock = datetime.fromtimestamp(some[-1].at, UTC).strftime("%Y-%m-%d %H:%M UTC")
            return words.format(clock=clock, subject=some[-1].subject or "without a subject")
    return ""


def next_attempt_at(recipient: Recipient, queue: Queue, now: float) -> float | None:
    """Return when the recipient is tried next (Unix seconds), of which its sentence speaks too.

    None when it is not queued, when its turn is now, and while nothing is sent at all.
    """
    if recipient.status not in QUEUED or recipient.due_at is None or queue.paused:
        return None
    lane = queue.lane(recipient.destination)
    at = max(recipient.due_at, lane.rest_until if lane is not None else 0.0)
    return at if at > now else None


def _find(db: sqlite3.Connection, token: str) -> Recipient | None:
    try:
        return rows.load_recipient(db, token)
    except NotFound:
        return None


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
    if lane.rest_until > now:
        return (
            f"{lane.destination} is left alone until {when(lane.rest_until, now)}, because its last connection"
            f" failed: {lane.rest_reason}."
        )
    if lane.connections:
        return f"{lane.destination} is served by {lane.connections} connection(s); {lane.ready} wait in memory."
    return ""


def when(at: float, now: float) -> str:
    """Return a time for a person: the clock in UTC and how far away it is."""
    clock = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    seconds = int(at - now)
    if seconds <= 0:
        return f"{clock} (now)"
    parts = [
        (seconds // 86400, "d"),
        (seconds % 86400 // 3600, "h"),
        (seconds % 3600 // 60, "min"),
        (seconds % 60, "s"),
    ]
    return f"{clock} (in {' '.join(f'{number} {unit}' for number, unit in parts if number)})"


def _waiting(recipient: Recipient, lane: Lane | None, tries: str, reason: str, now: float) -> str:
    due_at = recipient.due_at
    if lane is not None and lane.rest_until > now and (due_at is None or due_at <= lane.rest_until):
        return (
            f"Waits because {recipient.destination} could not be reached ({lane.rest_reason});"
            f" tried again {when(lane.rest_until, now)}."
        )
    if recipient.status in QUEUED and recipient.attempts == 0:
        if due_at is not None and due_at > now:
            return f"Waits for its first attempt at {when(due_at, now)}."
        return f"Accepted and about to be sent to {recipient.address}{': ' + reason if reason else ''}."
    if due_at is None:
        return f"Being delivered now, after {tries}; the last one said: {reason}."
    return f"Deferred after {tries}, next one {when(due_at, now)}; the last one said: {reason}."
