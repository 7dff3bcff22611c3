"""What tracking and a webhook cost: the same mail from ``POST /emails`` to the sink, with both and with neither.

Each email is 4 KB of text and HTML with six links. With both, its links lead to a track domain, it has a pixel and
``List-Unsubscribe``, and each ``MessageSent`` is posted over TLS to one webhook. wrk posts for some seconds as fast
as it is answered, and the round ends when the queue is empty and every event has come. wrk, the kit's sink and the
receiver share the machine with the relay; the CPU time is the relay's alone.
"""

import contextlib
import json
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from bench import hooks, rest
from bench.daemon import free_port, running
from bench.peer import DOMAIN
from bench.table import Line
from peers import certificates

LOAD = "tracked"
SECONDS = 4
GIVE_UP_S = 120.0
TESTS = Path(__file__).resolve().parents[1]
TRACK_HOST = f"track.{DOMAIN}"
MORE = """
[public]
url = "https://relay.test"

[dns]
nameservers = ["{dns}"]

[webhooks]
allow_destinations = ["{host}/32"]

[[listen]]
service = "http"
address = "127.0.0.1:0"
serve = ["public"]
"""
MORE_TENANT = """
[unsubscribe]
tags = ["newsletter"]

[[track_domains]]
name = "track"
domain = "{domain}"

[[webhooks]]
name = "bench"
id = "1"
url = "{url}/bench"
events = ["MessageSent"]
"""
LINES = 20
LINKS = 6
TEXT = "Hello there, this is a line of plain text for you.\n"
EMAIL = {
    "from": f"Bench <bench@{DOMAIN}>",
    "to": ["rcpt@dest.test"],
    "subject": "A subject",
    "tag": "newsletter",
    "text": TEXT * LINES + "".join(f"https://shop.test/item/{number}?from=mail\n" for number in range(LINKS)),
    "html": "<html><body>"
    + "<p>Hello there, this is a line of html text for you.</p>\n" * (2 * LINES)
    + "".join(f'<a href="https://shop.test/item/{number}?from=mail">item</a>\n' for number in range(LINKS))
    + "</body></html>",
}
SCRIPT = """wrk.method = "POST"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("BENCH_API_KEY")
wrk.headers["Content-Type"] = "application/json"
wrk.body = [====[{body}]====]
"""

Run = Mapping[str, float]


def measure(kit: Path, folder: Path, rounds: int) -> list[Run]:
    """Return what each round measured, with both and with neither in turn; ``tracked`` says which."""
    rest.make_key(folder)
    sink = folder / "smtpsink"
    if not sink.exists():
        subprocess.run(["gcc", "-O2", "-o", sink, kit / "tools" / "smtpsink.c"], check=True)
    (folder / "tracked.lua").write_text(SCRIPT.format(body=json.dumps(EMAIL)))
    found: list[Run] = []
    for _ in range(rounds):
        with _receiver() as (url, pipe), _resolver() as dns:
            more = MORE.format(dns=dns, host=hooks.HOST), MORE_TENANT.format(domain=DOMAIN, url=url)
            found += [_round(folder, None, ("", "")), _round(folder, pipe, more)]
    return found


def lines(runs: Sequence[Run]) -> list[Line]:
    """Return the lines of the table: medians, and what they are of those without."""
    made = []
    for text, name in (
        ("delivered/s", "e2e_per_s"),
        ("accepted/s", "per_s"),
        ("CPU s per 1000", "cpu_per_1000"),
    ):
        with_both, with_neither = (
            statistics.median(run[name] for run in runs if run["tracked"] == which) for which in (1.0, 0.0)
        )
        made += [
            Line(f"REST to sink: {text}", "-", with_neither, None, None, reached=True),
            Line(f"with tracking and a webhook: {text}", "-", with_both, None, None, reached=True),
            Line(f"{text}: with both / with neither", "-", with_both / with_neither, None, None, reached=True),
        ]
    return made


