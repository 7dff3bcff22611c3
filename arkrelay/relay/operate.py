"""What a person may do to mail that waits, is held or has failed: retry, hold, release, delete.

Each verb works on recipients that are not in a connection's hands at this moment; the others are left alone,
because their peer may be taking them right now. A retry of a message that is named passes over holds,
the suppression list among them (Ark contract §8.1, RetryResult), and ends the rest of its destination. What is let go
counts towards its tenant's limits (``relay.release``).
"""

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from arkrelay.config.live import Live
from arkrelay.model.errors import Conflict, NotFound
from arkrelay.model.message import QUEUED, HoldReason, Recipient, Status
from arkrelay.model.outcome import Outcome
from arkrelay.model.tenant import TenantLimits
from arkrelay.policy import outcomes
from arkrelay.policy.admit import withheld
from arkrelay.policy.outcomes import was_refused
from arkrelay.relay import settle
from arkrelay.relay.meter import Meter
from arkrelay.relay.queue import Queue
from arkrelay.relay.release import LetGo, Places, Terms, let_go
from arkrelay.store import bodies, granted
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


LETS_GO = frozenset({Verb.RETRY, Verb.RELEASE})
_UNSENT = QUEUED | {Status.HELD}  # the content of these is kept
_Changed = tuple[list[Recipient], list[Outcome], LetGo]


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
    hold_reason: HoldReason | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """To how many recipients a verb was done, and how many it left as they are, by the reason."""

    count: int
    stay: Mapping[str, int] = field(default_factory=dict)


