"""What each lane does now and why, orders to one, and our addresses: `arkrelay lanes`, `lane`, `sources`."""

from typing import Any
from urllib.parse import quote

import click

from arkrelay.cli import output
from arkrelay.cli.client import Daemon
from arkrelay.cli.state import State, config_option, json_option, pass_state

COLUMNS = ("LANE", "STATE", "OPEN", "MOST", "PER SECOND", "DESTINATIONS", "READY", "NEXT", "WHY")
WARMUP = "WARM-UP"


@click.command("lanes")
@config_option
@json_option
@pass_state
def lanes_command(state: State, as_json: bool) -> None:
    """Show what each site takes from each of our addresses now, and why."""
    rows = Daemon(state.config).data("GET", "/v1/lanes")["lanes"]
    if as_json:
        output.print_json(rows)
        return
    _print(rows)


@click.command("sources")
@config_option
@json_option
@pass_state
def sources_command(state: State, as_json: bool) -> None:
    """Show from which addresses mail leaves, and what DNS says of them."""
    rows = Daemon(state.config).data("GET", "/v1/sources")["sources"]
    if as_json:
        output.print_json(rows)
        return
    output.print_table(
        ("ADDRESS", "POOL", "EHLO", "PTR", "LEADS BACK", "USED", "WHY"),
        [
            (
                row["address"],
                row["pool"] or "-",
                row["hostname"],
                row["name"] or "-",
                {True: "yes", False: "no", None: "?"}[row["matches"]],
                "yes, new" if row["used"] and row["warmup"] else "yes" if row["used"] else "no",
                row["reason"],
            )
            for row in rows
        ],
        empty="the system chooses the address, by IPv4",
    )


@click.group("lane")
@config_option
def lane_command() -> None:
    """Orders to one lane, by the name that `arkrelay lanes` shows."""


@lane_command.command("rest")
@config_option
@json_option
@click.argument("lane", metavar="LANE")
@pass_state
def rest_lane(state: State, as_json: bool, lane: str) -> None:
    """Send nothing there until it is resumed."""
    _order(state, lane, "rest", None, as_json=as_json)


@lane_command.command("resume")
@config_option
@json_option
@click.argument("lane", metavar="LANE")
@pass_state
def resume_lane(state: State, as_json: bool, lane: str) -> None:
    """Send there again, at once; rests, slowness and orders are forgotten."""
    _order(state, lane, "resume", None, as_json=as_json)


@lane_command.command("limit")
@config_option
@json_option
@click.argument("lane", metavar="LANE")
@click.option("--connections", type=click.IntRange(1), help="Connections at once.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Messages a second; 0.1 is one in ten seconds.")
@pass_state
def limit_lane(state: State, as_json: bool, lane: str, connections: int | None, rate: float | None) -> None:
    """Let a lane carry no more than this; without options it carries what is configured."""
    _order(state, lane, "limit", {"connections": connections, "messagesPerSecond": rate}, as_json=as_json)


def _order(state: State, lane: str, verb: str, body: dict[str, Any] | None, *, as_json: bool) -> None:
    row = Daemon(state.config).data("POST", f"/v1/lanes/{quote(lane, safe='')}/{verb}", body)
    if as_json:
        output.print_json(row)
        return
    _print([row])


def _print(rows: list[dict[str, Any]]) -> None:
    """Print lanes; how new addresses get on has a column only where there are any."""
    warming = any(row["warmup"] for row in rows)
    output.print_table(
        (*COLUMNS[:-1], WARMUP, COLUMNS[-1]) if warming else COLUMNS,
        [(*_row(row)[:-1], _warmup(row["warmup"]), _row(row)[-1]) if warming else _row(row) for row in rows],
        empty="nothing waits and nothing is wrong",
    )


def _warmup(warmup: dict[str, Any] | None) -> str:
    if warmup is None:
        return "-"
    return f"day {warmup['day']} of {warmup['days']}: {warmup['sent']} of {warmup['budget']}"


def _row(row: dict[str, Any]) -> tuple[object, ...]:
    return (
        row["lane"],
        row["state"],
        row["connections"],
        row["connectionsMax"] or "any",
        "any" if row["messagesPerSecond"] is None else f"{row['messagesPerSecond']:.3g}",
        row["destinations"],
        row["ready"],
        output.until(row["nextAt"]),
        row["reason"],
    )
