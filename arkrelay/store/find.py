"""Finding recipients by what a person or a program says about them, newest first, a page at a time.

Every search walks one index from its newest end and stops when the page is full. A search over all tenants is
one such walk per tenant, merged: tenants are few, and an index that leads with the tenant serves both.
"""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import nlargest
from itertools import islice

from arkrelay.model.address import address_key
from arkrelay.model.message import SIMULATOR, HoldReason, Recipient, Status
from arkrelay.store.connection import text
from arkrelay.store.rows import BOTH, recipients_of
from arkrelay.store.usage import tenants, totals

COUNT_MAX = 10_000  # a search is counted up to here; SDKs want a total, nobody reads page 400
_MANY = 500  # ids asked for in one statement; SQLite allowed 999 parameters at its strictest
_SELECT = f"SELECT {BOTH} FROM recipients r JOIN messages m ON m.id = r.message_id"  # noqa: S608 -- our own columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What recipients are searched by; None and empty mean any. Times are Unix seconds of acceptance."""

    tenant_id: str | None = None
    statuses: tuple[Status, ...] = ()
    sender: str | None = None  # the author's address, exactly
    address: str | None = None  # the recipient's, whatever its case
    domain: str | None = None  # the recipient's, A-labels, lower case
    tag: str | None = None
    after: float | None = None
    before: float | None = None
    message_id: int | None = None
    destinations: tuple[str, ...] | None = None  # of what is queued; what is not queued has none
    hold_reason: HoldReason | None = None
    idle: bool = False  # only what no delivery has in hand
    below: tuple[float, int] | None = None  # time of acceptance and id: only what comes after it, newest first


@dataclass(frozen=True, slots=True)
class _Walk:
    source: str
    conditions: tuple[str, ...]
    parameters: tuple[object, ...]
    at: str = "r.accepted_at"  # the time that the index knows

    def sql(self, columns: str) -> str:
        where = " AND ".join(self.conditions) or "1"
        return f"SELECT {columns} FROM {self.source} WHERE {where}"  # noqa: S608 -- all of it from this file


def page(conn: sqlite3.Connection, filters: Filters, page_number: int, per_page: int) -> list[Recipient]:
    """Return one page of what matches, newest first; a page past the end is empty."""
    start = (max(page_number, 1) - 1) * per_page
    walks = list(_walks(conn, filters))
    found: list[tuple[float, int]] = []
    for walk in walks:
        sql = f"{walk.sql(walk.at + ', r.id')} ORDER BY {walk.at} DESC, r.id DESC LIMIT ?"
        found += conn.execute(sql, (*walk.parameters, start + per_page)).fetchall()
    if len(walks) > 1:
        found = nlargest(start + per_page, found)
    return by_ids(conn, [id_ for _, id_ in found[start:]])


def total(conn: sqlite3.Connection, filters: Filters, at_least: int = 0) -> int:
    """Return how many match: exactly where a counter knows, else counted up to ``COUNT_MAX``.

    ``at_least`` is what the caller has seen itself, for a search that was not counted to its end.
    """
    if (known := counted(conn, filters)) is not None:
        return known
    n = 0
    for walk in _walks(conn, filters):
        limit = COUNT_MAX - n
        if limit <= 0:
            break
        n += conn.execute(f"SELECT count(*) FROM ({walk.sql('1')} LIMIT ?)", (*walk.parameters, limit)).fetchone()[0]  # noqa: S608 -- all of it from this file
    return max(n, at_least) if n >= COUNT_MAX else n


def counted(conn: sqlite3.Connection, filters: Filters) -> int | None:
    """Return how many match where a counter knows: of a tenant or of all, in some states or in any; else None."""
    if filters != Filters(tenant_id=filters.tenant_id, statuses=filters.statuses):
        return None
    counts = totals(conn, filters.tenant_id)
    return sum(counts[status] for status in (filters.statuses or Status))


def count_in_hand(conn: sqlite3.Connection, filters: Filters) -> int:
    """Return how many that match a delivery has in hand now; not for filters with ``destinations``."""
    along: list[tuple[str, object]] = [("r.lease != 0", None)]
    if filters.address is not None:
        along.append(("r.address_key = ?", address_key(text(filters.address) or "")))
    walk = _walk("recipients r INDEXED BY recipients_leased", along, filters, list(_residual(filters)))
    return int(conn.execute(walk.sql("count(*)"), walk.parameters).fetchone()[0])


def by_ids(conn: sqlite3.Connection, ids: list[int]) -> list[Recipient]:
    """Return the recipients with these ids, in the order of the ids; those that are gone are left out."""
    found: dict[int, Recipient] = {}
    remaining = iter(ids)
    while some := list(islice(remaining, _MANY)):
        marks = ", ".join("?" * len(some))
        for recipient in recipients_of(conn.execute(f"{_SELECT} WHERE r.id IN ({marks})", some)):  # primary key
            found[recipient.id] = recipient
    return [found[id_] for id_ in ids if id_ in found]


