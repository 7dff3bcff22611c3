"""Long lists for people, newest first, from a place onwards: what one page costs does not grow with the list.

A page begins below the last row of the page before, so no row is passed over by counting (OFFSET). A list walks one
index; what the index does not know is looked at row by row, and after ``LOOKED`` rows the page ends where it is and
says so: a rare thing in a long list is found by several short reads, each of which begins where the last one ended.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import merge

from arkrelay.model.address import address_key
from arkrelay.model.message import Recipient, Status
from arkrelay.store.connection import text
from arkrelay.store.find import Filters, by_ids, counted
from arkrelay.store.usage import tenants

LOOKED = 10_000  # rows that one page looks at, at most some 50 ms

Row = tuple[float, int, bool]  # the time, the number, and whether it is what is looked for


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a list: what comes later is older."""

    at: float
    id: int


@dataclass(frozen=True, slots=True)
class Taken:
    """Numbers of rows in their order; ``older`` is where the next page begins, None at the end of the list.

    ``unfinished``: the page ended because enough was looked at, not because it is full.
    """

    ids: list[int]
    older: Mark | None
    unfinished: bool = False


@dataclass(frozen=True, slots=True)
class Leaf:
    """One page of recipients; see ``Taken``."""

    recipients: list[Recipient]
    older: Mark | None
    unfinished: bool


def take(rows: Iterable[Row], limit: int, most: int = LOOKED) -> Taken:
    """Return the first ``limit`` rows that are looked for, having looked at no more than ``most``."""
    ids: list[int] = []
    last = Mark(0.0, 0)
    for number, (at, id_, wanted) in enumerate(rows, 1):
        if wanted:
            if len(ids) == limit:
                return Taken(ids, last)
            ids.append(id_)
        last = Mark(at, id_)
        if number == most:
            return Taken(ids, last, unfinished=True)
    return Taken(ids, None)


def recipients(conn: sqlite3.Connection, filters: Filters, below: Mark | None = None, limit: int = 50) -> Leaf:
    """Return one page of what matches, newest first; not for filters with ``destinations`` or ``idle``."""
    walks = [conn.execute(sql, values) for sql, values in _walks(conn, filters, below)]
    taken = take(merge(*(map(_row, walk) for walk in walks), reverse=True), limit)
    return Leaf(by_ids(conn, taken.ids), taken.older, taken.unfinished)


@dataclass(frozen=True, slots=True)
class Counted:
    """How many match; ``unfinished``: at least so many, because enough was looked at."""

    n: int
    unfinished: bool = False


def count(conn: sqlite3.Connection, filters: Filters, most: int = LOOKED) -> Counted:
    """Return how many match, exactly where a counter knows, else having looked at no more than ``most`` rows.

    For states that few are in, such as what waits: it looks at those.
    """
    if (known := counted(conn, filters)) is not None:
        return Counted(known)
    n = looked = 0
    for sql, values in _walks(conn, filters, by_state=True):
        for row in conn.execute(sql, values):
            if looked == most:
                return Counted(n, unfinished=True)
            looked += 1
            n += bool(row[2])
    return Counted(n)


def oldest(conn: sqlite3.Connection, tenant_id: str | None, status: Status) -> float | None:
    """Return when the oldest recipient in this state was accepted, of one tenant or of all; None: there is none."""
    found: list[float] = []
    for tenant in [tenant_id] if tenant_id is not None else tenants(conn):
        # index recipients_status
        (at,) = conn.execute(
            "SELECT min(accepted_at) FROM recipients INDEXED BY recipients_status WHERE tenant_id = ? AND status = ?",
            (tenant, status.value),
        ).fetchone()
        if at is not None:
            found.append(at)
    return min(found, default=None)


def _row(row: tuple[float, int, int | None]) -> Row:
    return row[0], row[1], bool(row[2])


