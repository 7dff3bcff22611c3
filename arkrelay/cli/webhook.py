"""Receivers of events, of one tenant or of the platform."""

import click

from arkrelay.cli import output, shapes
from arkrelay.cli.files import load, source, tell_daemon, tenant_id_in, tenant_in
from arkrelay.cli.state import State, config_option, json_option, pass_state, tenant_option, usage
from arkrelay.config import tenants
from arkrelay.model.tenant import WEBHOOK_EVENTS


@click.group("webhook")
@config_option
def webhook_command() -> None:
    """Receivers of events: of one tenant, or with --platform of all."""


platform_option = click.option("--platform", is_flag=True, help="The platform's: events of all tenants.")


def _owner(state: State, tenant: str | None, *, platform: bool) -> str | None:
    if platform and tenant:
        usage("Use --tenant or --platform, not both.")
    return None if platform else tenant_id_in(state, tenant)


@webhook_command.command("add")
@config_option
@json_option
@tenant_option
@platform_option
@click.option("--name", help="Default: the URL's host.")
@click.option("--event", "events", multiple=True, type=click.Choice(WEBHOOK_EVENTS), help="Only this; repeatable.")
@click.argument("url")
@pass_state
def add_webhook(
    state: State,
    as_json: bool,
    tenant: str | None,
    platform: bool,
    name: str | None,
    events: tuple[str, ...],
    url: str,
) -> None:
    """Add a receiver of events at URL."""
    owner = _owner(state, tenant, platform=platform)
    host = url.partition("://")[2].partition("/")[0].rpartition("@")[2] or url
    made = tenants.add_webhook(source(state), owner, name or host, url, events=events or None)
    tell_daemon(state)
    if as_json:
        output.print_json(shapes.webhook(owner, made))
    else:
        output.say(made.id)


@webhook_command.command("list")
@config_option
@json_option
@tenant_option
@platform_option
@pass_state
def list_webhooks(state: State, as_json: bool, tenant: str | None, platform: bool) -> None:
    """List receivers: of a tenant, of the platform, or all."""
    snapshot = load(state)
    known = []
    if platform or not tenant:
        known += [shapes.webhook(None, one) for one in snapshot.platform.webhooks]
    if not platform:
        chosen = [tenant_in(snapshot, tenant)] if tenant else list(snapshot.tenants.values())
        known += [shapes.webhook(owner.id, one) for owner in chosen for one in owner.webhooks]
    if as_json:
        output.print_json({"webhooks": known})
        return
    output.print_table(
        ("ID", "OF", "NAME", "URL", "EVENTS", "ENABLED"),
        [
            (
                one["id"],
                one["tenantId"] or "platform",
                one["name"],
                one["url"],
                "all" if one["allEvents"] else ", ".join(one["events"]) or "none",
                one["enabled"],
            )
            for one in known
        ],
        empty="no webhooks",
    )


@webhook_command.command("remove")
@config_option
@tenant_option
@platform_option
@click.argument("webhook_id", metavar="ID")
@pass_state
def remove_webhook(state: State, tenant: str | None, platform: bool, webhook_id: str) -> None:
    """Remove a receiver, by its id or uuid."""
    tenants.remove_webhook(source(state), _owner(state, tenant, platform=platform), webhook_id)
    tell_daemon(state)
    output.say(f"webhook {webhook_id} is removed")
