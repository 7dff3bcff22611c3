"""Compose one message from options and hand it in."""

import email.policy
import email.utils
import mimetypes
import sys
import time
from email.headerregistry import Address as Display
from email.message import EmailMessage
from pathlib import Path

import click

from arkrelay.cli import output
from arkrelay.cli.client import Daemon
from arkrelay.cli.files import tenant_of_sender
from arkrelay.cli.state import Failed, State, config_option, json_option, pass_state
from arkrelay.cli.submit import Parcel, by_rest
from arkrelay.model.address import Address, AddressError, parse_mailbox


@click.command("send")
@config_option
@json_option
@click.option("--from", "author", required=True, metavar="ADDRESS", help='"a@b" or "Name <a@b>".')
@click.option("--to", multiple=True, required=True, metavar="ADDRESS", help="May be repeated, as --cc and --bcc.")
@click.option("--cc", multiple=True, metavar="ADDRESS")
@click.option("--bcc", multiple=True, metavar="ADDRESS", help="Gets it too; named nowhere in it.")
@click.option("--reply-to", metavar="ADDRESS")
@click.option("-s", "--subject", required=True)
@click.option("--text", help="The text; without it and without --html it is read from standard input.")
@click.option("--html", help="The text as HTML.")
@click.option("--attach", multiple=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE")
@click.option("--header", "headers", multiple=True, metavar='"NAME: VALUE"', help="One more header field.")
@click.option("--tag", help="Shown in lists, events and webhooks.")
@click.option("-t", "--tenant", metavar="ID", help="Default: who owns the domain of --from.")
@pass_state
def send_command(
    state: State,
    as_json: bool,
    author: str,
    to: tuple[str, ...],
    cc: tuple[str, ...],
    bcc: tuple[str, ...],
    reply_to: str | None,
    subject: str,
    text: str | None,
    html: str | None,
    attach: tuple[Path, ...],
    headers: tuple[str, ...],
    tag: str | None,
    tenant: str | None,
) -> None:
    """Send one message and print its id; it is on disk then, and on its way."""
    if text is None and html is None:
        text = _read_text()
    from_, shown = mailbox(author, "--from")
    named = {"To": [mailbox(one, "--to") for one in to], "Cc": [mailbox(one, "--cc") for one in cc]}
    hidden = [mailbox(one, "--bcc") for one in bcc]
    message = EmailMessage(policy=email.policy.SMTP.clone(cte_type="7bit"))
    try:
        message["From"] = shown
        for name, people in named.items():
            if people:
                message[name] = [display for _, display in people]
        if reply_to:
            message["Reply-To"] = mailbox(reply_to, "--reply-to")[1]
        message["Subject"] = subject
        message["Date"] = email.utils.formatdate(time.time())
        message["Message-ID"] = email.utils.make_msgid(domain=from_.domain)
        if tag:
            message["X-Ark-Tag"] = tag
        for line in headers:
            name, colon, value = line.partition(":")
            if not colon:
                raise Failed(f"--header {line}: expected NAME: VALUE", code=2)
            message[name.strip()] = value.strip()
    except ValueError as error:
        raise Failed(f"a header field cannot be built: {error}") from None
    _add_body(message, text, html, attach)
    recipients = [str(address) for address, _ in (*named["To"], *named["Cc"], *hidden)]
    parcel = Parcel(message.as_bytes(), str(from_), str(from_), tuple(dict.fromkeys(recipients)))
    data = by_rest(Daemon(state.config), parcel, tenant or tenant_of_sender(state, from_))
    if as_json:
        output.print_json(data)
    else:
        output.say(str(data.get("id")))


def mailbox(text: str, option: str) -> tuple[Address, Display]:
    """Return the address of "a@b" or "Name <a@b>", and how it is shown; name the option when it is neither."""
    name, spec = text, text
    if text.rstrip().endswith(">"):
        name, _, spec = text.rstrip()[:-1].rpartition("<")
    else:
        name = ""
    try:
        address = parse_mailbox(spec.strip(), utf8=True)
        return address, Display(name.strip().strip('"'), addr_spec=str(address))
    except (AddressError, ValueError) as error:
        raise Failed(f"{option} {output.clean(text)}: {error}") from None


def _read_text() -> str:
    if sys.stdin.isatty():
        output.note("the text, then ^D:")
    return sys.stdin.read()


def _add_body(message: EmailMessage, text: str | None, html: str | None, attach: tuple[Path, ...]) -> None:
    if text is not None:
        message.set_content(text)
    if html is not None:
        if text is None:
            message.set_content(html, subtype="html")
        else:
            message.add_alternative(html, subtype="html")
    for path in attach:
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        main, _, sub = kind.partition("/")
        try:
            message.add_attachment(path.read_bytes(), maintype=main, subtype=sub, filename=path.name)
        except OSError as error:
            raise Failed(f"{path}: {error.strerror}") from None
