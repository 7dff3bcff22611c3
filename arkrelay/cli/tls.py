"""How TLS towards peers came out, and the policies that are in force."""

import click

from arkrelay.cli import output
from arkrelay.cli.client import Daemon
from arkrelay.cli.state import State, config_option, json_option, pass_state


@click.command("tls")
@config_option
@json_option
@click.option("--days", type=click.IntRange(1, 60), default=7, show_default=True, help="UTC days, today included.")
@click.argument("domain", required=False)
@pass_state
def tls_command(state: State, as_json: bool, days: int, domain: str | None) -> None:
    """Show how sessions with peers were encrypted, day by day, and the MTA-STS policies in force.

    These are the figures of TLS reports (RFC 8460), up to a minute old.
    """
    data = Daemon(state.config).data("GET", "/v1/control/tls", days=days, domain=domain)
    if as_json:
        output.print_json(data)
        return
    output.print_table(
        ("DAY", "DOMAIN", "POLICY", "HOST", "RESULT", "SESSIONS"),
        [
            (
                one.get("day"),
                one.get("domain"),
                one.get("policy"),
                one.get("host"),
                one.get("result") or "ok",
                one.get("sessions"),
            )
            for one in data.get("sessions", [])
        ],
        empty="no session was counted",
    )
    if policies := data.get("policies", []):
        output.say("")
        output.print_table(
            ("MTA-STS OF", "MODE", "HOSTS", "ID", "UNTIL"),
            [
                (
                    one.get("domain"),
                    one.get("mode"),
                    ", ".join(one.get("mx", [])),
                    one.get("id"),
                    one.get("expiresAtIso"),
                )
                for one in policies
            ],
        )
