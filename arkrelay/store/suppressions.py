"""The addresses that each tenant may not mail, by their key; ``among`` is on the path of a message."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from arkrelay.model.address import address_key
from arkrelay.model.attempt import BounceClass
from arkrelay.model.suppression import AUTOMATIC, Cause, Suppression
from arkrelay.store.browse import Mark, Taken, take
from arkrelay.store.connection import text

_MANY = 500  # keys asked for in one statement; SQLite allowed 999 parameters at its strictest
_COLUMNS = "id, tenant_id, address, reason, created_at, automatic, stream, cause, bounce_class, recipient_id"

ByStream = Mapping[str, str]  # stream → reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """Which entries of a tenant are meant; None: any. ``until`` is not included; ``domain`` is the addresses'."""

    reason: str | None = None
    stream: str | None = None
    cause: Cause | None = None
    bounce_classes: tuple[BounceClass, ...] = ()
    since: float | None = None
    until: float | None = None
    domain: str | None = None

    def where(self, tenant_id: str) -> tuple[str, tuple[object, ...]]:
        """Return the condition and its parameters."""
        given: list[tuple[str, object]] = [
            ("tenant_id = ?", tenant_id),
            ("reason = ?", text(self.reason)),
            ("stream = ?", text(self.stream)),
            ("cause = ?", self.cause and self.cause.value),
            ("created_at >= ?", self.since),
            ("created_at < ?", self.until),
            # the end of the key, and no LIKE: a domain may have an underscore in it
            ("instr(address_key || char(10), ?)", self.domain and f"@{address_key(text(self.domain) or '')}\n"),
        ]
        some = [(condition, value) for condition, value in given if value is not None]
        classes = [one.value for one in self.bounce_classes]
        if classes:
            some.append((f"bounce_class IN ({', '.join('?' * len(classes))})", None))
        return " AND ".join(condition for condition, _ in some), (
            *(value for _, value in some if value is not None),
            *classes,
        )


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
    cause: Cause = Cause.FAILURE,
    stream: str = "",
    bounce_class: BounceClass | None = None,
    recipient_id: int | None = None,
) -> bool:
    """Put the address on the list; return False when nothing changed, for there was a reason as good.

    A person's entry replaces the reason of any (Ark contract §8.8). A complaint or an unsubscription replaces a
    failure, which the next delivery would lift. An unsubscription replaces a person's entry as well, for it is the
    wish of the address's owner, and stays when the person thinks better of it. Otherwise what is there stays.
    """
    automatic = cause in AUTOMATIC
    values = (text(reason), automatic, cause.value, bounce_class and bounce_class.value, recipient_id)
    # index suppressions_key
    new = db.execute(
        "INSERT OR IGNORE INTO suppressions (tenant_id, stream, address_key, address, created_at, reason, automatic,"
        " cause, bounce_class, recipient_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (tenant_id, text(stream), key_of(address), text(address), at, *values),
    ).rowcount
    if new or cause is Cause.FAILURE:
        return bool(new)
    return bool(
        db.execute(
            "UPDATE suppressions SET reason = ?, automatic = ?, cause = ?, bounce_class = ?, recipient_id = ?"
            " WHERE tenant_id = ? AND address_key = ? AND stream = ?"
            " AND (cause = 'failure' OR NOT ? OR (? AND cause IN ('hand', 'import')))",
            (*values, tenant_id, key_of(address), text(stream), automatic, cause is Cause.UNSUBSCRIBE),
        ).rowcount
    )


def count(conn: sqlite3.Connection, tenant_id: str, entries: Entries) -> int:
    """Return how many entries are meant."""
    where, parameters = entries.where(tenant_id)
    # index suppressions_tenant
    (n,) = conn.execute(f"SELECT count(*) FROM suppressions WHERE {where}", parameters).fetchone()  # noqa: S608 -- our own words
    return int(n)


def add(
    db: sqlite3.Connection, tenant_id: str, address: str, reason: str, at: float, stream: str = ""
) -> Suppression:
    """Return the entry that is there now, made by a person: new, or with its reason replaced."""
    suppress(db, tenant_id, address, reason, at, cause=Cause.HAND, stream=stream)
    # index suppressions_key
    row = db.execute(
        f"SELECT {_COLUMNS} FROM suppressions WHERE tenant_id = ? AND address_key = ? AND stream = ?",  # noqa: S608 -- our own columns
        (tenant_id, key_of(address), text(stream)),
    ).fetchone()
    return _suppression(row)


