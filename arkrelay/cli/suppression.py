"""The addresses that a tenant may not mail."""

import csv
import io
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import click

from arkrelay.cli import output
from arkrelay.cli.client import Daemon, Denied
from arkrelay.cli.files import pick_tenant
from arkrelay.cli.state import Failed, State, config_option, json_option, pass_state, tenant_option
from arkrelay.model.address import AddressError, parse_mailbox

PER_PAGE = 100  # Ark contract §3: the most
COLUMNS = ("address", "reason", "createdAt")


@click.group("suppression")
@config_option
def suppression_command() -> None:
    """The addresses that a tenant may not mail; what is sent to them is held."""


def _path(tenant: str, address: str = "") -> str:
    base = f"/v1/tenants/{quote(tenant, safe='')}/suppressions"
    return f"{base}/{quote(address, safe='')}" if address else base


def _address(text: str) -> str:
    try:
        return str(parse_mailbox(text.strip(), utf8=True))
    except AddressError as error:
        raise Failed(f"{output.clean(text)}: {error}") from None


@suppression_command.command("list")
@config_option
@json_option
@tenant_option
@click.option("--page", type=click.IntRange(1), default=1, show_default=True)
@click.option("--per-page", type=click.IntRange(1, PER_PAGE), default=PER_PAGE, show_default=True)
@pass_state
def list_suppressions(state: State, as_json: bool, tenant: str | None, page: int, per_page: int) -> None:
    """List them, the newest first."""
    path = _path(pick_tenant(state, tenant))
    answer = Daemon(state.config).body("GET", path, page=page, perPage=per_page)
    if as_json:
        output.print_json({name: answer.get(name) for name in ("data", "page", "perPage", "total", "totalPages")})
        return
    output.print_table(
        ("ADDRESS", "SINCE", "REASON"),
        [(row.get("address"), row.get("createdAt"), row.get("reason")) for row in answer.get("data", [])],
        empty="nothing is suppressed",
    )
    output.print_page(answer, "addresses")


@suppression_command.command("add")
@config_option
@json_option
@tenant_option
@click.option("--reason", help="Why, in one line.")
@click.argument("address")
@pass_state
def add_suppression(state: State, as_json: bool, tenant: str | None, reason: str | None, address: str) -> None:
    """Suppress ADDRESS; for one that is, the reason is renewed."""
    body = {"address": _address(address), **({"reason": reason} if reason else {})}
    data = Daemon(state.config).data("POST", _path(pick_tenant(state, tenant)), body)
    if as_json:
        output.print_json(data)
    else:
        output.say(f"{body['address']} is suppressed")


@suppression_command.command("remove")
@config_option
@tenant_option
@click.argument("address")
@pass_state
def remove_suppression(state: State, tenant: str | None, address: str) -> None:
    """Let ADDRESS be mailed again. Held mail stays held: release it with arkrelay queue release."""
    wanted = _address(address)
    Daemon(state.config).data("DELETE", _path(pick_tenant(state, tenant), wanted))
    output.say(f"{wanted} is no longer suppressed")


@suppression_command.command("check")
@config_option
@json_option
@tenant_option
@click.argument("address")
@pass_state
def check_suppression(state: State, as_json: bool, tenant: str | None, address: str) -> None:
    """Tell whether ADDRESS is suppressed, since when and why."""
    wanted = _address(address)
    data = Daemon(state.config).data("GET", _path(pick_tenant(state, tenant), wanted))
    if as_json:
        output.print_json(data)
    elif data.get("suppressed"):
        output.say(output.clean(f"{wanted} is suppressed since {data.get('createdAt')}: {data.get('reason') or '-'}"))
    else:
        output.say(f"{wanted} is not suppressed")


@suppression_command.command("export")
@config_option
@tenant_option
@pass_state
def export_suppressions(state: State, tenant: str | None) -> None:
    """Write them all to standard output as CSV: address, reason, createdAt."""
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(COLUMNS)
    for row in _every(Daemon(state.config), _path(pick_tenant(state, tenant))):
        rows.writerow([row.get(name) or "" for name in COLUMNS])


def _every(daemon: Daemon, path: str) -> Iterator[dict[str, Any]]:
    page, pages = 1, 1
    while page <= pages:
        answer = daemon.body("GET", path, page=page, perPage=PER_PAGE)
        yield from answer.get("data", [])
        page, pages = page + 1, int(answer.get("totalPages", 0))


@suppression_command.command("import")
@config_option
@tenant_option
@click.argument("file", type=click.File("r", encoding="utf-8-sig"))
@pass_state
def import_suppressions(state: State, tenant: str | None, file: io.TextIOBase) -> None:
    """Suppress every address of a CSV FILE ("-": standard input), with its reason in the second column.

    A first line that names the columns says where they are. The whole file is read first: with a bad line
    nothing is imported. Addresses that are suppressed already are renewed, so it can be run again.
    """
    try:
        wanted = list(parse_csv(file))
    except UnicodeDecodeError:
        raise Failed("the file is not UTF-8") from None
    path = _path(pick_tenant(state, tenant))
    daemon = Daemon(state.config)
    hidden = not sys.stderr.isatty()
    with click.progressbar(wanted, label="importing", file=sys.stderr, hidden=hidden) as rows:
        for done, (address, reason) in enumerate(rows):
            try:
                daemon.data("POST", path, {"address": address, **({"reason": reason} if reason else {})})
            except Denied as error:
                error.message = f"{address}: {error.message} ({done} imported before it)"
                raise
    output.say(f"{len(wanted)} addresses are suppressed")


def parse_csv(file: io.TextIOBase) -> Iterator[tuple[str, str]]:
    """Yield address and reason of every line; raise Failed that names the first bad one."""
    address_at, reason_at = 0, 1
    reader = csv.reader(file)
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            names = [cell.lower() for cell in cells]
            if reader.line_num == 1 and ("address" in names or "email" in names):
                address_at = names.index("address" if "address" in names else "email")
                reason_at = names.index("reason") if "reason" in names else -1
                continue
            if not any(cells):
                continue
            try:
                address = str(parse_mailbox(cells[address_at] if address_at < len(cells) else "", utf8=True))
            except AddressError as error:
                raise Failed(f"line {reader.line_num}: {error}", "nothing was imported") from None
            yield address, cells[reason_at] if 0 <= reason_at < len(cells) else ""
    except csv.Error as error:
        raise Failed(f"line {reader.line_num}: {error}", "nothing was imported") from None
