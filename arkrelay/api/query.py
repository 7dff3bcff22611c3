"""What a query string says beyond its types: times, lists of states and of events, addresses."""

import math
import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final, TypeVar

from arkrelay.api.model import Meta
from arkrelay.api.refusal import ApiError
from arkrelay.model.address import kept_address, kept_domain
from arkrelay.model.event import EventKind
from arkrelay.model.message import Status

E = TypeVar("E", bound=StrEnum)


def _list_of(kind: type[StrEnum]) -> str:
    one = "|".join(kind)
    return f"^({one})(,({one}))*$"


# Described by their patterns and read by the functions below, which refuse them in plainer words.
Moment = Annotated[str, Meta(description="Unix seconds, or an ISO 8601 time (without an offset: UTC).")]
Statuses = Annotated[
    str, Meta(description="One state, or several with commas.", extra_json_schema={"pattern": _list_of(Status)})
]
Kinds = Annotated[
    str, Meta(description="One kind, or several with commas.", extra_json_schema={"pattern": _list_of(EventKind)})
]

_SECONDS: Final = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,9})?")


def moment(given: str | None, name: str) -> float | None:
    """Return a time as Unix seconds, from Unix seconds or ISO 8601 (Ark contract §7); None when it is absent."""
    if given is None:
        return None
    if _SECONDS.fullmatch(given):
        return float(given)
    try:
        parsed = datetime.fromisoformat(given)
        at = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        at = math.nan
    if not math.isfinite(at):
        raise ApiError(400, "validation_error", f"{name} must be Unix seconds or an ISO 8601 time.", field=name)
    return at


def words(given: str | None, kind: type[E], name: str) -> tuple[E, ...]:
    """Return the words of a list with commas, each once; empty when it is absent."""
    names = [word.strip() for word in (given or "").split(",") if word.strip()]
    try:
        return tuple(dict.fromkeys(kind(word) for word in names))
    except ValueError:
        raise ApiError(400, "validation_error", f"{name} must be one of: {', '.join(kind)}.", field=name) from None


def statuses(given: str | None) -> tuple[Status, ...]:
    """Return the states that ``status`` names."""
    return words(given, Status, "status")


def address(given: str | None) -> str | None:
    """Return an address as the database has it; None when it is absent."""
    return None if given is None else kept_address(given)


def domain(given: str | None) -> str | None:
    """Return a domain as the database has it; None when it is absent."""
    return None if given is None else kept_domain(given)
