"""From the words of the command line to one command; only the module of that command is imported."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click

from arkrelay import __version__
from arkrelay.cli import output
from arkrelay.cli.state import Failed, State, config_option, pass_state
from arkrelay.model.errors import ArkrelayError

# the word → (module, its line in --help). The order is the order of --help: what is needed first comes first.
COMMANDS = MappingProxyType(
    {
        "init": ("init", "Write a working configuration, keys and a first tenant."),
        "serve": ("main", "Run the daemon in the foreground."),
        "demo": ("demo", "Show the whole job on this machine: no root, no network."),
        "check": ("control", "Validate the configuration: one line per problem."),
        "plan": ("control", "Show what a reload would change."),
        "reload": ("control", "Let the daemon read its configuration again."),
        "status": ("control", "Show what the daemon is doing."),
        "doctor": ("doctor", "Look at DNS, certificates, port 25 and blocklists, and say what to do."),
        "tenant": ("tenant", "Tenants: add, list, show, set, remove."),
        "credential": ("credential", "SMTP passwords and API keys of a tenant."),
        "domain": ("domain", "Sender domains: add, list, show, dns, guide, verify, rotate, remove."),
        "key": ("key", "Organisation API keys: add, list, remove."),
        "webhook": ("webhook", "Receivers of events: add, list, remove."),
        "track-domain": ("track_domain", "Names for open and click tracking: add, list, remove."),
        "send": ("send", "Send one message."),
        "sendmail": ("sendmail", "A drop-in for /usr/sbin/sendmail."),
        "queue": ("queue", "What waits: list, show, retry, hold, release, delete, flush."),
        "lanes": ("lanes", "What each site takes from each of our addresses now, and why."),
        "lane": ("lanes", "Orders to one lane: rest, resume, limit."),
        "sources": ("lanes", "From which addresses mail leaves, and what DNS says of them."),
        "why": ("why", "Say in one sentence what a message, address or domain waits for."),
        "explain": ("explain", "Say what a server's reply means, whose fault it is, and what to do."),
        "message": ("message", "Messages and what became of them: list, show."),
        "events": ("events", "The log of events, as it was or as it happens."),
        "suppression": ("suppression", "Addresses that a tenant may not mail."),
        "tls": ("tls", "How TLS towards peers came out, and the policies in force."),
        "import": ("imports", "Move in from another service: its settings and lists."),
        "mcp": ("assistant", "Serve an assistant (Model Context Protocol) on standard input and output."),
        "usage": ("usage", "What was sent and what became of it, by tenant and time."),
        "backup": ("backup", "Copy the database and keys while the daemon runs."),
        "restore": ("backup", "Put a backup back into an empty place."),
        "db": ("db", "The database: check, vacuum, prune, stats, recover."),
    }
)


class Words(click.Group):
    """A group whose commands are imported when they are called, and listed without being imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the words in the order of ``COMMANDS``."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command for a word, from the attribute ``<word>_command`` of its module."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"arkrelay.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_") + "_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(word, text) for word, (_, text) in COMMANDS.items()])


@click.group(cls=Words, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="arkrelay", message="%(prog)s %(version)s")
@config_option
def arkrelay() -> None:
    """Hand mail to this machine by SMTP or REST; it signs, queues and delivers it.

    Exit status: 0 done, 1 refused or failed, 2 not understood.
    """


@click.command("serve")
@config_option
@pass_state
def serve_command(state: State) -> None:
    """Run the daemon in the foreground until SIGTERM or SIGINT; SIGHUP reloads the configuration."""
    click.get_current_context().exit(state.serve(state.config))


def run(argv: Sequence[str] | None = None, serve: Callable[[Path], int] | None = None) -> int:
    """Run one command line and return its exit status; nothing but the status leaves this function.

    ``serve`` runs the daemon; it is handed in because the daemon sits on the floor above.
    """
    state = State(serve=serve) if serve else State()
    try:
        code: Any = arkrelay.main(
            args=None if argv is None else list(argv), prog_name="arkrelay", standalone_mode=False, obj=state
        )
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        output.note("")
        return 1
    except ArkrelayError as error:
        return explain(error)
    except SystemExit:  # click's answer to a closed pipe: the reader has what it wanted, as in `events | head`
        return 0
    except OSError as error:
        output.problem(str(error))
        return 1
    return code if isinstance(code, int) else 0


def explain(error: ArkrelayError) -> int:
    """Print what an error of ours says to a person, and return the exit status."""
    problems = getattr(error, "problems", ())
    hint = error.hint if isinstance(error, Failed) else ""
    if problems:
        for found in problems:
            output.note(_line(found))
        output.problem(f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in the configuration", hint)
    else:
        output.problem(error.message if isinstance(error, Failed) else str(error), hint)
    return error.code if isinstance(error, Failed) else 1


def _line(found: Any) -> str:
    """Return one problem as file: key: reason, whether it came from a file of ours or from the daemon."""
    if isinstance(found, dict):
        return ": ".join(str(found[part]) for part in ("file", "key", "reason") if found.get(part))
    return str(found)
