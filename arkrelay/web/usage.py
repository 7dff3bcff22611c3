"""What was sent and what became of it: by day or hour as bars, and by tenant."""

import time
from datetime import UTC, datetime
from typing import Final

from arkrelay.model.message import Status
from arkrelay.policy.periods import Granularity, Period, PeriodError, parse_period, starts
from arkrelay.store.usage import DAY, QUARTER, Counts, list_usage, nothing, sum_usage
from arkrelay.web.charts import Bar, draw
from arkrelay.web.overview import KINDS
from arkrelay.web.visit import Page, Visit

PERIODS: Final = {
    "today": "Today",
    "yesterday": "Yesterday",
    "last_7_days": "7 days",
    "last_30_days": "30 days",
    "last_90_days": "90 days",
    "this_month": "This month",
    "last_month": "Last month",
}
DEFAULT: Final = "last_30_days"
SHORT_DAYS: Final = 2  # so few are shown by the hour
MONTHS_FROM: Final = 120  # so many days are shown by the month
ROWS: Final = 200  # tenants


async def show(visit: Visit) -> Page:
    """Return the figures of a period."""
    asked, now = visit.asked("period") or DEFAULT, time.time()
    problem = ""
    try:
        period = parse_period(asked, UTC, now)
    except PeriodError as error:
        problem, asked = f"The period {error}.", DEFAULT
        period = parse_period(DEFAULT, UTC, now)
    begins, name, form = _parts(period)
    tenant_id = visit.wanted_tenant
    parts, by_tenant = await visit.parts.store.read(
        lambda db: (
            list_usage(db, tenant_id, begins, period.end, name),
            sum_usage(db, period.start, period.end, visit.caller.tenant_id),
        )
    )
    bars = [
        Bar(datetime.fromtimestamp(at, UTC).strftime(form), tuple(counts[kind] for kind in KINDS.values()))
        for at, counts in zip(begins, parts, strict=True)
    ]
    whole = {status: sum(counts[status] for counts in parts) for status in nothing()}
    rows = sorted(
        ((tenant, _figures(by_tenant[tenant.id])) for tenant in visit.tenants if tenant.id in by_tenant),
        key=lambda row: (-row[1]["sent"], row[0].name),
    )
    return Page(
        "usage.html",
        "Usage",
        {
            "asked": asked,
            "problem": problem,
            "periods": PERIODS,
            "tenant": tenant_id,
            "tenants": visit.tenants,
            "bars": bars,
            "kinds": list(KINDS),
            "chart": draw(bars, list(KINDS), "Recipients"),
            "part": {"%H:00": "Hour", "%-d %b": "Day"}.get(form, "Month" if "%Y" in form else "Hour"),
            "figures": _figures(whole),
            "rows": rows[:ROWS],
            "more_rows": max(0, len(rows) - ROWS),
        },
        400 if problem else 200,
    )


def _parts(period: Period) -> tuple[list[float], str, str]:
    """Return where the bars begin, by which counters they are counted, and what each is called."""
    days = (period.last - period.first).days + 1
    granularity: Granularity = "hour" if days <= SHORT_DAYS else "day" if days <= MONTHS_FROM else "month"
    form = {"hour": "%H:00" if days == 1 else "%-d %b %H:00", "day": "%-d %b", "month": "%b %Y"}[granularity]
    return list(starts(period, granularity)), QUARTER if granularity == "hour" else DAY, form


def _figures(counts: Counts) -> dict[str, float]:
    sent = sum(counts.values())
    bad = counts[Status.BOUNCED] + counts[Status.HARDFAIL]
    return {
        "sent": sent,
        "delivered": counts[Status.SENT],
        "deferred": counts[Status.SOFTFAIL],
        "held": counts[Status.HELD],
        "failed": counts[Status.HARDFAIL],
        "bounced": counts[Status.BOUNCED],
        "delivered_share": 100 * counts[Status.SENT] / sent if sent else 0,
        "bad_share": 100 * bad / sent if sent else 0,
    }
