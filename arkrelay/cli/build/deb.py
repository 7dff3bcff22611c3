"""The Debian package: a folder as it shall lie on the machine, and ``dpkg-deb`` around it.

Nothing of it is a conffile: ``arkrelay init`` writes /etc/arkrelay, by the answers of a person. What an administrator
may want beside it (``etc/``) is below /usr/share/doc/arkrelay/examples.
"""

import email
import email.policy
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Final

from arkrelay import __version__
from arkrelay.cli.build import man
from arkrelay.cli.main import arkrelay
from arkrelay.cli.state import Failed

LIBRARY: Final = "usr/lib/arkrelay"
DOC: Final = "usr/share/doc/arkrelay"
# -I and -S: neither the environment nor Debian's own packages come between us and what we brought along
LAUNCHER: Final = f"""\
#!/usr/bin/python3 -ISB
import sys

sys.path.insert(0, "/{LIBRARY}")
from arkrelay.__main__ import main

sys.exit(main())
"""
UNIT_PROGRAM: Final = "/opt/arkrelay/bin/arkrelay"  # as systemd/arkrelay.service has it
COMPLETIONS: Final = {
    "bash": "usr/share/bash-completion/completions",
    "zsh": "usr/share/zsh/vendor-completions",
    "fish": "usr/share/fish/vendor_completions.d",
}
# lintian(1): what it calls an error and we mean
OVERRIDES: Final = """\
# Compiled with the Python that Depends: allows and no other, so that installing compiles nothing.
arkrelay: package-installs-python-pycache-dir *
# Modules of dependencies that begin with "#!" and are not run.
arkrelay: unusual-interpreter *
"""


