"""This machine once more, to be installed on and thrown away: its root file system under an overlay, in namespaces.

What is installed, configured and run in it touches nothing outside; when it is closed, or the test run dies, its
processes are killed by the kernel and the overlay is gone. Its network is ours, so a scripted peer can be reached.
"""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

TIMEOUT_S = 120
# The overlay's upper half is in memory. /run is empty, as on a machine without systemd; policy-rc.d(8) lets no
# maintainer script start anything.
MAKE = """
set -e
mount -t tmpfs -o size=1g,mode=0755 machine "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay machine -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount -t tmpfs -o mode=0755 run "$1/root/run"
mount -t tmpfs -o mode=1777 tmp "$1/root/tmp"
printf '#!/bin/sh\\nexit 101\\n' >"$1/root/usr/sbin/policy-rc.d"
chmod 755 "$1/root/usr/sbin/policy-rc.d"
echo made
exec cat
"""


class Machine:
    """A machine that is up; ``root`` in front of a path is where this process would write a file for it."""

    def __init__(self, folder: Path, holder: int) -> None:
        self._folder = folder
        self._holder = holder
        self.root = Path(f"/proc/{holder}/root{folder}/root")

    def words(self, *words: str | Path) -> list[str]:
        """Return the command line that runs ``words`` there."""
        inside = ["chroot", str(self._folder / "root"), *map(str, words)]
        return ["nsenter", f"--target={self._holder}", "--mount", "--pid", *inside]

    def run(self, *words: str | Path, check: bool = True, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command there to its end; AssertionError with what it printed when it fails."""
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
        }
        there = self.words(*words)
        done = subprocess.run(
            there, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, input=given, check=False
        )
        assert not check or done.returncode == 0, (words, done.stdout, done.stderr)
        return done

    def take(self, path: Path) -> Path:
        """Copy a file into /tmp there and return its path there."""
        shutil.copy(path, self.root / "tmp" / path.name)
        return Path("/tmp") / path.name

    def files(self, *below: str) -> set[str]:
        """Return the paths of everything that is there below these folders."""
        return set(self.run("find", *below, check=False).stdout.splitlines())


@contextlib.contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """Give a machine; the test is skipped where namespaces or overlays are not allowed."""
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    # no shell's `sleep`: it ends when our end of the pipe is closed, in whatever way we end
    with subprocess.Popen(
        [*unshare, "sh", "-c", MAKE, "sh", folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stderr is not None
        try:
            if holder.stdout.readline() != b"made\n":
                pytest.skip(f"no machine to throw away is allowed here: {holder.stderr.read().decode().strip()}")
            children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
            yield Machine(folder, int(children[0]))
        finally:
            holder.stdin.close()
            holder.wait(TIMEOUT_S)
