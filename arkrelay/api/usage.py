"""What was sent and what became of it, by tenant and by time (Ark contract §8.3, §8.11, §17).

Everything is counted by recipient, under the state that it is in now and at the time at which it was accepted: a
message of yesterday that is delivered today is one of yesterday's delivered ones. ``sent`` is the sum of the other
five, so what is still pending is not in it before its first attempt. The organisation's figures include mail of
tenants that were removed since; the lists show the tenants that there are.
"""

import time
from collections.abc import Mapping
from functools import lru_cache
from itertools import islice
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from arkrelay.api.ask import Ask
from arkrelay.api.model import MAX_PER_PAGE, Answer, Meta, Nothing, Page, Query
from arkrelay.api.refusal import ApiError
from arkrelay.api.shapes import iso
from arkrelay.model.message import Status
from arkrelay.model.tenant import Tenant
from arkrelay.policy.periods import FORMS, Granularity, Period, PeriodError, parse_period, starts
from arkrelay.store.usage import Counts, list_usage, nothing, sum_usage

MAX_POINTS: Final = 10_000  # in one series: a year of hours, and a little more
PER_PAGE: Final = 50  # Ark contract §3
DIGITS: Final = 6  # of a rate: one in a million

Sort = Literal[
    "sent",
    "-sent",
    "delivered",
    "-delivered",
    "bounce_rate",
    "-bounce_rate",
    "delivery_rate",
    "-delivery_rate",
    "tenant_name",
    "-tenant_name",
]
TenantStatus = Literal["active", "suspended", "archived"]


class UsageQuery(Query):
    """A time, in a time zone."""

    period: Annotated[str, Meta(max_length=30, description=f"{FORMS}.", examples=["last_month", "2026-02"])] = (
        "this_month"
    )
    timezone: Annotated[
        str, Meta(max_length=64, description="Where its days begin: an IANA name.", examples=["Europe/Berlin"])
    ] = "UTC"


class SeriesQuery(UsageQuery):
    """And how it is divided."""

    granularity: Annotated[Granularity, Meta(description="What each point stands for.")] = "day"


class TenantsQuery(UsageQuery):
    """And for which tenants."""

    status: Annotated[TenantStatus | None, Meta(description="Tenants in this state only.")] = None
    min_sent: Annotated[int, Meta(ge=0, description="Tenants that sent at least as much.")] = 0


class ListQuery(TenantsQuery):
    """And in which order."""

    sort: Annotated[Sort, Meta(description="What they are ordered by; with - the largest first.")] = "-sent"
    page: Annotated[int, Meta(ge=1, le=2**31)] = 1
    per_page: Annotated[int, Meta(ge=1, le=MAX_PER_PAGE)] = PER_PAGE


class Snake(Answer, rename=None):
    """An answer whose keys the contract has in snake_case (§7)."""


class UsagePeriod(Answer):
    """From the first to the last millisecond."""

    start: str
    end: str


class EmailCounts(Snake):
    """Recipients by what became of them; they sum up to ``sent``."""

    sent: int
    delivered: int
    soft_failed: int
    hard_failed: int
    bounced: int
    held: int


class EmailRates(Snake):
    """From 0 to 1: delivered, and bounced or hard failed, of what was sent; 0 of nothing."""

    delivery_rate: float
    bounce_rate: float


class TenantCounts(Answer):
    """How many tenants there are, may send, and sent something."""

    total: int
    active: int
    with_activity: int


class OrgUsage(Answer):
    """What all tenants sent."""

    period: UsagePeriod
    emails: EmailCounts
    rates: EmailRates
    tenants: TenantCounts


class TenantUsageItem(Answer):
    """What one of the tenants sent."""

    tenant_id: str
    tenant_name: str
    external_id: str | None
    status: TenantStatus
    emails: EmailCounts
    rates: EmailRates


class TenantUsage(Snake):
    """What the tenant sent."""

    tenant_id: str
    tenant_name: str
    external_id: str | None
    period: UsagePeriod
    emails: EmailCounts
    rates: EmailRates


class UsagePoint(EmailCounts):
    """What was sent from ``timestamp`` to the next point's."""

    timestamp: str


class TenantUsageTimeseries(Snake):
    """What the tenant sent, one point for every part of the period."""

    tenant_id: str
    tenant_name: str
    granularity: Granularity
    period: UsagePeriod
    data: list[UsagePoint]


async def retrieve(ask: Ask[UsageQuery, Nothing]) -> OrgUsage:
    """What all tenants sent in a time.

    Mail of tenants that were removed since is in it.
    """
    period = period_of(ask.query)
    found = await ask.parts.store.read(lambda db: sum_usage(db, period.start, period.end))
    emails = email_counts({status: sum(one[status] for one in found.values()) for status in nothing()})
    tenants = ask.snapshot.tenants
    return OrgUsage(
        period=shape_period(period),
        emails=emails,
        rates=rates(emails),
        tenants=TenantCounts(
            total=len(tenants),
            active=sum(tenant.status == "active" for tenant in tenants.values()),
            with_activity=sum(any(counts.values()) for id_, counts in found.items() if id_ in tenants),
        ),
    )


async def list_tenants(ask: Ask[ListQuery, Nothing]) -> Page[TenantUsageItem]:
    """What each tenant sent in a time, one page of them."""
    query = ask.query
    period = period_of(query)
    found = await rows(ask, query, period)
    key = query.sort.removeprefix("-")
    found.sort(key=lambda one: one.tenant_id)  # what is alike keeps its place from page to page
    found.sort(key=lambda one: _measure(one, key), reverse=query.sort.startswith("-"))
    start = (query.page - 1) * query.per_page
    return Page(
        found[start : start + query.per_page],
        query.page,
        query.per_page,
        len(found),
        more={"period": shape_period(period)},
    )


