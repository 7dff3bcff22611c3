"""Bounces that are written for people: what servers said before RFC 3464, and what many still say beside it.

Each server has its own words, by which a text is told (``bounces.toml``); then all are read in the same way: is it a
failure or only a delay, whom does it name, and which reply does it quote. Nothing is believed of whom it names: the
address to which it came says for whom it is.
"""

import re
from collections.abc import Mapping

from arkrelay.mail.deliverystatus import TEXT, reply_in
from arkrelay.mail.wording import wording
from arkrelay.model.report import Finding

READ = 8000  # characters; who fails says so at the beginning
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
_STATUS = re.compile(r"[#(\[ ]([45]\.\d{1,3}\.\d{1,3})\b")


def is_daemon(sender: str) -> bool:
    """Return whether the author is one of the names that mail systems write under."""
    return wording().daemons.search(sender) is not None


def read(fields: Mapping[str, str], text: str) -> tuple[str, Finding] | None:
    """Return the form of a bounce and what it says, or None: this is none that we can tell.

    A program as the author, ``X-Failed-Recipients`` or the words of a server must be there, and words of failure
    or delay; people who write "it could not be delivered" are read by people.
    """
    subject = fields.get("subject", "")
    text = text[:READ]
    words = wording()
    original = words.original.search(text)
    said = text[: original.start()] if original is not None and original.start() > 0 else text
    form = next((name for name, form in words.forms if form.search(said)), "")
    listed = fields.get("x-failed-recipients", "")
    if not (form or listed or is_daemon(fields.get("from", "")) or fields.get("x-mailer", "").startswith("<SMTP32")):
        return None
    delayed = words.delayed.search(subject) or words.delayed.search(said)
    failed = listed or words.failed.search(subject) or words.failed.search(said)
    if not delayed and not failed:
        return None
    code, status, reason = _reply(said if original is None else text, said)
    # "550" beside "we try again" is somebody's odd prose: the delay is what happened
    action = "delayed" if delayed and not (listed and not words.delayed.search(subject + said[:600])) else "failed"
    found = _ADDRESS.search(listed) or _ADDRESS.search(said)
    address = found[1] if found is not None else ""
    return form or "prose", Finding(action=action, address=address, status=status, code=code, text=reason)


def _reply(text: str, said: str) -> tuple[int, str, str]:
    """Return the reply that is quoted, or the status and words of the paragraph that fails."""
    quoted = _quoted(said) or (None if text is said else _quoted(text))
    if quoted is not None:
        rest = (said if quoted.string is said else text)[quoted.end() :]
        return reply_in(rest.partition("\n\n")[0][: 2 * TEXT])
    status = _STATUS.search(said)
    return 0, status[1] if status is not None else "", _paragraphs(said)


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
