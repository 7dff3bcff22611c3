"""Verbs on all messages that a filter finds, on its other pages too: which are offered, and what was done."""

import sqlite3
from dataclasses import dataclass, replace
from typing import Final

from arkrelay.model.message import QUEUED, Status
from arkrelay.relay.operate import Operator, Selection, Verb
from arkrelay.store import browse, find
from arkrelay.store.database import Store
from arkrelay.store.find import Filters
from arkrelay.web.render import number

WAITING: Final = QUEUED | {Status.HELD}  # what is meant when no state is asked for, as over REST
OFFERED: Final = {
    Verb.RETRY: QUEUED | {Status.HARDFAIL},
    Verb.HOLD: QUEUED,
    Verb.RELEASE: frozenset({Status.HELD}),
    Verb.DELETE: WAITING,
}
DONE: Final = {
    Verb.RETRY: ("is tried again now.", "are tried again now."),
    Verb.HOLD: (
        "is held: it is not sent until somebody releases it.",
        "are held: they are not sent until somebody releases them.",
    ),
    Verb.RELEASE: ("is released, and sent now.", "are released, and sent now."),
    Verb.DELETE: ("is given up: it is not sent.", "are given up: they are not sent."),
}
DUE: Final = "What is being sent is due already: its destinations rest no more, and it is tried now."
NOTHING: Final = "Nothing was changed: there is nothing left to {}."
IN_HAND: Final = (
    "1 is in the hands of a delivery at this moment, and was left alone.",
    "{} are in the hands of deliveries at this moment, and were left alone.",
)


STAY: Final = ("1 stays as it is. {1}.", "{0} stay as they are. {1}.")


@dataclass(frozen=True, slots=True)
class Offer:
    """A verb and for how many it is; ``unfinished``: at least so many."""

    verb: Verb
    n: int
    unfinished: bool
    statuses: tuple[Status, ...]

    @property
    def matches(self) -> str:
        """How many it is for, as a sentence."""
        if not self.n:
            return "How many match is not known before it is done."
        many = f"{number(self.n)} message matches" if self.n == 1 else f"{number(self.n)} messages match"
        return f"At least {many}." if self.unfinished else f"{many}."


def statuses_of(verb: Verb, filters: Filters) -> tuple[Status, ...]:
    """Return the states in which ``verb`` takes up what the filter finds; none: it is not for these."""
    wanted = (frozenset(filters.statuses) or WAITING) & OFFERED[verb]
    if verb is Verb.RETRY and wanted != {Status.PENDING}:
        wanted -= {Status.PENDING}  # it is due already
    return tuple(sorted(wanted))


def offers(db: sqlite3.Connection, filters: Filters) -> list[Offer]:
    """Return the verbs that fit what the filter finds. They look at no more rows together than a page does."""
    fitting = {verb: statuses for verb in Verb if (statuses := statuses_of(verb, filters))}
    needed = sorted({status for statuses in fitting.values() for status in statuses})
    counted = {
        status: browse.count(db, replace(filters, statuses=(status,)), browse.LOOKED // len(needed))
        for status in needed
    }
    found = []
    for verb, statuses in fitting.items():
        counts = [counted[status] for status in statuses]
        n, unfinished = sum(one.n for one in counts), any(one.unfinished for one in counts)
        if n or unfinished:
            found.append(Offer(verb, n, unfinished, statuses))
    return found


async def operate(
    operator: Operator, store: Store, verb: Verb, filters: Filters, tenant_id: str | None
) -> tuple[str, bool]:
    """Do ``verb`` to all that the filter finds; return the sentence for it, and whether anything was done.

    ``tenant_id`` is whose key asks, as for ``Operator``.
    """
    statuses = statuses_of(verb, filters)
    if not statuses:
        return NOTHING.format(verb), False
    selection = Selection(
        tenant_id=filters.tenant_id,
        statuses=frozenset(statuses),
        domain=filters.domain,
        address=filters.address,
        sender=filters.sender,
        tag=filters.tag,
        after=filters.after,
        before=filters.before,
    )
    done = await operator.many(verb, selection, tenant_id=tenant_id)
    n = done.count
    if verb is Verb.RETRY and statuses == (Status.PENDING,):
        return DUE, True
    left = await store.read(lambda db: find.count_in_hand(db, replace(filters, statuses=statuses)))
    said = [f"{number(n)} {DONE[verb][n != 1]}" if n else NOTHING.format(verb)]
    if left:
        said.append(IN_HAND[left != 1].format(number(left)))
    said += [STAY[many != 1].format(number(many), why) for why, many in done.stay.items()]
    return " ".join(said), n > 0
