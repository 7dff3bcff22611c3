"""Group commit: together and durable, failing alone, and what happens when the database is in trouble."""

import asyncio
import ctypes
import errno
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from unit.store.build import NOW, Faults, accept, count, outcome, settle, until

from arkrelay.model.errors import Conflict, StoreError, StoreFull
from arkrelay.model.message import Status
from arkrelay.store import lists, place, queue, usage, writer
from arkrelay.store.connection import Connection, connect
from arkrelay.store.database import Store
from arkrelay.store.jobs import Failed
from arkrelay.store.outcomes import apply

FULL_BYTES = 64 * 1024 * 1024


async def gate(store: Store) -> threading.Event:
    """Hold the writer until the event is set, so that what is submitted meanwhile becomes one batch."""
    started, opened = threading.Event(), threading.Event()

    def job(_db: Connection) -> None:
        started.set()
        opened.wait(10)

    store.write_later(job)
    await asyncio.to_thread(started.wait, 10)
    return opened


async def test_jobs_that_wait_share_one_transaction(store: Store) -> None:
    opened = await gate(store)
    before = store._writer.batches

    def job(db: Connection, n: int) -> int:
        lists.set_note(db, f"n{n}", "x")
        return n

    writes = [asyncio.ensure_future(store.write(partial(job, n=n))) for n in range(50)]
    await asyncio.sleep(0)
    opened.set()
    assert await asyncio.gather(*writes) == list(range(50))
    assert store._writer.batches == before + 2  # the gate's own, and one for all of them


async def test_items_of_one_job_are_done_together_and_each_gets_its_result(store: Store) -> None:
    opened = await gate(store)
    calls: list[list[int]] = []
    told: dict[int, object] = {}

    def job(db: Connection, items: Sequence[int]) -> list[int]:
        calls.append(list(items))
        for n in items:
            if n == 3:
                raise Conflict("not this one")
            lists.set_note(db, f"n{n}", "x")
        return [n * n for n in items]

    for n in range(5):
        store.write_together(job, n, partial(told.__setitem__, n))
        store.write_later(lambda db: lists.set_note(db, "between", "x"))
    opened.set()
    await asyncio.to_thread(until, lambda: len(told) == 5)
    assert calls == [[0, 1, 2, 3, 4], [0], [1], [2], [3], [4]]
    refused = told.pop(3)
    assert isinstance(refused, Failed)
    assert isinstance(refused.error, Conflict)
    assert told == {0: 0, 1: 1, 2: 4, 4: 16}
    assert await store.read(lambda db: [lists.get_note(db, f"n{n}") for n in range(5)]) == ["x", "x", "x", None, "x"]


async def test_a_failing_job_is_undone_alone(store: Store) -> None:
    def bad(db: Connection) -> None:
        lists.set_note(db, "bad", "x")
        usage.count(db, (usage.TOTAL, "acme", "pending"), 100)
        db.after_commit.append(lambda: called.append("bad"))
        raise Conflict("no")

    def good(db: Connection, name: str) -> None:
        lists.set_note(db, name, "x")
        usage.count(db, (usage.TOTAL, "acme", "pending"), 1)
        db.after_commit.append(lambda: called.append(name))

    called: list[str] = []
    opened = await gate(store)
    writes = [
        asyncio.ensure_future(store.write(lambda db: good(db, "one"))),
        asyncio.ensure_future(store.write(bad)),
        asyncio.ensure_future(store.write(lambda db: db.execute("INSERT INTO notes VALUES (NULL, NULL)"))),
        asyncio.ensure_future(store.write(lambda db: good(db, "two"))),
    ]
    await asyncio.sleep(0)
    opened.set()
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert results[0] is results[3] is None
    assert isinstance(results[1], Conflict)
    assert isinstance(results[2], StoreError)
    assert await store.read(lambda conn: [row[0] for row in conn.execute("SELECT name FROM notes")]) == ["one", "two"]
    assert (await store.read(lambda conn: usage.totals(conn, "acme")))[Status.PENDING] == 2
    assert called == ["one", "two"]
    assert store.healthy is None


