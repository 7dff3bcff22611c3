"""The page /docs is HTML that closes what it opens, links only to itself, and runs nothing, whatever is described."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from arkrelay.api.docs import POLICY, STYLE, render
from arkrelay.api.openapi import build
from arkrelay.api.routes import OPERATIONS

VOID = {"meta", "link", "wbr", "br"}
EVIL = "</code><script>alert(1)</script><img src=//evil.example/x onerror='alert(1)'>\"&`x`"


class Reader(HTMLParser):
    """What stands in a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def values(self, attribute: str) -> list[str]:
        return [value for _, given in self.tags if (value := given.get(attribute)) is not None]


@pytest.fixture(scope="module")
def page() -> str:
    return render(build(OPERATIONS))


def test_every_operation_has_its_anchor_in_the_contents(page: str) -> None:
    found = Reader(page)
    ids, links = found.values("id"), found.values("href")
    assert len(ids) == len(set(ids))
    for operation in OPERATIONS:
        assert operation.name in ids
        assert links.count(f"#{operation.name}") == 2  # in the contents, and at itself


def test_it_links_to_nothing_but_itself_and_the_description(page: str) -> None:
    found = Reader(page)
    ids = set(found.values("id"))
    for link in found.values("href"):
        assert link in {"data:,", "openapi.json"} or link.removeprefix("#") in ids, link
    assert found.values("src") == []
    assert "url(" not in STYLE
    assert "@import" not in STYLE


def test_it_runs_nothing(page: str) -> None:
    found = Reader(page)
    assert not {tag for tag, _ in found.tags} & {"script", "iframe", "object", "form", "base"}
    assert not [name for _, given in found.tags for name in given if name.startswith("on") or name == "style"]
    assert "default-src 'none'" in POLICY
    assert "script-src" not in POLICY
    assert "unsafe" not in POLICY


def test_what_is_described_is_text_and_never_markup() -> None:
    def poison(value: Any) -> Any:
        """Return a document that says evil wherever words stand."""
        if isinstance(value, dict):
            return {
                name: EVIL if name in {"description", "summary", "pattern", "x-displayName"} else poison(one)
                for name, one in value.items()
            }
        return [poison(one) for one in value] if isinstance(value, list) else value

    found = Reader(render(poison(build(OPERATIONS))))
    assert not {tag for tag, _ in found.tags} & {"script", "img"}
    assert any("<script>alert(1)</script>" in text for text in found.text)


def test_headings_go_down_one_step_at_a_time(page: str) -> None:
    levels = [int(tag[1]) for tag, _ in Reader(page).tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_each_example_is_a_command_for_the_operation(page: str) -> None:
    commands = {text for text in Reader(page).text if text.startswith("curl ")}
    assert len(commands) == len(OPERATIONS)
    for operation in OPERATIONS:
        place = re.sub(r"\{[^}]*\}", "[A-Z_]+", operation.path)
        method = "" if operation.method == "GET" else f" -X {operation.method}"
        wanted = re.compile(rf"curl -H [^\n]*KEY\"{method}.*\n  https://RELAY/v1{place}(\?\w+=[A-Z]+)?", re.DOTALL)
        assert any(wanted.fullmatch(one) for one in commands), operation.name
