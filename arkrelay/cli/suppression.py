"""The addresses that a tenant may not mail."""

import csv
import io
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import click

from arkrelay.cli import output
from arkrelay.cli import suppression_files as files
from arkrelay.cli.client import Daemon, Denied
from arkrelay.cli.files import pick_tenant
from arkrelay.cli.state import Failed, State, config_option, json_option, pass_state, tenant_option, usage
from arkrelay.model.address import AddressError, parse_mailbox
from arkrelay.model.attempt import REST_CLASS
from arkrelay.model.suppression import Cause

PER_PAGE = 100  # Ark contract §3: the most
PART = 500  # addresses in one request
COLUMNS = ("address", "reason", "createdAt", "stream", "cause", "classification")
CLASSES = tuple(dict.fromkeys(name for name, _ in REST_CLASS.values()))
CAUSES = tuple(one.value for one in Cause)


@click.group("suppression")
@config_option
def suppression_command() -> None:
    """The addresses that a tenant may not mail; what is sent to them is held."""


def path_of(tenant: str, address: str = "") -> str:
    """Return where REST has a tenant's list, or one entry of it."""
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
@click.option("--reason", help="With exactly this reason.")
@click.option("--class", "classification", type=click.Choice(CLASSES), help="Made by this sort of failure.")
@click.option("--cause", type=click.Choice(CAUSES), help="Made by this.")
@click.option("--stream", metavar="TAG", help="Of this stream.")
@click.option("--domain", help="Addresses at this domain.")
@click.option("--since", metavar="TIME", help="Made at or after: ISO 8601 or Unix seconds.")
@click.option("--until", metavar="TIME", help="Made before.")
@click.option("--page", type=click.IntRange(1), default=1, show_default=True)
@click.option("--per-page", type=click.IntRange(1, PER_PAGE), default=PER_PAGE, show_default=True)
@pass_state
def list_suppressions(
    state: State,
    as_json: bool,
    tenant: str | None,
    reason: str | None,
    classification: str | None,
    cause: str | None,
    stream: str | None,
    domain: str | None,
    since: str | None,
    until: str | None,
    page: int,
    per_page: int,
) -> None:
    """List them, the newest first."""
    path = path_of(pick_tenant(state, tenant))
    which: dict[str, Any] = {"reason": reason, "classification": classification, "cause": cause, "stream": stream}
    which |= {"domain": domain, "since": since, "until": until}
    answer = Daemon(state.config).body("GET", path, page=page, perPage=per_page, **which)
    if as_json:
        output.print_json({name: answer.get(name) for name in ("data", "page", "perPage", "total", "totalPages")})
        return
    output.print_table(
        ("ADDRESS", "SINCE", "REASON", "CAUSE", "CLASS", "STREAM"),
        [
            tuple(row.get(name) for name in ("address", "createdAt", "reason", "cause", "classification", "stream"))
            for row in answer.get("data", [])
        ],
        empty="nothing is suppressed",
    )
    output.print_page(answer, "addresses")


@suppression_command.command("add")
@config_option
@json_option
@tenant_option
@click.option("--reason", help="Why, in one line.")
@click.option("--stream", metavar="TAG", help="Only for mail with this tag.")
@click.argument("address")
@pass_state
def add_suppression(
    state: State, as_json: bool, tenant: str | None, reason: str | None, stream: str | None, address: str
) -> None:
    """Suppress ADDRESS; for one that is, the reason is renewed."""
    body = {"address": _address(address), **({"reason": reason} if reason else {})}
    if stream:
        body["stream"] = stream
    data = Daemon(state.config).data("POST", path_of(pick_tenant(state, tenant)), body)
    if as_json:
        output.print_json(data)
    else:
        output.say(f"{body['address']} is suppressed")


@suppression_command.command("remove")
@config_option
@tenant_option
@click.option("--stream", metavar="TAG", help="Only for mail with this tag; entries of others stay.")
@click.argument("address")
@pass_state
def remove_suppression(state: State, tenant: str | None, stream: str | None, address: str) -> None:
    """Let ADDRESS be mailed again. Held mail stays held: release it with arkrelay queue release."""
    wanted = _address(address)
    Daemon(state.config).data("DELETE", path_of(pick_tenant(state, tenant), wanted), stream=stream)
    output.say(f"{wanted} is no longer suppressed{_of_stream(stream)}")


@suppression_command.command("check")
@config_option
@json_option
@tenant_option
@click.argument("address")
@pass_state
def check_suppression(state: State, as_json: bool, tenant: str | None, address: str) -> None:
    """Tell whether ADDRESS is suppressed, since when and why, and for which mail: all, or that with a tag."""
    wanted = _address(address)
    data = Daemon(state.config).data("GET", path_of(pick_tenant(state, tenant), wanted))
    if as_json:
        output.print_json(data)
    elif data.get("suppressed"):
        for one in data.get("entries") or [data]:
            said = f"{wanted} is suppressed{_of_stream(one.get('stream'))} since {one.get('createdAt')}"
            output.say(output.clean(f"{said}: {one.get('reason') or '-'}"))
    else:
        output.say(f"{wanted} is not suppressed")


def _of_stream(stream: str | None) -> str:
    return f" for mail with the tag {output.clean(stream)}" if stream else ""


