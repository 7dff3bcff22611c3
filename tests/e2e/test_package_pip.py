"""The README's first line: pip installs from the source into a venv of its own, and the whole job runs there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from peers.packages import copy_tree
from peers.readme import README


@pytest.mark.timeout(300)
def test_the_first_line_of_the_readme_shows_the_whole_job(tmp_path: Path) -> None:
    line = re.search(r"\*\*See it work\*\*.*?```sh\n(.*?)\n```", README, re.DOTALL)
    assert line is not None
    copy_tree(tmp_path)
    path = os.pathsep.join((str(Path(sys.executable).resolve().parent), os.environ["PATH"]))
    settings = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(
        ["bash", "-euc", line[1]],
        cwd=tmp_path,
        env={**settings, "PATH": path},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Both arrived, over TLS, with a DKIM signature that verifies." in done.stdout
