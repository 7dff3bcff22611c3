"""Sender domains: added with their keys, shown as DNS records, verified, rotated, removed."""

from typing import Any
from urllib.parse import quote

import click

from arkrelay.cli import output, shapes
from arkrelay.cli.client import Daemon, Denied, NotRunning
from arkrelay.cli.dns import dns_domain
from arkrelay.cli.files import domain_in, domain_name, load, source, tell_daemon, tenant_id_in
from arkrelay.cli.guide import guide_domain
from arkrelay.cli.records import look_up, print_records, records_of
from arkrelay.cli.rotate import key_fields, keys_of, next_words, rotate_domain
from arkrelay.cli.state import State, config_option, json_option, pass_state, tenant_option
from arkrelay.config import tenants
from arkrelay.model.tenant import Domain, Tenant
from arkrelay.policy.records import render_json
from arkrelay.relay.rotation import plan_of

ALGORITHMS = ("rsa-sha256", "ed25519-sha256")


@click.group("domain")
@config_option
def domain_command() -> None:
    """Sender domains: what a tenant may send from."""


@domain_command.command("add")
@config_option
@json_option
@tenant_option
@click.option(
    "--algorithm", "algorithms", multiple=True, type=click.Choice(ALGORITHMS), help="Repeatable. Default RSA."
)
@click.option("--trusted", is_flag=True, help="It may send before its DNS is verified.")
@click.argument("name")
@pass_state
def add_domain(
    state: State, as_json: bool, tenant: str | None, algorithms: tuple[str, ...], trusted: bool, name: str
) -> None:
    """Add a sender domain with new DKIM keys, and print the DNS records to publish."""
    owner = tenant_id_in(state, tenant)
    made = tenants.add_domain(
        source(state), owner, domain_name(name), trusted=trusted, algorithms=algorithms or ALGORITHMS[:1]
    )
    tell_daemon(state)
    records = records_of(load(state), made)
    if as_json:
        output.print_json(shapes.domain(owner, made, render_json(records)))
        return
    print_records(records)
    output.note(f"publish these, then: arkrelay domain verify {made.name}")


@domain_command.command("list")
@config_option
@json_option
@tenant_option
@pass_state
def list_domains(state: State, as_json: bool, tenant: str | None) -> None:
    """List sender domains."""
    known = [
        (owner, one) for owner in load(state).tenants.values() if tenant in {None, owner.id} for one in owner.domains
    ]
    if as_json:
        output.print_json({"domains": [shapes.domain(owner.id, one) for owner, one in known]})
        return
    output.print_table(
        ("NAME", "TENANT", "TRUSTED", "DKIM"),
        [(one.name, owner.id, one.trusted, keys_of(one) or "-") for owner, one in known],
        empty="no domains: arkrelay domain add NAME",
    )


@domain_command.command("show")
@config_option
@json_option
@click.argument("name")
@pass_state
def show_domain(state: State, as_json: bool, name: str) -> None:
    """Show a sender domain and its records."""
    snapshot = load(state)
    owner, one = domain_in(snapshot, name)
    shown = shapes.domain(owner.id, one, render_json(records_of(snapshot, one)))
    try:
        seen = Daemon(state.config).data("GET", _path(owner, one))
    except (NotRunning, Denied):
        seen = None  # what DNS has is not known here: the files say only what it should have
    if as_json:
        output.print_json({**shown, **(seen or {})})
        return
    output.print_fields(
        [
            ("name", one.name),
            ("tenant", owner.id),
            ("trusted", one.trusted),
            *key_fields(one),
            *([("rotation", next_words(one))] if plan_of(one).step != "publish" else []),
            ("created", one.created_at or None),
            *([("verified", seen.get("verified")), ("checked", seen.get("checkedAt"))] if seen else []),
        ]
    )
    output.say("")
    if seen:
        _print_found(seen)
    else:
        print_records(records_of(snapshot, one))


@domain_command.command("verify")
@config_option
@json_option
@click.argument("name")
@pass_state
def verify_domain(state: State, as_json: bool, name: str) -> None:
    """Look the records up in DNS now. Ends with 0 when SPF, DKIM and return path are right, else with 1.

    The daemon does it when it runs, and lets mail pass from then on; without it the answer is only printed.
    """
    snapshot = load(state)
    owner, one = domain_in(snapshot, name)
    try:
        shown = Daemon(state.config).data("POST", f"{_path(owner, one)}/verify")
    except NotRunning:
        records = records_of(snapshot, one, ("active", "published"))
        verdicts = look_up(snapshot, records)
        shown = {**shapes.domain(owner.id, one, render_json(records, verdicts)), "verified": verdicts.verified}
        if not as_json:
            print_records(records, verdicts)
            output.note("the daemon is not running: it looks again when it starts")
    else:
        if not as_json:
            _print_found(shown)
    if as_json:
        output.print_json(shown)
    else:
        output.say(f"{one.name} is {'verified' if shown.get('verified') else 'not verified'}")
    if not shown.get("verified"):
        click.get_current_context().exit(1)


def _path(owner: Tenant, one: Domain) -> str:
    return f"/v1/tenants/{quote(owner.id, safe='')}/domains/{quote(one.name, safe='')}"


def _print_found(shown: dict[str, Any]) -> None:
    """Print the daemon's Domain (Ark contract §8.7)."""
    found = shown.get("dnsRecords") or {}
    records = [found.get(part) for part in ("spf", "dkim", "returnPath")] + found.get("dkimKeys", [])[1:]
    rows = [one for one in records if isinstance(one, dict)]
    output.print_table(
        ("TYPE", "NAME", "VALUE", "STATUS"),
        [(one.get("type"), one.get("fullName"), one.get("value"), one.get("status") or "not known") for one in rows],
    )
    for error in (shown.get("errors") or {}).values():
        output.say(output.clean(error))


@domain_command.command("remove")
@config_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.argument("name")
@pass_state
def remove_domain(state: State, yes: bool, name: str) -> None:
    """Remove a sender domain and its keys: mail from it is refused at once."""
    owner, one = domain_in(load(state), name)
    if not yes:
        click.confirm(f"Remove {one.name} of tenant {owner.id} with its DKIM keys?", abort=True, err=True)
    tenants.remove_domain(source(state), owner.id, one.name)
    tell_daemon(state)
    output.say(f"domain {one.name} of tenant {owner.id} is removed")


domain_command.add_command(rotate_domain)
domain_command.add_command(dns_domain)
domain_command.add_command(guide_domain)
