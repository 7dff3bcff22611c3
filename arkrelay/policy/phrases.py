"""Regular expressions that are cheap to say no: a text is searched only if it holds a word that a match needs.

Some two hundred rules look at each failed attempt's reply, and nearly all of them do not fit. Python's engine
tries an expression that begins with alternatives at every position, which costs tens of microseconds each. So
``needed_words`` reads from an expression of which words any match must hold one; ``Phrase`` looks whether the
text has the first three letters of one of them, then the whole word, and only then lets the engine try.

The expressions are our own (``replies.toml``), in a small dialect: literals, ``.``, classes in brackets,
groups ``(?:…|…)``, and the quantifiers ``?`` and ``{m,n}``, the latter never on a group. So nothing repeats
inside a repetition, and a search takes time that is bounded by the length of the text.
"""

import re
from typing import NamedTuple

GRAM = 3  # letters
_QUANTIFIER = re.compile(r"\?|\{\d+(?:,\d+)?\}|[*+]")
_WILD_ESCAPES = "bBsSwWdD"


class DialectError(ValueError):
    """An expression uses something that the dialect leaves out, or matches without any word."""


class Text:
    """A text to be searched by many phrases, with every three letters that it has in a row."""

    __slots__ = ("grams", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.grams = {text[at : at + GRAM] for at in range(len(text) - GRAM + 1)}


class Phrase:
    """One expression, compiled, with the words of which a match needs one."""

    __slots__ = ("_grams", "_pattern", "words")

    def __init__(self, expression: str) -> None:
        """Raise ``DialectError`` for what is not in the dialect, ``re.error`` for what is no expression."""
        self._pattern = re.compile(expression)
        self.words = tuple(sorted(needed_words(expression)))
        self._grams = frozenset(word[:GRAM] for word in self.words)

    @property
    def expression(self) -> str:
        """The expression as it was written."""
        return self._pattern.pattern

    def search(self, text: Text) -> bool:
        """Return whether the expression matches somewhere in the text."""
        return (
            not self._grams.isdisjoint(text.grams)
            and any(word in text.text for word in self.words)
            and self._pattern.search(text.text) is not None
        )


def needed_words(expression: str) -> frozenset[str]:
    """Return words of which every text that matches holds at least one; the longest that can be had."""
    words, end = _read_alternatives(expression, 0)
    if end != len(expression):
        raise DialectError(f"unexpected ) at {end}: {expression}")
    if min(map(len, words), default=0) < GRAM:
        raise DialectError(f"matches without a word of {GRAM} letters: {expression}")
    return words


def _read_alternatives(expression: str, at: int) -> tuple[frozenset[str], int]:
    """Return the words of ``a|b|c`` up to its end or closing bracket; none when one alternative needs none."""
    every: set[str] = set()
    free = False
    while True:
        words, at = _read_sequence(expression, at)
        free = free or not words
        every |= words
        if at == len(expression) or expression[at] == ")":
            return frozenset() if free else frozenset(every), at
        at += 1


def _read_sequence(expression: str, at: int) -> tuple[frozenset[str], int]:
    """Return the words of one alternative: those of its most telling part."""
    best: frozenset[str] = frozenset()
    run = ""  # literals in a row
    while at < len(expression) and expression[at] not in "|)":
        item, at = _read_item(expression, at)
        quantifier = _QUANTIFIER.match(expression, at)
        if quantifier is None and item.literal:
            run += item.literal
            continue
        best, run = _more_telling(best, frozenset({run} - {""})), ""
        if quantifier is None:
            best = _more_telling(best, item.words)
            continue
        at = quantifier.end()
        if quantifier[0] in {"*", "+"} or (item.group and quantifier[0] != "?"):
            raise DialectError(f"unbounded or nested repetition: {expression}")
    return _more_telling(best, frozenset({run} - {""})), at


class _Item(NamedTuple):
    literal: str = ""
    group: bool = False
    words: frozenset[str] = frozenset()


def _read_item(expression: str, at: int) -> tuple[_Item, int]:
    """Return the next literal, group or wildcard, and where it ends."""
    char = expression[at]
    if char == "(":
        if not expression.startswith("(?:", at):
            raise DialectError(f"only (?:…) groups: {expression}")
        words, end = _read_alternatives(expression, at + 3)
        return _Item(group=True, words=words), end + 1
    if char == "[":
        return _Item(), expression.index("]", at) + 1
    if char == "\\":
        escaped = expression[at + 1]
        if escaped.isalnum() and escaped not in _WILD_ESCAPES:
            raise DialectError(f"escape \\{escaped}: {expression}")
        return _Item() if escaped.isalnum() else _Item(escaped), at + 2
    return _Item() if char in ".^$" else _Item(char), at + 1


def _more_telling(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    """Return the set whose shortest word is longer: the rarer it is in a text, the more it saves."""
    return max(one, other, key=lambda words: (min(map(len, words), default=0), -len(words)))
