"""SMTP passwords and API keys of tenants."""

from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote

import click

from arkrelay.cli import output, shapes
from arkrelay.cli.client import Daemon, Denied, NotRunning
from arkrelay.cli.files import domain_name, load, source, tell_daemon, tenant_id_in, tenant_in
from arkrelay.cli.state import Failed, State, config_option, json_option, pass_state, tenant_option, usage
from arkrelay.config import tenants
from arkrelay.config.snapshot import Snapshot
from arkrelay.model.tenant import Credential, Tenant

Held = Mapping[tuple[str, int], str]  # why the relay put a credential on hold, by tenant and number
NOTHING: Final[Held] = {}


@click.group("credential")
@config_option
def credential_command() -> None:
    """SMTP passwords and API keys of a tenant."""


@credential_command.command("add")
@config_option
@json_option
@tenant_option
@click.option("--type", "kind", type=click.Choice(["smtp", "api"]), default="smtp", show_default=True)
@click.option("--username", help="An SMTP name of its own, beside TENANT/NAME.")
@click.option("--domain", "domains", multiple=True, metavar="NAME", help="May send from this one only; repeatable.")
@click.argument("name")
@pass_state
def add_credential(
    state: State,
    as_json: bool,
    tenant: str | None,
    kind: str,
    username: str | None,
    domains: tuple[str, ...],
    name: str,
) -> None:
    """Add a credential and show its key: a new random one, kept encrypted."""
    owner = tenant_id_in(state, tenant)
    only = tuple(domain_name(one) for one in domains) or None
    made, key = tenants.add_credential(source(state), owner, name, kind=kind, username=username, domains=only)
    tell_daemon(state)
    _show(owner, made, key, as_json=as_json)


@credential_command.command("list")
@config_option
@json_option
@tenant_option
@pass_state
def list_credentials(state: State, as_json: bool, tenant: str | None) -> None:
    """List credentials, of all tenants unless one is named."""
    snapshot = load(state)
    chosen = [tenant_in(snapshot, tenant)] if tenant else list(snapshot.tenants.values())
    known = [(owner.id, one) for owner in chosen for one in owner.credentials]
    held = _suspicions(state, [owner.id for owner in chosen if owner.credentials])
    if as_json:
        output.print_json({"data": [_shape(*pair, held) for pair in known]})
        return
    output.print_table(
        ("TENANT", "NAME", "TYPE", "SMTP NAME", "HOLD", "DOMAINS"),
        [
            (
                owner,
                one.name,
                one.type,
                shapes.smtp_username(owner, one) if one.type == "smtp" else "-",
                one.hold or held.get((owner, one.id), False),
                ", ".join(one.domains) or "all",
            )
            for owner, one in known
        ],
        empty="no credentials: arkrelay credential add NAME",
    )


@credential_command.command("show")
@config_option
@json_option
@tenant_option
@click.option("--reveal", is_flag=True, help="Show the key.")
@click.argument("name")
@pass_state
def show_credential(state: State, as_json: bool, tenant: str | None, reveal: bool, name: str) -> None:
    """Show a credential; with --reveal its key too."""
    snapshot = load(state)
    owner = tenant_in(snapshot, tenant)
    one = _credential(owner, name)
    held = _suspicions(state, [owner.id])
    _show(owner.id, one, _revealed(snapshot, one) if reveal else None, held, as_json=as_json)


