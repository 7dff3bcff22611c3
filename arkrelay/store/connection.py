"""Connections to the database: how they are opened, what they carry, and what their errors mean."""

import sqlite3
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import quote

from arkrelay.model.errors import StoreError, StoreFull
from arkrelay.store import schema

BUSY_TIMEOUT_MS = 5000
CACHE_KIB = 65536
JOURNAL_LIMIT_BYTES = 64 * 1024 * 1024  # what a WAL file is cut to once it has been written back

Counter = tuple[str | int, ...]  # (name, tenant id, item) or (name, tenant id, item, start)


class Connection(sqlite3.Connection):
    """A connection with what its transaction adds up, and what is to be done once it is committed.

    ``counters`` are written by the writer once per batch; ``after_commit`` runs on the writer thread when the
    transaction is on disk, and is forgotten when it is rolled back.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # what sqlite3.connect passes
        super().__init__(*args, **kwargs)
        self.counters: dict[Counter, int] = {}
        self.after_commit: list[Callable[[], None]] = []


class Trouble(Enum):
    """Whose fault a database error is."""

    JOB = "the statement"  # a constraint, a wrong type: this job alone
    BUSY = "locked"
    FULL = "full"
    IO = "input/output"
    DAMAGED = "damaged"


# primary result codes, https://sqlite.org/rescode.html
_TROUBLE = {
    sqlite3.SQLITE_BUSY: Trouble.BUSY,
    sqlite3.SQLITE_LOCKED: Trouble.BUSY,
    sqlite3.SQLITE_FULL: Trouble.FULL,
    sqlite3.SQLITE_IOERR: Trouble.IO,
    sqlite3.SQLITE_CANTOPEN: Trouble.IO,
    sqlite3.SQLITE_READONLY: Trouble.IO,
    sqlite3.SQLITE_PROTOCOL: Trouble.IO,
    sqlite3.SQLITE_CORRUPT: Trouble.DAMAGED,
    sqlite3.SQLITE_NOTADB: Trouble.DAMAGED,
}


def connect(path: Path, *, read_only: bool = False, factory: type[Connection] = Connection) -> Connection:
    """Return a connection to the existing database at ``path``, in autocommit mode; it is never created here."""
    mode = "ro" if read_only else "rw"
    db = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        timeout=BUSY_TIMEOUT_MS / 1000,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
        factory=factory,
    )
    if read_only:
        db.execute("PRAGMA query_only = ON")
    return db


def connect_writer(path: Path, factory: type[Connection] = Connection) -> Connection:
    """Return a connection set up as the one that writes."""
    db = connect(path, factory=factory)
    try:
        schema.refuse_foreign(db)  # before the first change
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")  # NORMAL may lose committed transactions at a power cut
        db.execute("PRAGMA wal_autocheckpoint = 0")  # see checkpoint.py
        db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        db.execute("PRAGMA secure_delete = FAST")  # Debian's build has it ON: deletes would cost as much as writes
        db.execute(f"PRAGMA journal_size_limit = {JOURNAL_LIMIT_BYTES}")
        db.execute("PRAGMA temp_store = MEMORY")
    except BaseException:
        db.close()
        raise
    return db


def trouble_of(exc: BaseException) -> Trouble:
    """Return whose fault ``exc`` is; anything that is not SQLite's own is the job's."""
    if not isinstance(exc, sqlite3.Error):
        return Trouble.JOB
    code = getattr(exc, "sqlite_errorcode", None)
    return Trouble.JOB if code is None else _TROUBLE.get(code & 0xFF, Trouble.JOB)


def store_error(exc: sqlite3.Error) -> StoreError:
    """Return ``exc`` in our words; the cause stays attached."""
    trouble = trouble_of(exc)
    if trouble is Trouble.FULL:
        error: StoreError = StoreFull(f"no room is left on the disk of the database ({exc})")
    elif trouble is Trouble.JOB:
        error = StoreError(f"the database refused: {exc}")
    else:
        error = StoreError(f"the database is in trouble ({trouble.value}): {exc}")
    error.__cause__ = exc
    return error


def text(value: str | None) -> str | None:
    """Return ``value`` as SQLite can bind it: lone surrogates, which peers cause, become question marks."""
    if value is None or value.isascii():
        return value
    return value.encode("utf-8", "replace").decode("utf-8")
