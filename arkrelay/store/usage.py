"""Counters: how many recipients are in which state, and what each tenant did in each hour.

A job calls ``count``; the writer adds up the whole batch and writes each counter once, in the same transaction
as the rows that it counts. A job therefore does not see what was counted earlier in its own batch.
"""

import sqlite3
from collections.abc import Mapping

from arkrelay.model.message import Status
from arkrelay.store.connection import Connection, Counter

TOTAL = "total"  # recipients per tenant and status, hour 0
USAGE = "usage"  # per tenant, hour and one of USAGE_ITEMS
USAGE_ITEMS = ("accepted", "granted", "sent", "softfail", "hardfail", "held", "bounced")
HOUR_S = 3600

_ADD = (
    "INSERT INTO counters (name, tenant_id, item, hour, n) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET n = n + excluded.n"
)


def hour_of(at: float) -> int:
    """Return the start of the hour (UTC) that ``at`` is in, in Unix seconds."""
    return int(at) // HOUR_S * HOUR_S


def count(db: sqlite3.Connection, counter: Counter, n: int) -> None:
    """Add ``n`` to a counter with this transaction: ``(name, tenant id, item)``, or with an hour as fourth."""
    if isinstance(db, Connection):
        counters = db.counters
        counters[counter] = counters.get(counter, 0) + n
    else:  # a plain connection of a tool: nobody adds up for us
        db.execute(_ADD, (*_four(counter), n))


def flush(db: Connection) -> None:
    """Write what was counted on ``db`` into the open transaction."""
    if db.counters:
        rows = [(*_four(counter), n) for counter, n in db.counters.items() if n]
        db.counters.clear()
        db.executemany(_ADD, rows)


def _four(counter: Counter) -> Counter:
    return counter if len(counter) == 4 else (*counter, 0)


def totals(conn: sqlite3.Connection, tenant_id: str | None = None) -> dict[Status, int]:
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


def used_since(conn: sqlite3.Connection, tenant_id: str, hour_start: float) -> dict[str, int]:
    """Return what the tenant did since the start of that hour; every one of ``USAGE_ITEMS`` is there."""
    # primary key of counters: (name, tenant_id, hour)
    rows = conn.execute(
        "SELECT item, sum(n) FROM counters WHERE name = ? AND tenant_id = ? AND hour >= ? GROUP BY item",
        (USAGE, tenant_id, hour_of(hour_start)),
    )
    return dict.fromkeys(USAGE_ITEMS, 0) | dict(rows.fetchall())


def list_usage(
    conn: sqlite3.Connection, tenant_id: str, start: float, end: float
) -> list[tuple[int, Mapping[str, int]]]:
    """Return (hour, counts) for each hour in [start, end) in which something happened, oldest first."""
    hours: dict[int, dict[str, int]] = {}
    # primary key of counters: (name, tenant_id, hour)
    for hour, item, n in conn.execute(
        "SELECT hour, item, n FROM counters"
        " WHERE name = ? AND tenant_id = ? AND hour >= ? AND hour < ? ORDER BY hour",
        (USAGE, tenant_id, hour_of(start), end),
    ):
        hours.setdefault(hour, dict.fromkeys(USAGE_ITEMS, 0))[item] = n
    return list(hours.items())
