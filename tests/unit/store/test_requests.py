"""The request log's rows: found by every filter along an index, and forgotten in steps."""

import sqlite3
from collections.abc import Sequence
from functools import partial
from itertools import count
from typing import Any

import pytest

from arkrelay.model.request import LoggedRequest
from arkrelay.model.settings import Retention
from arkrelay.store import requests
from arkrelay.store.database import Store
from arkrelay.store.prune import prune_step
from arkrelay.store.requests import Batch, RequestFilters

T0 = 1_800_000_000_000
_numbers = count(1)


def request(at_ms: int = T0, **more: Any) -> LoggedRequest:
    number = next(_numbers)
    base = LoggedRequest(
        request_id=f"req_{number:016d}",
        at_ms=at_ms,
        tenant_id="acme",
        credential_id="7",
        endpoint="emails.send",
        status=200,
        method="POST",
        path="/v1/emails",
        duration_ms=3,
        key_prefix="ark_live",
        address="192.0.2.1",
        user_agent="agent",
        idempotency_key=None,
        query=None,
        rate_limit=10,
        rate_remaining=9,
        rate_reset_at=1_800_000_001,
        limited=False,
        email_id=None,
        recipients=None,
        error_code=None,
        error=None,
        sdk=None,
        sdk_version=None,
        request_bytes=0,
        response_bytes=2,
    )
    return base._replace(**more)


def batch(*some: LoggedRequest, sealed: bytes | None = None) -> Batch:
    return Batch([requests.first_id(one.at_ms) + next(_numbers) for one in some], some, sealed)


async def insert(store: Store, *some: LoggedRequest) -> None:
    """Write requests, two in a batch."""
    batches = [batch(*some[at : at + 2]) for at in range(0, len(some), 2)]
    await store.write(lambda db: requests.insert(db, batches))


async def found(store: Store, page: int = 1, per_page: int = 30, **filters: Any) -> tuple[list[LoggedRequest], int]:
    wanted = RequestFilters(**filters)
    answer = await store.read(lambda db: requests.find(db, wanted, page, per_page))
    return answer.requests, answer.total


async def test_what_was_written_is_read_again_with_its_sealed_bodies(store: Store) -> None:
    one = request(query={"page": "2", "ü": ""}, recipients=3, email_id="x", error_code="c", error="m", limited=True)
    two = batch(request(), one, sealed=b"sealed")
    await store.write(lambda db: requests.insert(db, [two]))
    stored = await store.read(lambda db: requests.get(db, one.request_id, None))
    assert stored is not None
    assert (stored.request, stored.place, stored.sealed, stored.batch_id) == (one, 1, b"sealed", two.id)


async def test_another_tenants_request_is_as_unknown_as_one_that_never_was(store: Store) -> None:
    one = request(tenant_id="acme")
    await insert(store, one)
    for request_id, tenant_id, known in (
        (one.request_id, "acme", True),
        (one.request_id, None, True),
        (one.request_id, "other", False),
        (one.request_id, "", False),
        (one.request_id[:-1], None, False),
        ("req_\ud800", None, False),
    ):
        stored = await store.read(partial(requests.get, request_id=request_id, tenant_id=tenant_id))
        assert (stored is not None) is known, (request_id, tenant_id)


async def test_the_newest_is_first_whatever_the_order_of_writing(store: Store) -> None:
    late, early, middle = request(T0 + 2), request(T0), request(T0 + 1)
    await insert(store, late, early, middle)
    assert (await found(store))[0] == [late, middle, early]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        pytest.param({}, "dcba", id="all"),
        pytest.param({"tenant_id": "acme"}, "ba", id="tenant"),
        pytest.param({"tenant_id": ""}, "d", id="the-organisation"),
        pytest.param({"tenant_id": "nobody"}, "", id="nobody"),
        pytest.param({"credential_id": "8"}, "cb", id="credential"),
        pytest.param({"credential_id": "8", "tenant_id": "acme"}, "b", id="credential-of-tenant"),
        pytest.param({"endpoint": "emails.list"}, "db", id="endpoint"),
        pytest.param({"endpoint": "emails"}, "", id="endpoint-in-part"),
        pytest.param({"endpoint": "emails.list", "tenant_id": "acme"}, "b", id="endpoint-of-tenant"),
        pytest.param({"failed": True}, "cb", id="failed"),
        pytest.param({"failed": False}, "da", id="succeeded"),
        pytest.param({"failed": True, "tenant_id": "acme"}, "b", id="failed-of-tenant"),
        pytest.param({"status": 404}, "b", id="status"),
        pytest.param({"status": 404, "failed": True}, "b", id="status-that-failed"),
        pytest.param({"status": 404, "failed": False}, "", id="contradiction"),
        pytest.param({"from_ms": T0 + 20}, "dc", id="from"),
        pytest.param({"to_ms": T0 + 20}, "cba", id="to"),
        pytest.param({"from_ms": T0 + 10, "to_ms": T0 + 20, "tenant_id": "acme"}, "b", id="range-of-tenant"),
        pytest.param({"from_ms": T0 + 11, "to_ms": T0 + 19}, "", id="between"),
        pytest.param({"from_ms": -(10**30), "to_ms": 10**30}, "dcba", id="absurd-range"),
        pytest.param({"from_ms": 10**30}, "", id="far-future"),
        pytest.param({"request_id": "req_aaaaaaaaaaaaaaaa"}, "a", id="whole-id"),
        pytest.param({"request_id": "aaaa"}, "a", id="part-of-id"),
        pytest.param({"request_id": "AAAA"}, "", id="ids-have-cases"),
        pytest.param({"request_id": "req_"}, "dcba", id="common-part"),
        pytest.param({"request_id": "c_c%c"}, "c", id="signs-are-signs"),
        pytest.param({"request_id": "%"}, "c", id="percent"),
        pytest.param({"request_id": "a_a"}, "", id="underscore"),
        pytest.param({"request_id": "'; --\ud800"}, "", id="rubbish"),
        pytest.param({"request_id": "req_aaaaaaaaaaaaaaaa", "tenant_id": "other"}, "", id="whole-foreign-id"),
    ],
)
async def test_every_filter_finds_what_it_names_and_no_more(
    store: Store, filters: dict[str, Any], expected: str
) -> None:
    some = {
        "a": request(T0, request_id="req_aaaaaaaaaaaaaaaa"),
        "b": request(T0 + 10, credential_id="8", endpoint="emails.list", status=404),
        "c": request(T0 + 20, credential_id="8", tenant_id="other", status=500, request_id="req_ccccc_c%cccccccc"),
        "d": request(T0 + 30, credential_id="9", tenant_id="", endpoint="emails.list"),
    }
    await insert(store, *some.values())
    rows, total = await found(store, **filters)
    assert "".join(name for row in rows for name, one in some.items() if one == row) == expected
    assert total == len(expected)


