"""The one thread that writes: jobs of many coroutines in one transaction and one fsync.

Group commit has no fixed delay. Whatever waits is taken (at most ``BATCH`` jobs), committed, and meanwhile
the next batch gathers by itself; a fixed wait of 2 ms halved the rate. Only where a commit is slow and few
wait does the writer linger a little, because a batch that just missed them costs each of them two commits.

A job may be run twice: when one of a batch raises, everything is rolled back and each job runs again in a
savepoint of its own, so that the one that raises is undone alone. The usual batch pays nothing for that.

Essential jobs (results of deliveries, which are true whether or not there is room to write them) are not
given up when the disk is full, the database locked or the disk failing: they stay first in line until
they are written or the store closes. All others get ``StoreError`` and their submitter is told to come again.
"""

import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from arkrelay.model.errors import StoreError, StoreFull
from arkrelay.store import usage
from arkrelay.store.connection import JOURNAL_LIMIT_BYTES, Connection, Trouble, store_error, trouble_of
from arkrelay.store.jobs import Failed, Waiting, run, settle
from arkrelay.store.place import Reserve

log = structlog.get_logger()

BATCH = 1000  # jobs in one transaction
LATER_S = 0.05  # a job of ``write_later`` waits at most so long for a batch to ride with
RETRY_S = 1.0  # between tries while the database is in trouble
LOCKED_S = 10.0  # how long another process may hold the database before submitters hear 451; clients wait about 30 s
SLOW_COMMIT_S = 0.003
FEW = 64  # waiting jobs; with more, the next batch is worth its commit anyway
LINGER_SHARE = 0.15
LINGER_MAX_S = 0.010
LOOK_JOBS = 64
RESTART_BYTES = 16 * 1024 * 1024  # a longer WAL makes reads slow, and begins anew


