import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkrelay.policy.phrases import DialectError, Phrase, Text, needed_words

RULES = tomllib.loads((Path(__file__).parents[3] / "arkrelay/policy/replies.toml").read_text(encoding="utf-8"))
EXPRESSIONS = [row["text"] for row in RULES["rules"] if "text" in row]
REPLIES = (Path(__file__).parents[2] / "data/replies.toml").read_text(encoding="utf-8").lower().splitlines()


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("user unknown", {"user unknown"}),
        ("one|twice", {"one", "twice"}),
        ("(?:no|such) mailbox", {" mailbox"}),
        ("x(?:alpha|beta)y", {"alpha", "beta"}),
        ("abc(?:def)?", {"abc"}),
        ("abcd?", {"abc"}),
        ("ab[0-9]{2}cde", {"cde"}),
        ("abx{2}cde", {"cde"}),
        (r"\babc\.def\b", {"abc.def"}),
        (r"(?:\[one|\[two)[0-9]", {"[one", "[two"}),
        ("^abc$", {"abc"}),
        ("(?:(?:abc|def)ghij|klm)", {"ghij", "klm"}),
        ("a.{0,40}bcd", {"bcd"}),
    ],
)
def test_the_words_that_a_match_needs(expression: str, words: set[str]) -> None:
    assert needed_words(expression) == words


@pytest.mark.parametrize(
    "expression",
    [
        "abc*",
        "abc.+",
        "(?:abc)+",
        "(?:abc){2}",
        "(abc)",
        "(?=abc)",
        r"\d\d\d",
        r"abc\1",
        "ab",
        "abc|",
        "abc|.",
        "abc)def",
        "",
    ],
)
def test_what_is_outside_the_dialect_is_refused(expression: str) -> None:
    with pytest.raises((DialectError, re.error)):
        Phrase(expression)
    with pytest.raises(DialectError):
        needed_words(expression)


texts = st.one_of(
    st.text(max_size=200),
    st.sampled_from(REPLIES),
    st.lists(st.sampled_from(sorted({word for line in REPLIES for word in line.split()})), max_size=20).map(" ".join),
)


@settings(deadline=None)  # compiles an expression each time
@given(st.sampled_from(EXPRESSIONS), texts)
def test_a_phrase_finds_exactly_what_its_expression_finds(expression: str, text: str) -> None:
    assert Phrase(expression).search(Text(text)) == (re.search(expression, text) is not None)


@settings(deadline=None)
@given(st.data())
def test_a_phrase_finds_whatever_its_expression_can_match(data: st.DataObject) -> None:
    expression = data.draw(st.sampled_from(EXPRESSIONS))
    text = data.draw(st.from_regex(expression, alphabet=st.characters(max_codepoint=127)))
    assert Phrase(expression).search(Text(text))
