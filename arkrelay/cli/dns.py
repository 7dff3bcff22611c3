"""DNS as output: records in the form that a zone, a program or a provider takes, and how DNS stands to them."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import click

from arkrelay.cli import output
from arkrelay.cli.client import Daemon, Denied, NotRunning
from arkrelay.cli.files import domain_in, domain_name, load
from arkrelay.cli.look import addresses_here, resolver_of
from arkrelay.cli.records import print_records, records_of
from arkrelay.cli.state import Failed, State, config_option, pass_state, usage
from arkrelay.config.snapshot import Snapshot
from arkrelay.model.address import AddressError, parse_mailbox
from arkrelay.policy import zonediff
from arkrelay.policy.records import render_json
from arkrelay.policy.zonediff import Line
from arkrelay.policy.zoneforms import TEXT_FORMS, Sheet, sheet_of, sheet_of_machine, terraform_cloudflare
from arkrelay.policy.zones import zone_of
from arkrelay.relay.domains import inspect
from arkrelay.wire.dns import Resolver

FORMS = ("table", "json", *TEXT_FORMS)
POLL_S = 10.0  # negative answers are kept for minutes by resolvers; asking more often shows nothing earlier
TIMEOUT_S = 3600.0
COLUMNS = ("TYPE", "NAME", "VALUE")


@click.command("dns")
@config_option
@click.option("--format", "form", type=click.Choice(FORMS), default="table", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "--provider",
    type=click.Choice(["route53", "cloudflare"]),
    default="route53",
    show_default=True,
    help="Whose resources --format terraform writes.",
)
@click.option("--zone", metavar="ZONE", help="The zone they are published in; default the registrable domain.")
@click.option("--report-to", metavar="ADDRESS", help="Where DMARC reports shall go (rua=).")
@click.option("--machine", is_flag=True, help="The records of this relay's own names, instead of a sender domain's.")
@click.option("--diff", is_flag=True, help="What DNS lacks, or has otherwise; ends with 1 unless all is there.")
@click.option("--wait", is_flag=True, help="Wait until all is there.")
@click.option("--timeout", "timeout_s", type=float, default=TIMEOUT_S, show_default=True, help="Of --wait, seconds.")
@click.argument("name", required=False)
@pass_state
def dns_domain(
    state: State,
    form: str,
    as_json: bool,
    provider: str,
    zone: str | None,
    report_to: str | None,
    machine: bool,
    diff: bool,
    wait: bool,
    timeout_s: float,
    name: str | None,
) -> None:
    """Print the DNS records to publish for NAME, or hold them against DNS.

    The forms: a table, JSON, lines of a BIND zone file, Terraform, octoDNS, a file for Cloudflare's import, a change
    batch for Route 53.
    """
    if bool(name) == machine:
        usage("name a sender domain, or say --machine")
    snapshot = load(state)
    place = domain_name(zone) if zone else ""
    one = _Domain(snapshot, name, place, _mailbox(report_to)) if name else _Machine(snapshot, place)
    if wait:
        _wait(one, timeout_s)
        _tell(state, one)
        return
    if diff:
        lines = asyncio.run(_asked(snapshot, one))
        _print_lines(lines, as_json=as_json or form == "json")
        click.get_current_context().exit(1 if any(line.counts for line in lines) else 0)
    for entry in one.sheet.entries:
        if entry.record.name.endswith("."):
            output.note(f"{entry.record.full_name} is not in the zone {one.sheet.zone}: publish it where it is")
    if as_json or form == "json":
        output.print_json(one.json())
    elif form == "terraform" and provider == "cloudflare":
        click.echo(terraform_cloudflare(one.sheet), nl=False)
    elif form in TEXT_FORMS:
        click.echo(TEXT_FORMS[form](one.sheet), nl=False)
    else:
        one.table()


class _Domain:
    """The records of a sender domain."""

    def __init__(self, snapshot: Snapshot, name: str, zone: str, report_to: str) -> None:
        self.snapshot = snapshot
        self.owner, self.domain = domain_in(snapshot, name)
        _check_zone(self.domain.name, zone)
        self.records = records_of(snapshot, self.domain, zone=zone)
        self.sheet = sheet_of(self.records, report_to)

    async def lines(self, resolver: Resolver) -> list[Line]:
        verdicts, found = await asyncio.gather(inspect(resolver, self.records), _found(resolver, self.sheet))
        return zonediff.of_domain(self.sheet, self.records, verdicts, found)

    def json(self) -> dict[str, Any]:
        dmarc = self.sheet.entries[-1].record
        shown = {"type": dmarc.type, "name": dmarc.name, "fullName": dmarc.full_name, "value": dmarc.value}
        return {**render_json(self.records), "dmarc": {**shown, "optional": True}}

    def table(self) -> None:
        print_records(self.records)
        dmarc = self.sheet.entries[-1]
        output.note(f'recommended: {dmarc.record.full_name} TXT "{dmarc.record.value}"')
        output.note(
            "a record per provider, ready to paste: arkrelay domain guide PROVIDER " + output.clean(self.domain.name)
        )


class _Machine:
    """The records of the relay's own names."""

    def __init__(self, snapshot: Snapshot, zone: str) -> None:
        settings = snapshot.settings
        self.snapshot = snapshot
        _check_zone(settings.hostname, zone)
        self.addresses = [(one.ehlo, one.address) for one in addresses_here(snapshot)]
        self.sheet = sheet_of_machine(
            zone or zone_of(settings.hostname),
            settings.hostname,
            settings.spf_host,
            settings.return_path_host,
            settings.track_host,
            self.addresses,
        )

    async def lines(self, resolver: Resolver) -> list[Line]:
        return zonediff.of_machine(self.sheet, await _found(resolver, self.sheet))

    def json(self) -> dict[str, Any]:
        records = [
            {
                "type": entry.record.type,
                "name": entry.record.name,
                "fullName": entry.record.full_name,
                "value": entry.record.value,
                "optional": entry.optional,
            }
            for entry in self.sheet.entries
        ]
        return {"zone": self.sheet.zone, "records": records}

    def table(self) -> None:
        rows = [(entry.record.type, entry.record.full_name, entry.record.value) for entry in self.sheet.entries]
        output.print_table(COLUMNS, rows)
        for name, address in self.addresses:
            output.note(f"and where you rent {address}: its PTR record (reverse DNS) is {name}")
        if not self.addresses:
            hostname = self.snapshot.settings.hostname
            output.note(f"no public address is known: name it as [[source]], or publish {hostname}. A first")


