"""What was posted to receivers of events: listed, shown, posted again, and the key by which it is signed."""

import contextlib
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import click

from arkrelay.cli import output
from arkrelay.cli.client import Daemon, Denied
from arkrelay.cli.files import load, tenant_id_in, tenant_in
from arkrelay.cli.state import Failed, State, config_option, json_option, pass_state, tenant_option, usage
from arkrelay.config.hookkeys import PUBLISHED_S, HookKeys
from arkrelay.model.tenant import WEBHOOK_EVENTS, Webhook

COLUMNS = ("ID", "EVENT", "ATTEMPT", "STATUS", "WHEN", "TRIED AGAIN", "ERROR")
SECONDS = {"m": 60, "h": 3600, "d": 86400}
Row = dict[str, Any]

platform_option = click.option("--platform", is_flag=True, help="The platform's: events of all tenants.")


@click.command("deliveries")
@config_option
@json_option
@tenant_option
@platform_option
@click.option("--failed", is_flag=True, help="Only those that were not taken.")
@click.option("--event", help="Only of this event.")
@click.option("--page", type=click.IntRange(1), default=1)
@click.argument("webhook_id", metavar="ID")
@pass_state
def list_deliveries(
    state: State,
    as_json: bool,
    tenant: str | None,
    platform: bool,
    failed: bool,
    event: str | None,
    page: int,
    webhook_id: str,
) -> None:
    """List what was posted to a receiver, the newest first."""
    owner = owner_of(state, tenant, platform=platform)
    path = "/v1/platform/webhooks/deliveries" if owner is None else f"{path_of(owner, webhook_id)}/deliveries"
    query: Row = {"page": page, "event": event, "success": False if failed else None}
    if owner is None:
        query["webhookId"] = webhook_id
    with naming(state, owner, webhook_id):
        found = Daemon(state.config).body("GET", path, **query)
    if owner is None and not found["total"]:
        configured(state, owner, webhook_id)  # the list of the platform is filtered, and knows no wrong name
    if as_json:
        output.print_json(found)
        return
    output.print_table(
        COLUMNS,
        [
            (
                row["id"],
                row["event"],
                row["attempt"],
                row["statusCode"] or "no answer",
                row["timestamp"],
                row["willRetry"],
                row["error"],
            )
            for row in found["data"]
        ],
        empty="nothing was posted",
    )
    output.print_page(found, "attempts")


@click.command("delivery")
@config_option
@json_option
@tenant_option
@platform_option
@click.argument("webhook_id", metavar="ID")
@click.argument("delivery_id", metavar="DELIVERY")
@pass_state
def show_delivery(
    state: State, as_json: bool, tenant: str | None, platform: bool, webhook_id: str, delivery_id: str
) -> None:
    """Show one thing that was posted to a receiver: what was sent, and what came back."""
    owner = owner_of(state, tenant, platform=platform)
    with naming(state, owner, webhook_id):
        one = Daemon(state.config).data("GET", _delivery_path(owner, webhook_id, delivery_id))
    if as_json:
        output.print_json(one)
        return
    response = one["response"]
    output.print_fields(
        [
            ("id", one["id"]),
            ("of", owner or "platform"),
            ("webhook", f"{one['webhookId']} ({one['webhookName']})"),
            ("event", one["event"]),
            *([("tenant", one["tenantId"])] if owner is None else []),
            ("url", one["url"]),
            ("when", one["timestamp"]),
            ("attempt", one["attempt"]),
            ("status", one["statusCode"] or "no answer"),
            ("error", one["error"]),
            ("tried again", one["willRetry"]),
            ("sent", [f"{name}: {value}" for name, value in one["request"]["headers"].items()]),
        ]
    )
    _print_text("body", json.dumps(one["request"]["payload"], indent=2, ensure_ascii=False))
    _print_text("answer", response["body"] or "")


@click.command("test")
@config_option
@json_option
@tenant_option
@platform_option
@click.option("--event", type=click.Choice(WEBHOOK_EVENTS), default="MessageSent", show_default=True)
@click.argument("webhook_id", metavar="ID")
@pass_state
def test_webhook(
    state: State, as_json: bool, tenant: str | None, platform: bool, event: str, webhook_id: str
) -> None:
    """Post an example of an event, signed like the real ones, and say what came back."""
    owner = owner_of(state, tenant, platform=platform)
    with naming(state, owner, webhook_id):
        answer = Daemon(state.config).data("POST", f"{path_of(owner, webhook_id)}/test", {"event": event})
    if as_json:
        output.print_json(answer)
    elif answer["success"]:
        output.say(f"taken: {answer['statusCode']}")
    if not answer["success"]:
        raise Failed(answer["error"] or f"it answered {answer['statusCode']}")


