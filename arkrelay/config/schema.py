"""A TOML table made into a dataclass of ``model``, every key typed and every problem kept.

The dataclasses say what is allowed (``model.setting.setting``); this module only walks them. Problems are
collected, not raised: a value that cannot be used leaves its default in place, so that reading goes on and a
person sees the whole list.
"""

import dataclasses
import functools
import re
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from arkrelay.config.values import CONTROL, ITEMS, SCALARS, SHOWN_CHARS, ValueProblem, describe
from arkrelay.model.errors import ConfigError
from arkrelay.model.setting import Kind

T = TypeVar("T")


def key_of(field: "dataclasses.Field[Any]") -> str:
    """Return the TOML name of a setting."""
    return str(field.metadata["key"] or field.name)


def settings_of(cls: type) -> list["dataclasses.Field[Any]"]:
    """Return the fields that a file may set, in order; the others come from elsewhere (a tenant's id)."""
    return [field for field in dataclasses.fields(cls) if "kind" in field.metadata]


@functools.cache
def table_type(cls: type, name: str) -> type | None:
    """Return the dataclass of a TABLE or TABLES field, or None for a free table."""
    hint = typing.get_type_hints(cls)[name]
    for candidate in (hint, *typing.get_args(hint)):
        if isinstance(candidate, type) and dataclasses.is_dataclass(candidate):
            return candidate
    return None


class Reader:
    """Reads the tables of one file; ``base`` is where its relative paths start."""

    def __init__(self, file: Path, base: Path) -> None:
        self.file = file
        self.base = base
        self.problems: list[ConfigError] = []
        self._places: dict[int, tuple[object, str]] = {}  # the object too: while it lives its id() is its own

    def report(self, key: str, reason: str) -> None:
        """Keep one problem of this file."""
        self.problems.append(ConfigError(self.file, key, reason))

    def at(self, thing: object, key: str = "") -> str:
        """Return the key path by which the file spells ``thing``, which this reader made: ``listen[2].address``."""
        return _join(self._places[id(thing)][1], key)

    def read(self, cls: type[T], table: Mapping[str, Any], where: str = "", **instead: Any) -> T | None:
        """Return ``cls`` filled from the table, or None when a required key is missing or cannot be used.

        Every problem is in ``problems``; only when there is none may the result be put to use. ``instead`` has
        values for what the table does not give, so that reading can go on and find more.
        """
        settings = {key_of(field): field for field in settings_of(cls)}
        for key in table:
            if key not in settings:
                self.report(_join(where, key), _unknown(key, list(settings)))
        values: dict[str, Any] = dict(instead)
        complete = True
        for key, field in settings.items():
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            if field.metadata["kind"] is Kind.PATH and not required:
                values[field.name] = self.base / Path(str(field.default))
            if key not in table:
                if required:
                    self.report(_join(where, key), "is required")
                    complete = complete and field.name in values
                continue
            try:
                values[field.name] = self._value(cls, field, table[key], _join(where, key))
            except ValueProblem as exc:
                if str(exc):
                    self.report(_join(where, key), str(exc))
                complete = complete and (not required or field.name in values)
        if not complete:
            return None
        made = cls(**values)
        self._places[id(made)] = (made, where)
        return made

    def _value(self, cls: type, field: "dataclasses.Field[Any]", value: object, where: str) -> Any:
        kind = field.metadata["kind"]
        metadata = {**field.metadata, "optional": field.default == ""}  # only HOST asks
        if kind in SCALARS:
            return SCALARS[kind](value, metadata)
        if kind in ITEMS:
            return self._list(value, where, lambda item: ITEMS[kind](item, metadata))
        if kind is Kind.PATH:
            text = SCALARS[Kind.STRING](value, metadata)
            if not text:
                raise ValueProblem("expected a path, got an empty string")
            return self.base / text
        inner = table_type(cls, field.name)
        if kind is Kind.TABLE:
            return self._table(inner, value, where)
        tables = self._list(value, where, lambda item: item, what="a list of tables, [[…]]")
        made = [self._part(inner, item, f"{where}[{index}]") for index, item in enumerate(tables)]
        return tuple(item for item in made if item is not None)

    def _table(self, inner: type | None, value: object, where: str) -> Any:
        if not isinstance(value, dict):
            raise ValueProblem(f"expected a table, got {describe(value)}")
        if inner is None:
            # TOML has no null, which a client's metadata may hold: an empty list is nothing else there
            return {key: None if item == [] else item for key, item in value.items()}
        made: object | None = self.read(inner, value, where)
        if made is None:
            raise ValueProblem("")  # its own keys have been reported
        return made

    def _part(self, inner: type | None, value: object, where: str) -> Any:
        try:
            return self._table(inner, value, where)
        except ValueProblem as exc:
            if str(exc):
                self.report(where, str(exc))
            return None

    def _list(
        self, value: object, where: str, read: Callable[[object], Any], what: str = "a list"
    ) -> tuple[Any, ...]:
        """Return the items that can be used; the others are reported by their index."""
        if not isinstance(value, list):
            raise ValueProblem(f"expected {what}, got {describe(value)}")
        items = []
        for index, item in enumerate(value):
            try:
                items.append(read(item))
            except ValueProblem as exc:
                self.report(f"{where}[{index}]", str(exc))
        return tuple(items)


def _join(where: str, key: str) -> str:
    key = key if re.fullmatch(r"[A-Za-z0-9_-]*", key) else f'"{CONTROL.sub("?", key)[:SHOWN_CHARS]}"'
    return f"{where}.{key}" if where and key else where or key


def _unknown(key: str, known: list[str]) -> str:
    import difflib  # noqa: PLC0415 -- 18 ms of each start, and only a mistake wants it

    near = difflib.get_close_matches(key, known, n=1)
    return f'unknown key, did you mean "{near[0]}"?' if near else f"unknown key; known here: {', '.join(known)}"
