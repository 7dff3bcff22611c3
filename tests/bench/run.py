"""Run arkrelay and Postfix with OpenDKIM side by side, and print what we mean to reach beside what was measured.

    python tests/bench/run.py --kit PATH [--loads 4k-keep,4k,rest,tracked] [--rounds 5] [--scale 0.5] [--json]

The load generator, the sink and Postfix' configuration are those of the benchmark kit, a folder with ``bench.py``,
``peers/`` and ``tools/``; its path is ``--kit`` or ``$ARKRELAY_BENCH_KIT``. ``peer.py``, beside this file, is how the
kit starts arkrelay. It needs Linux, root, a cgroup2 mount, gcc, openssl, postfix and opendkim (Debian:
``apt-get install gcc libc6-dev openssl postfix opendkim``) and says which of them are missing. The loads ``rest``
(see ``rest.py``) and ``tracked`` (see ``tracked.py``) are arkrelay's alone; by themselves they need neither root nor
Postfix, but wrk and openssl, and the second gcc.

Rounds are interleaved and medians are compared. The ratios hold for one run: load, sink and both relays share the
machine, so a machine that does something else at the same time measures that as well. ``--scale`` multiplies the
number of messages; below 0.25 the figures are noise, good for trying the command only.

The exit status is 0 when every message of every run arrived once and signed, whatever the speed; else 1.
"""

import argparse
import contextlib
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parent)  # a script's own folder was first; `bench` is seen from here

from bench import rest, tracked  # noqa: E402 -- it needs the line above
from bench.daemon import running  # noqa: E402 -- likewise
from bench.table import Line, render  # noqa: E402 -- likewise

US, THEM = "arkrelay", "postfix"
LOADS = ("4k-keep", "4k", "100k-keep", "seq-1", "lat-100", rest.LOAD, tracked.LOAD)
ALONE = (rest.LOAD, tracked.LOAD)  # arkrelay's, without a peer
PROGRAMS = {"gcc": "gcc libc6-dev", "openssl": "openssl", "postfix": "postfix", "opendkim": "opendkim"}
ALONE_PROGRAMS = {"openssl": "openssl", "wrk": "wrk"}
ALONE_FILES = {rest.LOAD: "tools/post.lua", tracked.LOAD: "tools/smtpsink.c"}
KIT_FILES = ("bench.py", "peers/peers.py", "tools/smtpload.c", "tools/smtpsink.c", "tools/idle.py")
IDLE_CONNECTIONS = 500
STARTS = 5
READY_S = 30.0  # a start that takes longer has failed

