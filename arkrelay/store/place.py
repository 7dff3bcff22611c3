"""The state directory: may we use it, are we alone in it, and is there room for the worst case."""

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path

from arkrelay.model.errors import StoreError

DATABASE = "arkrelay.db"
RESERVE_BYTES = 16 * 1024 * 1024  # room to record some 30 000 results when the disk is full
# sharing a WAL needs memory shared between processes, which these do not give (https://sqlite.org/wal.html)
NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "ncpfs", "afs", "ceph", "coda", "lustre"}
    | {"glusterfs", "fuse.glusterfs", "fuse.sshfs", "fuse.s3fs", "fuse.rclone", "davfs", "fuse.davfs2"}
)


def prepare(directory: Path) -> None:
    """Make sure that ``directory`` is ours, private and local, creating it (0700) when its parent is there."""
    try:
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            pass
        status = directory.stat()
    except FileNotFoundError as exc:
        raise StoreError(f"{directory}: its parent directory does not exist") from exc
    except OSError as exc:
        raise StoreError(f"{directory}: {exc.strerror}") from exc
    if not stat.S_ISDIR(status.st_mode):
        raise StoreError(f"{directory}: not a directory")
    _check_owner(directory, status)
    if status.st_mode & 0o022:
        raise StoreError(f"{directory}: other users may write into it (mode {stat.S_IMODE(status.st_mode):04o})")
    kind = file_system(directory)
    if kind in NETWORK_FILE_SYSTEMS:
        raise StoreError(f"{directory}: on a network file system ({kind}), where SQLite cannot keep its promises")


def check_database_file(path: Path) -> bool:
    """Return True when the database file is there and ours, False when a new one may be made.

    Raises ``StoreError`` when it is gone although its companions are here: a new, empty database over
    them would be silent loss.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        status = None
    except OSError as exc:
        raise StoreError(f"{path}: {exc.strerror}") from exc
    if status is None or status.st_size == 0:
        left = [name for name in companions(path) if _holds_something(path.parent / name)]
        if left:
            what = "missing" if status is None else "empty"
            raise StoreError(f"{path}: {what}, but {', '.join(left)} of it is here; restore a backup")
        return False
    if not stat.S_ISREG(status.st_mode):
        raise StoreError(f"{path}: not a regular file")
    _check_owner(path, status)
    if not status.st_mode & stat.S_IWUSR or not os.access(path, os.W_OK):
        raise StoreError(f"{path}: read-only")
    return True


def companions(path: Path) -> tuple[str, ...]:
    """Return the names beside the database that only exist together with it."""
    return (f"{path.name}-wal", f"{path.name}-journal", "journal", "bodies")


def _holds_something(path: Path) -> bool:
    if path.is_dir():
        return any(entry.is_file() for entry in path.rglob("*"))
    return path.is_file() and path.stat().st_size > 0


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise StoreError(f"{path}: belongs to user {status.st_uid}, and this process runs as {os.geteuid()}")


def file_system(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Return the type of the file system that holds ``path``, or "" when the kernel does not tell."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:  # "36 35 98:0 /root /mnt rw,noatime shared:1 - ext4 /dev/sda rw" (proc(5))
        before, _, after = line.partition(" - ")
        if before.split(" ", 3)[2:3] == [wanted] and after:
            return after.split(" ", 1)[0]
    return ""


def boot_id() -> str:
    """Return the kernel's id of this boot (proc(5)), or "" where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def sync_directory(path: Path) -> None:
    """Return when names made or removed in ``path`` are on disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_synced(path: Path, unfinished: Path, content: bytes) -> None:
    """Return when a new file with this content and its name are on disk; both are in one folder.

    A crash leaves nothing, or what is ``unfinished``, or the file whole. Raises ``OSError``, and may leave either.
    """
    handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    unfinished.rename(path)
    sync_directory(path.parent)


class Lock:
    """The lock on a state directory; the kernel releases it when the process ends, however it ends."""

    def __init__(self, directory: Path) -> None:
        """Hold the lock, or raise ``StoreError`` at once when another process does."""
        path = directory / "lock"
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as exc:
            raise StoreError(f"{path}: {exc.strerror}") from exc
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            owner = os.pread(self._handle, 20, 0).decode("ascii", "replace").strip()
            os.close(self._handle)
            raise StoreError(
                f"another arkrelay runs on {directory}" + (f" (process {owner})" if owner else "")
            ) from exc
        with suppress(OSError):  # the number is a courtesy; on a full disk we do without
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another process have the directory; harmless when done twice."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


class Reserve:
    """A file that does nothing but take room, so that there is some when the disk is full.

    On a full disk SQLite refuses UPDATE, DELETE and checkpoint alike. Without room to record it, mail that
    a peer took would be sent again.
    """

    def __init__(self, directory: Path, size_bytes: int = RESERVE_BYTES) -> None:
        self._path = directory / "reserve"
        self._size_bytes = size_bytes

    def restore(self) -> bool:
        """Return True when the reserve is there, taking it from the free space if that is twice as large."""
        try:
            if self._path.stat().st_blocks * 512 >= self._size_bytes:
                return True
        except OSError:
            pass
        try:
            free = os.statvfs(self._path.parent)
            if free.f_bavail * free.f_frsize < 2 * self._size_bytes:
                return False
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(handle, 0, self._size_bytes)
            finally:
                os.close(handle)
        except OSError:
            self.release()
            return False
        return True

    def release(self) -> bool:
        """Return True when the reserve was there and its room is free now."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True

    def disk_is_full(self) -> bool:
        """Return whether an I/O error is a full disk in disguise (SQLite reports some growth that way)."""
        try:
            free = os.statvfs(self._path.parent)
        except OSError:
            return False
        return free.f_bavail * free.f_frsize < 65536
