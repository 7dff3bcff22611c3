"""Man pages and shell completion, made of the commands that click knows: nothing is written twice.

The pages are in man(7)'s own macros: arkrelay(1) lists the words, arkrelay-WORD(1) has the options of each and of
the verbs below it, arkrelay.toml(5) shows the annotated file that the tests compare with the settings.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
from click.shell_completion import BashComplete, FishComplete, ZshComplete

from arkrelay import __version__

VARIABLE: Final = "_ARKRELAY_COMPLETE"  # click's rule: _PROGRAM_COMPLETE
# the name that each shell looks for
COMPLETIONS: Final = {BashComplete: "arkrelay", ZshComplete: "_arkrelay", FishComplete: "arkrelay.fish"}

FILES: Final = """\
.SH FILES
.TP
.I /etc/arkrelay/arkrelay.toml
The configuration, see
.BR arkrelay.toml (5).
.TP
.I /etc/arkrelay/tenants/*.toml
One file for each tenant.
.TP
.I /etc/arkrelay/platform.toml
Keys and webhooks of the organisation.
.TP
.I /var/lib/arkrelay
Database, keys, large contents, control socket.
"""
ENVIRONMENT: Final = """\
.SH ENVIRONMENT
.TP
.B ARKRELAY_CONFIG
The configuration, where no option names one.
.TP
.B ARKRELAY_KEY
The organisation key by which other users than root and the daemon's speak to it.
"""
STATUS: Final = """\
.SH EXIT STATUS
0 done, 1 refused or failed, 2 not understood.
"""


def write(program: click.Group, settings: Path, folder: Path) -> list[Path]:
    """Write every page into ``folder`` and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    top = click.Context(program, info_name="arkrelay")
    words = [(word, program.get_command(top, word)) for word in program.list_commands(top)]
    commands = [(word, command) for word, command in words if command is not None and not command.hidden]
    pages = {"arkrelay.1": _program_page(top, commands), "arkrelay.toml.5": _settings_page(settings.read_text())}
    for word, command in commands:
        pages[f"arkrelay-{word}.1"] = _command_page(click.Context(command, info_name=word, parent=top))
    for name, text in pages.items():
        (folder / name).write_text(text)
    return [folder / name for name in pages]


def write_completions(program: click.Group, folder: Path) -> list[Path]:
    """Write what bash, zsh and fish read, under the names that they look for, and return the paths."""
    paths = []
    for kind, name in COMPLETIONS.items():
        completion = kind(program, {}, "arkrelay", VARIABLE)
        path = folder / kind.name / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # not ``source()``, which runs the bash of this machine to see how old it is
        path.write_text(completion.source_template % completion.source_vars())
        paths.append(path)
    return paths


def _program_page(top: click.Context, commands: list[tuple[str, click.Command]]) -> str:
    lines = [_title("arkrelay", 1), ".SH NAME", "arkrelay \\- mail relay with SMTP and REST in, DKIM-signed mail out"]
    lines += [".SH SYNOPSIS", *_synopsis(top), ".SH DESCRIPTION", *_prose(top.command.help or "")]
    lines += [".SH COMMANDS"]
    for word, command in commands:
        lines += [".TP", f".BR arkrelay\\-{_text(word)} (1)", _line(command.get_short_help_str(200))]
    lines += [".SH OPTIONS", *_options(top)]
    return "\n".join(lines) + "\n" + FILES + ENVIRONMENT + STATUS + ".SH SEE ALSO\n.BR arkrelay.toml (5)\n"


def _command_page(context: click.Context) -> str:
    word = f"arkrelay-{context.info_name}"
    lines = [_title(word, 1), ".SH NAME"]
    lines += [f"{_text(word)} \\- {_text(context.command.get_short_help_str(200).rstrip('.'))}"]
    lines += [".SH SYNOPSIS", *_synopsis(context)]
    for verb in _verbs(context):
        lines += [".br", *_synopsis(verb)]
    lines += [".SH DESCRIPTION", *_prose(context.command.help or ""), ".SH OPTIONS", *_options(context)]
    for verb in _verbs(context):
        lines += [f'.SH "{_text(verb.command_path.removeprefix("arkrelay ")).upper()}"']
        lines += [*_prose(verb.command.help or ""), *_options(verb)]
    status = "" if context.info_name == "sendmail" else STATUS  # it has the codes of sysexits.h, and says so
    return "\n".join(lines) + "\n" + status + ".SH SEE ALSO\n.BR arkrelay (1),\n.BR arkrelay.toml (5)\n"


def _settings_page(text: str) -> str:
    lines = [_title("arkrelay.toml", 5), ".SH NAME", "arkrelay.toml \\- configuration of arkrelay"]
    lines += [".SH DESCRIPTION", "Every setting with its default and what it is for."]
    lines += [".B arkrelay check", "names file, key and reason of every problem;", ".B arkrelay reload"]
    lines += ["takes the file over.", ".SH EXAMPLE", ".nf", *map(_line, text.splitlines()), ".fi"]
    return "\n".join(lines) + "\n.SH SEE ALSO\n.BR arkrelay (1)\n"


def _verbs(context: click.Context) -> Iterator[click.Context]:
    """Give every command below this one, groups before what is in them."""
    group = context.command
    if isinstance(group, click.Group):
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if command is not None and not command.hidden:
                verb = click.Context(command, info_name=name, parent=context)
                yield verb
                yield from _verbs(verb)


def _title(name: str, section: int) -> str:
    """Return the head of a page; ``.ad l`` because justified text has holes beside long option lists."""
    return f'.TH "{_text(name).upper()}" {section} "" "arkrelay {__version__}" "arkrelay"\n.ad l'


def _synopsis(context: click.Context) -> list[str]:
    pieces = " ".join(context.command.collect_usage_pieces(context))
    return [f".B {_text(context.command_path)}", _line(pieces)]


def _options(context: click.Context) -> list[str]:
    """Return the options and arguments that explain themselves, and not those that only name a thing."""
    lines: list[str] = []
    for parameter in context.command.get_params(context):
        if (record := parameter.get_help_record(context)) is not None and record[1]:
            lines += [".TP", f".B {_text(record[0])}", _line(record[1])]
    return lines


def _prose(text: str) -> list[str]:
    """Return paragraphs; one that starts with click's mark for lines as they are stays so."""
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        given = paragraph.splitlines()
        if given and given[0].strip() == "\b":
            lines += [".PP", ".nf", *map(_line, given[1:]), ".fi"]
        else:
            lines += [".PP", *(_line(line.strip()) for line in given)]
    return lines[1:] if lines[:2] != [".PP", ".nf"] else lines  # a paragraph at the start of a section is empty


def _line(text: str) -> str:
    """Return one line of input that cannot be taken for a request (groff(7): "." and "'" at the start)."""
    text = _text(text)
    return f"\\&{text}" if text.startswith((".", "'")) else text


def _text(text: str) -> str:
    """Return the text with what roff would read as its own spelt out; "-" stays one that can be copied."""
    spelt = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti", '"': "\\(dq"}
    return "".join(spelt.get(one, one) for one in text)
