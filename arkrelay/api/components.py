"""The types of the API as JSON Schema (2020-12, as OpenAPI 3.1 has it): msgspec's, made exact.

msgspec describes how it reads a type. Three things it cannot know are added: an ``Answer`` writes every key that is
not ``UNSET``, so all of them are required; a pattern of Python is not one of ECMA-262; and a name that two modules
gave to different types stands for neither.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import UNSET

from arkrelay.api.model import Answer, Query
from arkrelay.api.prose import plain

Schema = dict[str, Any]

REF: Final = "#/components/schemas/{name}"


@dataclass(frozen=True, slots=True)
class Schemas:
    """What was found: a schema per type asked for, the components that these refer to, the values of each query."""

    of: dict[Any, Schema]
    components: dict[str, Schema]
    queries: dict[Any, Schema]

    def resolve(self, schema: Schema) -> Schema:
        """Return the component that ``schema`` refers to, or itself."""
        return self.components[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def describe(types: Iterable[Any]) -> Schemas:
    """Return the schemas of ``types``, the same for the same set of types."""
    wanted = tuple(dict.fromkeys(types))
    schemas, components = msgspec.json.schema_components(wanted, ref_template=REF)
    classes = {_key(cls, components): cls for cls in _classes(msgspec.inspect.multi_type_info(wanted))}
    for key, cls in classes.items():
        if issubclass(cls, Answer):
            _write_all(components[key], cls)
    names = {key: _name(key) for key in components}
    tidy = {key: _tidy(schema, names) for key, schema in components.items()}
    queries = {cls: tidy.pop(key) for key, cls in classes.items() if issubclass(cls, Query)}
    return Schemas(
        of={kind: _tidy(schema, names) for kind, schema in zip(wanted, schemas, strict=True)},
        components={names[key]: tidy[key] for key in sorted(tidy, key=names.__getitem__)},
        queries=queries,
    )


def _key(cls: type[Any], components: dict[str, Schema]) -> str:
    """Return msgspec's name for a class: its own, or with its module where another class has it too."""
    return cls.__name__ if cls.__name__ in components else f"{cls.__module__}.{cls.__qualname__}"


def _name(key: str) -> str:
    """Return our name for it: "arkrelay.api.webhooks.Created" is WebhooksCreated."""
    *modules, name = key.split(".")
    return "".join(part.capitalize() for part in modules[-1].split("_")) + name if modules else name


def _classes(found: Any) -> Iterator[type[Any]]:
    """Yield each class in the tree of types once."""
    seen: set[type[Any]] = set()
    waiting = list(found)
    while waiting:
        one = waiting.pop()
        cls = getattr(one, "cls", None)
        if cls is not None:
            if cls in seen:
                continue
            seen.add(cls)
            yield cls
        inner = (getattr(one, attribute, None) for attribute in ("type", "item_type", "key_type", "value_type"))
        waiting += [kind for kind in inner if isinstance(kind, msgspec.inspect.Type)]
        waiting += [*getattr(one, "types", ()), *getattr(one, "item_types", ())]
        waiting += [field.type for field in getattr(one, "fields", ())]


def _write_all(schema: Schema, cls: type[Answer]) -> None:
    """Say that every key of an answer is there, but for those that may be ``UNSET``."""
    fields = msgspec.structs.fields(cls)
    schema["required"] = [field.encode_name for field in fields if field.default is not UNSET]
    for one in schema["properties"].values():
        one.pop("default", None)


def _tidy(given: Any, names: dict[str, str]) -> Any:
    """Return a schema, or a part of one, with our names and without what says nothing."""
    if isinstance(given, list):
        return [_tidy(one, names) for one in given]
    if not isinstance(given, dict):
        return given
    found = {
        key: _TIDY[key](value, names) if key in _TIDY else _tidy(value, names)
        for key, value in given.items()
        if key != "title" and (key, value) != ("required", [])  # the title is the component's name
    }
    if "enum" in found and all(isinstance(one, str) for one in found["enum"]):
        return {"type": "string", **found}
    return found


def ecma(pattern: str) -> str:
    r"""Return the pattern for ECMA-262, as JSON Schema wants it: ``\Z`` is its ``$``.

    A pattern that Python checks has no ``$``, which lets a last line feed through there, and no ``\d``, ``\w`` or
    ``\s``, which mean all of Unicode there.
    """
    return pattern.replace(r"\Z", "$")


_TIDY: Final[dict[str, Callable[[Any, dict[str, str]], Any]]] = {
    "description": lambda said, _: plain(said),
    "pattern": lambda pattern, _: ecma(pattern),
    "$ref": lambda ref, names: REF.format(name=names[ref.rpartition("/")[2]]),
    "properties": lambda given, names: {name: _tidy(one, names) for name, one in given.items()},
} | dict.fromkeys(("default", "enum", "examples"), lambda value, _: value)
