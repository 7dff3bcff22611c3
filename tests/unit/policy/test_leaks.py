"""What makes a credential look stolen."""

import pytest

from arkrelay.policy.leaks import BadAddresses, judge_new

NOW = 1_800_000_000.0


def counted(good: int, bad: int) -> BadAddresses:
    count = BadAddresses()
    for number in range(good + bad):
        count.add(NOW, f"site{number % 2}", bad=number < bad)
    return count


@pytest.mark.parametrize(
    ("good", "bad", "held"),
    [(24, 26, True), (25, 25, False), (0, 49, False), (0, 50, True), (1000, 999, False), (999, 1001, True)],
)
def test_most_of_enough_addresses_do_not_exist(good: int, bad: int, held: bool) -> None:
    assert bool(counted(good, bad).judge(50, 50)) is held


def test_the_sentence_says_how_many_and_none_is_said_where_nobody_asks() -> None:
    assert counted(20, 60).judge(50, 50) == "60 of 80 recipients within an hour were addresses that do not exist"
    assert not counted(0, 1000).judge(0, 50)


def test_what_is_older_than_an_hour_is_forgotten() -> None:
    count = BadAddresses()
    for minute in range(120):
        for _ in range(2):
            count.add(NOW + 60 * minute, "a", bad=minute < 60)
    assert not count.judge(1, 1)
    for number in range(40):
        count.add(NOW - 3600, "ab"[number % 2], bad=True)  # by a clock that was set back
    assert count.judge(1, 1).startswith("40 of 160 ")


def test_a_site_alone_says_nothing_and_another_is_enough() -> None:
    count = BadAddresses()
    for minute in range(60):
        count.add(NOW + 60 * minute, "broken.test", bad=True)
        count.add(NOW + 60 * minute, "fine.test", bad=False)
    assert not count.judge(10, 50)
    count.add(NOW + 3600, "other.test", bad=True)
    assert count.judge(10, 50)


@pytest.mark.parametrize(("met", "budget", "held"), [(30, 10, True), (29, 10, False), (1000, 0, False)])
def test_three_budgets_of_new_recipients_in_a_day(met: int, budget: int, held: bool) -> None:
    assert bool(judge_new(met, budget)) is held
