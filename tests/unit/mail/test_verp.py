"""Return paths: only ours are recognised, for thirty days, in any case."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.mail.verp import LIFETIME_S, PERIOD_S, ReturnPaths, stamp_at
from arkrelay.model.address import parse_mailbox

NOW = 1_700_000_000.0
PATHS = ReturnPaths(b"s" * 32)


@given(st.integers(min_value=0, max_value=2**63 - 1), st.floats(min_value=0, max_value=4e9))
def test_a_return_path_names_its_recipient_in_any_case(recipient_id: int, at: float) -> None:
    local = PATHS.local_part(recipient_id, at)
    assert re.fullmatch(r"b[0-9a-f]{50}", local)
    assert str(parse_mailbox(f"{local}@rp.test")) == f"{local}@rp.test"
    assert PATHS.parse(local, at) == recipient_id
    assert PATHS.parse(local.upper(), at + LIFETIME_S) == recipient_id
    assert PATHS.parse(local, at + LIFETIME_S + 2 * 3600) is None


def test_one_from_the_future_is_taken_because_clocks_are_set_back() -> None:
    assert PATHS.parse(PATHS.local_part(7, NOW + 864000), NOW) == 7


@given(st.floats(min_value=0, max_value=4e9), st.floats(min_value=0, max_value=400 * 86400.0))
def test_a_message_of_any_age_comes_back_for_three_weeks(accepted_at: float, age_s: float) -> None:
    now = accepted_at + age_s
    assert PATHS.parse(PATHS.local_part(7, stamp_at(accepted_at, now)), now + LIFETIME_S - PERIOD_S) == 7


def test_greylisting_sees_one_return_path_for_a_week() -> None:
    assert {stamp_at(NOW, NOW + age_s) for age_s in (0.0, 300.0, PERIOD_S - 1, -60.0)} == {NOW}
    assert stamp_at(NOW, NOW + 3 * PERIOD_S) == stamp_at(NOW, NOW + 4 * PERIOD_S - 1) == NOW + 3 * PERIOD_S


def test_every_changed_character_makes_it_strange() -> None:
    local = PATHS.local_part(7, NOW)
    for index in range(len(local)):
        for other in "ab7":
            if local[index] != other:
                assert PATHS.parse(local[:index] + other + local[index + 1 :], NOW) is None


def test_another_secret_makes_another_path() -> None:
    assert ReturnPaths(b"t" * 32).parse(PATHS.local_part(7, NOW), NOW) is None
    with pytest.raises(ValueError, match="16 bytes"):
        ReturnPaths(b"short")


@given(st.text())
def test_any_text_is_parsed_or_not_ours(text: str) -> None:
    assert PATHS.parse(text, NOW) is None
    assert PATHS.parse("b" + text, NOW) is None


@pytest.mark.parametrize("local", ["", "b", "b" + "a" * 39, "b" + "a" * 41, "b" + "1" * 40, "c" + "a" * 40])
def test_what_has_not_the_form_is_not_ours(local: str) -> None:
    assert PATHS.parse(local, NOW) is None
