"""What became of recipients, all of it in one transaction: state, lease, attempt, events, suppression, counters."""

import sqlite3
from collections.abc import Sequence
from functools import cache

from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import QUEUED, Status
from arkrelay.model.outcome import Outcome
from arkrelay.model.suppression import Suppress
from arkrelay.store import suppressions, tally, transcripts
from arkrelay.store.connection import text
from arkrelay.store.history import AttemptRow, attempt_row, insert_attempts, insert_events
from arkrelay.store.rows import ROWS_AT_ONCE
from arkrelay.store.usage import count_change

_STATE = "SELECT status FROM recipients WHERE id = ?"  # primary key
# what an outcome changes of a row, besides the lease
_SETTLED = ("status", "attempts", "due_at", "changed_at", "reason", "hold_reason", "bounce_class", "uncertain")
_MOVE = "UPDATE recipients SET destination = ? WHERE id = ?"  # primary key


def apply(db: sqlite3.Connection, outcomes: Sequence[Outcome]) -> None:
    """Settle recipients: state, lease, attempt, events, suppressions and counters, in this transaction.

    A recipient that a peer has taken stays ``sent``, whatever an outcome that is late for it says (it may still
    become ``bounced``); the attempt is recorded all the same. One that retention has removed is passed over.
    """
    attempts: list[AttemptRow] = []
    said: list[str] = []
    events: list[Event] = []
    known = _settle_all(db, outcomes)
    listed = _listed(db, known)
    for outcome in known:
        recipient, status = outcome.recipient, outcome.status
        attempt = outcome.attempt
        if attempt is not None or outcome.details:
            attempts.append(
                attempt_row(recipient.id, status, attempt, outcome.at, outcome.details, outcome.bounce_class)
            )
            said.append(attempt.transcript if attempt is not None else "")
            tally.count_attempt(db, outcome)
        events += outcome.events
        if outcome.suppress is not None:
            events += _change_suppression(db, outcome)
            listed.add(_key(outcome))
        elif outcome.unsuppress and listed and _key(outcome) in listed:
            events += _change_suppression(db, outcome)
    newest = insert_attempts(db, attempts)
    if newest is not None:
        transcripts.insert(db, said, newest, outcomes[-1].at)
    insert_events(db, events)


