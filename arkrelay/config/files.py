"""Files replaced whole: temporary file, fsync, rename, fsync of the folder; and the lock that writers share."""

import contextlib
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from arkrelay.model.errors import Busy

LOCK = ".lock"
LOCK_WAIT_S = 20.0  # an edit holds the lock for milliseconds; who waits this long meets a stopped process
LOCK_POLL_S = 0.02
SHOWN = 40  # characters of a file's name in that of its temporary one


def mode_of(path: Path) -> int:
    """Return the permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def world_readable(path: Path) -> bool:
    """Return whether users outside the file's owner and group may read or change it."""
    return bool(mode_of(path) & 0o006)


def adopt(path: Path, *, like: Path) -> None:
    """Give ``path`` the owner and group of ``like`` when we are root, so that the service can read it."""
    if os.geteuid() == 0:
        owner = like.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def fsync_folder(folder: Path) -> None:
    """Put the names in ``folder`` on disk: a rename or a new file survives a power loss from here on."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Make ``content`` the whole of ``path``, on disk; readers see the old file or the new one, never a part.

    An existing file keeps its mode and owner, a new one gets ``mode`` and, from root, the folder's owner. When
    this raises, the old file is untouched and no temporary file is left; a crash may leave one (its name
    starts with a dot, and loading ignores it).
    """
    target = path.resolve() if path.is_symlink() else path  # an admin's symlink stays one
    # a name may be as long as the file system takes, and this one is longer
    temporary = target.parent / f".{target.name[:SHOWN]}.{secrets.token_hex(8)}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            if target.exists():
                adopt(temporary, like=target)
                os.fchmod(file.fileno(), mode_of(target))
            else:
                adopt(temporary, like=target.parent)
                os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(target.parent)


@contextlib.contextmanager
def locked(folder: Path, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """Hold the lock of the writers of ``folder``, across processes and threads; raise Busy after ``wait_s``.

    The lock is the kernel's (flock), so it goes with a process that dies.
    """
    path = folder / LOCK
    created = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if created:
            adopt(path, like=folder)
        give_up_at = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up_at:
                    raise Busy("another process holds the lock on the configuration files") from None
                time.sleep(LOCK_POLL_S)
        yield
    finally:
        os.close(descriptor)
