"""Shell completion as it is packaged, asked for in the real shells: bash, zsh and fish."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from arkrelay.cli.build.man import write_completions
from arkrelay.cli.main import arkrelay

# zsh completes only at a terminal: it gets one of its own.
ZSH = """\
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "fpath=($1 \\$fpath); autoload -U compinit; compinit -u -D; print REA''DY"
zpty -r shell said '*READY*'
zpty -w -n shell "$2"$'\\t'
zpty -r shell said "*$3*"
print -r -- $said
"""
BASH = """\
source "$1/arkrelay"
COMP_WORDS=($2); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_arkrelay_completion arkrelay
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = "source $argv[1]/arkrelay.fish; complete -C $argv[2]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with what the package has for each shell, and the program."""
    made = tmp_path_factory.mktemp("completion")
    write_completions(arkrelay, made)
    (made / "bin").mkdir()
    command = made / "bin/arkrelay"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m arkrelay "$@"\n')
    command.chmod(0o755)
    return made


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("typed", "offered"),
    [("arkrelay qu", "queue"), ("arkrelay queue re", "release"), ("arkrelay queue list --dom", "--domain")],
)
def test_a_shell_is_offered_what_comes_next(
    folder: Path, need: Callable[[str], Path], shell: str, typed: str, offered: str
) -> None:
    words = {
        "bash": ["-c", BASH, "-"],
        "zsh": ["-f", "-c", ZSH, "-"],
        "fish": ["--no-config", "-c", FISH],
    }[shell]
    environment = {**os.environ, "PATH": f"{folder}/bin:{os.defpath}", "HOME": str(folder), "TERM": "dumb"}
    done = subprocess.run(
        [need(shell), *words, folder / shell, typed, offered],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,  # zsh waits for what never comes
    )
    assert offered in done.stdout.split(), done.stderr
