"""What a reply or a failure means: its class, whether it is final, and the wait that it asked for.

The knowledge is data, in ``replies.toml`` beside this file; here are only the rules about the rules:

- Unknown means softfail. What no rule knows is decided by its first digit (RFC 5321 §4.2.1); a code that is no
  reply to what we sent, and every surprise of our own, is soft.
- A 4xx is never permanent, whatever its text says; a 5xx is, unless its own text says that it will pass.
- A 5xx before MAIL (greeting, EHLO, STARTTLS, AUTH) speaks of this host and of us, not of a recipient: the next
  MX or a later try may be luckier, as Postfix and Exim hold it too. That includes 521 (RFC 7504 §3): hosts send
  it for reputation as well as for "no mail here ever", and nothing tells the two apart, so the recipient stays
  until its lifetime ends. A 521 or 556 (RFC 7504 §4) to MAIL or RCPT is final like every other 5xx.
- A domain or address that does not exist fails at the second try, 15 minutes after the first: long enough for
  a registry's or operator's slip, short enough for a typo. So does an MX on a private or loopback address, the
  domain owner's mistake. A null MX (RFC 7505) is a statement and fails at once.
- Our own trouble (stopping, a bug) is soft and in class ``OTHER``, which blames nobody.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from arkrelay.model.attempt import BounceClass, Classified
from arkrelay.model.reply import Failure, FailureKind, Reply, Stage
from arkrelay.policy.phrases import Phrase, Text

BEFORE_MAIL = frozenset({Stage.GREETING, Stage.EHLO, Stage.STARTTLS, Stage.AUTH})
# Where no text or status code says more, the stage does.
_STAGE_CLASS = {
    Stage.GREETING: BounceClass.CONNECTION,
    Stage.EHLO: BounceClass.PROTOCOL,
    Stage.STARTTLS: BounceClass.TLS_REQUIRED,
    Stage.AUTH: BounceClass.POLICY,
}
SECOND_TRY_S = 900.0  # a domain that does not exist is asked for once more, 15 minutes later
HINT_EXTRA_S = 10.0  # Ark contract §9.2: the wait that a 4xx names, and 10 s
HINT_MAX_S = 3600.0  # no peer puts our mail off for longer than this
TEXT_MAX = 500  # a reply's text is cut there when it is read; the cost of a look-up rests on it

_STATUS = re.compile(r"(?<![\d.])[245]\.\d{1,3}\.\d{1,3}(?![\d.])")
_UNITS = {"s": 1, "m": 60, "h": 3600}
_WAIT = re.compile(
    r"(?:again|retry|resend|come back|wait|delay|deferred|gr[ae]y.?list)[^0-9]{0,40}"
    r"(?:(\d{1,3}):(\d{2}):(\d{2})\b|(\d{1,6}) ?(s|m|h)(?:ec|in|r|our|econd|inute)?s?\b)"
)
_WAIT_BEFORE = re.compile(r"\b(\d{1,6}) ?(s|m|h)(?:ec|in|r|our|econd|inute)?s? (?:later|and (?:try|retry))")


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of ``replies.toml``."""

    code: str
    enhanced: str
    text: Phrase | None
    bounce_class: BounceClass
    soft: bool
    source: str
    lane: str = ""

    def __str__(self) -> str:
        """Return what it asks of a reply, as ``replies.toml`` says it."""
        text = self.text and f"text = '{self.text.expression}'"
        parts = (self.code and f'code = "{self.code}"', self.enhanced and f'enhanced = "{self.enhanced}"', text)
        return ", ".join(part for part in parts if part)

    def fits(self, status: str, text: Text) -> bool:
        """Return whether status code and text fit; the code was looked at by the caller."""
        if self.enhanced and not _same_status(self.enhanced, status):
            return False
        return self.text is None or self.text.search(text)


def _same_status(pattern: str, status: str) -> bool:
    if pattern.startswith("X."):
        pattern, status = pattern[2:], status[2:]
    if pattern.endswith(".*"):
        return status.startswith(pattern[:-1])
    return status == pattern


