"""Tenants: who sends through this relay."""

from typing import Any

import click

from arkrelay.cli import output, shapes
from arkrelay.cli.files import load, source, tell_daemon, tenant_in
from arkrelay.cli.state import State, config_option, json_option, pass_state, usage
from arkrelay.config import tenants
from arkrelay.model.tenant import STATUSES, Tenant


@click.group("tenant")
@config_option
def tenant_command() -> None:
    """Tenants: who sends through this relay."""


@tenant_command.command("add")
@config_option
@json_option
@click.option("--name", help="Shown to people. Default: the id.")
@click.option("--hourly", type=click.IntRange(0), metavar="N", help="Recipients an hour before mail is held; 0 none.")
@click.option("--hard-cap", type=click.IntRange(0), metavar="N", help="Recipients a month before refusal; 0 none.")
@click.argument("tenant_id", metavar="ID")
@pass_state
def add_tenant(
    state: State, as_json: bool, name: str | None, hourly: int | None, hard_cap: int | None, tenant_id: str
) -> None:
    """Add a tenant. ID is the name of its file: small letters, digits, "-" and "_"."""
    limits = {key: value for key, value in (("hourly", hourly), ("hard_cap_monthly", hard_cap)) if value}
    made = tenants.create_tenant(source(state), name or tenant_id, tenant_id, limits=limits or None)
    tell_daemon(state)
    _show(made, as_json=as_json)
    if not as_json:
        output.note(f"next: arkrelay domain add --tenant {tenant_id} DOMAIN")


@tenant_command.command("list")
@config_option
@json_option
@click.option("--status", type=click.Choice(STATUSES), help="Only those.")
@pass_state
def list_tenants(state: State, as_json: bool, status: str | None) -> None:
    """List tenants."""
    known = [one for one in load(state).tenants.values() if status in {None, one.status}]
    if as_json:
        output.print_json({"data": [shapes.tenant(one) for one in known]})
        return
    output.print_table(
        ("ID", "NAME", "STATUS", "DOMAINS", "CREDENTIALS"),
        [
            (one.id, one.name, one.status, ", ".join(each.name for each in one.domains) or "-", len(one.credentials))
            for one in known
        ],
        empty="no tenants: arkrelay tenant add ID",
    )


@tenant_command.command("show")
@config_option
@json_option
@click.argument("tenant_id", metavar="ID")
@pass_state
def show_tenant(state: State, as_json: bool, tenant_id: str) -> None:
    """Show a tenant."""
    _show(tenant_in(load(state), tenant_id), as_json=as_json)


@tenant_command.command("set")
@config_option
@json_option
@click.option("--name", help="Shown to people.")
@click.option("--status", type=click.Choice(STATUSES), help="suspended and archived: it may not send.")
@click.option("--hourly", type=click.IntRange(0), metavar="N", help="Recipients an hour before mail is held; 0 none.")
@click.option("--hard-cap", type=click.IntRange(0), metavar="N", help="Recipients a month before refusal; 0 none.")
@click.option("--pool", metavar="NAME", help='Its mail leaves from the addresses of this pool; "" for none.')
@click.option(
    "--new-recipients", type=click.IntRange(0), metavar="N", help="First-time recipients a day before hold; 0 none."
)
@click.argument("tenant_id", metavar="ID")
@pass_state
def set_tenant(
    state: State,
    as_json: bool,
    name: str | None,
    status: str | None,
    hourly: int | None,
    hard_cap: int | None,
    new_recipients: int | None,
    pool: str | None,
    tenant_id: str,
) -> None:
    """Change a tenant."""
    given = (("hourly", hourly), ("hard_cap_monthly", hard_cap), ("new_recipients_daily", new_recipients))
    limits = {key: value for key, value in given if value is not None}
    changes = {key: value for key, value in (("name", name), ("status", status), ("pool", pool)) if value is not None}
    if not changes and not limits:
        usage("Nothing to change: give --name, --status, --hourly, --hard-cap, --new-recipients or --pool.")

    def change(table: dict[str, Any]) -> None:
        table.update(changes)
        if limits:
            table.setdefault("limits", {}).update(limits)

    made = tenants.edit_tenant(source(state), tenant_id, change)
    tell_daemon(state)
    _show(made, as_json=as_json)


@tenant_command.command("remove")
@config_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.argument("tenant_id", metavar="ID")
@pass_state
def remove_tenant(state: State, yes: bool, tenant_id: str) -> None:
    """Remove a tenant for good: its file, its DKIM keys. `set --status archived` keeps them."""
    if not yes:
        click.confirm(
            f"Remove tenant {output.clean(tenant_id)} with its domains, keys and passwords?", abort=True, err=True
        )
    tenants.delete_tenant(source(state), tenant_id)
    tell_daemon(state)
    output.say(f"tenant {tenant_id} is removed")


def _show(one: Tenant, *, as_json: bool) -> None:
    if as_json:
        output.print_json(shapes.tenant(one))
        return
    output.print_fields(
        [
            ("id", one.id),
            ("name", one.name),
            ("status", one.status),
            ("managed", one.managed),
            *([("pool", one.pool)] if one.pool else []),
            ("hourly limit", one.limits.hourly or "none"),
            ("monthly cap", one.limits.hard_cap_monthly or "none"),
            ("new recipients a day", one.limits.new_recipients_daily or "any"),
            ("domains", [domain.name for domain in one.domains]),
            ("credentials", [credential.name for credential in one.credentials]),
            ("created", one.created_at or None),
        ]
    )