async def test_a_cancelled_caller_does_not_recall_its_job(store: Store) -> None:
    opened = await gate(store)
    task = asyncio.ensure_future(store.write(lambda db: lists.set_note(db, "kept", "x")))
    await asyncio.sleep(0)
    task.cancel()
    opened.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.write(lambda db: None)  # a batch after it
    assert await store.read(lambda conn: lists.get_note(conn, "kept")) == "x"


async def test_a_later_job_rides_with_the_next_batch_and_comes_before_it(store: Store) -> None:
    order: list[str] = []
    done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    store.write_later(lambda db: order.append("later"), done.set_result)
    await store.write(lambda db: order.append("now"))
    assert order == ["later", "now"]
    assert await done is None


async def test_a_later_job_goes_alone_when_nobody_writes(store: Store) -> None:
    done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    started = time.monotonic()
    store.write_later(lambda db: lists.set_note(db, "later", "x"), done.set_result)
    assert await done is None
    assert time.monotonic() - started < 5
    assert await store.read(lambda conn: lists.get_note(conn, "later")) == "x"


async def test_a_later_job_that_raises_says_so(store: Store) -> None:
    done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    store.write_later(lambda db: db.execute("INSERT INTO nowhere VALUES (1)"), done.set_result)
    assert isinstance(await done, StoreError)


async def test_closing_writes_what_waits(state_dir: Path) -> None:
    store = Store.open(state_dir)
    store.write_later(lambda db: lists.set_note(db, "last", "x"))
    await asyncio.to_thread(store.close)
    store = Store.open(state_dir)
    assert await store.read(lambda conn: lists.get_note(conn, "last")) == "x"
    store.close()


async def test_only_a_job_may_count(store: Store) -> None:
    with pytest.raises(RuntimeError):
        store.add((usage.GRANTED, "acme", "", 0), 1)
    await store.write(lambda db: store.add((usage.GRANTED, "acme", "", 3600), 2))
    assert await store.read(lambda conn: usage.granted_since(conn, "acme", 3600)) == 2


async def test_a_commit_that_fails_keeps_nothing_and_the_store_recovers(state_dir: Path) -> None:
    faults = Faults()
    store = Store.open(state_dir, factory=faults.factory())
    faults.fail_on = "COMMIT"
    with pytest.raises(StoreError):
        await accept(store)
    one = await accept(store)  # opened again, and checked
    assert await store.read(lambda conn: count(conn, "messages")) == 1
    assert (await store.read(lambda conn: queue.load_recipient(conn, one.id))).token == one.token
    assert store.healthy is None
    store.close()


async def test_an_essential_job_outlives_a_failing_disk(state_dir: Path) -> None:
    faults = Faults()
    store = Store.open(state_dir, factory=faults.factory())
    one = await accept(store, leased=True)
    faults.fail_on, faults.times = "COMMIT", 1
    done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    store.write_later(lambda db: apply(db, [outcome(one)]), done.set_result)
    assert await done is None
    assert (await store.read(lambda conn: queue.load_recipient(conn, one.id))).status is Status.SENT
    store.close()


async def test_damage_at_run_time_stops_all_writing_and_keeps_the_file(state_dir: Path) -> None:
    faults = Faults()
    store = Store.open(state_dir, factory=faults.factory())
    faults.fail_on, faults.code = "INSERT INTO messages", sqlite3.SQLITE_CORRUPT
    with pytest.raises(StoreError, match="damaged"):
        await accept(store)
    assert store.healthy == "the database is damaged"
    with pytest.raises(StoreError, match="damaged"):
        await accept(store)
    done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    store.write_later(lambda db: None, done.set_result)
    assert isinstance(await done, StoreError)
    store.close()
    assert store.path.exists()