@click.command("replay")
@config_option
@json_option
@tenant_option
@platform_option
@click.option("--failed", is_flag=True, help="All events whose schedule is over, of ID or of all receivers.")
@click.option("--since", metavar="WHEN", help="With --failed: from then on; 2h, 3d, or a time in ISO 8601.")
@click.argument("webhook_id", metavar="[ID]", required=False)
@click.argument("delivery_id", metavar="[DELIVERY]", required=False)
@pass_state
def replay_deliveries(
    state: State,
    as_json: bool,
    tenant: str | None,
    platform: bool,
    failed: bool,
    since: str | None,
    webhook_id: str | None,
    delivery_id: str | None,
) -> None:
    """Post again: one delivery, now and with a new id; or with --failed what was given up, in its turn."""
    daemon = Daemon(state.config)
    if failed:
        if delivery_id is not None:
            usage("Give --failed or a DELIVERY, not both.")
        body: Row = {"since": _since(since), "webhookId": webhook_id, "platform": platform}
        owner = None
        if tenant is not None or (webhook_id is not None and not platform):
            owner = body["tenantId"] = owner_of(state, tenant, platform=platform)
        with naming(state, owner, webhook_id):
            answer = daemon.data("POST", "/v1/control/webhooks/replay", body)
        done = f"{answer['replayed']} events wait again"
    else:
        if webhook_id is None or delivery_id is None:
            usage("Give the receiver's ID and a DELIVERY of it, or --failed.")
        owner = owner_of(state, tenant, platform=platform)
        with naming(state, owner, webhook_id):
            answer = daemon.data("POST", f"{_delivery_path(owner, webhook_id, delivery_id)}/replay")
        done = f"{answer['newDeliveryId']}: {answer['statusCode'] or 'no answer'}"
    if as_json:
        output.print_json(answer)
    else:
        output.say(done)
    if not answer.get("success", True):
        raise Failed("it was not taken", f"arkrelay webhook deliveries --failed {webhook_id}")


@click.command("rotate-key")
@config_option
@click.option("--revoke", is_flag=True, help="Remove the old keys at once: one has leaked.")
@pass_state
def rotate_key(state: State, revoke: bool) -> None:
    """Sign with a new key from now on; the old one is published for a week more."""
    try:
        made = HookKeys(load(state).settings.state_dir).rotate(revoke=revoke)
    except OSError as error:
        raise Failed(f"{error.filename}: {error.strerror}", "run this as root or as the service's user") from None
    days = PUBLISHED_S / 86400
    kept = "the old ones are gone" if revoke else f"the old one stays published for {days:g} days"
    output.say(f"{made.kid} signs from now on; {kept}")


def owner_of(state: State, tenant: str | None, *, platform: bool) -> str | None:
    """Return the tenant whose webhooks are meant, or None for the platform's."""
    if platform and tenant:
        usage("Use --tenant or --platform, not both.")
    return None if platform else tenant_id_in(state, tenant)


def path_of(owner: str | None, webhook_id: str) -> str:
    """Return the path of a webhook in the API."""
    name = quote(webhook_id, safe="")
    return f"/v1/platform/webhooks/{name}" if owner is None else f"/v1/tenants/{quote(owner)}/webhooks/{name}"


def configured(state: State, owner: str | None, webhook_id: str) -> Webhook:
    """Return the webhook with this id or uuid as its file has it; Failed names those that there are."""
    snapshot = load(state)
    known = snapshot.platform.webhooks if owner is None else tenant_in(snapshot, owner).webhooks
    found = next((one for one in known if webhook_id in {one.id, one.uuid}), None)
    if found is None:
        listed = ", ".join(one.id for one in known) or "none"
        raise Failed(f"there is no webhook {output.clean(webhook_id)}", f"there are: {listed}")
    return found


@contextlib.contextmanager
def naming(state: State, owner: str | None, webhook_id: str | None) -> Iterator[None]:
    """Where the daemon knows no such tenant or webhook, and the files do not either: name those that there are."""
    try:
        yield
    except Denied as error:
        if error.status == 404 and webhook_id is not None:
            configured(state, owner, webhook_id)
        elif error.status == 404:
            tenant_in(load(state), owner)
        raise


def _delivery_path(owner: str | None, webhook_id: str, delivery_id: str) -> str:
    base = "/v1/platform/webhooks" if owner is None else path_of(owner, webhook_id)
    return f"{base}/deliveries/{quote(delivery_id, safe='')}"


def _print_text(title: str, text: str) -> None:
    """Print a text below its title, its lines as they are."""
    if text:
        output.say("\n" + click.style(title, bold=True))
    for line in text.splitlines():
        output.say(output.clean_line(line))


def _since(text: str | None) -> float:
    """Return the moment that is meant, or raise a usage error."""
    if text is None:
        return 0.0
    if found := re.fullmatch(r"(\d{1,6})([mhd])", text):
        return time.time() - int(found[1]) * SECONDS[found[2]]
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        usage(f"--since: {output.clean(text)} is neither like 2h or 3d, nor a time in ISO 8601.")
    return at.replace(tzinfo=at.tzinfo or UTC).timestamp()
