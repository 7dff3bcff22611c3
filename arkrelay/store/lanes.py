"""What lanes have learned of their peers, and what a person ordered for them, kept over a restart."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict

from arkrelay.policy.pace import Learned, Order
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