def complaints(runs: Sequence[Run]) -> list[str]:
    """Return what makes figures worthless: mail or events that did not come, and links that were left."""
    found = []
    for number, run in enumerate(runs):
        name = f"{LOAD} round {number // 2} {'with both' if run['tracked'] else 'with neither'}"
        if run["errors"]:
            found.append(f"{name}: {run['errors']:g} requests failed")
        if run["received"] != run["stored"]:
            found.append(f"{name}: {run['stored']:g} stored, {run['received']:g} arrived")
        if run["signed"] != run["received"]:
            found.append(f"{name}: only {run['signed']:g} of {run['received']:g} signed")
        if run["events"] != run["stored"] * run["tracked"]:
            found.append(f"{name}: {run['events']:g} events for {run['stored']:g} messages")
        if run["rewritten"] != run["tracked"]:
            found.append(f"{name}: the first message has {'no ' * bool(run['tracked'])}links of the track domain")
    return found


def _round(folder: Path, pipe: Connection | None, more: tuple[str, str]) -> Run:
    """Post, wait until all is delivered and told, and count."""
    port, first = free_port(), folder / "tracked-first.eml"
    environment = {"SSL_CERT_FILE": str(certificates.authority().ca_file)} if pipe else {}
    command = [
        str(folder / "smtpsink"),
        "-p",
        str(port),
        "-1",
        str(first),
        "-T",
        str(int(GIVE_UP_S) * 2),
        "-i",
        "600",
    ]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sink,
        running(folder, port, more=more, environment=environment) as daemon,
    ):
        if pipe:
            _until(lambda: rest.ask(daemon, "/tenants/bench/tracking")["data"]["trackDomains"][0]["dnsOk"])
        told_before, cpu_before, began_ns = _events(pipe), daemon.cpu_s(), time.monotonic_ns()
        said = rest.post(folder / "tracked.lua", daemon, SECONDS)
        _until(lambda: not rest.stored(daemon, "pending"))
        stored = rest.stored(daemon)
        _until(lambda: not pipe or _events(pipe) - told_before >= stored)
        cpu_s = daemon.cpu_s() - cpu_before
        counted = _end(sink)
    return {
        **said,
        "tracked": float(pipe is not None),
        "stored": stored,
        "received": counted["received"],
        "signed": counted["dkim"],
        "events": _events(pipe) - told_before,
        "rewritten": float(TRACK_HOST.encode() in first.read_bytes()),
        "e2e_per_s": counted["received"] / max(1e-9, (counted["last_ns"] - began_ns) / 1e9),
        "cpu_per_1000": 1000 * cpu_s / max(1.0, stored),
    }


def _end(sink: "subprocess.Popen[str]") -> dict[str, float]:
    sink.terminate()
    counted: dict[str, float] = json.loads(sink.communicate()[0])
    return counted


def _events(pipe: Connection | None) -> float:
    """Return how many events came so far."""
    if pipe is None:
        return 0.0
    pipe.send("count")
    return float(pipe.recv()[0])


def _until(reached: Callable[[], bool]) -> None:
    """Return when it is so, or after a while: what is missing then shows in the counts."""
    give_up_at = time.monotonic() + GIVE_UP_S
    while not reached() and time.monotonic() < give_up_at:
        time.sleep(0.2)


@contextlib.contextmanager
def _receiver() -> Iterator[tuple[str, Connection]]:
    """Give the URL of a receiver of webhooks, and the pipe that asks it."""
    certificates.valid(hooks.HOST)  # made before the fork, so that both sides know the same
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=hooks.serve_receivers, args=(theirs, True, 0.0), daemon=True)
    process.start()
    try:
        yield ours.recv(), ours
    finally:
        process.terminate()
        process.join()


@contextlib.contextmanager
def _resolver() -> Iterator[str]:
    """Give the address of a resolver that knows where the track domain points."""
    command = [sys.executable, "-m", "peers.dns", "0", f"{TRACK_HOST} CNAME track.relay.test."]
    with subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
