"""Opening, refusing and closing: what a state directory may look like."""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.store.build import NOW, accept, count

from arkrelay.model.errors import StoreError
from arkrelay.store import place, queue, schema
from arkrelay.store.connection import Connection
from arkrelay.store.database import Store, check


def test_a_new_store_is_private_and_has_a_growing_epoch(state_dir: Path) -> None:
    store = Store.open(state_dir)
    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert (store.epoch, store.path, store.healthy) == (1, state_dir / "arkrelay.db", None)
    store.close()
    assert not (state_dir / "arkrelay.db-wal").exists()
    again = Store.open(state_dir)
    assert again.epoch == 2
    again.close()


async def test_ids_are_never_given_twice(state_dir: Path) -> None:
    store = Store.open(state_dir)
    one = await accept(store)
    store.close()
    store = Store.open(state_dir)
    assert (store.new_message_id(), store.new_recipient_id()) == (one.message.id + 1, one.id + 1)
    store.close()


def test_tokens_are_alphanumeric_and_sort_by_time(store: Store) -> None:
    tokens = [store.new_token(NOW + n * 0.001) for n in range(5000)]
    assert tokens == sorted(tokens)
    assert len({store.new_token(NOW) for _ in range(5000)}) == 5000
    assert {len(token) for token in tokens} == {16}
    assert all(token.isascii() and token.isalnum() for token in tokens)


def test_a_second_process_is_refused_at_once_and_the_first_goes_on(state_dir: Path, store: Store) -> None:
    code = (
        "import sys; from pathlib import Path; from arkrelay.store.database import Store\n"
        "try: Store.open(Path(sys.argv[1]))\n"
        "except Exception as e: print(type(e).__name__, e)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code, str(state_dir)], capture_output=True, text=True, check=True)
    assert time.monotonic() - started < 5
    assert done.stdout.startswith(f"StoreError another arkrelay runs on {state_dir} (process {os.getpid()})")
    assert store.healthy is None


def _truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _overwritten(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        for offset in range(4096, size, 4096):
            file.seek(offset)
            file.write(b"\xa5" * 512)


def _no_database(path: Path) -> None:
    path.write_bytes(b"this is a text file and no database at all\n" * 100)


def _other_program(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE moz_places (id)")
    db.close()


def _newer(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO schema_versions VALUES (99, 0)")
    db.close()


def _read_only(path: Path) -> None:
    path.chmod(0o400)


def _empty_with_bodies(path: Path) -> None:
    path.write_bytes(b"")
    (path.parent / "bodies" / "01").mkdir(parents=True)
    (path.parent / "bodies" / "01" / "1.eml").write_bytes(b"x")


def _missing_with_wal(path: Path) -> None:
    path.unlink()
    path.with_name("arkrelay.db-wal").write_bytes(b"x" * 100)


def _missing_with_journal(path: Path) -> None:
    path.unlink()
    path.with_name("journal").write_bytes(b"x" * 100)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "x").touch()


def _open_to_others(path: Path) -> None:
    path.parent.chmod(0o777)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(_truncated, "damaged", id="truncated"),
        pytest.param(_overwritten, "damaged", id="overwritten-pages"),
        pytest.param(_no_database, "not a database", id="not-a-database"),
        pytest.param(_other_program, "another program", id="another-programs"),
        pytest.param(_newer, "newer arkrelay", id="newer-schema"),
        pytest.param(_read_only, "read-only", id="read-only"),
        pytest.param(_empty_with_bodies, "empty, but bodies", id="emptied"),
        pytest.param(_missing_with_wal, "missing, but arkrelay.db-wal", id="missing-with-wal"),
        pytest.param(_missing_with_journal, "missing, but journal", id="missing-with-journal"),
        pytest.param(_directory, "not a regular file", id="a-directory"),
        pytest.param(_open_to_others, "other users may write", id="writable-by-others"),
    ],
)
def test_what_is_not_sound_is_refused_in_one_line_and_left_alone(
    state_dir: Path, damage: Callable[[Path], None], words: str
) -> None:
    Store.open(state_dir).close()
    path = state_dir / "arkrelay.db"
    damage(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreError, match=words) as caught:
        Store.open(state_dir)
    assert "\n" not in str(caught.value)
    assert str(state_dir) in str(caught.value)
    assert (path.read_bytes() if path.is_file() else None) == before
    place.Lock(state_dir).release()  # and the lock was given back


def test_a_missing_parent_and_a_file_in_place_of_the_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="parent directory"):
        Store.open(tmp_path / "no" / "state")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="not a directory"):
        Store.open(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", ["", "arkrelay.db"])
def test_files_of_another_user_are_refused(state_dir: Path, name: str) -> None:
    Store.open(state_dir).close()
    os.chown(state_dir / name, 12345, 12345)
    with pytest.raises(StoreError, match="belongs to user 12345"):
        Store.open(state_dir)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("36 35 {device} / /mnt rw,noatime shared:1 - nfs4 srv:/x rw", "nfs4"),
        ("36 35 {device} / /mnt/with\\040space rw - ext4 /dev/sda1 rw", "ext4"),
        ("36 35 0:0 / /other rw - cifs //srv/x rw", ""),
        ("rubbish", ""),
    ],
)
def test_the_file_system_is_read_from_the_mounts(tmp_path: Path, line: str, kind: str) -> None:
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(line.format(device=f"{os.major(device)}:{os.minor(device)}") + "\n")
    assert place.file_system(tmp_path, mounts) == kind


