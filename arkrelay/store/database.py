"""``Store``: the database, its writer, its readers and its directory, opened and closed as one thing."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import structlog

from arkrelay.model.errors import StoreError
from arkrelay.store import bodies, place, queue, schema
from arkrelay.store.checkpoint import Checkpointer
from arkrelay.store.connection import Connection, connect, connect_writer
from arkrelay.store.ids import Ids, Tokens
from arkrelay.store.jobs import Failed, Waiting
from arkrelay.store.reader import Readers
from arkrelay.store.writer import Writer

log = structlog.get_logger()

T = TypeVar("T")
Item = TypeVar("Item")

# how long the check at start may take: a large database is checked as far as this goes, `check` does all of it
CHECK_CLEAN_S = 0.5
CHECK_CRASHED_S = 1.5  # a killed process tears no page, the kernel still writes them all
CHECK_POWER_CUT_S = 8.0


class Store:
    """The open store of one state directory, which no other process can open meanwhile."""

    def __init__(self, directory: Path, lock: place.Lock, boot_id: str, factory: type[Connection]) -> None:
        self._directory = directory
        self._lock = lock
        self._factory = factory
        self.path = directory / place.DATABASE
        db = _open_checked(self.path, boot_id, factory)
        try:
            self.epoch: int = _start_epoch(db, boot_id)
            ids = Ids(*queue.next_ids(db))
            bodies.sweep(db, directory)
        except BaseException:
            db.close()
            raise
        self.new_message_id = ids.new_message_id
        self.new_recipient_id = ids.new_recipient_id
        self.new_token = Tokens().new
        # Whoever closes the last connection removes the WAL. This one only reads, so nobody does before _finish.
        self._guard = connect(self.path, read_only=True)
        self._guard.execute("SELECT count(*) FROM meta").fetchone()
        first: list[Connection] = [db]  # the writer takes over the connection that was just checked
        self._writer = Writer(
            lambda: first.pop() if first else connect_writer(self.path, factory),
            partial(check, seconds=CHECK_POWER_CUT_S),
            place.Reserve(directory),
            self.path.with_name(f"{self.path.name}-wal"),
        )
        self._checkpointer = Checkpointer(partial(connect, self.path), self._writer)
        self._readers = Readers(partial(connect, self.path, read_only=True))
        self._writer.start()
        self._checkpointer.start()

    @classmethod
    def open(cls, state_dir: Path, *, boot_id: str | None = None, factory: type[Connection] = Connection) -> Self:
        """Return the store, checked, migrated, and with an epoch higher than any before.

        Raises ``StoreError`` with one line that says what is wrong, and leaves everything as it was: another
        process has it, the file is damaged, foreign, newer, read-only, not ours, or gone while its companions
        are here. ``factory`` is for tests that make the database fail.
        """
        place.prepare(state_dir)
        lock = place.Lock(state_dir)
        try:
            return cls(state_dir, lock, place.boot_id() if boot_id is None else boot_id, factory)
        except BaseException:
            lock.release()
            raise

    @property
    def healthy(self) -> str | None:
        """None while all is well, else the reason for which mail should not be accepted or sent now."""
        return self._writer.healthy

    @property
    def commit_s(self) -> float:
        """How long a commit takes of late, in seconds."""
        return self._writer.commit_s

    def call_after_commits(self, called: Callable[[], None] | None) -> None:
        """Have this called after each commit from now on, on the writer thread; it must neither block nor raise."""
        self._writer.on_commit = called

    @property
    def directory(self) -> Path:
        """The state directory."""
        return self._directory

    async def write(self, job: Callable[[Connection], T], *, essential: bool = False) -> T:
        """Run ``job`` on the writer thread and return what it returned.

        On return its rows are on disk (``synchronous=FULL``), so the caller may answer "250": from then on the
        message is ours to lose (RFC 5321 §6.1). The job shares transaction and fsync with all that waited, and may
        be run twice: it must be a function of the connection and of values that it does not change.

        A job that raises is undone alone and its exception is raised here, SQLite's as ``StoreError``. When
        the database is full, locked for long or failing, that is ``StoreFull`` or ``StoreError`` and nothing was
        written; an ``essential`` job waits instead until it can be written or the store is closed.
        Cancelling the caller does not recall the job.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._writer.submit(Waiting(job, loop, future, essential=essential))
        return await future

    def write_together(
        self,
        job: Callable[[Connection, Sequence[Item]], Sequence[T]],
        item: Item,
        done: Callable[[T | Failed], None],
    ) -> None:
        """Start a ``write`` whose job does several items with few statements.

        ``job`` is called with the items of all that wait with the same job, before other jobs of their batch: what it
        writes must be new. It returns a result for each; when it raises, each item is tried alone. ``done`` is called
        on this event loop with the result of this one when it is on disk, or with ``Failed``.
        """
        self._writer.submit(Waiting(job, asyncio.get_running_loop(), done, essential=False, item=item))

    def write_later(
        self,
        job: Callable[[Connection], object],
        done: Callable[[Exception | None], None] | None = None,
        *,
        essential: bool = True,
    ) -> None:
        """Run ``job`` with the next batch, at the latest after 50 ms; it counts as essential unless told otherwise.

        ``done`` is called on this event loop (without one: on the writer thread) with None when the job is on
        disk, or with what it raised. Jobs run in the order in which ``write`` and ``write_later`` were called.
        """
        try:
            loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        told = None if done is None else lambda result: done(result.error if type(result) is Failed else None)
        self._writer.submit_later(Waiting(job, loop, told, essential=essential))

    def add(self, counter: tuple[str | int, ...], n: int) -> None:
        """Count, from within a job, in its transaction; see ``usage``."""
        self._writer.add(counter, n)

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Return what ``fn`` returned, which saw one state of the database with all that was written before."""
        return await self._readers.read(fn)

    async def save_large(self, message_id: int, content: bytes) -> None:
        """Return when the content of a message not yet inserted is on disk as a file; see ``bodies``."""
        await self._readers.run(partial(bodies.save_large, self._directory, message_id, content))

    def remove_large(self, message_id: int) -> None:
        """Remove the file of a message that was not inserted after all."""
        bodies.remove_large(self._directory, (message_id,))

    def close(self) -> None:
        """Return when all that was submitted is on disk, the WAL is written back and the directory is free.

        It blocks; a daemon calls it in a thread.
        """
        self._checkpointer.stop()
        self._readers.close()
        try:
            self._writer.stop(self._finish)
        finally:
            self._guard.close()
            self._lock.release()

    def _finish(self, db: Connection) -> None:
        """Leave one complete file: everything in the database, and no WAL."""
        try:
            db.execute("UPDATE meta SET value = 1 WHERE name = 'clean'")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as exc:  # the WAL stays, and the next start finds everything in it
            log.warning("store_not_closed_cleanly", error=str(exc))
        else:
            self._guard.close()


def check(db: sqlite3.Connection, seconds: float) -> None:
    """Raise ``StoreError`` when ``PRAGMA quick_check`` finds damage within that time; bodies come last.

    The time is kept by an interrupt: SQLite asks no progress handler while it checks (3.40 does not), and a
    million recipients that are not in the page cache took it 14 s.
    """
    alarm = threading.Timer(seconds, db.interrupt)
    alarm.start()
    try:
        rows: Sequence[tuple[str]] = db.execute("PRAGMA quick_check(5)").fetchall()
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return
    finally:
        alarm.cancel()
        alarm.join()  # an interrupt that came late would end what is asked next
    if rows != [("ok",)]:
        raise StoreError("damaged: " + "; ".join(line.replace("\n", " ") for (line,) in rows))


def _open_checked(path: Path, boot_id: str, factory: type[Connection]) -> Connection:
    try:
        if not place.check_database_file(path):
            _create(path)
        wal_was_there = path.with_name(f"{path.name}-wal").exists()
        db = connect_writer(path, factory)
        try:
            schema.migrate(db)
            _check_last_stop(db, boot_id, wal_was_there=wal_was_there)
        except BaseException:
            db.close()
            raise
    except sqlite3.DatabaseError as exc:
        raise StoreError(f"{path}: {_plain(exc)}") from exc
    except StoreError as exc:
        text = str(exc)
        raise StoreError(text if text.startswith(str(path.parent)) else f"{path}: {text}") from exc
    return db


def _check_last_stop(db: Connection, boot_id: str, *, wal_was_there: bool) -> None:
    meta = dict(db.execute("SELECT name, value FROM meta").fetchall())
    if meta.get("clean", 1):
        check(db, CHECK_CLEAN_S)
        return
    if not wal_was_there:
        raise StoreError(
            "its write-ahead log (-wal) was removed after a crash, and accepted mail with it; restore a backup,"
            " or `arkrelay db recover` to go on without"
        )
    log.info("store_was_not_closed", epoch=meta.get("epoch"))
    check(db, CHECK_CRASHED_S if meta.get("boot_id") == boot_id else CHECK_POWER_CUT_S)


def _create(path: Path) -> None:
    """Make a new database under another name and rename it, so that half of one is never found."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    db = connect(new)
    try:
        db.execute(f"PRAGMA page_size = {schema.PAGE_BYTES}")
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        schema.migrate(db)
    finally:
        db.close()
    handle = os.open(new, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    new.rename(path)
    place.sync_directory(path.parent)


def _start_epoch(db: Connection, boot_id: str) -> int:
    """Write down that we are running, and as which epoch; the main file says so too.

    The checkpoint carries ``clean = 0`` into the main file: found there without a WAL it proves that the WAL,
    and with it accepted mail, was removed.
    """
    meta = dict(db.execute("SELECT name, value FROM meta").fetchall())
    epoch = int(meta.get("epoch", 0)) + 1
    values = [("epoch", epoch), ("boot_id", boot_id), ("clean", 0)]
    db.execute("BEGIN IMMEDIATE")
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values)
    db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return epoch


def _plain(exc: sqlite3.DatabaseError) -> str:
    code = getattr(exc, "sqlite_errorcode", None)
    if code is not None and code & 0xFF == sqlite3.SQLITE_NOTADB:
        return "not a database"
    if code is not None and code & 0xFF == sqlite3.SQLITE_CORRUPT:
        return f"damaged: {exc}"
    return str(exc)
