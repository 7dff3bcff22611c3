"""Small lists: suppressions, what DNS says of each domain, when credentials were used, notes.

Each is read and written by its key; none is on the path of a message but ``suppressed_among``.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from itertools import islice

from arkrelay.model.address import address_key
from arkrelay.model.domain import DomainState, TrackState
from arkrelay.store.connection import text

ByStream = Mapping[str, str]  # stream → reason
_MANY = 500  # keys asked for in one statement; SQLite allowed 999 parameters at its strictest


@dataclass(frozen=True, slots=True)
class Suppression:
    """One address that this tenant may not mail; ``automatic``: the relay itself put it there."""

    id: int
    tenant_id: str
    address: str
    reason: str
    created_at: float
    automatic: bool
    stream: str = ""


_SUPPRESSION = "id, tenant_id, address, reason, created_at, automatic, stream"


def key_of(address: str) -> str:
    """Return the form in which addresses are compared: contract §8.8 wants no difference of case."""
    return address_key(text(address) or "")


def suppress(
    db: sqlite3.Connection,
    tenant_id: str,
    address: str,
    reason: str,
    at: float,
    *,
    automatic: bool = True,
    stream: str = "",
) -> bool:
    """Put the address on the list; return False when it was there.

    A person's entry replaces the reason of any (Ark contract §8.8); an automatic one leaves what it finds.
    """
    key, given, why = key_of(address), text(address), text(reason)
    # index suppressions_key
    new = db.execute(
        "INSERT OR IGNORE INTO suppressions (tenant_id, stream, address_key, address, reason, created_at, automatic)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (tenant_id, stream, key, given, why, at, automatic),
    ).rowcount
    if not new and not automatic:
        db.execute(
            "UPDATE suppressions SET reason = ?, automatic = 0"
            " WHERE tenant_id = ? AND address_key = ? AND stream = ?",
            (why, tenant_id, key, stream),
        )
    return bool(new)


def unsuppress(
    db: sqlite3.Connection, tenant_id: str, address: str, *, only_automatic: bool = True, stream: str = ""
) -> bool:
    """Take the address off the list; return False when there was nothing to take."""
    # index suppressions_key
    gone = db.execute(
        "DELETE FROM suppressions WHERE tenant_id = ? AND address_key = ? AND stream = ? AND automatic >= ?",
        (tenant_id, key_of(address), stream, only_automatic),
    ).rowcount
    return bool(gone)


def add_suppression(db: sqlite3.Connection, tenant_id: str, address: str, reason: str, at: float) -> Suppression:
    """Return the entry that is there now, made by a person: new, or with its reason replaced."""
    suppress(db, tenant_id, address, reason, at, automatic=False)
    found = get_suppression(db, tenant_id, address)
    if found is None:  # a row that was just written
        raise sqlite3.DatabaseError("a suppression that was just written is not there")
    return found


def remove_suppression(db: sqlite3.Connection, tenant_id: str, address: str) -> bool:
    """Take the address off the list, whoever put it there; return False when it was not on it."""
    return unsuppress(db, tenant_id, address, only_automatic=False)


def get_suppression(conn: sqlite3.Connection, tenant_id: str, address: str, stream: str = "") -> Suppression | None:
    """Return the entry of this address, or None when it may be mailed."""
    # index suppressions_key
    row = conn.execute(
        f"SELECT {_SUPPRESSION} FROM suppressions WHERE tenant_id = ? AND address_key = ? AND stream = ?",  # noqa: S608 -- our own columns
        (tenant_id, key_of(address), stream),
    ).fetchone()
    return None if row is None else _suppression(row)


def list_suppressions(
    conn: sqlite3.Connection, tenant_id: str, page: int = 1, per_page: int = 30
) -> tuple[list[Suppression], int]:
    """Return one page, newest first, and how many there are."""
    # index suppressions_tenant, also for the count: lists of suppressions are read by people and rarely
    rows = conn.execute(
        f"SELECT {_SUPPRESSION} FROM suppressions WHERE tenant_id = ?"  # noqa: S608 -- our own columns
        " ORDER BY created_at DESC, id DESC LIMIT ? OFFSET ?",
        (tenant_id, per_page, (max(page, 1) - 1) * per_page),
    ).fetchall()
    (total,) = conn.execute("SELECT count(*) FROM suppressions WHERE tenant_id = ?", (tenant_id,)).fetchone()
    return [_suppression(row) for row in rows], total


def suppressed_among(
    conn: sqlite3.Connection, tenant_id: str, keys: Iterable[str], stream: str = ""
) -> dict[str, str]:
    """Return the reason for each of these keys (``Address.key``) that is on the tenant's list."""
    found: dict[str, str] = {}
    remaining = iter(keys)
    while some := [text(key) for key in islice(remaining, _MANY)]:
        # index suppressions_key
        found |= conn.execute(
            "SELECT address_key, reason FROM suppressions"  # noqa: S608 -- question marks only
            f" WHERE tenant_id = ? AND stream = ? AND address_key IN ({', '.join('?' * len(some))})",
            (tenant_id, stream, *some),
        )
    return found


