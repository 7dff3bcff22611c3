"""Start arkrelay on a million queued recipients, and print what that costs beside what we mean to reach.

    python tests/bench/scale.py --kit PATH [--rows 1000000] [--destinations 10000] [--dead 100] [--rounds 5] [--json]

The queue is filled in bulk (``backlog.py``): several tenants, 10 000 destinations, some of them dead (connection
refused, no answer, SERVFAIL), due from an hour ago to some hours ahead. The daemon is the real one, DNS is that of
the tests, load and sink are the benchmark kit's (see ``run.py``; it takes gcc and openssl, neither root nor Postfix).

1. The claim of a connection (``store.queue.claim`` and ``next_due``, in one transaction that is undone) is timed on
   the file itself, and SQLite is asked how it finds the rows.
2. The daemon is started on it: to its first greeting, to its first delivery; memory and lag of its event loop for a
   minute, while what is overdue goes out and dead destinations are found out. It begins as after a reboot, with
   nothing of the file in the page cache.
3. Fresh mail for a live destination goes through this daemon and through one with an empty queue, in turns. Both run
   all the time and share the machine with load and sink; the ratio of the medians is what counts. The file is in
   the page cache by then.

The exit status is 0 when every fresh message arrived once, whatever the speed; else 1.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)  # a script's own folder was first; `bench` is seen from here

from bench.backlog import Backlog, fill, forget_cached, read_through  # noqa: E402 -- likewise
from bench.daemon import Daemon, free_port, greeting  # noqa: E402 -- likewise
from bench.peer import API_KEY, DOMAIN, TENANT  # noqa: E402 -- likewise
from bench.table import Line, render  # noqa: E402 -- likewise
from peers.dns import DnsServer  # noqa: E402 -- likewise

from arkrelay.store import place, queue  # noqa: E402 -- it needs the line above
from arkrelay.store.connection import connect_writer  # noqa: E402 -- likewise

TOOLS = ("smtpload", "smtpsink")
LIVE, REFUSED, SILENT, FRESH = "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"  # who is behind an MX
FRESH_DOMAIN = "dest.test"  # what the load generator sends to
WATCHED_S = 60.0
CLAIMS = 2000
SAMPLE_S = 0.25
LOAD_S = 120
SETTINGS = """\
hostname = "relay.test"
state_dir = "state"

[[listen]]
service = "submission"
address = "127.0.0.1:{port}"
tls = "none"
tenant = "bench"

[delivery]
port = {mx_port}
allow_destinations = ["127.0.0.0/8"]
messages_per_second = 0
idle_connection = "1s"

[dns]
nameservers = ["{dns}"]

[limits]
min_free_disk = "1MB"
connections_per_address = 0
connections_per_minute = 0

