"""What runs first in ``arkrelay.pyz``: unpack the packages once, and go on in them.

Of the standard library alone, and it compiles in any Python 3, so that a wrong one is told so. The packages are
unpacked into a folder named by their hash, in the first place that this user can have for himself::

    $ARKRELAY_CACHE/pyz, and no other; or $CACHE_DIRECTORY/pyz (systemd), $XDG_CACHE_HOME/arkrelay/pyz,
    ~/.cache/arkrelay/pyz, /var/tmp/arkrelay-UID, $TMPDIR/arkrelay-UID

It is of mode 0700 and owned by us, and nobody but root can move it, or we do not use it: whoever could write there
would be us. The folder appears by one rename, so two processes that start at once both find a whole one. Each holds
a shared lock on its own; what an older version has left is removed when nobody holds it.
"""

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

OURS = 0o700
STALE_S = 3600  # unpacking takes seconds: what is older than this was left by a process that was killed


def main() -> None:
    """Run arkrelay out of the archive that this file is in."""
    with zipfile.ZipFile(os.path.dirname(os.path.abspath(__file__))) as archive:
        about = json.loads(archive.read("build.json").decode())
        if about["modules"] not in importlib.machinery.EXTENSION_SUFFIXES:
            here = importlib.machinery.EXTENSION_SUFFIXES[0]
            sys.exit("arkrelay.pyz is for Python modules *%s, and this Python has *%s" % (about["modules"], here))
        folder = find(archive, about["sha256"])
    sys.path[0] = folder
    runpy.run_module("arkrelay", run_name="__main__")  # which ends this process


def find(archive: zipfile.ZipFile, wanted: str) -> str:
    """Return the folder of the packages, unpacked now if they were not; it is ours until this process ends."""
    reasons = []
    for place in places():
        try:
            own(place)
            folder = os.path.join(place, wanted[:32])
            while not hold(folder):
                unpack(archive, wanted, folder)
            clear(place, folder)
        except OSError as error:
            reasons.append("%s: %s" % (place, error.strerror or error))
        else:
            return folder
    return sys.exit("arkrelay.pyz finds no place to unpack its packages; set ARKRELAY_CACHE\n" + "\n".join(reasons))


def places() -> "list[str]":
    """Return where the packages may go, the best place first."""
    if os.environ.get("ARKRELAY_CACHE"):
        return [os.path.join(os.path.abspath(os.environ["ARKRELAY_CACHE"]), "pyz")]
    mine = "arkrelay-%d" % os.geteuid()
    found = [os.path.join(os.environ.get("CACHE_DIRECTORY", "").split(":")[0], "pyz")]
    found.append(os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "arkrelay", "pyz"))
    found += [os.path.join("/var/tmp", mine), os.path.join(tempfile.gettempdir(), mine)]
    return [place for place in found if os.path.isabs(place)]


def own(place: str) -> None:
    """Make the place, closed to others; OSError where it is another's, or programs cannot be run from there."""
    above = os.path.dirname(place)
    os.makedirs(above, mode=OURS, exist_ok=True)
    while True:
        found = os.stat(above)
        open_to_all = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
        if found.st_uid not in (0, os.geteuid()) or open_to_all:
            raise OSError(0, "another user could replace it, by %s" % above)
        if above == os.path.dirname(above):
            break
        above = os.path.dirname(above)
    try:
        os.mkdir(place, OURS)
    except FileExistsError:
        pass
    found = os.lstat(place)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise OSError(0, "it is not a directory of this user")
    if stat.S_IMODE(found.st_mode) & 0o077:
        os.chmod(place, OURS)
    if os.statvfs(place).f_flag & os.ST_NOEXEC:
        raise OSError(0, "it is mounted noexec")


def hold(folder: str) -> bool:
    """Take the folder for the life of this process; False when it is not there, or was removed under our hands."""
    try:
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    fcntl.flock(number, fcntl.LOCK_SH)
    try:
        if os.path.samestat(os.stat(folder), os.fstat(number)):
            return True
    except FileNotFoundError:
        pass
    os.close(number)
    return False


def unpack(archive: zipfile.ZipFile, wanted: str, folder: str) -> None:
    """Let the folder exist, whole and on disk; that another process was quicker is as good."""
    try:
        content = archive.read("packages.tar.gz")
    except zipfile.BadZipFile:
        content = b""
    if hashlib.sha256(content).hexdigest() != wanted:
        sys.exit("arkrelay.pyz is damaged: its packages are not those that it was built with")
    scratch = tempfile.mkdtemp(prefix=".", dir=os.path.dirname(folder))
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as packages:
            packages.extractall(scratch)
        os.sync()  # or a power cut might leave the name, and files without content
        os.rename(scratch, folder)
    except OSError:
        shutil.rmtree(scratch, ignore_errors=True)
        if not os.path.isdir(folder):
            raise


def clear(place: str, folder: str) -> None:
    """Remove what other versions have left and nobody runs."""
    for name in os.listdir(place):
        other = os.path.join(place, name)
        if other == folder or not re.match(r"\.|[0-9a-f]{32}$", name):
            continue
        try:
            if name.startswith(".") and os.stat(other).st_mtime > time.time() - STALE_S:
                continue
            number = os.open(other, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(other, ignore_errors=True)
        except OSError:
            pass
        finally:
            os.close(number)


if __name__ == "__main__":
    main()
