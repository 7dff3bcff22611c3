"""The bars stand where their numbers say, and whatever the words are, they are words."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.web.charts import HEIGHT, WIDTH, Bar, ceiling, draw

KINDS = ("delivered", "failed")


@pytest.mark.parametrize(
    ("most", "top"), [(0, 1), (1, 1), (2, 2), (3, 5), (7, 10), (10, 10), (11, 20), (37, 50), (99, 100), (4999, 5000)]
)
def test_the_axis_ends_with_a_round_number_that_is_enough(most: int, top: int) -> None:
    assert ceiling(most) == top


def _rectangles(svg: str, kind: str) -> list[tuple[float, float, float, float]]:
    found = re.findall(
        rf'<rect class="bar-{kind}" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"/>', svg
    )
    return [(float(x), float(y), float(width), float(height)) for x, y, width, height in found]


def test_a_bar_is_as_high_as_its_number_and_stands_on_the_one_below() -> None:
    chart = draw([Bar("Mon", (30, 20)), Bar("Tue", (0, 0))], KINDS, "Week")
    ((_, y, _, height),) = _rectangles(chart.svg, "delivered")
    assert (chart.top, y + height, height) == (50, HEIGHT, HEIGHT * 30 / 50)
    ((_, above_y, _, above),) = _rectangles(chart.svg, "failed")
    assert above_y + above == pytest.approx(y)
    assert above == HEIGHT * 20 / 50


def test_one_among_a_million_can_be_seen() -> None:
    ((*_, height),) = _rectangles(draw([Bar("Mon", (1_000_000, 1))], KINDS, "Week").svg, "failed")
    assert height >= 1


def test_its_words_say_what_it_shows_and_name_each_part() -> None:
    svg = draw([Bar("Mon", (30, 20)), Bar("Tue", (0, 0))], KINDS, "Week").svg
    assert "<title>Week: 50 in all, at most 50 in one part." in svg
    assert "<title>Mon: 30 delivered, 20 failed</title>" in svg
    assert "<title>Tue: nothing</title>" in svg
    assert 'role="img"' in svg


def test_without_parts_there_is_still_a_picture() -> None:
    assert draw([], KINDS, "Week").svg.endswith("</svg>")


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)


@given(st.text(max_size=50), st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), max_size=40))
def test_no_word_becomes_markup_and_no_bar_leaves_the_picture(word: str, values: list[tuple[int, int]]) -> None:
    svg = draw([Bar(word, one) for one in values], KINDS, word).svg
    reader = _Reader()
    reader.feed(svg)
    assert reader.tags <= {"svg", "title", "line", "g", "rect"}
    for kind in KINDS:
        for x, y, width, height in _rectangles(svg, kind):
            assert 0 <= x <= x + width <= WIDTH + 0.01
            assert 0 <= y <= HEIGHT
            assert height <= HEIGHT + 2
