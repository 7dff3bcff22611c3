"""Mail to our own postmaster, kept as files until somebody reads it (RFC 5321 §4.5.1)."""

import os
import secrets
import time
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 1_000_000
MAX_FILES: Final = 200  # the oldest goes: strangers write here, and may cost at most 200 MB


def save_postmaster_mail(folder: Path, content: bytes) -> Path:
    """Return the file that now holds ``content``, on disk together with its name.

    Raises ``OSError`` when the disk cannot take it; then there is no such file. Blocks: call it in a thread.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = (
        folder / f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{time.time_ns():020d}-{secrets.token_hex(4)}.eml"
    )
    part = path.with_suffix(".part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    for old in sorted(folder.glob("*.eml"))[:-MAX_FILES]:
        old.unlink(missing_ok=True)
    return path
