"""Ark's API as it is read: to the last page, slowly enough, and again only after what passes."""

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from unit.cli.support import Double, page, serving

from arkrelay.cli import import_ark
from arkrelay.cli.import_ark import Ark, ArkList, Denied, read_ark
from arkrelay.cli.state import Failed

KEY = "ark_live_0123456789"


@pytest.fixture
def double() -> Double:
    return Double()


@pytest.fixture
def ark(double: Double, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ark]:
    monkeypatch.setattr(import_ark, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(import_ark, "BETWEEN_S", 0.0)
    with serving(double) as server, Ark(f"http://127.0.0.1:{server.port}", KEY) as opened:
        yield opened


def refusal(status: int, message: str, **headers: str) -> web.Response:
    error = {"success": False, "error": {"code": "x", "message": message}}
    return web.json_response(error, status=status, headers=headers)


def test_pages_are_read_to_the_last_one(ark: Ark, double: Double) -> None:
    double.answers["GET /tenants"] = lambda query: page([{"id": query["page"], "name": "n"}], int(query["page"]), 3)
    rows = [row["id"] for one in ark.pages("/tenants", dict[str, Any]) for row in one]
    assert rows == ["1", "2", "3"]
    assert {one.query["perPage"] for one in double.asked} == {"100"}
    assert {one.key for one in double.asked} == {f"Bearer {KEY}"}


def test_without_a_number_of_pages_an_empty_one_is_the_last(ark: Ark, double: Double) -> None:
    pages = iter([[{"id": "1"}], [{"id": "2"}], []])
    double.answers["GET /tenants"] = lambda _query: web.json_response({"data": next(pages)})
    assert [len(one) for one in ark.pages("/tenants", dict[str, Any])] == [1, 1]


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_what_passes_is_asked_again(ark: Ark, double: Double, status: int) -> None:
    double.answers["GET /limits"] = [refusal(status, "later", **{"Retry-After": "0.01"}), {"a": 1}]
    assert ark.data("/limits", dict[str, int]) == {"a": 1}
    assert len(double.asked) == 2


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(refusal(403, "not yours"), id="forbidden"),
        pytest.param(refusal(409, "not ever", **{"x-should-retry": "false"}), id="ark-says-so"),
        pytest.param(web.Response(status=302, headers={"Location": "http://elsewhere.test/"}), id="redirect"),
    ],
)
def test_what_does_not_pass_is_asked_once(ark: Ark, double: Double, answer: web.Response) -> None:
    double.answers["GET /tenants"] = answer
    with pytest.raises(Denied, match="GET /tenants"):
        ark.data("/tenants", list[str])
    assert len(double.asked) == 1


def test_it_gives_up_after_a_while_and_says_what_was_said(ark: Ark, double: Double) -> None:
    double.answers["GET /limits"] = lambda _query: refusal(503, "we are closed")
    with pytest.raises(Failed, match=r"we are closed \(asked 6 times\)"):
        ark.data("/limits", dict[str, int])
    assert len(double.asked) == 6


def test_ten_requests_a_second_and_no_more(double: Double) -> None:
    double.answers["GET /limits"] = lambda _query: web.json_response({"data": {}})
    with serving(double) as server, Ark(f"http://127.0.0.1:{server.port}", KEY) as ark:
        began_at = time.monotonic()
        for _ in range(6):
            ark.data("/limits", dict[str, int])
    assert time.monotonic() - began_at >= 0.5


@pytest.mark.parametrize("answer", [None, {}, [], {"data": None}, {"data": 7}, {"data": [{"name": "no id"}]}])
def test_an_answer_of_another_shape_is_said_and_nothing_is_guessed(ark: Ark, double: Double, answer: Any) -> None:
    double.answers["GET /tenants"] = lambda _query: web.json_response(answer)
    with pytest.raises(Failed, match="GET /tenants"):
        read_ark(ark, (), lambda _name: None)


def test_addresses_that_are_none_are_passed_over_and_numbered_over_the_pages(ark: Ark, double: Double) -> None:
    numbers = itertools.count(1)
    double.answers["GET /s"] = lambda query: page(
        [{"address": f"a{next(numbers)}@b.test", "reason": None, "createdAt": None}, {"address": "none"}],
        int(query["page"]),
        2,
    )
    rows, passed = [], []
    for some, odd in ArkList(ark, "/s").parts():
        rows += some
        passed += odd
    assert [one.line for one in rows] == [1, 3]
    assert [(one.line, one.bad) for one in passed] == [(2, True), (4, True)]
