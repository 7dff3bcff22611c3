"""The text of HTML, and HTML that was written to keep us busy."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.mail.plaintext import HTML_LIMIT, text_of


def never() -> bool:
    return False


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>Hello</p>", "Hello"),
        ("<h1>Hi &amp; ho</h1><p>caf&eacute; &ldquo;x&rdquo;", "# Hi & ho\n\ncafé “x”"),
        ("<p>a <b>bold</b> <a href='https://x.test/'>link</a>", "a **bold** [link](https://x.test/)"),
        ("<ul><li>one<li>two</ul>", "* one\n  * two"),
        ("<img src='logo.png' alt='Logo'>", "Logo"),
        ("<style>p{color:red}</style><script>x()</script><p>seen", "seen"),
        ("<p>3. Juli</p><p>- so</p>", "3. Juli\n\n- so"),
        ("<!-- unfinished", None),
        ("<img src=x>", None),
        ("<![if !mso]><p>x</p><![endif]>", "x"),
        ("", None),
        ("x" * 5000 + "<p>" + "y" * 5000, "x" * 5000 + "\n\n" + "y" * 5000),
    ],
)
def test_html_becomes_text(html: str, text: str | None) -> None:
    assert text_of(html, never) == text


def test_what_is_too_long_has_no_text() -> None:
    assert text_of("x" * (HTML_LIMIT + 1), never) is None


def test_it_stops_when_its_time_is_over() -> None:
    asked = 0

    def after_three() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    assert text_of("<p>word</p>" * 10_000, after_three) is None
    assert asked == 4


HOSTILE = {
    "nested-lists": "<ul><li>" * 10_000,
    "nested-quotes": "<blockquote>" * 10_000 + "x",
    "empty-lines": "\n" * 60_000,
    "comments": "<!--" * 20_000,
    "signs": "<" * 60_000,
    "tags": "<a " * 20_000,
    "entities": "&" * 60_000,
    "tables": "<table><tr><td>" * 10_000,
    "declarations": "<![CDATA[" * 8000,
    "attributes": "<a " + "a=b " * 20_000,
    "one-attribute": "<a href='" + "x" * 60_000,
    "charrefs": "&#1114112;&#xD800;&#0;" * 1000,
    "digits": "&#" + "9" * 5000 + ";",
    "section": "<![nonsense]>" * 1000,
}


@pytest.mark.parametrize("html", HOSTILE.values(), ids=HOSTILE)
def test_hostile_html_is_given_up_in_time(html: str) -> None:
    began = time.monotonic()
    text = text_of(html, lambda: time.monotonic() > began + 0.5)
    assert time.monotonic() - began < 5  # without the steps: up to 43 s
    assert text is None or len(text) <= max(100_000, 4 * len(html))


@given(
    st.lists(st.sampled_from(["<", ">", "<!", "[", "]", "&#", ";", "--", "p", "ul", "li", " ", "='", "\n", "pre"]))
)
def test_anything_gives_text_or_none(pieces: list[str]) -> None:
    text = text_of("".join(pieces), never)
    assert text is None or text.strip()
