"""``arkrelay why``: one plain sentence about a message, an address or a destination; ``standing`` knows the rest.

The sentence names the state, what it waits for, when something happens next, and the last reply. What the recipient's
own row says is put into words by ``policy.sentences``, which the log uses too; here stands what keeps its lane from
sending: a person, the peer, a limit.
"""

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from arkrelay.model.errors import NotFound
from arkrelay.model.message import QUEUED, SIMULATOR, Recipient, Status
from arkrelay.model.report import ReportKind
from arkrelay.policy.schedule import Lane
from arkrelay.policy.sentences import called, lane_sentence, sentence, when
from arkrelay.policy.simulate import left_undone
from arkrelay.relay.queue import Queue
from arkrelay.relay.standing import Standing
from arkrelay.store import queue as rows
from arkrelay.store import reports
from arkrelay.store.database import Store
from arkrelay.store.reports import StoredReport

OURS = ("an internal error", "the database refused")  # beginnings of reasons that are no peer's
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


async def why(
    question: str, store: Store, queue: Queue, tenant_id: str | None = None, standing: Standing | None = None
) -> list[Why]:
    """Return the sentences about a public id, an address, a domain or a tenant; raises NotFound when none is known.

    ``tenant_id`` None sees all tenants; otherwise another tenant's mail is unknown. ``standing`` knows the rest.
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
    if tenant_id is None:
        lanes = [lane for name in queue.destinations_to(text) if (lane := queue.lane(name)) is not None]
        answers[:0] = [Why(text, said) for lane in lanes if (said := about_lane(lane, queue, now))]
    if standing is not None:
        answers += [Why(subject, said) for subject, said in await standing.of(question, tenant_id, now)]
    if not answers:
        raise NotFound(f"nothing is known of {question}: no message, address, domain or tenant of that name")
    return answers


def about(recipient: Recipient, queue: Queue, now: float) -> Why:
    """Return the answer about a recipient as it was read just now."""
    obstacle = obstacle_of(recipient, queue, now) if recipient.status in QUEUED else ""
    said = f"Waits {obstacle}." if obstacle else sentence(recipient, queue.lane(recipient.destination), now)
    if recipient.destination == SIMULATOR and recipient.status is Status.SENT:
        undone = left_undone(recipient.address, unsubscribable=recipient.message.stream is not None)
        said = f"{said} {undone}".rstrip()
    return Why(recipient.address, said, recipient.token)


def about_lane(lane: Lane, queue: Queue, now: float) -> str:
    """Return what a destination is doing now; empty when nothing, for then its messages say all there is."""
    if lane.rest_until > now:
        obstacle = _rest(lane, queue, now)
    else:
        waits = queue.waits_for_room(lane.destination) or queue.waits_for(lane.destination)
        obstacle = _turn(lane, queue, now) if waits else ""
    return f"{called(lane.destination)} waits {obstacle}." if obstacle else lane_sentence(lane, now)


def obstacle_of(recipient: Recipient, queue: Queue, now: float) -> str:
    """Return what keeps a queued recipient from being sent now, to go on after "Waits"; empty: its own time.

    A host that cannot be reached is not among it: that is told by ``policy.sentences``.
    """
    if queue.paused:
        return f"because nothing is sent at the moment: {queue.paused}"
    if queue.stopping:
        return "because the service is being stopped; it goes on when it has started again"
    lane = queue.lane(recipient.destination)
    if lane is None:
        return ""
    if lane.rest_until > now:
        return _rest(lane, queue, now) if recipient.due_at is None or recipient.due_at <= lane.rest_until else ""
    if recipient.due_at is not None and recipient.due_at > now:
        return ""
    return _turn(lane, queue, now)


def _rest(lane: Lane, queue: Queue, now: float) -> str:
    """Return why a lane rests; empty where the last connection failed."""
    site = _site_of(lane)
    known, until = queue.pace.state(site), when(lane.rest_until, now)
    if known.order.rest:
        return f"because a person lets {site} rest, until somebody ends that (arkrelay lane resume {site})"
    if known.blocks and known.rest_until > now:
        return f"because {site} does not want our address ({lane.rest_reason}); tried again {until}"
    if lane.rest_reason.startswith(OURS):
        return f"because of {lane.rest_reason}; tried again {until}"
    if lane.site and not lane.rest_site and queue.pace.wait_s(lane.site, now) > 0:
        rate = queue.pace.capacity(lane.site, now).rate
        pace = f"{rate:g} messages a second" if rate >= 1 else f"{rate * 60:g} messages a minute"
        return f"because {lane.site} gets no more than {pace} ({lane.rest_reason}); goes on {until}"
    return "" if lane.rest_failed else f"because {lane.rest_reason}; tried again {until}"


def _site_of(lane: Lane) -> str:
    """Return whose connections a lane uses, as far as anybody knows."""
    return lane.rest_site or lane.site or lane.destination


def _turn(lane: Lane, queue: Queue, now: float) -> str:
    """Return whom mail that is due has to wait for; empty where nobody is at work, or nobody knows yet."""
    if queue.waits_for_room(lane.destination):
        return f"for a free connection: all {queue.most_connections} are in use ([delivery] concurrency)"
    if names := queue.waits_for(lane.destination):
        use = [f"{name}: {queue.pace.open(name)} of {queue.pace.capacity(name, now).connections}" for name in names]
        return f"for a free connection to {', or to '.join(use)} in use"
    if queue.captures or not lane.connections:
        return ""
    if not lane.sessions:
        return f"for a connection to {lane.site or lane.destination}, which is being made"
    return (
        f"for its turn, or is being sent now: {lane.sessions} of {lane.connections} connections to"
        f" {lane.site or lane.destination} are at work, {lane.ready} wait in memory"
    )


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

    None when it is not queued, when its turn is now, and while nothing is sent at all or a person lets its lane rest.
    """
    if recipient.status not in QUEUED or recipient.due_at is None or queue.paused:
        return None
    lane = queue.lane(recipient.destination)
    if lane is not None and queue.pace.ordered_to_rest(_site_of(lane)):
        return None
    at = max(recipient.due_at, lane.rest_until if lane is not None else 0.0)
    return at if at > now else None


def _find(db: sqlite3.Connection, token: str) -> Recipient | None:
    try:
        return rows.load_recipient(db, token)
    except NotFound:
        return None