def _check_zone(name: str, zone: str) -> None:
    if zone and name != zone and not name.endswith(f".{zone}"):
        raise Failed(f"{name} is not in the zone {zone}")


def _mailbox(text: str | None) -> str:
    if not text:
        return ""
    try:
        return str(parse_mailbox(text))
    except AddressError as error:
        raise Failed(f"--report-to: {error}") from None


async def _found(resolver: Resolver, sheet: Sheet) -> dict[tuple[str, str], zonediff.Answer]:
    names = list(dict.fromkeys((entry.record.full_name, entry.record.type) for entry in sheet.entries))
    answers = await asyncio.gather(*(resolver.records(name, kind, fresh=True) for name, kind in names))
    return dict(zip(names, answers, strict=True))


async def _asked(snapshot: Snapshot, one: _Domain | _Machine) -> list[Line]:
    resolver = resolver_of(snapshot)
    try:
        return await one.lines(resolver)
    finally:
        await resolver.close()


def _print_lines(lines: Sequence[Line], *, as_json: bool) -> None:
    if as_json:
        output.print_json(
            {
                "ready": not any(line.counts for line in lines),
                "records": [
                    {
                        "type": line.record.type,
                        "fullName": line.record.full_name,
                        "value": line.record.value,
                        "optional": line.optional,
                        "status": line.status,
                        "found": list(line.found),
                        "advice": line.advice or None,
                    }
                    for line in lines
                ],
            }
        )
        return
    output.print_table(
        ("STATUS", *COLUMNS),
        [(line.status, line.record.type, line.record.full_name, line.record.value) for line in lines],
    )
    for line in lines:
        if line.status != "ok":
            found = "; ".join(line.found) or "nothing"
            output.say(f"{line.record.full_name}: found {output.clean(found)[:200]}")
            output.say(f"  {output.clean(line.advice)}" if line.advice else "  recommended")


def _wait(one: _Domain | _Machine, timeout_s: float) -> None:
    """Return when all records are there; raise Failed after ``timeout_s``. A line says how far it is."""
    began = time.monotonic()
    before = ""
    while True:
        lines = asyncio.run(_asked(one.snapshot, one))
        away = [line for line in lines if line.counts]
        ready = len(lines) - len(away)
        waits = f", waiting for {away[0].record.type} {away[0].record.full_name} ({away[0].status})" if away else ""
        said = f"{ready} of {len(lines)} records are there{waits}"
        if output.terminal():
            click.echo(f"\r\033[K{said}, {output.span(time.monotonic() - began)}", nl=not away)
        elif said != before:
            output.say(said)
        before = said
        if not away:
            return
        left_s = timeout_s - (time.monotonic() - began)
        if left_s <= 0:
            if output.terminal():
                click.echo()
            raise Failed(f"DNS does not have all records after {output.span(timeout_s)}", away[0].advice)
        time.sleep(min(POLL_S, left_s))


def _tell(state: State, one: _Domain | _Machine) -> None:
    """Let the daemon look at the domain now, since mail waits for that."""
    if isinstance(one, _Domain):
        path = f"/v1/tenants/{one.owner.id}/domains/{one.domain.name}/verify"
        try:
            shown = Daemon(state.config).data("POST", path)
        except (NotRunning, Denied):
            return
        output.say(f"{one.domain.name} is {'verified' if shown.get('verified') else 'not verified'}")
