"""Durations, sizes and the other kinds of one value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.config.values import (
    BYTES,
    MAX_DURATION_S,
    SECONDS,
    ValueProblem,
    describe,
    parse_duration,
    parse_size,
    render_duration,
    render_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("1ms", 0.001),
        ("30s", 30.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("1.5h", 5400.0),
        ("2d", 172800.0),
        ("1w", 604800.0),
        ("0s", 0.0),
        ("10 m", 600.0),
        ("0.1s", 0.1),
    ],
)
def test_a_duration_is_read_in_its_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "m", "5M", "5 min", "-5m", "5m ", " 5m", "1h30m", "٣s", "1e3s", "inf", "5s\n"]
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueProblem, match=r'^expected a duration such as "30m"'):
        parse_duration(text)


def test_a_duration_is_at_most_a_century() -> None:
    assert parse_duration("36500d") == MAX_DURATION_S
    with pytest.raises(ValueProblem, match=r"^36501d is more than a century$"):
        parse_duration("36501d")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("14MB", 14_000_000),
        ("14MiB", 14 * 2**20),
        ("1KB", 1000),
        ("1KiB", 1024),
        ("0.5GB", 500_000_000),
        ("2GiB", 2**31),
        ("1TB", 10**12),
        ("7B", 7),
        ("512 MB", 512_000_000),
    ],
)
def test_a_size_is_read_in_its_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "14", "MB", "14mb", "14M", "-1MB", "14MB!", "1_000KB"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueProblem, match=r'^expected a size such as "14MB"'):
        parse_size(text)


@given(st.integers(0, 10**6), st.sampled_from(sorted(SECONDS)))
def test_a_rendered_duration_reads_the_same(count: int, unit: str) -> None:
    seconds = float(count * SECONDS[unit])
    if seconds <= MAX_DURATION_S:
        assert parse_duration(render_duration(seconds)) == seconds


@given(st.integers(0, 10**9), st.sampled_from(sorted(BYTES)))
def test_a_rendered_size_reads_the_same(count: int, unit: str) -> None:
    size = count * BYTES[unit]
    if size < 10**15:
        assert parse_size(render_size(size)) == size


@given(st.text())
def test_any_text_is_a_quantity_or_a_problem(text: str) -> None:
    for parse in (parse_duration, parse_size):
        try:
            assert parse(text) >= 0
        except ValueProblem as exc:
            reason = str(exc)
            assert reason


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (5, "integer 5"),
        (10**30, "a very large integer"),
        (True, "boolean true"),
        (1.5, "float 1.5"),
        ("abc", 'string "abc"'),
        ("a\nb\x1b", 'string "a?b?"'),
        ("x" * 100, f'string "{"x" * 60}…"'),
        ([1], "a list"),
        ({}, "a table"),
    ],
)
def test_a_value_is_described_in_words_of_toml(value: object, words: str) -> None:
    assert describe(value) == words