Row = Mapping[str, Any]  # one run of one peer with one load, as the kit writes it


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the table: what is measured in which load, and the number to reach."""

    text: str
    load: str
    column: str
    at_most: float | None = None  # in the column's own unit
    at_least_times: float | None = None  # the same column of Postfix


GOALS = (
    Goal("4 KB, kept connections: delivered/s", "4k-keep", "e2e_rate", at_least_times=5),
    Goal("4 KB, kept connections: accepted/s", "4k-keep", "accept_rate", at_least_times=5),
    Goal("4 KB, a connection each: delivered/s", "4k", "e2e_rate", at_least_times=3.5),
    Goal("4 KB, a connection each: accepted/s", "4k", "accept_rate", at_least_times=3.5),
    Goal("100 KB: delivered/s", "100k-keep", "e2e_rate", at_least_times=2.2),
    Goal("100 KB: accepted/s", "100k-keep", "accept_rate", at_least_times=2.2),
    Goal("one connection, in sequence: delivered/s", "seq-1", "e2e_rate", at_least_times=3),
    Goal("CPU s per 1000, 4 KB kept", "4k-keep", "cpu_per_1000", at_most=0.75),
    Goal("CPU s per 1000, 4 KB, a connection each", "4k", "cpu_per_1000", at_most=1.1),
    Goal("CPU s per 1000, 100 KB", "100k-keep", "cpu_per_1000", at_most=1.8),
    Goal("at 100/s: transaction, p50 ms", "lat-100", "tx_p50_ms", at_most=2),
    Goal("at 100/s: transaction, p99 ms", "lat-100", "tx_p99_ms", at_most=10),
    Goal("at 100/s: accept to sink, p50 ms", "lat-100", "lat_p50_ms", at_most=2),
    Goal("at 100/s: accept to sink, p99 ms", "lat-100", "lat_p99_ms", at_most=10),
)
IDLE_GOALS = (
    ("idle RSS, MB", "rss_mb", 80.0),
    ("idle connection, KB", "idle_kb", 15.0),
    ("start, s", "start_s", 0.6),
)


def missing(kit: Path | None, loads: Sequence[str]) -> list[str]:
    """Return everything that these loads need and do not find, as sentences."""
    by_smtp, alone = any(load not in ALONE for load in loads), [load for load in ALONE if load in loads]
    files = (KIT_FILES if by_smtp else ()) + tuple(ALONE_FILES[load] for load in alone)
    programs = (PROGRAMS if by_smtp else {}) | (ALONE_PROGRAMS if alone else {})
    if tracked.LOAD in loads:
        programs["gcc"] = PROGRAMS["gcc"]
    found: list[str] = []
    if kit is None:
        found.append("the benchmark kit: name its folder by --kit or $ARKRELAY_BENCH_KIT")
    else:
        found += [
            f"{kit / name}: not there; is this the benchmark kit?" for name in files if not (kit / name).is_file()
        ]
    if sys.platform != "linux":
        found.append("Linux")
    if by_smtp and os.geteuid() != 0:
        found.append("root: Postfix and the accounting of CPU time want it")
    if by_smtp and not _cgroup2():
        found.append("a cgroup2 mount in which folders can be made (mount -t cgroup2 none /mnt)")
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    found += [
        f"{name} (Debian: apt-get install {package})"
        for name, package in programs.items()
        if shutil.which(name, path=path) is None
    ]
    return found


def _cgroup2() -> bool:
    """The kit takes the first mount; making a folder in it is the test that counts."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return False
    for _, where, kind, *_ in mounts:
        if kind == "cgroup2":
            probe = Path(where) / f"arkbench-probe-{os.getpid()}"
            try:
                probe.mkdir()
                probe.rmdir()
            except OSError:
                return False
            return True
    return False


def run_kit(kit: Path, folder: Path, loads: Iterable[str], rounds: int, scale: float) -> list[Row]:
    """Run the kit with both relays, its progress on standard error, and return its rows."""
    results = folder / f"results-{time.time_ns()}.jsonl"
    peer = " ".join(shlex.quote(str(part)) for part in (sys.executable, HERE / "peer.py"))
    environment = {
        **os.environ,
        "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
        "BENCH_ARKRELAY_CMD": f"{peer} {{port}} {{sink}} {{dir}} {{key}}",
    }
    command = [sys.executable, str(kit / "bench.py"), "--root", str(folder), "--peers", f"{THEM},{US}"]
    command += ["--loads", ",".join(loads), "--rounds", str(rounds), "--scale", str(scale)]
    command += ["--out", results.name]
    ended = subprocess.run(command, check=False, env=environment, stdout=subprocess.DEVNULL, cwd=folder)
    if ended.returncode:
        raise SystemExit(f"the kit's bench.py ended with {ended.returncode}; what it said is above")
    return [json.loads(line) for line in results.read_text().splitlines()]


def judge(rows: Iterable[Row]) -> list[Line]:
    """Return a line for each goal whose load was run."""
    by_run: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        by_run.setdefault((row["peer"], row["load"]), []).append(row)
    lines = []
    for goal in GOALS:
        ours, theirs = by_run.get((US, goal.load)), by_run.get((THEM, goal.load))
        if not ours or not theirs:
            continue
        value, other = (statistics.median(row[goal.column] or 0.0 for row in runs) for runs in (ours, theirs))
        ratio = value / other if other else None
        if goal.at_least_times is not None:
            wanted, reached = f"≥ {goal.at_least_times:g} x", ratio is not None and ratio >= goal.at_least_times
        else:
            assert goal.at_most is not None
            wanted, reached = f"≤ {goal.at_most:g}", value <= goal.at_most
        lines.append(Line(goal.text, wanted, value, ratio, other, reached))
    return lines


