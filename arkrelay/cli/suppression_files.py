"""Suppression lists as other services export them, read into rows; and which service's a file is.

SendGrid, Mailgun, Postmark, SES and Postal name their columns as their APIs do; people's own files name an address,
or have it in the first column. Our own export may be JSON too, and keeps cause and class. What a list holds beside
lasting suppressions is passed over, and said so: temporary refusals, senders, what has expired, and what was refused
for the sake of the sender, which SendGrid lists as blocks and Mailgun among its bounces.
"""

import csv
import io
import json
import re
import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache

from arkrelay.cli.state import Failed
from arkrelay.model.address import AddressError, parse_mailbox
from arkrelay.model.attempt import BLAMES_RECIPIENT, REST_CLASS, BounceClass
from arkrelay.model.reply import Reply, Stage
from arkrelay.model.suppression import Cause
from arkrelay.policy.classify import Rules, classify

FORMATS = ("sendgrid", "mailgun", "postmark", "ses", "postal", "ark", "csv")
REASON_CHARS, STREAM_CHARS = 500, 200  # as REST takes them
_CONTROLS = frozenset({"Cc", "Zl", "Zp"})  # of Unicode: controls, and what some readers take for the end of a line
# What keeps an address on the list: what blames it, a domain that is not there, and what no rule understands
_KEPT = BLAMES_RECIPIENT | {BounceClass.NO_DOMAIN, BounceClass.OTHER}
_SECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
_MILLISECONDS = re.compile(r"[0-9]{13}")  # Unix seconds have 13 digits in 30 000 years
_COMPACT = re.compile(r"(?:19|20)[0-9]{6}(?:[0-9]{6})?")  # 20260101, which is August 1970 in Unix seconds
_CODE = re.compile(r"([45][0-9]{2})[ -]")

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
    cause: str = ""
    classification: str = ""

    def body(self, reason: str) -> dict[str, str]:
        """Return it as REST takes it; ``reason`` is for one that has none."""
        given = {
            "reason": self.reason or reason,
            "createdAt": self.created_at,
            "stream": self.stream,
            "cause": self.cause,
            "classification": self.classification,
        }
        return {"address": self.address, **{name: value for name, value in given.items() if value}}


@dataclass(frozen=True, slots=True)
class Passed:
    """A line that is no suppression, and why; ``bad``: it should have been one; ``ours``: the sender was to blame."""

    line: int
    why: str
    bad: bool
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Listed:
    """What a file holds; ``unit`` is what its ``line`` numbers count."""

    form: str
    rows: list[Row]
    passed: list[Passed]
    unit: str = "line"


def read(file: io.TextIOBase, form: str = "", *, everything: bool = False, now: float | None = None) -> Listed:
    """Return what the file holds, by its format or by what its first line says.

    ``everything`` takes also what was refused for the sake of the sender. Raises Failed for what is neither CSV nor
    JSON.
    """
    now = time.time() if now is None else now
    try:
        text = file.read()
    except UnicodeDecodeError:
        raise Failed("the file is not UTF-8", "nothing was imported") from None
    if text.lstrip().startswith("["):
        return _sorted(_entries(text), form or "ark", "entry", now, everything=everything)
    lines, form = _lines(text, form)
    return _sorted(lines, form, "line", now, everything=everything)


def _sorted(
    lines: Iterable[tuple[int, Mapping[str, str]]], form: str, unit: str, now: float, *, everything: bool
) -> Listed:
    rows: list[Row] = []
    passed: list[Passed] = []
    for line, cells in lines:
        found = _lapsed(line, cells, form, now) or parse_row(line, cells, form)
        if isinstance(found, Row) and not everything:
            found = _not_to_blame(line, cells, form) or found
        if isinstance(found, Row):
            rows += [replace(found, stream=stream) for stream in _streams(cells, form)]
        else:
            passed.append(found)
    return Listed(form, rows, passed, unit)


