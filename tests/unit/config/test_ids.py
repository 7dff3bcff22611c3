"""Numbers derived from names."""

from hypothesis import given
from hypothesis import strategies as st

from arkrelay.config.ids import Numbers, stable_uuid


@given(st.lists(st.text(), max_size=50))
def test_numbers_are_positive_and_given_once(names: list[str]) -> None:
    numbers = Numbers([])
    made = [numbers.number("acme", name) for name in names]
    assert all(0 < number < 2**31 for number in made)
    assert len(set(made)) == len(made)


def test_a_number_that_is_taken_gives_its_neighbour() -> None:
    number = Numbers([]).number("acme", "production")
    assert Numbers([number]).number("acme", "production") == (number + 1) % 2**31


def test_a_number_stays_what_it_was() -> None:
    assert Numbers([]).number("acme", "production") == 591590106
    assert stable_uuid("domain", "acme", "a.example") == "ac0e40f4-9f84-53f9-9b6d-4e0c0fbe3fb5"
