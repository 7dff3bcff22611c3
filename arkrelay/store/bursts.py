"""What sites have said of recipients within the hour, kept for a restart, and the entries of a site not believed."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from arkrelay.model.attempt import BLAMES_RECIPIENT
from arkrelay.policy.burst import WINDOW_S, Burst, Counted
from arkrelay.store.connection import text

_BLAMING = ", ".join(f"'{one.value}'" for one in sorted(BLAMES_RECIPIENT))


def keep(db: sqlite3.Connection, counted: Sequence[Counted], now: float) -> None:
    """Write down what is known of these sites, and forget what nobody needs any more."""
    for one in counted:
        # primary key of bursts
        db.execute(
            "INSERT OR REPLACE INTO bursts (site, at, counted) VALUES (?, ?, ?)",
            (text(one.site), now, json.dumps(asdict(one))),
        )
    # as many rows as sites that called somebody unknown of late
    db.execute("DELETE FROM bursts WHERE at < ?", (now - 2 * WINDOW_S,))


def load(conn: sqlite3.Connection) -> list[Counted]:
    """Return everything that was kept."""
    found = []
    for (counted,) in conn.execute("SELECT counted FROM bursts").fetchall():
        row = json.loads(counted)
        slots = [(number, counts) for number, counts in row["slots"]]
        found.append(Counted(row["site"], slots, [Burst(**one) for one in row["bursts"]]))
    return found


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a list that a refusal has made, and who refused: ``port`` None is 25."""

    id: int
    address: str
    recipient_id: int
    host: str
    port: int | None


def blamed_since(conn: sqlite3.Connection, tenant_id: str, since: float) -> list[Entry]:
    """Return the entries since then that say that there is no such recipient, with the host that said so."""
    # index suppressions_tenant, then attempts_recipient for each
    rows = conn.execute(
        "SELECT s.id, s.address, s.recipient_id, a.host, a.port FROM suppressions s JOIN attempts a"  # noqa: S608 -- our own words
        " ON a.id = (SELECT max(id) FROM attempts WHERE recipient_id = s.recipient_id AND host IS NOT NULL)"
        " WHERE s.tenant_id = ? AND s.created_at >= ? AND s.cause = 'failure'"
        f" AND s.bounce_class IN ({_BLAMING})",
        (text(tenant_id), since),
    )
    return [Entry(*row) for row in rows]


def withdraw(db: sqlite3.Connection, entries: Sequence[Entry], said: str) -> list[Entry]:
    """Take these off the list, and say so with their recipients; return those that were still there as they were."""
    gone: list[Entry] = []
    for one in entries:
        # primary keys
        if db.execute("DELETE FROM suppressions WHERE id = ? AND cause = 'failure'", (one.id,)).rowcount:
            gone.append(one)
            db.execute(
                "UPDATE recipients SET reason = reason || ? WHERE id = ? AND status IN ('hardfail', 'bounced')",
                (text(said), one.recipient_id),
            )
    return gone
