"""What people see: tables and colour on a terminal, plain aligned text in a pipe, JSON on request.

Text of peers and senders is shown with its control characters replaced, so that nobody's reply can move a
cursor or set a title (CVE-2003-0063 and its many sisters).
"""

import json
import sys
import time
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

STYLES: Mapping[str, str] = {
    "sent": "green",
    "ok": "green",
    "yes": "green",
    "ready": "green",
    "active": "green",
    "pending": "cyan",
    "softfail": "yellow",
    "held": "magenta",
    "missing": "yellow",
    "suspended": "yellow",
    "hardfail": "red",
    "bounced": "red",
    "invalid": "red",
    "archived": "red",
    "not ready": "red",
    "no": "yellow",
}
GAP = "  "


def clean(value: object) -> str:
    """Return ``value`` as one line that cannot speak to the terminal."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return clean_line(" ".join(str(value).split()))


def clean_line(text: str) -> str:
    """Return one line of text with its spaces kept and its control characters replaced."""
    text = text.expandtabs()
    if text.isascii() and text.isprintable():
        return text
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(char)[0] == "C" else char for char in text)


def terminal() -> bool:
    """Tell whether standard output is a terminal that a person reads."""
    return sys.stdout.isatty()


def print_json(data: object) -> None:
    """Print ``data`` as indented JSON."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def print_json_line(data: object) -> None:
    """Print ``data`` as one line of JSON, for streams."""
    click.echo(json.dumps(data, ensure_ascii=False, default=str))


def say(text: str) -> None:
    """Print one line of result."""
    click.echo(text)


def note(text: str) -> None:
    """Print one line beside the result, on standard error: progress, hints, what was left out."""
    click.echo(text, err=True)


def problem(text: str, hint: str = "") -> None:
    """Print what went wrong, and what to do next, on standard error."""
    click.echo(f"{click.style('error:', fg='red', bold=True)} {text}", err=True)
    if hint:
        click.echo(f"  {hint}", err=True)


def width(text: str) -> int:
    """Return how many columns ``text`` takes: two for wide East Asian characters (UAX #11), none for marks."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def styled(text: str) -> str:
    """Return ``text`` with the colour of the state that it names; click drops it in a pipe."""
    colour = STYLES.get(text.lower())
    return click.style(text, fg=colour) if colour else text


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str = "nothing to show") -> None:
    """Print rows under ``columns``: a table that fits the terminal, or lines of aligned text in a pipe.

    In a pipe nothing is cut or wrapped; ``empty`` goes to standard error, so a count of lines stays true.
    """
    cells = [[clean(cell) for cell in row] for row in rows]
    if not cells:
        note(empty)
    elif terminal():
        _print_rich(columns, cells)
    else:
        _print_plain([list(columns), *cells])


def _print_plain(lines: list[list[str]]) -> None:
    widths = [max(width(line[index]) for line in lines) for index in range(len(lines[0]))]
    for line in lines:
        padded = (cell + " " * (size - width(cell)) for cell, size in zip(line, widths, strict=True))
        click.echo(GAP.join(padded).rstrip())


def _print_rich(columns: Sequence[str], cells: list[list[str]]) -> None:
    from rich.console import Console  # noqa: PLC0415 -- 40 ms that a pipe and --json need not pay
    from rich.table import Table  # noqa: PLC0415 -- likewise
    from rich.text import Text  # noqa: PLC0415 -- likewise

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")
    for line in cells:
        table.add_row(*(Text(cell, style=STYLES.get(cell.lower(), "")) for cell in line))
    Console(file=sys.stdout).print(table)


def print_fields(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values, aligned; a list of values takes one line each."""
    known = [(name, list(value) if isinstance(value, list | tuple) else [value]) for name, value in pairs]
    left = max((width(name) for name, _ in known), default=0)
    for name, values in known:
        for index, value in enumerate(values or ["-"]):
            label = name if index == 0 else ""
            head = click.style(label + " " * (left - width(label)), bold=True)
            click.echo(f"{head}{GAP}{styled(clean(value))}".rstrip())


def when(at: object) -> str:
    """Return Unix seconds as local time for a person; "-" for nothing."""
    if not isinstance(at, int | float) or isinstance(at, bool):
        return "-" if at is None else clean(at)
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def until(at: object, now: float | None = None) -> str:
    """Return how far away a time is, in two units at most: "in 4m 10s", "now", "2h 5m ago"."""
    if not isinstance(at, int | float):
        return "-"
    away_s = at - (time.time() if now is None else now)
    if abs(away_s) < 1:
        return "now"
    return f"in {span(away_s)}" if away_s > 0 else f"{span(-away_s)} ago"


def span(seconds: float) -> str:
    """Return a length of time in its two largest units: "3d 4h", "4m 10s", "0s"."""
    left = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
        elif parts:
            break
        if len(parts) == 2:
            break
    return " ".join(parts)


def size(count: object) -> str:
    """Return bytes for a person, in decimal units: "14.0 MB"."""
    if not isinstance(count, int | float):
        return "-"
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(amount) < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def print_page(page: Mapping[str, Any], noun: str) -> None:
    """Tell on standard error how much more there is than the page that was shown."""
    total, pages = page.get("total", 0), page.get("totalPages", 0)
    if pages > 1:
        note(f"page {page.get('page')} of {pages}, {total} {noun} in all; --page N shows another")
