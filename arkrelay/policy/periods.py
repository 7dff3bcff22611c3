"""Periods of time as people name them, and the parts of one: whole days of a time zone, from words to instants.

A day begins at the first instant that bears its date: where clocks go forward at midnight that is one o'clock, and it
has 23, 24 or 25 hours, or in a half-hour zone something between. Weeks begin on Monday (Ark contract §17.1).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Final, Literal, assert_never

Granularity = Literal["hour", "day", "week", "month"]

HOUR_S: Final = 3600
# Usage is younger. Since 2000 every zone is off by whole quarters of an hour, which is how usage is counted, and no
# gap in a zone's clocks began before a midnight and ended after it (the IANA database, every zone day by day).
YEARS: Final = range(2000, 3000)
FORMS: Final = (
    "today, yesterday, this_week, last_week, this_month, last_month, last_7_days, last_30_days, last_90_days,"
    " YYYY-MM, YYYY-MM-DD or YYYY-MM-DD..YYYY-MM-DD"
)

_DAY = timedelta(days=1)
_MONTH = re.compile(r"([0-9]{4})-([0-9]{2})")
_DATES = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:\.\.([0-9]{4}-[0-9]{2}-[0-9]{2}))?")


class PeriodError(ValueError):
    """These words name no period; the text says why and fits behind the word "period"."""


@dataclass(frozen=True, slots=True)
class Period:
    """The days from ``first`` to ``last``, both included, as the clocks of ``zone`` have them."""

    first: date
    last: date
    zone: tzinfo

    @property
    def start(self) -> float:
        """The first instant, in Unix seconds."""
        return _begin(self.first, self.zone)

    @property
    def end(self) -> float:
        """The first instant that is not in it any more, in Unix seconds."""
        return _begin(self.last + _DAY, self.zone)


def parse_period(text: str, zone: tzinfo, now: float) -> Period:
    """Return the period that ``text`` names, one of ``FORMS``; raises ``PeriodError`` for anything else.

    "last_7_days" and its like are so many whole days, today the last of them; what is still to come today, this week
    or this month belongs to it.
    """
    first, last = _relative(text, datetime.fromtimestamp(now, zone).date()) or _absolute(text)
    if last < first:
        raise PeriodError("must not end before it begins")
    period = Period(first, last, zone)
    if period.start == period.end:  # 30 December 2011 in Samoa, where the date line was moved
        raise PeriodError(f"is a day that was left out in {zone}")
    return period


def starts(period: Period, granularity: Granularity) -> Iterator[float]:
    """Yield where each part begins, in Unix seconds: each part ends where the next one begins, the last with ``end``.

    The first and the last part are cut where a week or month reaches beyond the period.
    """
    if granularity == "hour":
        yield from _hours(period)
        return
    before, end, day = -1.0, period.end, period.first
    while day <= period.last and (at := _begin(day, period.zone)) < end:
        if at > before:  # else no instant bears the date before
            yield at
        before, day = at, _next(day, granularity)


def _hours(period: Period) -> Iterator[float]:
    """Yield each full hour of the zone's clocks; one is shorter or longer where they move by half an hour."""
    at, end = period.start, period.end
    while at < end:
        yield at
        local = datetime.fromtimestamp(at, period.zone)
        at += HOUR_S - local.minute * 60 - local.second


def _next(day: date, granularity: Literal["day", "week", "month"]) -> date:
    match granularity:
        case "day":
            return day + _DAY
        case "week":
            return day + timedelta(days=7 - day.weekday())
        case "month":
            return _month_end(day) + _DAY
        case _:
            assert_never(granularity)


def _begin(day: date, zone: tzinfo) -> float:
    """Return the first instant of ``day``.

    Of a midnight that clocks strike twice the first counts, and one that they leave out is taken for the instant at
    which they do (PEP 495): that is what ``fold=0`` means.
    """
    return datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()


def _month_end(day: date) -> date:
    return (day.replace(day=28) + timedelta(days=4)).replace(day=1) - _DAY


def _relative(text: str, today: date) -> tuple[date, date] | None:
    monday, first = today - timedelta(days=today.weekday()), today.replace(day=1)
    known = {
        "today": (today, today),
        "yesterday": (today - _DAY, today - _DAY),
        "this_week": (monday, monday + timedelta(days=6)),
        "last_week": (monday - timedelta(days=7), monday - _DAY),
        "this_month": (first, _month_end(today)),
        "last_month": ((first - _DAY).replace(day=1), first - _DAY),
        "last_7_days": (today - timedelta(days=6), today),
        "last_30_days": (today - timedelta(days=29), today),
        "last_90_days": (today - timedelta(days=89), today),
    }
    return known.get(text)


def _absolute(text: str) -> tuple[date, date]:
    if (found := _MONTH.fullmatch(text)) is not None:
        first = _date(f"{text}-01")
        return first, _month_end(first)
    if (found := _DATES.fullmatch(text)) is None:
        raise PeriodError(f"must be {FORMS}")
    first = _date(found[1])
    return first, first if found[2] is None else _date(found[2])


def _date(text: str) -> date:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise PeriodError(f"has a date that no calendar has: {text}") from None
    if found.year not in YEARS:
        raise PeriodError(f"must be in the years {YEARS[0]} to {YEARS[-1]}")
    return found
