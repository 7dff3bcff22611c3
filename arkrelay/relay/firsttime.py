"""The budget of first-time recipients: how many a day a tenant may write to that it never wrote to before.

Looked at in the transaction that accepts the mail, so it is exact under parallel senders. A recipient over the
budget is accepted and held; what the tenant writes to people that it knows goes on.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from arkrelay.model.address import address_key
from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import HoldReason, Message, Recipient, Status
from arkrelay.store.known import count_first_times, first_times, known, learn


def hold_new(
    db: sqlite3.Connection, message: Message, recipients: Sequence[Recipient], budget: int
) -> tuple[list[Recipient], tuple[Event, ...]]:
    """Return the recipients, some of them held, and the event that tells it the first time on a day."""
    new: list[str] = []
    for one in recipients:
        key = address_key(one.address)
        if one.status is Status.PENDING and one.counts and key not in new and not known(db, message.tenant_id, key):
            new.append(key)
    if not new:
        return list(recipients), ()
    at = message.accepted_at
    before = first_times(db, message.tenant_id, at)
    passed = new[: max(0, budget - before.passed)]
    over = frozenset(new[len(passed) :])
    learn(db, message.tenant_id, passed)
    count_first_times(db, message.tenant_id, at, message.credential or "", len(passed), len(over))
    if not over:
        return list(recipients), ()
    reason = (
        f"The tenant never wrote to this address, and its budget of {budget} such recipients a day is used up;"
        " it starts anew at midnight UTC, and held mail waits to be released"
    )
    held = [
        replace(one, status=Status.HELD, due_at=None, reason=reason, hold_reason=HoldReason.NEW_RECIPIENTS)
        if one.status is Status.PENDING and address_key(one.address) in over
        else one
        for one in recipients
    ]
    if before.held:
        return held, ()
    data = {"limit": budget, "volume": before.passed + len(new), "credential": message.credential}
    return held, (Event(EventKind.NEW_RECIPIENTS_EXCEEDED, at, message.tenant_id, data=data),)
