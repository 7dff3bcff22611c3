"""What clients send and get, as types: they are checked on the way in, written on the way out, and described to
readers by ``openapi``, so that the three cannot disagree.

A ``Body`` or ``Query`` ignores keys that it does not know: newer clients send more (Ark contract §1). In an
``Answer`` every key stands in each answer, null where there is nothing to say, unless its default is ``UNSET``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from arkrelay.api.words import NO_CONTROL, ONE_LINE, refusal

__all__ = [
    "NO_CONTROL",
    "ONE_LINE",
    "UNSET",
    "Answer",
    "Body",
    "Line",
    "LoneLine",
    "Meta",
    "Nothing",
    "Page",
    "Paged",
    "Query",
    "Text",
    "UnsetType",
]
__all__ += ["convert", "field"]

T = TypeVar("T")

PER_PAGE: Final = 30  # Ark contract §3, as is the next
MAX_PER_PAGE: Final = 100

Line = Annotated[str, Meta(min_length=1, max_length=1000, pattern=ONE_LINE)]  # that a person could have typed
# Where a list or an object may stand as well, msgspec 0.22 must not check a pattern: it writes past its memory then.
# So whoever takes one looks at its characters; parsing it as an address does.
LoneLine = Annotated[str, Meta(min_length=1, max_length=1000, extra_json_schema={"pattern": ONE_LINE})]
Text = Annotated[str, Meta(min_length=1)]


class Body(Struct, rename="camel", kw_only=True):
    """A JSON object that a client sends."""


class Query(Struct, rename="camel", kw_only=True):
    """A query string; an empty value is an absent one."""


class Nothing(Body):
    """No query, or no body: POST and DELETE without one carry a content type all the same (Ark contract §1)."""


class Paged(Query):
    """Which page of a list (Ark contract §3)."""

    page: Annotated[int, Meta(ge=1, le=2**31)] = 1
    per_page: Annotated[int, Meta(ge=1, le=MAX_PER_PAGE)] = PER_PAGE


class Answer(Struct, rename="camel", kw_only=True):
    """The ``data`` of an answer."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list of ``total``; one past the end is empty, not an error. ``more`` stands beside ``data``."""

    rows: list[T]
    page: int
    per_page: int
    total: int
    more: Mapping[str, object] | None = None


def convert(value: Mapping[str, Any], kind: type[T], *, lax: bool = False) -> T:
    """Return ``value`` as ``kind``, or raise ApiError 400 that names the field; ``lax`` reads numbers from text."""
    try:
        found = msgspec.convert(value, kind, strict=not lax)
        if lax and (nulls := _nulls(value, found)):
            found = msgspec.convert({**value, **nulls}, kind, strict=False)
    except msgspec.ValidationError as error:
        raise refusal(str(error), kind, text=lax) from None
    return found


def _nulls(value: Mapping[str, Any], found: object) -> dict[str, str]:
    """Return what stands for each "null" in a query, so that it is refused as what it is: text, and no null."""
    if not isinstance(found, Struct):
        return {}
    names = zip(found.__struct_fields__, found.__struct_encode_fields__, strict=True)
    return {written: "-" for name, written in names if written in value and getattr(found, name) is None}
