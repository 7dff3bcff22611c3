"""The conversation of one attempt as it is kept: one row a line, bounded.

A row is the milliseconds since the first one, a mark (``>`` we, ``<`` the peer, ``*`` neither) and the text:
``12<250 2.1.0 ok``. Rows are what an attempt costs on its way, so they are plain text from the start; ``parse`` makes
lines of them for those who look.
"""

import re
from collections.abc import Sequence

from arkrelay.model.transcript import Spoken, Who

LONGEST_BYTES = 4096  # of one transcript, as UTF-8
MOST_ROWS = 100
LONGEST_ROW = 500  # characters
_MARKS = {">": Who.WE, "<": Who.PEER, "*": Who.NOTE}
_ROW = re.compile(r"(\d{1,9})([<>*])(.*)")


def join(rows: Sequence[str]) -> str:
    """Return a transcript of all rows, or of the first and the last ones with a note of how many lie between.

    How it began and how it ended is what is looked for; what is left out is the middle of a long walk over hosts.
    """
    text = "\n".join(rows)
    if len(rows) <= MOST_ROWS and (len(text) if text.isascii() else _octets(text)) <= LONGEST_BYTES:
        return text
    cut = [row[:LONGEST_ROW] for row in rows]
    sizes = [_octets(row) + 1 for row in cut]
    room = LONGEST_BYTES - 60  # for the note
    first = last = 0
    turn = True  # one from the front, one from the back
    while first + last < min(len(cut), MOST_ROWS - 1):
        size = sizes[first] if turn else sizes[-1 - last]
        if size > room:
            break
        room -= size
        first, last = (first + 1, last) if turn else (first, last + 1)
        turn = not turn
    left_out = len(cut) - first - last
    at = _ROW.match(cut[first])
    note = f"{at[1] if at else 0}*({left_out} {'line' if left_out == 1 else 'lines'} left out)"
    return "\n".join([*cut[:first], note, *cut[len(cut) - last :]])


def parse(text: str) -> tuple[Spoken, ...]:
    """Return the lines of a transcript; what is no row is passed over."""
    found = (_ROW.fullmatch(row) for row in text.split("\n"))
    return tuple(Spoken(int(row[1]), _MARKS[row[2]], row[3]) for row in found if row is not None)


def _octets(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
