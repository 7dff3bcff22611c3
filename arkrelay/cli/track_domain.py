"""Names under a sender domain, through which opens and clicks are seen."""

from urllib.parse import quote

import click

from arkrelay.cli import output, shapes
from arkrelay.cli.client import Daemon, NotRunning
from arkrelay.cli.files import domain_in, load, source, tell_daemon
from arkrelay.cli.records import look_up_alias
from arkrelay.cli.state import Failed, State, config_option, json_option, pass_state, tenant_option
from arkrelay.config import tenants
from arkrelay.config.snapshot import Snapshot
from arkrelay.model.tenant import Tenant, TrackDomain
from arkrelay.relay.track_domains import alias_of


@click.group("track-domain")
@config_option
def track_domain_command() -> None:
    """Names for open and click tracking."""


@track_domain_command.command("add")
@config_option
@json_option
@click.option("--name", default="track", show_default=True, help="Label under the domain.")
@click.option("--ssl/--no-ssl", default=None, help="Links are https. Default: they are.")
@click.option("--clicks/--no-clicks", default=None, help="Rewrite links. Default: yes.")
@click.option("--opens/--no-opens", default=None, help="Add the pixel. Default: yes.")
@click.option("--exclude", multiple=True, metavar="HOST", help="Links to it stay as they are; repeatable.")
@click.argument("domain")
@pass_state
def add_track_domain(
    state: State,
    as_json: bool,
    name: str,
    ssl: bool | None,
    clicks: bool | None,
    opens: bool | None,
    exclude: tuple[str, ...],
    domain: str,
) -> None:
    """Add a name under the sender domain DOMAIN."""
    snapshot = load(state)
    owner, sender = domain_in(snapshot, domain)
    made = tenants.add_track_domain(
        source(state), owner.id, name, sender.name, ssl=ssl, clicks=clicks, opens=opens, excluded=exclude or None
    )
    tell_daemon(state)
    if as_json:
        output.print_json(shapes.track_domain(owner.id, made))
    else:
        output.say(f"{made.id}: publish {made.full_name}. CNAME {snapshot.settings.track_host}.")


@track_domain_command.command("list")
@config_option
@json_option
@tenant_option
@pass_state
def list_track_domains(state: State, as_json: bool, tenant: str | None) -> None:
    """List them."""
    known = [
        shapes.track_domain(owner.id, one)
        for owner in load(state).tenants.values()
        if tenant in {None, owner.id}
        for one in owner.track_domains
    ]
    if as_json:
        output.print_json({"trackDomains": known})
        return
    output.print_table(
        ("ID", "TENANT", "NAME", "HTTPS", "CLICKS", "OPENS"),
        [
            (one["id"], one["tenantId"], one["fullName"], one["sslEnabled"], one["trackClicks"], one["trackOpens"])
            for one in known
        ],
        empty="no track domains",
    )


@track_domain_command.command("verify")
@config_option
@json_option
@click.argument("track_id", metavar="ID|NAME")
@pass_state
def verify_track_domain(state: State, as_json: bool, track_id: str) -> None:
    """Look the CNAME of one up in DNS now. Ends with 0 when it is right, else with 1.

    The daemon does it when it runs, and uses the name from then on; without it the answer is only printed.
    """
    snapshot = load(state)
    owner, one = _find(snapshot, track_id)
    record = alias_of(snapshot, one)
    try:
        shown = Daemon(state.config).data(
            "POST", f"/v1/tenants/{quote(owner.id, safe='')}/tracking/{quote(one.id, safe='')}/verify"
        )
    except NotRunning:
        verdict = look_up_alias(snapshot, record)
        status = verdict.status.lower() if verdict.status else None
        shown = {"id": one.id, "fullName": one.full_name, "dnsOk": status == "ok", "dnsStatus": status}
        shown["dnsError"] = verdict.error
    if as_json:
        output.print_json(shown)
    else:
        output.say(f"{one.full_name}: {shown.get('dnsStatus') or 'not known'}")
        if error := shown.get("dnsError"):
            output.say(output.clean(error))
    if not shown.get("dnsOk"):
        click.get_current_context().exit(1)


@track_domain_command.command("remove")
@config_option
@click.argument("track_id", metavar="ID|NAME")
@pass_state
def remove_track_domain(state: State, track_id: str) -> None:
    """Remove one, by its id or full name: its links no longer work."""
    owner, one = _find(load(state), track_id)
    tenants.remove_track_domain(source(state), owner.id, one.id)
    tell_daemon(state)
    output.say(f"track domain {one.full_name} is removed")


def _find(snapshot: Snapshot, wanted: str) -> tuple[Tenant, TrackDomain]:
    name = wanted.lower().removesuffix(".")
    for owner in snapshot.tenants.values():
        for one in owner.track_domains:
            if name in {one.id, one.full_name}:
                return owner, one
    raise Failed(f"no track domain {output.clean(wanted)}", "see: arkrelay track-domain list")
