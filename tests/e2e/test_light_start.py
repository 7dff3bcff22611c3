"""Promise 8: a start is cheap, and an idle relay small: nothing is imported that a daemon has no use for."""

import subprocess
import sys
from pathlib import Path

# structlog would take rich for tracebacks in colour; commands have their tables and migrations their library
NEEDLESS = {"rich.console", "pygments", "sqlite_utils", "aiosmtplib", "arkrelay.cli.demo", "arkrelay.cli.send"}


def test_a_daemon_imports_nothing_that_only_commands_need(tmp_path: Path) -> None:
    broken = tmp_path / "arkrelay.toml"
    broken.write_text("no = setting\n")  # every part is imported before the configuration is read
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "arkrelay", "serve", "-c", str(broken)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if "import time:" in line}
    assert "arkrelay.daemon" in imported
    assert imported & NEEDLESS == set()
