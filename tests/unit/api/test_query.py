"""Query strings: every value is bounded, and refused by its name."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.api.model import Paged, convert
from arkrelay.api.query import address, domain, moment, statuses, words
from arkrelay.api.refusal import ApiError
from arkrelay.model.event import EventKind
from arkrelay.model.message import Status


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, (1, 30)),
        ({"page": "7", "perPage": "100"}, (7, 100)),
        ({"page": "2147483648"}, (2147483648, 30)),
    ],
)
def test_pages_are_whole_numbers_within_bounds(given: dict[str, str], wanted: tuple[int, int]) -> None:
    paged = convert(given, Paged, lax=True)
    assert (paged.page, paged.per_page) == wanted


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("page", "0"),
        ("page", "-1"),
        ("page", "--1"),
        ("page", "1.5"),
        ("page", " 1"),
        ("page", "1_000"),
        ("page", "٣"),
        ("page", "9" * 5000),
        ("perPage", "0"),
        ("perPage", "101"),
        ("perPage", "all"),
    ],
)
def test_anything_else_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ApiError) as caught:
        convert({name: value}, Paged, lax=True)
    assert (caught.value.status, caught.value.field) == (400, name)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (None, None),
        ("0", 0.0),
        ("1700000000.25", 1700000000.25),
        ("2023-11-14T22:13:20Z", 1700000000.0),
        ("2023-11-14T23:13:20+01:00", 1700000000.0),
        ("2023-11-14T22:13:20", 1700000000.0),
        ("2023-11-14", 1699920000.0),
    ],
)
def test_a_moment_is_unix_seconds_or_iso_8601(value: str | None, wanted: float | None) -> None:
    assert moment(value, "after") == wanted


@pytest.mark.parametrize("value", ["nan", "inf", "1e400", "yesterday", "1_000", "2023-13-01", "9" * 40])
def test_no_moment_is_refused_by_name(value: str) -> None:
    with pytest.raises(ApiError) as caught:
        moment(value, "before")
    assert (caught.value.status, caught.value.field) == (400, "before")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_read_or_refused(value: str) -> None:
    for read in (
        lambda: moment(value, "x"),
        lambda: address(value),
        lambda: domain(value),
        lambda: statuses(value),
        lambda: convert({"page": value}, Paged, lax=True),
    ):
        with contextlib.suppress(ApiError):
            read()


def test_words_are_a_list_without_repeats() -> None:
    assert statuses("held, sent,held,") == (Status.HELD, Status.SENT)
    assert words("MessageSent", EventKind, "type") == (EventKind.SENT,)
    assert words(None, EventKind, "type") == ()
    with pytest.raises(ApiError, match="pending") as caught:
        statuses("lost")
    assert (caught.value.status, caught.value.field) == (400, "status")


def test_an_address_is_looked_for_as_it_is_stored() -> None:
    assert address("Ann@BÜCHER.example") == "Ann@xn--bcher-kva.example"
    assert address("not an address") == "not an address"
    assert address(None) is None
    assert domain("BÜCHER.example") == "xn--bcher-kva.example"
    assert domain("%.Example") == "%.example"
    assert domain(None) is None
