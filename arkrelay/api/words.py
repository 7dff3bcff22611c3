"""What msgspec says of a value that does not fit, as a sentence that a person can act on, with the field it is about.

msgspec writes "Expected `str` of length >= 1 - at `$.to[0]`"; here that is "to[0] must not be empty."
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from msgspec import inspect

from arkrelay.api.refusal import ApiError

# C0, DEL, C1 and the two separators that some readers take for line ends. \Z, since $ lets a last newline through.
ONE_LINE: Final = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z"
NO_CONTROL: Final = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*\Z"
_FORMS: Final = {ONE_LINE: "one line without control characters", NO_CONTROL: "text without control characters"}

_MISSING = re.compile(r"Object missing required field `([^`]+)`(?: - at `\$\.?([^`]*)`)?")
_PLACE = re.compile(r" - at (`key` in )?`\$\.?([^`]*)`$")
_TYPE = re.compile(r"Expected `([^`]+)`(?:, got `(\w+)`)?$")
_LENGTH = re.compile(r"Expected `(\w+)` of length (>=|<=) (\d+)$")
_BOUND = re.compile(r"Expected `(\w+)` (>=|<=|>|<) (-?[\d.]+)$")
_SIZES = {"str": ("character", "characters"), "array": ("item", "items"), "object": ("key", "keys")}
_BOUNDS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
_TYPES = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_GOT = _TYPES | {"float": "a fraction", "bool": "a boolean"}


def refusal(said: str, kind: type[Any], *, text: bool = False) -> ApiError:
    """Return the error 400 that msgspec's sentence about a value for ``kind`` means; ``text``: all of it was text."""
    if (missing := _MISSING.match(said)) is not None:
        path = f"{missing[2]}.{missing[1]}" if missing[2] else missing[1]
        return ApiError(400, "missing_required_field", f"{_shown(path)} is required.", field=_shown(path))
    place = _PLACE.search(said)
    path, is_key = (place[2], place[1] is not None) if place is not None else ("", False)
    field = path.removesuffix("[...]")
    subject = _shown(path) or "The body"
    if is_key or path.endswith("[...]"):
        subject = f"A {'key' if is_key else 'value'} of {_shown(field)}"
    rest = _PLACE.sub("", said)
    if text:
        rest = rest.removesuffix(", got `str`")
    sentence = f"{subject} {_must(rest, kind, path)}."
    return ApiError(400, "validation_error", sentence, field=_shown(field) or None)


def _shown(path: str) -> str:
    """Return a path as people and programs may read it: a key of the client's own is a star."""
    return path.replace("[...]", ".*")


def _must(said: str, kind: type[Any], path: str) -> str:
    """Return what the value must be, from "must" on."""
    if (found := _TYPE.match(said)) is not None:
        wanted = " or ".join(_TYPES.get(name, name) for name in found[1].split(" | ") if name != "null")
        return f"must be {wanted}" + (f", not {_GOT.get(found[2], found[2])}" if found[2] else "")
    if (found := _LENGTH.match(said)) is not None:
        one, many = _SIZES[found[1]]
        if found[2] == ">=" and found[3] == "1":
            return "must not be empty"
        return f"must have {_BOUNDS[found[2]]} {found[3]} {one if found[3] == '1' else many}"
    if (found := _BOUND.match(said)) is not None:
        return f"must be {_BOUNDS[found[2]]} {found[3]}"
    if said.startswith("Invalid enum value"):
        return f"must be one of: {', '.join(_at(kind, path, _choices))}"
    if " matching regex " in said:
        return "must be " + next(_at(kind, path, _form), "of another form")
    return f"is not valid: {said[:200]}"


def _at(kind: type[Any], path: str, look: Callable[[inspect.Type, str], Iterator[str]]) -> Iterator[str]:
    """Yield what ``look`` finds in the types that may stand at ``path`` of ``kind``."""
    steps = re.findall(r"[^.\[\]]+|\[\.\.\.\]|\[\d+\]", path)
    yield from _walk(inspect.type_info(kind), steps, look, "")


def _walk(
    type_: inspect.Type, steps: list[str], look: Callable[[inspect.Type, str], Iterator[str]], said: str
) -> Iterator[str]:
    match type_:
        case inspect.Metadata():
            said = (type_.extra_json_schema or {}).get("description", said)
            yield from _walk(type_.type, steps, look, said)
        case inspect.UnionType():
            for one in type_.types:
                yield from _walk(one, steps, look, said)
        case _ if not steps:
            yield from look(type_, said)
        case inspect.StructType():
            for field in type_.fields:
                if field.encode_name == steps[0]:
                    yield from _walk(field.type, steps[1:], look, "")
        case inspect.ListType():
            yield from _walk(type_.item_type, steps[1:], look, "")
        case inspect.DictType():
            yield from _walk(type_.value_type, steps[1:], look, "")


def _choices(type_: inspect.Type, _: str) -> Iterator[str]:
    match type_:
        case inspect.LiteralType():
            yield from map(str, type_.values)
        case inspect.EnumType():
            yield from (str(one.value) for one in type_.cls)


def _form(type_: inspect.Type, said: str) -> Iterator[str]:
    """The form that a string must have: what its ``Meta`` says of it, or the pattern."""
    match type_:
        case inspect.StrType(pattern=str(pattern)):
            known = _FORMS.get(pattern)
            yield known or (said[:1].lower() + said[1:].rstrip(".")) or f"of the form {pattern}"
        case inspect.DictType():  # one of its keys
            yield from _walk(type_.key_type, [], _form, "")
