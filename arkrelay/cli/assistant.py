"""The running relay as tools of an assistant (Model Context Protocol), over standard input and output."""

import click

from arkrelay.cli.client import Daemon
from arkrelay.cli.files import load, pick_tenant
from arkrelay.cli.state import Failed, State, config_option, pass_state
from arkrelay.model.errors import ArkrelayError

PARTS = ("send", "queue", "suppressions")
INSTALL = "pip install 'arkrelay[mcp]'"


@click.command("mcp")
@config_option
@click.option(
    "--allow",
    metavar="PART,…",
    default="",
    help=f"What it may change: {', '.join(PARTS)}, or all. Default: nothing.",
)
@click.option("-t", "--tenant", metavar="ID", help="The tenant that is meant where a tool names none.")
@pass_state
def mcp_command(state: State, allow: str, tenant: str | None) -> None:
    """Serve an assistant over standard input and output: find mail, say why, look at queue, domains, lists, usage.

    It asks the running daemon with the key in $ARKRELAY_KEY and can do no more than that key: a tenant's key sees
    that tenant, an organisation's all. Without a key it is whoever runs it, on the control socket. It only reads,
    unless --allow says otherwise.
    """
    allowed = _parts(allow)
    try:
        from arkrelay.cli.assistant_tools import serve  # noqa: PLC0415 -- an optional package, and half a second
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"mcp", "mcp_types", "pydantic"}:
            raise
        raise Failed("this command needs the MCP SDK, version 2", f"install it: {INSTALL}") from None
    daemon = Daemon(state.config)
    serve(daemon, allowed, tenant or _own_tenant(state, daemon))


def _parts(allow: str) -> frozenset[str]:
    named = [one.strip() for one in allow.split(",") if one.strip()]
    unknown = [one for one in named if one not in {*PARTS, "all"}]
    if unknown:
        raise click.BadParameter(f"{unknown[0]}: expected {', '.join(PARTS)} or all", param_hint="--allow")
    return frozenset(PARTS if "all" in named else named)


def _own_tenant(state: State, daemon: Daemon) -> str:
    """Return the tenant of the key, or the default one; nothing where the files do not tell, or may not be read."""
    try:
        found = load(state).find_credential(daemon.key) if daemon.key else None
        return found[0].id if found else pick_tenant(state, None)
    except (ArkrelayError, OSError):
        return ""
