"""Receivers of events, of one tenant or of the platform: their settings, and how they fare."""

import contextlib
from dataclasses import replace
from datetime import datetime
from typing import Any

import click

from arkrelay.cli import output, shapes
from arkrelay.cli.client import Daemon, NotRunning
from arkrelay.cli.files import load, source, tell_daemon, tenant_in
from arkrelay.cli.state import Failed, State, config_option, json_option, pass_state, tenant_option, usage
from arkrelay.cli.webhook_posts import (
    configured,
    list_deliveries,
    owner_of,
    path_of,
    platform_option,
    replay_deliveries,
    rotate_key,
    show_delivery,
    test_webhook,
)
from arkrelay.config import tenants
from arkrelay.config.load import load_settings
from arkrelay.model.tenant import WEBHOOK_EVENTS
from arkrelay.policy.targets import settled_refusal

EVERYWHERE = ("0.0.0.0/0", "::/0")
Row = dict[str, Any]


@click.group("webhook")
@config_option
def webhook_command() -> None:
    """Receivers of events: of one tenant, or with --platform of all."""


for _command in (test_webhook, list_deliveries, show_delivery, replay_deliveries, rotate_key):
    webhook_command.add_command(_command)

event_option = click.option(
    "--event", "events", multiple=True, type=click.Choice(WEBHOOK_EVENTS), help="Only this; repeatable."
)


@webhook_command.command("add")
@config_option
@json_option
@tenant_option
@platform_option
@click.option("--name", help="Default: the URL's host.")
@event_option
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
    _check_url(state, url)
    owner = owner_of(state, tenant, platform=platform)
    host = url.partition("://")[2].partition("/")[0].rpartition("@")[2] or url
    made = tenants.add_webhook(source(state), owner, name or host, url, events=events or None)
    tell_daemon(state)
    if as_json:
        output.print_json(shapes.webhook(owner, made))
    else:
        output.say(made.id)


@webhook_command.command("set")
@config_option
@json_option
@tenant_option
@platform_option
@click.option("--name", help="Its name.")
@click.option("--url", help="Where events go; what waits goes there too.")
@event_option
@click.option("--all-events", is_flag=True, help="All of them.")
@click.option("--enable/--disable", "enabled", default=None, help="Disabled it gets nothing that happens meanwhile.")
@click.argument("webhook_id", metavar="ID")
@pass_state
def set_webhook(
    state: State,
    as_json: bool,
    tenant: str | None,
    platform: bool,
    name: str | None,
    url: str | None,
    events: tuple[str, ...],
    all_events: bool,
    enabled: bool | None,
    webhook_id: str,
) -> None:
    """Change a receiver; --enable also takes back one whose endpoint said that it is gone."""
    if events and all_events:
        usage("Use --event or --all-events, not both.")
    changes: Row = {key: value for key, value in (("name", name), ("url", url)) if value is not None}
    if url is not None:
        _check_url(state, url)
    if events or all_events:
        changes |= {"events": list(events) or None, "all_events": None}
    owner = owner_of(state, tenant, platform=platform)
    one = configured(state, owner, webhook_id)
    if enabled is not None and enabled != one.enabled:
        changes["enabled"] = enabled
    if not changes and enabled is None:
        usage("Nothing to change: give --name, --url, --event, --all-events, --enable or --disable.")
    if changes:
        one = tenants.change_webhook(source(state), owner, webhook_id, changes)
        tell_daemon(state)
    if enabled:
        with contextlib.suppress(NotRunning):
            Daemon(state.config).data("PATCH", path_of(owner, one.id), {"enabled": True})
    if as_json:
        output.print_json(shapes.webhook(owner, one))
    else:
        output.say(f"webhook {one.id} is changed")