@suppression_command.command("undo")
@config_option
@json_option
@tenant_option
@click.option("--class", "classification", type=click.Choice(CLASSES), help="Entries made by this sort of failure.")
@click.option("--cause", type=click.Choice(CAUSES), help="Entries made by this.")
@click.option("--stream", metavar="TAG", help="Entries of this stream.")
@click.option("--domain", help="Entries of addresses at this domain.")
@click.option("--since", metavar="TIME", help="Made at or after: ISO 8601 or Unix seconds.")
@click.option("--until", metavar="TIME", help="Made before.")
@click.option("--dry-run", is_flag=True, help="Only tell what would be removed.")
@pass_state
def undo_suppressions(
    state: State,
    as_json: bool,
    tenant: str | None,
    classification: str | None,
    cause: str | None,
    stream: str | None,
    domain: str | None,
    since: str | None,
    until: str | None,
    dry_run: bool,
) -> None:
    """Take what failures have put there off the list by class and time, as after a day on a blocklist.

    What people put there stays, complaints and unsubscriptions included, unless --cause names it. Held mail stays
    held: release it with queue release.
    """
    which = {"classification": classification, "cause": cause, "stream": stream, "domain": domain}
    which |= {"since": since, "until": until}
    body = {name: value for name, value in which.items() if value is not None}
    if not body:
        usage("Say which: --class, --cause, --stream, --domain, --since or --until.")
    path = f"{path_of(pick_tenant(state, tenant))}/undo"
    data = Daemon(state.config).data("POST", path, {**body, "dryRun": dry_run})
    if as_json:
        output.print_json(data)
        return
    for address in data.get("addresses", []):
        output.say(output.clean(address))
    removed, shown = data.get("removed", 0), len(data.get("addresses", []))
    if removed > shown:
        output.note(f"and {removed - shown} more")
    output.note(f"{'would be taken' if dry_run else 'taken'} off the list: {removed}")


@suppression_command.command("export")
@config_option
@tenant_option
@click.option("--format", "form", type=click.Choice(("csv", "json")), default="csv", show_default=True)
@pass_state
def export_suppressions(state: State, tenant: str | None, form: str) -> None:
    """Write them all to standard output, by address, as CSV or as one JSON list; import reads both again."""
    entries = _every(Daemon(state.config), path_of(pick_tenant(state, tenant)))
    if form == "json":
        output.print_json([{name: row.get(name) for name in COLUMNS} for row in entries])
        return
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(COLUMNS)
    for row in entries:
        rows.writerow([row.get(name) or "" for name in COLUMNS])


def _every(daemon: Daemon, path: str) -> Iterator[dict[str, Any]]:
    """Yield every entry, by address: each page begins behind the last address, whatever has left the list since."""
    last: dict[str, Any] = {}
    while True:
        after, stream = last.get("address"), last.get("stream")
        answer = daemon.body("GET", path, sort="address", perPage=PER_PAGE, afterAddress=after, afterStream=stream)
        found = answer.get("data", [])
        yield from found
        if len(found) < PER_PAGE:
            return
        last = found[-1]


@suppression_command.command("import")
@config_option
@json_option
@tenant_option
@click.option("--format", "form", type=click.Choice(files.FORMATS), help="Default: as its first line says.")
@click.option("--reason", default="imported", show_default=True, help="Of addresses for which the file gives none.")
@click.option("--dry-run", is_flag=True, help="Read the file and tell what it holds; import nothing.")
@click.option("--skip-bad", is_flag=True, help="Import the rest of a file with bad lines.")
@click.option("--all", "everything", is_flag=True, help="Also what was refused for the sender's sake, as spam.")
@click.argument("file", type=click.File("r", encoding="utf-8-sig"))
@pass_state
def import_suppressions(
    state: State,
    as_json: bool,
    tenant: str | None,
    form: str | None,
    reason: str,
    dry_run: bool,
    skip_bad: bool,
    everything: bool,
    file: io.TextIOBase,
) -> None:
    """Suppress every address of a CSV FILE ("-": standard input), as another service exports it.

    What this one exports, as CSV or JSON, keeps cause and class. The whole file is read first: with a bad line
    nothing is imported. Refusals for the sender's sake (blocklists, spam) are passed over, for they say nothing of
    the address. Addresses that are suppressed already stay as they are, so it can be run again.
    """
    found = files.read(file, form or "", everything=everything)
    bad = [one for one in found.passed if one.bad]
    if bad and not (skip_bad or dry_run):
        raise Failed("\n  ".join(files.numbers(bad, found.unit)), "nothing was imported; --skip-bad imports the rest")
    path = f"{path_of(pick_tenant(state, tenant))}/import"
    daemon, added, present = Daemon(state.config), 0, 0
    parts = [found.rows[start : start + PART] for start in range(0, len(found.rows), PART)]
    hidden = not sys.stderr.isatty()
    with click.progressbar(parts if not dry_run else [], label="importing", file=sys.stderr, hidden=hidden) as some:
        for part in some:
            try:
                data = daemon.data("POST", path, {"entries": [one.body(reason) for one in part]})
            except Denied as error:
                error.message = (
                    f"{found.unit} {part[0].line} and the following: {error.message} ({added} imported before)"
                )
                raise
            added, present = added + data.get("added", 0), present + data.get("present", 0)
    told = {
        "format": found.form,
        "read": len(found.rows),
        "added": added,
        "present": present,
        "skipped": [{"line": one.line, "why": one.why} for one in found.passed],
        "dryRun": dry_run,
    }
    if as_json:
        output.print_json(told)
        return
    for text in files.numbers(found.passed, found.unit):
        output.note(f"skipped: {output.clean(text)}")
    if ours := sum(one.ours for one in found.passed):
        output.note(f"refused for the sender's sake, not the recipient's: {ours} (--all imports them too)")
    if dry_run:
        output.say(f"to import: {len(found.rows)}, lines skipped: {len(found.passed)} ({found.form})")
    else:
        output.say(
            f"added: {added}, on the list before: {present}, lines skipped: {len(found.passed)} ({found.form})"
        )
