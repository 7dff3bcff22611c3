"""Templates: what others wrote stays text, nothing runs, nothing is styled or loaded from elsewhere."""

import re
import time
from pathlib import Path

import pytest

from arkrelay.web import render
from arkrelay.web.render import PREFIX, away, clock, environment, number, seconds, short, size, url

TEMPLATES = sorted(Path(render.__file__).with_name("templates").glob("*.html"))
OURS = [path for path in TEMPLATES if "layout.html" in path.read_text() or path.name in {"layout.html", "parts.html"}]


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_no_template_takes_anything_for_markup_or_runs_a_script_of_its_own(path: Path) -> None:
    text = path.read_text()
    assert "|safe" not in text.replace(" ", "")
    assert "autoescape" not in text
    assert not re.search(r"\son\w+\s*=", re.sub(r"\{[{%].*?[%}]\}", "", text))
    assert not re.search(r"\sstyle\s*=", text)
    assert not re.search(r"<script(?! src=\"\{\{ asset_url)", text)
    assert not re.search(r"(?:src|href|action)=(?!\"(?:\{\{|data:,|#[a-z]+\"))", text), "a value outside of quotes"


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "</title><script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' onmouseover='alert(1)",
        "{{ 7 * 7 }}{% include 'layout.html' %}",
        "&lt;b&gt;",
        "\u202e\x00\ud800",
        "<!--",
        "]]>",
    ],
)
def test_what_others_wrote_is_text_in_words_and_in_attributes(hostile: str) -> None:
    template = environment().from_string('<a title="{{ said }}">{{ said|short(20) }}</a><pre>{{ said }}</pre>')
    page = template.render(said=hostile)
    assert "<script" not in page
    assert "<img" not in page
    assert "49" not in page
    title = re.match(r'<a title="([^"]*)">', page)
    assert title is not None
    assert "<" not in title[1]
    assert "'" not in title[1]


def test_what_is_missing_is_an_error_and_no_blank() -> None:
    from jinja2 import UndefinedError  # noqa: PLC0415 -- as the module does

    with pytest.raises(UndefinedError):
        environment().from_string("{{ none_such.x }}").render()


@pytest.mark.parametrize("part", ["a/b", "../..", "//evil.test", "a?b#c", "ü", "%2e", "\r\nSet-Cookie: x"])
def test_no_part_of_a_path_leads_elsewhere(part: str) -> None:
    made = url("messages", part, "raw")
    assert made.startswith(f"{PREFIX}/messages/")
    assert made.count("/") == 4
    assert re.fullmatch(r"[\w/%.~-]+", made, re.ASCII)


def test_a_query_has_what_is_given_and_no_more() -> None:
    assert url("messages", to="a&b=c", from_="x", tag="", older=None) == f"{PREFIX}/messages?to=a%26b%3Dc&from=x"
    assert url() == f"{PREFIX}/"


def test_numbers_sizes_and_times_are_said_as_people_do() -> None:
    assert number(1234567) == "1\u202f234\u202f567"
    assert [size(n) for n in (5, 999, 1500, 25_000, 3_000_000, 5e12)] == [
        "5 B", "999 B", "1.5 KB", "25 KB", "3.0 MB", "5.0 TB",
    ]  # fmt: skip
    assert [seconds(s) for s in (0.0123, 4.25, 90)] == ["12 ms", "4.2 s", "1 min 30 s"]
    now = time.time()
    assert away(now - 7200) == "2 h ago"
    assert away(now + 301) == "in 5 min"
    assert re.fullmatch(r"\d\d:\d\d:\d\d", clock(now))
    assert clock(0) == "1 Jan 1970 00:00"
    assert short("x" * 300, 10) == "x" * 9 + "…"
