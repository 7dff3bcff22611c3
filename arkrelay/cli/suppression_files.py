"""Suppression lists as other services export them, read into rows; and which service's a file is.

SendGrid, Mailgun, Postmark, SES and Postal name their columns as their APIs do; people's own files name an address,
or have it in the first column. What a list holds beside lasting suppressions (temporary refusals, senders) is passed
over, and said so.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from arkrelay.cli.state import Failed
from arkrelay.model.address import AddressError, parse_mailbox

FORMATS = ("sendgrid", "mailgun", "postmark", "ses", "postal", "ark", "csv")
REASON_CHARS = 500

# The columns by which a format is known, as ``_name`` writes them; the first that fits.
_KNOWN: tuple[tuple[str, frozenset[str]], ...] = (
    ("postmark", frozenset({"emailaddress", "suppressionreason"})),
    ("ses", frozenset({"emailaddress", "reason"})),
    ("postal", frozenset({"address", "type", "keepuntil"})),
    ("ark", frozenset({"address", "reason", "createdat", "cause"})),
    ("mailgun", frozenset({"address", "code", "error"})),
    ("mailgun", frozenset({"address", "tags"})),
    ("sendgrid", frozenset({"email", "created"})),
    ("sendgrid", frozenset({"email", "reason", "status"})),
)
_ADDRESS = ("address", "email", "emailaddress", "recipient")
_CREATED = ("createdat", "created", "timestamp", "lastupdatetime", "date")
# The contract's words for what other services call otherwise (Ark contract §9.3)
_REASONS = {
    "hardbounce": "hard fail",
    "spamcomplaint": "complaint",
    "manualsuppression": "unsubscribe",
    "bounce": "hard fail",
    "complaint": "complaint",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One address to be suppressed, and the line on which it stands."""

    line: int
    address: str
    reason: str = ""
    created_at: str = ""
    stream: str = ""

    def body(self, reason: str) -> dict[str, str]:
        """Return it as REST takes it; ``reason`` is for one that has none."""
        given = {"reason": self.reason or reason, "createdAt": self.created_at, "stream": self.stream}
        return {"address": self.address, **{name: value for name, value in given.items() if value}}


@dataclass(frozen=True, slots=True)
class Passed:
    """A line that is no suppression, and why; ``bad``: it should have been one."""

    line: int
    why: str
    bad: bool


@dataclass(frozen=True, slots=True)
class Listed:
    """What a file holds."""

    form: str
    rows: list[Row]
    passed: list[Passed]


def read(file: io.TextIOBase, form: str = "") -> Listed:
    """Return what the file holds, by its format or by what its first line says; raises Failed for what is no CSV."""
    rows: list[Row] = []
    passed: list[Passed] = []
    reader = csv.reader(file)
    columns: list[str] | None = None
    try:
        for cells in reader:
            line = reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns, is_header = _columns(cells)
                form = form or (_form(columns) if is_header else "csv")
                if is_header:
                    continue
            found = parse_row(line, dict(zip(columns, [cell.strip() for cell in cells], strict=False)), form)
            (rows if isinstance(found, Row) else passed).append(found)  # type: ignore[arg-type]  # each has its list
    except csv.Error as error:
        raise Failed(f"line {reader.line_num}: {error}", "nothing was imported") from None
    except UnicodeDecodeError:
        raise Failed("the file is not UTF-8", "nothing was imported") from None
    return Listed(form or "csv", rows, passed)


def _columns(cells: Sequence[str]) -> tuple[list[str], bool]:
    """Return the names of the columns, and whether the line says them or is already the first address."""
    names = [_name(cell) for cell in cells]
    if any(name in names for name in _ADDRESS):
        return names, True
    return ["address", "reason", *(f"column{number}" for number in range(3, len(cells) + 1))], False


def _name(cell: str) -> str:
    return "".join(one for one in cell.lower() if one.isalnum())


def _form(columns: Sequence[str]) -> str:
    names = frozenset(columns)
    return next((form for form, known in _KNOWN if known <= names), "csv")


def parse_row(line: int, cells: Mapping[str, str], form: str) -> Row | Passed:
    """Return what one line says, by its columns as ``_name`` writes them ("createdat")."""
    if form == "postal" and cells.get("type", "recipient") != "recipient":
        return Passed(line, f"is about a {cells['type']}", bad=False)
    if form in {"sendgrid", "mailgun"} and (cells.get("code") or cells.get("status") or "5")[:1] == "4":
        return Passed(line, "was refused for a time only", bad=False)
    try:
        address = str(parse_mailbox(_first(cells, _ADDRESS), utf8=True))
    except AddressError as error:
        return Passed(line, str(error), bad=True)
    return Row(line, address, _reason(cells, form), _time(_first(cells, _CREATED)), _stream(cells, form))


def _reason(cells: Mapping[str, str], form: str) -> str:
    reason = " ".join(_first(cells, ("suppressionreason", "reason", "error")).split())
    if form in {"postmark", "ses"}:
        return _REASONS.get(_name(reason), reason)[:REASON_CHARS]
    if form == "mailgun" and not reason and "tags" in cells:
        return "unsubscribe"
    return "".join(one for one in reason if one.isprintable())[:REASON_CHARS]


def _stream(cells: Mapping[str, str], form: str) -> str:
    if form == "mailgun":
        return "" if cells.get("tags", "*") in {"*", "[*]", '["*"]'} else cells["tags"].strip("[]\"' ")
    return cells.get("stream", "")


def _time(text: str) -> str:
    """Return a time as REST takes it, or nothing where it is none: Unix seconds, ISO 8601, RFC 5322."""
    if text.isascii() and text.replace(".", "", 1).isdigit():
        return text
    for parse in (_iso, parsedate_to_datetime):
        try:
            at = parse(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()
    return ""


def _iso(text: str) -> datetime:
    return datetime.fromisoformat(text.removesuffix(" UTC"))


def _first(cells: Mapping[str, str], names: Sequence[str]) -> str:
    return next((cells[name] for name in names if cells.get(name)), "")


def numbers(passed: Sequence[Passed]) -> Iterator[str]:
    """Yield "line N: why" for each, twenty at most."""
    for one in passed[:20]:
        yield f"line {one.line}: {one.why}"
    if len(passed) > 20:
        yield f"and {len(passed) - 20} more"
