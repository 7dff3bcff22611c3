"""One arkrelay, configured as the benchmark kit's, started here and looked at."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import peer

READY_S = 30.0  # a start that takes longer has failed


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running arkrelay with nothing to do."""

    process: "subprocess.Popen[bytes]"
    port: int
    http: int
    start_s: float  # from its start to its first greeting

    def rss_mb(self) -> float:
        """Return its resident memory in MB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def cpu_s(self) -> float:
        """Return the CPU time that it took so far, in user and in system mode (proc(5): utime, stime)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def running(
    folder: Path,
    sink: int | None = None,
    program: Sequence[str] = ("-m", "arkrelay"),
    stop: signal.Signals = signal.SIGTERM,
    more: Sequence[str] = ("", ""),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Daemon]:
    """Give a fresh daemon, configured as the kit's; ``program`` is what the interpreter runs, ``stop`` ends it.

    ``more`` is TOML that follows in its configuration and in its tenant's, ``environment`` what it sees besides ours.
    """
    home = folder / "idle"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    port, http = free_port(), free_port()
    config = peer.write(home, port, sink or free_port(), folder / "dkim.pem", http, *more)
    with (home / "log.jsonl").open("wb") as log:
        began = time.monotonic()
        command = [sys.executable, *program, "serve", "-c", str(config)]
        process = subprocess.Popen(command, stderr=log, env={**os.environ, **(environment or {})})
    try:
        greeting(process, port, home / "log.jsonl")
        yield Daemon(process, port, http, time.monotonic() - began)
    finally:
        process.send_signal(stop)
        process.wait(READY_S)


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def greeting(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    """Return when it greets on ``port``; SystemExit with what it logged when it does not."""
    give_up_at = time.monotonic() + READY_S
    while time.monotonic() < give_up_at and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as sock:
                if sock.recv(100).startswith(b"220"):
                    return
        except OSError:
            time.sleep(0.002)
    raise SystemExit(f"arkrelay does not answer: {log.read_text()[-2000:]}")
