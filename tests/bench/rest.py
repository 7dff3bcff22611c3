"""What ``POST /emails`` can take: html and text, signed and on disk when it answers, and not delivered.

The load is the kit's ``tools/post.lua`` under wrk: one thread, twenty kept connections, the same 4 KB of JSON again
and again. The relay routes everything to a port that takes connections and never says a word, so a handful of
deliveries wait for a greeting and the rest stays in the queue: accepting is measured, and nothing else runs. wrk
shares the machine with the relay; the CPU time is the relay's alone.
"""

import json
import os
import re
import signal
import socket
import statistics
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.daemon import Daemon, running
from bench.peer import API_KEY
from bench.table import Line

LOAD = "rest"
PER_S = 5000.0  # the goal
SECONDS = 5
CONNECTIONS = 20
WARM_UP_S = 1

Run = Mapping[str, float]


def measure(kit: Path, folder: Path, rounds: int) -> list[Run]:
    """Return what each round measured: see ``_round``."""
    make_key(folder)
    return [_round(kit, folder) for _ in range(rounds)]


def make_key(folder: Path) -> None:
    """Leave the key there that the relay signs with, if it is not there yet."""
    key = folder / "dkim.pem"
    if not key.exists():
        subprocess.run(["openssl", "genrsa", "-traditional", "-out", key, "2048"], check=True, capture_output=True)


def lines(runs: Sequence[Run]) -> list[Line]:
    """Return the lines of the table: medians, and the worst for errors."""

    def median(name: str) -> float:
        return statistics.median(run[name] for run in runs)

    per_s, errors = median("per_s"), max(run["errors"] for run in runs)
    return [
        Line("REST, html + text: stored/s", f"≥ {PER_S:g}", per_s, None, None, per_s >= PER_S),
        Line("REST: errors", "≤ 0", errors, None, None, not errors),
        Line("REST: CPU s per 1000", "-", median("cpu_per_1000"), None, None, reached=True),
        Line("REST: answer, p50 ms", "-", median("p50_ms"), None, None, reached=True),
        Line("REST: answer, p99 ms", "-", median("p99_ms"), None, None, reached=True),
    ]


def complaints(runs: Sequence[Run]) -> list[str]:
    """Return what makes figures worthless: refusals, and answers of which nothing is on disk."""
    found = []
    for number, run in enumerate(runs):
        if run["errors"]:
            found.append(f"{LOAD} round {number}: {run['errors']:g} requests failed")
        if run["stored"] < run["answered"]:
            found.append(f"{LOAD} round {number}: {run['answered']:g} answered, {run['stored']:g} stored")
    return found


def _round(kit: Path, folder: Path) -> Run:
    script = kit / "tools" / "post.lua"
    with (
        socket.create_server(("127.0.0.1", 0), backlog=1000) as silent,  # the kernel accepts, and that is all
        running(folder, silent.getsockname()[1], stop=signal.SIGKILL) as daemon,  # it would wait for its deliveries
    ):
        post(script, daemon, WARM_UP_S)
        before, cpu_before = stored(daemon), daemon.cpu_s()
        said = post(script, daemon, SECONDS)
        cpu_s, kept = daemon.cpu_s() - cpu_before, stored(daemon) - before
    return {**said, "stored": kept, "cpu_per_1000": 1000 * cpu_s / max(1.0, said["answered"])}


def post(script: Path, daemon: Daemon, seconds: int) -> dict[str, float]:
    """Load the relay with what a Lua script for wrk says, and return what wrk says of it."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(script)]
    url = f"http://127.0.0.1:{daemon.http}/v1/emails"
    out = subprocess.run(
        [*command, url], check=True, capture_output=True, text=True, env={**os.environ, "BENCH_API_KEY": API_KEY}
    ).stdout
    refused = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", out)))
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    errors = refused + (sum(map(int, broken.groups())) if broken else 0)
    answered, took_s = _number(r"(\d+) requests in", out), _time_s(r"requests in ([\d.]+)(\w+),", out)
    return {
        "per_s": (answered - refused) / took_s,
        "answered": answered - refused,
        "errors": errors,
        "p50_ms": 1000 * _time_s(r"50%\s+([\d.]+)(\w+)", out),
        "p99_ms": 1000 * _time_s(r"99%\s+([\d.]+)(\w+)", out),
    }


def _number(pattern: str, out: str) -> float:
    found = re.search(pattern, out)
    if found is None:
        raise SystemExit(f"wrk says something else than expected:\n{out}")
    return float(found[1])


def _time_s(pattern: str, out: str) -> float:
    unit = re.search(pattern, out)
    return _number(pattern, out) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}[unit[2] if unit else "s"]


def stored(daemon: Daemon, status: str = "") -> float:
    """Return how many emails the relay has, or how many of this status."""
    return float(ask(daemon, f"/emails?perPage=1{'&status=' * bool(status)}{status}")["total"])


def ask(daemon: Daemon, path: str) -> dict[str, Any]:
    """Return what the relay's API answers to a GET."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{daemon.http}/v1{path}", headers={"Authorization": f"Bearer {API_KEY}"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        found: dict[str, Any] = json.load(response)
        return found
