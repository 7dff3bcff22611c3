"""What was posted to receivers of events: listed, posted again, and the key by which it is signed."""

import re
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import click

from arkrelay.cli import output
from arkrelay.cli.client import Daemon
from arkrelay.cli.files import load, tenant_id_in
from arkrelay.cli.state import Failed, State, config_option, json_option, pass_state, tenant_option, usage
from arkrelay.config.hookkeys import PUBLISHED_S, HookKeys
from arkrelay.model.tenant import WEBHOOK_EVENTS

COLUMNS = ("ID", "EVENT", "ATTEMPT", "STATUS", "WHEN", "TRIED AGAIN")
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
    found = Daemon(state.config).body("GET", path, **query)
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
            )
            for row in found["data"]
        ],
        empty="nothing was posted",
    )
    output.print_page(found, "attempts")


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
        if tenant is not None or (webhook_id is not None and not platform):
            body["tenantId"] = owner_of(state, tenant, platform=platform)
        answer = daemon.data("POST", "/v1/control/webhooks/replay", body)
        done = f"{answer['replayed']} events wait again"
    else:
        if webhook_id is None or delivery_id is None:
            usage("Give the receiver's ID and a DELIVERY of it, or --failed.")
        owner = owner_of(state, tenant, platform=platform)
        base = "/v1/platform/webhooks" if owner is None else path_of(owner, webhook_id)
        answer = daemon.data("POST", f"{base}/deliveries/{quote(delivery_id, safe='')}/replay")
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
