"""Moving in: what another service has, taken over."""

import sys
from pathlib import Path

import click

from arkrelay.cli import output
from arkrelay.cli.import_run import run_import
from arkrelay.cli.state import Failed, State, config_option, json_option, pass_state
from arkrelay.cli.suppression import import_suppressions
from arkrelay.config.secrets import SecretError, resolve

MAX_KEY_BYTES = 16384


@click.group("import")
@config_option
def import_command() -> None:
    """Move in from another service: its settings and lists, taken over.

    It shows what it would take, and writes nothing before it is told to: --yes, or yes at a terminal. What is here
    stays as it is, so it can be run again.
    """


import_command.add_command(import_suppressions, "suppressions")

dry_run_option = click.option("--dry-run", is_flag=True, help="Only show what would be taken.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Write it; do not ask.")


@import_command.command("ark")
@config_option
@json_option
@click.option("--url", default="https://api.arkhq.io/v1", show_default=True, help="The base of its API.")
@click.option(
    "--key-file", required=True, metavar="FILE", help='Holds an organisation key of Ark; "-": standard input.'
)
@click.option("-t", "--tenant", "tenants", multiple=True, metavar="ID", help="Only this one; repeatable.")
@dry_run_option
@yes_option
@pass_state
def import_ark(
    state: State, as_json: bool, url: str, key_file: str, tenants: tuple[str, ...], dry_run: bool, yes: bool
) -> int:
    """Take over tenants, domains, credentials, suppressions, webhooks and track domains from Ark.

    Keys and passwords stay as they are, so apps change the host and nothing else. DKIM keys cannot be read there:
    domains get new ones, whose records are printed.
    """
    from arkrelay.cli.import_ark import Ark, read_ark  # noqa: PLC0415 -- an HTTP client that other imports do not need

    key = _key(key_file)
    with Ark(url, key) as ark:
        found = read_ark(ark, tenants, _tell_tenant)
        return run_import(state, found, as_json=as_json, dry_run=dry_run, yes=yes)


def _key(file: str) -> str:
    """Return the key in a file that others cannot read; it is on no command line, where all users see it."""
    if file == "-":
        key = sys.stdin.readline(MAX_KEY_BYTES).strip()
    else:
        try:
            key = (resolve(f"file:{Path(file).absolute()}", None).plain or "").strip()
        except SecretError as error:
            raise Failed(f"the key {error}") from None
    if not key.isascii() or not key.isprintable() or " " in key or not key:
        raise Failed(f"{file} holds no key", "expected one line with nothing but the key")
    return key


def _tell_tenant(name: str) -> None:
    if sys.stderr.isatty():
        output.note(f"reading {output.clean(name)} …")