class Operator:
    """The verbs. Choosing and changing are one write, so no delivery can begin in between.

    ``tenant_id`` is whose key asks: then the tenant's limits hold for what is let go. None: who may pass over them.
    """

    def __init__(self, store: Store, queue: Queue, live: Live, meter: Meter) -> None:
        self._store = store
        self._queue = queue
        self._live = live
        self._meter = meter

    async def one(self, verb: Verb, token: str, tenant_id: str | None) -> Recipient:
        """Do ``verb`` to one recipient; raises NotFound, or Conflict with the reason why not."""
        recipient = await self._store.read(lambda db: rows.load_recipient(db, token))
        if tenant_id not in {None, recipient.message.tenant_id}:
            raise NotFound(f"there is no message {token}")
        if recipient.status not in APPLIES[verb]:
            raise Conflict(f"{token} is {recipient.status}: there is nothing to {verb}")
        if was_refused(recipient):
            raise Conflict(f"{token} was refused when it was submitted: mend that, and send it again")
        if verb is Verb.RETRY and not await self._store.read(lambda db: bodies.has_content(db, recipient.message.id)):
            raise Conflict(f"the content of {token} is past its retention and was deleted")
        if verb is Verb.RETRY:
            self._queue.end_rests([recipient.destination])  # also when a connection has it in hand already
        done = await self.many(verb, Selection(tokens=(token,)), tenant_id=tenant_id)
        if not done.count:
            raise Conflict(next(iter(done.stay), f"{token} is being delivered at this moment"))
        return recipient

    async def many(self, verb: Verb, selection: Selection, reason: str = "", *, tenant_id: str | None = None) -> Done:
        """Do ``verb`` to what is selected and not in hand; return to how many, and then it is on disk.

        ``reason`` is told instead of "by hand". Each is changed once, newest first: what is retried and deferred
        again meanwhile is not taken up again, nor is what has come since.
        """
        now = time.time()
        if tenant_id is not None:
            selection = replace(selection, tenant_id=tenant_id)
        changed, stay = 0, Counter[str]()
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
                return Done(0)
            selection = replace(selection, statuses=wanted)
        below: tuple[float, int] | None = None
        while True:
            found, n, left = await self._batch(verb, selection, below, now, reason, limited=tenant_id is not None)
            changed += n
            stay += left
            if selection.tokens or len(found) < BATCH:
                return Done(changed, stay)
            below = found[-1].message.accepted_at, found[-1].id

    async def _batch(
        self,
        verb: Verb,
        selection: Selection,
        below: tuple[float, int] | None,
        now: float,
        reason: str,
        *,
        limited: bool,
    ) -> tuple[list[Recipient], int, Counter[str]]:
        """Change the first that are below this place; return what was looked at, how many changed, and what stays."""
        statuses = (selection.statuses or APPLIES[verb]) & APPLIES[verb]

        def select(db: sqlite3.Connection) -> list[Recipient]:
            return rows.select_for_operation(
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
                hold_reason=selection.hold_reason,
                below=below,
                limit=BATCH,
            )

        named = bool(selection.tokens)

        def job(db: sqlite3.Connection, terms: Terms | None) -> _Changed:
            found = select(db)
            # of what is finished the content may be gone: there is nothing to send
            whole = [one for one in found if one.status in _UNSENT or bodies.has_content(db, one.message.id)]
            whole = [one for one in whole if not was_refused(one)]
            free = LetGo(whole) if terms is None else let_go(db, whole, terms, now)
            outcomes = [
                _outcome(verb, one, now, reason, self._past(verb, one, named=named)) for one in free.recipients
            ]
            apply(db, outcomes)
            return found, outcomes, free

        if not statuses:
            return [], 0, Counter()
        if verb in LETS_GO:
            of = selection.tenant_id if limited else None
            found, outcomes, free = await self._let_go(job, select, of, now, named=named)
        else:
            found, outcomes, free = await self._store.write(lambda db: job(db, None))
        for outcome in outcomes:
            settle.log_outcome(outcome)
            if outcome.due_at is not None:
                recipient = outcome.recipient
                self._queue.note_due(recipient.destination, recipient.message.tenant_id, outcome.due_at)
        if verb is Verb.RETRY:
            self._queue.end_rests({outcome.recipient.destination for outcome in outcomes})
        return found, len(outcomes), free.stay

    async def _let_go(
        self,
        job: Callable[[sqlite3.Connection, Terms], _Changed],
        select: Callable[[sqlite3.Connection], list[Recipient]],
        tenant_id: str | None,
        now: float,
        *,
        named: bool,
    ) -> _Changed:
        """Return what ``job`` did, on the terms of who asks; what was let go is counted, as in the database."""
        tenants = self._live.snapshot.tenants
        budgets = {one.id: one.limits.new_recipients_daily for one in tenants.values()}
        if tenant_id is None:
            changed = await self._store.write(lambda db: job(db, Terms(named, budgets)))
            for one, n in changed[2].granted.items():
                self._meter.add(one, n, now)
            return changed
        limits = tenants[tenant_id].limits if tenant_id in tenants else TenantLimits()
        wanted = BATCH
        if limits.hourly or limits.hard_cap_monthly:  # what is taken and not needed is for a moment nobody's
            wanted = await self._store.read(lambda db: len(granted.ungranted(db, select(db))))
        places = Places(self._meter, tenant_id, wanted, (limits.hourly, limits.hard_cap_monthly), now)
        terms = Terms(named, budgets, places.taken, places.full)
        try:
            changed = await self._store.write(lambda db: job(db, terms))
        except Exception:  # not where it is cancelled: the write goes on
            places.used(0)
            raise
        places.used(changed[2].granted[tenant_id])
        return changed

    def _past(self, verb: Verb, recipient: Recipient, *, named: bool) -> HoldReason | None:
        """Return which hold a person passes over by letting this recipient go."""
        past = outcomes.passed_over(recipient)
        if not named:  # the list was asked again; an earlier word about what waits stands
            return None if recipient.status is Status.HELD and past is HoldReason.SUPPRESSED else past
        if verb is not Verb.RETRY:
            return past
        # Ark contract §8.1: holds, and the list also where it was the message's own failure that led to it
        tenant = self._live.snapshot.tenants.get(recipient.message.tenant_id)
        held = recipient.status is Status.HELD
        free = tenant is None or withheld(tenant, recipient.message.credential, None) is None
        return HoldReason.SUPPRESSED if held or free else past  # of what nobody saw held, a held credential holds it


def _outcome(verb: Verb, recipient: Recipient, now: float, reason: str, past: HoldReason | None) -> Outcome:
    match verb:
        case Verb.RETRY:
            return outcomes.release_at(recipient, now, reason or "Put back into the queue by hand", past)
        case Verb.RELEASE:
            return outcomes.release_at(recipient, now, reason or "Released by hand", past)
        case Verb.HOLD:
            return outcomes.hold(recipient, HoldReason.OPERATOR, reason or "Held by hand", now)
        case Verb.DELETE:
            return outcomes.fail(recipient, reason or "Deleted from the queue by hand", now)
