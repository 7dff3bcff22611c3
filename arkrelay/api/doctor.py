"""What the doctor found about DNS and this machine. Beyond Ark's contract."""

from typing import Annotated

from arkrelay.api.ask import Ask
from arkrelay.api.model import Answer, Meta, Nothing, Query
from arkrelay.api.refusal import ApiError
from arkrelay.api.shapes import Iso, iso
from arkrelay.model.address import AddressError, parse_domain
from arkrelay.model.errors import NotFound
from arkrelay.policy.finding import Level, Report


class Which(Query):
    """``fresh``: look now, instead of showing the last look; ``domain``: at this sender domain alone."""

    fresh: bool = False
    domain: Annotated[str, Meta(max_length=255)] | None = None


class FindingLine(Answer):
    """One thing that was looked at; ``domain`` is the sender domain that it is about, null for the machine."""

    check: str
    subject: str
    domain: str | None
    level: str
    found: str
    expected: str | None
    advice: str | None


class Findings(Answer):
    """All findings with their number by level; ``checkedAt`` is null before the first look at everything."""

    checked_at: float | None
    checked_at_iso: Iso | None
    ok: int
    warn: int
    fail: int
    skip: int
    findings: list[FindingLine]


async def retrieve(ask: Ask[Which, Nothing]) -> Findings:
    """What was found at the last look; ``fresh`` looks now, which may take a minute where DNS is silent."""
    doctor = ask.parts.doctor
    name = _name(ask.query.domain)
    if name and ask.snapshot.owner_of(name) is None:
        raise ApiError(404, "not_found", f"{name} is not a sender domain.", field="domain")
    report = doctor.report
    if ask.query.fresh:
        try:
            report = await doctor.look(name)
        except NotFound as error:  # removed meanwhile
            raise ApiError(404, "not_found", str(error), field="domain") from None
    return _shape(report, name)


def _name(given: str | None) -> str:
    if given is None:
        return ""
    try:
        return parse_domain(given, utf8=True)
    except AddressError as error:
        raise ApiError(400, "validation_error", f"domain: {error}.", field="domain") from None


def _shape(report: Report | None, domain: str) -> Findings:
    known = report or Report((), 0.0)
    shown = Report(tuple(one for one in known.findings if domain in {"", one.domain}), known.at)
    at = round(known.at, 3) or None
    counts = shown.counts()
    return Findings(
        checked_at=at,
        checked_at_iso=iso(at),
        ok=counts[Level.OK],
        warn=counts[Level.WARN],
        fail=counts[Level.FAIL],
        skip=counts[Level.SKIP],
        findings=[
            FindingLine(
                check=one.check,
                subject=one.subject,
                domain=one.domain or None,
                level=one.level,
                found=one.found,
                expected=one.expected or None,
                advice=one.advice or None,
            )
            for one in shown.findings
        ],
    )
