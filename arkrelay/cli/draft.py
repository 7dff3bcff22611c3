"""The message that a caller of sendmail pipes in: how it ends, whom it names, what it lacks."""

import re
from dataclasses import dataclass
from email.header import Header

from arkrelay.mail.header import Field, HeaderError, find, scan, value
from arkrelay.model.address import Address, AddressError, parse_mailbox

FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")  # RFC 5322 §3.6.8, and the space before the colon that §4.5 still reads
CRLF = "\r\n"
RECIPIENT_FIELDS = (b"to", b"cc", b"bcc")
RESENT_FIELDS = (b"resent-to", b"resent-cc", b"resent-bcc")
# One piece of a list of addresses: a quoted string, a comment without another inside, what stands in angle
# brackets, a separator, or any other run of letters (RFC 5322 §3.4).
PIECE = re.compile(
    r'(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<comment>\((?:[^()\\]|\\.)*\))|<(?P<spec>[^<>]*)>'
    r"|(?P<separator>[,;])|(?P<colon>:)|(?P<plain>[^\"()<>,;:]+)"
)


@dataclass(frozen=True, slots=True)
class Draft:
    """A message as piped in, with canonical line ends; ``header`` ends with CRLF unless it is empty."""

    header: bytes
    body: bytes

    def recipients(self) -> list[str]:
        """Return the addresses of To, Cc and Bcc, or of their Resent- fields when there are any (RFC 5322 §3.6.6).

        Raises ValueError that names the field which cannot be read: then nobody gets the message.
        """
        known = self._fields()
        resent = [field for name in RESENT_FIELDS for field in find(known, name)]
        named = resent or [field for name in RECIPIENT_FIELDS for field in find(known, name)]
        return [spec for field in named for _, spec in _people(field)]

    def author(self) -> Address | None:
        """Return the address of From, or None where there is none with a domain; raise ValueError on a list."""
        found = self._author()
        if found is None or "@" not in found[1]:  # cron writes "From: root (Cron Daemon)"
            return None
        try:
            return parse_mailbox(found[1], utf8=True)
        except AddressError as error:
            raise ValueError(f"From: {error}") from None

    def complete(self, author: Address, full_name: str) -> bytes:
        """Return the message; without a whole address in From, that field names ``author`` and ``full_name``."""
        header = self.header
        if self.author() is None:
            found = self._author()
            name = full_name or (found[0] if found else "")
            header = b"".join(field.raw for field in self._fields() if field.name != b"from")
            header = b"From: " + render_mailbox(name, author) + b"\r\n" + header
        return header + b"\r\n" + self.body

    def _fields(self) -> list[Field]:
        return scan(self.header)

    def _author(self) -> tuple[str, str] | None:
        known = find(self._fields(), b"from")
        people = [person for field in known for person in _people(field)]
        if len(known) > 1 or len(people) > 1:
            raise ValueError("From: expected one address")
        return people[0] if people else None


def render_mailbox(name: str, address: Address) -> bytes:
    """Return ``name <address>`` as a header's value: quoted or encoded as it needs to be."""
    if not name:
        return str(address).encode()
    clean = "".join(char for char in name if char.isprintable())
    if clean.isascii():
        return f"{_phrase(clean)} <{address}>".encode()
    return f"{Header(clean, 'utf-8').encode(linesep=CRLF)} <{address}>".encode()


def split_addresses(text: str) -> list[tuple[str, str]]:
    """Return (name, address) of every mailbox in an address list, groups opened (RFC 5322 §3.4).

    Where a comma or a bracket could be read in two ways this raises ValueError: who reads an address list
    generously can be made to send somebody else's mail (CVE-2023-27043). Addresses are not judged here.
    """
    found: list[tuple[str, str]] = []
    item = _Item()
    at = 0
    while at < len(text):
        piece = PIECE.match(text, at)
        if piece is None:
            raise ValueError("cannot be read as a list of addresses")
        at = piece.end()
        if piece.lastgroup == "separator":
            found += item.finish()
            item = _Item()
        elif piece.lastgroup == "colon":
            item = _Item()  # what came before is the name of a group
        else:
            item.take(piece)
    return found + item.finish()


class _Item:
    """One member of the list while it is read."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.comment = ""
        self.spec: str | None = None

    def take(self, piece: re.Match[str]) -> None:
        kind, text = piece.lastgroup, piece.group()
        if kind == "comment":
            self.comment = text[1:-1]
        elif kind == "spec":
            if self.spec is not None:
                raise ValueError("two addresses without a comma between them")
            self.spec = piece.group("spec").strip()
        elif text.strip():
            if self.spec is not None:
                raise ValueError("something follows an address in angle brackets")
            self.words.append(text)

    def finish(self) -> list[tuple[str, str]]:
        text = "".join(self.words).strip()
        if self.spec is not None:
            if text.startswith('"') and text.endswith('"') and len(text) > 1:
                text = re.sub(r"\\(.)", r"\1", text[1:-1])
            return [(text, self.spec)]
        return [(self.comment, text)] if text else []


def _phrase(name: str) -> str:
    """Return ``name`` as RFC 5322 atoms, or in quotes."""
    if re.fullmatch(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]+", name):
        return name
    return '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'


def _people(field: Field) -> list[tuple[str, str]]:
    name = field.name.decode("ascii").title()
    try:
        return split_addresses(value(field).decode())
    except UnicodeDecodeError:
        raise ValueError(f"{name}: neither ASCII nor UTF-8") from None
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def read_draft(raw: bytes, *, dots: bool) -> Draft:
    """Return what was piped in: Unix lines made CRLF, an mbox "From " line dropped, cut at a lone dot if ``dots``.

    A first line that is no header field starts the body, as sendmail has it. A bare CR stays, and the daemon
    refuses it (RFC 5321 §2.3.8). Raises ValueError when the header cannot be read.
    """
    content = raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    if content.startswith((b"From ", b">From ")):
        content = content.partition(b"\r\n")[2]
    if dots:
        at = 0 if content.startswith(b".\r\n") else content.find(b"\r\n.\r\n") + 2
        if at != 1:
            content = content[:at]
    if content and not content.endswith(b"\r\n"):
        content += b"\r\n"
    end = 0
    while end < len(content):
        stop = content.index(b"\r\n", end)
        line = content[end:stop]
        if not line:
            return _checked(Draft(content[:end], content[stop + 2 :]))
        if not (FIELD.match(line) or (end and line[:1] in b" \t")):
            break
        end = stop + 2
    return _checked(Draft(content[:end], content[end:]))


def _checked(draft: Draft) -> Draft:
    try:
        scan(draft.header)
    except HeaderError as error:
        raise ValueError(str(error)) from None
    return draft