async def retrieve_tenant(ask: Ask[UsageQuery, Nothing]) -> TenantUsage:
    """What one tenant sent in a time."""
    tenant, period = ask.tenant, period_of(ask.query)
    found = await ask.parts.store.read(lambda db: sum_usage(db, period.start, period.end, tenant.id))
    emails = email_counts(found.get(tenant.id, nothing()))
    return TenantUsage(
        tenant_id=tenant.id,
        tenant_name=tenant.name,
        external_id=external_id(tenant),
        period=shape_period(period),
        emails=emails,
        rates=rates(emails),
    )


async def retrieve_timeseries(ask: Ask[SeriesQuery, Nothing]) -> TenantUsageTimeseries:
    """What one tenant sent in each hour, day, week or month of a time.

    Parts in which nothing was sent are there too. The first and the last may be cut by the period; weeks begin on
    Monday. More than 10 000 parts are refused.
    """
    tenant, period, granularity = ask.tenant, period_of(ask.query), ask.query.granularity
    begins = list(islice(starts(period, granularity), MAX_POINTS + 1))
    if len(begins) > MAX_POINTS:
        message = f"granularity: there are more than {MAX_POINTS} parts of that length in this period."
        raise ApiError(400, "validation_error", message, field="granularity")
    ask.heavy = True
    return TenantUsageTimeseries(
        tenant_id=tenant.id,
        tenant_name=tenant.name,
        granularity=granularity,
        period=shape_period(period),
        data=await ask.parts.store.read(
            lambda db: [
                _point(at, counts)
                for at, counts in zip(begins, list_usage(db, tenant.id, begins, period.end), strict=True)
            ]
        ),
    )


async def rows(ask: Ask[Any, Nothing], query: TenantsQuery, period: Period) -> list[TenantUsageItem]:
    """Return what each tenant that the query is about sent."""
    found = await ask.parts.store.read(lambda db: sum_usage(db, period.start, period.end))
    return [
        _item(tenant, emails)
        for tenant in ask.snapshot.tenants.values()
        if query.status in {None, tenant.status}
        and (emails := email_counts(found.get(tenant.id, nothing()))).sent >= query.min_sent
    ]


def period_of(query: UsageQuery) -> Period:
    """Return the period that the query names, or refuse it by name."""
    zone = _zone(query.timezone)
    if zone is None:
        message = f"timezone: there is no time zone {query.timezone}; an IANA name is like Europe/Berlin."
        raise ApiError(400, "validation_error", message, field="timezone")
    try:
        return parse_period(query.period, zone, time.time())
    except PeriodError as error:
        raise ApiError(400, "validation_error", f"period {error}.", field="period") from None


@lru_cache(maxsize=128)
def _zone(name: str) -> ZoneInfo | None:
    """Return the zone of this name from the system's database, else from the package tzdata.

    The system's directory holds more than zones, among them the same ones with leap seconds (``right``).
    """
    if name.partition("/")[0] in {"posix", "right", "localtime", "posixrules"}:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # unknown, no zone's file, a directory
        return None


def shape_period(period: Period) -> UsagePeriod:
    """Return the period as the contract has it: its end is the last millisecond in it (§17.1)."""
    return UsagePeriod(start=iso(period.start), end=iso(period.end - 0.001))


def email_counts(counts: Counts) -> EmailCounts:
    """Return counts of states as the contract names them (§17.2)."""
    return EmailCounts(**_named(counts))


def rates(emails: EmailCounts) -> EmailRates:
    """Return the shares of what was sent (Ark contract §17.2)."""
    sent = emails.sent or 1
    return EmailRates(
        delivery_rate=round(emails.delivered / sent, DIGITS),
        bounce_rate=round((emails.bounced + emails.hard_failed) / sent, DIGITS),
    )


def external_id(tenant: Tenant) -> str | None:
    """Return what the tenant is called elsewhere, from its metadata (Ark contract §17.2 names no key)."""
    for name in ("external_id", "externalId"):
        value = tenant.metadata.get(name)
        if isinstance(value, str | int | float) and not isinstance(value, bool) and value != "":
            return str(value)
    return None


def _named(counts: Mapping[Status, int]) -> dict[str, int]:
    return {
        "sent": sum(counts.values()),
        "delivered": counts[Status.SENT],
        "soft_failed": counts[Status.SOFTFAIL],
        "hard_failed": counts[Status.HARDFAIL],
        "bounced": counts[Status.BOUNCED],
        "held": counts[Status.HELD],
    }


def _point(at: float, counts: Counts) -> UsagePoint:
    return UsagePoint(timestamp=iso(at), **_named(counts))


def _item(tenant: Tenant, emails: EmailCounts) -> TenantUsageItem:
    return TenantUsageItem(
        tenant_id=tenant.id,
        tenant_name=tenant.name,
        external_id=external_id(tenant),
        status=tenant.status,  # type: ignore[arg-type]  # checked when the file was read: one of STATUSES
        emails=emails,
        rates=rates(emails),
    )


def _measure(item: TenantUsageItem, key: str) -> float | tuple[str, str]:
    """Return what the list is ordered by."""
    match key:
        case "sent":
            return item.emails.sent
        case "delivered":
            return item.emails.delivered
        case "bounce_rate":
            return item.rates.bounce_rate
        case "delivery_rate":
            return item.rates.delivery_rate
        case _:
            return item.tenant_name.casefold(), item.tenant_name
