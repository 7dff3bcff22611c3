"""Backup, restore, check, vacuum and recovery of a state directory.

A backup is taken while the daemon runs: one snapshot of the database, the large bodies that it names, and
the keys. It is secret as a whole (keys, mail) and is made with mode 0700. After a restore, mail that was queued at
the time of the backup is queued again, delivered since or not; what was in hand then is uncertain.
"""

import gzip
import os
import shutil
import sqlite3
import tarfile
import tempfile
import time
from contextlib import closing, nullcontext
from pathlib import Path, PurePosixPath

from arkrelay.model.errors import StoreError
from arkrelay.store import place, schema
from arkrelay.store.bodies import path_of
from arkrelay.store.connection import connect, connect_writer, store_error

_SUFFIXES = (".tar", ".tar.gz", ".tgz")


def backup(state_dir: Path, target: Path) -> Path:
    """Write a backup of ``state_dir`` to a new directory, or to a tar file when the name ends so; return its path.

    Raises ``StoreError``, and leaves nothing, when the target exists or the source cannot be read.
    """
    if target.exists():
        raise StoreError(f"{target}: exists already")
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))  # mode 0700
    try:
        _copy(state_dir, work)
        if target.name.endswith(_SUFFIXES):
            _pack(work, target)
        else:
            work.rename(target)
        place.sync_directory(target.parent)
    except (OSError, sqlite3.Error) as exc:
        raise StoreError(f"no backup was made: {exc}") from exc
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _pack(work: Path, target: Path) -> None:
    part = work.with_name(work.name + ".part")
    try:
        with (
            os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as stream,
            gzip.open(stream, "wb") if target.name.endswith("gz") else nullcontext(stream) as out,
        ):
            with tarfile.open(fileobj=out, mode="w|") as tar:
                tar.add(work, arcname=".")
            out.flush()
            os.fsync(stream.fileno())
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)


def _copy(state_dir: Path, work: Path) -> None:
    path = work / place.DATABASE
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with (
        closing(connect(state_dir / place.DATABASE, read_only=True)) as source,
        closing(connect(path)) as copy,
    ):
        source.backup(copy)  # in one step: in several, each commit of the daemon would start it over
        copy.execute("PRAGMA journal_mode = DELETE")
        # what is in no WAL cannot have been lost with one, and what was in hand is for the next start to judge
        copy.execute("UPDATE meta SET value = 1 WHERE name = 'clean'")
        for (message_id,) in copy.execute("SELECT id FROM messages WHERE large").fetchall():
            body = path_of(work, message_id)
            body.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                shutil.copyfile(path_of(state_dir, message_id), body)
            except FileNotFoundError:  # retention came between
                copy.execute("UPDATE messages SET large = 0 WHERE id = ?", (message_id,))
            else:
                body.chmod(0o600)
    if (state_dir / "keys").is_dir():
        shutil.copytree(state_dir / "keys", work / "keys")


def restore(source: Path, state_dir: Path) -> None:
    """Put a backup into ``state_dir``, which must not hold a database; the backup is checked first.

    Keys that were there before are kept beside, as ``keys.before-restore``. The database comes last: until it is
    there, `serve` does not start on half a restore, and the restore may be run again.
    """
    place.prepare(state_dir)
    lock = place.Lock(state_dir)
    try:
        path = state_dir / place.DATABASE
        if path.exists():
            raise StoreError(f"{path}: exists already; restore into an empty directory")
        with tempfile.TemporaryDirectory(prefix=".restore.", dir=state_dir) as name:
            work = Path(name)
            if source.is_dir():
                for entry in (place.DATABASE, "bodies", "keys"):
                    found = source / entry
                    if found.is_dir():
                        shutil.copytree(found, work / entry)
                    elif found.is_file():
                        shutil.copyfile(found, work / entry)
            else:
                _extract(source, work)
            problems = check(work)
            if problems:
                raise StoreError(f"{source}: " + "; ".join(problems[:5]))
            _move_in(work, state_dir)
    except (OSError, tarfile.TarError) as exc:
        raise StoreError(f"{source}: {exc}") from exc
    finally:
        lock.release()


def _extract(source: Path, work: Path) -> None:
    """Unpack regular files with names that stay inside, and nothing else (tarfile's filters came with 3.11.4)."""
    with tarfile.open(source) as tar:
        for member in tar:
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts or not (member.isfile() or member.isdir()):
                raise StoreError(f"{source}: holds {member.name!r}, which no backup of ours does")
            target = work / name
            if member.isdir():
                target.mkdir(mode=0o700, parents=True, exist_ok=True)
                continue
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            content = tar.extractfile(member)
            if content is not None:
                with content, os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                    shutil.copyfileobj(content, out)


