"""The words of sendmail's command line, and its exit codes."""

import getopt
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from arkrelay.cli.state import State
from arkrelay.model.errors import ArkrelayError

# Sendmail's letters, with ":" where one takes a value; those of the delivery's manner are read and have no effect.
LETTERS = "A:B:b:C:c:d:e:F:f:GhIiL:M:mN:nO:o:p:q:R:r:stUV:vX:"
TEXTS = {"f": "sender", "r": "sender", "F": "full_name", "N": "notify", "R": "ret", "V": "envid"}


class Exit(IntEnum):
    """sysexits.h."""

    OK = 0
    USAGE = 64
    DATAERR = 65
    NOUSER = 67
    UNAVAILABLE = 69
    SOFTWARE = 70
    OSERR = 71
    IOERR = 74
    TEMPFAIL = 75
    NOPERM = 77
    CONFIG = 78


class BadUse(ArkrelayError):
    """The words were not understood."""


@dataclass
class Options:
    """What the command line said."""

    config: Path = field(default_factory=lambda: State().config)
    mode: str = "m"  # -bm deliver, -bs SMTP, -bp the queue, -bi aliases
    from_header: bool = False  # -t
    dots: bool = True  # a line with a dot alone ends the message, but with -i
    sender: str | None = None  # -f; "" and "<>" are the null path
    full_name: str = ""
    notify: str = ""
    ret: str = ""
    envid: str = ""
    recipients: list[str] = field(default_factory=list)


def parse(words: Sequence[str], name: str = "sendmail") -> Options:
    """Return what the words mean; raise BadUse. ``name`` is how we were called: newaliases, mailq."""
    options = Options(mode={"newaliases": "i", "mailq": "p"}.get(name, "m"))
    args = list(words)
    if args[:1] == ["--config"] and len(args) > 1:
        options.config, args = Path(args[1]), args[2:]
    args = ["-q0" if word == "-q" else word for word in args]  # getopt knows no optional values
    try:
        found, options.recipients = getopt.getopt(args, LETTERS)
    except getopt.GetoptError as error:
        raise BadUse(f"{error}; known are -t -i -oi -f -F -bs -bm -bp, and recipients") from None
    for letter, value in found:
        _apply(options, letter[1:], value)
    return options


def _apply(options: Options, letter: str, value: str) -> None:
    if letter == "b":
        if value not in {"m", "s", "p", "i"}:
            raise BadUse(f"-b{value} is not offered; the daemon is run by arkrelay serve")
        options.mode = value
    elif letter == "i" or (letter == "o" and value == "i"):
        options.dots = False
    elif letter == "t":
        options.from_header = True
    elif letter == "q":
        options.mode = "q"
    elif letter in TEXTS:
        setattr(options, TEXTS[letter], value)
    elif letter in {"C", "c"}:
        options.config = Path(value)