async def test_every_fault_leaves_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The N-th call to the database fails, for every N until none is left to fail."""
    monkeypatch.setattr(writer, "RETRY_S", 0.01)
    for code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CONSTRAINT):
        n = 0
        while True:
            n += 1
            faults = Faults()
            store = Store.open(tmp_path / f"{code}-{n}", factory=faults.factory())
            faults.calls, faults.fail_at, faults.code = 0, n, code
            acknowledged = []
            for number in range(2):
                try:
                    one = await accept(store, f"b{number}@dest.test", leased=True)
                except StoreError:
                    continue
                acknowledged.append(one.id)
                await settle(store, one)
            hit = faults.times == 0
            found = await store.read(lambda conn: conn.execute("SELECT id, status, lease FROM recipients").fetchall())
            assert found == [(id_, "sent", 0) for id_ in acknowledged]
            for table, each in (("messages", 1), ("bodies", 1), ("events", 2), ("attempts", 1)):
                assert await store.read(partial(count, table=table)) == each * len(acknowledged), (n, table)
            totals = await store.read(lambda conn: usage.totals(conn, "acme"))
            assert totals[Status.SENT] == sum(totals.values()) == len(acknowledged)
            assert len(acknowledged) >= 1
            store.close()
            Store.open(tmp_path / f"{code}-{n}").close()
            if not hit:
                assert len(acknowledged) == 2
                assert n > 10
                break


_LOCKER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
db.execute("ROLLBACK")
print("free", flush=True)
"""


@pytest.fixture
def locker(store: Store) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", _LOCKER, str(store.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    yield process
    process.communicate("\n")


async def test_a_short_lock_of_another_process_is_waited_out(store: Store, locker: subprocess.Popen[str]) -> None:
    write = asyncio.ensure_future(accept(store))
    await asyncio.sleep(0)
    assert locker.stdin is not None
    locker.stdin.write("\n")
    locker.stdin.flush()
    assert (await write).id == 1
    assert store.healthy is None


