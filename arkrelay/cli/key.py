"""Organisation API keys: they reach every tenant."""

import click

from arkrelay.cli import output, shapes
from arkrelay.cli.files import load, source, tell_daemon
from arkrelay.cli.state import State, config_option, json_option, pass_state
from arkrelay.config import tenants


@click.group("key")
@config_option
def key_command() -> None:
    """Organisation API keys: they reach every tenant."""


@key_command.command("add")
@config_option
@json_option
@click.option("--test", is_flag=True, help="A test key: what it accepts is not delivered.")
@click.argument("name")
@pass_state
def add_key(state: State, as_json: bool, test: bool, name: str) -> None:
    """Add a key and show it; afterwards it is kept encrypted and not shown again."""
    made, key = tenants.add_key(source(state), name, test=test)
    tell_daemon(state)
    if as_json:
        output.print_json(shapes.organisation_key(made, key))
    else:
        output.print_fields([("name", made.name), ("key", key)])


@key_command.command("list")
@config_option
@json_option
@pass_state
def list_keys(state: State, as_json: bool) -> None:
    """List keys, by name."""
    known = load(state).platform.keys
    if as_json:
        output.print_json({"data": [shapes.organisation_key(one) for one in known]})
    else:
        output.print_table(
            ("NAME", "ID", "CREATED"),
            [(one.name, one.id, one.created_at or "-") for one in known],
            empty="no keys: arkrelay key add NAME",
        )


@key_command.command("remove")
@config_option
@click.argument("name")
@pass_state
def remove_key(state: State, name: str) -> None:
    """Remove a key: it is refused at once."""
    tenants.remove_key(source(state), name)
    tell_daemon(state)
    output.say(f"key {name} is removed")
