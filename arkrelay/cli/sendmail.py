"""A drop-in for /usr/sbin/sendmail: what cron, PHP, git, mutt and monitoring call to send mail.

The option letters and exit codes are sendmail's (sysexits.h). Mail goes through a local submission listener
that asks for no password (``tenant =`` in [[listen]]), since any user may call this; without one it goes by
REST, which the daemon believes from root, its own user or the holder of $ARKRELAY_KEY.
"""

import getpass
import os
import re
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import click

from arkrelay.cli import output
from arkrelay.cli.client import Daemon, Denied, NotRunning, read_settings
from arkrelay.cli.draft import read_draft
from arkrelay.cli.files import tenant_of_sender
from arkrelay.cli.sendmail_words import BadUse, Exit, Options, parse
from arkrelay.cli.state import Failed, State
from arkrelay.cli.submit import Parcel, Rejected, SmtpDoor, by_rest, by_smtp, smtp_doors
from arkrelay.model.address import Address, AddressError, parse_mailbox
from arkrelay.model.errors import ArkrelayError

MAILNAME = Path("/etc/mailname")  # Debian policy §11.6: the domain of this machine's mail
POLICY = re.compile(r"\b5\.7\.\d")  # RFC 3463 §3.8: security or policy
CHUNK = 65536


class BadData(ArkrelayError):
    """The message or an address in it cannot be sent."""


@click.command(
    "sendmail",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def sendmail_command(ctx: click.Context, words: tuple[str, ...]) -> None:
    """A drop-in for /usr/sbin/sendmail: -t -i -oi -f ADDRESS -F NAME -bs, and recipients."""
    if tuple(words) == ("--help",):  # no option of sendmail, but what people ask every other command
        click.echo(ctx.get_help())
        ctx.exit(0)
    state = ctx.ensure_object(State)
    ctx.exit(main(words, config=state.config))


def main(words: Sequence[str], name: str = "sendmail", config: Path | None = None) -> int:
    """Do what sendmail does with these words and standard input; return its exit code, with a line on stderr."""
    try:
        options = parse(words, name)
        if config and options.config == State().config:
            options.config = config
        return _run(options)
    except ArkrelayError as error:
        output.note(f"sendmail: {output.clean(error)}")
        return exit_code(error)
    except (KeyboardInterrupt, BrokenPipeError):
        return Exit.TEMPFAIL
    except OSError as error:
        output.note(f"sendmail: {error}")
        return Exit.OSERR
    except Exception as error:  # noqa: BLE001 -- callers know only exit codes, and keep the mail on this one
        output.note(f"sendmail: internal error: {type(error).__name__}: {output.clean(error)}")
        return Exit.SOFTWARE


def exit_code(error: ArkrelayError) -> int:
    """Return the code of sysexits.h that a caller understands: above all, whether trying later helps."""
    if isinstance(error, BadUse):
        return Exit.USAGE
    if isinstance(error, BadData):
        return Exit.DATAERR
    if isinstance(error, NotRunning):
        return Exit.TEMPFAIL
    if isinstance(error, Rejected):
        return _smtp_code(error)
    if isinstance(error, Denied):
        if error.status in {401, 403} or error.code_name == "domain_not_verified":
            return Exit.NOPERM
        return Exit.TEMPFAIL if error.status in {409, 429} or error.status >= 500 else Exit.DATAERR
    return Exit.CONFIG if isinstance(error, Failed) else Exit.UNAVAILABLE


def _smtp_code(error: Rejected) -> int:
    if 400 <= error.code < 500:
        return Exit.TEMPFAIL
    if error.recipient:
        return Exit.NOUSER
    if error.code in {530, 535} or POLICY.search(str(error)):
        return Exit.NOPERM
    return Exit.DATAERR if error.code in {552, 554} else Exit.UNAVAILABLE


def _run(options: Options) -> int:
    if options.mode == "i":
        return Exit.OK  # there is no alias database to rebuild
    if options.mode == "s":
        return _speak_smtp(options.config)
    if options.mode in {"p", "q"}:
        from arkrelay.cli.main import run  # noqa: PLC0415 -- the other two modes are commands of their own

        verb = "list" if options.mode == "p" else "flush"
        return run(["queue", verb, "--config", str(options.config)])
    return _deliver(options)


def _deliver(options: Options) -> int:
    try:
        raw = sys.stdin.buffer.read()
    except OSError as error:
        output.note(f"sendmail: standard input: {error.strerror}")
        return Exit.IOERR
    domain = _mail_domain(options.config)
    try:
        draft = read_draft(raw, dots=options.dots)
        author = draft.author()
        named = [*options.recipients, *(draft.recipients() if options.from_header else ())]
    except ValueError as error:
        raise BadData(str(error)) from None
    recipients = tuple(dict.fromkeys(str(_qualified(one, domain)) for one in named))
    if not recipients:
        raise BadUse("no recipients: name them, or use -t to take them from the header")
    sender = _sender(options, author, domain)
    shown = author or sender or _qualified(_login(), domain)
    content = draft.complete(shown, options.full_name)
    return_path = str(sender) if sender else None
    parcel = Parcel(
        content, str(shown), return_path, recipients, options.notify.upper(), options.ret.upper(), options.envid
    )
    door = next((door for door in smtp_doors(options.config) if door.open), None)
    if door:
        by_smtp(door, parcel)
    else:
        tenant = tenant_of_sender(State(config=options.config), shown)
        by_rest(Daemon(options.config), parcel, tenant)
    return Exit.OK


def _sender(options: Options, author: Address | None, domain: str) -> Address | None:
    """Return the return path: -f, else the author; only its own domains get a tenant's mail through."""
    if options.sender is not None:
        named = options.sender.strip().removeprefix("<").removesuffix(">")
        return _qualified(named, domain) if named else None
    return author or _qualified(_login(), domain)


def _qualified(text: str, domain: str) -> Address:
    wanted = text.strip()
    try:
        return parse_mailbox(wanted if "@" in wanted else f"{wanted}@{domain}", utf8=True)
    except AddressError as error:
        raise BadData(f"{wanted}: {error}") from None


def _mail_domain(config: Path) -> str:
    try:
        name = MAILNAME.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        name = ""
    return name or str(read_settings(config).get("hostname") or socket.getfqdn())


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _speak_smtp(config: Path) -> int:
    """Join standard input and output to a submission listener, byte for byte, until it hangs up."""
    found = smtp_doors(config)
    if not found:
        raise Failed("no [[listen]] with service = submission on this machine", "add one in arkrelay.toml")
    pump: threading.Thread | None = None
    with _connected(found[0]) as peer:
        while data := peer.recv(CHUNK):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            if pump is None and b"\n" in data:  # who speaks before the greeting is taken for a spammer
                pump = threading.Thread(target=_pump, args=(peer,), daemon=True)
                pump.start()
    return Exit.OK


def _connected(door: SmtpDoor) -> socket.socket:
    try:
        if door.socket:
            peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            peer.connect(str(door.socket))
            return peer
        return socket.create_connection((door.host, door.port), timeout=None)
    except OSError as error:
        raise NotRunning(f"{door.shown}: {error.strerror or error}") from None


def _pump(peer: socket.socket) -> None:
    try:
        while data := os.read(sys.stdin.fileno(), CHUNK):
            peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the other side has hung up, and the reading side tells it
