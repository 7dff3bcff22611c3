"""What was posted to webhooks, one row for each attempt: for REST's lists, and to be sent again.

Nothing here is on the path of a message. A row holds what was sent byte for byte and the beginning of what came back.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from arkrelay.model.hook import Answer, HookDelivery
from arkrelay.store.browse import Mark, Taken, take
from arkrelay.store.connection import text
from arkrelay.store.rows import json_text

_COLUMNS = (
    "public_id, owner, webhook_id, webhook_name, tenant_id, event, url, attempt, will_retry, at, duration_s, status,"
    " success, headers, body, answer, error"
)
_INSERT = f"INSERT INTO hook_deliveries ({_COLUMNS}) VALUES ({', '.join('?' * 17)})"  # noqa: S608 -- our own columns

# every owner, each found by one seek from the one before (SQLite: "skip scan" by hand)
_OWNERS = (
    "WITH RECURSIVE owners (owner) AS (SELECT min(owner) FROM hook_deliveries UNION ALL SELECT (SELECT min(owner)"
    " FROM hook_deliveries WHERE owner > owners.owner) FROM owners WHERE owners.owner IS NOT NULL)"
    " SELECT owner FROM owners WHERE owner IS NOT NULL"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What deliveries are searched by; None means any. Times are Unix seconds, both ends included.

    ``owner`` is the tenant whose webhooks they are, empty for the platform's; ``tenant_id`` is whom the events are
    about.
    """

    owner: str
    webhook_id: str | None = None
    tenant_id: str | None = None
    event: str | None = None
    success: bool | None = None
    after: float | None = None
    before: float | None = None


def insert_delivery(db: sqlite3.Connection, delivery: HookDelivery) -> None:
    """Record one attempt."""
    answer = delivery.answer
    db.execute(
        _INSERT,
        (
            delivery.public_id,
            delivery.owner,
            delivery.webhook_id,
            text(delivery.webhook_name),
            delivery.tenant_id,
            delivery.event,
            text(delivery.url),
            delivery.attempt,
            delivery.will_retry,
            delivery.at,
            answer.duration_s,
            answer.status,
            answer.success,
            json_text(delivery.headers),
            text(delivery.body),
            text(answer.body),
            text(answer.error),
        ),
    )


def find_delivery(
    conn: sqlite3.Connection, owner: str, public_id: str, webhook_id: str | None = None
) -> HookDelivery | None:
    """Return one attempt of this owner, of this webhook where one is named; None when there is none."""
    # index hook_deliveries_public
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM hook_deliveries WHERE public_id = ?",  # noqa: S608 -- our own columns
        (text(public_id),),
    ).fetchone()
    found = None if row is None else _delivery(row)
    if found is None or found.owner != owner or webhook_id not in {None, found.webhook_id}:
        return None
    return found


def list_deliveries(
    conn: sqlite3.Connection, filters: Filters, page: int = 1, per_page: int = 30
) -> tuple[list[HookDelivery], int]:
    """Return one page of what matches, newest first, and how many match."""
    parts = list(_conditions(filters))
    where, values = " AND ".join(condition for condition, _ in parts), [value for _, value in parts]
    # index hook_deliveries_owner, which knows every column that is searched by
    source = f"FROM hook_deliveries INDEXED BY hook_deliveries_owner WHERE {where}"
    rows = conn.execute(
        f"SELECT {_COLUMNS} {source} ORDER BY at DESC LIMIT ? OFFSET ?",
        (*values, per_page, (max(page, 1) - 1) * per_page),
    ).fetchall()
    (total,) = conn.execute(f"SELECT count(*) {source}", values).fetchone()
    return [_delivery(row) for row in rows], total


def browse_deliveries(
    conn: sqlite3.Connection, filters: Filters, below: Mark | None = None, limit: int = 50
) -> tuple[list[HookDelivery], Taken]:
    """Return one page of what matches, newest first, and where the next one begins."""
    parts = [one for one in _conditions(filters) if one[0] != "owner = ?"]
    wanted = " AND ".join(condition for condition, _ in parts) or "1"
    values: list[object] = [*(value for _, value in parts), filters.owner]
    place = ""
    if below is not None:
        place = " AND at <= ? AND (at < ? OR id < ?)"
        values += [below.at, below.at, below.id]
    # index hook_deliveries_owner, which knows every column that is searched by
    rows = conn.execute(
        f"SELECT at, id, {wanted} FROM hook_deliveries INDEXED BY hook_deliveries_owner"  # noqa: S608 -- our own words
        f" WHERE owner = ?{place} ORDER BY at DESC, id DESC",
        values,
    )
    taken = take(((row[0], row[1], bool(row[2])) for row in rows), limit)
    found = [
        # primary key
        conn.execute(f"SELECT {_COLUMNS} FROM hook_deliveries WHERE id = ?", (id_,)).fetchone()  # noqa: S608 -- our own columns
        for id_ in taken.ids
    ]
    return [_delivery(row) for row in found], taken


def count_failures(conn: sqlite3.Connection, tenant_id: str | None, since: float, most: int = 1000) -> int:
    """Return how many attempts failed since then, counted up to ``most``: a tenant's, or for None the platform's too.

    No more than ten times as many attempts are looked at.
    """
    # index hook_deliveries_owner
    owners = [tenant_id] if tenant_id is not None else [one for (one,) in conn.execute(_OWNERS)]
    failed = 0
    for owner in owners:
        rows = conn.execute(
            "SELECT sum(NOT success) FROM (SELECT success FROM hook_deliveries INDEXED BY hook_deliveries_owner"
            " WHERE owner = ? AND at >= ? ORDER BY at DESC LIMIT ?)",
            (owner, since, 10 * most),
        )
        failed += rows.fetchone()[0] or 0
    return min(failed, most)


def prune(db: sqlite3.Connection, before: float, limit: int) -> int:
    """Delete up to ``limit`` of the oldest attempts that are from before that time; return how many went."""
    # primary key: times run along with the numbers but for jumps of the clock, which only delay this
    return db.execute(
        "DELETE FROM hook_deliveries WHERE at < ? AND id IN (SELECT id FROM hook_deliveries ORDER BY id LIMIT ?)",
        (before, limit),
    ).rowcount


def _conditions(filters: Filters) -> Iterator[tuple[str, object]]:
    yield "owner = ?", filters.owner
    for name, value in (
        ("webhook_id", text(filters.webhook_id)),
        ("tenant_id", text(filters.tenant_id)),
        ("event", text(filters.event)),
        ("success", filters.success),
    ):
        if value is not None:
            yield f"{name} = ?", value
    if filters.after is not None:
        yield "at >= ?", filters.after
    if filters.before is not None:
        yield "at <= ?", filters.before


def _delivery(row: Sequence[Any]) -> HookDelivery:
    (
        public_id,
        owner,
        webhook_id,
        webhook_name,
        tenant_id,
        event,
        url,
        attempt,
        will_retry,
        at,
        duration_s,
        status,
        _,
        headers,
        body,
        answer,
        error,
    ) = row
    return HookDelivery(
        public_id=public_id,
        owner=owner,
        webhook_id=webhook_id,
        webhook_name=webhook_name,
        tenant_id=tenant_id,
        event=event,
        url=url,
        attempt=attempt,
        will_retry=bool(will_retry),
        at=at,
        headers=json.loads(headers),
        body=body,
        answer=Answer(status, answer, error, duration_s),
    )