class Rules:
    """The rules in their order, sorted once by reply code so that a look-up passes over few of them."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.all = tuple(rules)
        codes = {rule.code for rule in self.all} | {"4", "5"}
        self._by_code = {
            code: tuple(rule for rule in self.all if not rule.code or code.startswith(rule.code)) for code in codes
        }

    @classmethod
    def load(cls) -> "Rules":
        """Return the rules of the package, compiled; takes some 30 ms, so it is done once, at start."""
        text = resources.files("arkrelay.policy").joinpath("replies.toml").read_text(encoding="utf-8")
        return cls(_parse_rule(row) for row in tomllib.loads(text)["rules"])

    def find(self, code: int, status: str, text: str) -> Rule | None:
        """Return the first rule that fits, or None; ``text`` as ``plain`` returns it."""
        rules = self._by_code.get(str(code)) or self._by_code[str(code // 100)]
        searched = Text(text)
        return next((rule for rule in rules if rule.fits(status, searched)), None)


def _parse_rule(row: Mapping[str, Any]) -> Rule:
    text = row.get("text")
    return Rule(
        code=row.get("code", ""),
        enhanced=row.get("enhanced", ""),
        text=Phrase(text) if text else None,
        bounce_class=BounceClass(row["class"]),
        soft=not row.get("permanent", True),
        source=row["from"],
        lane=row.get("lane", "block" if row["class"] == "blocklisted" else ""),
    )


_SECOND_TRY = frozenset({FailureKind.NO_DOMAIN, FailureKind.NO_ADDRESS, FailureKind.FORBIDDEN})
_AT_ONCE = frozenset(
    {
        FailureKind.NULL_MX,
        FailureKind.LOOP,
        FailureKind.TOO_LARGE,
        FailureKind.NO_SMTPUTF8,
        FailureKind.NO_REQUIRETLS,
        FailureKind.ENCRYPTION_NEEDED,
        FailureKind.EXPIRED,
    }
)
_FAILURE_CLASS = {
    FailureKind.NO_DOMAIN: BounceClass.NO_DOMAIN,
    FailureKind.NULL_MX: BounceClass.NOT_ACCEPTING,
    FailureKind.NO_ADDRESS: BounceClass.NO_DOMAIN,
    FailureKind.RESOLVER: BounceClass.RESOLVER,
    FailureKind.FORBIDDEN: BounceClass.ROUTING,
    FailureKind.LOOP: BounceClass.ROUTING,
    FailureKind.REFUSED: BounceClass.CONNECTION,
    FailureKind.UNREACHABLE: BounceClass.CONNECTION,
    FailureKind.TIMEOUT: BounceClass.CONNECTION,
    FailureKind.CLOSED: BounceClass.CONNECTION,
    FailureKind.TLS: BounceClass.TLS_REQUIRED,
    FailureKind.NO_REQUIRETLS: BounceClass.TLS_REQUIRED,
    FailureKind.ENCRYPTION_NEEDED: BounceClass.TLS_REQUIRED,
    FailureKind.PROTOCOL: BounceClass.PROTOCOL,
    FailureKind.TOO_LARGE: BounceClass.TOO_LARGE,
    FailureKind.NO_SMTPUTF8: BounceClass.POLICY,
    FailureKind.EXPIRED: BounceClass.EXPIRED,
    FailureKind.STOPPED: BounceClass.OTHER,
    FailureKind.INTERNAL: BounceClass.OTHER,
}


def classify(result: Reply | Failure, rules: Rules, *, attempts: int) -> Classified:
    """Return what ``result`` means for a recipient that was tried ``attempts`` times, this try included.

    A success (2xx to the final dot) is not for this function; it would be called a protocol error, and soft.
    """
    if isinstance(result, Failure):
        return _classify_failure(result, attempts)
    if result.code // 100 not in {4, 5}:
        return Classified(BounceClass.PROTOCOL, permanent=False)
    text = plain(result.text, result.enhanced)
    rule = rules.find(result.code, status_of(result), text)
    if rule is None:  # only with rules of one's own: the last of ours know every digit
        bounce_class = BounceClass.TRY_LATER if result.code < 500 else BounceClass.OTHER
        return Classified(bounce_class, permanent=result.code >= 500 and result.stage not in BEFORE_MAIL)
    bounce_class = rule.bounce_class
    if result.stage in BEFORE_MAIL and rule.text is None:
        bounce_class = _class_before_mail(result, bounce_class)
    if result.code < 500:
        return Classified(bounce_class, permanent=False, wait_s=wait_hint(text), lane=rule.lane)
    return Classified(bounce_class, permanent=not (rule.soft or result.stage in BEFORE_MAIL), lane=rule.lane)


def _classify_failure(failure: Failure, attempts: int) -> Classified:
    bounce_class = _FAILURE_CLASS[failure.kind]
    if failure.kind in _AT_ONCE:
        return Classified(bounce_class, permanent=True)
    if failure.kind in _SECOND_TRY:
        return (
            Classified(bounce_class, permanent=True)
            if attempts >= 2
            else Classified(bounce_class, permanent=False, wait_s=SECOND_TRY_S)
        )
    return Classified(bounce_class, permanent=False)


def _class_before_mail(reply: Reply, bounce_class: BounceClass) -> BounceClass:
    """Return a class that blames no recipient, for nobody has named one yet."""
    if reply.code < 500 or reply.code == 521:
        return bounce_class
    return _STAGE_CLASS[reply.stage]


def status_of(reply: Reply) -> str:
    """Return the status code with the class of the reply code, from its place or out of the text; "" if none.

    The reply code decides the class (RFC 5321 §4.2.1): "450 5.1.1" is temporary. A code in the text, as
    "550 #5.1.0 Address rejected", counts only when its class agrees.
    """
    digit = str(reply.code // 100)
    if reply.enhanced and _STATUS.fullmatch(reply.enhanced):
        return digit + reply.enhanced[1:]
    found = _STATUS.search(reply.text[:TEXT_MAX])
    return found[0] if found and found[0].startswith(digit) else ""


def plain(text: str, enhanced: str | None = None) -> str:
    """Return the text as the rules want it: lower case, single spaces, without mail addresses and its status code.

    An address may hold any word ("spam@example.org", "quota@…") and must not decide its own fate.
    """
    ascii_text = text[:TEXT_MAX].encode("ascii", "replace").decode()  # the rules have nothing else, and it is faster
    words = ascii_text.lower().split()
    return " ".join("@" if "@" in word else word for word in words if word != enhanced)


def wait_hint(text: str) -> float | None:
    """Return the wait in seconds that a temporary reply asks for, with our margin, at most an hour.

    Greylisting servers name it: "try again in 300 seconds", "greylisted for 5 minutes", "come back in 00:04:59".
    """
    if found := _WAIT.search(text):
        hours, minutes, seconds, count, unit = found.groups()
        wait_s = int(count) * _UNITS[unit] if count else int(hours) * 3600 + int(minutes) * 60 + int(seconds)
    elif found := _WAIT_BEFORE.search(text):
        wait_s = int(found[1]) * _UNITS[found[2]]
    else:
        return None
    return min(wait_s + HINT_EXTRA_S, HINT_MAX_S)
