"""What a peer says, cut into replies (RFC 5321 §4.2), bounded, and turned into text that is safe to store."""

import re
from typing import NamedTuple

from arkrelay.model.reply import Reply, Stage

LONGEST_LINE = 8192  # octets; RFC 5321 §4.5.3.1.5 allows 512 for a reply line, peers send more
KEPT_OF_A_LINE = 2048
MOST_LINES = 100
LONGEST_REPLY = 32768  # octets over all its lines
LONGEST_TEXT = 500  # characters of the text that we keep

_TOO_LONG = f"a reply line of more than {LONGEST_LINE} octets"
_ENHANCED = re.compile(rb"([245])\.\d{1,3}\.\d{1,3}(?=[ \t:;,]|$)")


class Heard(NamedTuple):
    """One complete reply as it came: its code, and the octets behind the code of each line."""

    code: int
    lines: tuple[bytes, ...]


class ReplyParser:
    """Cuts a stream of octets into replies, however they were split on the way.

    ``broken`` says in words what was not SMTP; from then on nothing more is parsed, and the connection must
    end. A lone LF ends a line too: that costs nothing here, and old peers do it.
    """

    __slots__ = ("_code", "_lines", "_octets", "_rest", "broken")

    def __init__(self) -> None:
        self._rest = b""
        self._code = b""
        self._lines: list[bytes] = []
        self._octets = 0
        self.broken: str | None = None

    @property
    def pending(self) -> bool:
        """Whether a reply has begun and not ended."""
        return bool(self._rest or self._lines)

    def feed(self, data: bytes) -> list[Heard]:
        """Return the replies that ``data`` completes; those before an error count."""
        replies: list[Heard] = []
        if not self._feed(data, replies):
            self._rest, self._lines = b"", []
        return replies

    def _feed(self, data: bytes, replies: list[Heard]) -> bool:
        if self.broken is not None:
            return False
        lines = (self._rest + data if self._rest else data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            code, mark = line[:3], line[3:4]
            if (
                mark == b" "
                and not self._lines
                and len(line) < KEPT_OF_A_LINE
                and code.isdigit()
                and code[0] in b"2345"
            ):
                replies.append(Heard(int(code), (line[4:].rstrip(b"\r"),)))  # what nearly all replies are
            elif (problem := self._line(line, replies)) is not None:
                self.broken = problem
                return False
        if len(self._rest) > LONGEST_LINE:
            self.broken = _TOO_LONG
            return False
        return True

    def _line(self, line: bytes, replies: list[Heard]) -> str | None:
        line = line.rstrip(b"\r")
        code, mark = line[:3], line[3:4]
        if len(line) > LONGEST_LINE:
            return _TOO_LONG
        if len(code) != 3 or not code.isdigit() or code[0] not in b"2345" or mark not in b" -":
            return f"not an SMTP reply: {clean(line, 80)}"
        if self._lines and code != self._code:
            return f"a reply with two codes, {self._code.decode()} and {code.decode()}"
        self._code = code
        self._lines.append(line[4:KEPT_OF_A_LINE])
        self._octets += len(line)
        if len(self._lines) > MOST_LINES or self._octets > LONGEST_REPLY:
            return f"a reply of more than {MOST_LINES} lines or {LONGEST_REPLY} octets"
        if mark != b"-":
            replies.append(Heard(int(code), tuple(self._lines)))
            self._lines, self._octets = [], 0
        return None


def clean(octets: bytes, longest: int = LONGEST_TEXT) -> str:
    """Return ``octets`` as text that a database, a log and a terminal can take.

    Octets that are not UTF-8 become ``\\xNN``; characters that do not print (controls, bidirectional marks)
    become U+FFFD, white space becomes a space.
    """
    text = octets.decode("utf-8", "backslashreplace")
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)
    return text[:longest]


def to_reply(heard: Heard, stage: Stage) -> Reply:
    """Return ``heard`` with its enhanced code apart from its text, the lines joined by spaces.

    An enhanced code counts only where its class is that of the reply (RFC 2034 §4): a 550 that carries 4.2.1 is
    decided by the 550. It is taken on greetings too, where RFC 2034 has none, because blocklists put it there.
    """
    lines = heard.lines
    found = _ENHANCED.match(lines[0].lstrip())
    if found is None or int(found[1]) != heard.code // 100:
        return Reply(heard.code, None, clean(b" ".join(lines).strip()), stage)
    enhanced = found[0]
    parts = [line.lstrip().removeprefix(enhanced).strip() for line in lines]
    return Reply(heard.code, enhanced.decode(), clean(b" ".join(part for part in parts if part)), stage)
