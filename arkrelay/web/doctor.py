"""What the doctor found: the organisation sees all of it, a tenant what is about its own domains."""

from aiohttp import web

from arkrelay.policy.finding import Finding, Level
from arkrelay.web.visit import Page, Visit

CLASSES = {Level.OK: "good", Level.WARN: "warm", Level.FAIL: "bad", Level.SKIP: ""}
_ORDER = [Level.FAIL, Level.WARN, Level.SKIP, Level.OK]


async def show(visit: Visit) -> Page:
    """Return the last look, what is worst first."""
    report = visit.parts.doctor.report
    found = findings(visit)
    return Page(
        "doctor.html",
        "Doctor",
        {
            "at": report.at if report is not None and report.at else None,
            "found": sorted(found, key=lambda one: _ORDER.index(one.level)),
            "counts": [(level, sum(one.level is level for one in found)) for level in _ORDER],
            "classes": CLASSES,
            "may_look": visit.caller.tenant_id is None,
        },
    )


async def look(visit: Visit) -> web.StreamResponse:
    """Look at everything now."""
    visit.require_organisation()
    counts = (await visit.parts.doctor.look()).counts()
    failed, warned = counts[Level.FAIL], counts[Level.WARN]
    visit.say(
        "All is in order." if not failed + warned else f"{failed} failed, {warned} could be better.", good=not failed
    )
    return visit.go("doctor")


def findings(visit: Visit) -> list[Finding]:
    """Return what of the last look this key may see; nothing before the first."""
    report = visit.parts.doctor.report
    if report is None:
        return []
    own = {domain.name for tenant in visit.tenants for domain in tenant.domains}
    return [
        one for one in report.findings if one.domain in own or (visit.caller.tenant_id is None and not one.domain)
    ]
