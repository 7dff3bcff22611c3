"""From one DKIM key to the next, without a message whose signature does not verify."""

from typing import Literal

import click

from arkrelay.cli import output, shapes
from arkrelay.cli.files import domain_in, load, source, tell_daemon
from arkrelay.cli.records import look_up, records_of
from arkrelay.cli.state import Failed, State, config_option, json_option, pass_state
from arkrelay.config import tenants
from arkrelay.model.domain import DnsStatus
from arkrelay.model.tenant import Domain, Tenant

Step = Literal["publish", "activate", "retire"]
NEXT: dict[Step, str] = {
    "publish": "publish the new key's record; when DNS has it: arkrelay domain rotate {name}",
    "activate": "in a week, when no mail signed by the old key is under way: arkrelay domain rotate {name}",
    "retire": "the old key's record may be taken out of DNS",
}


@click.command("rotate")
@config_option
@json_option
@click.option("--step", type=click.Choice(["publish", "activate", "retire"]), help="Default: the one that is due.")
@click.option("--force", is_flag=True, help="Activate a key that DNS does not have yet: its mail fails DKIM.")
@click.argument("name")
@pass_state
def rotate_domain(state: State, as_json: bool, step: Step | None, force: bool, name: str) -> None:
    """Take the next step to a new DKIM key: publish it, activate it, retire the old one.

    No message goes without a signature that verifies: a new key signs only when DNS has it.
    """
    snapshot = load(state)
    owner, one = domain_in(snapshot, name)
    step = step or _due(one)
    if step == "activate" and not force:
        fresh = records_of(snapshot, one, ("published",))
        wrong = [name for name, verdict in look_up(snapshot, fresh).keys.items() if verdict.status != DnsStatus.OK]
        if wrong:
            raise Failed(f"DNS does not have {wrong[0]} yet", f"publish it: arkrelay domain dns {one.name}")
    made = tenants.rotate_dkim(source(state), owner.id, one.name, step)
    tell_daemon(state)
    _print_rotated(state, owner, made, step, as_json=as_json)


def _due(one: Domain) -> Step:
    states = {key.state for key in one.dkim}
    if "published" in states:
        return "activate"
    return "retire" if "retired" in states else "publish"


def _print_rotated(state: State, owner: Tenant, made: Domain, step: Step, *, as_json: bool) -> None:
    if as_json:
        output.print_json({**shapes.domain(owner.id, made), "step": step})
        return
    output.say(f"{made.name}: {keys_of(made)}")
    if step == "publish":
        fresh = records_of(load(state), made, ("published",))
        output.print_table(("TYPE", "NAME", "VALUE"), [(one.type, one.full_name, one.value) for one in fresh.dkim])
    output.note(f"next: {NEXT[step].format(name=made.name)}")


def keys_of(one: Domain) -> str:
    """Return the selectors of a domain, with the state of those that do not sign."""
    return ", ".join(key.selector if key.state == "active" else f"{key.selector} ({key.state})" for key in one.dkim)
