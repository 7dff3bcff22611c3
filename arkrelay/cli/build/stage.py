"""One folder with arkrelay and everything it imports, as ``pip`` installs it, precompiled."""

import compileall
import py_compile
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import arkrelay
from arkrelay.cli.state import Failed

SOURCE: Final = ("pyproject.toml", "README.md", "LICENSE", "arkrelay")  # what the wheel is made of
# pip comes with sqlite-utils, for a command of its that installs plugins; bin/ has the scripts of dependencies
LEFT_OUT: Final = ("pip", "pip-*.dist-info", "bin", "*/tests", "aiosmtpd/docs", "aiosmtpd/qa")


def find_tree() -> Path:
    """Return the source tree that this module stands in; ``Failed`` when it was installed from one."""
    tree = Path(arkrelay.__file__).resolve().parent.parent
    if not all((tree / part).exists() for part in (*SOURCE, "etc", "systemd")):
        raise Failed(f"{tree} is no source tree of arkrelay", "run it in a checkout")
    return tree


def fill(folder: Path, tree: Path) -> Path:
    """Put arkrelay of ``tree`` and its dependencies into ``folder`` and return that; one that is filled stays so.

    What was compiled is not compared with its source when it is imported (PEP 552, unchecked): nobody edits it
    where it ends, and a root that runs it writes nothing beside it.
    """
    if folder.exists():
        return folder
    with tempfile.TemporaryDirectory() as scratch:
        # a copy: setuptools leaves build/ in its tree, and packs what an earlier build has left there
        for part in SOURCE:
            _copy(tree / part, Path(scratch) / part)
        _run(sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", str(folder), scratch)
    for pattern in LEFT_OUT:
        for found in folder.glob(pattern):
            shutil.rmtree(found)
    if strip := shutil.which("strip"):  # uvloop comes with 10 MB of symbols for debuggers
        _run(strip, "--strip-unneeded", *map(str, folder.rglob("*.so")))
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(folder, quiet=1, workers=0, stripdir=str(folder), invalidation_mode=unchecked):
        raise Failed("a module of the dependencies does not compile")
    return folder


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 -- our own words
    if done.returncode != 0:
        raise Failed(f"{' '.join(words[:4])} ended with {done.returncode}", done.stderr.strip()[-2000:])
