"""A large queue costs by what is asked of it and not by how much waits; see tests/bench/scale.py for a million rows.

What SQLite does is counted in steps of its virtual machine, which are the same on every machine.
"""

import sqlite3
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bench.backlog import Backlog, fill
from unit.store.build import steps

from arkrelay.model.settings import Retention
from arkrelay.policy.schedule import Schedule
from arkrelay.store import deadlines, place, prune, queue, usage
from arkrelay.store.connection import Connection, connect_writer

BACKLOG = Backlog(rows=50_000, destinations=2000, dead=20)
NOW = time.time()
BUSY = BACKLOG.destination(0)  # the destination with the most


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = tmp_path_factory.mktemp("large") / "state"
    fill(state, BACKLOG, NOW)
    return state / place.DATABASE


@pytest.fixture
def db(database: Path) -> Iterator[Connection]:
    opened = connect_writer(database)
    opened.execute("BEGIN IMMEDIATE")
    yield opened
    opened.execute("ROLLBACK")
    opened.close()


@pytest.mark.parametrize(
    ("job", "most"),
    [
        pytest.param(lambda db: queue.claim(db, BUSY, "acme", NOW + 86400, 50, 1), 10_000, id="claim-of-50"),
        pytest.param(lambda db: queue.next_due(db, BUSY, "acme"), 200, id="next-due"),
        pytest.param(lambda db: queue.recover(db, {}, False, 2, NOW), 1000, id="recover"),
        pytest.param(queue.next_ids, 200, id="next-ids"),
        pytest.param(queue.tenants_waiting, 1000, id="tenants-waiting"),
        pytest.param(usage.totals, 1000, id="totals"),
        pytest.param(lambda db: deadlines.lease_expired(db, NOW, 500, 1), 200, id="expired"),
        pytest.param(lambda db: prune.expired_held(db, NOW), 200, id="held"),
        pytest.param(lambda db: prune.prune_step(db, NOW, Retention()), 40_000, id="prune-step"),
    ],
)
def test_what_is_done_all_the_time_takes_as_many_steps_as_with_a_small_queue(
    db: Connection, job: Callable[[Connection], object], most: int
) -> None:
    assert steps(db, job) <= most


def test_the_start_walks_over_one_index_and_reads_no_row(db: Connection) -> None:
    for job in (queue.due_by_share, lambda db: queue.bring_forward(db, NOW + 10 * 86400)):
        asked: list[str] = []
        db.set_trace_callback(asked.append)
        taken = steps(db, job)
        db.set_trace_callback(None)
        assert taken <= 25 * BACKLOG.rows
        selects = [sql for sql in asked if sql.startswith("SELECT")]
        assert len(selects) == 1
        assert _columns_of_the_table(db, selects[0]) == 0


def _columns_of_the_table(db: sqlite3.Connection, sql: str) -> int:
    """Return how many instructions read a column from the table itself; its cursor is the one on its root page."""
    (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'recipients'").fetchone()
    program = db.execute(f"EXPLAIN {sql}").fetchall()
    (cursor,) = (p1 for _, opcode, p1, p2, *_ in program if opcode == "OpenRead" and p2 == root)
    return sum(opcode == "Column" and p1 == cursor for _, opcode, p1, *_ in program)


def test_the_schedule_knows_a_time_for_each_destination_and_tenant_and_nothing_of_the_rows(db: Connection) -> None:
    due = queue.due_by_share(db)
    assert 0.9 * BACKLOG.destinations * len(BACKLOG.tenants) < len(due) <= BACKLOG.destinations * len(BACKLOG.tenants)
    tracemalloc.start()
    schedule = Schedule()
    for destination, tenant_id, at in due:
        schedule.note_due(destination, tenant_id, at)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size / len(due) < 450, "bytes for each: a million rows may have 50 000 of them"
    assert len(schedule._heap) <= len(due)
    assert len(schedule.due(NOW + 10 * 86400)) == len(schedule.lanes) <= BACKLOG.destinations
    assert schedule._heap == []
