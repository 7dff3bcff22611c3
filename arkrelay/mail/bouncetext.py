"""Bounces that are written for people: what servers said before RFC 3464, and what many still say beside it.

Each server has its own words, by which a text is told (``bounces.toml``); then all are read in the same way: is it a
failure or only a delay, whom does it name, and which reply does it quote. Nothing is believed of whom it names: the
address to which it came says for whom it is.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from arkrelay.mail.deliverystatus import TEXT, reply_in
from arkrelay.mail.wording import Wording, wording
from arkrelay.model.report import Finding

READ = 8000  # characters; who fails says so at the beginning
FIRST = 600  # characters that say what happened, where a field lists who failed
ENOUGH = 20  # characters of a reason

_CODE = re.compile(r"[45]\d\d[ -]")  # without one there is no reply to look for, and most texts have none
_ADDRESS = re.compile(r"(?:mailto:)?([^\s<>()\[\]:;,\"'|@]{1,64}@[A-Za-z0-9.-]{1,190}[A-Za-z0-9])")
# A reply within prose: introduced, or with a status code, or at the start of a line.
_QUOTED = re.compile(
    r"(?:(?:said|says|response|reason|error|replied|respond\w*|returned|was|code|server|state"
    r"|<<<|smtp;|rcpt to:?.{0,100}?:)"
    r"\s{0,3}[:=(]?\s{0,40}(?:host .{1,200}?:\s{0,20})?[\"'(#]{0,2}(?=[45]\d\d[ -])"
    r"|(?<![\d.])(?=[45]\d\d[ -]{1,2}\(?#?[45]\.\d{1,3}\.\d{1,3})"
    r"|^[ >\t<#\"(]{0,12}(?=[45]\d\d[ -])|^[^\s@]{1,64}@[^\s@]{1,190}: (?=[45]\d\d[ -]))",
    re.IGNORECASE | re.MULTILINE,
)
_QUOTING = re.compile(r"^[ \t]{0,3}>.*\n?", re.MULTILINE)  # what sendmail said itself (">>> DATA") goes as well
_STATUS = re.compile(r"[#(\[ ]([45]\.\d{1,3}\.\d{1,3})\b")


class Bounce(NamedTuple):
    """What a text says, ``form`` by whose words; ``by_daemon``: a mail system wrote it and no person's program."""

    form: str
    finding: Finding
    by_daemon: bool


def is_daemon(fields: Mapping[str, str]) -> bool:
    """Return whether a mail system wrote this, by its author's name or a field that only such give."""
    named = wording().daemons.search(fields.get("from", "")) is not None
    return named or bool(fields.get("x-failed-recipients")) or fields.get("x-mailer", "").startswith("<SMTP32")


def read(fields: Mapping[str, str], text: str) -> Bounce | None:
    """Return what a bounce says, or None: this is none that we can tell.

    A mail system as the author, or else a reply beside the words of a server or an address that nobody reads, must
    be there, and words of failure or delay; people who write "it could not be delivered" are read by people. Lines
    that quote another message (``>``) are not read.
    """
    text = _QUOTING.sub("", text[:READ])
    words = wording()
    original = words.original.search(text)
    said = text[: original.start()] if original is not None and original.start() > 0 else text
    form = next((name for name, form in words.forms if form.search(said)), "")
    daemon = is_daemon(fields)
    unattended = not daemon and words.unattended.search(fields.get("from", "")) is not None
    if not (daemon or form or unattended):
        return None
    quoted = _quoted(said)
    if not daemon and quoted is None and _STATUS.search(said) is None:
        return None
    action = _action(words, fields, said, quoted)
    if not action:
        return None
    code, status, reason = _reply(quoted, said if original is None else text, said)
    found = _ADDRESS.search(fields.get("x-failed-recipients", "")) or _ADDRESS.search(said)
    address = found[1] if found is not None else ""
    finding = Finding(action=action, address=address, status=status, code=code, text=reason)
    return Bounce(form or "prose", finding, daemon or unattended)


def _action(words: Wording, fields: Mapping[str, str], said: str, quoted: re.Match[str] | None) -> str:
    """Return "failed", "delayed" or, where neither is said, "".

    What is final is said of a delay that has ended; else "we try again" is what happened, whatever reply stands
    beside it. A reply's own words do not count: "451 temporarily unable" is also what a server gave up on.
    """
    subject, listed = fields.get("subject", ""), fields.get("x-failed-recipients", "")
    if words.returned.match(subject) or words.final.search(said):
        return "failed"
    beside = said if quoted is None else said[: quoted.start()] + _after_reply(said, quoted)
    if words.delayed.search(subject) or words.delayed.search(beside[:FIRST] if listed else beside):
        return "delayed"
    return "failed" if listed or words.failed.search(subject) or words.failed.search(said) else ""


def _reply(quoted: re.Match[str] | None, text: str, said: str) -> tuple[int, str, str]:
    """Return the reply that is quoted, or the status and words of the paragraph that fails."""
    if quoted is None and text is not said:
        quoted = _quoted(text)
    if quoted is not None:
        return reply_in(quoted.string[quoted.end() :].partition("\n\n")[0][: 2 * TEXT])
    status = _STATUS.search(said)
    return 0, status[1] if status is not None else "", _paragraphs(said)


def _after_reply(said: str, quoted: re.Match[str]) -> str:
    return "".join(said[quoted.end() :].partition("\n\n")[1:])


def _quoted(text: str) -> re.Match[str] | None:
    return _QUOTED.search(text) if _CODE.search(text) is not None else None


def _paragraphs(said: str) -> str:
    """Return the words that tell why: those behind the first address, and what stands before if they are few."""
    at = _ADDRESS.search(said)
    if at is None:
        return " ".join(said.split())[:TEXT]
    words = " ".join(said[at.end() :].split()).lstrip(">:)]'\" ")
    before = " ".join(said[: at.start()].split())
    return (words if len(words) > ENOUGH else f"{words} {before}".strip())[:TEXT]
