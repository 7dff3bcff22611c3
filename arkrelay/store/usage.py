"""Counters: how many recipients are in which state, and what each tenant sent when.

A job calls ``count``; the writer adds up the whole batch and writes each counter once, in the same transaction
as the rows that it counts. A job therefore does not see what was counted earlier in its own batch.

Usage is what became of the recipients accepted in a time: each stands under its present state, in the quarter of an
hour (UTC) in which its message was accepted, and moves from state to state. Zones are off by whole quarters, so any
day anywhere is made of them. The same once more by whole days (UTC) keeps long times cheap: a year of 500 tenants
that sent in every quarter, 25 million rows, takes 0.2 s by days and 12 s by quarters (2 cores). What is pending is
not in it: nothing has become of that yet. Mail of test keys (Ark contract §16), recipients that are played and our
own notices are not either. What retention deletes stays counted, and what a person deletes from the queue is a hard
failure, counted as one.
"""

import sqlite3
from bisect import bisect_right
from collections.abc import Sequence

from arkrelay.model.event import Event
from arkrelay.model.message import Recipient, Status
from arkrelay.store.connection import Connection, Counter
from arkrelay.store.rows import insert_rows

TOTAL = "total"  # recipients per tenant and status, start 0
GRANTED = "granted"  # recipients that use up send limits, per tenant and hour: see granted.py
TOLD = "told"  # what a tenant was told of its send limit, per hour: see ``told_of``
QUARTER = "quarter"  # usage per tenant, quarter of an hour and status
DAY = "day"  # the same per day
QUARTER_S, HOUR_S, DAY_S = 900, 3600, 86400

Counts = dict[Status, int]

_PENDING = Status.PENDING.value
_ADD = (
    "INSERT INTO counters (name, tenant_id, item, start, n) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET n = n + excluded.n"
)
TENANTS = f"SELECT DISTINCT tenant_id FROM counters WHERE name = '{TOTAL}'"  # noqa: S608 -- our own word