def lift(db: sqlite3.Connection, tenant_id: str, address: str) -> bool:
    """Take off the list what failures have put there, for mail arrives again; return False when there was nothing."""
    # index suppressions_key
    gone = db.execute(
        "DELETE FROM suppressions WHERE tenant_id = ? AND address_key = ? AND automatic AND cause = 'failure'",
        (tenant_id, key_of(address)),
    ).rowcount
    return bool(gone)


def remove(db: sqlite3.Connection, tenant_id: str, address: str, stream: str | None = None) -> bool:
    """Take the address off the list, whoever put it there; None: off every stream. False when it was not on it."""
    # index suppressions_key
    gone = db.execute(
        "DELETE FROM suppressions WHERE tenant_id = ? AND address_key = ? AND stream = coalesce(?, stream)",
        (tenant_id, key_of(address), text(stream)),
    ).rowcount
    return bool(gone)


def get(conn: sqlite3.Connection, tenant_id: str, address: str) -> Suppression | None:
    """Return the entry that keeps most from this address: one without a stream first. None: it may be mailed."""
    # index suppressions_key
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM suppressions WHERE tenant_id = ? AND address_key = ? ORDER BY stream LIMIT 1",  # noqa: S608 -- our own columns
        (tenant_id, key_of(address)),
    ).fetchone()
    return None if row is None else _suppression(row)


def of_address(conn: sqlite3.Connection, tenant_id: str, address: str) -> list[Suppression]:
    """Return every entry of this address: one for all mail first, then those of streams."""
    # index suppressions_key
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM suppressions WHERE tenant_id = ? AND address_key = ? ORDER BY stream",  # noqa: S608 -- our own columns
        (tenant_id, key_of(address)),
    ).fetchall()
    return [_suppression(row) for row in rows]


def list_page(
    conn: sqlite3.Connection, tenant_id: str, entries: Entries | None = None, page: int = 1, per_page: int = 30
) -> tuple[list[Suppression], int]:
    """Return one page, newest first, and how many there are."""
    where, parameters = (entries or Entries()).where(tenant_id)
    # index suppressions_tenant, also for the count: lists of suppressions are read by people and rarely
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM suppressions WHERE {where} ORDER BY created_at DESC, id DESC LIMIT ? OFFSET ?",  # noqa: S608 -- our own words
        (*parameters, per_page, (max(page, 1) - 1) * per_page),
    ).fetchall()
    return [_suppression(row) for row in rows], count(conn, tenant_id, entries or Entries())


def browse(
    conn: sqlite3.Connection, tenant_id: str, entries: Entries, below: Mark | None = None, limit: int = 50
) -> tuple[list[Suppression], Taken]:
    """Return one page, newest first, and where the next one begins."""
    where, parameters = entries.where(tenant_id)
    place = ""
    values: list[object] = [*parameters, tenant_id]
    if below is not None:
        place = " AND created_at <= ? AND (created_at < ? OR id < ?)"
        values += [below.at, below.at, below.id]
    # index suppressions_tenant
    rows = conn.execute(
        f"SELECT created_at, id, {where} FROM suppressions INDEXED BY suppressions_tenant WHERE tenant_id = ?{place}"  # noqa: S608 -- our own words
        " ORDER BY created_at DESC, id DESC",
        values,
    )
    taken = take(((row[0], row[1], bool(row[2])) for row in rows), limit)
    found = [
        # primary key
        conn.execute(f"SELECT {_COLUMNS} FROM suppressions WHERE id = ?", (id_,)).fetchone()  # noqa: S608 -- our own columns
        for id_ in taken.ids
    ]
    return [_suppression(row) for row in found], taken


def list_by_address(
    conn: sqlite3.Connection, tenant_id: str, entries: Entries, after: str, after_stream: str, limit: int
) -> tuple[list[Suppression], int]:
    """Return those that come after this address and stream in the order of addresses, and how many there are in all.

    Whatever joins or leaves the list between two pages, no other entry is passed over.
    """
    where, parameters = entries.where(tenant_id)
    # index suppressions_key
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM suppressions INDEXED BY suppressions_key"  # noqa: S608 -- our own words
        f" WHERE {where} AND (address_key, stream) > (?, ?) ORDER BY address_key, stream LIMIT ?",
        (*parameters, key_of(after), text(after_stream), limit),
    ).fetchall()
    return [_suppression(row) for row in rows], count(conn, tenant_id, entries)


