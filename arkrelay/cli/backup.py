"""A copy of the state directory, and its way back.

A backup is made of the files themselves, beside a running daemon or without one, so it can go where the daemon
may not write.
"""

import os
from pathlib import Path

import click

from arkrelay.cli import output
from arkrelay.cli.client import LONG_S, Daemon
from arkrelay.cli.state import State, config_option, pass_state
from arkrelay.cli.statedir import need_owner, need_stopped, state_dir_of
from arkrelay.store import backup as files
from arkrelay.store import place


@click.command("backup")
@config_option
@click.argument("target", type=click.Path(path_type=Path))
@pass_state
def backup_command(state: State, target: Path) -> None:
    """Copy database, message content and keys to TARGET: a new directory, or a file NAME.tar or NAME.tar.gz.

    It is one moment of the database, taken while the daemon runs. TARGET holds keys and mail: keep it secret.
    The configuration files are not in it.
    """
    state_dir = state_dir_of(state)
    if os.access(state_dir / place.DATABASE, os.R_OK):
        made = files.backup(state_dir, target.absolute())
    else:  # a key may be all that we have
        data = Daemon(state.config).data(
            "POST", "/v1/control/backup", {"path": str(target.absolute())}, timeout_s=LONG_S
        )
        made = Path(str((data or {}).get("path", target)))
    output.say(str(made))


@click.command("restore")
@config_option
@click.argument("backup", metavar="BACKUP", type=click.Path(exists=True, path_type=Path))
@pass_state
def restore_command(state: State, backup: Path) -> None:
    """Put BACKUP into the state directory, which must hold no database; the daemon must be stopped.

    Mail that was queued when the backup was made is queued again, delivered since or not.
    """
    need_stopped(state)
    state_dir = state_dir_of(state)
    need_owner(state_dir)
    files.restore(backup.absolute(), state_dir)
    output.say(f"restored into {state_dir}; look at arkrelay queue list after the start")
