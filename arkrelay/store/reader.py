"""Reading connections in a few threads: a read never waits for the writer, nor the writer for it."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from arkrelay.model.errors import StoreError
from arkrelay.store.connection import Connection, store_error

T = TypeVar("T")

THREADS = 3
READ_S = 30.0  # a longer read is broken off: while it lasts the WAL cannot begin anew and grows


class Readers:
    """A small pool of threads, each with its own read-only connection."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="arkrelay-reader")
        self._own = threading.local()
        self._all: list[Connection] = []
        self._closed = False

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Return what ``fn`` returned; it saw one state of the database, with everything written before the call.

        Raises ``StoreError`` when the database cannot be read or the read took longer than ``READ_S``.
        """
        if self._closed:
            raise StoreError("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, fn)

    async def run(self, fn: Callable[[], T]) -> T:
        """Run ``fn``, which waits for the disk, on one of the threads."""
        if self._closed:
            raise StoreError("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._pool, fn)

    def close(self) -> None:
        """Return when the reads under way have ended and all connections are closed."""
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        for db in self._all:
            with suppress(sqlite3.Error):
                db.close()

    def _read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        try:
            db: Connection | None = getattr(self._own, "db", None)
            if db is None:
                db = self._own.db = self._connect()
                self._all.append(db)
            deadline = time.monotonic() + READ_S
            db.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)
            db.execute("BEGIN")
            try:
                return fn(db)
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
        except sqlite3.Error as exc:
            raise store_error(exc) from exc