def start_of(at: float, length_s: int) -> int:
    """Return the start of the quarter, hour or day (UTC) that ``at`` is in, in Unix seconds."""
    return int(at // length_s) * length_s


def count(db: sqlite3.Connection, counter: Counter, n: int) -> None:
    """Add ``n`` to a counter with this transaction: ``(name, tenant id, item)``, or with a start as fourth."""
    if isinstance(db, Connection):
        counters = db.counters
        counters[counter] = counters.get(counter, 0) + n
    else:  # a plain connection of a tool: nobody adds up for us
        db.execute(_ADD, (*_four(counter), n))


def count_change(db: sqlite3.Connection, recipient: Recipient, before: str | None, after: str) -> None:
    """Count that ``recipient`` left the state ``before``, or is new (None), and is in ``after``."""
    message = recipient.message
    tenant_id = message.tenant_id
    for status, n in ((before, -1), (after, 1)):
        if status is None:
            continue
        count(db, (TOTAL, tenant_id, status), n)
        if status != _PENDING and recipient.counts:
            count(db, (QUARTER, tenant_id, status, start_of(message.accepted_at, QUARTER_S)), n)
            count(db, (DAY, tenant_id, status, start_of(message.accepted_at, DAY_S)), n)


def flush(db: Connection) -> None:
    """Write what was counted on ``db`` into the open transaction."""
    if db.counters:
        rows = [(*_four(counter), n) for counter, n in db.counters.items() if n]
        db.counters.clear()
        insert_rows(db, _ADD, rows)


def _four(counter: Counter) -> Counter:
    return counter if len(counter) == 4 else (*counter, 0)


def tenants(conn: sqlite3.Connection) -> list[str]:
    """Return the tenants that have ever had mail."""
    return [tenant for (tenant,) in conn.execute(TENANTS)]  # primary key of counters: (name)


def totals(conn: sqlite3.Connection, tenant_id: str | None = None) -> Counts:
    """Return how many recipients are in each state, of one tenant or of all; every state is there."""
    # primary key of counters: (name), or (name, tenant_id)
    if tenant_id is None:
        rows = conn.execute("SELECT item, sum(n) FROM counters WHERE name = ? GROUP BY item", (TOTAL,))
    else:
        rows = conn.execute(
            "SELECT item, sum(n) FROM counters WHERE name = ? AND tenant_id = ? GROUP BY item", (TOTAL, tenant_id)
        )
    found = dict(rows.fetchall())
    return {status: found.get(status.value, 0) for status in Status}


def granted_since(conn: sqlite3.Connection, tenant_id: str, at: float) -> int:
    """Return how many recipients used up the tenant's send limit since the start of the hour of ``at``."""
    # primary key of counters: (name, tenant_id, start)
    (n,) = conn.execute(
        "SELECT sum(n) FROM counters WHERE name = ? AND tenant_id = ? AND start >= ?",
        (GRANTED, tenant_id, start_of(at, HOUR_S)),
    ).fetchone()
    return n or 0


def told_of(event: Event) -> str:
    """Return what makes two events of a send limit the same to who hears them: a changed limit is another."""
    return f"{event.kind.value} {event.data.get('limit')}"


def told_in(conn: sqlite3.Connection, tenant_id: str, at: float) -> frozenset[str]:
    """Return what the tenant was told in the hour of ``at``, as ``told_of`` has it."""
    # primary key of counters: (name, tenant_id, start)
    rows = conn.execute(
        "SELECT item FROM counters WHERE name = ? AND tenant_id = ? AND start = ?",
        (TOLD, tenant_id, start_of(at, HOUR_S)),
    )
    return frozenset(item for (item,) in rows)


def sum_usage(conn: sqlite3.Connection, start: float, end: float, tenant_id: str | None = None) -> dict[str, Counts]:
    """Return the usage in [start, end) of one tenant, or of each that has any; every state is there but pending.

    Bounds are full quarters of an hour. Tenants that were removed are among them.
    """
    found: dict[str, Counts] = {}
    first, last = start_of(start + DAY_S - 1, DAY_S), start_of(end, DAY_S)
    spans = [(QUARTER, start, end)] if first >= last else [
        (QUARTER, start, first), (DAY, first, last), (QUARTER, last, end),
    ]  # fmt: skip
    whose = f"IN ({TENANTS})" if tenant_id is None else "= ?"
    for name, since, until in spans:
        if since >= until:
            continue
        # primary key of counters: (name, tenant_id, start)
        for tenant, item, n in conn.execute(
            f"SELECT tenant_id, item, sum(n) FROM counters WHERE name = ? AND start >= ? AND start < ?"  # noqa: S608 -- our own words
            f" AND tenant_id {whose} GROUP BY tenant_id, item",
            (name, since, until, *(() if tenant_id is None else (tenant_id,))),
        ):
            found.setdefault(tenant, nothing())[Status(item)] += n
    return found


def list_usage(
    conn: sqlite3.Connection, tenant_id: str | None, starts: Sequence[float], end: float, name: str = QUARTER
) -> list[Counts]:
    """Return the usage of one tenant, or of all, between each of ``starts`` (ascending, full quarters) and the next.

    The last ends with ``end``. With ``name`` DAY the bounds are whole days (UTC), and it is counted by these.
    A year in which every quarter saw mail, 50 000 rows, takes 0.1 s.
    """
    found = [nothing() for _ in starts]
    whose = f"IN ({TENANTS})" if tenant_id is None else "= ?"
    # primary key of counters: (name, tenant_id, start)
    for at, item, n in conn.execute(
        f"SELECT start, item, n FROM counters WHERE name = ? AND start >= ? AND start < ? AND tenant_id {whose}",  # noqa: S608 -- our own words
        (name, starts[0], end, *(() if tenant_id is None else (tenant_id,))),
    ):
        found[bisect_right(starts, at) - 1][Status(item)] += n
    return found


def nothing() -> Counts:
    """Return the usage of who sent nothing: every state but pending, at zero."""
    return dict.fromkeys((status for status in Status if status is not Status.PENDING), 0)


def prune(db: sqlite3.Connection, before: float, limit: int) -> int:
    """Forget up to ``limit`` counters of days that were over before then; return how many."""
    # primary key of counters: (name, tenant_id, start)
    rows = db.execute(
        f"SELECT name, tenant_id, start, item FROM counters WHERE name IN (?, ?, ?, ?) AND start < ?"  # noqa: S608 -- our own words
        f" AND tenant_id IN ({TENANTS}) LIMIT ?",
        (GRANTED, TOLD, QUARTER, DAY, start_of(before, DAY_S), limit),
    ).fetchall()
    db.executemany("DELETE FROM counters WHERE name = ? AND tenant_id = ? AND start = ? AND item = ?", rows)
    return len(rows)
