"""The words of ``bounces.toml``, compiled: by them bounces and answers are told that no standard describes."""

import re
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

_CASELESS = re.IGNORECASE | re.MULTILINE


@dataclass(frozen=True, slots=True)
class Wording:
    """One expression for each question that is asked of a text; ``forms`` in their order."""

    forms: tuple[tuple[str, re.Pattern[str]], ...]
    daemons: re.Pattern[str]
    unattended: re.Pattern[str]
    returned: re.Pattern[str]
    final: re.Pattern[str]
    failed: re.Pattern[str]
    delayed: re.Pattern[str]
    original: re.Pattern[str]
    vacation: re.Pattern[str]
    challenge: re.Pattern[str]
    receipt: re.Pattern[str]


@lru_cache(maxsize=1)
def wording() -> Wording:
    """Return the words of the package; reading them takes some 30 ms, once."""
    text = resources.files("arkrelay.mail").joinpath("bounces.toml").read_text(encoding="utf-8")
    told = tomllib.loads(text)

    def one_of(name: str, frame: str = "{}") -> re.Pattern[str]:
        return re.compile(frame.format("|".join(told[name])), _CASELESS)

    return Wording(
        forms=tuple((row["name"], re.compile(row["words"], _CASELESS)) for row in told["forms"]),
        daemons=one_of("daemons"),
        unattended=one_of("unattended"),
        returned=one_of("returned", r"\A[\s\[*]{{0,9}}(?:{})"),
        final=one_of("final"),
        failed=one_of("failed"),
        delayed=one_of("delayed"),
        original=one_of("original", r"^[ >]{{0,20}}(?:{})"),
        vacation=one_of("vacation", r"\A\s{{0,9}}(?:(?:re|aw|sv): ?)?\[?(?:{})"),
        challenge=one_of("challenge", r"\A\s{{0,9}}\[?(?:{})"),
        receipt=one_of("receipt", r"\A\s{{0,9}}(?:{})\s?(?:\(displayed\)\s?)?(?:[:-]|\Z)"),
    )
