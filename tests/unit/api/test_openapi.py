"""The description of the API is OpenAPI 3.1, says what the table of routes serves, and says no more than is true."""

import ast
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from aiohttp import web
from msgspec import inspect
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

import arkrelay.api
from arkrelay.api.components import ecma
from arkrelay.api.examples import BODIES
from arkrelay.api.idempotency import FORM
from arkrelay.api.model import Answer, Body, Nothing, Query, convert
from arkrelay.api.openapi import build
from arkrelay.api.prose import ERRORS, KEY_FORM, PATH, QUERY, TAGS
from arkrelay.api.routes import OPERATIONS

ROOT = Path(__file__).parents[3]
CONTRACT = json.loads((ROOT / "tests" / "e2e" / "operations.json").read_text())


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return build(OPERATIONS)


def operations_of(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_it_is_openapi(document: dict[str, Any]) -> None:
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_it_is_the_same_each_time(document: dict[str, Any]) -> None:
    assert json.dumps(build(OPERATIONS)) == json.dumps(document)


def test_it_describes_what_is_served_and_nothing_else(document: dict[str, Any]) -> None:
    described = {one["operationId"]: (method, path) for method, path, one in operations_of(document)}
    assert described == {one.name: (one.method, one.path) for one in OPERATIONS}
    assert set(CONTRACT) - set(described) == set()
    assert {name: list(described[name]) for name in CONTRACT} == CONTRACT


def test_every_operation_has_its_words(document: dict[str, Any]) -> None:
    assert {tag["name"] for tag in document["tags"]} <= set(TAGS)
    for method, path, one in operations_of(document):
        where = f"{method} {path}"
        assert one["summary"], where
        assert len(one["summary"]) < 160, where
        assert one["tags"][0] in TAGS, where
        parameters = [parameter for parameter in one.get("parameters", ()) if "$ref" not in parameter]
        assert all(parameter["description"] for parameter in parameters), where
        placed = {parameter["name"] for parameter in parameters if parameter["in"] == "path"}
        assert placed == set(re.findall(r"\{(\w+)\}", path)), where


def test_no_words_are_left_over(document: dict[str, Any]) -> None:
    groups, places, queries, bodies = set(), set(), set(), set()
    for _, _, one in operations_of(document):
        groups |= set(one["tags"])
        bodies |= {one["operationId"]} if "requestBody" in one else set()
        for parameter in one.get("parameters", ()):
            if parameter.get("in") == "path":
                places.add(parameter["name"])
            if parameter.get("in") == "query":
                queries |= {parameter["name"], f"{one['operationId']}.{parameter['name']}"}
    assert groups == set(TAGS)
    assert places == set(PATH)
    assert set(QUERY) <= queries
    assert bodies == set(BODIES)


def test_readers_see_no_source_of_ours(document: dict[str, Any]) -> None:
    text = json.dumps(document, ensure_ascii=False)
    for sign in ("contract", "(§", "``", "UNSET", "msgspec", "arkrelay.api"):
        assert sign not in text, text[max(0, text.find(sign) - 200) : text.find(sign) + 50]


# what a handler may take and give


def types() -> Iterator[tuple[str, str, Any]]:
    """Yield (operation, "query" | "body" | "answer", type)."""
    for operation in OPERATIONS:
        query, body, result = operation.types
        yield operation.name, "query", query
        yield operation.name, "body", body
        for one in get_args(result) or (result,):
            if not (isinstance(one, type) and issubclass(one, web.StreamResponse)):
                yield operation.name, "answer", one


def walk(type_: inspect.Type, seen: set[Any]) -> Iterator[inspect.Type]:
    """Yield every type below one."""
    yield type_
    cls = getattr(type_, "cls", None)
    if cls is not None and cls in seen:
        return
    seen.add(cls)
    inner = [getattr(type_, name, None) for name in ("type", "item_type", "key_type", "value_type")]
    inner += [*getattr(type_, "types", ()), *getattr(type_, "item_types", ())]
    inner += [one.type for one in getattr(type_, "fields", ())]
    for one in inner:
        if isinstance(one, inspect.Type):
            yield from walk(one, seen)


def all_types(*roles: str) -> list[tuple[str, inspect.Type]]:
    return [
        (name, found)
        for name, role, kind in types()
        if role in roles
        for found in walk(inspect.type_info(kind), set())
    ]


def test_answers_are_answers_and_bodies_bodies() -> None:
    for name, found in all_types("answer"):
        if isinstance(found, inspect.StructType):
            assert issubclass(found.cls, Answer), (name, found.cls)
        assert not isinstance(found, inspect.DataclassType | inspect.TypedDictType), (name, found)
    for name, found in all_types("body", "query"):
        if isinstance(found, inspect.StructType):
            assert issubclass(found.cls, Body | Query), (name, found.cls)


def test_no_pattern_stands_beside_a_list_or_an_object() -> None:
    """msgspec 0.22 writes past its memory for such a union, and the process ends when it is freed."""
    for name, found in all_types("query", "body", "answer"):
        if isinstance(found, inspect.UnionType):
            plain_types = [one.type if isinstance(one, inspect.Metadata) else one for one in found.types]
            patterned = any(isinstance(one, inspect.StrType) and one.pattern for one in plain_types)
            several = any(isinstance(one, inspect.CollectionType | inspect.DictType) for one in plain_types)
            assert not (patterned and several), (name, found)


PATTERNS = sorted(
    {found.pattern for _, found in all_types("query", "body") if isinstance(found, inspect.StrType) and found.pattern}
    | {r"^" + FORM + r"\Z"}
)
TRIED = [
    "",
    "a",
    "A",
    "abc",
    "a\n",
    "\n",
    "a\nb",
    "\u2028",
    "\x7f",
    "\x85",
    "é",
    "٣",
    "3",
    "a b",
    "a\u00a0b",
    "_",
    "-",
    "~",
]
TRIED += [
    "x" * 255,
    "x" * 256,
    "today",
    "2025-02",
    "2025-02-03",
    "2025-02-03..2025-02-04",
    "٢٠٢٥-02",
    "😀",
    "a.b",
    "a,b",
    "sent,held",
]


def test_a_pattern_means_the_same_to_python_and_to_readers(need: Callable[[str], Path]) -> None:
    """JSON Schema's patterns are ECMA-262's, matched with its ``u`` flag (2020-12 Core §6.4)."""
    script = """
        const [patterns, tried] = JSON.parse(require("fs").readFileSync(0));
        console.log(JSON.stringify(patterns.map(p => tried.map(t => new RegExp(p, "u").test(t)))));
    """
    asked = json.dumps([[ecma(one) for one in PATTERNS], TRIED])
    found = subprocess.run([need("node"), "-e", script], input=asked, capture_output=True, text=True, check=True)
    for pattern, verdicts in zip(PATTERNS, json.loads(found.stdout), strict=True):
        ours = [re.search(pattern, one) is not None for one in TRIED]
        assert ours == verdicts, (pattern, [one for one, a, b in zip(TRIED, ours, verdicts, strict=True) if a != b])


def test_every_pattern_of_the_document_is_one_for_ecma(document: dict[str, Any], need: Callable[[str], Path]) -> None:
    found = sorted(set(re.findall(r'"pattern": ("(?:[^"\\]|\\.)*")', json.dumps(document))))
    script = 'for (const p of JSON.parse(require("fs").readFileSync(0))) new RegExp(p, "u");'
    subprocess.run([need("node"), "-e", script], input=f"[{','.join(found)}]", text=True, check=True)
    assert f"^{FORM}$" == KEY_FORM


# examples


def test_every_example_fits_its_schema_and_its_type(document: dict[str, Any]) -> None:
    bodies = {operation.name: operation.types[1] for operation in OPERATIONS}
    for method, path, one in operations_of(document):
        if "requestBody" not in one:
            assert bodies[one["operationId"]] is Nothing
            continue
        content = one["requestBody"]["content"]["application/json"]
        assert content["example"], f"{method} {path}"
        schema = {**content["schema"], "components": document["components"]}
        assert list(OAS31Validator(schema).iter_errors(content["example"])) == [], f"{method} {path}"
        convert(content["example"], bodies[one["operationId"]])


# errors


def raised() -> set[tuple[int, str]]:
    """Return (status, code) of every ApiError that the API makes."""
    found = set()
    for path in Path(arkrelay.api.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ApiError":
                status, code = node.args[:2]
                if isinstance(status, ast.Constant) and isinstance(code, ast.Constant):
                    found.add((int(str(status.value)), str(code.value)))
    return found


def test_every_error_code_is_documented_and_the_other_way_round() -> None:
    documented = {(status, code) for status, codes in ERRORS.items() for code in codes}
    assert raised() - documented == set()
    assert documented - raised() == {(422, "domain_not_verified")}  # one of the two that `_refused` chooses from