def _walks(conn: sqlite3.Connection, filters: Filters) -> Iterator[_Walk]:
    """Return the walks that together find what matches, each along one index."""
    rest = list(_residual(filters))
    if filters.message_id is not None:
        yield _walk(
            "recipients r INDEXED BY recipients_message", [("r.message_id = ?", filters.message_id)], filters, rest
        )
        return
    if filters.address is not None:
        key = address_key(text(filters.address) or "")
        yield _walk("recipients r INDEXED BY recipients_address", [("r.address_key = ?", key)], filters, rest)
        return
    if filters.destinations is not None:
        names = json.dumps(filters.destinations)
        for index, queued in (
            ("recipients_due", "r.lease = 0 AND r.due_at IS NOT NULL"),
            ("recipients_leased", "r.lease != 0"),
        ):
            among: list[tuple[str, object]] = [
                (queued, None),
                ("r.destination IN (SELECT value FROM json_each(?))", names),
            ]
            yield _walk(f"recipients r INDEXED BY {index}", among, filters, rest)
        return
    those = [filters.tenant_id] if filters.tenant_id is not None else tenants(conn)
    by_message = filters.sender is not None or filters.tag is not None
    # a person's verb looks among what is in its states, which is less than all that an author has sent since ever
    if by_message and not (filters.idle and filters.statuses):
        index = "messages_author" if filters.sender is not None else "messages_tag"
        source = f"messages m INDEXED BY {index} CROSS JOIN recipients r INDEXED BY recipients_message"
        source += " ON r.message_id = m.id"
        times = [(c.replace("r.", "m."), v) for c, v in rest if c.startswith("r.accepted_at")]
        for tenant in those:
            yield _walk(source, [("m.tenant_id = ?", tenant), *times], filters, rest, joined=True)
        return
    for tenant in those:
        yield from _by_state(tenant, filters, rest)


def _by_state(tenant: str, filters: Filters, rest: list[tuple[str, object]]) -> Iterator[_Walk]:
    """Return the walks through what a tenant has in each state, or through all that it has."""
    source = f"recipients r INDEXED BY {'recipients_status' if filters.statuses else 'recipients_tenant'}"
    of_message = list(_of_message(filters))
    if of_message:
        source += " CROSS JOIN messages m ON m.id = r.message_id"
    for status in filters.statuses or (None,):
        parts: list[tuple[str, object]] = [("r.tenant_id = ?", tenant)]
        if status is not None:
            parts.append(("r.status = ?", status.value))
        parts += [*rest, *of_message]
        yield _Walk(source, tuple(condition for condition, _ in parts), _values(parts))


def _walk(
    source: str,
    first: list[tuple[str, object]],
    filters: Filters,
    rest: list[tuple[str, object]],
    *,
    joined: bool = False,
) -> _Walk:
    """Return a walk whose index knows neither tenant nor status, which are looked at row by row."""
    parts = [*first, *rest]
    if filters.tenant_id is not None and not joined:
        parts.append(("r.tenant_id = ?", filters.tenant_id))
    if filters.statuses:
        parts += [(f"r.status IN ({', '.join(repr(status.value) for status in filters.statuses)})", None)]
    if not joined and (filters.sender is not None or filters.tag is not None):
        source += " JOIN messages m ON m.id = r.message_id"
    parts += _of_message(filters)
    at = "m.accepted_at" if joined else "r.accepted_at"
    return _Walk(source, tuple(c for c, _ in parts), _values(parts), at)


def _values(parts: list[tuple[str, object]]) -> tuple[object, ...]:
    """Return the parameters of conditions, of which each has none, one, or a tuple of them."""
    values: list[object] = []
    for _, value in parts:
        values += value if isinstance(value, tuple) else () if value is None else (value,)
    return tuple(values)


def _of_message(filters: Filters) -> Iterator[tuple[str, object]]:
    if filters.sender is not None:
        yield "m.author = ?", text(filters.sender)
    if filters.tag is not None:
        yield "m.tag = ?", text(filters.tag)


def _residual(filters: Filters) -> Iterator[tuple[str, object]]:
    if filters.after is not None:
        yield "r.accepted_at >= ?", filters.after
    if filters.before is not None:
        yield "r.accepted_at <= ?", filters.before
    if filters.below is not None:
        at, id_ = filters.below
        yield "r.accepted_at <= ?", at
        yield "(r.accepted_at < ? OR r.id < ?)", (at, id_)  # some share a time
    if filters.domain is not None:
        yield "r.domain = ?", text(filters.domain)
    if filters.hold_reason is not None:
        yield "r.hold_reason = ?", filters.hold_reason.value
    if filters.idle:
        yield "r.lease = 0", None


def count_from_domain(conn: sqlite3.Connection, tenant_id: str, domain: str, since: float) -> int:
    """Return how many messages of the tenant since then are from this domain, but for those to played recipients.

    Reads all of its that are so young.
    """
    # index recipients_tenant
    (n,) = conn.execute(
        "SELECT count(DISTINCT r.message_id) FROM recipients r INDEXED BY recipients_tenant"
        " JOIN messages m ON m.id = r.message_id"
        " WHERE r.tenant_id = ? AND r.accepted_at >= ? AND m.author_domain = ? AND r.destination != ?",
        (text(tenant_id), since, text(domain), SIMULATOR),
    ).fetchone()
    return int(n)