def undo(db: sqlite3.Connection, tenant_id: str, entries: Entries, limit: int) -> list[str]:
    """Remove up to ``limit`` of the entries that are meant; return their addresses."""
    where, parameters = entries.where(tenant_id)
    # index suppressions_tenant
    found = db.execute(
        f"SELECT id, address FROM suppressions WHERE {where} ORDER BY created_at LIMIT ?",  # noqa: S608 -- our own words
        (*parameters, limit),
    ).fetchall()
    db.executemany("DELETE FROM suppressions WHERE id = ?", [(id_,) for id_, _ in found])  # primary key
    return [address for _, address in found]


def lapse(db: sqlite3.Connection, before: float, limit: int) -> list[tuple[str, str]]:
    """Remove up to ``limit`` of what failures have made before then; return their tenants and addresses."""
    # index suppressions_failure
    found = db.execute(
        "SELECT id, tenant_id, address FROM suppressions INDEXED BY suppressions_failure"
        " WHERE cause = 'failure' AND created_at < ? ORDER BY created_at LIMIT ?",
        (before, limit),
    ).fetchall()
    db.executemany("DELETE FROM suppressions WHERE id = ?", [(id_,) for id_, *_ in found])  # primary key
    return [(tenant_id, address) for _, tenant_id, address in found]


@dataclass(frozen=True, slots=True)
class NewEntry:
    """What a list from elsewhere says of one address."""

    address: str
    reason: str
    stream: str
    created_at: float
    cause: Cause = Cause.IMPORT
    bounce_class: BounceClass | None = None


def insert_many(db: sqlite3.Connection, tenant_id: str, entries: Sequence[NewEntry]) -> int:
    """Put these on the list; return how many were not on it. What is there stays."""
    # index suppressions_key
    values = [
        (
            tenant_id,
            text(one.stream),
            key_of(one.address),
            text(one.address),
            one.created_at,
            text(one.reason),
            one.cause in AUTOMATIC,
            one.cause.value,
            one.bounce_class and one.bounce_class.value,
        )
        for one in entries
    ]
    before = db.total_changes
    db.executemany(
        "INSERT OR IGNORE INTO suppressions (tenant_id, stream, address_key, address, created_at, reason, automatic,"
        " cause, bounce_class) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        values,
    )
    return db.total_changes - before


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
    """Return why mail of these streams must not go to the address of this key, by what ``among`` found; None: it may.

    A stream is the message's tag, or what its recipients can leave.
    """
    entries = found.get(key)
    if entries is None:
        return None
    return next((entries[one] for one in ("", *streams) if one is not None and one in entries), None)


def has_left(conn: sqlite3.Connection, tenant_id: str, address: str, stream: str) -> bool:
    """Return whether the address's owner has ended this stream, or all mail of the tenant, or complained of it."""
    # index suppressions_key
    found = conn.execute(
        "SELECT EXISTS (SELECT 1 FROM suppressions WHERE tenant_id = ? AND address_key = ? AND stream IN ('', ?)"
        " AND cause IN ('unsubscribe', 'complaint'))",
        (tenant_id, key_of(address), text(stream)),
    ).fetchone()
    return bool(found[0])


def ends_of_class(
    conn: sqlite3.Connection, tenant_id: str, address: str, bounce_class: BounceClass, since: float, most: int
) -> int:
    """Return how many messages to this address have ended so since then, counted up to ``most``."""
    # index recipients_address
    (n,) = conn.execute(
        "SELECT count(*) FROM (SELECT 1 FROM recipients INDEXED BY recipients_address WHERE address_key = ?"
        " AND tenant_id = ? AND bounce_class = ? AND status IN ('hardfail', 'bounced') AND changed_at >= ? LIMIT ?)",
        (key_of(address), tenant_id, bounce_class.value, since, most),
    ).fetchone()
    return int(n)


def _suppression(row: tuple[int, str, str, str, float, int, str, str, str | None, int | None]) -> Suppression:
    blamed = None if row[8] is None else BounceClass(row[8])
    cause = Cause(row[7]) if row[7] else Cause.FAILURE if row[5] else Cause.HAND
    return Suppression(*row[:5], bool(row[5]), row[6], cause, blamed, row[9])
