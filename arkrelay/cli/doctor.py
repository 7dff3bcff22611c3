"""What DNS and this machine must be for mail to go, looked at and told: `arkrelay doctor`."""

from collections.abc import Iterable, Sequence
from typing import Any

import click

from arkrelay.cli import output
from arkrelay.cli.client import Daemon, NotRunning
from arkrelay.cli.files import domain_name
from arkrelay.cli.state import State, config_option, json_option, pass_state
from arkrelay.policy.finding import CHECKS, Level

LOOK_S = 300.0  # of the daemon: hundreds of domains, some of whose nameservers are silent
COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red", Level.SKIP: "bright_black"}
CHECK = click.Choice(list(CHECKS))
MACHINE = "machine"

Row = dict[str, Any]


@click.command("doctor")
@config_option
@json_option
@click.option("-d", "--domain", metavar="DOMAIN", help="Look at this sender domain alone.")
@click.option("--fresh", is_flag=True, help="Look now, instead of showing the last look (at most an hour old).")
@click.option("--only", multiple=True, type=CHECK, metavar="CHECK", help="Show this check; repeatable.")
@click.option("--skip", multiple=True, type=CHECK, metavar="CHECK", help="Leave this check out; repeatable.")
@click.option("--strict", is_flag=True, help="Warnings too end with 1.")
@click.option("--list", "listing", is_flag=True, help="List the checks.")
@pass_state
def doctor_command(
    state: State,
    as_json: bool,
    domain: str | None,
    fresh: bool,
    only: tuple[str, ...],
    skip: tuple[str, ...],
    strict: bool,
    listing: bool,
) -> None:
    """Look at DNS, certificates, port 25, blocklists and this machine, and say what to do.

    Ends with 1 when something fails (with --strict also at a warning), else with 0.
    """
    if listing:
        output.print_table(("CHECK", "LOOKS AT"), CHECKS.items())
        return
    name = domain_name(domain) if domain else ""
    running = True
    try:
        report = _ask_daemon(state, name, fresh=fresh)
    except NotRunning:
        from arkrelay.cli.look import look_here  # noqa: PLC0415 -- 250 ms, which asking the daemon need not pay

        running, report = False, look_here(state.config, name)
    rows = [row for row in report["findings"] if (not only or row["check"] in only) and row["check"] not in skip]
    counts = {level: sum(row["level"] == level for row in rows) for level in Level}
    if as_json:
        numbers = {str(level): count for level, count in counts.items()}
        output.print_json({**report, **numbers, "running": running, "findings": rows})
    else:
        _print(rows)
        _print_problems(row for row in rows if row["level"] in {Level.WARN, Level.FAIL})
        output.say("")
        output.say(_summary(counts, report.get("checkedAt")))
        if not running:
            output.note("the daemon is not running: what needs it was skipped")
    bad = counts[Level.FAIL] + (counts[Level.WARN] if strict else 0)
    click.get_current_context().exit(1 if bad else 0)


def _ask_daemon(state: State, domain: str, *, fresh: bool) -> Row:
    daemon = Daemon(state.config)
    report: Row = daemon.data("GET", "/v1/doctor", timeout_s=LOOK_S, domain=domain, fresh=fresh or None)
    if report["checkedAt"] is None and not fresh:  # it has not looked yet
        report = daemon.data("GET", "/v1/doctor", timeout_s=LOOK_S, domain=domain, fresh=True)
    return report


def _print(rows: Sequence[Row]) -> None:
    """Print a line for each finding, the machine's first, then domain by domain."""
    left = max((len(row["check"]) for row in rows), default=0)
    middle = min(max((output.width(_subject(row)) for row in rows), default=0), 44)
    before = None
    for row in rows:
        group = row["domain"] or MACHINE
        if group != before:
            output.say(("" if before is None else "\n") + click.style(group, bold=True))
            before = group
        level, subject = _level(row), _subject(row)
        gap = " " * max(middle - output.width(subject), 0)
        output.say(f"  {level}  {row['check']:<{left}}  {subject}{gap}  {output.clean(row['found'])}")


def _print_problems(rows: Iterable[Row]) -> None:
    """Print what to do, the worst last: that is where a person looks."""
    problems = sorted(rows, key=lambda row: row["level"] == Level.FAIL)
    if problems:
        output.say("\n" + click.style("what to do", bold=True))
    for row in problems:
        output.say(f"  {_level(row)}  {row['check']}  {_subject(row)}")
        for label, key in (("found", "found"), ("expected", "expected"), ("do", "advice")):
            if row[key]:
                output.say(f"        {label:<8}  {output.clean(row[key])}")


def _level(row: Row) -> str:
    level = Level(row["level"])
    return click.style(f"{level:<4}", fg=COLOURS[level])


def _subject(row: Row) -> str:
    return output.clean(row["subject"])


def _summary(counts: dict[Level, int], at: object) -> str:
    words = {Level.OK: "ok", Level.WARN: "warn", Level.FAIL: "fail", Level.SKIP: "skipped"}
    said = ", ".join(f"{counts[level]} {word}" for level, word in words.items() if counts[level])
    return f"{said or 'nothing was looked at'}; looked at {output.until(at)}" if at else said