def _entries(text: str) -> list[tuple[int, Mapping[str, str]]]:
    """Return what a list in JSON holds, each with its number."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Failed(f"the file begins as JSON and is none: {error}", "nothing was imported") from None
    return [
        (
            number,
            {_name(name): str(value).strip() for name, value in one.items() if isinstance(value, str | int | float)}
            if isinstance(one, dict)
            else {},
        )
        for number, one in enumerate(found, 1)
    ]


def _lines(text: str, form: str) -> tuple[list[tuple[int, Mapping[str, str]]], str]:
    """Return the lines of a CSV file by their columns, each with its number, and the format."""
    found: list[tuple[int, Mapping[str, str]]] = []
    reader = csv.reader(io.StringIO(text, newline=""))
    columns: list[str] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns, is_header = _columns(cells)
                form = form or (_form(columns) if is_header else "csv")
                if is_header:
                    continue
            found.append((reader.line_num, dict(zip(columns, [cell.strip() for cell in cells], strict=False))))
    except csv.Error as error:
        raise Failed(f"line {reader.line_num}: {error}", "nothing was imported") from None
    return found, form or "csv"


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
    """Return what one line says, by its columns as ``_name`` writes them ("createdat"); of several streams the first.

    What REST would refuse is refused here, with the line.
    """
    if form == "postal" and cells.get("type", "recipient") != "recipient":
        return Passed(line, f"is about a {cells['type']}", bad=False)
    if form in {"sendgrid", "mailgun"} and (cells.get("code") or cells.get("status") or "5")[:1] == "4":
        return Passed(line, "was refused for a time only", bad=False)
    try:
        address = str(parse_mailbox(_first(cells, _ADDRESS), utf8=True))
        created_at, streams = _time(_first(cells, _CREATED)), _streams(cells, form)
        cause = _word(cells, form, "cause", [one.value for one in Cause])
        classification = _word(cells, form, "classification", [name for name, _ in REST_CLASS.values()])
    except (AddressError, ValueError) as error:
        return Passed(line, str(error), bad=True)
    return Row(line, address, _reason(cells, form), created_at, streams[0], cause, classification)


def _word(cells: Mapping[str, str], form: str, name: str, known: Sequence[str]) -> str:
    """Return what our own export says of this; raises ValueError for a word that is not known."""
    word = cells.get(name, "") if form == "ark" else ""
    if word and word not in known:
        raise ValueError(f"{word[:40]!r} is no {name}: there is {', '.join(dict.fromkeys(known))}")
    return word


def _lapsed(line: int, cells: Mapping[str, str], form: str, now: float) -> Passed | None:
    """Return that Postal does not heed this line any more, or None."""
    keep_until = cells.get("keepuntil", "") if form == "postal" else ""
    if _SECONDS.fullmatch(keep_until) and 0 < float(keep_until) < now:
        return Passed(line, "has expired there", bad=False)
    return None


def _not_to_blame(line: int, cells: Mapping[str, str], form: str) -> Passed | None:
    """Return that the recipient was not to blame for this refusal, by the rules for replies, or None."""
    if form not in {"sendgrid", "mailgun"}:
        return None
    text, status = _reason(cells, form), cells.get("status", "")
    found = _CODE.match(text)
    codes = [
        one for one in (found and found[1], cells.get("code"), status) if one and one.isdigit() and len(one) == 3
    ]
    if not codes and "." not in status:
        return None  # words of the service's own, as "invalid", and lists of unsubscriptions and complaints
    enhanced = status if "." in status else None
    reply = Reply(int(codes[0]) if codes else 550, enhanced, text[4:] if found else text, Stage.RCPT)
    blamed = classify(reply, _rules(), attempts=1).bounce_class
    if blamed in _KEPT:
        return None
    return Passed(line, f"was not the recipient's fault ({REST_CLASS[blamed][0]}): {text[:80]}", bad=False, ours=True)


@cache
def _rules() -> Rules:
    return Rules.load()


def _reason(cells: Mapping[str, str], form: str) -> str:
    reason = " ".join(_first(cells, ("suppressionreason", "reason", "error")).split())
    if form in {"postmark", "ses"}:
        return _REASONS.get(_name(reason), reason)[:REASON_CHARS]
    if form == "mailgun" and not reason and "tags" in cells:
        return "unsubscribe"
    return "".join(one for one in reason if one.isprintable())[:REASON_CHARS]


def _streams(cells: Mapping[str, str], form: str) -> list[str]:
    """Return the streams of a line, an empty one for all mail; raises ValueError for one that REST does not take."""
    found = _tags(cells.get("tags", "")) if form == "mailgun" else [cells.get("stream", "")]
    for one in found:
        if len(one) > STREAM_CHARS or any(unicodedata.category(char) in _CONTROLS for char in one):
            raise ValueError(f"a stream is one line of up to {STREAM_CHARS} characters: {one[:40]!r}")
    return found


def _tags(text: str) -> list[str]:
    """Return Mailgun's tags, which it writes as a list in JSON, with commas, or in brackets."""
    try:
        given = json.loads(text)
    except ValueError:
        inside = text.strip("[]")
        given = inside.split(",") if "," in inside or inside == text else inside.split()
    tags = [str(one).strip("\"' ") for one in (given if isinstance(given, list) else [text])]
    tags = [one for one in dict.fromkeys(tags) if one]
    return tags if tags and "*" not in tags else [""]


def _time(text: str) -> str:
    """Return a time as REST takes it, or nothing for none: Unix seconds, compact, ISO 8601 or RFC 5322.

    Raises ValueError for what is none of these.
    """
    if not text:
        return ""
    if _MILLISECONDS.fullmatch(text):
        return str(int(text) / 1000)
    if _SECONDS.fullmatch(text) and not _COMPACT.fullmatch(text):
        return text
    for parse in (_iso, parsedate_to_datetime):
        try:
            at = parse(text)
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
            at.timestamp()  # REST counts in Unix seconds
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        return at.isoformat()
    raise ValueError(f"{text[:40]!r} is no time: Unix seconds, or as 2026-01-31T12:00:00Z")


def _iso(text: str) -> datetime:
    if _COMPACT.fullmatch(text):
        text = f"{text[:8]}T{text[8:] or '000000'}"
    return datetime.fromisoformat(text.removesuffix(" UTC"))


def _first(cells: Mapping[str, str], names: Sequence[str]) -> str:
    return next((cells[name] for name in names if cells.get(name)), "")


def numbers(passed: Sequence[Passed], unit: str = "line") -> Iterator[str]:
    """Yield "line N: why" for each, twenty at most."""
    for one in passed[:20]:
        yield f"{unit} {one.line}: {one.why}"
    if len(passed) > 20:
        yield f"and {len(passed) - 20} more"
