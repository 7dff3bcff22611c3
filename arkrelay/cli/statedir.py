"""The state directory, for the commands that work on its files themselves."""

import os
from pathlib import Path

from arkrelay.cli.client import STATE_DIR, Daemon, NotRunning, read_settings
from arkrelay.cli.state import Failed, State

PAUSE = "stop it first: systemctl stop arkrelay"


def state_dir_of(state: State) -> Path:
    """Return the state directory, leniently: a broken tenant file must not stand between a person and a backup."""
    return state.config.absolute().parent / str(read_settings(state.config).get("state_dir", STATE_DIR))


def need_stopped(state: State) -> None:
    """Refuse to go on while the daemon runs."""
    try:
        Daemon(state.config).data("GET", "/v1/status")
    except NotRunning:
        return
    raise Failed("the daemon is running", PAUSE)


def need_owner(state_dir: Path) -> None:
    """Refuse to make files that the service could not read: who runs this must be who owns the directory."""
    try:
        owner = state_dir.stat().st_uid
    except OSError:
        return  # the store makes it, or says what is wrong
    if owner != os.geteuid():
        raise Failed(f"{state_dir} belongs to user {owner}", f"run this as that user: sudo -u '#{owner}' arkrelay …")
