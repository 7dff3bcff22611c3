"""What lanes have learned of their peers, what a person ordered for them, and how far new addresses are warm."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict

from arkrelay.policy.pace import Learned, Order
from arkrelay.policy.warmup import COLD_DAYS, Progress
from arkrelay.store.connection import text


def keep(db: sqlite3.Connection, learned: Sequence[Learned]) -> None:
    """Write down what is known of these lanes, or forget one of which nothing is."""
    for one in learned:
        # primary key of lanes
        if one.blank:
            db.execute("DELETE FROM lanes WHERE lane = ?", (text(one.lane),))
            continue
        db.execute(
            "INSERT OR REPLACE INTO lanes (lane, learned) VALUES (?, ?)", (text(one.lane), json.dumps(asdict(one)))
        )


def load(conn: sqlite3.Connection) -> list[Learned]:
    """Return everything that was kept."""
    found = []
    for (learned,) in conn.execute("SELECT learned FROM lanes").fetchall():  # as many rows as lanes had trouble
        row = json.loads(learned)
        found.append(Learned(**{**row, "order": Order(**row["order"])}))
    return found


def keep_warmups(db: sqlite3.Connection, progress: Sequence[Progress]) -> None:
    """Write down what these lanes have carried, and forget those that are cold again."""
    for one in progress:
        # primary key of warmups
        db.execute(
            "INSERT OR REPLACE INTO warmups (lane, step, day, sent, deferred) VALUES (?, ?, ?, ?, ?)",
            (text(one.lane), one.step, one.day, one.sent, one.deferred),
        )
    if progress:
        # as many rows as there are sites that a new address sends to
        db.execute("DELETE FROM warmups WHERE day < ?", (max(one.day for one in progress) - COLD_DAYS,))


def load_warmups(conn: sqlite3.Connection) -> list[Progress]:
    """Return everything that was kept of new addresses, what moved longest ago first."""
    return [
        Progress(*row) for row in conn.execute("SELECT lane, step, day, sent, deferred FROM warmups ORDER BY day")
    ]