def _walks(
    conn: sqlite3.Connection, filters: Filters, below: Mark | None = None, *, by_state: bool = False
) -> Iterator[tuple[str, list[object]]]:
    """Yield the queries that together see what may match, each along one index from its newest end.

    ``by_state``: through what is in the states, also for what one author has sent or what has one tag.
    """
    looked_at = _Conditions()
    looked_at.add("r.domain = ?", text(filters.domain))
    of_message = filters.sender is not None or filters.tag is not None
    join = " CROSS JOIN messages m ON m.id = r.message_id" if of_message else ""
    by_message = of_message and not by_state and filters.address is None
    if not by_message:
        looked_at.add("m.author = ?", text(filters.sender))
        looked_at.add("m.tag = ?", text(filters.tag))
    if filters.address is not None:
        along = _Conditions()
        along.add("r.address_key = ?", address_key(text(filters.address) or ""))
        if below is not None:
            along.add("r.id < ?", below.id)
        _add_times(looked_at, filters, "r.")
        looked_at.add("r.tenant_id = ?", filters.tenant_id)
        _add_statuses(looked_at, filters)
        # index recipients_address, and numbers are in the order of acceptance
        yield _query(f"recipients r INDEXED BY recipients_address{join}", "r.id DESC", along, looked_at)
        return
    for tenant in [filters.tenant_id] if filters.tenant_id is not None else tenants(conn):
        if by_message:
            index = "messages_author" if filters.sender is not None else "messages_tag"
            along, seen = _Conditions(), looked_at.copy()
            along.add("m.tenant_id = ?", tenant)
            along.add("m.author = ?", text(filters.sender))
            (along if filters.sender is None else seen).add("m.tag = ?", text(filters.tag))
            _add_times(along, filters, "m.")
            _add_below(along, below, "m.")
            _add_statuses(seen, filters)
            source = (
                f"messages m INDEXED BY {index} CROSS JOIN recipients r INDEXED BY recipients_message"
                " ON r.message_id = m.id"
            )
            yield _query(source, "m.accepted_at DESC, r.id DESC", along, seen)
            continue
        for status in filters.statuses or (None,):
            along = _Conditions()
            along.add("r.tenant_id = ?", tenant)
            along.add("r.status = ?", None if status is None else status.value)
            _add_times(along, filters, "r.")
            _add_below(along, below, "r.")
            index = "recipients_tenant" if status is None else "recipients_status"
            yield _query(f"recipients r INDEXED BY {index}{join}", "r.accepted_at DESC, r.id DESC", along, looked_at)


class _Conditions:
    """Conditions that all hold, with their values; one without a value is left out."""

    def __init__(self) -> None:
        self.terms: list[str] = []
        self.values: list[object] = []

    def add(self, term: str, *values: object) -> None:
        if None not in values:
            self.terms.append(term)
            self.values += values

    def copy(self) -> "_Conditions":
        one = _Conditions()
        one.terms, one.values = list(self.terms), list(self.values)
        return one

    def __str__(self) -> str:
        return " AND ".join(self.terms) or "1"


def _query(source: str, order: str, along: _Conditions, looked_at: _Conditions) -> tuple[str, list[object]]:
    sql = f"SELECT r.accepted_at, r.id, {looked_at} FROM {source} WHERE {along} ORDER BY {order}"  # noqa: S608 -- all of it from this file
    return sql, [*looked_at.values, *along.values]


def _add_times(conditions: _Conditions, filters: Filters, table: str) -> None:
    conditions.add(f"{table}accepted_at >= ?", filters.after)
    conditions.add(f"{table}accepted_at <= ?", filters.before)


def _add_below(conditions: _Conditions, below: Mark | None, table: str) -> None:
    """Begin below the place: times alone would pass over those who share one."""
    if below is not None:
        conditions.add(f"{table}accepted_at <= ?", below.at)
        conditions.add(f"({table}accepted_at < ? OR r.id < ?)", below.at, below.id)


def _add_statuses(conditions: _Conditions, filters: Filters) -> None:
    if filters.statuses:
        marks = ", ".join("?" * len(filters.statuses))
        conditions.add(f"r.status IN ({marks})", *(status.value for status in filters.statuses))
