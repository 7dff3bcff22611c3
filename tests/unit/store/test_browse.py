"""A page of a long list begins below the last one, shows each row once, and costs what it shows."""

import time
from collections.abc import Callable, Iterator
from dataclasses import fields

import pytest
from bench.backlog import Backlog, fill
from hypothesis import given
from hypothesis import strategies as st
from unit.store.build import steps

from arkrelay.model.message import Status
from arkrelay.store import browse, history, hooks, place, requests, suppressions
from arkrelay.store.browse import LOOKED, Counted, Leaf, Mark, Taken, take
from arkrelay.store.connection import Connection, connect
from arkrelay.store.find import Filters
from arkrelay.store.requests import RequestFilters
from arkrelay.store.suppressions import Entries

BACKLOG = Backlog(rows=30_000, destinations=2000, dead=0)
NOW = time.time()
EVERYTHING = (
    Filters(),
    Filters(tenant_id="acme"),
    Filters(statuses=(Status.SOFTFAIL,)),
    Filters(tenant_id="beta", statuses=(Status.SOFTFAIL, Status.PENDING)),
    Filters(sender="app@sender.test"),
    Filters(sender="app@sender.test", statuses=(Status.PENDING,)),
    Filters(domain="d0.test"),
    Filters(tenant_id="acme", domain="d3.test", statuses=(Status.PENDING,)),
    Filters(address="user1@d0.test"),
    Filters(tag="none"),
    Filters(after=NOW - 7200, before=NOW - 3600),
    Filters(tenant_id="nobody"),
)


def _asked(filters: Filters) -> str:
    """Return what is asked for, without its values: times differ from run to run."""
    return "-".join(one.name for one in fields(filters) if getattr(filters, one.name) != one.default) or "all"


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    state = tmp_path_factory.mktemp("browse") / "state"
    fill(state, BACKLOG, NOW)
    opened = connect(state / place.DATABASE)
    yield opened
    opened.close()


def walk(db: Connection, filters: Filters, limit: int = 997) -> list[int]:
    """Turn pages to the end, and return all ids."""
    seen: list[int] = []
    below: Mark | None = None
    while True:
        leaf = browse.recipients(db, filters, below, limit)
        seen += [one.id for one in leaf.recipients]
        if leaf.older is None:
            return seen
        below = leaf.older


@pytest.mark.parametrize("filters", EVERYTHING, ids=_asked)
def test_turning_pages_shows_each_row_once_newest_first(db: Connection, filters: Filters) -> None:
    given = {
        "r.tenant_id": filters.tenant_id,
        "m.author": filters.sender,
        "r.domain": filters.domain,
        "r.address": filters.address,
        "m.tag": filters.tag,
    }
    wanted = ["1", *(f"{column} = '{value}'" for column, value in given.items() if value)]
    if filters.statuses:
        wanted.append(f"r.status IN ({', '.join(repr(one.value) for one in filters.statuses)})")
    if filters.after and filters.before:
        wanted.append(f"r.accepted_at BETWEEN {filters.after!r} AND {filters.before!r}")
    rows = db.execute(
        f"SELECT r.id FROM recipients r JOIN messages m ON m.id = r.message_id WHERE {' AND '.join(wanted)}"
        " ORDER BY r.accepted_at DESC, r.id DESC"
    )
    assert walk(db, filters) == [id_ for (id_,) in rows]


@pytest.mark.parametrize("filters", EVERYTHING, ids=_asked)
@pytest.mark.parametrize("deep", [False, True], ids=["newest", "deep"])
def test_a_page_costs_what_it_looks_at_and_sorts_nothing(db: Connection, filters: Filters, deep: bool) -> None:
    below = Mark(NOW - 80_000, 2000) if deep else None
    assert steps(db, lambda db: browse.recipients(db, filters, below, 50)) < 40 * LOOKED
    for sql, values in browse._walks(db, filters, below):
        for *_, detail in db.execute(f"EXPLAIN QUERY PLAN {sql}", values):
            assert not detail.startswith("SCAN"), detail
            assert "USE TEMP B-TREE FOR ORDER BY" not in detail


