"""Header fields written from text, so that every reader shows that text again and nothing besides.

What is not plain ASCII becomes encoded words (RFC 2047). Text that looks like an encoded word is text too and
encoded like the rest. Lines are folded at 78 characters (RFC 5322 §2.1.1), those with encoded words at 76 (RFC 2047
§2); only a word that cannot be divided is longer, and never than 998. Whoever calls sees to it that no text holds a
control character: ``check_line``.
"""

import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from arkrelay.mail.header import LINE_LIMIT, has_control
from arkrelay.model.address import Address

LINE = 78  # RFC 5322 §2.1.1
WORD = 75  # RFC 2047 §2: of an encoded word; with the space before it a line of 76
_FRAME = len("=?utf-8?b??=")
_LEAST_ROOM = 30  # for the first encoded word beside a long field name; with less it begins on a line of its own
_PHRASE_LENGTH = 60  # of a name that is not encoded: it stands on one line

_TOKENS = re.compile(r" *[^ ]+")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")  # RFC 5322 §3.2.3
_TO_ESCAPE = re.compile(r'(["\\])')
# What may stand for itself in an encoded word also within a phrase (RFC 2047 §5 rule 3)
_Q_SAFE = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/ "
_Q = {code: "_" if code == 32 else chr(code) if code in _Q_SAFE else f"={code:02X}" for code in range(256)}
_ATTRIBUTE_SAFE = "!#$&+-.^_`|~"  # RFC 2231 §7, attribute-char, beside letters and digits
_AWKWARD = re.compile(r'["\\]|=\?')
_PIECE = 60  # characters of one piece of a parameter (RFC 2231 §3)


class LetterError(ValueError):
    """A part of a letter cannot be written: ``field`` is its name in REST, and the text says what it must be."""

    def __init__(self, field: str, text: str, *, too_large: bool = False) -> None:
        self.field, self.too_large = field, too_large
        super().__init__(f"{field} {text}")


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address with the name that stands before it; the name may be empty."""

    name: str
    address: Address


def check_line(text: str, field: str) -> None:
    """Raise LetterError unless ``text`` is one line without control characters: nothing else is ever written."""
    if has_control(text):
        raise LetterError(field, "must be one line without control characters")


def text_field(name: str, text: str) -> bytes:
    """Return an unstructured field with its CRLF."""
    if text.isascii() and "=?" not in text and text == text.strip(" "):
        if len(name) + 2 + len(text) <= LINE:
            return f"{name}: {text}\r\n".encode()
        lines = _fold(f"{name}:", _TOKENS.findall(" " + text))
        if max(map(len, lines)) <= LINE_LIMIT:
            return _join(lines)
    room = WORD - len(name) - 1
    start = f"{name}: " if room >= _LEAST_ROOM else f"{name}:\r\n "
    words = encoded_words(text, room if room >= _LEAST_ROOM else WORD)
    return _join([start + words[0], *(f" {word}" for word in words[1:])])


def address_field(name: str, mailboxes: Sequence[Mailbox]) -> bytes:
    """Return a field of addresses with its CRLF; a local part beyond ASCII stands as it is (RFC 6532 §3.2)."""
    if len(mailboxes) == 1 and not mailboxes[0].name:
        return f"{name}: {mailboxes[0].address}\r\n".encode()
    tokens: list[str] = []
    for mailbox in mailboxes:
        if tokens:
            tokens[-1] += ","
        room = WORD if tokens else WORD - len(name) - 1
        tokens += [f" {token}" for token in _mailbox(mailbox, room)]
    return _join(_fold(f"{name}:", tokens))


def parameter(name: str, value: str) -> str:
    """Return a MIME parameter, or the pieces of one, each on a line of its own behind what stands before it.

    Plain ASCII is quoted; everything else is written as RFC 2231 says. So is what looks like an encoded word, and a
    quote or backslash, which not every reader takes for escaped.
    """
    if value.isascii() and not _AWKWARD.search(value):
        return f';\r\n {name}="{value}"'
    pieces = [""]
    for character in value:
        written = quote(character, safe=_ATTRIBUTE_SAFE)
        if len(pieces[-1]) + len(written) > _PIECE:
            pieces.append("")
        pieces[-1] += written
    if len(pieces) == 1:
        return f";\r\n {name}*=utf-8''{pieces[0]}"
    pieces[0] = f"utf-8''{pieces[0]}"
    return "".join(f";\r\n {name}*{number}*={piece}" for number, piece in enumerate(pieces))


def encoded_words(text: str, room: int = WORD) -> list[str]:
    """Return the words that are ``text`` (RFC 2047), in the encoding that is shorter; the first has ``room``.

    No character is divided between two words (RFC 2047 §5).
    """
    data = text.encode()
    escaped = len(data.translate(None, _Q_SAFE))
    if len(data) + 2 * escaped <= (len(data) + 2) // 3 * 4:
        return _q_words(text, room)
    words: list[str] = []
    start = 0
    while start < len(data) or not words:
        end = min(len(data), start + (room - _FRAME) // 4 * 3)
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        words.append(f"=?utf-8?b?{binascii.b2a_base64(data[start:end], newline=False).decode()}?=")
        start, room = end, WORD
    return words


def _q_words(text: str, room: int) -> list[str]:
    words = [""]
    for character in text:
        written = "".join([_Q[code] for code in character.encode()])
        if len(words[-1]) + len(written) > room - _FRAME:
            words.append("")
            room = WORD
        words[-1] += written
    return [f"=?utf-8?q?{word}?=" for word in words]


def _mailbox(mailbox: Mailbox, room: int) -> list[str]:
    """Return the parts of ``Name <a@b>`` between which a line may end."""
    name, address = mailbox.name, mailbox.address
    if not name:
        return [str(address)]
    if name.isascii() and "=?" not in name and len(name) <= _PHRASE_LENGTH and name == name.strip(" "):
        if not _ATOMS.fullmatch(name):
            name = '"' + _TO_ESCAPE.sub(r"\\\1", name) + '"'
        return [name, f"<{address}>"]
    return [*encoded_words(name, room), f"<{address}>"]


def _fold(start: str, tokens: Sequence[str]) -> list[str]:
    """Return the lines of a field from tokens that each begin with a space; the first stands on the first line.

    A line ends before a token and never within one, so that unfolding (RFC 5322 §2.2.3) gives back what was there,
    and each line but the first has more than white space.
    """
    lines = [start + tokens[0]]
    for token in tokens[1:]:
        limit = WORD + 1 if token.startswith(" =?") or "=?" in lines[-1] else LINE
        if len(lines[-1]) + len(token) <= limit:
            lines[-1] += token
        else:
            lines.append(token)
    return lines


def _join(lines: Sequence[str]) -> bytes:
    return ("\r\n".join(lines) + "\r\n").encode()
