"""The command line as a whole: its words, its options, its exit codes."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import click
import pytest
from unit.cli.support import Double, Program

from arkrelay.cli.main import COMMANDS, arkrelay, run
from arkrelay.cli.state import State


def test_every_word_of_the_help_is_a_command_with_help() -> None:
    context = click.Context(arkrelay)
    for word in COMMANDS:
        command = arkrelay.get_command(context, word)
        assert command is not None, word
        assert command.help, word
        assert command.name == word


def test_every_verb_takes_config_and_has_help() -> None:
    context = click.Context(arkrelay)

    def leaves(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
        if isinstance(command, click.Group):
            return [leaf for name, one in command.commands.items() for leaf in leaves(one, f"{path} {name}")]
        return [(path, command)]

    for word in COMMANDS:
        command = arkrelay.get_command(context, word)
        assert command is not None
        for path, leaf in leaves(command, word):
            names = {option for parameter in leaf.params for option in parameter.opts}
            assert path == "sendmail" or {"-c", "--config"} <= names, path
            assert leaf.help, path


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("-c", "FILE", "status"), id="before"),
        pytest.param(("status", "-c", "FILE"), id="after"),
        pytest.param(("-c", "/nowhere", "status", "--config", "FILE"), id="nearest-wins"),
        pytest.param(("queue", "-c", "FILE", "list"), id="between"),
    ],
)
def test_config_is_taken_before_and_after_the_verb(
    program: Program, daemon: Double, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("ARKRELAY_CONFIG", "/nowhere/else")
    daemon.answers = {"GET /v1/status": {"ready": True}, "GET /v1/queue": {"data": [], "totalPages": 0}}
    assert program(*(str(program.config) if word == "FILE" else word for word in words)).code == 0


def test_serve_gets_the_configuration_and_its_status_is_ours(program: Program) -> None:
    served: list[Path] = []

    def serve(config: Path) -> int:
        served.append(config)
        return 3

    assert run(["serve", "-c", "/etc/x.toml"], serve=serve) == 3
    assert run(["-c", "/etc/y.toml", "serve"], serve=serve) == 3
    assert served == [Path("/etc/x.toml"), Path("/etc/y.toml")]


def test_a_missing_configuration_says_what_to_do(program: Program) -> None:
    ran = program("status", "-c", "/nowhere/arkrelay.toml")
    assert ran.code == 1
    assert "/nowhere/arkrelay.toml: no such file" in ran.err
    assert "arkrelay init" in ran.err


@pytest.mark.parametrize(
    "words", [("nonsense",), ("status", "--nonsense"), ("queue", "show"), ("queue", "retry"), ()]
)
def test_words_not_understood_end_with_2(program: Program, words: tuple[str, ...]) -> None:
    ran = program(*words)
    assert ran.code == 2
    assert ran.err


def test_a_usage_error_never_shows_a_traceback(program: Program) -> None:
    assert "Traceback" not in program("events", "--after", "x").err


def test_the_state_starts_with_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARKRELAY_CONFIG", "/somewhere.toml")
    assert State().config == Path("/somewhere.toml")
    monkeypatch.setenv("ARKRELAY_CONFIG", "")
    assert State().config == Path("/etc/arkrelay/arkrelay.toml")


def test_version_and_help_import_neither_aiohttp_nor_the_daemon() -> None:
    code = (
        "import sys; from arkrelay.__main__ import main; sys.argv = ['arkrelay', sys.argv[1]]; status = main();"
        "sys.exit(status or sum(name in sys.modules for name in ('aiohttp', 'arkrelay.daemon', 'rich.table')))"
    )
    for word in ("--version", "--help"):
        done = subprocess.run([sys.executable, "-c", code, word], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "arkrelay" in done.stdout


def test_a_reader_that_goes_away_is_no_error(home: Path, daemon: Double) -> None:
    event = {"seq": 1, "event": "MessageSent", "at": 1.0, "data": {"text": "x" * 1000}}
    daemon.answers = {
        "GET /v1/events": lambda query: {
            "events": [event] * int(query["limit"]) if query["after"] == "0" else [],
            "next": 500,
        }
    }
    command = f"{sys.executable} -m arkrelay events --json | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


def test_following_is_ended_by_an_interrupt_in_order(home: Path, daemon: Double) -> None:
    """The daemon's double holds the first waiting request until the program has gone."""
    asked = threading.Event()

    def answer(query: dict[str, str]) -> object:
        if query.get("wait"):
            asked.set()
        return {"events": [], "next": 0}

    daemon.answers = {"GET /v1/events": answer}
    with subprocess.Popen([sys.executable, "-m", "arkrelay", "events", "-f"], stderr=subprocess.PIPE) as process:
        assert asked.wait(20)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert b"Traceback" not in err