class Writer:
    """Owns the writing connection; everything but ``submit`` and the flags happens on its own thread."""

    def __init__(
        self, connect: Callable[[], Connection], check: Callable[[Connection], None], reserve: Reserve, wal: Path
    ) -> None:
        """``connect`` opens the writing connection; ``check`` raises when a reopened database is not sound."""
        self._wal = wal
        self._wal_limit = JOURNAL_LIMIT_BYTES
        self._connect = connect
        self._check = check
        self._reserve = reserve
        self._db: Connection | None = connect()
        self._pending: deque[Waiting] = deque()
        self._urgent = False
        self._stopping = False
        self._stopped = False
        self._sleeping = 0  # 0 awake, 1 with a deadline, 2 until woken
        self._wake = threading.Event()
        self._commit_s = 0.0  # smoothed
        self._full = not reserve.restore()
        self._damaged = False
        self._locked = False
        self.healthy: str | None = "the disk is full" if self._full else None
        self.on_commit: Callable[[], None] | None = None  # called on this thread after each commit; it must not block
        self.batches = 0
        self.jobs = 0
        self._looked_at = 0  # at the WAL, after so many jobs
        self.restart_wanted = False  # set by the checkpointer when the WAL has grown
        self._thread = threading.Thread(target=self._run, name="arkrelay-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def commit_s(self) -> float:
        """How long a commit takes of late, in seconds."""
        return self._commit_s

    def submit(self, waiting: Waiting) -> None:
        """Put a job in line and wake the writer."""
        if self._stopping:
            raise StoreError("the store is closed")
        self._pending.append(waiting)
        self._urgent = True
        if self._sleeping:
            self._wake.set()
        if self._stopped:
            self._refuse_rest()

    def submit_later(self, waiting: Waiting) -> None:
        """Put a job in line without waking the writer; it goes with the next batch, or within ``LATER_S``."""
        if self._stopping:
            raise StoreError("the store is closed")
        self._pending.append(waiting)
        if self._sleeping == 2:  # it sleeps without a deadline: once, so that it sets one
            self._wake.set()
        if self._stopped:
            self._refuse_rest()

    def nudge(self) -> None:
        """Make the writer look whether its trouble is over."""
        self._urgent = True
        self._wake.set()

    def add(self, counter: tuple[str | int, ...], n: int) -> None:
        """Count with the transaction of the running job."""
        if self._db is None or threading.current_thread() is not self._thread:
            raise RuntimeError("only a job may count")
        usage.count(self._db, counter, n)

    def stop(self, last: Callable[[Connection], None]) -> None:
        """Write everything that waits, run ``last`` on the connection, close it, and return."""
        self._stopping = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._db is not None:
            try:
                if self._full:
                    self._reserve.release()
                if not self._damaged:
                    last(self._db)
            finally:
                self._db.close()
                self._db = None

    # --- the thread ---

    def _run(self) -> None:
        batch: list[Waiting] = []
        try:
            while True:
                self._wait()
                batch = self._take()
                if batch or self.healthy is not None:
                    self._process(batch)
                    batch = []
                elif self._stopping:
                    return
                if self._stopping and not self._pending:
                    return
                if self.restart_wanted or self._wal_is_long():
                    self._restart_wal()
        except BaseException as exc:  # a thread that dies silently would leave every submitter waiting for ever
            log.critical("writer_crashed", exc_info=exc)
            self.healthy = "the writer has crashed"
            self._stopping = True
            settle(batch, [Failed(StoreError(self.healthy))] * len(batch))
            raise
        finally:
            self._stopped = True
            self._refuse_rest()

    def _refuse_rest(self) -> None:
        """Settle what came in too late; called by whoever finds the thread at its end."""
        while True:
            try:
                waiting = self._pending.popleft()
            except IndexError:
                return
            settle([waiting], [Failed(StoreError("the store is closed"))])

    def _wait(self) -> None:
        """Return when there is something to do now."""
        while not self._urgent and not self._stopping:
            waiting = bool(self._pending)
            self._wake.clear()
            self._sleeping = 1 if waiting else 2
            # looked at again after saying that we sleep: whoever came in between saw us awake and did not wake us
            if not self._urgent and not self._stopping and bool(self._pending) == waiting:
                delay_s = RETRY_S if self.healthy is not None else LATER_S
                woken = self._wake.wait(delay_s if waiting else None)
                if waiting and not woken:
                    break
        self._sleeping = 0
        if self._commit_s > SLOW_COMMIT_S and len(self._pending) < FEW and not self._stopping:
            time.sleep(min(self._commit_s * LINGER_SHARE, LINGER_MAX_S))

    def _take(self) -> list[Waiting]:
        self._urgent = False
        pending = self._pending
        batch = [pending.popleft() for _ in range(min(len(pending), BATCH))]
        if pending:
            self._urgent = True
        return batch

    def _process(self, batch: list[Waiting]) -> None:
        refusal = self._still_in_trouble()
        if refusal is not None:
            batch = self._refuse(batch, refusal, keep=not self._full)
        if not batch:
            return
        try:
            results = self._commit(batch)
        except sqlite3.Error as exc:
            self._failed(batch, exc)
            return
        if not self._full:
            self.healthy = None
        settle(batch, results)

    def _commit(self, batch: list[Waiting]) -> list[Any]:
        """Return the results of the committed batch, ``Failed`` for those undone alone; raise if all failed."""
        db = self._db
        if db is None:  # closed after an I/O error, and _still_in_trouble refuses what comes
            raise sqlite3.OperationalError("the database is not open")
        try:
            self._begin(db)
            try:
                results = run(db, batch)
                usage.flush(db)
            except Exception as exc:
                _forget(db)
                if trouble_of(exc) is not Trouble.JOB:
                    raise
                results = self._one_by_one(db, batch)
            started = time.perf_counter()
            db.execute("COMMIT")
        except BaseException:
            _forget(db)
            raise
        self._commit_s += 0.2 * (time.perf_counter() - started - self._commit_s)
        self.batches += 1
        self.jobs += len(batch)
        if db.after_commit:
            _run_after_commit(db)
        if self.on_commit is not None:
            self.on_commit()
        return results

    def _one_by_one(self, db: Connection, batch: list[Waiting]) -> list[Any]:
        """Run each job in a savepoint of its own; raises only when the whole transaction is in trouble."""
        results: list[Any] = []
        self._begin(db)
        for waiting in batch:
            mark = len(db.after_commit)
            db.execute("SAVEPOINT job")
            try:
                results += run(db, [waiting])
                usage.flush(db)
            except Exception as exc:
                if trouble_of(exc) is not Trouble.JOB:
                    raise
                if not db.in_transaction:
                    raise sqlite3.OperationalError("a job ended the transaction of its batch") from exc
                db.execute("ROLLBACK TO job")
                db.counters.clear()
                del db.after_commit[mark:]
                results.append(Failed(store_error(exc) if isinstance(exc, sqlite3.Error) else exc))
            db.execute("RELEASE job")
        return results

    def _begin(self, db: Connection) -> None:
        """Open the transaction, for ``LOCKED_S`` trying again while another process holds the database."""
        deadline = time.monotonic() + (0.0 if self._locked else LOCKED_S)
        while True:
            try:
                db.execute("BEGIN IMMEDIATE")  # a read that turns into a write would get BUSY_SNAPSHOT at once
            except sqlite3.OperationalError as exc:  # each try has waited for the busy timeout already
                if trouble_of(exc) is not Trouble.BUSY or self._stopping or time.monotonic() >= deadline:
                    raise
                self._trouble("the database is locked by another process")
            else:
                self._locked = False
                return

    # --- trouble ---

    def _trouble(self, reason: str, **more: object) -> None:
        if self.healthy != reason:
            log.error("store_in_trouble", reason=reason, **more)
        self.healthy = reason

    def _still_in_trouble(self) -> StoreError | None:
        """Return why nothing but essential jobs can be tried now, or None when all is well (again)."""
        if self._damaged:
            return StoreError("the database is damaged; nothing is written to it any more")
        if self._full and self._reserve.restore():
            self._full = False
            self.healthy = None
            log.info("store_has_room_again")
        if self._db is None and not self._reopen():
            return StoreError("the database had an input/output error and could not be opened again")
        return StoreFull("no room is left on the disk of the database") if self._full else None

    def _refuse(self, batch: list[Waiting], error: StoreError, *, keep: bool) -> list[Waiting]:
        """Settle all but the essential jobs with ``error``; return these, or put them back in line (``keep``)."""
        essential = [] if self._damaged else [waiting for waiting in batch if waiting.essential]
        kept = set(map(id, essential))
        others = [waiting for waiting in batch if id(waiting) not in kept]
        settle(others, [Failed(error)] * len(others))
        if keep and essential:
            if self._stopping:
                settle(essential, [Failed(error)] * len(essential))
            else:
                self._pending.extendleft(reversed(essential))
            return []
        return essential

    def _failed(self, batch: list[Waiting], exc: sqlite3.Error) -> None:
        """The transaction as a whole could not be done: nothing of it was kept."""
        trouble = trouble_of(exc)
        if trouble is Trouble.IO and self._reserve.disk_is_full():
            trouble = Trouble.FULL
        error = StoreFull(str(exc)) if trouble is Trouble.FULL else store_error(exc)
        match trouble:
            case Trouble.FULL:
                self._full = True
                self._trouble("the disk is full", error=str(exc))
                essential = self._refuse(batch, error, keep=False)
                if essential and self._reserve.release():
                    try:
                        settle(essential, self._commit(essential))
                    except sqlite3.Error as again:
                        log.error("reserve_not_enough", error=str(again))  # noqa: TRY400 -- no news in the traceback
                    else:
                        return
                self._refuse(essential, error, keep=True)
            case Trouble.BUSY:
                self._locked = True  # from now on one try per batch, until one succeeds
                self._trouble("the database is locked by another process")
                self._refuse(batch, error, keep=True)
            case Trouble.DAMAGED:
                self._damaged = True
                self._trouble("the database is damaged", error=str(exc))
                self._refuse(batch, error, keep=True)
            case Trouble.IO | Trouble.JOB:
                # After a failed fsync the pages that were not written may be gone from the cache without a
                # further error: close, and believe nothing that was not checked again.
                self._trouble("the disk of the database fails", error=str(exc))
                self._refuse(batch, error, keep=True)
                self._close()

    def _reopen(self) -> bool:
        try:
            db = self._connect()
        except sqlite3.Error as exc:
            self._trouble("the disk of the database fails", error=str(exc))
            return False
        try:
            self._check(db)
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except (sqlite3.Error, StoreError) as exc:
            with suppress(sqlite3.Error):
                db.close()
            if isinstance(exc, StoreError) or trouble_of(exc) is Trouble.DAMAGED:
                self._damaged = True
                self._trouble("the database is damaged", error=str(exc))
            else:
                self._trouble("the disk of the database fails", error=str(exc))
            return False
        self._db = db
        self.healthy = None
        log.info("store_opened_again")
        return True

    def _close(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _wal_is_long(self) -> bool:
        """Return whether the WAL outran the checkpointer, which looks only four times a second.

        Looked at after every ``LOOK_JOBS`` jobs: a look after each batch was 4 % of this thread's time.
        """
        if self.jobs - self._looked_at < LOOK_JOBS:
            return False
        self._looked_at = self.jobs
        try:
            size = os.stat(self._wal).st_size  # noqa: PTH116 -- at half the price
        except OSError:
            return False
        if size <= self._wal_limit:
            return False
        self._wal_limit = size + RESTART_BYTES  # should a reader hold it, not again before it has grown as much
        return True

    def _restart_wal(self) -> None:
        """Let the WAL begin anew: what the checkpointer has not yet copied is copied now.

        Without waiting: while somebody reads an old snapshot there is nothing to gain, and the writer would stand.
        """
        self.restart_wanted = False
        if self._db is None:
            return
        try:
            self._db.execute("PRAGMA busy_timeout = 0")
            try:
                if self._db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0] == 0:
                    self._wal_limit = JOURNAL_LIMIT_BYTES  # to which the next commit cuts the file
            finally:
                self._db.execute("PRAGMA busy_timeout = 5000")
        except sqlite3.Error as exc:
            if trouble_of(exc) is not Trouble.BUSY:
                log.warning("checkpoint_failed", error=str(exc))  # the next commit meets the cause and acts on it


def _forget(db: Connection) -> None:
    """Leave no transaction open, nor anything that was meant for its commit."""
    db.counters.clear()
    db.after_commit.clear()
    if db.in_transaction:
        with suppress(sqlite3.Error):  # FULL and IOERR roll back by themselves
            db.execute("ROLLBACK")


def _run_after_commit(db: Connection) -> None:
    actions, db.after_commit = db.after_commit, []
    for action in actions:
        try:
            action()
        except OSError as exc:
            log.warning("after_commit_failed", error=str(exc))
