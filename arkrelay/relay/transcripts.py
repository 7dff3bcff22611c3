"""The conversation of an attempt as text: its own part, behind the set-up of the connection or a note about it."""

import time
from collections.abc import Sequence

from arkrelay.model.reply import Failure
from arkrelay.policy.transcript import join
from arkrelay.wire.exchange import Transaction
from arkrelay.wire.session import Session
from arkrelay.wire.transcript import Entry, rows_of


def render(entries: Sequence[Entry]) -> str:
    """Return a conversation from its first entry on."""
    return join(rows_of(entries, entries[0][0])) if entries else ""


def of_transaction(session: Session, set_up: Sequence[Entry], earlier: int, transaction: Transaction) -> str:
    """Return the conversation of one transaction, with ``earlier`` ones before it on this connection.

    The first has the set-up before it, walk over unwilling hosts included; a later one says how old the connection
    is. A failure without a reply is told at the end: when it came is what a reader wants to know.
    """
    said, result = transaction.said, transaction.results[0]
    began = said[0][0] if said else time.perf_counter()
    before = set_up
    if not set_up:
        age_s = began - session.opened
        before = [(began, f"message {earlier + 1} on a connection to {session.host} that is {age_s:.1f} s old")]
    after: list[Entry] = [(time.perf_counter(), str(result))] if isinstance(result, Failure) else []
    return render([*before, *said, *after])
