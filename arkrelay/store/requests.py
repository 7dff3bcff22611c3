"""The request log: who asked what and how it ended (Ark contract §8.2).

What lists are filtered by stands in narrow rows, one for each request. All else lies in batches, as the requests were
written: descriptions packed together, and bodies sealed, which nobody reads here. Requests of the same program are
so alike that a batch takes a tenth of the room, and one blob is written faster than many. Ids begin with the time,
so they are the order of a list, the bounds of a search by time, and what retention goes by.
"""

import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from arkrelay.model.request import LoggedRequest
from arkrelay.store.browse import Mark, Taken, take
from arkrelay.store.connection import text
from arkrelay.store.find import COUNT_MAX
from arkrelay.store.rows import insert_rows

ID_SHIFT: Final = 20  # below the milliseconds: a million requests in each
MAX_MS: Final = 2**43 - 1  # year 2248, what is left of 63 bits
PUBLIC_ID_CHARS: Final = 20  # of a whole request id: one that is looked for in full is found by its index
BATCHES: Final = 50  # forgotten in one step, each of up to some 250 KB
FAST: Final = 1  # zlib's level: 6 takes twice the time for a tenth less

_INSERT = (
    "INSERT INTO requests (id, request_id, tenant_id, credential_id, endpoint, status, batch_id, place)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_described = msgspec.msgpack.Decoder(list[LoggedRequest])


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests that are written together, with an id for each; ``sealed`` are their bodies."""

    ids: Sequence[int]
    requests: Sequence[LoggedRequest]
    sealed: bytes | None

    @property
    def id(self) -> int:
        """That of the newest request: the batch is as old as the last of them."""
        return max(self.ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFilters:
    """What requests are searched by; None means any. Times are Unix milliseconds, both ends included."""

    tenant_id: str | None = None
    credential_id: str | None = None
    endpoint: str | None = None
    request_id: str | None = None  # a part of it
    failed: bool | None = None  # status 400 and above
    status: int | None = None
    from_ms: int | None = None
    to_ms: int | None = None


@dataclass(frozen=True, slots=True)
class RequestPage:
    """One page, newest first, and how many there are in all (counted up to ``find.COUNT_MAX``)."""

    requests: list[LoggedRequest]
    total: int


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """One request with the place of its bodies: the ``place``-th of its batch, sealed."""

    request: LoggedRequest
    batch_id: int
    place: int
    sealed: bytes | None


def insert(db: sqlite3.Connection, batches: Sequence[Batch]) -> None:
    """Write batches, their ids given by the caller."""
    rows: list[tuple[object, ...]] = []
    for batch in batches:
        described = zlib.compress(msgspec.msgpack.encode(batch.requests), FAST)
        db.execute("INSERT INTO request_batches VALUES (?, ?, ?)", (batch.id, described, batch.sealed))
        rows += [
            (id_, one.request_id, one.tenant_id, one.credential_id, one.endpoint, one.status, batch.id, place)
            for place, (id_, one) in enumerate(zip(batch.ids, batch.requests, strict=True))
        ]
    insert_rows(db, _INSERT, sorted(rows))  # in the order of the table


def find(conn: sqlite3.Connection, filters: RequestFilters, page: int, per_page: int) -> RequestPage:
    """Return one page of what matches, newest first; a page past the end is empty."""
    source, conditions, values = _search(filters)
    matching = f"FROM {source} WHERE {' AND '.join(conditions)}"
    start = (page - 1) * per_page
    # the index that _search names; ids are the last column of each, so nothing is sorted
    rows = conn.execute(
        f"SELECT batch_id, place {matching} ORDER BY id DESC LIMIT ? OFFSET ?",
        (*values, per_page, start),
    ).fetchall()
    total = start + len(rows)
    if len(rows) == per_page or (start and not rows):  # else this is the last page, and its end the total
        total = conn.execute(
            f"SELECT count(*) FROM (SELECT 1 {matching} LIMIT ?)",  # noqa: S608 -- our own words
            (*values, COUNT_MAX),
        ).fetchone()[0]
        if total == COUNT_MAX and rows:  # not counted to its end: after a full page there is another
            total = max(total, start + per_page + 1)
    return RequestPage(_described_at(conn, rows), total)


def browse(
    conn: sqlite3.Connection, filters: RequestFilters, below: Mark | None = None, limit: int = 50
) -> tuple[list[LoggedRequest], Taken]:
    """Return one page of what matches, newest first, and where the next one begins.

    Of the filters this knows those of the dashboard: tenant, endpoint, a whole request id, and ``failed``.
    """
    given = [  # the first that is given has the index, and what follows it is looked at row by row
        ("requests_public", "request_id = ?", text(filters.request_id)),
        ("requests_tenant", "tenant_id = ?", text(filters.tenant_id)),
        ("requests_endpoint", "endpoint = ?", text(filters.endpoint)),
        ("requests_failed", "status >= 400", filters.failed or None),
    ]
    searched = [one for one in given if one[2] is not None]
    source, along, seen = "requests", "1", "1"
    if searched:
        index, along, _ = searched[0]
        source = f"requests INDEXED BY {index}"
        seen = " AND ".join(condition for _, condition, _ in searched[1:]) or "1"
    values = [value for _, condition, value in [*searched[1:], *searched[:1]] if "?" in condition]
    # the index that is named, else the primary key; ids are the last column of each, so nothing is sorted
    rows = conn.execute(
        f"SELECT id, {seen} FROM {source} WHERE {along} AND id < ? ORDER BY id DESC",  # noqa: S608 -- our own words
        (*values, first_id(MAX_MS) if below is None else below.id),
    )
    taken = take((((id_ >> ID_SHIFT) / 1000, id_, bool(wanted)) for id_, wanted in rows), limit)
    places = [
        # primary key
        conn.execute("SELECT batch_id, place FROM requests WHERE id = ?", (id_,)).fetchone()
        for id_ in taken.ids
    ]
    return _described_at(conn, places), taken


def get(conn: sqlite3.Connection, request_id: str, tenant_id: str | None) -> StoredRequest | None:
    """Return one request of this tenant (None: of anybody), or None."""
    # index requests_public, primary key of request_batches
    row = conn.execute(
        "SELECT r.tenant_id, r.batch_id, r.place, b.described, b.bodies FROM requests r INDEXED BY requests_public"
        " JOIN request_batches b ON b.id = r.batch_id WHERE r.request_id = ?",
        (text(request_id),),
    ).fetchone()
    if row is None or tenant_id not in {None, row[0]}:
        return None
    _, batch_id, place, described, sealed = row
    return StoredRequest(_unpack(described)[place], batch_id, place, sealed)


def prune(db: sqlite3.Connection, before: float, limit: int) -> bool:
    """Forget some requests that began before then (Unix seconds); return True when there is more to do."""
    first = first_id(max(0, int(before * 1000)))
    # primary keys of both
    gone = db.execute(
        "DELETE FROM requests WHERE id IN (SELECT id FROM requests WHERE id < ? ORDER BY id LIMIT ?)", (first, limit)
    ).rowcount
    if gone == limit:
        return True
    gone = db.execute(  # now that none of their requests is left
        "DELETE FROM request_batches WHERE id IN (SELECT id FROM request_batches WHERE id < ? ORDER BY id LIMIT ?)",
        (first, BATCHES),
    ).rowcount
    return bool(gone == BATCHES)


def first_id(at_ms: int) -> int:
    """Return the lowest id that a request of this millisecond can have."""
    return max(0, min(at_ms, MAX_MS)) << ID_SHIFT


def _search(filters: RequestFilters) -> tuple[str, list[str], list[object]]:
    """Return the table with the index to walk, the conditions and their values."""
    low = first_id(0 if filters.from_ms is None else filters.from_ms)
    high = first_id(MAX_MS if filters.to_ms is None else filters.to_ms + 1)
    given: list[tuple[str, object]] = [("id >= ?", low), ("id < ?", high)]
    index = ""
    if filters.endpoint is not None:
        index = "requests_endpoint"
        given.append(("endpoint = ?", text(filters.endpoint)))
    if filters.failed is not None:
        index = index or ("requests_failed" if filters.failed else "")
        given.append(("status >= 400" if filters.failed else "status < 400", None))
    if filters.status is not None:
        index = "requests_status"
        given.append(("status = ?", filters.status))
    if filters.tenant_id is not None:  # before what others' requests are found by as well
        index = "requests_tenant"
        given.append(("tenant_id = ?", text(filters.tenant_id)))
    if filters.credential_id is not None:
        index = "requests_credential"
        given.append(("credential_id = ?", text(filters.credential_id)))
    if filters.request_id is not None:
        wanted = text(filters.request_id) or ""
        if len(wanted) == PUBLIC_ID_CHARS:
            index = "requests_public"
            given.append(("request_id = ?", wanted))
        else:
            given.append(("instr(request_id, ?)", wanted))
    source = f"requests INDEXED BY {index}" if index else "requests"  # else the primary key
    return source, [one for one, _ in given], [value for _, value in given if value is not None]


def _described_at(conn: sqlite3.Connection, rows: Sequence[tuple[int, int]]) -> list[LoggedRequest]:
    """Return the descriptions at these places (batch, number), in this order."""
    batches: dict[int, list[LoggedRequest]] = {}
    for batch_id in dict.fromkeys(batch_id for batch_id, _ in rows):
        # primary key of request_batches
        row = conn.execute("SELECT described FROM request_batches WHERE id = ?", (batch_id,)).fetchone()
        batches[batch_id] = _unpack(row[0])
    return [batches[batch_id][place] for batch_id, place in rows]


def _unpack(described: bytes) -> list[LoggedRequest]:
    return _described.decode(zlib.decompress(described))