[log]
format = "json"
"""


def main(argv: list[str] | None = None) -> int:
    """Fill, start, measure, print; return the exit status."""
    options = parser().parse_args(argv)
    if options.kit is None or not (options.kit / "tools" / "smtpload.c").is_file():
        print("the benchmark kit is needed: name its folder by --kit or $ARKRELAY_BENCH_KIT", file=sys.stderr)
        return 1
    backlog = Backlog(options.rows, options.destinations, options.dead)
    with contextlib.ExitStack() as stack:
        folder = options.dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="arkscale-")))
        folder.mkdir(exist_ok=True)
        measured = measure(folder.resolve(), backlog, options)
    wrong = complaints(measured)
    if options.json:
        table = [asdict(line) for line in lines(measured)]
        print(json.dumps({"lines": table, "complaints": wrong, **measured}, indent=1))
    else:
        print(render(lines(measured), "empty queue"))
        print("", *measured["plans"], "", sep="\n")
        for run in measured["runs"]:
            print("{peer:5} accepted/s {accepted_per_s:5.0f}, delivered/s {delivered_per_s:5.0f}".format(**run))
    for text in wrong:
        print(f"WRONG: {text}", file=sys.stderr)
    return 1 if wrong else 0


def measure(folder: Path, backlog: Backlog, options: argparse.Namespace) -> dict[str, Any]:
    """Return everything that was measured, by name."""
    for tool in TOOLS:
        subprocess.run(["gcc", "-O2", "-o", folder / tool, options.kit / "tools" / f"{tool}.c"], check=True)
    key = folder / "dkim.pem"
    subprocess.run(["openssl", "genrsa", "-traditional", "-out", key, "2048"], check=True, capture_output=True)
    mx_port = _free_port_of_all()
    with contextlib.ExitStack() as stack:
        dns = stack.enter_context(answering(backlog))
        stack.enter_context(socket.create_server((SILENT, mx_port), backlog=1000))  # the kernel accepts; no banner
        stack.enter_context(sinking(folder, LIVE, mx_port))
        full, empty = (Home(folder / name, key, backlog.tenants, mx_port, dns) for name in ("full", "empty"))
        found: dict[str, Any] = {"fill_s": fill(full.state, backlog, time.time())}
        database = full.state / place.DATABASE
        found["file_mb"] = database.stat().st_size / 1e6
        found |= claims(database, backlog)
        forget_cached(database)
        with empty.running() as alone, full.running() as loaded:
            found |= {"start_s": loaded.start_s, **watch(loaded, full)}
            read_through(database)
            runs = [
                {"peer": name, **fresh(folder, daemon, mx_port, options.messages)}
                for _ in range(options.rounds)
                for name, daemon in (("empty", alone), ("full", loaded))
            ]
            found["end_rss_mb"] = loaded.rss_mb()
        with full.running() as again:
            found["restart_s"] = again.start_s
    lags = full.lags()
    return found | {"runs": runs, "lags": len(lags), "lag_max_s": max(lags, default=0.0)}


class Home:
    """The folder of one relay."""

    def __init__(self, folder: Path, key: Path, tenants: Sequence[str], mx_port: int, dns: str) -> None:
        self.folder, self.port = folder, free_port()
        self.state, self.log = folder / "state", folder / "log.jsonl"
        shutil.rmtree(folder, ignore_errors=True)
        keys = self.state / "keys"
        keys.mkdir(mode=0o700, parents=True)
        self.state.chmod(0o700)
        shutil.copy(key, keys / "bench.pem")
        (keys / "bench.pem").chmod(0o600)
        (folder / "tenants").mkdir()
        for tenant_id in tenants:
            file = folder / "tenants" / f"{tenant_id}.toml"
            file.write_text(
                TENANT.format(domain=DOMAIN, key=API_KEY) if tenant_id == "bench" else f'name = "{tenant_id}"\n'
            )
            file.chmod(0o600)
        (folder / "arkrelay.toml").write_text(SETTINGS.format(port=self.port, mx_port=mx_port, dns=dns))

    @contextlib.contextmanager
    def running(self) -> Iterator[Daemon]:
        """Give the daemon, from its first greeting on; it is killed at the end, for it would wait for the silent."""
        with self.log.open("ab") as log:
            began = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, "-m", "arkrelay", "serve", "-c", str(self.folder / "arkrelay.toml")], stderr=log
            )
        try:
            greeting(process, self.port, self.log)
            yield Daemon(process, self.port, 0, time.monotonic() - began)
        finally:
            process.kill()
            process.wait()

    def lines(self) -> Iterator[dict[str, Any]]:
        """Give what it logged."""
        with self.log.open() as log:
            for line in log:
                with contextlib.suppress(ValueError):
                    yield json.loads(line)

    def lags(self) -> list[float]:
        """Return how long its event loop was away, each time that it was longer than it may be."""
        return [float(line["seconds"]) for line in self.lines() if line.get("event") == "loop_lag"]


def claims(database: Path, backlog: Backlog) -> dict[str, Any]:
    """Return how long claims take in ms, and how SQLite finds what they ask for."""
    dice = random.Random(2)
    took: list[float] = []
    statements: dict[str, None] = {}
    db = connect_writer(database)
    try:
        soon = time.time() + backlog.hours * 1800  # half of everything is due
        db.execute("BEGIN IMMEDIATE")
        for number in range(CLAIMS):
            destination, tenant = (
                backlog.destination(dice.randrange(backlog.destinations)),
                dice.choice(backlog.tenants),
            )
            if number == CLAIMS - 1:
                db.set_trace_callback(lambda sql: statements.setdefault(re.sub(r"\s+", " ", sql), None))
            began = time.perf_counter()
            queue.claim(db, destination, tenant, soon, 50, 1)
            queue.next_due(db, destination, tenant)
            took.append(1000 * (time.perf_counter() - began))
        db.set_trace_callback(None)
        db.execute("ROLLBACK")
        began = time.perf_counter()
        shares = len(queue.due_by_share(db))
        due_s = time.perf_counter() - began
        plans = [plan for sql in statements if sql.startswith("SELECT") for plan in explain(db, sql)]
    finally:
        db.close()
    took.sort()
    return {
        "claim_p50_ms": statistics.median(took),
        "claim_p99_ms": took[int(0.99 * len(took))],
        "claim_max_ms": took[-1],
        "shares": shares,
        "due_by_share_s": due_s,
        "plans": plans,
    }


def explain(db: sqlite3.Connection, sql: str) -> list[str]:
    """Return SQLite's plan, a line a step."""
    return [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")]


def watch(daemon: Daemon, home: Home) -> dict[str, float]:
    """Return memory over a minute, and what was delivered in it."""
    began, rss = time.time() - daemon.start_s, []
    until = time.monotonic() + WATCHED_S
    while time.monotonic() < until:
        rss.append(daemon.rss_mb())
        time.sleep(SAMPLE_S)
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None
    sent = [
        datetime.fromisoformat(line["timestamp"]).timestamp()
        for line in home.lines()
        if line.get("event") == "recipient_settled" and line.get("status") == "sent"
    ]
    return {
        "first_delivery_s": min(sent) - began if sent else float("inf"),
        "peak_rss_mb": int(peak[1]) * 1024 / 1e6,
        "minute_rss_mb": rss[-1],
        "delivered_in_minute": len(sent),
    }


def fresh(folder: Path, daemon: Daemon, mx_port: int, messages: int) -> dict[str, float]:
    """Send fresh mail through one daemon; return its rates, and how many were accepted and arrived."""
    sink = [str(folder / "smtpsink"), "-h", FRESH, "-p", str(mx_port), "-n", str(messages), "-T", str(LOAD_S)]
    load = [str(folder / "smtpload"), "-p", str(daemon.port), "-m", str(messages), "-k", "-T", str(LOAD_S)]
    cpu = daemon.cpu_s()
    with subprocess.Popen([*sink, "-g", "300"], stdout=subprocess.PIPE, text=True) as taking:
        sent = json.loads(subprocess.run(load, stdout=subprocess.PIPE, text=True, check=False).stdout)
        took = json.loads(taking.communicate(timeout=LOAD_S + 10)[0])
    time.sleep(2)  # kept connections to the sink that has gone are closed
    return {
        "messages": messages,
        "accepted": sent["accepted"],
        "received": took["received"],
        "accepted_per_s": sent["rate"],
        "delivered_per_s": took["received"] / max(1e-9, (took["last_ns"] - sent["t0_ns"]) / 1e9),
        "cpu_per_1000": 1000 * (daemon.cpu_s() - cpu) / messages,
    }


@contextlib.contextmanager
def sinking(folder: Path, host: str, port: int) -> Iterator[None]:
    """Let everything that comes to ``host`` be taken."""
    command = [str(folder / "smtpsink"), "-h", host, "-p", str(port), "-n", "0", "-T", "86400", "-i", "86400"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def answering(backlog: Backlog) -> Iterator[str]:
    """Give the address of a DNS server, in a thread, that knows every destination, or fails as it should."""
    server = DnsServer()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    hosts = {"refused": REFUSED, "silent": SILENT}
    for name in [FRESH_DOMAIN, *backlog.names()]:
        kind = re.sub(r"\d.*", "", name)
        if kind == "servfail":
            server.fail(name, "*", "servfail")
            continue
        server.set(name, "MX", f"10 mx.{name}.", ttl=86400)
        server.set(f"mx.{name}", "A", FRESH if name == FRESH_DOMAIN else hosts.get(kind, LIVE), ttl=86400)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result()
        yield server.address
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def lines(found: Mapping[str, Any]) -> list[Line]:
    """Return the table."""

    def at_most(text: str, value: float, goal: float | None) -> Line:
        return Line(text, "-" if goal is None else f"≤ {goal:g}", value, None, None, goal is None or value <= goal)

    def against(text: str, column: str) -> Line:
        full, empty = (
            statistics.median(run[column] for run in found["runs"] if run["peer"] == name)
            for name in ("full", "empty")
        )
        return Line(text, "≥ 0.9 x", full, full / empty, empty, full / empty >= 0.9)

    scans = [plan for plan in found["plans"] if plan.startswith("SCAN")]
    return [
        at_most("fill, s", found["fill_s"], None),
        at_most("database, MB", found["file_mb"], None),
        at_most("claim of 50 and next due, p50 ms", found["claim_p50_ms"], 5),
        at_most("claim of 50 and next due, p99 ms", found["claim_p99_ms"], 5),
        at_most("claim of 50 and next due, max ms", found["claim_max_ms"], None),
        at_most("whole tables read by a claim", len(scans), 0),
        at_most("what is due, by destination and tenant, s", found["due_by_share_s"], None),
        at_most("start to first 220, nothing of it in memory, s", found["start_s"], 10),
        at_most("start again after kill -9, s", found["restart_s"], 10),
        at_most("start to first delivery, s", found["first_delivery_s"], 10),
        at_most("resident memory, peak MB", found["peak_rss_mb"], 400),
        at_most("resident memory after a minute, MB", found["minute_rss_mb"], 400),
        at_most("resident memory at the end, MB", found["end_rss_mb"], 400),
        at_most("times the event loop was away > 0.2 s", found["lags"], 0),
        at_most("longest of them, s", found["lag_max_s"], 0.2),
        at_most("delivered in the first minute", found["delivered_in_minute"], None),
        against("fresh mail, accepted/s", "accepted_per_s"),
        against("fresh mail, delivered/s", "delivered_per_s"),
    ]


def complaints(found: Mapping[str, Any]) -> list[str]:
    """Return what makes figures worthless."""
    return [
        f"{run['peer']} {number // 2}: {run['accepted']} accepted and {run['received']} arrived of {run['messages']}"
        for number, run in enumerate(found["runs"])
        if not run["accepted"] == run["received"] == run["messages"]
    ]


def _free_port_of_all() -> int:
    """Return a port that is free on every address that stands for an MX."""
    while True:
        port = free_port()
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for host in (LIVE, REFUSED, SILENT, FRESH):
                stack.enter_context(socket.create_server((host, port)))
            return port


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    known = os.environ.get("ARKRELAY_BENCH_KIT")
    found.add_argument("--kit", type=Path, default=Path(known) if known else None, help="folder of the benchmark kit")
    found.add_argument("--rows", type=int, default=1_000_000, help="recipients that wait (%(default)s)")
    found.add_argument("--destinations", type=int, default=10_000, help="they are for so many (%(default)s)")
    found.add_argument("--dead", type=int, default=100, help="so many of these are dead (%(default)s)")
    found.add_argument("--rounds", type=int, default=5, help="medians are of so many (%(default)s)")
    found.add_argument("--messages", type=int, default=4000, help="fresh ones in each round (%(default)s)")
    found.add_argument(
        "--dir", type=Path, help="scratch folder, kept, on the disk to be measured; default: a new one"
    )
    found.add_argument("--json", action="store_true", help="print JSON, with every single run")
    return found


if __name__ == "__main__":
    sys.exit(main())
