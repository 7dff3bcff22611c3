"""What was sent and what became of it, by tenant and by time."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any, get_args
from urllib.parse import quote

import click

from arkrelay.cli import output
from arkrelay.cli.client import Daemon
from arkrelay.cli.state import State, config_option, json_option, pass_state, usage
from arkrelay.model.tenant import STATUSES
from arkrelay.policy.periods import FORMS, Granularity

PER_PAGE = 100  # Ark contract §3: the most
KEYS = ("sent", "delivered", "bounce_rate", "delivery_rate", "tenant_name")
SORTS = [sign + key for key in KEYS for sign in ("", "-")]
COUNTS = ("sent", "delivered", "soft_failed", "hard_failed", "bounced", "held")
HEADINGS = ("SENT", "DELIVERED", "SOFTFAIL", "HARDFAIL", "BOUNCED", "HELD")
RATES = ("DELIVERED %", "BOUNCED %")
Shape = Mapping[str, Any]
Query = dict[str, Any]


@click.command("usage")
@config_option
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print a CSV file for spreadsheets.")
@click.option("-p", "--period", metavar="PERIOD", default="this_month", show_default=True, help=f"{FORMS}.")
@click.option("--timezone", metavar="NAME", default="UTC", show_default=True, help="Where days begin: an IANA name.")
@click.option("-t", "--tenant", metavar="ID", help="Only of this tenant.")
@click.option("--by", type=click.Choice(get_args(Granularity)), help="One line for each; needs --tenant.")
@click.option("--status", type=click.Choice(STATUSES), help="Of tenants in this state.")
@click.option("--min-sent", type=click.IntRange(0), metavar="N", help="Of tenants that sent at least N.")
@click.option("--sort", type=click.Choice(SORTS), help="Default -sent: who sent most comes first.")
@pass_state
def usage_command(
    state: State,
    as_json: bool,
    as_csv: bool,
    period: str,
    timezone: str,
    tenant: str | None,
    by: str | None,
    status: str | None,
    min_sent: int | None,
    sort: str | None,
) -> None:
    """Show what was sent in a time, and what became of it.

    Each recipient is counted once, under its present state and the time at which its message was accepted; what is
    still pending joins "sent" with its first attempt. Mail of test keys is left out.
    """
    if as_csv and (as_json or tenant or sort):
        usage("--csv goes with none of --json, --tenant and --sort.")
    if tenant and (status or min_sent is not None or sort):
        usage("--status, --min-sent and --sort choose among tenants: leave out --tenant.")
    if by and not tenant:
        usage("--by needs --tenant.")
    daemon = Daemon(state.config)
    time: Query = {"period": period, "timezone": timezone}
    if tenant:
        _show_tenant(daemon, tenant, by, time, as_json=as_json)
        return
    wanted: Query = {**time, "status": status, "minSent": min_sent}
    if as_csv:
        sys.stdout.flush()
        sys.stdout.buffer.write(daemon.file("/v1/usage/export", **wanted))
        sys.stdout.buffer.flush()
        return
    whole = daemon.data("GET", "/v1/usage", **time)
    rows = list(_every(daemon, {**wanted, "sort": sort}))
    if as_json:
        output.print_json({"organisation": whole, "tenants": rows})
    else:
        _print_tenants(whole, rows)


def _every(daemon: Daemon, query: Query) -> Iterator[Shape]:
    page, pages = 1, 1
    while page <= pages:
        answer = daemon.body("GET", "/v1/usage/tenants", **query, page=page, perPage=PER_PAGE)
        yield from answer.get("data", [])
        page, pages = page + 1, int(answer.get("totalPages", 0))


def _show_tenant(daemon: Daemon, tenant: str, by: str | None, time: Query, *, as_json: bool) -> None:
    path = f"/v1/tenants/{quote(tenant, safe='')}/usage"
    if by is None:
        data = daemon.data("GET", path, **time)
    else:
        data = daemon.data("GET", f"{path}/timeseries", **time, granularity=by)
    if as_json:
        output.print_json(data)
    elif by is None:
        output.print_fields(
            [
                ("tenant", data["tenant_id"]),
                ("name", data["tenant_name"]),
                *([("known as", data["external_id"])] if data.get("external_id") else []),
                ("from", data["period"]["start"]),
                ("to", data["period"]["end"]),
                *zip((heading.lower() for heading in HEADINGS), _counts(data["emails"]), strict=True),
                *zip((heading.lower() for heading in RATES), _rates(data), strict=True),
            ]
        )
    else:
        _print_time(data)
        points = ((point["timestamp"], *_counts(point)) for point in data["data"])
        output.print_table((f"{by.upper()} FROM", *HEADINGS), points)


def _print_tenants(whole: Shape, rows: list[Shape]) -> None:
    """Print one line for each tenant, and what the organisation sent beside them, also by tenants that are gone."""
    _print_time(whole)
    output.print_table(
        ("TENANT", "NAME", "STATUS", *HEADINGS, *RATES),
        [(row["tenantId"], row["tenantName"], row["status"], *_counts(row["emails"]), *_rates(row)) for row in rows],
        empty="no tenant matches",
    )
    emails, tenants = whole["emails"], whole["tenants"]
    said = ", ".join(f"{emails[name]} {name.replace('_', ' ')}" for name in COUNTS)
    output.note(f"all {tenants['total']} tenants, of which {tenants['withActivity']} sent something: {said}")


def _print_time(data: Shape) -> None:
    output.note(f"from {data['period']['start']} to {data['period']['end']}")


def _counts(emails: Shape) -> list[object]:
    return [emails[name] for name in COUNTS]


def _rates(data: Shape) -> list[str]:
    return [f"{100 * data['rates'][name]:.1f}" for name in ("delivery_rate", "bounce_rate")]
