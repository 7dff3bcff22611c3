"""Periods by name and by date, in zones whose days are not all alike, and the parts of a period."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.policy.periods import Granularity, Period, PeriodError, parse_period, starts

BERLIN, NEW_YORK, KOLKATA = "Europe/Berlin", "America/New_York", "Asia/Kolkata"
ZONES = (
    "UTC",
    BERLIN,
    NEW_YORK,
    KOLKATA,
    "Asia/Kathmandu",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Australia/Lord_Howe",
    "America/Havana",
    "America/Nuuk",
    "America/Sao_Paulo",
    "Africa/Cairo",
    "Atlantic/Azores",
)


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def shown(instant: float) -> str:
    return datetime.fromtimestamp(instant, UTC).isoformat(timespec="minutes").removesuffix("+00:00")


def bounds(text: str, zone: str, now: str = "2026-07-15T12:00") -> tuple[str, str]:
    period = parse_period(text, ZoneInfo(zone), at(now))
    return shown(period.start), shown(period.end)


@pytest.mark.parametrize(
    ("text", "now", "first", "end"),
    [
        ("today", "2026-07-15T12:00", "2026-07-15", "2026-07-16"),
        ("yesterday", "2026-03-01T00:00", "2026-02-28", "2026-03-01"),
        ("yesterday", "2024-03-01T00:00", "2024-02-29", "2024-03-01"),
        ("this_week", "2026-07-15T12:00", "2026-07-13", "2026-07-20"),
        ("this_week", "2026-07-13T00:00", "2026-07-13", "2026-07-20"),
        ("this_week", "2026-07-19T23:59", "2026-07-13", "2026-07-20"),
        ("last_week", "2026-07-15T12:00", "2026-07-06", "2026-07-13"),
        ("last_week", "2026-01-01T00:00", "2025-12-22", "2025-12-29"),
        ("this_month", "2026-02-28T23:59", "2026-02-01", "2026-03-01"),
        ("this_month", "2024-02-29T00:00", "2024-02-01", "2024-03-01"),
        ("this_month", "2026-12-31T00:00", "2026-12-01", "2027-01-01"),
        ("last_month", "2026-03-31T00:00", "2026-02-01", "2026-03-01"),
        ("last_month", "2026-01-01T00:00", "2025-12-01", "2026-01-01"),
        ("last_7_days", "2026-07-15T12:00", "2026-07-09", "2026-07-16"),
        ("last_30_days", "2026-03-01T12:00", "2026-01-31", "2026-03-02"),
        ("last_90_days", "2026-03-31T12:00", "2026-01-01", "2026-04-01"),
        ("2024-02", "2026-07-15T12:00", "2024-02-01", "2024-03-01"),
        ("2026-12", "2026-07-15T12:00", "2026-12-01", "2027-01-01"),
        ("2024-02-29", "2026-07-15T12:00", "2024-02-29", "2024-03-01"),
        ("2026-12-31..2026-12-31", "2026-07-15T12:00", "2026-12-31", "2027-01-01"),
        ("2026-01-01..2026-01-15", "2026-07-15T12:00", "2026-01-01", "2026-01-16"),
        ("2000-01-01..2999-12-31", "2026-07-15T12:00", "2000-01-01", "3000-01-01"),
    ],
)
def test_a_period_is_so_many_whole_days(text: str, now: str, first: str, end: str) -> None:
    assert bounds(text, "UTC", now) == (f"{first}T00:00", f"{end}T00:00")


@pytest.mark.parametrize(
    ("zone", "text", "now", "start", "end"),
    [
        pytest.param(BERLIN, "today", "2026-07-14T22:00", "2026-07-14T22:00", "2026-07-15T22:00", id="already-today"),
        pytest.param(BERLIN, "today", "2026-07-14T21:59", "2026-07-13T22:00", "2026-07-14T22:00", id="not-yet"),
        pytest.param(NEW_YORK, "this_month", "2026-08-01T03:59", "2026-07-01T04:00", "2026-08-01T04:00", id="west"),
        pytest.param(NEW_YORK, "this_week", "2026-07-13T03:59", "2026-07-06T04:00", "2026-07-13T04:00", id="sunday"),
        pytest.param(KOLKATA, "2026-07-15", "", "2026-07-14T18:30", "2026-07-15T18:30", id="half-an-hour"),
        pytest.param("Asia/Kathmandu", "2026-07", "", "2026-06-30T18:15", "2026-07-31T18:15", id="a-quarter"),
        pytest.param(BERLIN, "2026-03", "", "2026-02-28T23:00", "2026-03-31T22:00", id="month-of-the-change"),
        pytest.param(BERLIN, "2026-03-29", "", "2026-03-28T23:00", "2026-03-29T22:00", id="23-hours"),
        pytest.param(BERLIN, "2026-10-25", "", "2026-10-24T22:00", "2026-10-25T23:00", id="25-hours"),
        pytest.param(NEW_YORK, "2026-03-08", "", "2026-03-08T05:00", "2026-03-09T04:00", id="23-hours-in-new-york"),
        pytest.param(NEW_YORK, "2026-11-01", "", "2026-11-01T04:00", "2026-11-02T05:00", id="25-hours-in-new-york"),
        pytest.param("Africa/Cairo", "2026-04-24", "", "2026-04-23T22:00", "2026-04-24T21:00", id="no-midnight"),
        pytest.param("America/Havana", "2026-11-01", "", "2026-11-01T04:00", "2026-11-02T05:00", id="two-midnights"),
        pytest.param("America/Nuuk", "2026-03-28", "", "2026-03-28T02:00", "2026-03-29T01:00", id="no-23-o-clock"),
        pytest.param("Australia/Lord_Howe", "2026-10-04", "", "2026-10-03T13:30", "2026-10-04T13:00", id="half-gap"),
        pytest.param("Pacific/Apia", "2011-12-29", "", "2011-12-29T10:00", "2011-12-30T10:00", id="before-the-line"),
        pytest.param("Pacific/Apia", "2011-12-31", "", "2011-12-30T10:00", "2011-12-31T10:00", id="after-the-line"),
        pytest.param("Pacific/Apia", "2011-12", "", "2011-12-01T10:00", "2011-12-31T10:00", id="thirty-days"),
    ],
)
def test_days_are_those_of_the_zone(zone: str, text: str, now: str, start: str, end: str) -> None:
    assert bounds(text, zone, now or "2026-07-15T12:00") == (start, end)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be today, yesterday"),
        ("tomorrow", "must be today, yesterday"),
        ("THIS_MONTH", "must be today"),
        ("this_month ", "must be today"),
        ("2026", "must be today"),
        ("2026-7", "must be today"),
        ("2026-W07", "must be today"),
        ("20260701", "must be today"),
        ("2026-07-15T00:00", "must be today"),
        ("2026-07-15\n", "must be today"),
        ("2026-07..2026-08", "must be today"),
        ("2026-07-15..", "must be today"),
        ("..2026-07-15", "must be today"),
        ("2026-07-01...2026-07-02", "must be today"),
        ("٢٠٢٦-07", "must be today"),
        ("2026-13", "no calendar has: 2026-13-01"),
        ("2026-00", "no calendar has"),
        ("2026-02-29", "no calendar has: 2026-02-29"),
        ("2026-01-01..2026-02-30", "no calendar has: 2026-02-30"),
        ("2026-07-02..2026-07-01", "must not end before it begins"),
        ("1999-12", "the years 2000 to 2999"),
        ("0000-01", "no calendar has"),
        ("3000-01-01", "the years 2000 to 2999"),
        ("2026-01-01..9999-12-31", "the years 2000 to 2999"),
    ],
)
def test_words_that_name_no_period_are_refused(text: str, words: str) -> None:
    with pytest.raises(PeriodError, match=words):
        bounds(text, "UTC")


def test_a_day_that_a_zone_left_out_is_no_period_and_no_part_of_one() -> None:
    with pytest.raises(PeriodError, match="left out in Pacific/Apia"):
        bounds("2011-12-30", "Pacific/Apia")
    for text, days in (("2011-12-29..2011-12-31", 2), ("2011-12-29..2011-12-30", 1), ("2011-12-30..2011-12-31", 1)):
        period = parse_period(text, ZoneInfo("Pacific/Apia"), 0)
        assert len(list(starts(period, "day"))) == days


@pytest.mark.parametrize(
    ("zone", "text", "granularity", "expected"),
    [
        pytest.param(
            "UTC", "2026-07", "week", "2026-07-01 2026-07-06 2026-07-13 2026-07-20 2026-07-27", id="cut-weeks"
        ),
        pytest.param("UTC", "2026-06-29..2026-07-05", "week", "2026-06-29", id="a-week"),
        pytest.param("UTC", "2025-12-29..2026-01-05", "week", "2025-12-29 2026-01-05", id="over-new-year"),
        pytest.param("UTC", "2024-01-31..2024-03-01", "month", "2024-01-31 2024-02-01 2024-03-01", id="cut-months"),
        pytest.param("UTC", "2026-02-28..2026-03-02", "day", "2026-02-28 2026-03-01 2026-03-02", id="days"),
        pytest.param(
            BERLIN, "2026-03", "week", "2026-02-28T23 2026-03-01T23 2026-03-08T23 2026-03-15T23 2026-03-22T23"
            " 2026-03-29T22", id="over-the-change",
        ),
        pytest.param(KOLKATA, "2026-07-01..2026-08-01", "month", "2026-06-30T18:30 2026-07-31T18:30", id="india"),
    ],
)  # fmt: skip
def test_parts_begin_with_the_zone_s_days(zone: str, text: str, granularity: Granularity, expected: str) -> None:
    found = starts(parse_period(text, ZoneInfo(zone), 0), granularity)
    assert [shown(one) for one in found] == [
        shown(at(one if "T" not in one or ":" in one else f"{one}:00")) for one in expected.split()
    ]


@pytest.mark.parametrize(
    ("zone", "text", "lengths"),
    [
        pytest.param(BERLIN, "2026-07-15", [60] * 24, id="24"),
        pytest.param(BERLIN, "2026-03-29", [60] * 23, id="23"),
        pytest.param(BERLIN, "2026-10-25", [60] * 25, id="25"),
        pytest.param("Asia/Kathmandu", "2026-07-15", [60] * 24, id="at-a-quarter-past"),
        pytest.param("Australia/Lord_Howe", "2026-10-04", [60] * 2 + [30] + [60] * 21, id="half-an-hour-less"),
        pytest.param("Australia/Lord_Howe", "2026-04-05", [60] * 2 + [30] + [60] * 22, id="half-an-hour-more"),
    ],
)
def test_hours_are_those_that_clocks_strike(zone: str, text: str, lengths: list[int]) -> None:
    period = parse_period(text, ZoneInfo(zone), 0)
    found = [*starts(period, "hour"), period.end]
    assert [(end - start) / 60 for start, end in pairwise(found)] == lengths
    struck = {datetime.fromtimestamp(start, ZoneInfo(zone)).minute for start in found}
    assert struck <= ({0, 30} if zone == "Australia/Lord_Howe" else {0})


days = st.dates(date(2000, 1, 1), date(2040, 12, 31))


@given(
    first=days,
    length=st.integers(0, 120),
    zone=st.sampled_from(ZONES).map(ZoneInfo),
    granularity=st.sampled_from(get_args(Granularity)),
)
def test_parts_tile_the_period(first: date, length: int, zone: ZoneInfo, granularity: Granularity) -> None:
    period = Period(first, first + timedelta(days=length), zone)
    found = list(starts(period, granularity))
    if period.start == period.end:
        assert found == []
        return
    assert found[0] == period.start
    assert all(start < end for start, end in pairwise([*found, period.end]))  # no gap by what a part is, no overlap
    assert all(one % 900 == 0 for one in found)  # what usage is counted by
    longest = {"hour": 3600, "day": 25 * 3600, "week": 7 * 86400 + 3600, "month": 31 * 86400 + 3600}[granularity]
    assert all(end - start <= longest for start, end in pairwise([*found, period.end]))
    for one in found[1:]:
        local = datetime.fromtimestamp(one, zone)
        match granularity:
            case "week":
                assert local.weekday() == 0
            case "month":
                assert local.day == 1
            case _:
                assert granularity == "hour" or local.date() != datetime.fromtimestamp(one - 1, zone).date()


@given(day=days, zone=st.sampled_from(ZONES).map(ZoneInfo))
def test_a_day_is_every_instant_that_bears_its_date(day: date, zone: ZoneInfo) -> None:
    period = Period(day, day, zone)
    if period.start == period.end:
        assert (day, zone.key) == (date(2011, 12, 30), "Pacific/Apia")
        return
    for instant, inside in ((-1, False), (0, True)):
        assert (datetime.fromtimestamp(period.start + instant, zone).date() == day) is inside
        assert (datetime.fromtimestamp(period.end + instant, zone).date() == day) is not inside


@given(st.text(max_size=30))
def test_any_text_is_a_period_or_refused(text: str) -> None:
    try:
        period = parse_period(text, ZoneInfo(BERLIN), at("2026-07-15T12:00"))
    except PeriodError:
        return
    assert period.start < period.end
