"""What people see."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.cli import output


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_no_text_can_speak_to_the_terminal(text: str) -> None:
    shown = output.clean(text)
    assert "\n" not in shown
    assert shown.replace("\N{REPLACEMENT CHARACTER}", "").isprintable() or re.search(r"[^\S ]", shown)
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e]", shown)


def test_plain_tables_are_aligned_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("ID", "TO"), [("a", "x" * 300), ("日本", None), (True, "last")])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["ID    TO", "a     " + "x" * 300, "日本  -", "yes   last"]


def test_an_empty_table_leaves_standard_output_empty(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("ID",), [], empty="the queue is empty")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "the queue is empty\n")


def test_a_terminal_gets_a_table_that_fits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    output.print_table(("ID", "STATUS"), [("a[red]b", "sent"), ("x" * 100, "held")])
    lines = capsys.readouterr().out.splitlines()
    assert any("a[red]b" in line for line in lines)
    assert all(len(line) <= 40 for line in lines)
    assert sum(line.count("x") for line in lines) == 100


@pytest.mark.parametrize(
    ("away_s", "text"),
    [(0.4, "now"), (250, "in 4m 10s"), (-7500, "2h 5m ago"), (90061, "in 1d 1h"), (3600, "in 1h"), (59, "in 59s")],
)
def test_times_are_told_in_two_units(away_s: float, text: str) -> None:
    assert output.until(1000 + away_s, now=1000) == text


def test_nothing_is_a_dash() -> None:
    assert (output.until(None), output.when(None), output.size(None), output.clean(None)) == ("-", "-", "-", "-")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (14_000_000, "14.0 MB"), (5e15, "5000.0 TB")]
)
def test_sizes_are_decimal(count: float, text: str) -> None:
    assert output.size(count) == text


def test_fields_are_aligned_and_lists_take_lines(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_fields([("id", 7), ("listeners", ["a", "b"]), ("none", [])])
    assert capsys.readouterr().out.splitlines() == ["id         7", "listeners  a", "           b", "none       -"]
