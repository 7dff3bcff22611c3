"""A reply as people paste it: alone, with several lines, as a bare status code, as words, or inside of a log line.

What is read is a ``Reply``, or a ``Failure`` where the words tell that none came. Whatever is missing is assumed, and
``Pasted.assumed`` says so: a person who pastes half a reply wants half an answer, not an error.
"""

import json
import re
from dataclasses import dataclass

from arkrelay.model.errors import ArkrelayError
from arkrelay.model.reply import Failure, FailureKind, Reply, Stage

LONGEST = 8000  # characters that are looked at: the beginning of a reply says what it means
TEXT_MAX = 500  # as of every reply that is kept

_STATUS = r"[245]\.\d{1,3}\.\d{1,3}"
_CODE = r"[2-5]\d\d"
_USUAL = r"[2-5][0-5]\d"  # RFC 5321 §4.2.1: no other second digit has a meaning, and numbers in a log may be anything
_FIRST = re.compile(rf"\s*(?:[<>*|]|S:|<--)*\s*({_CODE})(?:[ -]+#?({_STATUS})(?![\d.]))?(?=[ \-:]|$)[ \-:]*")
_WITH_STATUS = re.compile(rf"(?<![\w.:/\[-])({_CODE})[ -]#?({_STATUS})(?![\d.])[ \-:]*")
_ANYWHERE = re.compile(rf"(?<![\w.:/=\[-])({_USUAL})[ -](?=[A-Za-z<#\[\"'])")
_LONE_STATUS = re.compile(rf"(?<![\d.])({_STATUS})(?![\d.])[ \-:]*")
# what stands before a reply in logs: postfix, exim, DSNs, and our own sentences
_MARK = re.compile(
    rf"(?:\bsaid: |\bto me: |\bsmtp; ?|\b(?:after|response to) .{{1,250}}?: "
    rf"|\bfailed at [^:]{{1,100}}(?::[^ ]{{1,20}})? \([^)]{{1,255}}\): )(?={_CODE}\b)",
    re.IGNORECASE,
)
_OURS = re.compile(r"""\breply=(?:"((?:[^"\\]|\\.){0,2000})"|'((?:[^'\\]|\\.){0,2000})'|([^\s"']\S*))""")
_KEYS = ("reply", "output", "details", "reason", "response", "message")  # of a JSON object that holds a reply
_IN_REPLY = re.compile(
    r"\(?(?:in reply to|after) (?:pipelined )?(end of data|rcpt|mail|ehlo|helo|data|starttls|auth|initial connection)"
    r"[^:)]*(?:command)?\)?",
    re.IGNORECASE,
)
_STAGES = {
    "end of data": Stage.DOT,
    "rcpt": Stage.RCPT,
    "mail": Stage.MAIL,
    "ehlo": Stage.EHLO,
    "helo": Stage.EHLO,
    "data": Stage.DATA,
    "starttls": Stage.STARTTLS,
    "auth": Stage.AUTH,
    "initial connection": Stage.GREETING,
}
_FAILURES: tuple[tuple[re.Pattern[str], FailureKind, Stage], ...] = tuple(
    (re.compile("|".join(words), re.IGNORECASE), kind, stage)
    for words, kind, stage in (
        (("null mx", "nullmx", "says that it takes no mail"), FailureKind.NULL_MX, Stage.RESOLVE),
        (
            (
                *("nxdomain", "no such domain", "domain does not exist", "host or domain name not found"),
                *("unrouteable mail domain", "name or service not known"),
            ),
            FailureKind.NO_DOMAIN,
            Stage.RESOLVE,
        ),
        (
            (
                *("servfail", "temporary failure in name resolution", "no answer from (?:any|the) nameserver"),
                *("dns (?:error|lookup)", "host (?:name )?lookup"),
            ),
            FailureKind.RESOLVER,
            Stage.RESOLVE,
        ),
        (("requiretls",), FailureKind.NO_REQUIRETLS, Stage.EHLO),
        (
            ("tls handshake", "certificate", r"\bssl\b", "does not offer starttls", "tls is required", "dane:"),
            FailureKind.TLS,
            Stage.STARTTLS,
        ),
        (("connection refused",), FailureKind.REFUSED, Stage.CONNECT),
        (("no route to host", "unreachable"), FailureKind.UNREACHABLE, Stage.CONNECT),
        (("timed out", "timeout", "no connection within", "nothing within"), FailureKind.TIMEOUT, Stage.CONNECT),
        (
            (
                *("reset by peer", "reset the connection", "the peer closed", "lost connection"),
                *("connection (?:was )?closed", "remote host closed", "broken pipe"),
            ),
            FailureKind.CLOSED,
            Stage.CONNECT,
        ),
    )
)


