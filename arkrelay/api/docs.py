"""The page /docs: the description of the API for people, written out whole. It asks for nothing and runs nothing."""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from html import escape
from importlib import resources
from typing import Any, Final

from arkrelay.api.openapi import JSON
from arkrelay.api.prose import FORMS

Schema = dict[str, Any]

STYLE: Final = resources.files("arkrelay.api").joinpath("docs.css").read_text("utf-8")
# No source but the one stylesheet, known by its hash (CSP Level 3 §2.3.1); the icon is an empty data: URL.
POLICY: Final = (
    "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"
)
_KEY: Final = "$ARKRELAY_KEY"
_PLURALS: Final = {one: f"{one}s" for one in ("string", "integer", "number", "object", "list")}
_REQUIRED: Final = ' <span class="required">required</span>'
# what stands beside a key that the schema requires, and one that it does not
_BODY: Final = (_REQUIRED, "")
_ANSWER: Final = ("", ' <span class="note">sometimes</span>')
_ENVELOPE: Final = {"success", "data", "page", "perPage", "total", "totalPages", "meta"}
_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<a class="skip" href="#content">To the content</a>
<div class="side">
<header><h1>{title}</h1><p>Version {version} · <a href="openapi.json">openapi.json</a></p></header>
<nav aria-label="Contents">{contents}</nav>
</div>
<main id="content" tabindex="-1">{content}</main>
</body>
</html>
"""


def render(document: Schema) -> str:
    """Return the page of an OpenAPI document that ``openapi.build`` made."""
    page = _Page(document)
    title = f"{document['info']['title']} API"
    return _PAGE.format(
        title=_text(title),
        style=STYLE,
        version=_text(document["info"]["version"]),
        contents="".join(page.contents()),
        content="".join(page.content()),
    )


class _Page:
    """The parts of the page, in their order."""

    def __init__(self, document: Schema) -> None:
        self._document = document
        self._base = document["servers"][0]["url"]
        self._groups: dict[str, list[tuple[str, str, Schema]]] = {tag["name"]: [] for tag in document["tags"]}
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                self._groups[operation["tags"][0]].append((method.upper(), path, operation))

    def contents(self) -> Iterator[str]:
        yield '<ol><li><a href="#content">How to ask</a></li>'
        for tag in self._document["tags"]:
            yield f'<li><a href="#{_id(tag["name"])}">{_text(tag["x-displayName"])}</a><ol>'
            for method, _, operation in self._groups[tag["name"]]:
                name = operation["operationId"]
                said = name.removeprefix(f"{tag['name']}.").replace("_", " ")
                yield f'<li><a href="#{_id(name)}">{_method(method)} {_text(said)}</a></li>'
            yield "</ol></li>"
        yield '<li><a href="#errors">Errors</a></li><li><a href="#headers">Headers</a></li></ol>'

    def content(self) -> Iterator[str]:
        yield "<section>"
        yield _paragraphs(self._document["info"]["description"])
        yield f"<p>The base URL is <code>{_text(self._base)}</code> of this host.</p>"
        yield "</section>"
        for tag in self._document["tags"]:
            yield f'<section id="{_id(tag["name"])}"><h2>{_text(tag["x-displayName"])}</h2>'
            yield _paragraphs(tag["description"])
            for method, path, operation in self._groups[tag["name"]]:
                yield from self._operation(method, path, operation)
            yield "</section>"
        yield '<section id="errors"><h2>Errors</h2>'
        yield from self._errors()
        yield '</section><section id="headers"><h2>Headers of answers</h2>'
        headers = self._document["components"]["headers"]
        yield _list((f"<code>{_text(name)}</code>", _inline(one["description"])) for name, one in headers.items())
        yield "</section>"

    def _operation(self, method: str, path: str, operation: Schema) -> Iterator[str]:
        name = operation["operationId"]
        anchor = f'<a class="anchor" href="#{_id(name)}" aria-label="Link to {_text(name)}">#</a>'
        yield f'<article id="{_id(name)}"><h3>{_inline(operation["summary"])} {anchor}</h3>'
        call = f"{_method(method)} <code>{_path(path)}</code>"
        yield f'<p class="call">{call} <span class="sdk">{_text(name)}</span></p>'
        yield _paragraphs(operation.get("description", ""))
        if parameters := [self._resolve(one) for one in operation.get("parameters", ())]:
            yield "<h4>Parameters</h4>"
            yield _list(self._parameter(one) for one in parameters)
        if "requestBody" in operation:
            body = operation["requestBody"]["content"][JSON]["schema"]
            yield "<h4>Body</h4>" + _paragraphs(self._resolve(body).get("description", ""))
            yield self._properties(body, _BODY)
        answers = {status: one for status, one in operation["responses"].items() if "$ref" not in one}
        yield f"<h4>Answer {' or '.join(answers)}</h4>"
        yield from self._answer(next(iter(answers.values())))
        refusals = [f'<a href="#error-{one}">{one}</a>' for one in operation["responses"] if one not in answers]
        yield f'<p class="refusals">Refusals: {" ".join(refusals)}</p>'
        yield f"<h4>Example</h4>{_pre(self._curl(method, path, operation))}</article>"

    def _parameter(self, parameter: Schema) -> tuple[str, str]:
        where = "" if parameter["in"] == "query" else f' <span class="note">{parameter["in"]}</span>'
        name = f"<code>{_text(parameter['name'])}</code>{where}{_REQUIRED if parameter.get('required') else ''}"
        return name, self._kind(parameter["schema"]) + _also(parameter.get("description", ""))

    def _answer(self, answer: Schema) -> Iterator[str]:
        for media, content in answer["content"].items():
            properties = content["schema"].get("properties", {})
            data = properties.get("data", {})
            if not properties:
                yield f"<p>As <code>{_text(media)}</code>.</p>"
                continue
            if "page" in properties:
                yield "<p>A page of:</p>"
            elif data.get("type") == "array":
                yield "<p>A list of:</p>"
            yield self._properties(data, _ANSWER) or f"<p>{self._kind(data)}</p>"
            if beside := {name: one for name, one in properties.items() if name not in _ENVELOPE}:
                yield f"<p>Beside <code>data</code>:</p>{self._properties({'properties': beside}, ('', ''))}"

    def _properties(self, schema: Schema, marks: tuple[str, str], above: tuple[str, ...] = ()) -> str:
        """Return a list of an object's keys; of its items' when it is a list; nothing when there are none."""
        reference = self._object_in(schema)
        if reference is None:
            return ""
        found, name = reference
        if name and name in above:
            return ""
        inner = (*above, name)
        required = found.get("required", ())
        rows = []
        for key, one in found["properties"].items():
            nested = self._properties(one, marks, inner)
            if nested:
                nested = f"<details><summary>its keys</summary>{nested}</details>"
            said = self._kind(one) + _also(_said(one)) + nested
            rows.append((f"<code>{_text(key)}</code>{marks[key not in required]}", said))
        return _list(rows)

    def _object_in(self, schema: Schema) -> tuple[Schema, str] | None:
        """Return the object that a schema is, holds a list of, or may be, and the name of its component."""
        name = schema.get("$ref", "").rpartition("/")[2]
        found = self._resolve(schema)
        if found.get("properties"):
            return found, name
        for inner in (found.get("items"), found.get("additionalProperties"), *found.get("anyOf", ())):
            if isinstance(inner, dict) and (one := self._object_in(inner)) is not None:
                return one
        return None

    def _kind(self, given: Schema) -> str:
        """Return the type of a value and its limits as a phrase."""
        schema = self._resolve(given)
        if "anyOf" in schema:
            return " or ".join(self._kind(one) for one in schema["anyOf"]) + _default(schema)
        if "const" in schema or "enum" in schema:
            values = schema.get("enum", [schema.get("const")])
            return " | ".join(f"<code>{_text(_json(value))}</code>" for value in values) + _default(schema)
        kind = schema.get("type", "anything")
        if isinstance(kind, list):
            kind = " or ".join(kind)
        inner = schema.get("items" if kind == "array" else "additionalProperties")
        if kind in {"array", "object"} and isinstance(inner, dict):
            kind = f"{'list' if kind == 'array' else 'object'} of {self._several(inner)}"
        return ", ".join([kind.replace("array", "list"), *_limits(schema)]) + _default(schema)

    def _several(self, given: Schema) -> str:
        """Return the type of a list's items, or of an object's values, as a phrase."""
        kind, _, limits = self._kind(given).partition(", ")
        return f"{_PLURALS.get(kind, kind)}{f' ({limits})' if limits else ''}"

    def _errors(self) -> Iterator[str]:
        for name, answer in self._document["components"]["responses"].items():
            status = name.removeprefix("Error")
            title, _, _ = answer["description"].partition(".")
            codes = answer["content"][JSON]["schema"]["allOf"][1]["properties"]["error"]["properties"]["code"]
            yield f'<h3 id="error-{status}">{status} <span class="note">{_text(title)}</span></h3>'
            words = codes["x-enumDescriptions"]
            yield _list((f"<code>{_text(code)}</code>", _inline(said)) for code, said in words.items())

    def _curl(self, method: str, path: str, operation: Schema) -> str:
        """Return a command that asks."""
        line = f'curl -H "Authorization: Bearer {_KEY}"'
        if method != "GET":
            line += f" -X {method}"
        if "requestBody" in operation:
            body = json.dumps(
                operation["requestBody"]["content"][JSON].get("example", {}), ensure_ascii=False, indent=1
            )
            body = body.replace("'", "'\\''")
            line += f" -H 'Content-Type: application/json' \\\n  -d '{body}'"
        place = re.sub(r"\{(\w+)\}", lambda match: _shout(match[1]), path)
        asked = [
            one["name"] for one in operation.get("parameters", ()) if one.get("in") == "query" and one["required"]
        ]
        query = "&".join(f"{name}={_shout(name)}" for name in asked)
        return f"{line} \\\n  https://RELAY{self._base}{place}{'?' if query else ''}{query}"

    def _resolve(self, given: Schema) -> Schema:
        if "$ref" not in given:
            return given
        found: Any = self._document
        for part in given["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return {**found, **{key: value for key, value in given.items() if key != "$ref"}}


def _limits(schema: Schema) -> Iterator[str]:
    """Yield what a value must be beyond its type, in words."""
    for low, high, unit in (
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " items"),
        ("minProperties", "maxProperties", " keys"),
        ("minimum", "maximum", ""),
    ):
        least, most = schema.get(low), schema.get(high)
        if least is not None and most is not None:
            yield f"{least} to {most}{unit}"
        elif most is not None:
            yield f"at most {most}{unit}"
        elif least == 1 and unit:
            yield "not empty"
        elif least is not None:
            yield f"at least {least}{unit}"
    if "pattern" in schema:
        yield FORMS.get(schema["pattern"], f"<code>{_text(schema['pattern'])}</code>")
    if "format" in schema:
        yield _text(schema["format"])


def _shout(name: str) -> str:
    """Return a name as it stands for something in a command: TENANT_ID."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()


