"""Mail to our own postmaster, kept as files until somebody reads it (RFC 5321 §4.5.1)."""

import secrets
import time
from pathlib import Path
from typing import Final, NamedTuple

from arkrelay.store.place import write_synced

FOLDER: Final = "postmaster"  # below state_dir
MAX_BYTES: Final = 1_000_000
MAX_FILES: Final = 200  # the oldest goes: strangers write here, and may cost at most 200 MB


class Saved(NamedTuple):
    """A message that is kept, and the names of the oldest, which had to go for it."""

    path: Path
    dropped: tuple[str, ...]


def save_postmaster_mail(folder: Path, content: bytes) -> Saved:
    """Keep ``content`` in a file of its own, on disk together with its name.

    Raises ``OSError`` when the disk cannot take it; then there is no such file. Blocks: call it in a thread.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = (
        folder / f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{time.time_ns():020d}-{secrets.token_hex(4)}.eml"
    )
    part = path.with_suffix(".part")
    try:
        write_synced(path, part, content)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    oldest = sorted(folder.glob("*.eml"))[:-MAX_FILES]
    for old in oldest:
        old.unlink(missing_ok=True)
    return Saved(path, tuple(old.name for old in oldest))


def count_postmaster_mail(folder: Path) -> int:
    """Return how many messages wait to be read."""
    return sum(1 for _ in folder.glob("*.eml"))


def sweep_postmaster_mail(folder: Path) -> int:
    """Remove what a crash left half written, before anything is written; return how many files that were."""
    halves = list(folder.glob("*.part"))
    for half in halves:
        half.unlink(missing_ok=True)
    return len(halves)
