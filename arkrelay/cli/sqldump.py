"""Rows out of a dump of MySQL or MariaDB, read as a stream: nothing is executed, and what is not wanted is not kept.

``mysqldump`` and ``mariadb-dump`` write statements: CREATE TABLE with the names of the columns in their order, and
INSERT with many rows each. A table that is wanted is read value by value; all else is passed over by one expression
that knows strings and comments, at some 80 MB a second, in memory that does not grow with the file.
"""

import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO

from arkrelay.cli.state import Failed

CHUNK_BYTES = 1 << 20
VALUE_BYTES = 16_000_000  # of one value, or of one CREATE TABLE, that we keep; DKIM keys have 2 KB

Row = Mapping[str, str | None]
Wanted = Callable[[str, str], bool]  # (database, table); the database is empty where the dump does not name it

_GAP = re.compile(rb"(?:\s++|--(?=\s)[^\n]*+\n|\#[^\n]*+\n|/\*(?s:.*?)\*/)*+")
_QUOTED = rb"`(?:[^`]|``)*+`|\"(?:[^\"]|\"\")*+\""
_NAME = rb"(?:" + _QUOTED + rb"|[\w$]++)"
_HEAD = re.compile(
    rb"(?i)(?:INSERT|REPLACE)\s+(?:(?:LOW_PRIORITY|DELAYED|HIGH_PRIORITY|IGNORE)\s+)*(?:INTO\s+)?"
    rb"(?P<insert>"
    + _NAME
    + rb"(?:\s*\.\s*"
    + _NAME
    + rb")?)\s*(?P<columns>\((?:"
    + _QUOTED
    + rb"|[^()`\"])*+\))?\s*"
    rb"VALUES?\s*(?=\()"
    rb"|CREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?(?P<create>" + _NAME + rb"(?:\s*\.\s*" + _NAME + rb")?)\s*(?=\()"
    rb"|USE\s+(?P<use>" + _NAME + rb")"
)
_WORDS = re.compile(rb"(?i)(?:INSERT|REPLACE|CREATE\s+TABLE|USE)\b")
_DELIMITER = re.compile(rb"(?i)DELIMITER\s+(?!;\s)")  # up to the next one stands a trigger or a procedure
_DELIMITED = re.compile(rb"(?i)\nDELIMITER\s+;\s")
_PASS = re.compile(
    rb"(?:[^'\"`;#/\-]++|'(?s:[^'\\]++|\\.|'')*+'(?=[^'])|\"(?s:[^\"\\]++|\\.|\"\")*+\"(?=[^\"])|`[^`]*+`"
    rb"|/\*(?s:.*?)\*/|--(?=\s)[^\n]*+\n|\#[^\n]*+\n|/(?=[^*])|-(?=[^-])|--(?=\S))*+"
)
_INSIDE = {  # what is left of a string that is too long for the buffer
    b"'": re.compile(rb"(?s:[^'\\]++|\\.|'')*+"),
    b'"': re.compile(rb"(?s:[^\"\\]++|\\.|\"\")*+"),
}
_VALUE = re.compile(
    rb"\s*+(?:(?P<null>NULL\b)|(?P<number>[-+]?[\d.]+(?:[eE][-+]?\d+)?)(?=[\s,)])"
    rb"|(?:_\w+\s*|[nN](?='))?'(?P<string>(?s:[^'\\]++|\\.|'')*+)'(?=[^'])"
    rb"|\"(?P<double>(?s:[^\"\\]++|\\.|\"\")*+)\"(?=[^\"])|0x(?P<hex>[0-9a-fA-F]*)(?=[\s,)])"
    rb"|(?:_\w+\s*)?[xX]'(?P<quoted>[0-9a-fA-F]*)'|(?:_\w+\s*)?0x(?P<late>[0-9a-fA-F]+)(?=[\s,)])"
    rb"|[bB]'(?P<bits>[01]*)'|(?P<truth>TRUE|FALSE)\b)\s*+(?P<end>[,)])",
    re.IGNORECASE,
)
_OPEN, _NEXT = re.compile(rb"\s*+\("), re.compile(rb"\s*+(,|;|(?=ON\b|AS\b))", re.IGNORECASE)
_COLUMN = re.compile(rb"(?:\A\(|,)\s*+(?:(`(?:[^`]|``)*+`|\"[^\"]*+\")|(\w+)\s)")
_KEYWORDS = frozenset({"primary", "key", "unique", "index", "fulltext", "spatial", "constraint", "check", "foreign"})
_TEXTS = re.compile(_QUOTED + rb"|'(?s:[^'\\]++|\\.|'')*+'")
_NESTED = re.compile(rb"\([^()]*+\)")
_NAMED = re.compile(rb"--\s(?:Current Database: `([^`\n]+)`|Host: \S+\s+Database: (\S+))")
_ESCAPE = re.compile(rb"\\(.)|''", re.DOTALL)
_ESCAPED = {
    b"0": b"\0",
    b"b": b"\b",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"Z": b"\x1a",
    b"%": b"\\%",
    b"_": b"\\_",
}


