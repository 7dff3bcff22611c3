"""This machine once more, to be installed on and thrown away: its root file system under an overlay, in namespaces.

What is installed, configured and run in it touches nothing outside; when it is closed, or the test run dies, its
processes are killed by the kernel and the overlay is gone. The network of ``machine`` is ours, so a scripted peer can
be reached; ``booted`` has systemd, and a network of its own.
"""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

TIMEOUT_S = 120
BOOT_S = 60
# The overlay's upper half is in memory.
_OVERLAY = """
set -e
mount -t tmpfs -o size=1g,mode=0755 machine "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay machine -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
"""
# /run is empty, as on a machine without systemd; policy-rc.d(8) lets no maintainer script start anything.
_MAKE = f"""{_OVERLAY}
mount --rbind /dev "$1/root/dev"
mount -t tmpfs -o mode=0755 run "$1/root/run"
mount -t tmpfs -o mode=1777 tmp "$1/root/tmp"
printf '#!/bin/sh\\nexit 101\\n' >"$1/root/usr/sbin/policy-rc.d"
chmod 755 "$1/root/usr/sbin/policy-rc.d"
echo made
exec cat
"""


# With systemd as the first process, which has what it wants of a container: its own /dev and /run, a group for each
# service, and no way to change the kernel's settings. Nothing that this machine starts by itself is started there;
# maintainer scripts start what they like.
_BOOT = f"""{_OVERLAY}
cd "$1/root"
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=0755 dev dev
mkdir dev/shm dev/pts
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for name in null zero full random urandom tty; do touch dev/$name; mount --bind /dev/$name dev/$name; done
mount -t tmpfs -o mode=0755 run run
mount -t tmpfs -o mode=1777 tmp tmp
: >etc/machine-id
rm -f etc/systemd/system/*.wants/* usr/sbin/policy-rc.d
mkdir run/before
pivot_root . run/before
umount -l /run/before
echo made
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
  /lib/systemd/systemd --unit=basic.target --show-status=no </dev/null >/dev/null 2>&1
"""


class Machine:
    """A machine that is up; ``root`` in front of a path is where this process would write a file for it."""

    def __init__(self, root: Path, enter: list[str]) -> None:
        self.root = root
        self._enter = enter

    def words(self, *words: str | Path) -> list[str]:
        """Return the command line that runs ``words`` there."""
        return [*self._enter, *map(str, words)]

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

    def without_arkrelay(self) -> "Machine":
        """Remove what is installed outside."""
        self.run("dpkg", "--force-all", "--purge", "arkrelay", check=False)
        self.run("rm", "-rf", "/etc/arkrelay", "/var/lib/arkrelay")
        return self

    def files(self, *below: str) -> set[str]:
        """Return the paths of everything that is there below these folders."""
        return set(self.run("find", *below, check=False).stdout.splitlines())


@contextlib.contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """Give a machine; the test is skipped where namespaces or overlays are not allowed."""
    with _held(folder, _MAKE) as holder:
        root = folder / "root"
        enter = ["nsenter", f"--target={holder}", "--mount", "--pid", "chroot", str(root)]
        yield Machine(Path(f"/proc/{holder}/root{root}"), enter)


@contextlib.contextmanager
def booted(folder: Path) -> Iterator[Machine]:
    """Give a machine with a network of its own that systemd has started; skipped where that is not allowed."""
    others = ("net", "uts", "ipc", "cgroup")
    with _held(folder, _BOOT, *(f"--{one}" for one in others)) as holder:
        enter = ["nsenter", f"--target={holder}", "--mount", "--pid", *(f"--{one}" for one in others)]
        made = Machine(Path(f"/proc/{holder}/root"), enter)
        deadline = time.monotonic() + BOOT_S
        up = {"running", "degraded"}  # the latter where some unit of this machine does not like it there
        while (state := made.run("systemctl", "is-system-running", check=False).stdout.strip()) not in up:
            if time.monotonic() > deadline or not made.root.exists():
                pytest.skip(f"systemd does not come up in a container here: {state or 'it ended'}")
            time.sleep(0.1)
        yield made


@contextlib.contextmanager
def _held(folder: Path, script: str, *namespaces: str) -> Iterator[int]:
    """Run what makes a machine, and give its first process; what runs in it is killed with that one."""
    # the kernel ends it when we end, in whatever way
    unshare = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", *namespaces]
    with subprocess.Popen(
        [*unshare, "sh", "-c", script, "sh", folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stderr is not None
        try:
            if holder.stdout.readline() != b"made\n":
                pytest.skip(f"no machine to throw away is allowed here: {holder.stderr.read().decode().strip()}")
            yield int(Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text())
        finally:
            holder.kill()
            holder.wait(TIMEOUT_S)