@pytest.mark.parametrize("filters", EVERYTHING, ids=_asked)
def test_what_matches_is_counted_with_few_looks_and_without_a_scan(db: Connection, filters: Filters) -> None:
    n = len(walk(db, filters))
    assert browse.count(db, filters, 10**9) == Counted(n)
    few = browse.count(db, filters, 10)
    assert few.n <= n
    assert few.unfinished or few.n == n
    assert steps(db, lambda db: browse.count(db, filters)) < 40 * LOOKED
    for sql, values in browse._walks(db, filters, by_state=True):
        for *_, detail in db.execute(f"EXPLAIN QUERY PLAN {sql}", values):
            assert not detail.startswith("SCAN"), detail
            assert "USE TEMP B-TREE FOR ORDER BY" not in detail


def test_a_page_without_a_filter_reads_little_more_than_it_shows(db: Connection) -> None:
    for filters in EVERYTHING[:4]:
        assert steps(db, lambda db, filters=filters: browse.recipients(db, filters, None, 50)) < 15_000  # type: ignore[misc]


@pytest.mark.parametrize(
    "job",
    [
        pytest.param(lambda db: browse.oldest(db, None, Status.PENDING), id="oldest"),
        pytest.param(lambda db: hooks.count_failures(db, None, 0), id="hook-failures"),
        pytest.param(lambda db: hooks.browse_deliveries(db, hooks.Filters(owner="acme", success=False)), id="hooks"),
        pytest.param(lambda db: suppressions.browse(db, "acme", Entries()), id="suppressions"),
        pytest.param(history.newest_events, id="events"),
        pytest.param(lambda db: history.newest_events(db, Mark(0, 99), tenant_id="acme"), id="events-of-a-tenant"),
        pytest.param(lambda db: requests.browse(db, RequestFilters()), id="requests"),
        pytest.param(lambda db: requests.browse(db, RequestFilters(tenant_id="acme", failed=True)), id="refused"),
    ],
)
def test_no_other_list_scans_or_sorts(db: Connection, job: Callable[[Connection], object]) -> None:
    asked: list[str] = []
    db.set_trace_callback(asked.append)
    job(db)
    db.set_trace_callback(None)
    for sql in asked:
        for *_, detail in db.execute(f"EXPLAIN QUERY PLAN {sql}"):
            assert not scans(detail), (sql, detail)
            assert "TEMP B-TREE FOR ORDER BY" not in detail, (sql, detail)


def scans(detail: str) -> bool:
    """Return whether a step goes through a table; the end of a primary key, or a step of a subquery, is no scan."""
    walked = ("SCAN events", "SCAN requests", "SCAN (", "SCAN owners", "SCAN CONSTANT")
    return detail.startswith("SCAN") and not detail.startswith(walked)


@given(
    st.lists(st.booleans(), max_size=60),
    st.integers(1, 10),
    st.integers(1, 20),
)
def test_short_reads_together_find_all_of_it(wanted: list[bool], limit: int, most: int) -> None:
    rows = [(float(100 - n), 100 - n, one) for n, one in enumerate(wanted)]
    found: list[int] = []
    below = 101
    for _ in range(len(rows) + 2):
        taken = take((row for row in rows if row[1] < below), limit, most)
        assert len(taken.ids) <= limit
        found += taken.ids
        if taken.older is None:
            break
        below = taken.older.id
    assert found == [id_ for _, id_, one in rows if one]


def test_a_full_page_at_the_end_leads_nowhere() -> None:
    assert take([(2.0, 2, True), (1.0, 1, True)], 2) == Taken([2, 1], None)
    assert take([(2.0, 2, True), (1.0, 1, True)], 1) == Taken([2], Mark(2.0, 2))


def test_an_empty_database_has_an_empty_page() -> None:
    assert Leaf([], None, unfinished=False).recipients == []
    assert take([], 5) == Taken([], None)
