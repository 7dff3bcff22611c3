"""Bars of a chart as SVG: what was counted in each part of a time, by kinds, one upon the other.

Only the bars are drawn. Words stand beside them as HTML, where they neither shrink nor stretch with the picture, and
the same figures follow as a table: the picture is for a glance, the table for everybody.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 1000, 200  # units of the picture, which is stretched to its place
GAP = 0.18  # share of a part's width between its bar and the next
_STEPS = (1, 2, 5, 10)


@dataclass(frozen=True, slots=True)
class Bar:
    """One part of the time: what it is called, and how much there was of each kind, in the order of the kinds."""

    label: str
    values: tuple[int, ...]

    @property
    def total(self) -> int:
        """All kinds together."""
        return sum(self.values)


def ceiling(most: int) -> int:
    """Return the round number that the axis ends with: 1, 2 or 5 times a power of ten, and not below ``most``."""
    power = 1
    while power * 10 <= most:
        power *= 10
    return next(step * power for step in _STEPS if step * power >= most or step == 10)


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture, and the number at the top of its axis."""

    svg: str
    top: int

    def __html__(self) -> str:
        """Return the picture for a template: it is markup already."""
        return self.svg


def draw(bars: Sequence[Bar], kinds: Sequence[str], title: str) -> Chart:
    """Return the picture; each kind's bars have the class ``bar-KIND``, so that the stylesheet colours them."""
    most, total = max((bar.total for bar in bars), default=0), sum(bar.total for bar in bars)
    top = ceiling(most)
    step = WIDTH / max(1, len(bars))
    said = f"{title}: {total} in all, at most {most} in one part. The figures follow as a table."
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img">',
        f"<title>{escape(said)}</title>",
    ]
    parts += [
        f'<line class="grid" x1="0" x2="{WIDTH}" y1="{_number(HEIGHT * share)}" y2="{_number(HEIGHT * share)}"/>'
        for share in (0, 0.5, 1)
    ]
    for index, bar in enumerate(bars):
        left, width = step * (index + GAP / 2), step * (1 - GAP)
        said = ", ".join(f"{value} {kind}" for kind, value in zip(kinds, bar.values, strict=True) if value)
        parts.append(f"<g><title>{escape(bar.label)}: {escape(said or 'nothing')}</title>")
        parts.append(
            f'<rect class="hit" x="{_number(step * index)}" y="0" width="{_number(step)}" height="{HEIGHT}"/>'
        )
        floor = float(HEIGHT)
        for kind, value in zip(kinds, bar.values, strict=True):
            if value > 0:
                height = max(1.5, HEIGHT * value / top)  # what is there can be seen
                floor = max(0.0, floor - height)
                parts.append(
                    f'<rect class="bar-{escape(kind)}" x="{_number(left)}" y="{_number(floor)}"'
                    f' width="{_number(width)}" height="{_number(height)}"/>'
                )
        parts.append("</g>")
    return Chart("".join([*parts, "</svg>"]), top)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