def _default(schema: Schema) -> str:
    value = schema.get("default")
    return "" if value is None else f", default <code>{_text(_json(value))}</code>"


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _list(rows: Iterable[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<div><dt>{name}</dt><dd>{said}</dd></div>' for name, said in rows)}</dl>"


def _said(schema: Schema) -> str:
    """Return what is said of a value, or of the one thing that it may be beside null."""
    found = [schema, *schema.get("anyOf", ())]
    return next((one["description"] for one in found if "description" in one), "")


def _also(said: str) -> str:
    return f'<span class="said">{_inline(said)}</span>' if said else ""


def _method(method: str) -> str:
    return f'<span class="method {method.lower()}">{method}</span>'


def _path(path: str) -> str:
    """Return a path that may break at its slashes, with its parameters set off."""
    return re.sub(r"\{\w+\}", r"<var>\g<0></var>", _text(path).replace("/", "<wbr>/"))


def _pre(text: str) -> str:
    return f"<pre><code>{_text(text)}</code></pre>"


def _paragraphs(markdown: str) -> str:
    return "".join(f"<p>{_inline(part)}</p>" for part in markdown.split("\n\n") if part)


def _inline(markdown: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(markdown))


def _text(value: str) -> str:
    return escape(value)


def _id(name: str) -> str:
    return escape(name)
