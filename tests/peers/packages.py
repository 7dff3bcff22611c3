"""What ``arkrelay.cli.build`` makes of this tree, once for all tests, and of a tree that is one release on."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from peers.machine import Machine

ROOT = Path(__file__).parents[2]
TREE = ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "arkrelay", "etc", "systemd")
TIMEOUT_S = 300
NEXT = "99.0.1"

MIGRATION = """
MIGRATIONS = (*MIGRATIONS, lambda database: database.execute("CREATE TABLE of_the_next_release (id INTEGER)"))
VERSION = len(MIGRATIONS)
"""

# As `arkrelay init` writes it for the package, and then a DNS that does not answer, so that mail stays queued.
SETTINGS = """
[dns]
nameservers = ["127.0.0.1:9"]
timeout = "1s"

[limits]
min_free_disk = "1MB"
"""


def for_this_machine(need: Callable[[str | Path], Path], *programs: str | Path) -> None:
    """Skip a test that installs the package where that cannot be: root alone can, for Debian's own Python."""
    python = need(Path("/usr/bin/python3"))
    for program in ("dpkg", "setpriv", "unshare", "nsenter", *programs):
        need(program)
    if os.geteuid() != 0:
        pytest.skip("only root installs packages")
    if python.resolve().name != f"python{sys.version_info[0]}.{sys.version_info[1]}":
        pytest.skip(f"the package that these tests build is not for {python.resolve().name}")


def queued(at: Machine) -> list[tuple[str, str]]:
    """Return id and recipient of all that waits on a machine."""
    rows = json.loads(at.run("arkrelay", "queue", "list", "--json").stdout)
    rows = rows["data"] if isinstance(rows, dict) else rows
    return sorted((str(row["id"]), row["to"]) for row in rows)


@dataclass(frozen=True)
class Built:
    """The staged packages, and the files made of them."""

    stage: Path
    pyz: Path
    deb: Path


def build(folder: Path) -> Built:
    """Make everything of this tree."""
    stage = folder / "stage"
    return Built(stage, _make(ROOT, "pyz", folder, stage), _make(ROOT, "deb", folder, stage, "--fast"))


def copy_tree(folder: Path) -> None:
    """Copy what a build reads of this tree."""
    for part in TREE:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, folder / part)


def build_next(built: Built, folder: Path) -> Path:
    """Return the Debian package of a later version, whose schema is one migration on."""
    tree, stage = folder / "tree", folder / "stage"
    tree.mkdir()
    copy_tree(tree)
    package = tree / "arkrelay"
    init = package / "__init__.py"
    init.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{NEXT}"', init.read_text()))
    schema = (package / "store/schema.py").read_text()
    declared = re.search(r"^VERSION = .*\n", schema, re.MULTILINE)
    assert declared is not None
    (package / "store/schema.py").write_text(schema.replace(declared[0], declared[0] + MIGRATION))
    shutil.copytree(built.stage, stage, ignore=lambda at, _: ["arkrelay"] if Path(at) == built.stage else [])
    shutil.copytree(package, stage / "arkrelay")
    return _make(tree, "deb", folder, stage, "--fast")


def _make(tree: Path, kind: str, folder: Path, stage: Path, *more: str) -> Path:
    words = [sys.executable, "-m", "arkrelay.cli.build", kind, str(folder), "--stage", str(stage), *more]
    done = subprocess.run(words, cwd=tree, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return Path(done.stdout.strip())
