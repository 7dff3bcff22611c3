"""One setting: its type, default, unit and one sentence, beside the value that it becomes."""

from dataclasses import field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """How a TOML value is read."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DURATION = "duration"  # "30m" → seconds
    SIZE = "size"  # "14MB" → bytes
    STRINGS = "strings"  # list of strings
    INTEGERS = "integers"  # list of integers
    DURATIONS = "durations"
    NETWORKS = "networks"  # list of CIDR strings, kept as strings after validation
    PATH = "path"  # relative to the file that names it
    CHOICE = "choice"  # one of ``choices``
    CHOICES = "choices"  # list of ``choices``
    HOST = "host"  # a host name, as A-labels in lower case
    HOSTS = "hosts"  # list of them
    SECRET = "secret"  # noqa: S105 -- the name of a kind of value, not a password
    TABLE = "table"  # another dataclass
    TABLES = "tables"  # a list of them, [[key]]


def setting(
    doc: str,
    kind: Kind,
    default: Any = ...,
    *,
    choices: tuple[str, ...] = (),
    low: float = 0,
    high: float = 2**53,  # what TOML, JSON and SQLite all keep exactly
    key: str = "",
) -> Any:
    """Return a dataclass field that ``config.schema`` can read; without ``default`` the key is required.

    ``key`` is the TOML name where it differs from the attribute (``first_delay`` for ``first_delay_s``). A
    secret never shows in the ``repr`` of what holds it.
    """
    metadata = {"doc": doc, "kind": kind, "choices": choices, "low": low, "high": high, "key": key}
    shown = kind is not Kind.SECRET
    if default is ...:
        return field(repr=shown, metadata=metadata)
    if isinstance(default, type):
        return field(default_factory=default, repr=shown, metadata=metadata)
    return field(default=default, repr=shown, metadata=metadata)
