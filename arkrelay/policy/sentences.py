"""How long and when, for a person."""

from datetime import UTC, datetime


def span(seconds: float) -> str:
    """Return a length of time in full: "1 d 1 h", "4 min 10 s"."""
    left = int(seconds)
    parts = [
        (left // 86400, "d"),
        (left % 86400 // 3600, "h"),
        (left % 3600 // 60, "min"),
        (left % 60, "s"),
    ]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"


def when(at: float, now: float) -> str:
    """Return a time for a person: the clock in UTC and how far away it is."""
    clock = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"{clock} (in {span(at - now)})" if at - now >= 1 else f"{clock} (now)"
