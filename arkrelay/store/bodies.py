"""Content: up to 256 KB a blob in a table of its own, above that a file.

A file of 1 MB is written 3 times as fast as a blob, of 10 MB 6 times, and the database does not grow with it. It
is complete and synced, with its directory, before the row that needs it is committed; a crash in between leaves a
file without a row, which ``sweep`` removes at the next start. Ids are not given twice in one run, and the sweep
comes before the first of the next, so a file never belongs to another message than its name says.
"""

import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from arkrelay.model.errors import NotFound, StoreError, StoreFull
from arkrelay.store.connection import Connection
from arkrelay.store.place import sync_directory, write_synced

BLOB_BYTES = 256 * 1024  # a larger content is a file
_FULL = frozenset({28, 122})  # ENOSPC, EDQUOT


def is_large(size_bytes: int) -> bool:
    """Return whether content of this size is to be saved with ``save_large`` before its message is inserted."""
    return size_bytes > BLOB_BYTES


def save_large(directory: Path, message_id: int, content: bytes) -> None:
    """Return when the content is on disk under its final name; raises ``StoreFull`` or ``StoreError``."""
    path = path_of(directory, message_id)
    new = path.with_suffix(".new")
    try:
        for folder in (path.parent.parent, path.parent):
            if not folder.is_dir():
                folder.mkdir(mode=0o700, exist_ok=True)
                sync_directory(folder.parent)
        write_synced(path, new, content)
    except OSError as exc:
        for left in (new, path):
            with suppress(OSError):  # what stands in the way of the file stands in the way of removing it
                left.unlink(missing_ok=True)
        if exc.errno in _FULL:
            raise StoreFull(f"no room is left for a message of {len(content)} bytes") from exc
        raise StoreError(f"a large message could not be saved: {exc.strerror}") from exc


def load(conn: sqlite3.Connection, message_id: int) -> bytes:
    """Return the content of a message; raises ``NotFound`` once retention has dropped it."""
    # primary key of bodies
    row = conn.execute("SELECT content FROM bodies WHERE message_id = ?", (message_id,)).fetchone()
    if row is not None:
        content: bytes = row[0]
        return content
    # primary key of messages
    if conn.execute("SELECT 1 FROM messages WHERE id = ? AND large", (message_id,)).fetchone() is not None:
        try:
            return path_of(_directory_of(conn), message_id).read_bytes()
        except FileNotFoundError:
            pass
        except OSError as exc:
            raise StoreError(f"the content of a large message cannot be read: {exc.strerror}") from exc
    raise NotFound("the content of this message is no longer kept")


def has_content(conn: sqlite3.Connection, message_id: int) -> bool:
    """Return whether the content is still kept, so that the message can be sent again."""
    # primary keys of bodies and messages
    found = conn.execute(
        "SELECT EXISTS (SELECT 1 FROM bodies WHERE message_id = ?1)"
        " OR EXISTS (SELECT 1 FROM messages WHERE id = ?1 AND large)",
        (message_id,),
    ).fetchone()
    return bool(found[0])


def drop(db: sqlite3.Connection, message_ids: Iterable[int]) -> None:
    """Forget the content of these messages with this transaction; their files go once it is committed."""
    ids = [(message_id,) for message_id in message_ids]
    # primary keys of bodies and messages
    db.executemany("DELETE FROM bodies WHERE message_id = ?", ids)
    large = [one for (one,) in ids if db.execute("SELECT 1 FROM messages WHERE id = ? AND large", (one,)).fetchone()]
    if large:
        db.executemany("UPDATE messages SET large = 0 WHERE id = ?", [(one,) for one in large])
        if isinstance(db, Connection):
            db.after_commit.append(partial(remove_large, _directory_of(db), tuple(large)))


def remove_large(directory: Path, message_ids: Iterable[int]) -> None:
    """Remove the files of these messages, where there are any."""
    for message_id in message_ids:
        path_of(directory, message_id).unlink(missing_ok=True)


def sweep(db: sqlite3.Connection, directory: Path) -> int:
    """Remove files that no message needs, and return how many; for the start, before anything is accepted."""
    removed = 0
    for path in (directory / "bodies").glob("*/*"):
        wanted = False
        if path.suffix == ".eml" and path.stem.isdecimal():
            # primary key of messages
            found = db.execute("SELECT 1 FROM messages WHERE id = ? AND large", (int(path.stem),)).fetchone()
            wanted = found is not None
        if not wanted and path.suffix in {".eml", ".new"}:
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def path_of(directory: Path, message_id: int) -> Path:
    """Return where the content of a large message is: 256 folders, so that none grows long."""
    return directory / "bodies" / f"{message_id & 0xFF:02x}" / f"{message_id}.eml"


def _directory_of(conn: sqlite3.Connection) -> Path:
    path: str = conn.execute("PRAGMA database_list").fetchone()[2]
    return Path(path).parent
