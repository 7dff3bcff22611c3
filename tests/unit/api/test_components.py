"""The generator of the description: types become schemas and parameters, docstrings become words."""

from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
import pytest
from aiohttp import web

from arkrelay.api.ask import Ask
from arkrelay.api.components import describe
from arkrelay.api.model import UNSET, Answer, Body, Line, Meta, Nothing, Page, Paged, UnsetType, field
from arkrelay.api.openapi import build
from arkrelay.api.operation import Operation, Scope
from arkrelay.api.prose import plain


class Part(Answer):
    number: int


class Thing(Answer):
    """A thing, as ``Ark`` has it (Ark contract §8.1)."""

    id: str
    state: Literal["on", "off"] = "on"
    part: Part | None = None
    key: str | UnsetType = UNSET


class NewThing(Body):
    name: Line
    tags: list[str] = field(default_factory=list)
    kind: Annotated[str, Meta(pattern=r"^[a-z]+\Z")] | None = None


class Things(Paged, kw_only=True):
    state: Literal["on", "off"] | None = None
    q: str


async def create(ask: Ask[Nothing, NewThing]) -> Thing:
    """Make a thing.

    It is there when this answers (Ark contract §8),
    whoever asks.
    """
    raise NotImplementedError


async def list_all(ask: Ask[Things, Nothing]) -> Page[Thing]:
    """One page."""
    raise NotImplementedError


async def export(ask: Ask[Nothing, Nothing]) -> list[Part] | web.StreamResponse:
    """A file."""
    raise NotImplementedError


MADE = build(
    (
        Operation("POST", "/things", "things.create", create, status=201, also=(207,), scope=Scope.ORGANISATION),
        Operation("GET", "/things", "things.list", list_all, refuses=(404,), beside=(("part", Part),)),
        Operation("GET", "/things/{thingId}", "things.export", export, media=("text/csv",)),
    )
)
POST, LIST, EXPORT = (one for methods in MADE["paths"].values() for one in methods.values())
SCHEMAS = MADE["components"]["schemas"]


def test_an_answer_has_all_its_keys_but_those_that_may_be_unset() -> None:
    assert SCHEMAS["Thing"]["required"] == ["id", "state", "part"]
    assert "default" not in SCHEMAS["Thing"]["properties"]["state"]
    assert SCHEMAS["Thing"]["properties"]["state"] == {"type": "string", "enum": ["off", "on"]}
    assert SCHEMAS["Thing"]["description"] == "A thing, as `Ark` has it."


def test_a_body_has_the_keys_it_needs() -> None:
    assert SCHEMAS["NewThing"]["required"] == ["name"]
    assert SCHEMAS["NewThing"]["properties"]["kind"]["anyOf"][0] == {"type": "string", "pattern": "^[a-z]+$"}
    assert POST["requestBody"]["required"] is True
    assert POST["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/NewThing"}


def test_a_query_is_parameters_and_never_null() -> None:
    shown = {one["name"]: (one["required"], one["schema"]) for one in LIST["parameters"]}
    assert shown == {
        "page": (False, {"type": "integer", "minimum": 1, "maximum": 2**31, "default": 1}),
        "perPage": (False, {"type": "integer", "minimum": 1, "maximum": 100, "default": 30}),
        "state": (False, {"type": "string", "enum": ["off", "on"]}),
        "q": (True, {"type": "string"}),
    }
    assert [one["name"] for one in LIST["parameters"] if one.get("allowEmptyValue")] == ["page", "perPage", "state"]
    assert "Things" not in SCHEMAS


def test_answers_stand_in_their_envelopes() -> None:
    single = POST["responses"]["201"]["content"]["application/json"]["schema"]
    assert single["required"] == ["success", "data", "meta"]
    assert single["properties"]["data"] == {"$ref": "#/components/schemas/Thing"}
    assert "207" in POST["responses"]
    page = LIST["responses"]["200"]["content"]["application/json"]["schema"]
    assert page["required"] == ["data", "page", "perPage", "total", "totalPages", "part", "meta"]
    assert page["properties"]["part"] == {"$ref": "#/components/schemas/Part"}
    content = EXPORT["responses"]["200"]["content"]
    assert set(content) == {"text/csv", "application/json"}
    assert content["application/json"]["schema"]["properties"]["data"]["type"] == "array"


@pytest.mark.parametrize(
    ("operation", "statuses"),
    [
        (POST, {400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503, 507}),
        (LIST, {400, 401, 403, 404, 415, 429, 500, 503}),
        (EXPORT, {400, 401, 403, 404, 415, 429, 500, 503}),
    ],
    ids=["create", "list", "export"],
)
def test_an_operation_names_its_refusals(operation: dict[str, Any], statuses: set[int]) -> None:
    assert {int(status) for status in operation["responses"] if int(status) >= 400} == statuses
    for status in statuses:
        assert f"Error{status}" in MADE["components"]["responses"]


def test_words_come_from_docstrings() -> None:
    assert POST["summary"] == "Make a thing"
    assert POST["description"] == "It is there when this answers, whoever asks.\n\nNeeds an organisation key."
    assert "description" not in LIST


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("What (Ark contract §3) it is.", "What it is."),
        ("One\n    line ``x``.\n\n    Two\n    lines.", "One line `x`.\n\nTwo lines."),
        ("As told (§8.1), and (contract §9.4, §3) once.", "As told, and once."),
        ("Beyond the contract.", "Beyond Ark's API."),
        ("Kept (RFC 5321 §4.2).", "Kept (RFC 5321 §4.2)."),
    ],
)
def test_a_docstring_becomes_markdown(said: str, shown: str) -> None:
    assert plain(said) == shown


def test_two_classes_of_one_name_have_two_names_whichever_comes_first() -> None:
    other = msgspec.defstruct(
        "Thing", [("size", int)], bases=(Answer,), module="arkrelay.api.some_tools", kw_only=True
    )
    for kinds in ([Thing, other], [other, Thing]):
        found = describe(kinds)
        assert set(found.components) == {"TestComponentsThing", "SomeToolsThing", "Part"}
        assert found.of[other] == {"$ref": "#/components/schemas/SomeToolsThing"}
        assert found.components["SomeToolsThing"]["required"] == ["size"]


def test_the_row_of_a_page_is_the_type_of_its_list() -> None:
    (row,) = get_args(Page[Thing])
    assert get_origin(Page[Thing]) is Page
    assert row is Thing
