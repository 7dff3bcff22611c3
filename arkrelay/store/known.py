"""To whom a tenant has written: for the budget of first-time recipients, and only of tenants that have one.

An address is kept as 64 bits of a keyless hash beside 32 of its tenant's, 20 bytes in the B-tree: a list of a million
addresses costs 20 MB. That two of ten million addresses share a hash has odds of one in 400 000, and all it does is
to let one first-time recipient pass. What a tenant had sent before it got a budget is found among its recipients, as
far as these are kept. A message costs the writer 5 µs more when its recipient is known, 15 µs when it is new, and
nothing without a budget (19 µs; 2 cores).
"""

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from arkrelay.store.connection import text

LOOKED_AT = 50  # recipients with an address that are asked whether they are this tenant's, for a first look
DAY_S = 86400


@dataclass(frozen=True, slots=True)
class FirstTimes:
    """First-time recipients of one day: those that passed, and those that were held."""

    passed: int
    held: int


def known(db: sqlite3.Connection, tenant_id: str, address_key: str) -> bool:
    """Return whether the tenant has written to this address (``Address.key``) before."""
    # primary key of known_recipients
    row = db.execute(
        "SELECT 1 FROM known_recipients WHERE tenant = ? AND address = ?", _numbers(tenant_id, address_key)
    ).fetchone()
    if row is not None:
        return True
    # index recipients_address; what was only ever held was not written to
    found = db.execute(
        "SELECT 1 FROM (SELECT tenant_id, attempts, status FROM recipients INDEXED BY recipients_address"
        " WHERE address_key = ? ORDER BY id DESC LIMIT ?) WHERE tenant_id = ? AND (attempts > 0 OR status = 'sent')",
        (text(address_key), LOOKED_AT, tenant_id),
    ).fetchone()
    return found is not None


def learn(db: sqlite3.Connection, tenant_id: str, address_keys: Sequence[str]) -> None:
    """Remember that the tenant writes to these addresses."""
    db.executemany(
        "INSERT OR IGNORE INTO known_recipients VALUES (?, ?)", [_numbers(tenant_id, key) for key in address_keys]
    )


def first_times(conn: sqlite3.Connection, tenant_id: str, at: float, credential: str | None = None) -> FirstTimes:
    """Return the first-time recipients of the day of ``at`` (UTC): of the tenant, or of one of its credentials."""
    # primary key of first_times
    row = conn.execute(
        "SELECT coalesce(sum(passed), 0), coalesce(sum(held), 0) FROM first_times"
        " WHERE tenant_id = ?1 AND day = ?2 AND (?3 IS NULL OR credential = ?3)",
        (tenant_id, _day(at), credential),
    ).fetchone()
    return FirstTimes(*row)


def count_first_times(
    db: sqlite3.Connection, tenant_id: str, at: float, credential: str, passed: int, held: int
) -> None:
    """Count first-time recipients."""
    db.execute(
        "INSERT INTO first_times VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET passed = passed + excluded.passed, held = held + excluded.held",
        (tenant_id, _day(at), credential, passed, held),
    )


def disown(db: sqlite3.Connection, tenant_id: str, at: float, credential: str) -> None:
    """Let the first-time recipients of the day of ``at`` be the tenant's, and no longer this credential's."""
    met = first_times(db, tenant_id, at, credential)
    # primary key of first_times
    db.execute(
        "DELETE FROM first_times WHERE tenant_id = ? AND day = ? AND credential = ?",
        (tenant_id, _day(at), credential),
    )
    count_first_times(db, tenant_id, at, "", met.passed, met.held)


def prune(db: sqlite3.Connection, before: float) -> None:
    """Forget the counts of days before then; to whom was written stays."""
    db.execute("DELETE FROM first_times WHERE day < ?", (_day(before),))  # a handful of rows per tenant and day


def forget_tenant(db: sqlite3.Connection, tenant_id: str, limit: int) -> bool:
    """Forget what is here of a deleted tenant, ``limit`` addresses in a step; return whether there may be more."""
    tenant, _ = _numbers(tenant_id, "")
    # primary keys of first_times, suspicions and known_recipients
    db.execute("DELETE FROM first_times WHERE tenant_id = ?", (tenant_id,))
    db.execute("DELETE FROM suspicions WHERE tenant_id = ?", (tenant_id,))
    gone = db.execute(
        "DELETE FROM known_recipients WHERE tenant = ?1 AND address IN"
        " (SELECT address FROM known_recipients WHERE tenant = ?1 LIMIT ?2)",
        (tenant, limit),
    ).rowcount
    return gone == limit


# --- credentials that the relay itself put on hold ---


def suspect(db: sqlite3.Connection, tenant_id: str, credential: int, reason: str, at: float) -> bool:
    """Keep a credential on hold; return False when it was."""
    # primary key of suspicions
    return bool(
        db.execute(
            "INSERT OR IGNORE INTO suspicions VALUES (?, ?, ?, ?)", (tenant_id, credential, text(reason), at)
        ).rowcount
    )


def trust(db: sqlite3.Connection, tenant_id: str, credential: int) -> bool:
    """Release a credential; return False when it was not on hold."""
    # primary key of suspicions
    return bool(
        db.execute("DELETE FROM suspicions WHERE tenant_id = ? AND credential = ?", (tenant_id, credential)).rowcount
    )


def suspicions(conn: sqlite3.Connection) -> dict[tuple[str, int], str]:
    """Return why each credential is on hold, by tenant and number."""
    rows = conn.execute("SELECT tenant_id, credential, reason FROM suspicions")
    return {(tenant_id, credential): reason for tenant_id, credential, reason in rows}


def _numbers(tenant_id: str, address_key: str) -> tuple[int, int]:
    tenant = hashlib.blake2b((text(tenant_id) or "").encode(), digest_size=4).digest()
    address = hashlib.blake2b((text(address_key) or "").encode(), digest_size=8).digest()
    return int.from_bytes(tenant), int.from_bytes(address, signed=True)


def _day(at: float) -> int:
    return int(at // DAY_S)
