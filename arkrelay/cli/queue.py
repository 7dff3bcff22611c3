"""What waits to be delivered: look at it, push it, stop it."""

from typing import Any

import click

from arkrelay.cli import output
from arkrelay.cli.client import Daemon
from arkrelay.cli.state import AnyFunction, State, config_option, json_option, pass_state, usage
from arkrelay.model.message import HoldReason, Status

DONE = {"retry": "queued again", "hold": "held", "release": "released", "delete": "deleted"}
STATUSES = [status.value for status in Status]
HOLDS = [reason.value for reason in HoldReason]


@click.group("queue")
@config_option
def queue_command() -> None:
    """What waits to be delivered."""


def _filters(command: AnyFunction) -> AnyFunction:
    for option in (
        click.option("--status", type=click.Choice(STATUSES), help="Recipients in this state."),
        click.option("--domain", metavar="NAME", help="Recipients at this domain."),
        click.option("-t", "--tenant", metavar="ID", help="Recipients of this tenant's mail."),
        click.option("--lane", metavar="NAME", help="Queued for this lane or site, as `arkrelay lanes` calls it."),
        click.option("--hold-reason", type=click.Choice(HOLDS), help="Held for this reason."),
    ):
        command = option(command)
    return command


@queue_command.command("list")
@config_option
@json_option
@_filters
@click.option("--page", type=click.IntRange(1), default=1, show_default=True)
@click.option("--per-page", type=click.IntRange(1, 100), default=100, show_default=True)
@pass_state
def list_queue(
    state: State,
    as_json: bool,
    tenant: str | None,
    domain: str | None,
    status: str | None,
    lane: str | None,
    hold_reason: str | None,
    page: int,
    per_page: int,
) -> None:
    """List recipients that wait or are held, the newest first."""
    filters = _given(tenant, domain, status, lane, hold_reason)
    answer = Daemon(state.config).body("GET", "/v1/queue", **filters, page=page, perPage=per_page)
    if as_json:
        output.print_json({name: answer.get(name) for name in ("data", "page", "perPage", "total", "totalPages")})
        return
    output.print_table(
        ("ID", "STATUS", "TRIES", "NEXT", "TENANT", "TO", "WHY"),
        [
            (
                row.get("id"),
                row.get("status"),
                row.get("attempts"),
                output.until(row.get("dueAt")),
                row.get("tenantId"),
                row.get("to"),
                row.get("reason") or "",
            )
            for row in answer.get("data", [])
        ],
        empty="nothing in the queue matches" if filters else "the queue is empty",
    )
    output.print_page(answer, "recipients")


@queue_command.command("show")
@config_option
@json_option
@click.argument("id_", metavar="ID")
@pass_state
def show_queue(state: State, as_json: bool, id_: str) -> None:
    """Show one recipient: its state, why, and every attempt."""
    from arkrelay.cli.message import email, print_attempts  # noqa: PLC0415 -- only this verb needs them

    daemon = Daemon(state.config)
    detail = email(daemon, id_, "deliveries")
    sentences = daemon.data("GET", "/v1/why", q=id_).get("sentences", [])
    if as_json:
        output.print_json({**detail, "why": sentences})
        return
    output.print_fields(
        [
            ("id", detail.get("id")),
            ("status", detail.get("status")),
            ("why", [one.get("sentence") for one in sentences]),
            ("from", detail.get("from")),
            ("to", detail.get("to")),
            ("subject", detail.get("subject")),
            ("accepted", output.when(detail.get("timestamp"))),
        ]
    )
    print_attempts(detail.get("deliveries") or [])


def _change(name: str, text: str) -> click.Command:
    """Return the verb ``name``: to the recipients of these ids, or to all that match the filters."""

    @click.command(name, help=text)
    @config_option
    @json_option
    @_filters
    @click.option("--all", "every", is_flag=True, help="Everything that waits, without a filter.")
    @click.option("-y", "--yes", is_flag=True, hidden=name != "delete", help="Do not ask.")
    @click.argument("ids", nargs=-1, metavar="[ID]...")
    @pass_state
    def verb(
        state: State,
        as_json: bool,
        tenant: str | None,
        domain: str | None,
        status: str | None,
        lane: str | None,
        hold_reason: str | None,
        every: bool,
        yes: bool,
        ids: tuple[str, ...],
    ) -> None:
        body = selection(ids, tenant, domain, status, lane, hold_reason, every=every)
        if name == "delete" and not yes:
            what = f"{len(ids)} recipients" if ids else "every recipient that matches"
            click.confirm(f"Delete {what} for good?", abort=True, err=True)
        _report(Daemon(state.config).data("POST", f"/v1/queue/{name}", body), DONE[name], as_json=as_json)

    return verb


for _name, _text in (
    ("retry", "Try again now, whatever they wait for; also what is held or has failed."),
    ("hold", "Keep them from being sent until they are released."),
    ("release", "Put held recipients back into the queue; by a filter, not those on the suppression list."),
    ("delete", "Give them up: they are not sent and nobody is told."),
):
    queue_command.add_command(_change(_name, _text))


@queue_command.command("flush")
@config_option
@json_option
@_filters
@pass_state
def flush_queue(
    state: State,
    as_json: bool,
    tenant: str | None,
    domain: str | None,
    status: str | None,
    lane: str | None,
    hold_reason: str | None,
) -> None:
    """Try everything that waits for a later time now."""
    given = {**_given(tenant, domain, status, lane, hold_reason), "all": True}
    _report(Daemon(state.config).data("POST", "/v1/queue/flush", given), "due now", as_json=as_json)


def selection(
    ids: tuple[str, ...],
    tenant: str | None,
    domain: str | None,
    status: str | None,
    lane: str | None = None,
    hold_reason: str | None = None,
    *,
    every: bool,
) -> dict[str, Any]:
    """Return the body that names these recipients; never all of them by a slip of the hand."""
    given = _given(tenant, domain, status, lane, hold_reason)
    if ids and (given or every):
        usage("Name ids, or use filters, not both.")
    if ids:
        return {"ids": list(ids)}
    if not given and not every:
        usage("Name the ids (see: arkrelay queue list), a filter such as --tenant or --hold-reason, or --all.")
    return {**given, "all": True}


def _given(
    tenant: str | None, domain: str | None, status: str | None, lane: str | None, hold_reason: str | None
) -> dict[str, Any]:
    """Return the filters that were given, as REST names them."""
    filters = {"tenantId": tenant, "domain": domain, "status": status, "lane": lane, "holdReason": hold_reason}
    return {name: value for name, value in filters.items() if value}


def _report(data: dict[str, Any], done: str, *, as_json: bool) -> None:
    count = int(data.get("count", 0))
    if as_json:
        output.print_json(data)
    else:
        output.say(f"{count} {'recipient' if count == 1 else 'recipients'} {done}")
        if left := data.get("left"):
            output.say(f"{left} {'stays as it is' if left == 1 else 'stay as they are'}:")
        for reason in data.get("reasons") or ():
            output.say(f"  {reason}")
