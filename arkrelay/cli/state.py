"""What every command shares: the configuration file's path, and the options that set it."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from arkrelay.model.errors import ArkrelayError

DEFAULT_CONFIG = Path("/etc/arkrelay/arkrelay.toml")
CONFIG_VARIABLE = "ARKRELAY_CONFIG"
KEY_VARIABLE = "ARKRELAY_KEY"

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


def _default_config() -> Path:
    return Path(os.environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIG)


def _no_daemon(config: Path) -> int:
    raise Failed(f"serve {config}: this entry point cannot run the daemon", "use the arkrelay command")


class Failed(ArkrelayError):
    """The command could not do what was asked; ``hint`` says what to do next. Ends with ``code``, 1 by default."""

    def __init__(self, message: str, hint: str = "", code: int = 1) -> None:
        self.message, self.hint, self.code = message, hint, code
        super().__init__(message)


@dataclass
class State:
    """The context object of click: one per run of the program."""

    config: Path = field(default_factory=_default_config)
    serve: Callable[[Path], int] = _no_daemon  # injected by __main__: the daemon sits on the floor above


def _remember_config(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(State).config = Path(value)


def config_option(command: AnyFunction) -> AnyFunction:
    """Give ``command`` the option -c/--config; the one nearest to the verb wins."""
    return click.option(
        "-c",
        "--config",
        metavar="FILE",
        expose_value=False,
        is_eager=True,
        callback=_remember_config,
        help=f"The configuration. Default ${CONFIG_VARIABLE}, else {DEFAULT_CONFIG}.",
    )(command)


def json_option(command: AnyFunction) -> AnyFunction:
    """Give ``command`` the flag --json, as the argument ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def tenant_option(command: AnyFunction) -> AnyFunction:
    """Give ``command`` the option -t/--tenant, as the argument ``tenant``."""
    return click.option("-t", "--tenant", metavar="ID", help="The tenant; default the only or the default one.")(
        command
    )


pass_state = click.make_pass_decorator(State, ensure=True)


def usage(message: str) -> NoReturn:
    """End with 2: the words were not understood."""
    raise click.UsageError(message)
