"""Moving in: what another service has, taken over."""

import contextlib
import io
import os
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import click

from arkrelay.cli import output
from arkrelay.cli.import_run import run_import
from arkrelay.cli.state import Failed, State, config_option, json_option, pass_state
from arkrelay.cli.suppression import import_suppressions
from arkrelay.config.secrets import SecretError, resolve

MAX_KEY_BYTES = 16384
TELL_S = 0.2  # between two lines of progress


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

    Tenants' keys and passwords stay as they are, so apps change the host and nothing else. The organisation's own
    keys and DKIM keys cannot be read there: domains get new ones, whose records are printed.
    """
    from arkrelay.cli.import_ark import Ark, read_ark  # noqa: PLC0415 -- an HTTP client that other imports do not need

    key = _key(key_file)
    with Ark(url, key) as ark:
        found = read_ark(ark, tenants, _tell_tenant)
        return run_import(state, found, as_json=as_json, dry_run=dry_run, yes=yes)


@import_command.command("postal")
@config_option
@json_option
@click.option("--organization", metavar="NAME", help="Only servers of this one.")
@click.option(
    "--server", "servers", multiple=True, metavar="NAME", help="Only this one; repeatable. ORGANIZATION/NAME."
)
@click.option("--dkim-identifier", default="postal", show_default=True, help="Postal's setting dns.dkim_identifier.")
@dry_run_option
@yes_option
@click.argument("dumps", metavar="DUMP…", nargs=-1, required=True, type=click.File("rb"))
@pass_state
def import_postal(
    state: State,
    as_json: bool,
    organization: str | None,
    servers: tuple[str, ...],
    dkim_identifier: str,
    dry_run: bool,
    yes: bool,
    dumps: tuple[BinaryIO, ...],
) -> int:
    """Take over mail servers of Postal 2 and 3 from dumps of its databases: each server becomes a tenant.

    DUMP is what mysqldump or mariadb-dump writes, plain or .gz, "-" for standard input: of the database "postal", and
    of each "postal-server-N" for its suppressions. Domains, DKIM keys with their selectors, credentials, webhooks and
    track domains are taken; nothing of the dump is executed.
    """
    from arkrelay.cli.import_postal import open_dump, read_postal  # noqa: PLC0415 -- as above
    from arkrelay.cli.sqldump import Dump  # noqa: PLC0415 -- as above

    named = [(output.clean(getattr(one, "name", "-")), one) for one in dumps]
    read = (Dump(open_dump(_Watched(file, name)), name) for name, file in named)
    with contextlib.ExitStack() as stack:
        found = read_postal(read, organization, servers, dkim_identifier, stack)
        return run_import(state, found, as_json=as_json, dry_run=dry_run, yes=yes)


class _Watched(io.RawIOBase):
    """A file that shows on the terminal how far it is read: in parts of its size, or in bytes where it has none."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._shown, self._read_bytes = file, sys.stderr.isatty(), 0
        self._label = name
        try:
            self._size = os.fstat(file.fileno()).st_size
        except (OSError, ValueError):
            self._size = 0
        self._told_at = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._file.read(len(buffer))
        buffer[: len(chunk)] = chunk
        self._read_bytes += len(chunk)
        if self._shown and (not chunk or time.monotonic() - self._told_at > TELL_S):
            self._told_at = time.monotonic()
            share = f" ({self._read_bytes * 100 // self._size} %)" if self._size else ""
            click.echo(f"\r{self._label}: {output.size(self._read_bytes)}{share} ", nl=not chunk, err=True)
        return len(chunk)


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
