"""Query strings: every value is bounded, and refused by its name."""

import contextlib

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from arkrelay.api.errors import ApiError
from arkrelay.api.query import address, integer, moment, page_of, statuses_of
from arkrelay.model.message import Status


def asked(**query: str) -> web.Request:
    return make_mocked_request("GET", str(URL("/x").with_query(query)))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, (1, 30)),
        ({"page": "", "perPage": ""}, (1, 30)),
        ({"page": "7", "perPage": "100"}, (7, 100)),
        ({"page": "2147483648"}, (2147483648, 30)),
    ],
)
def test_pages_are_whole_numbers_within_bounds(given: dict[str, str], wanted: tuple[int, int]) -> None:
    assert page_of(asked(**given)) == wanted


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("page", "0"),
        ("page", "-1"),
        ("page", "--1"),
        ("page", "1.5"),
        ("page", "1e3"),
        ("page", " 1"),
        ("page", "٣"),
        ("page", "9" * 5000),
        ("perPage", "0"),
        ("perPage", "101"),
        ("perPage", "all"),
    ],
)
def test_anything_else_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ApiError) as caught:
        page_of(asked(**{name: value}))
    assert (caught.value.status, caught.value.field) == (400, name)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("", None),
        ("0", 0.0),
        ("1700000000.25", 1700000000.25),
        ("2023-11-14T22:13:20Z", 1700000000.0),
        ("2023-11-14T23:13:20+01:00", 1700000000.0),
        ("2023-11-14T22:13:20", 1700000000.0),
        ("2023-11-14", 1699920000.0),
    ],
)
def test_a_moment_is_unix_seconds_or_iso_8601(value: str, wanted: float | None) -> None:
    assert moment(asked(after=value), "after") == wanted


@pytest.mark.parametrize("value", ["nan", "inf", "1e400", "yesterday", "1_000", "2023-13-01", "9" * 40])
def test_no_moment_is_refused_by_name(value: str) -> None:
    with pytest.raises(ApiError) as caught:
        moment(asked(before=value), "before")
    assert (caught.value.status, caught.value.field) == (400, "before")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_read_or_refused(value: str) -> None:
    request = asked(x=value)
    for read in (
        lambda: integer(request, "x", 1, 0, 100),
        lambda: moment(request, "x"),
        lambda: address(request, "x"),
    ):
        with contextlib.suppress(ApiError):
            read()


def test_states_are_a_list_without_repeats() -> None:
    assert statuses_of(asked(status="held, sent,held,")) == (Status.HELD, Status.SENT)
    with pytest.raises(ApiError, match="pending"):
        statuses_of(asked(status="lost"))


def test_an_address_is_looked_for_as_it_is_stored() -> None:
    assert address(asked(to="Ann@BÜCHER.example"), "to") == "Ann@xn--bcher-kva.example"
    assert address(asked(to="not an address"), "to") == "not an address"
    assert address(asked(to=""), "to") is None
