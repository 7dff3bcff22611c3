"""What a person may do to mail that waits, is held or has failed: retry, hold, release, delete.

Each verb works on recipients that are not in a connection's hands at this moment; the others are left alone,
because their peer may be taking them right now. A retry by a person passes over holds,
the suppression list among them (Ark contract §8.1, RetryResult), and ends the rest of its destination.
"""

import sqlite3
import time
from dataclasses import dataclass, replace
from enum import StrEnum

from arkrelay.model.errors import Conflict, NotFound
from arkrelay.model.message import QUEUED, HoldReason, Recipient, Status
from arkrelay.model.outcome import Outcome
from arkrelay.policy import outcomes
from arkrelay.relay import settle
from arkrelay.relay.queue import Queue
from arkrelay.store import bodies
from arkrelay.store import queue as rows
from arkrelay.store.database import Store
from arkrelay.store.outcomes import apply

BATCH = 500  # recipients in one write; more go in several


class Verb(StrEnum):
    """What is done to recipients, with the states to which it applies."""

    RETRY = "retry"
    HOLD = "hold"
    RELEASE = "release"
    DELETE = "delete"


APPLIES = {
    Verb.RETRY: frozenset({Status.PENDING, Status.SOFTFAIL, Status.HARDFAIL, Status.BOUNCED, Status.HELD}),
    Verb.HOLD: QUEUED,
    Verb.RELEASE: frozenset({Status.HELD}),
    Verb.DELETE: QUEUED | {Status.HELD},
}


_UNSENT = QUEUED | {Status.HELD}  # the content of these is kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which recipients a verb is for: just these public ids, or all that match.

    The fields are those of ``find.Filters``. ``sender`` and what follows are for what is chosen without ids.
    """

    tokens: tuple[str, ...] = ()
    tenant_id: str | None = None
    statuses: frozenset[Status] = frozenset()
    domain: str | None = None
    address: str | None = None
    destinations: tuple[str, ...] | None = None
    sender: str | None = None
    tag: str | None = None
    after: float | None = None
    before: float | None = None


class Operator:
    """The verbs. Choosing and changing are one write, so no delivery can begin in between."""

    def __init__(self, store: Store, queue: Queue) -> None:
        self._store = store
        self._queue = queue

    async def one(self, verb: Verb, token: str, tenant_id: str | None) -> Recipient:
        """Do ``verb`` to one recipient; raises NotFound, or Conflict with the reason why not."""
        recipient = await self._store.read(lambda db: rows.load_recipient(db, token))
        if tenant_id not in {None, recipient.message.tenant_id}:
            raise NotFound(f"there is no message {token}")
        if recipient.status not in APPLIES[verb]:
            raise Conflict(f"{token} is {recipient.status}: there is nothing to {verb}")
        if verb is Verb.RETRY and not await self._store.read(lambda db: bodies.has_content(db, recipient.message.id)):
            raise Conflict(f"the content of {token} is past its retention and was deleted")
        if verb is Verb.RETRY:
            self._queue.end_rests([recipient.destination])  # also when a connection has it in hand already
        if not await self.many(verb, Selection(tokens=(token,))):
            raise Conflict(f"{token} is being delivered at this moment")
        return recipient

    async def many(self, verb: Verb, selection: Selection, reason: str = "") -> int:
        """Do ``verb`` to what is selected and not in hand; return how many, and then it is on disk.

        ``reason`` is told instead of "by hand". Each is changed once, newest first: what is retried and deferred
        again meanwhile is not taken up again, nor is what has come since.
        """
        now = time.time()
        changed = 0
        if verb is Verb.RETRY and not selection.tokens:
            # What is pending is due already, and waits at most for the rest of its destination.
            destinations = selection.destinations
            if destinations is None and selection.domain is not None:
                destinations = self._queue.destinations_to(selection.domain)
            elif destinations is None and selection.tenant_id is not None:
                destinations = self._queue.destinations_of(selection.tenant_id)
            self._queue.end_rests(destinations)
            wanted = (selection.statuses or APPLIES[verb]) - {Status.PENDING}
            if not wanted:
                return 0
            selection = replace(selection, statuses=wanted)
        below: tuple[float, int] | None = None
        while True:
            found, n = await self._batch(verb, selection, below, now, reason)
            changed += n
            if selection.tokens or len(found) < BATCH:
                return changed
            below = found[-1].message.accepted_at, found[-1].id

    async def _batch(
        self, verb: Verb, selection: Selection, below: tuple[float, int] | None, now: float, reason: str
    ) -> tuple[list[Recipient], int]:
        """Change the first that are below this place; return those that were looked at, and how many were changed."""
        statuses = (selection.statuses or APPLIES[verb]) & APPLIES[verb]

        def job(db: sqlite3.Connection) -> tuple[list[Recipient], list[Outcome]]:
            found = rows.select_for_operation(
                db,
                tokens=selection.tokens,
                tenant_id=selection.tenant_id,
                statuses=statuses,
                domain=selection.domain,
                address=selection.address,
                destinations=selection.destinations,
                sender=selection.sender,
                tag=selection.tag,
                after=selection.after,
                before=selection.before,
                below=below,
                limit=BATCH,
            )
            outcomes = [
                _outcome(verb, one, now, reason)
                for one in found
                if one.status in _UNSENT or bodies.has_content(db, one.message.id)  # else there is nothing to send
            ]
            apply(db, outcomes)
            return found, outcomes

        if not statuses:
            return [], 0
        found, outcomes = await self._store.write(job)
        for outcome in outcomes:
            settle.log_outcome(outcome)
            if outcome.due_at is not None:
                recipient = outcome.recipient
                self._queue.note_due(recipient.destination, recipient.message.tenant_id, outcome.due_at)
        if verb is Verb.RETRY:
            self._queue.end_rests({outcome.recipient.destination for outcome in outcomes})
        return found, len(outcomes)


def _outcome(verb: Verb, recipient: Recipient, now: float, reason: str) -> Outcome:
    match verb:
        case Verb.RETRY:
            return outcomes.release_at(recipient, now, reason or "Put back into the queue by hand")
        case Verb.RELEASE:
            return outcomes.release_at(recipient, now, reason or "Released by hand")
        case Verb.HOLD:
            return outcomes.hold(recipient, HoldReason.OPERATOR, reason or "Held by hand", now)
        case Verb.DELETE:
            return outcomes.fail(recipient, reason or "Deleted from the queue by hand", now)