def write(folder: Path, tree: Path, outdir: Path, root: Path, *, fast: bool = False) -> Path:
    """Make the package of the staged ``folder`` in ``outdir`` and return its path; ``root`` is new, and is filled."""
    if shutil.which("dpkg-deb") is None:
        raise Failed("dpkg-deb is not here", "it comes with Debian and those made of it")
    shutil.copytree(folder, root / LIBRARY)
    _program(root)
    _units(tree / "systemd", root)
    _documents(tree, folder, root)
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() or path == root / "usr/bin/arkrelay" else 0o644)
    package = _control(tree / "etc" / "debian", root)
    target = outdir / f"{package}.deb"
    compression = ("-Zgzip", "-z1") if fast else ("-Zxz",)
    words = ["dpkg-deb", "--root-owner-group", *compression, "--build", str(root), str(target)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 -- our own words
    if done.returncode != 0:
        raise Failed("dpkg-deb refuses the package", done.stderr.strip())
    return target


def debian_version(version: str) -> str:
    """Return a version of Python's (PEP 440) as Debian sorts it: what comes before a release has a "~"."""
    return re.sub(r"(a|b|rc)(?=\d)", r"~\1", re.sub(r"\.dev(?=\d)", "~~dev", version))


def _program(root: Path) -> None:
    _put(root / "usr/bin/arkrelay", LAUNCHER)
    scratch = root / "completion"
    for path in man.write_completions(arkrelay, scratch):
        _put(root / COMPLETIONS[path.parent.name] / path.name, path.read_text())
    shutil.rmtree(scratch)


def _units(systemd: Path, root: Path) -> None:
    """Put what systemd reads where a package has it, with our program in the service."""
    for path in sorted(systemd.iterdir()):
        kind = {".sysusers.conf": "usr/lib/sysusers.d", ".tmpfiles.conf": "usr/lib/tmpfiles.d"}.get(
            "".join(path.suffixes), "lib/systemd/system"
        )
        name = "arkrelay.conf" if path.suffix == ".conf" else path.name
        text = path.read_text()
        if path.suffix == ".service":  # its first comment is about an installation by hand
            text = text[text.index("[Unit]") :].replace(UNIT_PROGRAM, "/usr/bin/arkrelay")
        _put(root / kind / name, text)


def _documents(tree: Path, folder: Path, root: Path) -> None:
    pages = root / "pages"
    for path in man.write(arkrelay, tree / "etc" / "arkrelay.toml", pages):
        _pack(root / f"usr/share/man/man{path.suffix[1:]}/{path.name}.gz", path.read_bytes())
    shutil.rmtree(pages)
    _put(root / "usr/share/lintian/overrides/arkrelay", OVERRIDES)
    _pack(root / DOC / "README.md.gz", (tree / "README.md").read_bytes())
    _pack(root / DOC / "CHANGELOG.md.gz", (tree / "CHANGELOG.md").read_bytes())
    now = float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    entry = f"arkrelay ({debian_version(__version__)}) stable; urgency=medium\n\n  * See CHANGELOG.md.gz.\n\n"
    _pack(root / DOC / "changelog.gz", f"{entry} -- {_maintainer(tree)}  {formatdate(now)}\n".encode())
    _put(root / DOC / "copyright", "\n\n".join(_copyright(tree, folder)) + "\n")
    shutil.copytree(tree / "etc", root / DOC / "examples", ignore=shutil.ignore_patterns("debian"))


def _maintainer(tree: Path) -> str:
    control = (tree / "etc" / "debian" / "control").read_text()
    return str(email.message_from_string(control)["Maintainer"])


def _copyright(tree: Path, folder: Path) -> Iterator[str]:
    """Give the paragraphs of a machine-readable copyright file: ours, and one for each package that came along."""
    yield "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: arkrelay"
    ours = (tree / "LICENSE").read_text()
    holder = re.search(r"Copyright \(c\) (.*)", ours)
    text = "\n".join(f" {line}" if line else " ." for line in ours.splitlines())
    yield f"Files: *\nCopyright: {holder[1] if holder else 'see below'}\nLicense: MIT\n{text}"
    for about in sorted(folder.glob("*.dist-info")):
        facts = email.message_from_string((about / "METADATA").read_text(), policy=email.policy.default)
        if facts["Name"] == "arkrelay":
            continue
        said = facts["License-Expression"] or facts["License"] or ""
        known = said.splitlines()[0] if 0 < len(said) < 80 else "as-stated-in-its-metadata"
        top = sorted({line.split("/")[0] for line in _recorded(about)} | {about.name})
        files = "\n ".join(f"{LIBRARY}/{one}{'/*' if (folder / one).is_dir() else ''}" for one in top)
        author = (
            facts["Author"] or facts["Author-email"] or facts["Maintainer-email"] or "its authors"
        ).splitlines()[0]
        short = re.sub(r"[^\w.+-]+", "-", known).strip("-")
        where = f" {facts['Name']} {facts['Version']}: {known}.\n Its text is in /{LIBRARY}/{about.name}."
        if "GPL" in known:
            where += "\n On Debian systems, the GPL is in /usr/share/common-licenses."
        yield f"Files: {files}\nCopyright: {author}\nLicense: {short}-{facts['Name']}\n{where}"


def _recorded(about: Path) -> Iterator[str]:
    """Give the files of a package that are staged, by its RECORD."""
    for line in (about / "RECORD").read_text().splitlines():
        path = line.split(",")[0].strip('"')
        if not path.startswith("..") and (about.parent / path).exists():
            yield path


def _control(source: Path, root: Path) -> str:
    """Write DEBIAN/ and return ``name_version_architecture``."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    compiled = any(path.suffix == ".so" for path in files)
    machine = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout  # noqa: S607
    facts = {
        "version": debian_version(__version__),
        "architecture": machine.strip() if compiled else "all",
        "size": str(sum(path.stat().st_size + 1023 >> 10 for path in files)),
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "next_python": f"{sys.version_info[0]}.{sys.version_info[1] + 1}",
    }
    sums = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}" for path in files]  # noqa: S324
    for path in sorted(source.iterdir()):
        text = re.sub(r"@(\w+)@", lambda found: facts[found[1]], path.read_text())
        _put(root / "DEBIAN" / path.name, text)
        (root / "DEBIAN" / path.name).chmod(0o644 if path.name == "control" else 0o755)
    _put(root / "DEBIAN" / "md5sums", "\n".join(sums) + "\n")
    (root / "DEBIAN").chmod(0o755)
    return f"arkrelay_{facts['version']}_{facts['architecture']}"


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _pack(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, 9, mtime=0))