class NotAReply(ArkrelayError):
    """Nothing in this tells of a refusal."""


@dataclass(frozen=True, slots=True)
class Pasted:
    """What was read; ``assumed`` says in a sentence what was not there, or is empty."""

    result: Reply | Failure
    code: int | None  # as it was given
    assumed: str = ""


def parse(given: str) -> Pasted:
    """Return the refusal that ``given`` tells of; raise ``NotAReply`` where it is empty or tells of none."""
    text = _own_line(given[:LONGEST].strip())
    if not text:
        raise NotAReply("there is nothing to explain: paste a server's reply, such as 550 5.7.1 and its words")
    text, stage = _without_stage(text)
    found = _find(text)
    if found is not None:
        code, status, words = found
        if code < 400:
            what = "a success: the server took it" if code < 300 else "no refusal: the server only asks for more"
            raise NotAReply(f"{code} is {what}")
        assumed = "" if stage else "taken for an answer to RCPT, since the line does not say to which command"
        return Pasted(Reply(code, status, _clean(words), stage or Stage.RCPT), code, assumed)
    for pattern, kind, where in _FAILURES:
        if pattern.search(text):
            return Pasted(Failure(kind, where, _clean(text)), None)
    lone = _LONE_STATUS.search(text)
    if lone is not None and lone[1][0] != "2":
        code = 550 if lone[1][0] == "5" else 450
        words = text[lone.end() :] if text[: lone.start()].strip() == "" else text
        said = f"no reply code was given: taken for a {code // 100}xx, by the status code"
        return Pasted(Reply(code, lone[1], _clean(words), stage or Stage.RCPT), None, said)
    said = "no code was given: taken for a final refusal (5xx); a 4xx with these words would be tried again"
    return Pasted(Reply(550, None, _clean(text), stage or Stage.RCPT), None, said)


def _own_line(text: str) -> str:
    """Return the reply of a line of our own log, in any of its forms; other text as it is."""
    if text.startswith("{"):
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            return next((row[key].strip() for key in _KEYS if isinstance(row.get(key), str) and row[key].strip()), "")
    found = _OURS.search(text)
    if found is None:
        return text
    said = found[1] if found[1] is not None else found[2] if found[2] is not None else found[3]
    return re.sub(r"\\(.)", r"\1", said).strip()


def _without_stage(text: str) -> tuple[str, Stage | None]:
    """Return the text without the words that say to which command it was an answer, and that command."""
    if "refused to talk to me" in text:
        return text, Stage.GREETING
    found = _IN_REPLY.search(text)
    if found is None:
        return text, None
    stage = _STAGES[found[1].lower()]
    return (text[: found.start()].rstrip() if found[0].startswith("(") else text), stage


def _find(text: str) -> tuple[int, str | None, str] | None:
    """Return code, status code and words of the reply in ``text``, or None where there is no code."""
    for mark in _MARK.finditer(text):
        text = text[mark.end() :]
        break
    found = _FIRST.match(text) or _WITH_STATUS.search(text) or _ANYWHERE.search(text)
    if found is None:
        return None
    code = found[1]
    status = found[2] if found.re.groups > 1 else None
    if status is not None and status[0] != code[0]:
        status = None  # RFC 2034 §4: it must be of the class of its reply
        rest = text[found.end(1) :]
    else:
        rest = text[found.end() :]
    # the further lines of a reply repeat its code, and mostly its status code
    repeated = (
        rf"(?:^|(?<=\s)){code}(?:[ -]|$)(?:{re.escape(status)}(?:[ -]|$))?" if status else rf"(?:^|(?<=\s)){code}-"
    )
    lines = [re.sub(rf"^\s*(?:[<>*|]|S:|<--)*\s*{code}[ -](?:#?{_STATUS} )?", "", line) for line in rest.split("\n")]
    return int(code), status, re.sub(repeated, "", " ".join(lines))


def _clean(text: str) -> str:
    """Return words as a reply is kept: one line, nothing that does not print, bounded."""
    words = "".join(char if char.isprintable() else " " for char in text).split()
    return " ".join(words)[:TEXT_MAX].rstrip()
