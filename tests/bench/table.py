"""What was measured beside what we mean to reach."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the result; ``ratio`` is to ``other``."""

    what: str
    goal: str
    measured: float
    ratio: float | None
    other: float | None
    reached: bool


def render(lines: Iterable[Line], other: str = "Postfix + OpenDKIM") -> str:
    """Return the table, as Markdown; ``other`` is with what we compare."""
    rows = [("measured", "goal", "arkrelay", other, "ratio", "reached")]
    rows += [
        (
            line.what,
            line.goal,
            _number(line.measured),
            "-" if line.other is None else _number(line.other),
            "-" if line.ratio is None else f"{line.ratio:.2f} x",
            "yes" if line.reached else "NO",
        )
        for line in lines
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    texts = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    texts.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(texts)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"
