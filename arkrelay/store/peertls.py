"""TLS towards peers, as far as it is remembered: MTA-STS policies, and how sessions came out each day."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

from arkrelay.model.peertls import StsPolicy
from arkrelay.store.connection import text


@dataclass(frozen=True, slots=True)
class Counted:
    """What one counter counts: sessions of a UTC day (its start, Unix seconds) with one address of one host.

    ``policy`` is "sts", "tlsa" or "no-policy-found" (RFC 8460 §4.4), ``said`` the policy as the report shows it, in
    JSON, ``result`` one of RFC 8460 §4.3 or an empty string for a success.
    """

    day: int
    domain: str
    policy: str
    said: str
    host: str
    address: str
    result: str


_COUNTED = "day, domain, policy, said, host, address, result"


def save_policy(db: sqlite3.Connection, domain: str, policy: StsPolicy) -> None:
    """Keep the policy of this domain in place of any other."""
    # primary key of sts_policies
    db.execute(
        "INSERT OR REPLACE INTO sts_policies (domain, id, mode, mx, max_age_s, fetched_at) VALUES (?, ?, ?, ?, ?, ?)",
        (domain, policy.id, policy.mode, json.dumps(policy.mx), policy.max_age_s, policy.fetched_at),
    )


def policies(conn: sqlite3.Connection, now: float) -> dict[str, StsPolicy]:
    """Return the policies that are in force, by domain: the whole table, at start and when a person asks."""
    rows = conn.execute("SELECT domain, id, mode, mx, max_age_s, fetched_at FROM sts_policies")
    found = {row[0]: StsPolicy(row[1], row[2], tuple(json.loads(row[3])), row[4], row[5]) for row in rows}
    return {domain: policy for domain, policy in found.items() if policy.expires_at > now}


def add_results(db: sqlite3.Connection, counts: Mapping[Counted, int]) -> None:
    """Add to the counters."""
    # primary key of tls_results
    db.executemany(
        f"INSERT INTO tls_results ({_COUNTED}, n) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 -- our own columns
        " ON CONFLICT DO UPDATE SET n = n + excluded.n",
        [(*(_plain(value) for value in astuple(counted)), n) for counted, n in counts.items()],
    )


def results(
    conn: sqlite3.Connection, first_day: int, last_day: int, domain: str | None = None, limit: int = 10_000
) -> list[tuple[Counted, int]]:
    """Return the counters of these UTC days, both included, of one domain or of all; the newest first."""
    one, parameters = (
        ("", (first_day, last_day)) if domain is None else (" AND domain = ?", (first_day, last_day, domain))
    )
    # primary key of tls_results
    rows: Sequence[tuple[int, str, str, str, str, str, str, int]] = conn.execute(
        f"SELECT {_COUNTED}, n FROM tls_results WHERE day BETWEEN ? AND ?{one}"  # noqa: S608 -- our own words
        " ORDER BY day DESC, domain, policy, said, host, address, result LIMIT ?",
        (*parameters, limit),
    ).fetchall()
    return [(Counted(*row[:7]), row[7]) for row in rows]


def domains(conn: sqlite3.Connection, day: int, after: str = "") -> list[str]:
    """Return the domains with counters of this UTC day, in order, those behind ``after``."""
    # primary key of tls_results
    rows = conn.execute(
        "SELECT DISTINCT domain FROM tls_results WHERE day = ? AND domain > ? ORDER BY domain", (day, after)
    )
    return [row[0] for row in rows]


def prune(db: sqlite3.Connection, now: float, before: float, limit: int) -> bool:
    """Forget counters of days before then and policies that ran out; return True when there is more to do."""
    # primary key of tls_results
    rows = db.execute(
        f"SELECT {_COUNTED} FROM tls_results WHERE day < ? ORDER BY {_COUNTED} LIMIT ?",  # noqa: S608 -- our own columns
        (before, limit),
    ).fetchall()
    db.executemany(
        "DELETE FROM tls_results WHERE day = ? AND domain = ? AND policy = ? AND said = ? AND host = ?"
        " AND address = ? AND result = ?",
        rows,
    )
    # index sts_policies_end
    db.execute("DELETE FROM sts_policies WHERE fetched_at + max_age_s <= ?", (now,))
    return len(rows) == limit


def _plain(value: object) -> object:
    return text(value) if isinstance(value, str) else value
