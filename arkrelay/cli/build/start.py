"""What runs first in ``arkrelay.pyz``: unpack the packages once, and go on in them.

Of the standard library alone, and without anything newer than Python 3.6, so that a wrong Python is told so. The
packages are unpacked into a folder named by their hash, in the first place that this user can have for himself::

    $ARKRELAY_CACHE/pyz, and no other; or $CACHE_DIRECTORY/pyz (systemd), $XDG_CACHE_HOME/arkrelay/pyz,
    ~/.cache/arkrelay/pyz, /var/tmp/arkrelay-UID, $TMPDIR/arkrelay-UID

It is of mode 0700 and owned by us, and nobody but root can move it, or we do not use it: whoever could write there
would be us. The folder appears by one rename, so two processes that start at once both find a whole one. Each holds
a shared lock on its own; what an older version has left is removed when nobody holds it.
"""

import contextlib
import fcntl
import hashlib
import importlib.machinery
import io
import json
import os
import re
import runpy
import shutil
import stat
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

OURS = 0o700
STALE_S = 3600  # unpacking takes seconds: what is older than this was left by a process that was killed


def main() -> None:
    """Run arkrelay out of the archive that this file is in."""
    with zipfile.ZipFile(str(Path(__file__).parent)) as archive:
        about = json.loads(archive.read("build.json").decode())
        if about["modules"] not in importlib.machinery.EXTENSION_SUFFIXES:
            here = importlib.machinery.EXTENSION_SUFFIXES[0]
            sys.exit(f"arkrelay.pyz is for Python modules *{about['modules']}, and this Python has *{here}")
        folder = find(archive, about["sha256"])
    sys.path[0] = str(folder)
    runpy.run_module("arkrelay", run_name="__main__")  # which ends this process


def find(archive: zipfile.ZipFile, wanted: str) -> Path:
    """Return the folder of the packages, unpacked now if they were not; it is ours until this process ends."""
    reasons = []
    for place in places():
        try:
            own(place)
            folder = place / wanted[:32]
            while not hold(folder):
                unpack(archive, wanted, folder)
            clear(place, folder)
        except OSError as error:
            reasons.append(f"{place}: {error.strerror or error}")
        else:
            return folder
    return sys.exit("\n".join(["arkrelay.pyz finds no place to unpack its packages; set ARKRELAY_CACHE", *reasons]))


def places() -> "list[Path]":
    """Return where the packages may go, the best place first."""
    if os.environ.get("ARKRELAY_CACHE"):
        return [Path.cwd() / os.environ["ARKRELAY_CACHE"] / "pyz"]
    mine = f"arkrelay-{os.geteuid()}"
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111 -- which never fails
    found = [Path(os.environ.get("CACHE_DIRECTORY", "").split(":")[0]) / "pyz", home / "arkrelay" / "pyz"]
    found += [Path("/var/tmp") / mine, Path(tempfile.gettempdir()) / mine]  # noqa: S108 -- ``own`` looks at it
    return [place for place in found if place.is_absolute()]


def own(place: Path) -> None:
    """Make the place, closed to others; OSError where it is another's, or programs cannot be run from there."""
    place.parent.mkdir(mode=OURS, parents=True, exist_ok=True)
    for above in place.parents:
        found = above.stat()
        open_to_all = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
        if found.st_uid not in (0, os.geteuid()) or open_to_all:
            raise OSError(0, f"another user could replace it, by {above}")
    with contextlib.suppress(FileExistsError):
        place.mkdir(OURS)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise OSError(0, "it is not a directory of this user")
    if stat.S_IMODE(found.st_mode) & 0o077:
        place.chmod(OURS)
    if os.statvfs(str(place)).f_flag & os.ST_NOEXEC:
        raise OSError(0, "it is mounted noexec")


def hold(folder: Path) -> bool:
    """Take the folder for the life of this process; False when it is not there, or was removed under our hands."""
    try:
        number = os.open(str(folder), os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    fcntl.flock(number, fcntl.LOCK_SH)
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(folder.stat(), os.fstat(number)):
            return True
    os.close(number)
    return False


def unpack(archive: zipfile.ZipFile, wanted: str, folder: Path) -> None:
    """Let the folder exist, whole and on disk; that another process was quicker is as good."""
    try:
        content = archive.read("packages.tar.gz")
    except zipfile.BadZipFile:
        content = b""
    if hashlib.sha256(content).hexdigest() != wanted:
        sys.exit("arkrelay.pyz is damaged: its packages are not those that it was built with")
    scratch = Path(tempfile.mkdtemp(prefix=".", dir=str(folder.parent)))
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as packages:
            packages.extractall(str(scratch))  # noqa: S202 -- it is what its hash, beside this code, says that it is
        os.sync()  # or a power cut might leave the name, and files without content
        scratch.rename(folder)
    except OSError:
        shutil.rmtree(str(scratch), ignore_errors=True)
        if not folder.is_dir():
            raise


def clear(place: Path, folder: Path) -> None:
    """Remove what other versions have left and nobody runs."""
    for other in place.iterdir():
        if other == folder or not re.match(r"\.|[0-9a-f]{32}$", other.name):
            continue
        with contextlib.suppress(OSError):  # gone meanwhile, or in use
            if other.name.startswith(".") and other.stat().st_mtime > time.time() - STALE_S:
                continue
            number = os.open(str(other), os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(str(other), ignore_errors=True)
            finally:
                os.close(number)


if __name__ == "__main__":
    main()