class Dump:
    """One dump; ``rows`` may be called once. ``name`` is for what it says of errors."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self.name = file, name
        self._buffer, self._at, self._passed, self._ended = b"", 0, 0, False
        self._columns: dict[tuple[str, str], list[str]] = {}
        self.database = ""

    def rows(self, wanted: Wanted) -> Iterator[tuple[str, str, Row]]:
        """Yield (database, table, values by column) of the tables that are wanted.

        Raises Failed, with the place in the file, for what ends too early or cannot be understood.
        """
        while self._skip_gap():
            head = self._head()
            if head is None:
                if _DELIMITER.match(self._buffer, self._at):
                    self._pass_program()
                else:
                    self._pass_statement()
                continue
            if head["use"]:
                self.database = _name(head["use"])
                self._pass_statement()
                continue
            database, table = self._names(head["insert"] or head["create"])
            if not wanted(database, table):
                self._pass_statement()
            elif head["create"]:
                self._columns[database, table] = self._created()
                self._pass_statement()
            else:
                columns = _listed(head["columns"]) if head["columns"] else self._columns.get((database, table))
                if columns is None:
                    raise self._odd(f"rows of {table} without CREATE TABLE before: dump it with --complete-insert")
                for values in self._inserted(table, len(columns)):
                    yield database, table, dict(zip(columns, values, strict=True))

    # -- the buffer

    def _more(self) -> bool:
        """Read on; return False at the end of the file."""
        if self._ended:
            return False
        try:
            # twice as much for what is long: a value is looked at again from its start
            chunk = self._file.read(max(CHUNK_BYTES, len(self._buffer) - self._at))
        except (OSError, EOFError, zlib.error) as error:
            raise Failed(f"{self.name}: {error}", "the file is damaged or cut off") from None
        self._buffer, self._passed, self._at = self._buffer[self._at :] + chunk, self._passed + self._at, 0
        self._ended = not chunk
        return bool(chunk)

    def _odd(self, why: str) -> Failed:
        return Failed(f"{self.name}: byte {self._passed + self._at}: {why}")

    def _cut(self) -> Failed:
        return Failed(f"{self.name} ends in the middle of a statement", "the dump is cut off: make it again")

    def _match(self, expression: re.Pattern[bytes]) -> re.Match[bytes]:
        """Return a match that ends before the buffer does, and go behind it; raise Failed where there is none."""
        while True:
            found = expression.match(self._buffer, self._at)
            if found is not None and (found.end() < len(self._buffer) or self._ended):
                self._at = found.end()
                return found
            if len(self._buffer) - self._at > VALUE_BYTES:
                raise self._odd("this is not what a dump has here, or longer than we keep")
            if not self._more():
                if found is not None:
                    continue
                if self._buffer[self._at :].strip():
                    raise self._odd("this is not what a dump has here, or the dump is cut off")
                raise self._cut()

    # -- statements

    def _skip_gap(self) -> bool:
        """Go to the next statement; return False when there is none."""
        while True:
            end = self._gap_end()
            self._note_database(self._buffer[self._at : end])
            self._at = end
            if end < len(self._buffer) and not _begun_comment(self._buffer[end : end + 3]):
                if self._buffer[end : end + 1] != b";":
                    return True
                self._at += 1
                continue
            if len(self._buffer) - self._at > VALUE_BYTES:
                raise self._odd("a comment without an end")
            if not self._more():
                if self._buffer[self._at :].startswith(b"/*"):
                    raise self._cut()
                return False

    def _gap_end(self) -> int:
        found = _GAP.match(self._buffer, self._at)
        return found.end() if found else self._at

    def _note_database(self, gap: bytes) -> None:
        for found in _NAMED.finditer(gap):
            self.database = (found[1] or found[2]).decode("utf-8", "replace")

    def _head(self) -> re.Match[bytes] | None:
        """Return what a statement is about, when it is one of ours."""
        while len(self._buffer) - self._at < 256 and self._more():
            pass
        if not _WORDS.match(self._buffer, self._at):
            return None
        while (found := _HEAD.match(self._buffer, self._at)) is None:
            # INSERT … SET, and names longer than what is read so far
            if len(self._buffer) - self._at > 65536 or not self._more():
                return None
        self._at = found.end()
        return found

    def _names(self, text: bytes) -> tuple[str, str]:
        parts = [_name(part) for part in re.findall(_NAME, text)]
        return (parts[0], parts[1]) if len(parts) == 2 else (self.database, parts[0])

    def _pass_statement(self) -> None:
        """Go behind the next semicolon that is in no string and no comment."""
        while True:
            found = _PASS.match(self._buffer, self._at)
            self._at = found.end() if found else self._at
            here = self._buffer[self._at : self._at + 1]
            if here == b";":
                self._at += 1
                return
            if here in _INSIDE and len(self._buffer) - self._at >= CHUNK_BYTES:
                self._pass_string(here)
            elif len(self._buffer) - self._at > VALUE_BYTES:
                raise self._odd("a name or a comment without an end")
            elif not self._more():
                raise self._cut()

    def _pass_program(self) -> None:
        """Go behind what is between two DELIMITER, and has semicolons of its own."""
        while (found := _DELIMITED.search(self._buffer, self._at)) is None:
            self._at = max(self._at, len(self._buffer) - 256)  # a line that is begun may be the one
            if not self._more():
                raise self._cut()
        self._at = found.end()

    def _pass_string(self, quote: bytes) -> None:
        """Go behind a long string, forgetting it as it comes."""
        self._at += 1
        while True:
            found = _INSIDE[quote].match(self._buffer, self._at)
            self._at = found.end() if found else self._at
            if self._buffer[self._at : self._at + 1] == quote and self._at + 1 < len(self._buffer):
                self._at += 1
                return
            if not self._more():
                raise self._cut()

    def _created(self) -> list[str]:
        """Return the columns of a CREATE TABLE that stands at its parenthesis."""
        while True:
            found = _PASS.match(self._buffer, self._at)
            end = found.end() if found else self._at
            if self._buffer[end : end + 1] == b";":
                break
            if len(self._buffer) - self._at > VALUE_BYTES:
                raise self._odd("a CREATE TABLE without an end")
            if not self._more():
                raise self._cut()
        body = _TEXTS.sub(lambda one: one[0] if one[0][:1] != b"'" else b"0", self._buffer[self._at : end])
        body = body[1 : body.rfind(b")")]
        while (flat := _NESTED.sub(b" ", body)) != body:  # int(11), enum('a','b'), KEY (`a`(8))
            body = flat
        return _listed(b"(" + body)

    def _inserted(self, table: str, width: int) -> Iterator[list[str | None]]:
        while True:
            self._match(_OPEN)
            values: list[str | None] = []
            while True:
                found = self._match(_VALUE)
                values.append(_value(found))
                if found["end"] == b")":
                    break
            if len(values) != width:
                raise self._odd(f"a row of {table} has {len(values)} values, and the table {width} columns")
            yield values
            if self._match(_NEXT)[1] == b";":
                return
            if self._buffer[self._at - 1 : self._at] != b",":  # ON DUPLICATE KEY UPDATE …
                self._pass_statement()
                return


def _begun_comment(head: bytes) -> bool:
    """Tell whether these bytes begin a comment whose end is not read yet, or may do so."""
    if head[:2] == b"--":
        return len(head) < 3 or head[2:].isspace()
    return head[:1] == b"#" or head[:2] == b"/*" or head in {b"-", b"/"}


def _name(text: bytes) -> str:
    if text[:1] in {b"`", b'"'}:
        quote = text[:1]
        text = text[1:-1].replace(quote * 2, quote)
    return text.decode("utf-8", "replace")


def _listed(text: bytes) -> list[str]:
    """Return the names of columns at the beginnings of what commas part; keys and constraints are none."""
    found = []
    for one in _COLUMN.finditer(text.rstrip(b") \n\r\t") + b" "):
        if one[1]:
            found.append(_name(one[1]))
        elif (word := _name(one[2])).lower() not in _KEYWORDS:
            found.append(word)
    return found


def _value(found: re.Match[bytes]) -> str | None:
    if found["null"]:
        return None
    if found["number"] is not None:
        return found["number"].decode()
    text = found["double"] if found["string"] is None else found["string"]
    if text is not None:
        if found["double"] is not None:
            text = text.replace(b'""', b'"')
        if b"\\" in text or b"''" in text:
            text = _ESCAPE.sub(lambda one: _ESCAPED.get(one[1], one[1]) if one[1] else b"'", text)
        return text.decode("utf-8", "replace")
    digits = found["hex"] or found["quoted"] or found["late"]
    if digits:
        return bytes.fromhex(("0" if len(digits) % 2 else "") + digits.decode()).decode("utf-8", "replace")
    if found["bits"]:
        return str(int(found["bits"], 2))
    if found["truth"]:
        return "1" if found["truth"].upper() == b"TRUE" else "0"
    return ""
