"""From a template and its data to a page: escaped by itself, without a blank for what is missing.

Jinja is imported at the first page (14 ms, 2 MB), so that a daemon whose dashboard nobody opens does not pay for it.
Every template is autoescaped; there is no ``|safe`` in any of them, and a test looks.
"""

import functools
import hashlib
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any

from arkrelay.policy.sentences import span

if TYPE_CHECKING:
    from jinja2 import Environment

PREFIX = "/dashboard"
ASSETS = {"style.css": "text/css", "script.js": "text/javascript"}


def render(template: str, data: Mapping[str, Any]) -> str:
    """Return the page; takes some milliseconds, so call it in a thread."""
    return environment().get_template(template).render(data)


@functools.cache
def asset(name: str) -> bytes:
    """Return the stylesheet or the script."""
    return resources.files("arkrelay.web").joinpath("assets", name).read_bytes()


@functools.cache
def asset_url(name: str) -> str:
    """Return where a page finds an asset, with its hash: a browser may keep it for ever."""
    return f"{PREFIX}/{name}?v={hashlib.sha256(asset(name)).hexdigest()[:16]}"


@functools.cache
def environment() -> "Environment":
    """Return Jinja's, with our filters."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 -- see the module's docstring

    made = Environment(
        loader=PackageLoader("arkrelay.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "clock": clock,
        "full_clock": full_clock,
        "iso": iso,
        "number": number,
        "size": size,
        "away": away,
        "seconds": seconds,
        "short": short,
    }
    made.globals |= {"url": url, "asset_url": asset_url}
    return made


def url(*parts: str, **query: object) -> str:
    """Return the path of a page; what is None or empty is left out of its query."""
    from urllib.parse import quote, urlencode  # noqa: PLC0415 -- 3 ms

    path = "/".join([PREFIX, *(quote(part, safe="") for part in parts)]) if parts else f"{PREFIX}/"
    given = {name.rstrip("_"): str(value) for name, value in query.items() if value not in {None, ""}}
    return f"{path}?{urlencode(given)}" if given else path


def clock(at: float) -> str:
    """Return a time as lists show it, in UTC: the date only where it is not today's, the year where not this one."""
    then, now = datetime.fromtimestamp(at, UTC), datetime.fromtimestamp(time.time(), UTC)
    if then.date() == now.date():
        return then.strftime("%H:%M:%S")
    return then.strftime("%-d %b %H:%M" if then.year == now.year else "%-d %b %Y %H:%M")


def full_clock(at: float) -> str:
    """Return a time in full."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(at: float) -> str:
    """Return a time for programs."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def number(value: float) -> str:
    """Return 1234567 as 1 234 567, with spaces that do not break (ISO 80000-1)."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def size(value: float) -> str:
    """Return bytes as people say them."""
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def away(at: float) -> str:
    """Return how far a time is from now: "5 min ago", "in 2 h"."""
    left = at - time.time()
    said = _rough(abs(left))
    return f"in {said}" if left > 0 else f"{said} ago"


def seconds(value: float) -> str:
    """Return a duration: milliseconds below a second."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s" if value < 60 else span(value)


def short(value: str, most: int = 200) -> str:
    """Return a text that is cut where it is longer."""
    return value if len(value) <= most else value[: most - 1] + "…"


def _rough(value: float) -> str:
    """Return a length of time by its largest unit."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if value >= length:
            return f"{value / length:.0f} {unit}"
    return f"{value:.0f} s"
