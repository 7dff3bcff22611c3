"""Files replaced whole, or not at all."""

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arkrelay.config.files import locked, replace
from arkrelay.model.errors import Conflict


def test_a_new_file_is_private_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    replace(file, b"one")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o640)
    replace(file, b"two")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert file.read_bytes() == b"two"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_leaves_the_file_to_its_owner(tmp_path: Path) -> None:
    os.chown(tmp_path, 4321, 4322)
    file = tmp_path / "a.toml"
    replace(file, b"one")
    assert (file.stat().st_uid, file.stat().st_gid) == (4321, 4322)
    os.chown(file, 5432, 5433)
    replace(file, b"two")
    assert (file.stat().st_uid, file.stat().st_gid) == (5432, 5433)
    with locked(tmp_path):
        assert (tmp_path / ".lock").stat().st_uid == 4321


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    target, link = tmp_path / "elsewhere" / "a.toml", tmp_path / "a.toml"
    target.parent.mkdir()
    target.write_bytes(b"one")
    link.symlink_to(target)
    replace(link, b"two")
    assert link.is_symlink()
    assert target.read_bytes() == b"two"


@pytest.mark.parametrize("call", ["write", "fsync", "rename", "fchmod"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    file = tmp_path / "a.toml"
    replace(file, b"one")

    def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise OSError(28, "No space left on device")

    if call == "rename":
        monkeypatch.setattr(Path, "rename", fail)
    elif call == "write":
        monkeypatch.setattr(os, "fdopen", fail)
    else:
        monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        replace(file, b"two")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["a.toml"]
    assert file.read_bytes() == b"one"


def test_who_waits_too_long_for_the_lock_gets_a_conflict(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(Conflict, match="another process holds the lock"), locked(tmp_path, 0.05):
        pytest.fail("two held the lock")


def test_the_lock_is_handed_on(tmp_path: Path) -> None:
    order: list[str] = []
    waiting = threading.Event()

    def second() -> None:
        waiting.set()
        with locked(tmp_path):
            order.append("second")

    thread = threading.Thread(target=second)
    with locked(tmp_path):
        thread.start()
        assert waiting.wait(5)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]


def count_to(file: Path, times: int, step: Callable[[int], int]) -> None:
    for _ in range(times):
        with locked(file.parent):
            replace(file, str(step(int(file.read_bytes()))).encode())


def test_threads_that_share_the_lock_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "number"
    file.write_text("0")
    threads = [threading.Thread(target=count_to, args=(file, 25, lambda number: number + 1)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert file.read_bytes() == b"100"
