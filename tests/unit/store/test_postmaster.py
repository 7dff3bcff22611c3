"""The postmaster's mailbox."""

from pathlib import Path

import pytest

from arkrelay.store import postmaster
from arkrelay.store.postmaster import count_postmaster_mail, save_postmaster_mail, sweep_postmaster_mail


def test_mail_is_kept_in_private_files_and_the_oldest_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postmaster, "MAX_FILES", 3)
    folder = tmp_path / "state" / "postmaster"
    assert count_postmaster_mail(folder) == 0
    saved = [save_postmaster_mail(folder, b"message %d" % i) for i in range(5)]
    paths = [path for path, _ in saved]
    assert [dropped for _, dropped in saved] == [(), (), (), (paths[0].name,), (paths[1].name,)]
    assert count_postmaster_mail(folder) == 3
    assert sorted(folder.iterdir()) == sorted(paths[2:])
    assert paths[4].read_bytes() == b"message 4"
    assert paths[4].stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_failed_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_postmaster_mail(tmp_path, b"x")
    assert list(tmp_path.iterdir()) == []


def test_what_a_crash_left_half_written_goes(tmp_path: Path) -> None:
    path, _ = save_postmaster_mail(tmp_path, b"x")
    (tmp_path / "20270101T000000-1-aa.part").write_bytes(b"half")
    assert sweep_postmaster_mail(tmp_path) == 1
    assert list(tmp_path.iterdir()) == [path]
    assert sweep_postmaster_mail(tmp_path / "none") == 0