@credential_command.command("set")
@config_option
@json_option
@tenant_option
@click.option("--hold/--no-hold", default=None, help="On hold it may not send.")
@click.option("--rename", metavar="NAME", help="Its new name.")
@click.option("--username", help='An SMTP name of its own; "" takes it away.')
@click.option("--domain", "domains", multiple=True, metavar="NAME", help='Only from these; "" allows all.')
@click.option("--renew", is_flag=True, help="A new key; the old one is refused at once, and a hold stays.")
@click.argument("name")
@pass_state
def set_credential(
    state: State,
    as_json: bool,
    tenant: str | None,
    hold: bool | None,
    rename: str | None,
    username: str | None,
    domains: tuple[str, ...],
    renew: bool,
    name: str,
) -> None:
    """Change a credential."""
    changes: dict[str, Any] = {}
    if hold is not None:
        changes["hold"] = hold
    if rename is not None:
        changes["name"] = rename
    if username is not None:
        changes["username"] = username or None
    if domains:
        changes["domains"] = [domain_name(one) for one in domains if one] or None
    if not changes and not renew:
        usage("Nothing to change: give --hold, --no-hold, --rename, --username, --domain or --renew.")
    owner = tenant_id_in(state, tenant)
    key = None
    if changes:
        made = tenants.change_credential(source(state), owner, name, changes)
    if renew:
        made, key = tenants.renew_credential(source(state), owner, rename or name)
    tell_daemon(state)
    held = _suspicions(state, [owner]) if renew else NOTHING
    _show(owner, made, key, held, as_json=as_json)
    if (owner, made.id) in held:  # the old key's mail that waits would go at once
        output.note(f"still on hold: look at what it sent, then arkrelay credential release {made.name}")


@credential_command.command("release")
@config_option
@json_option
@tenant_option
@click.argument("name")
@pass_state
def release_credential(state: State, as_json: bool, tenant: str | None, name: str) -> None:
    """Take a credential off hold, whoever put it there; what was held waits for `arkrelay queue release`."""
    owner = tenant_in(load(state), tenant)
    one = _credential(owner, name)
    answer = Daemon(state.config).data("PATCH", f"{_path(owner.id)}/{one.id}", {"hold": False})
    if as_json:
        output.print_json(answer)
    else:
        output.say(f"credential {name} of tenant {owner.id} is off hold")


@credential_command.command("remove")
@config_option
@tenant_option
@click.argument("name")
@pass_state
def remove_credential(state: State, tenant: str | None, name: str) -> None:
    """Remove a credential: its key is refused at once."""
    owner = tenant_id_in(state, tenant)
    tenants.remove_credential(source(state), owner, name)
    tell_daemon(state)
    output.say(f"credential {name} of tenant {owner} is removed")


def _credential(owner: Tenant, name: str) -> Credential:
    one = owner.credential(name)
    if one is None:
        known = ", ".join(each.name for each in owner.credentials) or "none"
        raise Failed(f"tenant {owner.id} has no credential {output.clean(name)}", f"it has: {known}")
    return one


def _revealed(snapshot: Snapshot, one: Credential) -> str:
    key = snapshot.reveal(one.secret)
    if key is None:
        raise Failed(
            f"the key of {one.name} cannot be shown: only its digest is kept, or its file cannot be read",
            f"a new one: arkrelay credential set --renew {one.name}",
        )
    return key


def _path(owner: str) -> str:
    return f"/v1/tenants/{quote(owner)}/credentials"


def _suspicions(state: State, owners: Iterable[str]) -> Held:
    """Return why the relay itself put credentials on hold; nothing while the daemon does not run or takes no key."""
    daemon, found = Daemon(state.config), {}
    try:
        for owner in owners:
            for row in daemon.body("GET", _path(owner), perPage=100)["data"]:
                if row["holdReason"]:
                    found[owner, row["id"]] = row["holdReason"]
    except (NotRunning, Denied):
        return {}
    return found


def _shape(owner: str, one: Credential, held: Held, key: str | None = None) -> dict[str, Any]:
    reason = held.get((owner, one.id))
    shape = shapes.credential(owner, one, key)
    return shape if reason is None else {**shape, "hold": True, "holdReason": reason}


def _show(owner: str, one: Credential, key: str | None, held: Held = NOTHING, *, as_json: bool) -> None:
    if as_json:
        output.print_json(_shape(owner, one, held, key))
        return
    output.print_fields(
        [
            ("tenant", owner),
            ("name", one.name),
            ("type", one.type),
            *([("smtp name", shapes.smtp_username(owner, one))] if one.type == "smtp" else []),
            *([("key", key)] if key is not None else []),
            ("on hold", held.get((owner, one.id)) or one.hold),
            ("domains", list(one.domains) or ["all of the tenant's"]),
            ("created", one.created_at or None),
        ]
    )