async def test_a_long_lock_is_said_and_results_are_kept_until_it_ends(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await accept(store, leased=True)
    monkeypatch.setattr(writer, "LOCKED_S", 0.0)
    other = connect(store.path)
    other.execute("BEGIN IMMEDIATE")
    done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    store.write_later(lambda db: apply(db, [outcome(one)]), done.set_result)
    with pytest.raises(StoreError, match="locked"):
        await accept(store)
    assert store.healthy == "the database is locked by another process"
    assert not done.done()
    other.execute("ROLLBACK")
    other.close()
    assert await done is None
    assert (await store.read(lambda conn: queue.load_recipient(conn, one.id))).status is Status.SENT
    assert store.healthy is None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB; where that cannot be mounted the test is skipped, but never in CI."""
    where = tmp_path / "disk"
    where.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"size={FULL_BYTES},mode=0700".encode()
    if libc.mount(b"none", str(where).encode(), b"tmpfs", 0, options) != 0:
        reason = f"cannot mount a tmpfs: {os.strerror(ctypes.get_errno())}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    yield where
    assert libc.umount2(str(where).encode(), 2) == 0


def fill(ballast: Path) -> None:
    """Take all room that is left, to the last block."""
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 512):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError as exc:
                assert exc.errno == errno.ENOSPC  # noqa: PT017 -- the loop ends with it, for each size


async def accept_until_full(store: Store) -> int:
    """Accept what still fits into the WAL, and return how many messages that were."""
    for number in range(1000):
        try:
            await accept(store, content=b"x" * 200_000)
        except StoreFull:
            return number
    raise AssertionError("the disk was never full")


async def test_a_full_disk_refuses_mail_and_still_records_deliveries(small_disk: Path) -> None:
    store = Store.open(small_disk / "state")
    leased = [await accept(store, content=b"x" * 4000, leased=True) for _ in range(200)]
    ballast = small_disk / "ballast"
    fill(ballast)
    kept = len(leased) + await accept_until_full(store)
    assert store.healthy == "the disk is full"
    assert (store.directory / "reserve").exists()  # nothing essential has needed it so far
    with pytest.raises(StoreFull):
        await store.save_large(9999, b"x" * 40_000_000)

    for one in leased:
        await settle(store, one)
    assert (await store.read(usage.totals))[Status.SENT] == 200
    assert not (store.directory / "reserve").exists()
    with pytest.raises(StoreFull):
        await accept(store)

    ballast.unlink()
    await asyncio.to_thread(until, lambda: store.healthy is None)  # with no traffic at all
    await accept(store)
    assert (store.directory / "reserve").stat().st_size == place.RESERVE_BYTES
    assert await store.read(lambda conn: count(conn, "messages")) == kept + 1
    store.close()
    Store.open(small_disk / "state").close()


async def test_a_store_that_closes_on_a_full_disk_opens_again(small_disk: Path) -> None:
    store = Store.open(small_disk / "state")
    one = await accept(store, leased=True)
    fill(small_disk / "ballast")
    await accept_until_full(store)
    store.write_later(lambda db: apply(db, [outcome(one)]))
    await asyncio.to_thread(store.close)
    (small_disk / "ballast").unlink()
    store = Store.open(small_disk / "state")
    assert (await store.read(lambda conn: queue.load_recipient(conn, one.id))).status is Status.SENT
    store.close()


async def test_the_wal_begins_anew_under_load(store: Store) -> None:
    wal = store.path.with_name("arkrelay.db-wal")
    for _ in range(16):
        await asyncio.gather(*(accept(store, content=b"x" * 200_000) for _ in range(40)))
    assert wal.stat().st_size < 80 * 1024 * 1024  # 128 MB were written
    assert await store.read(lambda conn: count(conn, "bodies")) == 640


async def test_commits_do_not_wait_for_a_long_reader(store: Store) -> None:
    await accept(store)
    reading, release = threading.Event(), threading.Event()

    def read(conn: sqlite3.Connection) -> int:
        before = count(conn, "messages")
        reading.set()
        release.wait(10)
        assert count(conn, "messages") == before
        return before

    slow = asyncio.ensure_future(store.read(read))
    await asyncio.to_thread(reading.wait, 10)
    store._writer.restart_wanted = True
    started = time.monotonic()
    await accept(store, at=NOW + 1)
    assert time.monotonic() - started < 4  # the busy timeout, which a restart of the WAL must not use up
    release.set()
    assert await slow == 1


async def test_results_wait_when_even_the_reserve_is_not_enough(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "RETRY_S", 0.01)
    faults = Faults()
    store = Store.open(state_dir, factory=faults.factory())
    one = await accept(store, leased=True)
    monkeypatch.setattr(place.Reserve, "restore", lambda _self: False)
    faults.fail_on, faults.code, faults.times = "COMMIT", sqlite3.SQLITE_FULL, 5
    done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    store.write_later(lambda db: apply(db, [outcome(one)]), done.set_result)
    with pytest.raises(StoreFull):
        await accept(store)
    assert await done is None
    assert faults.times == 0
    assert "full" in str(store.healthy)  # what was written fitted, but nothing new is accepted yet
    monkeypatch.undo()
    await accept(store)
    assert store.healthy is None
    store.close()


@pytest.mark.parametrize("fails", [1, 3])
async def test_a_database_that_does_not_open_again_is_tried_again(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    monkeypatch.setattr(writer, "RETRY_S", 0.01)
    faults = Faults()
    store = Store.open(state_dir, factory=faults.factory())
    one = await accept(store, leased=True)
    faults.fail_on, faults.times = "COMMIT", 1
    done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    connect_again = store._writer._connect

    def not_yet() -> Connection:
        nonlocal fails
        fails -= 1
        if fails >= 0:
            raise sqlite3.OperationalError("still failing")
        return connect_again()

    store._writer._connect = not_yet
    store.write_later(lambda db: apply(db, [outcome(one)]), done.set_result)
    assert await done is None
    assert fails == -1
    assert store.healthy is None
    store.close()


async def test_damage_found_after_an_io_error_stops_all_writing(state_dir: Path) -> None:
    faults = Faults()
    store = Store.open(state_dir, factory=faults.factory())
    one = await accept(store, leased=True)

    def found_damage(_db: Connection) -> None:
        raise StoreError("damaged: a page")

    store._writer._check = found_damage
    faults.fail_on, faults.times = "COMMIT", 1
    with pytest.raises(StoreError, match="input/output"):
        await accept(store)
    with pytest.raises(StoreError):
        await store.write(lambda db: apply(db, [outcome(one)]), essential=True)
    assert store.healthy == "the database is damaged"
    store.close()


async def test_what_waits_when_a_failing_store_closes_is_told(state_dir: Path) -> None:
    faults = Faults()
    store = Store.open(state_dir, factory=faults.factory())
    faults.fail_on, faults.times = "COMMIT", 10**6
    done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    store.write_later(lambda db: lists.set_note(db, "a", "b"), done.set_result)
    await asyncio.to_thread(store.close)
    assert isinstance(await done, StoreError)
    store = Store.open(state_dir)
    assert await store.read(lambda conn: lists.get_note(conn, "a")) is None
    store.close()


async def test_a_writer_that_crashes_refuses_all_later_work(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(state_dir)
    monkeypatch.setattr(threading, "excepthook", lambda _args: None)  # the thread's end is what is tested

    def crash(_db: Connection) -> None:
        raise SystemExit("a job must not end the process")

    opened = await gate(store)
    crashing = asyncio.ensure_future(store.write(crash))
    await asyncio.sleep(0)
    opened.set()
    await asyncio.to_thread(until, lambda: store.healthy is not None)
    assert store.healthy == "the writer has crashed"
    with pytest.raises(StoreError):
        await accept(store)
    with pytest.raises(StoreError, match="crashed"):
        await crashing
    store.close()


async def test_a_job_that_ends_its_transaction_fails_with_its_batch(state_dir: Path) -> None:
    store = Store.open(state_dir)

    def bad(db: Connection) -> None:
        db.execute("ROLLBACK")
        raise ValueError("bad")

    with pytest.raises(StoreError):
        await store.write(bad)
    await accept(store)
    store.close()


def test_outside_of_a_loop_the_callback_runs_all_the_same(store: Store) -> None:
    done = threading.Event()
    results: list[Exception | None] = []

    def settled(error: Exception | None) -> None:
        results.append(error)
        done.set()
        raise ValueError("a bug of the caller, which is logged")

    store.write_later(lambda db: lists.set_note(db, "a", "b"), settled)
    assert done.wait(10)
    assert results == [None]
    store.write_later(lambda db: db.execute("INSERT INTO nowhere VALUES (1)"))  # nobody listens: it is logged
    store.write_later(lambda db: lists.set_note(db, "c", "d"), settled)
    assert done.wait(10)


async def test_a_slow_disk_makes_the_writer_linger_for_few(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    store._writer._commit_s = 0.02
    await accept(store)
    store._writer._commit_s = 1.0
    await accept(store)
    assert waits == [pytest.approx(0.003), 0.010]
    store._writer._commit_s = 0.0
    await accept(store)
    assert len(waits) == 2


async def test_a_checkpoint_that_fails_disturbs_nobody(state_dir: Path) -> None:
    store = Store.open(state_dir)
    failed = threading.Event()

    def fails() -> Connection:
        failed.set()
        raise sqlite3.OperationalError("no checkpoint today")

    store._checkpointer._connect = fails
    await accept(store)
    assert await asyncio.to_thread(failed.wait, 10)
    await accept(store)
    assert store.healthy is None
    store.close()
