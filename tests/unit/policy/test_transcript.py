"""A conversation as it is kept: bounded, and read back as it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.model.transcript import Spoken, Who
from arkrelay.policy.transcript import LONGEST_BYTES, LONGEST_ROW, MOST_ROWS, join, parse

PRINTABLE = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=600)
ROW = st.builds("{}{}{}".format, st.integers(0, 10**8), st.sampled_from("<>*"), PRINTABLE)


def test_a_short_conversation_is_read_back_as_it_was() -> None:
    rows = ["0*connected", "3<220 mx.test", "3>EHLO us.test", "4<250-mx.test", "4<250 PIPELINING"]
    assert parse(join(rows)) == (
        Spoken(0, Who.NOTE, "connected"),
        Spoken(3, Who.PEER, "220 mx.test"),
        Spoken(3, Who.WE, "EHLO us.test"),
        Spoken(4, Who.PEER, "250-mx.test"),
        Spoken(4, Who.PEER, "250 PIPELINING"),
    )


def test_nothing_is_said_by_nobody() -> None:
    assert join([]) == ""
    assert parse("") == ()
    assert parse("no row\n\n12?what\n5>QUIT") == (Spoken(5, Who.WE, "QUIT"),)


@pytest.mark.parametrize("text", ["x" * 20, "é" * 200, "€" * 600], ids=["many", "wide", "long"])
def test_of_a_long_one_the_beginning_and_the_end_are_kept_and_what_is_left_out_is_counted(text: str) -> None:
    rows = [f"{n}<{text} {n}" for n in range(500)]
    kept = join(rows)
    lines = kept.split("\n")
    assert len(kept.encode()) <= LONGEST_BYTES
    assert len(lines) <= MOST_ROWS
    assert lines[0] == rows[0][:LONGEST_ROW]
    assert lines[-1] == rows[-1][:LONGEST_ROW]
    (note,) = [line for line in lines if "left out" in line]
    assert note.endswith(f"*({500 - len(lines) + 1} lines left out)")
    assert [one.ms for one in parse(kept)] == sorted(one.ms for one in parse(kept))


@given(st.lists(ROW, max_size=300))
def test_whatever_was_said_it_stays_within_its_bounds_and_is_read_back(rows: list[str]) -> None:
    kept = join(rows)
    assert len(kept.encode()) <= LONGEST_BYTES
    assert len(kept.split("\n")) <= MOST_ROWS
    assert len(parse(kept)) == (len(kept.split("\n")) if kept else 0)