def among(conn: sqlite3.Connection, tenant_id: str, keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return for each of these keys (``Address.key``) that is on the tenant's list the reason of each stream."""
    found: dict[str, dict[str, str]] = {}
    remaining = iter(keys)
    while some := [text(key) for key in islice(remaining, _MANY)]:
        # index suppressions_key
        for key, stream, reason in conn.execute(
            "SELECT address_key, stream, reason FROM suppressions"  # noqa: S608 -- question marks only
            f" WHERE tenant_id = ? AND address_key IN ({', '.join('?' * len(some))})",
            (tenant_id, *some),
        ):
            found.setdefault(key, {})[stream] = reason
    return found


def reason_for(found: Mapping[str, ByStream], key: str, *streams: str | None) -> str | None:
    """Return why mail of these streams must not go to the address of this key, by ``among``; None: it may."""
    entries = found.get(key)
    if entries is None:
        return None
    return next((entries[one] for one in ("", *streams) if one is not None and one in entries), None)


def _suppression(row: tuple[int, str, str, str, float, int, str]) -> Suppression:
    return Suppression(*row[:5], bool(row[5]), row[6])


# --- domains ---

_DOMAIN = (
    "tenant_id, domain, spf, spf_error, dkim, dkim_error, return_path, return_path_error, checked_at, verified_at"
)


def set_domain_state(db: sqlite3.Connection, state: DomainState) -> None:
    """Keep what DNS says of this domain, in place of what it said before."""
    values = [text(value) if isinstance(value, str) else value for value in astuple(state)]
    db.execute("INSERT OR REPLACE INTO domain_states VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)


def get_domain_state(conn: sqlite3.Connection, tenant_id: str, domain: str) -> DomainState | None:
    """Return what DNS said of this domain, or None before the first check."""
    # primary key of domain_states
    row = conn.execute(
        f"SELECT {_DOMAIN} FROM domain_states WHERE tenant_id = ? AND domain = ?",  # noqa: S608 -- our own columns
        (tenant_id, domain),
    ).fetchone()
    return None if row is None else DomainState(*row)


def all_domain_states(conn: sqlite3.Connection) -> dict[tuple[str, str], DomainState]:
    """Return what DNS said, by tenant and domain."""
    return {(row[0], row[1]): DomainState(*row) for row in conn.execute(f"SELECT {_DOMAIN} FROM domain_states")}  # noqa: S608 -- our own columns


def remove_domain_state(db: sqlite3.Connection, tenant_id: str, domain: str) -> None:
    """Forget a domain that was removed, so that one added later under its name starts unverified."""
    db.execute("DELETE FROM domain_states WHERE tenant_id = ? AND domain = ?", (tenant_id, domain))


# --- track domains ---


def set_track_state(db: sqlite3.Connection, state: TrackState) -> None:
    """Keep what DNS says of this track domain, in place of what it said before."""
    values = [text(value) if isinstance(value, str) else value for value in astuple(state)]
    db.execute("INSERT OR REPLACE INTO track_states VALUES (?, ?, ?, ?, ?)", values)


def all_track_states(conn: sqlite3.Connection) -> dict[tuple[str, str], TrackState]:
    """Return what DNS said, by tenant and full name."""
    rows = conn.execute("SELECT tenant_id, name, status, error, checked_at FROM track_states")
    return {(row[0], row[1]): TrackState(*row) for row in rows}


def remove_track_state(db: sqlite3.Connection, tenant_id: str, name: str) -> None:
    """Forget a track domain that was removed."""
    db.execute("DELETE FROM track_states WHERE tenant_id = ? AND name = ?", (tenant_id, name))  # primary key


# --- credentials, hosts, notes ---


def set_last_used(db: sqlite3.Connection, tenant_id: str, credential: str, at: float) -> None:
    """Remember that the credential was used; earlier times do not replace later ones."""
    db.execute(
        "INSERT INTO credential_uses VALUES (?, ?, ?)"
        " ON CONFLICT DO UPDATE SET used_at = max(used_at, excluded.used_at)",
        (tenant_id, credential, at),
    )


def last_used(conn: sqlite3.Connection, tenant_id: str) -> dict[str, float]:
    """Return when each credential of the tenant was last used; those never used are missing."""
    # primary key of credential_uses: (tenant_id)
    return dict(
        conn.execute("SELECT name, used_at FROM credential_uses WHERE tenant_id = ?", (tenant_id,)).fetchall()
    )


def rename_last_used(db: sqlite3.Connection, tenant_id: str, old: str, new: str) -> None:
    """Let the credential keep when it was used under its new name."""
    # primary key of credential_uses
    db.execute(
        "UPDATE OR REPLACE credential_uses SET name = ? WHERE tenant_id = ? AND name = ?", (new, tenant_id, old)
    )


def forget_last_used(db: sqlite3.Connection, tenant_id: str, credential: str) -> None:
    """Forget a credential that was removed: one made later under its name has not been used."""
    # primary key of credential_uses
    db.execute("DELETE FROM credential_uses WHERE tenant_id = ? AND name = ?", (tenant_id, credential))


def remove_tenant_lists(db: sqlite3.Connection, tenant_id: str, limit: int) -> bool:
    """Remove up to ``limit`` entries of a deleted tenant's lists; return whether there may be more."""
    db.execute("DELETE FROM credential_uses WHERE tenant_id = ?", (tenant_id,))  # primary key
    # index suppressions_tenant
    gone = db.execute(
        "DELETE FROM suppressions WHERE id IN (SELECT id FROM suppressions WHERE tenant_id = ? LIMIT ?)",
        (tenant_id, limit),
    ).rowcount
    return gone == limit


def set_clear_text(db: sqlite3.Connection, host: str, until: float) -> None:
    """Remember that TLS with this MX is broken and mail goes in clear text until then."""
    db.execute("INSERT OR REPLACE INTO clear_text_hosts VALUES (?, ?)", (text(host), until))


def clear_text_hosts(conn: sqlite3.Connection, now: float) -> dict[str, float]:
    """Return the hosts whose TLS is known to be broken, with the time until which that is believed."""
    return dict(conn.execute("SELECT host, until FROM clear_text_hosts WHERE until > ?", (now,)).fetchall())


def set_note(db: sqlite3.Connection, name: str, value: str | None) -> None:
    """Keep a value under a name, or forget it (None)."""
    if value is None:
        db.execute("DELETE FROM notes WHERE name = ?", (name,))
    else:
        db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, text(value)))


def get_note(conn: sqlite3.Connection, name: str) -> str | None:
    """Return the value kept under this name."""
    row = conn.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])