def _move_in(work: Path, state_dir: Path) -> None:
    for directory, _, names in os.walk(work):
        Path(directory).chmod(0o700)
        for name in names:
            handle = os.open(Path(directory) / name, os.O_RDWR)
            os.fchmod(handle, 0o600)
            os.fsync(handle)
            os.close(handle)
    for name in (f"{place.DATABASE}-wal", f"{place.DATABASE}-shm", "journal"):
        (state_dir / name).unlink(missing_ok=True)
    shutil.rmtree(state_dir / "bodies", ignore_errors=True)
    if (work / "bodies").is_dir():
        (work / "bodies").rename(state_dir / "bodies")
    if (work / "keys").is_dir():
        aside = state_dir / "keys.before-restore"
        if (state_dir / "keys").is_dir() and not aside.exists():
            (state_dir / "keys").rename(aside)
        shutil.rmtree(state_dir / "keys", ignore_errors=True)
        (work / "keys").rename(state_dir / "keys")
    (work / place.DATABASE).rename(state_dir / place.DATABASE)
    place.sync_directory(state_dir)


def check(state_dir: Path) -> list[str]:
    """Return what is wrong with the database and its large bodies, one line each; empty when all is sound.

    It reads everything (PRAGMA integrity_check), and may run beside the daemon.
    """
    path = state_dir / place.DATABASE
    if not path.is_file():
        return [f"{path}: missing"]
    try:
        with closing(connect(path, read_only=True)) as db:
            version = schema.version_of(db)
            if version > schema.VERSION:
                return [f"{path}: made by a newer arkrelay (schema {version})"]
            problems = [str(line) for (line,) in db.execute("PRAGMA integrity_check(20)") if line != "ok"]
            if problems:
                return [f"{path}: damaged: {line}" for line in problems]
            return [
                f"{path_of(state_dir, message_id)}: missing, the content of message {message_id}"
                for (message_id,) in db.execute("SELECT id FROM messages WHERE large")
                if not path_of(state_dir, message_id).is_file()
            ]
    except StoreError as exc:
        return [f"{path}: {exc}"]
    except sqlite3.Error as exc:
        return [f"{path}: {exc}"]


def vacuum(state_dir: Path) -> tuple[int, int]:
    """Rewrite the database without its free pages; return its size before and after, in bytes.

    Needs the daemon stopped, and as much free space as the database is large.
    """
    path = state_dir / place.DATABASE
    lock = place.Lock(state_dir)
    try:
        if not place.check_database_file(path):
            raise StoreError(f"{path}: missing")
        before = path.stat().st_size
        with closing(connect_writer(path)) as db:
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return before, path.stat().st_size
    except sqlite3.Error as exc:
        raise store_error(exc) from exc
    finally:
        lock.release()


def recover(state_dir: Path, now: float | None = None) -> dict[str, int]:
    """Make a database out of what can be read of a damaged one; return how many rows each table kept.

    The old file stays beside the new one as ``arkrelay.db.damaged-<seconds>``, with its WAL. Also for a database
    whose WAL was removed. Needs the daemon stopped.
    """
    place.prepare(state_dir)
    lock = place.Lock(state_dir)
    path = state_dir / place.DATABASE
    new = path.with_name(path.name + ".recovered")
    new.unlink(missing_ok=True)
    try:
        os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with closing(connect(path)) as old, closing(connect(new)) as copy:
            copy.execute(f"PRAGMA page_size = {schema.PAGE_BYTES}")
            copy.execute("PRAGMA auto_vacuum = INCREMENTAL")
            schema.migrate(copy)
            kept = {table: _salvage(old, copy, table) for table in _tables(copy)}
            copy.execute("INSERT OR REPLACE INTO meta VALUES ('clean', 1)")
            copy.execute("DELETE FROM counters WHERE name = 'total'")
            copy.execute(
                "INSERT INTO counters SELECT 'total', tenant_id, 0, status, count(*) FROM recipients GROUP BY 2, 4"
            )
            # the totals are the list of tenants for usage, also of those whose mail is past its retention
            copy.execute(
                "INSERT OR IGNORE INTO counters SELECT DISTINCT 'total', tenant_id, 0, 'sent', 0 FROM counters"
            )
        suffix = f".damaged-{int(time.time() if now is None else now)}"
        for name in (path.name, f"{path.name}-wal"):
            if (state_dir / name).exists():
                (state_dir / name).rename(state_dir / (name + suffix))
        path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
        new.rename(path)
        place.sync_directory(state_dir)
    except sqlite3.Error as exc:
        raise StoreError(f"{path}: nothing could be recovered: {exc}") from exc
    finally:
        new.unlink(missing_ok=True)
        lock.release()
    return kept


def _tables(db: sqlite3.Connection) -> list[str]:
    rows = db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return [name for (name,) in rows if name != "schema_versions"]


def _salvage(old: sqlite3.Connection, copy: sqlite3.Connection, table: str) -> int:
    """Copy every row of ``table`` that can be read, from both ends towards the damage; return how many."""
    kept = 0
    columns = [row[1] for row in copy.execute(f"PRAGMA table_info({table})")]
    names = ", ".join(columns)
    insert = f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608 -- names from our schema
    (sql,) = copy.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    keys = ["rowid ASC", "rowid DESC"] if "WITHOUT ROWID" not in sql else [""]
    copy.execute("BEGIN")
    for key in keys:
        order = f" ORDER BY {key}" if key else ""
        try:
            for row in old.execute(f"SELECT {names} FROM {table} NOT INDEXED{order}"):  # noqa: S608 -- likewise
                kept += copy.execute(insert, row).rowcount
        except sqlite3.DatabaseError:
            continue  # as far as it goes; the other direction starts from the other end
        break
    copy.execute("COMMIT")
    return kept