@webhook_command.command("list")
@config_option
@json_option
@tenant_option
@platform_option
@pass_state
def list_webhooks(state: State, as_json: bool, tenant: str | None, platform: bool) -> None:
    """List receivers: of a tenant, of the platform, or all; and how they fare, while the daemon runs."""
    snapshot = load(state)
    known = []
    if platform or not tenant:
        known += [shapes.webhook(None, one) for one in snapshot.platform.webhooks]
    if not platform:
        chosen = [tenant_in(snapshot, tenant)] if tenant else list(snapshot.tenants.values())
        known += [shapes.webhook(owner.id, one) for owner in chosen for one in owner.webhooks]
    states = _states(state) if known else {}
    known = [one | states.get((one["tenantId"], one["id"]), {}) for one in known]
    if as_json:
        output.print_json({"webhooks": known})
        return
    output.print_table(
        ("ID", "OF", "NAME", "URL", "EVENTS", "ENABLED", "WAIT", "PARKED", "LAST", "NEXT"),
        [
            (
                one["id"],
                one["tenantId"] or "platform",
                one["name"],
                one["url"],
                _events(one),
                "gone (410)" if one.get("goneAt") else one["enabled"],
                one.get("waiting", "-"),
                one.get("parked", "-"),
                _last(one),
                _next(one),
            )
            for one in known
        ],
        empty="no webhooks",
    )


@webhook_command.command("show")
@config_option
@json_option
@tenant_option
@platform_option
@click.argument("webhook_id", metavar="ID")
@pass_state
def show_webhook(state: State, as_json: bool, tenant: str | None, platform: bool, webhook_id: str) -> None:
    """Show a receiver, what waits for it, and what it answered last."""
    owner = owner_of(state, tenant, platform=platform)
    found = configured(state, owner, webhook_id)
    one = shapes.webhook(owner, found) | _states(state).get((owner, found.id), {})
    if as_json:
        output.print_json(one)
        return
    output.print_fields(
        [
            ("id", one["id"]),
            ("of", owner or "platform"),
            ("name", one["name"]),
            ("url", one["url"]),
            ("events", _events(one)),
            ("enabled", f"no: it answered 410 at {one['goneAt']}" if one.get("goneAt") else one["enabled"]),
            ("waiting", one.get("waiting")),
            ("parked", one.get("parked")),
            ("failures in a row", one.get("failures")),
            ("last answer", _last(one)),
            ("answered", one.get("answeredAt")),
            ("next", one.get("nextAt")),
            ("rests until", one.get("restUntil")),
        ]
    )


@webhook_command.command("remove")
@config_option
@tenant_option
@platform_option
@click.argument("webhook_id", metavar="ID")
@pass_state
def remove_webhook(state: State, tenant: str | None, platform: bool, webhook_id: str) -> None:
    """Remove a receiver, by its id or uuid; what waits for it is dropped."""
    tenants.remove_webhook(source(state), owner_of(state, tenant, platform=platform), webhook_id)
    tell_daemon(state)
    output.say(f"webhook {webhook_id} is removed")


def _check_url(state: State, url: str) -> None:
    """Raise Failed for a URL to which nothing would ever be posted, as REST refuses it."""
    settings = load_settings(source(state)).webhooks
    reason = settled_refusal(url, settings)
    if reason is not None:
        open_to_all = replace(settings, allow_destinations=EVERYWHERE, allow_http=True)
        allowable = settled_refusal(url, open_to_all) is None
        hint = "[webhooks] of arkrelay.toml could let it in: allow_http, allow_destinations" if allowable else ""
        raise Failed(f"nothing would ever be posted there: {reason}", hint)


def _states(state: State) -> dict[tuple[str | None, str], Row]:
    """Return how receivers fare, by tenant and id; nothing while the daemon does not run."""
    try:
        rows = Daemon(state.config).data("GET", "/v1/control/webhooks")["webhooks"]
    except NotRunning:
        return {}
    return {(row["tenantId"], row["id"]): row for row in rows}


def _events(one: Row) -> str:
    return "all" if one["allEvents"] else ", ".join(one["events"]) or "none"


def _last(one: Row) -> object:
    return one.get("statusCode") or one.get("error") or "-"


def _next(one: Row) -> str:
    at = one.get("nextAt")
    return "-" if at is None else output.until(datetime.fromisoformat(at).timestamp())
