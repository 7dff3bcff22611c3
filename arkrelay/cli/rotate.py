"""From one DKIM key to the next, without a message whose signature does not verify: a plan, and its steps."""

import time

import click

from arkrelay.cli import output, shapes
from arkrelay.cli.files import domain_in, load, source, tell_daemon
from arkrelay.cli.records import look_up, records_of
from arkrelay.cli.state import Failed, State, config_option, json_option, pass_state, usage
from arkrelay.config import tenants
from arkrelay.config.snapshot import Snapshot
from arkrelay.model.domain import DnsStatus
from arkrelay.model.tenant import Domain, Tenant
from arkrelay.policy.rotation import Plan, Step
from arkrelay.relay.rotation import plan_of

ALGORITHMS = ("rsa-sha256", "ed25519-sha256")
STEPS = ("publish", "see", "activate", "retire")
DONE: dict[Step, str] = {
    "publish": "publish the record of the new key",
    "see": "DNS has the new key",
    "activate": "the new key signs; leave the record of the old one in DNS",
    "retire": "the record of the old key may be taken out of DNS",
}


@click.command("rotate")
@config_option
@json_option
@click.option("--continue", "go_on", is_flag=True, help="Take the next step, if it is due.")
@click.option("--now", is_flag=True, help="With --continue: do not wait for the overlap; DNS must have the key.")
@click.option("--auto/--manual", "auto", default=None, help="Let the daemon take the further steps, or not.")
@click.option(
    "--algorithm", "algorithms", multiple=True, type=click.Choice(ALGORITHMS), help="Of the new key; repeatable."
)
@click.option("--step", type=click.Choice(STEPS), help="Take this step, whatever the plan says.")
@click.option("--force", is_flag=True, help="Activate a key that DNS does not have yet: its mail fails DKIM.")
@click.argument("name")
@pass_state
def rotate_domain(
    state: State,
    as_json: bool,
    go_on: bool,
    now: bool,
    auto: bool | None,
    algorithms: tuple[str, ...],
    step: Step | None,
    force: bool,
    name: str,
) -> None:
    """Begin a rotation of the DKIM keys of NAME, or show how far it is; --continue takes the next step.

    A new key is published, seen in DNS, and signs 15 minutes later; the old one is retired then, stays in DNS for a
    week, and is removed. No message goes without a signature that verifies.
    """
    if now and not go_on:
        usage("--now goes with --continue")
    snapshot = load(state)
    owner, one = domain_in(snapshot, name)
    if auto is not None:
        tenants.change_domain(source(state), owner.id, one.name, {"rotation": "auto" if auto else None})
        tell_daemon(state)
        snapshot = load(state)
        owner, one = domain_in(snapshot, name)
    due = plan_of(one)
    taken: list[Step] = []
    for each in [step] if step else _steps(due, algorithms, go_on=go_on or force, now=now or force):
        if each in {"see", "activate"} and not force:
            _require_in_dns(snapshot, one)
        if each != "see" or not force:
            one = tenants.rotate_dkim(source(state), owner.id, one.name, each, algorithms=algorithms)
            taken.append(each)
    if taken:
        tell_daemon(state)
    _print(state, owner, one, taken, as_json=as_json)


def _steps(due: Plan, algorithms: tuple[str, ...], *, go_on: bool, now: bool) -> list[Step]:
    """Return the steps to take now."""
    if due.step == "publish":
        if go_on:
            raise Failed("no rotation is under way", "begin one without --continue")
        return ["publish"]
    if algorithms:
        raise Failed(f"a rotation is under way: {due.sentence}", "go on with --continue")
    if not go_on:
        return []
    if due.step == "see":
        return ["see", "activate"] if now else ["see"]
    return [due.step] if now or due.due(time.time()) else []


def _require_in_dns(snapshot: Snapshot, one: Domain) -> None:
    fresh = records_of(snapshot, one, ("published",))
    for record, verdict in look_up(snapshot, fresh).keys.items():
        if verdict.status != DnsStatus.OK:
            raise Failed(f"DNS does not have {record} yet", f"publish it: arkrelay domain dns {one.name}")


def _print(state: State, owner: Tenant, made: Domain, taken: list[Step], *, as_json: bool) -> None:
    due = plan_of(made)
    if as_json:
        shown = {"step": due.step, "dueAt": due.due_at, "sentence": due.sentence}
        output.print_json({**shapes.domain(owner.id, made), "step": taken[-1] if taken else None, "next": shown})
        return
    output.print_fields(key_fields(made))
    if "publish" in taken:
        output.say("")
        fresh = records_of(load(state), made, ("published",))
        output.print_table(("TYPE", "NAME", "VALUE"), [(one.type, one.full_name, one.value) for one in fresh.dkim])
    for step in taken:
        output.note(DONE[step])
    output.note(next_words(made))


def next_words(one: Domain) -> str:
    """Return what comes next for the keys of a domain, when, and who does it."""
    due = plan_of(one)
    if due.step == "publish":
        return due.sentence
    who = "the daemon does it" if one.rotation == "auto" else f"arkrelay domain rotate {one.name} --continue"
    when = "" if due.due_at is None else f", {output.until(due.due_at)}" if due.due_at > time.time() else ", now"
    return f"next: {due.sentence}{when}: {who}"


def key_fields(one: Domain) -> list[tuple[str, object]]:
    """Return a line for each key of a domain, with its state and since when."""
    lines = []
    for key in one.dkim:
        seen = f", seen in DNS {key.seen}" if key.seen else ""
        since = f" since {key.since}" if key.since else ""
        lines.append(f"{key.selector} {key.algorithm} {key.state}{since}{seen}")
    return [("dkim", lines)]


def keys_of(one: Domain) -> str:
    """Return the selectors of a domain, with the state of those that do not sign."""
    return ", ".join(key.selector if key.state == "active" else f"{key.selector} ({key.state})" for key in one.dkim)