def _settle_all(db: sqlite3.Connection, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
    """Give the rows their new states, and return the outcomes whose row is there.

    Nearly always all rows are as their recipients were read, and one step does for many (see ``insert_rows``).
    """
    if len({one.recipient.id for one in outcomes}) < len(outcomes):
        return [one for one in outcomes if _settle(db, one)]  # in their order
    known: list[Outcome] = []
    for start in range(0, len(outcomes), ROWS_AT_ONCE):
        some = outcomes[start : start + ROWS_AT_ONCE]
        if not _as_read(db, some):
            known += [one for one in some if _settle(db, one)]
            continue
        db.execute(_settle_many(len(some)), [value for one in some for value in _values(one)])
        for one in some:
            _count(db, one, one.recipient.status.value)
        known += some
    return known


def _as_read(db: sqlite3.Connection, outcomes: Sequence[Outcome]) -> bool:
    """Return whether each row has the state with which its recipient was read, and what is to be changed is usual."""
    if any(one.destination is not None or one.recipient.status is Status.SENT for one in outcomes):
        return False
    states = [value for one in outcomes for value in (one.recipient.id, one.recipient.status.value)]
    return db.execute(_other_than(len(outcomes)), states).fetchone() is None


@cache
def _other_than(n: int) -> str:
    """Return a query for rows, of ``n`` with their states, that are not there or have another."""
    rows = ", ".join(["(?, ?)"] * n)
    return (
        f"SELECT 1 FROM (VALUES {rows}) AS v LEFT JOIN recipients r ON r.id = v.column1"  # noqa: S608 -- marks only
        " WHERE r.status IS NOT v.column2"
    )


@cache
def _settle_many(n: int) -> str:
    """Return the UPDATE of ``n`` rows, each with its own values."""
    row = f"({', '.join('?' * len(_SETTLED))}, ?)"
    changes = ", ".join(f"{name} = v.column{at}" for at, name in enumerate(_SETTLED, 1))
    return (
        f"UPDATE recipients SET lease = 0, {changes} FROM (VALUES {', '.join([row] * n)}) AS v"  # noqa: S608 -- our own columns
        f" WHERE id = v.column{len(_SETTLED) + 1}"
    )


def _settle(db: sqlite3.Connection, outcome: Outcome) -> bool:
    """Give the row its new state, if it may have it; False: there is no such row."""
    recipient, status = outcome.recipient, outcome.status
    if outcome.destination is not None:
        db.execute(_MOVE, (text(outcome.destination), recipient.id))
    found = db.execute(_STATE, (recipient.id,)).fetchone()
    if found is None:
        return False
    before = str(found[0])
    if before == "sent" and status is not Status.SENT and status is not Status.BOUNCED:
        return True  # late
    db.execute(_settle_many(1), _values(outcome))
    _count(db, outcome, before)
    return True


def _count(db: sqlite3.Connection, outcome: Outcome, before: str) -> None:
    if before != outcome.status.value:
        count_change(db, outcome.recipient, before, outcome.status.value)


def _values(outcome: Outcome) -> tuple[object, ...]:
    """Return the values of ``_SETTLED``, and which row gets them."""
    return (
        outcome.status.value,
        outcome.attempts,
        outcome.due_at if outcome.status in QUEUED else None,
        outcome.at,
        text(outcome.reason),
        outcome.hold_reason and outcome.hold_reason.value,
        outcome.bounce_class and outcome.bounce_class.value,
        outcome.uncertain,
        outcome.recipient.id,
    )


def _listed(db: sqlite3.Connection, outcomes: Sequence[Outcome]) -> set[tuple[str, str]]:
    """Return the tenants and keys of those to be taken off a list that are on it: nearly always none."""
    wanted: dict[str, list[str]] = {}
    for one in outcomes:
        if one.unsuppress:
            tenant_id, key = _key(one)
            wanted.setdefault(tenant_id, []).append(key)
    return {(tenant_id, key) for tenant_id, keys in wanted.items() for key in suppressions.among(db, tenant_id, keys)}


def _key(outcome: Outcome) -> tuple[str, str]:
    return outcome.recipient.message.tenant_id, suppressions.key_of(outcome.recipient.address)


def _change_suppression(db: sqlite3.Connection, outcome: Outcome) -> tuple[Event, ...]:
    """Put the address on the list or take it off, and return the event of that, when it changed anything."""
    recipient, wanted = outcome.recipient, outcome.suppress
    message = recipient.message
    if wanted is None:
        changed, kind = suppressions.lift(db, message.tenant_id, recipient.address), EventKind.UNSUPPRESSED
    else:
        changed, kind = _is_enough(db, outcome, wanted), EventKind.SUPPRESSED
        if changed:
            changed = suppressions.suppress(
                db,
                message.tenant_id,
                recipient.address,
                wanted.reason,
                outcome.at,
                bounce_class=outcome.bounce_class,
                recipient_id=recipient.id,
            )
    if not changed or any(event.kind is kind for event in outcome.events):
        return ()
    data = {"address": recipient.address, "reason": wanted.reason if wanted is not None else "delivered"}
    return (Event(kind, outcome.at, message.tenant_id, message.id, recipient.id, data),)


def _is_enough(db: sqlite3.Connection, outcome: Outcome, wanted: Suppress) -> bool:
    """Return whether the address has had as many ends of this class as it takes, this one among them."""
    if wanted.times <= 1 or outcome.bounce_class is None:
        return True
    recipient, since = outcome.recipient, outcome.at - wanted.within_s
    tenant_id, blamed = recipient.message.tenant_id, outcome.bounce_class
    n = suppressions.ends_of_class(db, tenant_id, recipient.address, blamed, since, wanted.times)
    return n >= wanted.times