def test_a_network_file_system_is_refused(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "file_system", lambda _path: "nfs4")
    with pytest.raises(StoreError, match="network file system"):
        Store.open(state_dir)


async def test_a_crash_keeps_what_was_written_and_a_removed_wal_is_noticed(tmp_path: Path, state_dir: Path) -> None:
    store = Store.open(state_dir)
    one = await accept(store)
    crashed, robbed = tmp_path / "crashed", tmp_path / "robbed"
    for copy in (crashed, robbed):
        shutil.copytree(state_dir, copy)
    store.close()

    again = Store.open(crashed)
    assert again.epoch == 2
    assert (await again.read(lambda conn: queue.load_recipient(conn, one.token))).id == one.id
    again.close()

    (robbed / "arkrelay.db-wal").unlink()
    with pytest.raises(StoreError, match="write-ahead log"):
        Store.open(robbed)


async def test_a_closed_store_says_so(state_dir: Path) -> None:
    store = Store.open(state_dir)
    store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.write(lambda db: None)
    with pytest.raises(StoreError, match="closed"):
        store.write_later(lambda db: None)
    with pytest.raises(StoreError, match="closed"):
        await store.read(lambda conn: None)


async def test_reads_cannot_write_and_their_errors_are_ours(store: Store) -> None:
    with pytest.raises(StoreError):
        await store.read(lambda conn: conn.execute("DELETE FROM messages"))
    with pytest.raises(StoreError):
        await store.read(lambda conn: conn.execute("SELECT nonsense"))
    with pytest.raises(KeyError):
        await store.read(lambda conn: os.environ["NO SUCH THING"])
    assert await store.read(lambda conn: count(conn, "messages")) == 0


async def test_after_a_power_cut_the_check_is_longer_and_ends_in_time(tmp_path: Path, state_dir: Path) -> None:
    store = Store.open(state_dir, boot_id="before")
    one = await accept(store)
    shutil.copytree(state_dir, tmp_path / "copy")
    store.close()
    store = Store.open(tmp_path / "copy", boot_id="after")
    assert (await store.read(lambda conn: queue.load_recipient(conn, one.id))).id == one.id
    await store.write(lambda db: check(db, 0.0))  # no time at all: nothing was found
    store.close()


class _LongCheck(Connection):
    """Checks for seconds and finds damage then, and asks no progress handler meanwhile, as SQLite 3.40 does not."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql.startswith("PRAGMA quick_check"):
            numbers = "WITH RECURSIVE n (x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM n WHERE x < 5e7)"
            sql = f"{numbers} SELECT 'damaged, after ' || max(x) FROM n"
        return super().execute(sql, parameters)

    def set_progress_handler(self, handler: Any, n: int) -> None:
        del handler, n


async def test_a_check_that_takes_too_long_is_broken_off_and_nothing_after_it(state_dir: Path) -> None:
    Store.open(state_dir).close()
    store = Store.open(state_dir, factory=_LongCheck)
    await store.write(lambda db: check(db, 0.05))
    assert (await accept(store)).id == 1
    store.close()


def test_a_migration_that_fails_leaves_the_older_schema(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(state_dir).close()

    def second(database: object) -> None:
        database.execute("CREATE TABLE more (id)")  # type: ignore[attr-defined] # sqlite_utils ships no types
        raise sqlite3.OperationalError("no")

    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, second))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    with pytest.raises(StoreError):
        Store.open(state_dir)
    monkeypatch.undo()
    with sqlite3.connect(state_dir / "arkrelay.db") as db:
        assert db.execute("SELECT max(version) FROM schema_versions").fetchone() == (schema.VERSION,)
        assert db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'more'").fetchone() == (0,)
    db.close()
    Store.open(state_dir).close()


def test_held_mail_of_an_older_schema_took_no_place_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    with monkeypatch.context() as older:
        older.setattr(schema, "VERSION", 3)
        schema.migrate(db)
    row = "(?, 1, 'acme', 0, ?, 'a@b', 'a@b', 'b', 'b', ?, 0, NULL, 0, 0, '', ?, NULL, NULL, NULL, 0, NULL, NULL, 0)"
    for number, (status, reason) in enumerate((("held", "send_limit"), ("held", "operator"), ("sent", None))):
        db.execute(f"INSERT INTO recipients VALUES {row}", (number, f"t{number}", status, reason))
    schema.migrate(db)
    assert db.execute("SELECT recipient_id FROM ungranted").fetchall() == [(0,)]
    db.close()


def test_a_migration_that_succeeds_is_recorded(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(state_dir).close()
    step = lambda database: database.execute("CREATE TABLE more (id)")  # noqa: E731 -- one line of a migration
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, step))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    Store.open(state_dir).close()
    monkeypatch.undo()
    with pytest.raises(StoreError, match="newer arkrelay"):
        Store.open(state_dir)
