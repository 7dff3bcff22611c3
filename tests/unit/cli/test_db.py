"""backup, restore and db, on a real database."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from unit.cli.support import Double, Program

from arkrelay.store.database import Store


@pytest.fixture
def database(home: Path) -> Path:
    """An empty database with a key beside it, and nobody at work."""
    Store.open(home / "state").close()
    (home / "state" / "keys").mkdir(mode=0o700, exist_ok=True)
    (home / "state" / "keys" / "host.key").write_bytes(b"k" * 32)
    (home / "state" / "keys" / "host.key").chmod(0o600)
    return home / "state" / "arkrelay.db"


def shown(program: Program, *words: str) -> Any:
    ran = program(*words, "--json")
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


@pytest.mark.parametrize("name", ["copy", "copy.tar", "copy.tar.gz"])
def test_a_backup_is_restored(program: Program, database: Path, home: Path, name: str) -> None:
    ran = program("backup", str(home / name))
    assert (ran.code, ran.out) == (0, f"{home / name}\n")
    assert (home / name).stat().st_mode & 0o077 == 0
    again = program("restore", str(home / name))
    assert again.code == 1
    assert "exists already" in again.err
    shutil.rmtree(home / "state")
    (home / "state").mkdir(mode=0o700)
    assert program("restore", str(home / name)).code == 0
    assert (home / "state" / "keys" / "host.key").read_bytes() == b"k" * 32
    assert shown(program, "db", "check") == {"ok": True, "problems": []}


def test_a_backup_never_overwrites(program: Program, database: Path, home: Path) -> None:
    (home / "there").mkdir()
    ran = program("backup", str(home / "there"))
    assert ran.code == 1
    assert "exists already" in ran.err


def test_a_relative_target_is_where_the_caller_stands(
    program: Program, database: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    assert program("backup", "copy.tar").out == f"{home}/copy.tar\n"


def test_the_daemon_makes_the_backup_where_we_may_not_read(program: Program, daemon: Double, home: Path) -> None:
    daemon.answers = {"POST /v1/control/backup": {"path": "/b/x.tar"}}
    assert program("backup", "/b/x.tar").out == "/b/x.tar\n"
    assert daemon.asked[0].body == {"path": "/b/x.tar"}


def test_restore_and_recover_want_the_daemon_stopped(program: Program, daemon: Double, home: Path) -> None:
    daemon.answers = {"GET /v1/status": {"ready": True}}
    for words in (("restore", str(home)), ("db", "recover", "--yes")):
        ran = program(*words)
        assert ran.code == 1
        assert "the daemon is running" in ran.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory another's")
def test_files_of_the_wrong_owner_are_not_made(program: Program, home: Path) -> None:
    os.chown(home / "state", 1234, 1234)
    (home / "backup").mkdir()
    ran = program("restore", str(home / "backup"))
    assert ran.code == 1
    assert "sudo -u '#1234'" in ran.err


def test_care_without_a_daemon(program: Program, database: Path) -> None:
    for verb in ("vacuum", "prune"):
        done = shown(program, "db", verb)
        assert set(done) == {"ok", "bytesBefore", "bytesAfter"}
        assert done["bytesAfter"] <= done["bytesBefore"]
    stats = shown(program, "db", "stats")
    assert stats["bytes"] == database.stat().st_size
    assert set(stats) == {"path", "bytes", "walBytes", "freeBytes", "recipients"}
    assert str(database) in program("db", "stats").out
    assert program("db", "check").out == "the database is sound\n"


def test_care_with_a_daemon_is_the_daemons(program: Program, daemon: Double) -> None:
    daemon.answers = {
        "POST /v1/control/db/vacuum": {"ok": True, "bytesBefore": 9_000_000, "bytesAfter": 5_000_000},
        "POST /v1/control/db/prune": {"ok": True},
        "POST /v1/control/db/check": {"ok": False, "problems": ["page 7: damaged"]},
        "GET /v1/control/db": {"path": "/s/arkrelay.db", "recipients": {"sent": 3}},
    }
    assert "5.0 MB" in program("db", "vacuum").out
    assert program("db", "prune").code == 0
    assert "recipients sent  3" in program("db", "stats").out
    ran = program("db", "check")
    assert (ran.code, ran.err) == (1, "page 7: damaged\n")


def test_damage_is_found_and_recovered(program: Program, database: Path) -> None:
    content = bytearray(database.read_bytes())
    content[4096:8192] = b"\xff" * 4096
    database.write_bytes(content)
    for verb in ("stats", "prune"):
        assert "Traceback" not in program("db", verb).err
    ran = program("db", "check", "--json")
    assert ran.code == 1
    assert json.loads(ran.out)["problems"]
    assert program("db", "recover").code == 1  # asks, and nobody answers
    assert "rows" in shown(program, "db", "recover", "--yes")
    assert program("db", "check").code == 0


def test_without_a_database_it_is_missing(program: Program) -> None:
    for verb in ("vacuum", "prune", "stats"):
        ran = program("db", verb)
        assert ran.code == 1
        assert "missing" in ran.err
