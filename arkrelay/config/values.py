"""One TOML value read as what its setting says: durations, sizes, choices, hosts, networks."""

import datetime as dt
import ipaddress
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from arkrelay.model.address import AddressError, parse_domain
from arkrelay.model.setting import Kind

Metadata = Mapping[str, Any]  # what ``model.setting.setting`` keeps about a setting

SECONDS = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
    "w": Decimal(604800),
}
BYTES = {
    "B": 1,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "TiB": 1024**4,
}
MAX_DURATION_S = 36500 * 86400  # a century: more is a typing error, and would overflow dates
_QUANTITY = re.compile(r"(\d{1,15}(?:\.\d{1,9})?) ?([A-Za-z]+)", re.ASCII)
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
SHOWN_CHARS = 60  # of a value that a message repeats


class ValueProblem(ValueError):
    """A value cannot be used; the text is the reason."""


def parse_duration(text: str) -> float:
    """Return the seconds of "500ms", "30s", "5m", "1.5h", "2d" or "1w"; raise ValueProblem."""
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in SECONDS:
        raise ValueProblem(f'expected a duration such as "30m" (units {", ".join(SECONDS)}), got {describe(text)}')
    seconds = float(Decimal(match[1]) * SECONDS[match[2]])
    if seconds > MAX_DURATION_S:
        raise ValueProblem(f"{text} is more than a century")
    return seconds


def parse_size(text: str) -> int:
    """Return the bytes of "14MB" (decimal) or "14MiB" (binary); raise ValueProblem."""
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in BYTES:
        raise ValueProblem(f'expected a size such as "14MB" (units {", ".join(BYTES)}), got {describe(text)}')
    return int(Decimal(match[1]) * BYTES[match[2]])


def render_duration(seconds: float) -> str:
    """Return the shortest form that ``parse_duration`` reads as the same number of seconds."""
    for unit in ("w", "d", "h", "m", "s"):
        if seconds and seconds % int(SECONDS[unit]) == 0:
            return f"{seconds / int(SECONDS[unit]):.0f}{unit}"
    return f"{seconds * 1000:g}ms" if seconds else "0s"


def render_size(size: float) -> str:
    """Return the shortest form that ``parse_size`` reads as the same number of bytes."""
    for unit in ("TiB", "TB", "GiB", "GB", "MiB", "MB", "KiB", "KB"):
        if size and size % BYTES[unit] == 0:
            return f"{size / BYTES[unit]:.0f}{unit}"
    return f"{size:.0f}B"


def describe(value: object) -> str:
    """Return what a value is, in TOML's words and short: ``integer 5``, ``string "abc"``, ``a table``."""
    match value:
        case bool():
            return f"boolean {str(value).lower()}"
        case int():
            return f"integer {value}" if abs(value) < 10**15 else "a very large integer"
        case float():
            return f"float {value}"
        case str():
            text = CONTROL.sub("?", value)
            return f'string "{text[:SHOWN_CHARS]}…"' if len(text) > SHOWN_CHARS else f'string "{text}"'
        case list():
            return "a list"
        case dt.date() | dt.time():
            return "a date"
    return "a table"


def _string(value: object, _metadata: Metadata | None = None, *, shown: bool = True) -> str:
    if not isinstance(value, str):
        kind = describe(value) if shown else describe(value).split(" ")[0]
        raise ValueProblem(f"expected a string, got {kind}")
    if CONTROL.search(value):
        raise ValueProblem("holds a control character or a line break")
    return value


def _secret(value: object, _metadata: Metadata) -> str:
    return _string(value, shown=False)


def _integer(value: object, metadata: Metadata) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueProblem(f"expected an integer, got {describe(value)}")
    return int(_ranged(value, metadata, str))


def _number(value: object, metadata: Metadata) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueProblem(f"expected a number, got {describe(value)}")
    return _ranged(value, metadata, lambda bound: f"{bound:g}")


def _boolean(value: object, _metadata: Metadata) -> bool:
    if not isinstance(value, bool):
        raise ValueProblem(f"expected true or false, got {describe(value)}")
    return value


def _ranged(value: float, metadata: Metadata, render: Callable[[float], str]) -> float:
    low, high = metadata["low"], metadata["high"]
    if not value >= low:  # NaN too
        raise ValueProblem(f"must be at least {render(low)}")
    if value > high:
        raise ValueProblem(f"must be at most {render(high)}")
    return value


def _duration(value: object, metadata: Metadata) -> float:
    if isinstance(value, int) and not isinstance(value, bool) and value == 0:
        seconds = 0.0  # "none" needs no unit
    elif isinstance(value, str):
        seconds = parse_duration(value)
    else:
        raise ValueProblem(f'expected a duration such as "30m", got {describe(value)}')
    return _ranged(seconds, metadata, render_duration)


def _size(value: object, metadata: Metadata) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str):
        size = parse_size(value)
    else:
        raise ValueProblem(f'expected a size such as "14MB", got {describe(value)}')
    return int(_ranged(size, metadata, render_size))


def _choice(value: object, metadata: Metadata) -> str:
    choices = metadata["choices"]
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(f'"{choice}"' for choice in choices if choice)
        raise ValueProblem(f"expected {'one of ' if ',' in listed else ''}{listed}, got {describe(value)}")
    return value


def _host(value: object, metadata: Metadata) -> str:
    text = _string(value)
    if not text and metadata["optional"]:
        return ""
    try:
        return parse_domain(text, utf8=True)
    except AddressError as exc:
        raise ValueProblem(f"{exc}: {describe(text)}") from None


def _network(value: object, _metadata: Metadata) -> str:
    text = _string(value)
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        pass
    try:
        near = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueProblem(f'expected a network such as "10.0.0.0/8", got {describe(text)}') from None
    raise ValueProblem(f"{text} has bits set beyond its prefix, did you mean {near}?")


# Readers of one value, and of one item of a list; PATH, TABLE and TABLES need to know the file.
SCALARS: Mapping[Kind, Callable[[object, Metadata], Any]] = {
    Kind.STRING: _string,
    Kind.SECRET: _secret,
    Kind.INTEGER: _integer,
    Kind.NUMBER: _number,
    Kind.BOOLEAN: _boolean,
    Kind.DURATION: _duration,
    Kind.SIZE: _size,
    Kind.CHOICE: _choice,
    Kind.HOST: _host,
}
ITEMS: Mapping[Kind, Callable[[object, Metadata], Any]] = {
    Kind.STRINGS: _string,
    Kind.INTEGERS: _integer,
    Kind.DURATIONS: _duration,
    Kind.NETWORKS: _network,
    Kind.CHOICES: _choice,
    Kind.HOSTS: _host,
}
