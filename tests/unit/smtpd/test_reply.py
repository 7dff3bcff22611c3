"""Replies on the wire."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.model.errors import Refused, StoreError, StoreFull
from arkrelay.smtpd.reply import Answer, answer_to


@given(st.text())
def test_a_reply_is_one_printable_line_of_at_most_512(text: str) -> None:
    line = Answer(550, "5.7.1", text).render()
    assert line.startswith(b"550 5.7.1 ")
    assert line.endswith(b"\r\n")
    assert len(line) <= 512
    assert all(32 <= byte < 127 for byte in line[:-2])


@pytest.mark.parametrize(
    ("error", "code", "enhanced"),
    [
        (Refused(553, "5.7.1", "not yours"), 553, "5.7.1"),
        (StoreFull("disk"), 452, "4.3.1"),
        (StoreError("database is locked"), 451, "4.3.0"),
        (RuntimeError("secret detail"), 451, "4.3.0"),
    ],
)
def test_our_trouble_is_temporary_and_shows_nothing_of_the_inside(error: Exception, code: int, enhanced: str) -> None:
    answer = answer_to(error)
    assert (answer.code, answer.enhanced) == (code, enhanced)
    if not isinstance(error, Refused):
        assert str(error) not in answer.text
        assert type(error).__name__ not in answer.text