async def test_pages_follow_each_other_and_one_past_the_end_is_empty(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = [request(T0 + number) for number in range(7)]
    await insert(store, *some)
    for page, expected in ((1, some[6:3:-1]), (2, some[3:0:-1]), (3, some[:1]), (4, []), (2**31, [])):
        assert await found(store, page, 3) == (expected, 7)
    monkeypatch.setattr(requests, "COUNT_MAX", 4)
    # a client that goes from page to page finds all of them, though nobody has counted to the end
    assert [(await found(store, page, 3))[1] for page in (1, 2, 3)] == [4, 7, 7]


SEARCHES = [
    {},
    {"tenant_id": "acme"},
    {"tenant_id": "acme", "failed": True},
    {"tenant_id": "acme", "endpoint": "x", "status": 200, "credential_id": None},
    {"credential_id": "7"},
    {"credential_id": "7", "failed": True, "tenant_id": "acme"},
    {"endpoint": "emails.send"},
    {"endpoint": "emails.send", "failed": True},
    {"failed": True},
    {"failed": False},
    {"status": 404},
    {"status": 404, "endpoint": "x"},
    {"request_id": "abc"},
    {"request_id": "req_aaaaaaaaaaaaaaaa", "tenant_id": "acme"},
    {"from_ms": T0, "to_ms": T0 + 5},
]


async def test_no_search_reads_the_table_as_a_whole_or_sorts_it(store: Store) -> None:
    await insert(store, *(request(T0 + number) for number in range(3)))

    def plans(db: sqlite3.Connection) -> Sequence[str]:
        seen: list[str] = []
        db.set_trace_callback(seen.append)
        for search in SEARCHES:
            requests.find(db, RequestFilters(**search), 1, 1)  # type: ignore[arg-type]  # a table of keywords
        requests.get(db, "req_x", "acme")
        requests.prune(db, T0 / 1000 + 1, 1)
        db.set_trace_callback(None)
        return [
            row[3]
            for sql in seen
            if sql.startswith(("SELECT", "DELETE"))
            for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")
        ]

    found_plans = await store.write(plans)
    assert len(found_plans) > 2 * len(SEARCHES)
    for line in found_plans:
        assert not line.startswith("SCAN") or line == "SCAN (subquery-1)", line
        assert "TEMP B-TREE" not in line
    for index in ("public", "tenant", "credential", "endpoint", "status", "failed"):
        assert any(f"requests_{index} " in line for line in found_plans), index


async def test_what_is_old_goes_in_steps_and_a_batch_with_its_last_request(store: Store) -> None:
    def counts(db: sqlite3.Connection) -> tuple[int, int]:
        return tuple(
            db.execute(f"SELECT count(*) FROM {one}").fetchone()[0] for one in ("requests", "request_batches")
        )

    await insert(store, *(request(T0 + number * 1000) for number in range(8)))
    steps = 0
    while await store.write(lambda db: requests.prune(db, T0 / 1000 + 3, 2)):
        steps += 1
    assert steps >= 1
    assert await store.read(counts) == (5, 3)  # the second batch has one that is too young
    assert len((await found(store))[0]) == 5
    day = 86400.0
    now = T0 / 1000 + 14 * day
    while await store.write(lambda db: prune_step(db, now + 6, Retention())):
        pass
    assert await store.read(counts) == (2, 1)
    await store.write(lambda db: prune_step(db, now + 60 * day, Retention(request_log_s=1e10)))
    assert await store.read(counts) == (2, 1)


async def test_they_survive_a_restart(store: Store) -> None:
    one = request()
    await insert(store, one)
    directory = store.directory
    store.close()
    again = Store.open(directory)
    try:
        assert await found(again) == ([one], 1)
    finally:
        again.close()
