"""The parameters of MAIL and RCPT: SIZE, BODY, SMTPUTF8, AUTH, RET, ENVID, BY; NOTIFY, ORCPT.

Keywords are matched without case, values keep theirs: the xtext of RFC 3461 is somebody's identifier, which
has to come back as it was sent.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from arkrelay.model.errors import Refused

ENVID_CHARS: Final = 100  # RFC 3461 §4.4
ORCPT_CHARS: Final = 500  # RFC 3461 §4.2
AUTH_CHARS: Final = 500  # RFC 4954 §5

_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~]+))?")  # RFC 5321 §4.1.2: esmtp-param
# RFC 3461 §4: "+" and two upper-case digits stand for one character; what it stands for must be printable
# ASCII (§4.2, §4.4), so that no CR, LF or NUL travels on in disguise.
_HEXCHAR = r"\+(?:[2-6][0-9A-F]|7[0-9A-E])"
_XTEXT = re.compile(rf"(?:[!-*,-<>-~]|{_HEXCHAR})+")
_ORCPT = re.compile(rf"[A-Za-z0-9-]+;(?:[!-*,-<>-~]|{_HEXCHAR})+")
_SIZE = re.compile(r"[0-9]{1,20}")  # RFC 1870 §3
_BY = re.compile(r"([+-]?[0-9]{1,9});([NR])T?", re.IGNORECASE)  # RFC 2852 §4; we keep no trace for T


@dataclass(frozen=True, slots=True)
class MailParameters:
    """What MAIL said beside its address; ``size_bytes`` 0 is not declared."""

    size_bytes: int = 0
    body: str = "7BIT"
    smtputf8: bool = False
    ret: str | None = None
    envid: str | None = None
    by: tuple[int, str] | None = None  # seconds, and R or N (RFC 2852 §4)
    requiretls: bool = False  # RFC 8689


@dataclass(frozen=True, slots=True)
class RcptParameters:
    """What RCPT said beside its address."""

    notify: str | None = None
    orcpt: str | None = None


_NO_MAIL: Final = MailParameters()
_NO_RCPT: Final = RcptParameters()


def parse_mail(text: str, *, dsn: bool = True, requiretls: bool = False) -> MailParameters:
    """Return the parameters of MAIL, or raise ``Refused``.

    ``dsn``: RFC 3461 and RFC 2852 are offered here; ``requiretls``: RFC 8689 is.
    """
    if not text:
        return _NO_MAIL
    given = _split(text)
    known = {"SIZE", "BODY", "SMTPUTF8", "AUTH"} | ({"RET", "ENVID", "BY"} if dsn else set())
    if requiretls:
        known.add("REQUIRETLS")
    _refuse_unknown(given, known)
    size = _value(given, "SIZE", _SIZE, 20)
    body = (_value(given, "BODY", _XTEXT, 20) or "7BIT").upper()
    if body not in ("7BIT", "8BITMIME"):
        raise Refused(501, "5.5.4", "BODY is 7BIT or 8BITMIME")
    if given.get("SMTPUTF8") is not None:
        raise Refused(501, "5.5.4", "SMTPUTF8 takes no value")
    if given.get("REQUIRETLS") is not None:
        raise Refused(501, "5.5.4", "REQUIRETLS takes no value")
    # RFC 4954 §5: a server that offers AUTH takes AUTH= too; who we relay for is decided by our own AUTH.
    _value(given, "AUTH", _XTEXT, AUTH_CHARS)
    ret = _value(given, "RET", _XTEXT, 4)
    if ret is not None and ret.upper() not in ("FULL", "HDRS"):
        raise Refused(501, "5.5.4", "RET is FULL or HDRS")
    envid = _value(given, "ENVID", _XTEXT, ENVID_CHARS)
    by = _by(_value(given, "BY", _BY, 17))
    return MailParameters(
        int(size or 0), body, "SMTPUTF8" in given, ret.upper() if ret else None, envid, by, "REQUIRETLS" in given
    )


def parse_rcpt(text: str, *, dsn: bool = True) -> RcptParameters:
    """Return the parameters of RCPT, or raise ``Refused`` with the reply."""
    if not text:
        return _NO_RCPT
    given = _split(text)
    _refuse_unknown(given, {"NOTIFY", "ORCPT"} if dsn else set())
    notify = _value(given, "NOTIFY", _XTEXT, 28)  # RFC 3461 §4.1
    if notify is not None:
        events = notify.upper().split(",")
        if events != ["NEVER"] and (
            not set(events) <= {"SUCCESS", "FAILURE", "DELAY"} or len(set(events)) < len(events)
        ):
            raise Refused(501, "5.5.4", "NOTIFY is NEVER, or a list of SUCCESS, FAILURE and DELAY")
        notify = ",".join(events)
    return RcptParameters(notify, _value(given, "ORCPT", _ORCPT, ORCPT_CHARS))


def _by(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    seconds, _, mode = text.upper().partition(";")
    if mode[0] == "R" and int(seconds) <= 0:
        raise Refused(
            501, "5.5.4", "BY with R needs a time above zero"
        )  # RFC 2852 §4.1: it would have failed already
    return int(seconds), mode[0]


def _split(text: str) -> dict[str, str | None]:
    given: dict[str, str | None] = {}
    for word in text.split(" "):
        if not word:
            continue
        match = _PARAMETER.fullmatch(word)
        if match is None:
            raise Refused(501, "5.5.4", "Parameters are KEYWORD or KEYWORD=VALUE")
        keyword = match[1].upper()
        if keyword in given:
            raise Refused(501, "5.5.4", f"{keyword} is given twice")
        given[keyword] = match[2]
    return given


def _refuse_unknown(given: Mapping[str, str | None], known: set[str]) -> None:
    for keyword in given:
        if keyword not in known:
            raise Refused(555, "5.5.4", f"The parameter {keyword[:40]} is not offered here")


def _value(given: Mapping[str, str | None], keyword: str, form: re.Pattern[str], chars: int) -> str | None:
    """Return the value, or None when the keyword was not given."""
    if keyword not in given:
        return None
    value = given[keyword]
    if value is None or len(value) > chars or not form.fullmatch(value):
        raise Refused(501, "5.5.4", f"The value of {keyword} is malformed")
    return value
