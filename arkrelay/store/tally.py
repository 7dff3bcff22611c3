"""How attempts came out, counted by tenant, site, class and hour for two days: what is usual, and what is not.

They are counters of ``usage``, written with the attempts themselves. An item is a class and a site, "policy/google";
of what was taken the class is "taken". A site has no name where DNS gave none to speak to.
"""

import sqlite3
from collections import Counter

from arkrelay.model.attempt import BounceClass
from arkrelay.model.message import Status
from arkrelay.model.outcome import Outcome
from arkrelay.store.usage import HOUR_S, TENANTS, count, start_of

ATTEMPTS = "attempts"
TAKEN = "taken"
KEPT_S = 2 * 86400.0  # a day is looked back, in whole hours
DAY_S = 86400.0


def count_attempt(db: sqlite3.Connection, outcome: Outcome) -> None:
    """Count the attempt of an outcome that has one; mail that met no peer is not counted."""
    attempt = outcome.attempt
    if attempt is None or not outcome.recipient.counts:
        return
    if outcome.status is Status.SENT:
        if not attempt.site:  # the capture box
            return
        came_out: str = TAKEN
    else:
        came_out = outcome.bounce_class or BounceClass.OTHER
    item = f"{came_out}/{attempt.site}"
    count(db, (ATTEMPTS, outcome.recipient.message.tenant_id, item, start_of(outcome.at, HOUR_S)), 1)


def last_day(conn: sqlite3.Connection, now: float, tenant_id: str | None, site: str | None) -> Counter[str]:
    """Return how many attempts came out how in the last 24 h, at one site or at all, of one tenant or of all.

    Hours are whole, so the oldest is there from its beginning.
    """
    whose, parameters = ("IN (" + TENANTS + ")", ()) if tenant_id is None else ("= ?", (tenant_id,))
    # primary key of counters: (name, tenant_id, start)
    rows = conn.execute(
        f"SELECT item, sum(n) FROM counters WHERE name = ? AND tenant_id {whose} AND start >= ? GROUP BY item",  # noqa: S608 -- our own words
        (ATTEMPTS, *parameters, start_of(now - DAY_S, HOUR_S)),
    )
    found: Counter[str] = Counter()
    for item, n in rows:
        came_out, _, where = item.partition("/")
        if site is None or where == site:
            found[came_out] += n
    return found


def prune(db: sqlite3.Connection, before: float, limit: int) -> bool:
    """Forget up to ``limit`` counts of hours before then; return True when there may be more."""
    # primary key of counters: (name, tenant_id, start)
    rows = db.execute(
        f"SELECT name, tenant_id, start, item FROM counters WHERE name = ? AND start < ? AND tenant_id IN ({TENANTS})"  # noqa: S608 -- our own words
        " LIMIT ?",
        (ATTEMPTS, start_of(before, HOUR_S), limit),
    ).fetchall()
    db.executemany("DELETE FROM counters WHERE name = ? AND tenant_id = ? AND start = ? AND item = ?", rows)
    return len(rows) == limit