def complaints(rows: Iterable[Row]) -> list[str]:
    """Return what makes figures worthless: mail that did not arrive, came twice, or was not signed."""
    found = []
    for row in rows:
        name = f"{row['peer']} {row['load']} round {row.get('round', 0)}"
        for wrong, text in (
            (row["delivered"] != row["messages"], f"{row['delivered']} of {row['messages']} delivered"),
            (row["duplicates"] > 0, f"{row['duplicates']} came twice"),
            (row["failed"] > 0, f"{row['failed']} refused: {row['err']}"),
            (row["dkim"] < row["delivered"], f"only {row['dkim']} of {row['delivered']} signed"),
        ):
            if wrong:
                found.append(f"{name}: {text}")
    return found


def measure_idle(kit: Path, folder: Path) -> dict[str, float]:
    """Return ``start_s`` (to the first greeting), ``rss_mb`` and ``idle_kb`` (per idle SMTP connection)."""
    starts = []
    for _ in range(STARTS):
        with running(folder) as daemon:
            starts.append(daemon.start_s)
    with running(folder) as daemon:
        time.sleep(2)  # the last of the start-up work is done
        rss_mb = daemon.rss_mb()
        idle = [sys.executable, str(kit / "tools" / "idle.py"), str(daemon.port), str(daemon.process.pid)]
        out = subprocess.run([*idle, str(IDLE_CONNECTIONS)], check=True, capture_output=True, text=True).stdout
    # "500 idle: 10.5 KB each, rss 53.1 -> 58.3 MB"
    idle_kb = float(out.partition(" idle: ")[2].partition(" KB")[0])
    return {"start_s": statistics.median(starts), "rss_mb": rss_mb, "idle_kb": idle_kb}


def idle_lines(measured: Mapping[str, float]) -> list[Line]:
    """Return the lines of what a relay costs that does nothing."""
    return [
        Line(text, f"≤ {at_most:g}", measured[key], None, None, measured[key] <= at_most)
        for text, key, at_most in IDLE_GOALS
    ]


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and return the exit status."""
    options = parser().parse_args(argv)
    loads = options.loads.split(",")
    lacking = missing(options.kit, loads)
    if lacking:
        print("the benchmark cannot run here; it needs:", *lacking, sep="\n  ", file=sys.stderr)
        return 1
    by_smtp = [load for load in loads if load not in ALONE]
    with contextlib.ExitStack() as stack:
        folder = options.dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="arkbench-")))
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)  # Postfix' processes look into it as their own user
        folder = folder.resolve()
        rows = run_kit(options.kit, folder, by_smtp, options.rounds, options.scale) if by_smtp else []
        idle = measure_idle(options.kit, folder) if by_smtp else {}
        by_rest = rest.measure(options.kit, folder, options.rounds) if rest.LOAD in loads else []
        by_both = tracked.measure(options.kit, folder, options.rounds) if tracked.LOAD in loads else []
    lines = [*judge(rows), *(rest.lines(by_rest) if by_rest else ()), *(tracked.lines(by_both) if by_both else ())]
    lines += idle_lines(idle) if idle else []
    wrong = [*complaints(rows), *rest.complaints(by_rest), *tracked.complaints(by_both)]
    if options.json:
        table = [asdict(line) for line in lines]
        print(
            json.dumps(
                {
                    "lines": table,
                    "complaints": wrong,
                    "idle": idle,
                    "runs": rows,
                    "rest": by_rest,
                    "tracked": by_both,
                },
                indent=1,
            )
        )
    else:
        print(render(lines))
    for text in wrong:
        print(f"WRONG: {text}", file=sys.stderr)
    return 1 if wrong else 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    known = os.environ.get("ARKRELAY_BENCH_KIT")
    found.add_argument("--kit", type=Path, default=Path(known) if known else None, help="folder of the benchmark kit")
    found.add_argument(
        "--loads", default=",".join(LOADS), help="of the kit's loads, rest and tracked, with commas (%(default)s)"
    )
    found.add_argument("--rounds", type=int, default=3, help="medians are of so many (%(default)s)")
    found.add_argument("--scale", type=float, default=0.5, help="multiplies the number of messages (%(default)s)")
    found.add_argument(
        "--dir", type=Path, help="scratch folder, kept, on the disk to be measured; default: a new one"
    )
    found.add_argument("--json", action="store_true", help="print JSON, with every single run")
    return found


if __name__ == "__main__":
    sys.exit(main())
