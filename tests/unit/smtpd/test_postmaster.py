"""The postmaster's mailbox."""

from pathlib import Path

import pytest

from arkrelay.smtpd import postmaster
from arkrelay.smtpd.postmaster import save_postmaster_mail


def test_mail_is_kept_in_private_files_and_the_oldest_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postmaster, "MAX_FILES", 3)
    folder = tmp_path / "state" / "postmaster"
    paths = [save_postmaster_mail(folder, b"message %d" % i) for i in range(5)]
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
