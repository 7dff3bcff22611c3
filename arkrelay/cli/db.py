"""Care of the database: what changes it is asked of the daemon, and done here when that is down."""

import os
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import click

from arkrelay.cli import output
from arkrelay.cli.client import LONG_S, Daemon, NotRunning
from arkrelay.cli.files import load
from arkrelay.cli.state import State, config_option, json_option, pass_state
from arkrelay.cli.statedir import need_owner, need_stopped, state_dir_of
from arkrelay.model.errors import StoreError
from arkrelay.store import backup as files
from arkrelay.store import place
from arkrelay.store.connection import connect, connect_writer, store_error
from arkrelay.store.prune import prune_step
from arkrelay.store.usage import totals


@click.group("db")
@config_option
def db_command() -> None:
    """The database: check, vacuum, prune, stats, recover."""


@db_command.command("check")
@config_option
@json_option
@pass_state
def check_db(state: State, as_json: bool) -> None:
    """Read all of the database and look for damage; it may run beside the daemon."""
    state_dir = state_dir_of(state)
    if os.access(state_dir / place.DATABASE, os.R_OK):
        problems = files.check(state_dir)
    else:
        data = Daemon(state.config).data("POST", "/v1/control/db/check", timeout_s=LONG_S)
        problems = list((data or {}).get("problems", []))
    if as_json:
        output.print_json({"ok": not problems, "problems": problems})
    else:
        for problem in problems:
            output.note(output.clean(problem))
        if not problems:
            output.say("the database is sound")
    if problems:
        click.get_current_context().exit(1)


@db_command.command("vacuum")
@config_option
@json_option
@pass_state
def vacuum_db(state: State, as_json: bool) -> None:
    """Give the space of what is gone back to the file system."""
    try:
        data = Daemon(state.config).data("POST", "/v1/control/db/vacuum", timeout_s=LONG_S)
    except NotRunning:
        before, after = files.vacuum(state_dir_of(state))
        data = {"ok": True, "bytesBefore": before, "bytesAfter": after}
    _print(data, as_json=as_json)


@db_command.command("prune")
@config_option
@json_option
@pass_state
def prune_db(state: State, as_json: bool) -> None:
    """Forget now what is older than [retention] allows; never undelivered mail."""
    try:
        data = Daemon(state.config).data("POST", "/v1/control/db/prune", timeout_s=LONG_S)
    except NotRunning:
        data = _prune(state)
    _print(data, as_json=as_json)


def _prune(state: State) -> dict[str, Any]:
    settings = load(state).settings
    need_owner(settings.state_dir)
    lock = place.Lock(settings.state_dir)
    try:
        path = settings.state_dir / place.DATABASE
        if not place.check_database_file(path):
            raise StoreError(f"{path}: missing")
        before = path.stat().st_size
        db = connect_writer(path)
        try:
            while prune_step(db, time.time(), settings.retention):
                pass
        except sqlite3.Error as error:
            raise store_error(error) from None
        finally:
            db.close()
        return {"ok": True, "bytesBefore": before, "bytesAfter": path.stat().st_size}
    finally:
        lock.release()


@db_command.command("stats")
@config_option
@json_option
@pass_state
def stats_db(state: State, as_json: bool) -> None:
    """Show what the database holds, and how large it is."""
    try:
        data = Daemon(state.config).data("GET", "/v1/control/db")
    except NotRunning:
        data = _stats(state_dir_of(state))
    _print(data, as_json=as_json)


def _stats(state_dir: Path) -> dict[str, Any]:
    path = state_dir / place.DATABASE
    if not path.is_file():
        raise StoreError(f"{path}: missing")
    db = connect(path, read_only=True)
    try:
        counts = {str(status): count for status, count in totals(db).items()}
    except sqlite3.Error as error:
        raise store_error(error) from None
    finally:
        db.close()
    wal = path.with_name(f"{path.name}-wal")
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "walBytes": wal.stat().st_size if wal.exists() else 0,
        "freeBytes": shutil.disk_usage(state_dir).free,
        "recipients": counts,
    }


@db_command.command("recover")
@config_option
@json_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_state
def recover_db(state: State, as_json: bool, yes: bool) -> None:
    """Make a new database of what can be read of a damaged one, which is kept beside it."""
    need_stopped(state)
    state_dir = state_dir_of(state)
    need_owner(state_dir)
    if not yes:
        click.confirm("A backup loses less, if there is a recent one. Recover?", abort=True, err=True)
    _print({"rows": files.recover(state_dir)}, as_json=as_json)


def _print(data: dict[str, Any] | None, *, as_json: bool) -> None:
    if as_json:
        output.print_json(data)
        return
    pairs: list[tuple[str, object]] = []
    for name, value in (data or {}).items():
        if isinstance(value, dict):
            pairs += [(f"{name} {inner}", each) for inner, each in value.items()]
        else:
            pairs.append((name, output.size(value) if "bytes" in name.lower() else value))
    output.print_fields(pairs)
