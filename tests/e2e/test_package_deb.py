"""The Debian package installs, runs, is upgraded with its queue and schema, and removed, on a machine of its own."""

import gzip
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
from peers.machine import Machine, machine
from peers.packages import NEXT, ROOT, SETTINGS, Built, for_this_machine, queued
from peers.readme import BLOCKS

from arkrelay import __version__
from arkrelay.cli.build.deb import debian_version
from arkrelay.cli.main import COMMANDS
from arkrelay.store.schema import VERSION

pytestmark = pytest.mark.timeout(400)

START_S = 40.0
MAKES = ("/usr", "/lib/systemd", "/etc", "/var/lib/arkrelay", "/opt")


@pytest.fixture
def fresh(tmp_path: Path, need: Callable[[str | Path], Path]) -> Iterator[Machine]:
    """Give a machine of its own to each test."""
    for_this_machine(need, "systemd-sysusers")
    with machine(tmp_path) as made:
        yield made.without_arkrelay()


@pytest.fixture(scope="module")
def unpacked(built: Built, need: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give what is in the package, as a folder."""
    folder = tmp_path_factory.mktemp("unpacked")
    subprocess.run([need("dpkg-deb"), "-x", built.deb, folder], check=True)
    return folder


class Daemon:
    """The daemon as its unit starts it, without systemd: its user, its program, what systemd would have made."""

    def __init__(self, at: Machine) -> None:
        self._at = at
        unit = (at.root / "lib/systemd/system/arkrelay.service").read_text()
        start = re.search(r"^ExecStart=(.*)", unit, re.MULTILINE)
        user = re.search(r"^User=(.*)", unit, re.MULTILINE)
        assert start is not None
        assert user is not None
        words = ["setpriv", f"--reuid={user[1]}", f"--regid={user[1]}", "--init-groups", "--no-new-privs"]
        words += ["--bounding-set=-all", "--inh-caps=-all", "env", "-i", "PATH=/usr/bin:/bin", *start[1].split()]
        self.process = subprocess.Popen(at.words(*words), stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        deadline = time.monotonic() + START_S
        while self._at.run("/usr/bin/arkrelay", "status", check=False).returncode != 0:
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline
        return self

    def __exit__(self, *_: object) -> None:
        self._at.run("pkill", "-TERM", "-U", "arkrelay")  # everything of this user, in this machine alone
        said = self.process.communicate(timeout=60)[1]
        assert self.process.returncode == 0, said
        assert '"level": "error"' not in said


def schema(at: Machine) -> int:
    told = "import sqlite3; print(sqlite3.connect('/var/lib/arkrelay/arkrelay.db')"
    told += ".execute('SELECT max(version) FROM schema_versions').fetchone()[0])"
    return int(at.run("/usr/bin/python3", "-c", told).stdout)


def test_its_life_from_installation_to_purge(fresh: Machine, built: Built, next_deb: Path) -> None:
    earlier, later = fresh.take(built.deb), fresh.take(next_deb)
    before = fresh.files(*MAKES)
    said = fresh.run("dpkg", "-i", earlier).stdout
    assert "next is: arkrelay init /etc/arkrelay" in said
    assert fresh.run("id", "-un", "arkrelay").stdout == "arkrelay\n"
    wrong = fresh.run("dpkg", "--verify", "arkrelay", check=False).stdout
    assert [line for line in wrong.splitlines() if "/usr/share/" not in line] == []  # small images leave out manuals

    fresh.run("bash", "-euc", BLOCKS["vps"])
    config = fresh.root / "etc/arkrelay/arkrelay.toml"
    assert 'state_dir = "/var/lib/arkrelay"' in config.read_text()
    assert (fresh.root / "etc/letsencrypt/renewal-hooks/deploy/arkrelay").stat().st_mode & 0o777 == 0o755
    config.write_text(re.sub(r'(address = "[\d.]+):\d+"', r'\1:0"', config.read_text()) + SETTINGS)
    tenant = fresh.root / "etc/arkrelay/tenants/main.toml"
    tenant.write_text(tenant.read_text().replace('name = "example.com"\n', 'name = "example.com"\ntrusted = true\n'))
    fresh.run("arkrelay", "check")
    text = ("--subject", "hi", "--text", "Hello.")
    with Daemon(fresh):
        for name in ("ann", "bob"):
            fresh.run("arkrelay", "send", "--from", "app@example.com", "--to", f"{name}@rcpt.test", *text)
        waiting = queued(fresh)
    assert [address for _, address in waiting] == ["ann@rcpt.test", "bob@rcpt.test"]
    assert schema(fresh) == VERSION

    fresh.run("dpkg", "-i", later)
    assert fresh.run("arkrelay", "--version").stdout == f"arkrelay {NEXT}\n"
    with Daemon(fresh):
        assert queued(fresh) == waiting
        fresh.run("mkdir", "-p", "/var/backups")
        fresh.run("bash", "-euc", BLOCKS["backup"])
    assert schema(fresh) == VERSION + 1
    assert fresh.files("/usr/lib/arkrelay/arkrelay/__pycache__") == set()  # root has run it, and it wrote nothing

    fresh.run("dpkg", "--force-downgrade", "-i", earlier)
    refused = Daemon(fresh).process.communicate(timeout=START_S)[1]  # and what the later one made stays as it is
    assert "newer" in refused, refused
    assert schema(fresh) == VERSION + 1

    fresh.run("dpkg", "-r", "arkrelay")
    kept = fresh.files("/etc/arkrelay", "/var/lib/arkrelay")
    assert {"/etc/arkrelay/arkrelay.toml", "/etc/arkrelay/tenants/main.toml", "/var/lib/arkrelay/arkrelay.db"} < kept
    fresh.run("dpkg", "--purge", "arkrelay")
    assert fresh.files("/etc/arkrelay", "/var/lib/arkrelay") == set()

    fresh.run("dpkg", "-i", later)
    fresh.run("bash", "-euc", BLOCKS["restore"])
    with Daemon(fresh):
        assert queued(fresh) == waiting
    fresh.run("dpkg", "--purge", "arkrelay")
    fresh.run("rm", "-r", "/etc/letsencrypt/renewal-hooks/deploy/arkrelay")
    left = {path for path in fresh.files(*MAKES) - before if not path.startswith("/etc/letsencrypt")}
    assert left <= {"/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-"}, left


def test_everything_is_where_debian_looks_for_it(built: Built, need: Callable[[str], Path], unpacked: Path) -> None:
    for path in (
        "usr/bin/arkrelay",
        "lib/systemd/system/arkrelay.service",
        "lib/systemd/system/arkrelay-bounces.socket",
        "lib/systemd/system/arkrelay-submission.socket",
        "lib/systemd/system/arkrelay-submissions.socket",
        "usr/lib/sysusers.d/arkrelay.conf",
        "usr/lib/tmpfiles.d/arkrelay.conf",
        "usr/share/bash-completion/completions/arkrelay",
        "usr/share/zsh/vendor-completions/_arkrelay",
        "usr/share/fish/vendor_completions.d/arkrelay.fish",
        "usr/share/man/man5/arkrelay.toml.5.gz",
        *(f"usr/share/man/man1/arkrelay-{word}.1.gz" for word in COMMANDS),
        *(f"usr/share/doc/arkrelay/{name}" for name in ("copyright", "changelog.gz", "README.md.gz")),
        "usr/share/doc/arkrelay/examples/arkrelay.toml",
    ):
        assert (unpacked / path).is_file(), path
    unit = (unpacked / "lib/systemd/system/arkrelay.service").read_text()
    assert unit.count("/usr/bin/arkrelay") == 2
    assert "/opt" not in unit
    copyright_file = (unpacked / "usr/share/doc/arkrelay/copyright").read_text()
    for about in built.stage.glob("*.dist-info"):
        assert about.name in copyright_file or about.name.startswith("arkrelay-")
    facts = subprocess.run([need("dpkg-deb"), "-f", built.deb], capture_output=True, text=True, check=True).stdout
    assert f"\nVersion: {debian_version(__version__)}\n" in facts
    assert f"python3 (>= {sys.version_info[0]}.{sys.version_info[1]}), " in facts
    assert re.search(r"@\w+@", facts) is None


def test_man_renders_every_page_without_a_warning(need: Callable[[str], Path], unpacked: Path) -> None:
    man = need("man")
    pages = sorted((unpacked / "usr/share/man").glob("man?/*.gz"))
    environment = {**os.environ, "MANWIDTH": "100", "LC_ALL": "C.UTF-8", "MANROFFSEQ": ""}
    done = subprocess.run(
        [man, "--warnings", "-l", *pages], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert "arkrelay-queue - What waits" in done.stdout
    assert "--per-page" in done.stdout
    assert len(done.stdout) > 50_000
    settings = gzip.decompress((unpacked / "usr/share/man/man5/arkrelay.toml.5.gz").read_bytes()).decode()
    assert settings.count("\n") > len((ROOT / "etc/arkrelay.toml").read_text().splitlines())
