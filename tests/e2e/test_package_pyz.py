"""arkrelay.pyz is one file that runs, in Debian's Python, as anybody, and keeps what it unpacks to itself."""

import ast
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from peers.packages import ROOT, Built

pytestmark = pytest.mark.timeout(300)  # whoever comes first waits for the build

SOMEBODY = 59_871  # a user without a name, a home or any file


def python() -> str:
    """Return Debian's Python where it is of the version that the tests run in, else the one that runs them."""
    debians = Path("/usr/bin/python3")
    same = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return str(debians) if debians.exists() and debians.resolve().name == same else sys.executable


def run(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": os.defpath, "HOME": "/nonexistent", **environment}
    return subprocess.run([python(), *words], env=clean, capture_output=True, text=True, timeout=120, check=False)


@dataclass(frozen=True)
class Somebody:
    """A user whose home is not his: ``words`` in front of a command make it run as him, in ``folder``."""

    words: list[str]
    folder: Path
    pyz: Path

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.words, python(), self.pyz, *words], **self.settings, capture_output=True, timeout=120, check=False
        )

    @property
    def settings(self) -> dict[str, Any]:
        return {"env": {"PATH": os.defpath, "HOME": "/usr"}, "cwd": self.folder, "text": True}


@pytest.fixture
def somebody(built: Built, need: Callable[[str], Path]) -> Iterator[Somebody]:
    """Give a user and a copy that he can read: pytest's own folders are closed to others."""
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    words = [str(need("setpriv")), f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups"]
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chown(folder, SOMEBODY, SOMEBODY)
        yield Somebody(words, Path(folder), Path(shutil.copy(built.pyz, folder)))
    shutil.rmtree(f"/var/tmp/arkrelay-{SOMEBODY}", ignore_errors=True)


def test_the_whole_job_runs_as_a_user_without_a_home(somebody: Somebody) -> None:
    done = somebody.run("demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Both arrived, over TLS, with a DKIM signature that verifies." in done.stdout
    place = Path(f"/var/tmp/arkrelay-{SOMEBODY}")
    assert (place.stat().st_mode & 0o7777, place.stat().st_uid) == (0o700, SOMEBODY)


def test_the_daemon_runs_as_a_user_without_a_home(somebody: Somebody) -> None:
    made = somebody.run("init", "relay", "--hostname", "relay.test", "--domain", "sender.test")
    assert made.returncode == 0, made.stderr
    config = somebody.folder / "relay" / "arkrelay.toml"
    config.write_text(re.sub(r'(address = "127.0.0.1):\d+"', r'\1:0"', config.read_text()))
    serve = [*somebody.words, python(), str(somebody.pyz), "serve", "-c", str(config)]
    with subprocess.Popen(serve, **somebody.settings, stderr=subprocess.PIPE) as daemon:
        assert daemon.stderr is not None
        try:
            for line in daemon.stderr:
                if '"event": "started"' in line:
                    break
            status = somebody.run("status", "-c", str(config))
        finally:
            daemon.terminate()
            said = daemon.stderr.read()
    assert (status.returncode, daemon.returncode) == (0, 0), status.stdout + status.stderr + said


def test_it_says_its_version_by_its_own_first_line(built: Built, tmp_path: Path) -> None:
    environment = {**os.environ, "ARKRELAY_CACHE": str(tmp_path)}
    done = subprocess.run([built.pyz, "--version"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.startswith("arkrelay ")) == (0, True), done.stderr
    link = tmp_path / "sendmail"
    link.symlink_to(built.pyz)
    done = subprocess.run([link, "-bp"], env=environment, capture_output=True, text=True, check=False)
    assert "arkrelay" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_who_starts_at_once_unpacks_once(built: Built, tmp_path: Path) -> None:
    environment = {"PATH": os.defpath, "ARKRELAY_CACHE": str(tmp_path)}
    words = [python(), str(built.pyz), "--version"]
    several = [subprocess.Popen(words, env=environment, stdout=subprocess.PIPE) for _ in range(4)]
    assert [(one.communicate()[0][:8], one.returncode) for one in several] == [(b"arkrelay", 0)] * 4
    unpacked = list((tmp_path / "pyz").iterdir())
    assert len(unpacked) == 1
    assert (tmp_path / "pyz").stat().st_mode & 0o7777 == 0o700
    inside = unpacked[0].stat()
    run(built.pyz, "--version", ARKRELAY_CACHE=str(tmp_path))
    assert (tmp_path / "pyz" / unpacked[0].name).stat().st_ino == inside.st_ino  # and not again


def test_what_an_older_one_left_goes_unless_it_still_runs(built: Built, tmp_path: Path) -> None:
    place = tmp_path / "pyz"
    for name in ("a" * 32, "b" * 32, ".left", "mine"):
        (place / name / "arkrelay").mkdir(parents=True)
    os.utime(place / ".left", (0, 0))
    held = os.open(place / ("a" * 32), os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_SH)
    assert run(built.pyz, "--version", ARKRELAY_CACHE=str(tmp_path)).returncode == 0
    os.close(held)
    left = {path.name for path in place.iterdir()}
    assert {"a" * 32, "mine"} < left
    assert len(left) == 3


def test_a_folder_that_is_not_ours_alone_is_not_used(built: Built, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to somebody else")
    for others in (tmp_path / "his", tmp_path / "in-his" / "cache"):
        others.mkdir(parents=True)
        os.chown(others if others.name == "his" else others.parent, SOMEBODY, SOMEBODY)
        done = run(built.pyz, "--version", ARKRELAY_CACHE=str(others))
        assert (done.returncode, done.stdout) == (1, "")
        assert "another user could replace it" in done.stderr
        assert list(others.iterdir()) == []


def test_a_damaged_one_runs_nothing_of_it(built: Built, tmp_path: Path) -> None:
    content = bytearray(built.pyz.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = tmp_path / "arkrelay.pyz"
    damaged.write_bytes(content)
    done = run(damaged, "--version", ARKRELAY_CACHE=str(tmp_path))
    assert (done.returncode, "is damaged" in done.stderr, list((tmp_path / "pyz").iterdir())) == (1, True, [])


def test_another_python_is_told_so(built: Built, tmp_path: Path) -> None:
    pretend = "import importlib.machinery as m, runpy, sys; m.EXTENSION_SUFFIXES[:] = ['.cpython-399-any.so']"
    done = run("-c", f"{pretend}; runpy.run_path({str(built.pyz)!r}, run_name='__main__')")
    assert done.returncode == 1
    assert done.stderr.startswith("arkrelay.pyz is for Python modules *.cpython-3")
    with zipfile.ZipFile(built.pyz) as archive:  # and a Python that is too old for our syntax gets as far as that
        ast.parse(archive.read("__main__.py"), feature_version=(3, 6))


def test_everything_of_the_source_is_packed(built: Built) -> None:
    def of(folder: Path) -> set[str]:
        found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {str(path.relative_to(folder)) for path in found}

    assert of(built.stage / "arkrelay") == of(ROOT / "arkrelay")
    assert not (built.stage / "pip").exists()
