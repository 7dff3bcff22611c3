"""The API described in OpenAPI 3.1, made of the table of routes and of the types that its handlers use.

Nothing here repeats what a handler takes or gives: ``Operation.types`` says it, msgspec writes it as JSON Schema, and
this file puts around it what all operations share: envelopes, errors, headers, and words for people.
"""

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from operator import or_
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

from aiohttp import web

from arkrelay import __version__
from arkrelay.api.components import REF, Schema, Schemas, describe
from arkrelay.api.examples import BODIES
from arkrelay.api.idempotency import HEADER
from arkrelay.api.model import Nothing, Page
from arkrelay.api.operation import Operation, Scope
from arkrelay.api.prose import ERRORS, HEADERS, INTRODUCTION, JOINED, KEY_FORM, PATH, QUERY, STATUSES, TAGS, plain

JSON: Final = "application/json"
_PLACEHOLDER = re.compile(r"\{(\w+)(?::([^{}]+))?\}")
_RATE: Final = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


def build(operations: Sequence[Operation]) -> Schema:
    """Return the document; the same operations give the same one."""
    schemas = describe(kind for operation in operations for kind in _types(operation))
    paths: dict[str, Schema] = {}
    for operation in operations:
        path = _PLACEHOLDER.sub(r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation, schemas)
    tags = sorted(
        {_tag(operation) for operation in operations}, key=lambda tag: (tag not in TAGS, [*TAGS, tag].index(tag))
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "arkrelay",
            "version": __version__,
            "summary": "Send mail through your own relay, and see what became of it.",
            "description": INTRODUCTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/v1", "description": "This relay; the paths stand at the root as well."}],
        "security": [{"key": []}],
        "tags": [_group(tag) for tag in tags],
        "paths": paths,
        "components": {
            "schemas": {**schemas.components, **_common()},
            "responses": {f"Error{status}": _error(status, codes) for status, codes in ERRORS.items()},
            "headers": {
                name: {"description": said, "schema": schema, "required": name == "X-Request-Id"}
                for name, (said, schema) in HEADERS.items()
            },
            "parameters": {
                HEADER: {
                    "name": HEADER,
                    "in": "header",
                    "description": "One effect however often this request is repeated within 24 hours: a repeat gets "
                    "the first answer. Choose a new one for each request, such as a UUID.",
                    "schema": {"type": "string", "pattern": KEY_FORM},
                }
            },
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`"}
            },
        },
    }


def _types(operation: Operation) -> Iterator[Any]:
    """Yield what is to be described of an operation."""
    query, body, result = operation.types
    yield from (one for one in (query, body) if one is not Nothing)
    yield from (kind for _, kind in operation.beside)
    found = _written(result)
    if get_origin(found) is Page:
        yield from get_args(found)
    elif found is not None:
        yield found


def _written(result: Any) -> Any:
    """Return what a handler leaves to be written as JSON; None when it writes its whole answer itself."""
    options = get_args(result) if get_origin(result) in {Union, UnionType} else (result,)
    found = [one for one in options if not (isinstance(one, type) and issubclass(one, web.StreamResponse))]
    return reduce(or_, found) if found else None


def _group(tag: str) -> Schema:
    name, said = TAGS.get(tag, (tag, ""))
    return {"name": tag, "x-displayName": name, "description": said}


def _operation(operation: Operation, schemas: Schemas) -> Schema:
    _, body, result = operation.types
    said = plain(inspect.getdoc(operation.handler) or "")
    summary, _, more = said.partition("\n\n")
    if operation.scope is Scope.ORGANISATION:
        more = f"{more}\n\nNeeds an organisation key.".strip()
    parameters = [*_path_parameters(operation), *_query_parameters(operation, schemas)]
    if operation.method == "POST":
        parameters.append({"$ref": f"#/components/parameters/{HEADER}"})
    found: Schema = {
        "operationId": operation.name,
        "tags": [_tag(operation)],
        "summary": summary.rstrip("."),
        "description": more,
        "parameters": parameters,
        "responses": {
            **{str(status): _success(operation, result, schemas) for status in (operation.status, *operation.also)},
            **{str(status): {"$ref": f"#/components/responses/Error{status}"} for status in _errors(operation)},
        },
    }
    if body is not Nothing:
        schema = schemas.of[body]
        content = {"schema": schema}
        if operation.name in BODIES:
            content["example"] = BODIES[operation.name]
        required = "required" in schemas.resolve(schema)  # an empty body is an empty object
        found["requestBody"] = {"required": required, "content": {JSON: content}}
    return {key: value for key, value in found.items() if value not in ("", [])}


def _path_parameters(operation: Operation) -> Iterator[Schema]:
    for name, form in _PLACEHOLDER.findall(operation.path):
        said, schema = PATH.get(name, ("", {"type": "string", "minLength": 1}))
        if re.fullmatch(r"\w+(?:\|\w+)+", form):
            schema = {"type": "string", "enum": form.split("|")}
        parameter: Schema = {"name": name, "in": "path", "required": True, "schema": schema}
        yield parameter | ({"description": said} if said else {})


def _query_parameters(operation: Operation, schemas: Schemas) -> Iterator[Schema]:
    query, _, _ = operation.types
    if query is Nothing:
        return
    described = schemas.queries[query]
    for name, given in described["properties"].items():
        schema = _not_null(given)
        said = schema.pop("description", "") or QUERY.get(f"{operation.name}.{name}") or QUERY.get(name, "")
        required = name in described.get("required", ())
        parameter = {"name": name, "in": "query", "required": required, "schema": schema}
        if not required:
            parameter["allowEmptyValue"] = True  # as if it were absent
        yield parameter | ({"description": said} if said else {})


def _not_null(schema: Schema) -> Schema:
    """Return the schema of a query value: what may be left out is never null."""
    options = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    found = {key: value for key, value in schema.items() if key != "anyOf" and (key, value) != ("default", None)}
    if len(options) == 1:
        return {**options[0], **found}
    return {**found, "anyOf": options} if options else found


def _success(operation: Operation, result: Any, schemas: Schemas) -> Schema:
    headers = ["X-Request-Id", *_RATE]
    if operation.name.startswith("emails.send"):
        headers += [name for name in HEADERS if name.startswith("X-SendLimit")]
    found: Schema = {
        "description": plain(operation.summary),
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
    }
    content: Schema = {media: {"schema": {} if media == JSON else {"type": "string"}} for media in operation.media}
    if (written := _written(result)) is not None:
        content[JSON] = {"schema": _envelope(operation, written, schemas)}
    return found | {"content": content}


def _envelope(operation: Operation, result: Any, schemas: Schemas) -> Schema:
    """Return the answer around its data (Ark contract §2.1); a page has no ``success``."""
    meta = {"$ref": REF.format(name="Meta")}
    if get_origin(result) is not Page:
        return _object({"success": {"type": "boolean", "const": True}, "data": schemas.of[result], "meta": meta})
    (row,) = get_args(result)
    count = {"type": "integer", "minimum": 0}
    return _object(
        {
            "data": {"type": "array", "items": schemas.of[row]},
            "page": {"type": "integer", "minimum": 1},
            "perPage": {"type": "integer", "minimum": 1},
            "total": count,
            "totalPages": count,
            **{name: schemas.of[kind] for name, kind in operation.beside},
            "meta": meta,
        }
    )


def _errors(operation: Operation) -> list[int]:
    """Return the statuses with which the operation may refuse."""
    found = {400, 401, 403, 415, 429, 500, 503}
    if "{" in operation.path:
        found.add(404)
    if operation.method != "GET":
        found |= {404, 409, 422, 507}
    if operation.method in {"POST", "PATCH"}:
        found |= {408, 413}
    return sorted(found | set(operation.refuses))


def _error(status: int, codes: dict[str, str]) -> Schema:
    code = {"type": "string", "enum": list(codes), "x-enumDescriptions": codes}
    headers = ["X-Request-Id", *_RATE]
    headers += ["Retry-After"] if status in {409, 429, 503} else []
    headers += ["x-should-retry"] if status == 409 else []
    return {
        "description": f"{STATUSES[status]}. " + "; ".join(f"`{name}`: {said}" for name, said in codes.items()) + ".",
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
        "content": {
            JSON: {
                "schema": {
                    "allOf": [
                        {"$ref": REF.format(name="Error")},
                        {"properties": {"error": {"properties": {"code": code}}}},
                    ]
                }
            }
        },
    }


def _common() -> dict[str, Schema]:
    """Return the schemas that stand in every answer."""
    text = {"type": "string"}
    refusal = _object(
        {
            "code": {**text, "description": "What programs go by."},
            "message": {**text, "description": "What people read."},
            "field": {**text, "description": "What it is about: `to[0]`, or the name of a query value or header."},
        },
        required=("code", "message"),
    )
    problem = _object({"file": text, "key": text, "reason": text})
    return {
        "Meta": _object({"requestId": {**text, "description": "Names this request in logs and in `GET /logs`."}}),
        "Error": _object(
            {
                "success": {"type": "boolean", "const": False},
                "error": refusal,
                "problems": {
                    "type": "array",
                    "items": problem,
                    "description": "Of configuration files that cannot be used: all that is wrong with them.",
                },
                "meta": {"$ref": REF.format(name="Meta")},
            },
            required=("success", "error", "meta"),
        ),
    }


def _object(properties: dict[str, Schema], required: Iterable[str] | None = None) -> Schema:
    names = list(properties if required is None else required)
    return {"type": "object", "properties": properties, "required": names}


def _tag(operation: Operation) -> str:
    """Return the group of an operation: "tenants.webhooks" of "tenants.webhooks.create"."""
    found = operation.name.rpartition(".")[0]
    return JOINED.get(found, found)
