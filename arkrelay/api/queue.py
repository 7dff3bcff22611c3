"""The queue for people: what waits and why, and the verbs on it; beyond Ark's contract, used by the command line."""

import contextlib
import sqlite3
from typing import Annotated

from arkrelay.api.ask import Ask
from arkrelay.api.auth import require_releaser
from arkrelay.api.model import UNSET, Answer, Body, Line, Meta, Nothing, Page, Paged, Query, Text, UnsetType, field
from arkrelay.api.query import Statuses, address, domain, statuses
from arkrelay.api.refusal import ApiError
from arkrelay.api.settings import require_changer
from arkrelay.api.shapes import EmailSummary, Iso, iso, summary
from arkrelay.model.errors import NotFound
from arkrelay.model.message import QUEUED, HoldReason, Recipient, Status
from arkrelay.relay.lanes import destinations_of
from arkrelay.relay.operate import APPLIES, Selection, Verb
from arkrelay.relay.standing import Standing
from arkrelay.relay.why import Why, why
from arkrelay.store import queue as rows
from arkrelay.store.find import Filters
from arkrelay.store.history import list_recipients

WAITING = (*sorted(QUEUED), Status.HELD)
MAX_IDS = 1000


class QueueQuery(Paged):
    """What of the queue is asked for; without ``status`` what waits and what is held."""

    tenant_id: str | None = None
    status: Statuses | None = None
    domain: str | None = None
    address: str | None = None
    lane: str | None = None
    hold_reason: HoldReason | None = None


class Waiting(EmailSummary):
    """A recipient that waits or is held, with what it waits for."""

    attempts: int
    destination: str
    due_at: float | None
    due_at_iso: Iso | None
    accepted_at: float
    hold_reason: HoldReason | None
    reason: str


class Recipients(Body):
    """The recipients that a verb is for: just ``ids``, or with ``all`` everything that matches the rest."""

    ids: Annotated[list[Line], Meta(max_length=MAX_IDS)] | None = None
    every: bool | None = field(name="all", default=None)
    status: Status | None = None
    tenant_id: Line | None = None
    domain: Line | None = None
    address: Line | None = None
    lane: Line | None = None
    hold_reason: HoldReason | None = None


class Done(Answer):
    """How many recipients it was done to; those in a delivery's hands were left alone.

    Where some stay as they are though they were meant, ``left`` is how many, and ``reasons`` says why: the
    suppression list has them, or a limit of their tenant has no place and its own key asks.
    """

    count: int
    left: int | UnsetType = UNSET
    reasons: list[str] | UnsetType = UNSET


class WhyQuery(Query):
    """``q``: a public id, an address or a domain."""

    q: Text


class Sentence(Answer):
    """What is true of one thing now; ``id`` is null for a destination."""

    id: str | None
    subject: str
    sentence: str


class Sentences(Answer):
    """The sentences about what was asked for."""

    sentences: list[Sentence]


async def list_all(ask: Ask[QueueQuery, Nothing]) -> Page[Waiting]:
    """One page of what waits or is held, newest first."""
    query = ask.query
    filters = Filters(
        tenant_id=ask.own_tenant(query.tenant_id),
        statuses=statuses(query.status) or WAITING,
        domain=domain(query.domain),
        address=address(query.address),
        destinations=_destinations(ask, query.lane),
        hold_reason=query.hold_reason,
    )
    found = await ask.parts.store.read(lambda db: list_recipients(db, filters, query.page, query.per_page))
    return Page([_waiting(one) for one in found.recipients], query.page, query.per_page, found.total)


async def retry(ask: Ask[Nothing, Recipients]) -> Done:
    """Try recipients again now, whatever they wait for; by ``ids`` also what is held or has failed."""
    require_releaser(ask.caller, test=await _only_tests(ask))
    # everything: that does not mean what has failed for good
    return await _operate(ask, Verb.RETRY, frozenset() if ask.body.ids else QUEUED)


async def flush(ask: Ask[Nothing, Recipients]) -> Done:
    """Try everything that waits for a later time now."""
    require_releaser(ask.caller, test=await _only_tests(ask))
    return await _operate(ask, Verb.RETRY, QUEUED, everything=not ask.body.ids)


