"""The text of a letter that came as HTML alone (Ark contract §8.1), in the way that people type it: Markdown.

By html2text, which is asked in small steps. On HTML made to hurt, its expressions take quadratic time (60 000 empty
lines: 43 s) and nested lists make a megabyte of indentation from a kilobyte, so each step is small, and between
steps somebody looks at the clock and at what there is so far.
"""

import re
from collections.abc import Callable

HTML_LIMIT = 500_000  # characters; Gmail cuts off what it shows at 102 KB
TEXT_FACTOR = 4  # a text this many times longer than its HTML is no text
TEXT_LEAST = 100_000  # characters that it may always have
_STEP = 4096  # characters; the worst HTML of this length takes 0.2 s
# "1\. June" and "\- so": for programs that read Markdown, and nothing that a person wants to see
_ESCAPED = re.compile(r"^( *\d{0,9})\\([-+.])(?=\s)", re.MULTILINE)


def text_of(html: str, expired: Callable[[], bool]) -> str | None:
    """Return the text, or None for HTML that is too long, has none, is not done when ``expired`` says so, or is none.

    A letter then goes without a text part, which is as valid. About 0.7 ms for a kilobyte: for a thread. An
    unfinished tag or comment at the end is left out.
    """
    if len(html) > HTML_LIMIT:
        return None
    try:
        return _convert(html, expired)
    except Exception:  # noqa: BLE001 -- a foreign parser on anybody's HTML: AssertionError for <![x]>, and who knows
        return None


def _convert(html: str, expired: Callable[[], bool]) -> str | None:
    from html2text import HTML2Text  # noqa: PLC0415 -- 15 ms to import, and most mail brings its text

    parser = HTML2Text(bodywidth=0)
    parser.unicode_snob = True  # é stays é
    parser.images_to_alt = True
    most = max(TEXT_LEAST, TEXT_FACTOR * len(html))
    length = measured = start = 0
    while start < len(html):
        end = html.rfind("<", start + 1, start + _STEP)
        if end < 0:
            end = start + _STEP
        parser.feed(html[start:end])
        start = end
        length += sum(map(len, parser.outtextlist[measured:]))
        measured = len(parser.outtextlist)
        if length > most or expired():
            return None
    parser.rawdata = ""  # the parser would look for the end of each unfinished comment, up to the end of the text
    return _ESCAPED.sub(r"\1\2", parser.optwrap(parser.finish())).strip() or None
