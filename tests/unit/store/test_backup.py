"""Backup while mail flows, restore, check, vacuum, and what can be saved from a damaged file."""

import asyncio
import io
import tarfile
from pathlib import Path

import pytest
from unit.store.build import accept, count, load, settle

from arkrelay.model.errors import StoreError
from arkrelay.model.message import Status
from arkrelay.store import backup, bodies, queue, usage
from arkrelay.store.database import Store

LARGE = b"y" * (bodies.BLOB_BYTES + 1)


@pytest.mark.parametrize("name", ["copy", "copy.tar", "copy.tar.gz"])
async def test_a_backup_taken_under_load_restores_to_a_sound_store(
    tmp_path: Path, state_dir: Path, name: str
) -> None:
    store = Store.open(state_dir)
    (state_dir / "keys" / "dkim").mkdir(parents=True)
    (state_dir / "keys" / "host.key").write_bytes(b"k" * 32)
    await store.save_large(1, LARGE)
    large = await accept(store, content=None)
    before = [await accept(store, leased=n % 2 == 0) for n in range(20)]
    stop = asyncio.Event()

    async def load_it() -> None:
        while not stop.is_set():
            await settle(store, await accept(store))

    running = asyncio.ensure_future(load_it())
    made = await asyncio.to_thread(backup.backup, state_dir, tmp_path / name)
    stop.set()
    await running
    store.close()
    assert made.stat().st_mode & 0o077 == 0

    target = tmp_path / "restored"
    (target / "keys").mkdir(parents=True, mode=0o700)
    target.chmod(0o700)
    (target / "keys" / "host.key").write_bytes(b"of another installation")
    backup.restore(made, target)
    assert backup.check(target) == []
    assert (target / "keys" / "host.key").read_bytes() == b"k" * 32
    assert (target / "keys.before-restore" / "host.key").read_bytes() == b"of another installation"
    assert (target / "arkrelay.db").stat().st_mode & 0o777 == 0o600
    store = Store.open(target)
    assert await store.read(lambda conn: bodies.load(conn, large.message.id)) == LARGE
    assert (await load(store, before[0])).id == before[0].id
    recovery = await store.write(lambda db: queue.recover(db, {}, rebooted=True, epoch=store.epoch, now=0.0))
    assert {one.id for one in recovery.uncertain} >= {one.id for one in before[::2]}
    totals = await store.read(usage.totals)
    assert sum(totals.values()) == await store.read(lambda conn: count(conn, "recipients"))
    store.close()
    with pytest.raises(StoreError, match="exists already"):
        backup.restore(made, target)
    with pytest.raises(StoreError, match="exists already"):
        backup.backup(target, made)


def test_a_backup_of_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no backup"):
        backup.backup(tmp_path / "none", tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../escape", "/absolute", "link"])
def test_a_tar_with_foreign_names_is_refused(tmp_path: Path, state_dir: Path, name: str) -> None:
    source = tmp_path / "evil.tar"
    with tarfile.open(source, "w") as tar:
        member = tarfile.TarInfo(name)
        if name == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(member)
        else:
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(StoreError, match="no backup of ours"):
        backup.restore(source, state_dir)
    assert not (tmp_path / "escape").exists()
    assert sorted(path.name for path in state_dir.iterdir()) == ["lock"]


def test_what_is_no_backup_is_not_restored(tmp_path: Path, state_dir: Path) -> None:
    rubbish = tmp_path / "rubbish"
    rubbish.write_bytes(b"rubbish" * 1000)
    with pytest.raises(StoreError):
        backup.restore(rubbish, state_dir)
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="missing"):
        backup.restore(tmp_path / "empty", state_dir)


async def test_check_names_what_is_wrong(state_dir: Path) -> None:
    assert "missing" in backup.check(state_dir)[0]
    store = Store.open(state_dir)
    await store.save_large(1, LARGE)
    await accept(store, content=None)
    store.close()
    assert backup.check(state_dir) == []
    bodies.path_of(state_dir, 1).unlink()
    assert "content of message 1" in backup.check(state_dir)[0]
    path = state_dir / "arkrelay.db"
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 3 + 200] = b"\xa5" * 200
    path.write_bytes(content)
    assert backup.check(state_dir)
    path.write_bytes(b"rubbish" * 1000)
    assert "not a database" in backup.check(state_dir)[0]


async def test_vacuum_wants_the_daemon_stopped_and_shrinks_the_file(state_dir: Path) -> None:
    store = Store.open(state_dir)
    for _ in range(50):
        await accept(store, content=b"x" * 50_000)
    with pytest.raises(StoreError, match="another arkrelay"):
        backup.vacuum(state_dir)
    await store.write(lambda db: db.execute("DELETE FROM bodies"))
    store.close()
    before, after = backup.vacuum(state_dir)
    assert after < before / 5
    Store.open(state_dir).close()


async def test_what_can_be_read_of_a_damaged_file_is_saved(state_dir: Path) -> None:
    store = Store.open(state_dir)
    placed = [await accept(store, content=b"x" * 3000) for _ in range(300)]
    for one in placed[:100]:
        await settle(store, one)
    store.close()
    path = state_dir / "arkrelay.db"
    content = bytearray(path.read_bytes())
    middle = len(content) // 4096 // 2
    for page in range(middle, middle + 3):
        content[page * 4096 : page * 4096 + 4096] = b"\xa5" * 4096
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        Store.open(state_dir)

    kept = backup.recover(state_dir, now=123)
    assert kept["recipients"] > 200
    assert kept["messages"] > 200
    assert (state_dir / "arkrelay.db.damaged-123").exists()
    assert backup.check(state_dir) == []
    store = Store.open(state_dir)
    assert store.epoch == 2
    totals = await store.read(usage.totals)
    assert sum(totals.values()) == kept["recipients"]
    assert totals[Status.SENT] > 0
    store.close()


async def test_a_store_whose_wal_was_removed_goes_on_after_recovery(tmp_path: Path, state_dir: Path) -> None:
    store = Store.open(state_dir)
    await accept(store)
    content = store.path.read_bytes()  # without the WAL, as after a crash
    store.close()
    store.path.write_bytes(content)
    with pytest.raises(StoreError, match="recover"):
        Store.open(state_dir)
    backup.recover(state_dir)
    Store.open(state_dir).close()
