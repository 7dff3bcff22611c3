"""Names under a sender domain, through which opens and clicks are seen."""

import click

from arkrelay.cli import output, shapes
from arkrelay.cli.files import domain_in, load, source, tell_daemon
from arkrelay.cli.state import Failed, State, config_option, json_option, pass_state, tenant_option
from arkrelay.config import tenants


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
        output.say(f"{made.id}: publish {made.name}.{made.domain}. CNAME {snapshot.settings.track_host}.")


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


@track_domain_command.command("remove")
@config_option
@click.argument("track_id", metavar="ID|NAME")
@pass_state
def remove_track_domain(state: State, track_id: str) -> None:
    """Remove one, by its id or full name: its links no longer work."""
    wanted = track_id.lower().removesuffix(".")
    for owner in load(state).tenants.values():
        for one in owner.track_domains:
            if wanted in {one.id, f"{one.name}.{one.domain}"}:
                tenants.remove_track_domain(source(state), owner.id, one.id)
                tell_daemon(state)
                output.say(f"track domain {one.name}.{one.domain} is removed")
                return
    raise Failed(f"no track domain {output.clean(track_id)}", "see: arkrelay track-domain list")
