"""``arkrelay.pyz``: a zip that Python runs (PEP 441), with the staged folder packed inside.

It holds three files, so that finding ``__main__.py`` costs nothing: ``start`` under that name, ``packages.tar.gz``,
and ``build.json`` with the hash of the latter and the Python that its compiled modules are for.
"""

import hashlib
import importlib.machinery
import json
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Final

from arkrelay import __version__
from arkrelay.cli.build import start

SHEBANG: Final = b"#!/usr/bin/env python3\n"
LEVEL: Final = 6  # of gzip: 9 takes three times as long for one part in a hundred


def write(folder: Path, target: Path) -> Path:
    """Pack the staged ``folder`` into ``target``, which is then whole and executable, and return it."""
    scratch = target.with_name(f".{target.name}.tmp")
    packed = target.with_name(f".{target.name}.packages")
    try:
        with tarfile.open(packed, "w:gz", compresslevel=LEVEL) as archive:
            archive.add(folder, ".", filter=_plain)
        content = packed.read_bytes()
        about = {
            "version": __version__,
            "sha256": hashlib.sha256(content).hexdigest(),
            "modules": importlib.machinery.EXTENSION_SUFFIXES[0],
        }
        scratch.write_bytes(SHEBANG)
        with zipfile.ZipFile(scratch, "a", zipfile.ZIP_DEFLATED) as archive_of_all:
            archive_of_all.writestr("__main__.py", Path(start.__file__).read_text())
            archive_of_all.writestr("build.json", json.dumps(about))
            archive_of_all.writestr("packages.tar.gz", content, zipfile.ZIP_STORED)
        scratch.chmod(0o755)
        os.replace(scratch, target)  # noqa: PTH105 -- the name of the system call
    finally:
        packed.unlink(missing_ok=True)
        scratch.unlink(missing_ok=True)
    return target


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Leave out who built it and how his files may be read."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.isdir() else 0o644
    return entry