async def hold(ask: Ask[Nothing, Recipients]) -> Done:
    """Keep recipients from being sent until they are released."""
    require_changer(ask, test=await _only_tests(ask))
    return await _operate(ask, Verb.HOLD)


async def release(ask: Ask[Nothing, Recipients]) -> Done:
    """Put held recipients back into the queue; without ``ids`` not those that the suppression list has now."""
    require_releaser(ask.caller, test=await _only_tests(ask))
    return await _operate(ask, Verb.RELEASE)


async def delete(ask: Ask[Nothing, Recipients]) -> Done:
    """Give recipients up: they are not sent, and fail for good."""
    require_changer(ask, test=await _only_tests(ask))
    return await _operate(ask, Verb.DELETE)


async def explain(ask: Ask[WhyQuery, Nothing]) -> Sentences:
    """Say in a sentence what the mail of ``q`` waits for: the state, the reason, the next time, the last reply.

    Also how a sender domain, a suppressed address or a tenant stands: its DNS, its entries, its limits.
    """
    question = ask.query.q.strip()
    if not question:
        raise ApiError(400, "missing_required_field", "q is required: an id, an address or a domain.", field="q")
    parts = ask.parts
    standing = Standing(parts.store, parts.live, parts.domains, parts.meter, parts.queue.bursts)
    answers = await why(question, parts.store, parts.queue, ask.caller.tenant_id, standing)
    return Sentences(sentences=[told(one) for one in answers])


def told(one: Why) -> Sentence:
    """Return what ``arkrelay why`` says, as REST shows it."""
    return Sentence(id=one.id, subject=one.subject, sentence=one.sentence)


async def _only_tests(ask: Ask[Nothing, Recipients]) -> bool:
    """Whether what a test key names is mail of test keys; other keys are not asked."""
    ids = ask.body.ids
    if not ask.caller.test or not ids:
        return False

    def tests(db: sqlite3.Connection) -> bool:
        with contextlib.suppress(NotFound):
            return all(rows.load_recipient(db, one).message.test for one in ids)
        return False

    return await ask.parts.store.read(tests)


async def _operate(
    ask: Ask[Nothing, Recipients], verb: Verb, states: frozenset[Status] = frozenset(), *, everything: bool = False
) -> Done:
    """Do ``verb`` to what the body selects, which is of ``states`` when the body names none (empty: any)."""
    body = ask.body
    ids = body.ids or []
    if not ids and not body.every and not everything:
        raise ApiError(400, "missing_required_field", 'Name the mail by "ids", or say "all": true.', field="ids")
    chosen = frozenset({body.status}) if body.status else states
    if chosen and not chosen & APPLIES[verb]:
        message = f"{verb} does not apply to mail that is {body.status}."
        raise ApiError(422, "validation_error", message, field="status")
    selection = Selection(
        tokens=tuple(ids),
        tenant_id=ask.own_tenant(body.tenant_id),
        statuses=chosen,
        domain=domain(body.domain),
        address=address(body.address),
        destinations=_destinations(ask, body.lane),
        hold_reason=body.hold_reason,
    )
    done = await ask.parts.operator.many(verb, selection, tenant_id=ask.caller.tenant_id)
    if not done.stay:
        return Done(count=done.count)
    return Done(count=done.count, left=sum(done.stay.values()), reasons=list(done.stay))


def _destinations(
    ask: Ask[QueueQuery, Nothing] | Ask[Nothing, Recipients], lane: str | None
) -> tuple[str, ...] | None:
    """Return the destinations of a lane's or a site's mail, of which there may be none; None: any."""
    if lane is None:
        return None
    if ask.caller.tenant_id is not None:
        raise ApiError(403, "permission_denied", "Lanes are for organisation keys.", field="lane")
    return tuple(destinations_of(ask.parts.queue, lane))


def _waiting(recipient: Recipient) -> Waiting:
    return Waiting(
        **summary(recipient),
        attempts=recipient.attempts,
        destination=recipient.destination,
        due_at=recipient.due_at,
        due_at_iso=iso(recipient.due_at),
        accepted_at=recipient.message.accepted_at,
        hold_reason=recipient.hold_reason,
        reason=recipient.reason,
    )
