"""One plain sentence about a message, an address, a domain or a tenant."""

import click

from arkrelay.cli import output
from arkrelay.cli.client import Daemon
from arkrelay.cli.state import Failed, State, config_option, json_option, pass_state


@click.command("why")
@config_option
@json_option
@click.argument("subject", metavar="ID|ADDRESS|DOMAIN|TENANT")
@pass_state
def why_command(state: State, as_json: bool, subject: str) -> None:
    """Say what SUBJECT's mail waits for: its state, the reason, the next time, the last reply.

    Or how a sender domain, a suppressed address or a tenant stands.
    """
    data = Daemon(state.config).data("GET", "/v1/why", q=subject)
    sentences = data.get("sentences", [])
    if as_json:
        output.print_json(data)
    elif len(sentences) == 1:
        output.say(output.clean(sentences[0].get("sentence")))
    elif sentences:
        output.print_table(
            ("ID", "ABOUT", "WHY"),
            [(one.get("id"), one.get("subject"), one.get("sentence")) for one in sentences],
        )
    if not sentences:
        raise Failed(
            f"nothing is known about {output.clean(subject)}",
            "ids are shown by arkrelay message list; an address or domain is known once mail was sent to it",
        )
