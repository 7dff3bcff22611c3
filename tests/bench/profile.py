"""Show where the event loop's thread spends its time while arkrelay takes, signs and delivers mail.

    python tests/bench/profile.py --kit PATH [--messages 4000] [--top 40] [--sort tottime] [--fresh] [--size 4096]

The load and the sink are those of the benchmark kit (see ``run.py``); neither root nor Postfix is needed. cProfile
sees one thread, the one that runs the event loop, and makes calls of small functions look dearer than they are:
it tells where to look, ``run.py`` tells what was won. ``poll`` of epoll is waiting, for the writer thread's fsync or
for the peers; its share says how far the loop is from being the limit. ``--save FILE`` keeps the figures for
``python -m pstats`` or a viewer.
"""

import argparse
import json
import os
import pstats
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# A script's own folder comes first, and there "profile" is this file, which cProfile would import for its own.
sys.path[0] = str(HERE.parent)

from bench.daemon import free_port, running  # noqa: E402 -- it needs the line above

TOOLS = ("smtpload", "smtpsink")
PROFILED = "--profiled"  # the first argument of the process that is looked at
LOAD_S = 300  # the load ends after this, whatever happens


def main(argv: list[str] | None = None) -> int:
    """Load one daemon under cProfile, print its most expensive functions, and return the exit status."""
    options = parser().parse_args(argv)
    if options.kit is None:
        print("the benchmark kit is needed: name its folder by --kit or $ARKRELAY_BENCH_KIT", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="arkprofile-") as name:
        folder = Path(name)
        for tool in TOOLS:
            subprocess.run(["gcc", "-O2", "-o", folder / tool, options.kit / "tools" / f"{tool}.c"], check=True)
        subprocess.run(["openssl", "genrsa", "-out", folder / "dkim.pem", "2048"], check=True, capture_output=True)
        stats = options.save or folder / "stats"
        accepted, arrived = load(folder, stats.absolute(), options)
        show(stats, options)
    print(f"accepted {accepted['accepted']} at {accepted['rate']:.0f}/s under the profiler, delivered {arrived}")
    if accepted["err"]:
        print(f"first refusal: {accepted['err']}", file=sys.stderr)
    return 0 if arrived == options.messages else 1


def load(folder: Path, stats: Path, options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """Send all messages through a profiled daemon; return the load generator's figures and how many arrived."""
    messages = str(options.messages)
    sink_port = free_port()
    sink = [
        str(folder / "smtpsink"),
        "-p",
        str(sink_port),
        "-n",
        messages,
        "-T",
        str(LOAD_S),
        "-i",
        "20",
        "-g",
        "300",
    ]
    generator = [str(folder / "smtpload"), "-m", messages, "-s", str(options.sessions), "-l", str(options.size)]
    generator += ["-T", str(LOAD_S), *([] if options.fresh else ["-k"])]
    with subprocess.Popen(sink, stdout=subprocess.PIPE, text=True) as taking:
        try:
            with running(folder, sink_port, (str(Path(__file__).resolve()), PROFILED, str(stats))) as daemon:
                sending = subprocess.run(
                    [*generator, "-p", str(daemon.port)], stdout=subprocess.PIPE, text=True, check=False
                )
                out, _ = taking.communicate(timeout=LOAD_S)
        finally:
            taking.kill()
    return json.loads(sending.stdout), json.loads(out)["received"]


def show(stats: Path, options: argparse.Namespace) -> None:
    """Print the functions, the most expensive first."""
    found = pstats.Stats(str(stats))
    found.strip_dirs().sort_stats(options.sort).print_stats(options.top)


def profiled(stats: Path, arguments: list[str]) -> int:
    """Be arkrelay, in this process and under the profiler; its figures are written when it has stopped."""
    import cProfile  # noqa: PLC0415 -- it imports "profile", which is the right one only by now

    import arkrelay.daemon  # noqa: PLC0415 -- what it imports is not to be seen in the profile
    from arkrelay.__main__ import main as program  # noqa: PLC0415 -- the parent does without

    sys.argv = [arkrelay.__name__, *arguments]
    profiler = cProfile.Profile()
    try:
        return profiler.runcall(program)
    except SystemExit as end:  # click ends so
        return int(end.code or 0)
    finally:
        profiler.dump_stats(stats)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    known = os.environ.get("ARKRELAY_BENCH_KIT")
    found.add_argument("--kit", type=Path, default=Path(known) if known else None, help="folder of the benchmark kit")
    found.add_argument("--messages", type=int, default=4000, help="so many (%(default)s)")
    found.add_argument("--size", type=int, default=4096, help="bytes of a body (%(default)s)")
    found.add_argument("--sessions", type=int, default=20, help="clients at once (%(default)s)")
    found.add_argument("--fresh", action="store_true", help="a connection for each message, not kept ones")
    found.add_argument("--top", type=int, default=40, help="functions to print (%(default)s)")
    found.add_argument("--sort", default="tottime", help="tottime, cumulative, ncalls … (%(default)s)")
    found.add_argument("--save", type=Path, help="keep the figures in this file")
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == [PROFILED]:
        sys.exit(profiled(Path(sys.argv[2]), sys.argv[3:]))
    sys.exit(main())
