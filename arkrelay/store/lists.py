"""Small lists: what DNS says of each domain, when credentials were used, notes.

Each is read and written by its key; none is on the path of a message.
"""

import sqlite3
from dataclasses import astuple

from arkrelay.model.domain import DomainState, TrackState
from arkrelay.store.connection import text

# --- domains ---

_DOMAIN = (
    "tenant_id, domain, spf, spf_error, dkim, dkim_error, return_path, return_path_error, checked_at, verified_at,"
    " told_at"
)


def set_domain_state(db: sqlite3.Connection, state: DomainState) -> None:
    """Keep what DNS says of this domain, in place of what it said before."""
    values = [text(value) if isinstance(value, str) else value for value in astuple(state)]
    db.execute("INSERT OR REPLACE INTO domain_states VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)


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
