"""The burst guard: when a site is not believed any more, and when again."""

import pytest

from arkrelay.policy.burst import SITES, WINDOW_S, Bursts

NOW = 1_770_000_000.0


def feed(bursts: Bursts, blamed: int, taken: int, at: float = NOW, site: str = "google", least: int = 50) -> bool:
    for _ in range(taken):
        bursts.note(site, at, blamed=False, percent=20, least=least)
    return sum(bursts.note(site, at, blamed=True, percent=20, least=least) for _ in range(blamed)) > 0


@pytest.mark.parametrize(
    ("blamed", "taken", "tripped"),
    [
        pytest.param(49, 0, False, id="too-few"),
        pytest.param(50, 0, True, id="all-of-enough"),
        pytest.param(10, 40, False, id="just-a-fifth"),
        pytest.param(11, 40, True, id="more-than-a-fifth"),
        pytest.param(100, 1000, False, id="a-dirty-list"),
    ],
)
def test_more_than_a_fifth_of_fifty_is_not_believed(blamed: int, taken: int, tripped: bool) -> None:
    bursts = Bursts()
    assert feed(bursts, blamed, taken) is tripped
    assert (bursts.burst("google", NOW) is not None) is tripped
    assert bursts.burst("yahoo", NOW) is None


def test_it_is_believed_again_an_hour_after_the_last_of_it() -> None:
    bursts = Bursts()
    assert feed(bursts, 60, 0)
    assert not feed(bursts, 1, 0, NOW + 1800)  # said once
    found = bursts.burst("google", NOW + 1801)
    assert found is not None
    assert str(found) == "google refused 61 of 61 recipients as unknown within an hour"
    assert bursts.burst("google", NOW + 1800 + WINDOW_S) is None
    assert not feed(bursts, 1, 0, NOW + 2 * WINDOW_S)
    assert feed(bursts, 60, 0, NOW + 3 * WINDOW_S)


def test_what_is_older_than_an_hour_does_not_count() -> None:
    bursts = Bursts()
    feed(bursts, 40, 0)
    assert not feed(bursts, 40, 0, NOW + WINDOW_S)


def test_a_clock_that_is_set_back_forgets_the_future() -> None:
    bursts = Bursts()
    feed(bursts, 40, 0, NOW + 86400)
    assert not feed(bursts, 40, 0)


def test_sites_are_bounded() -> None:
    bursts = Bursts()
    for number in range(SITES + 10):
        bursts.note(f"s{number}", NOW + number, blamed=False, percent=20, least=50)
    assert len(bursts._sites) == SITES
    assert "s0" not in bursts._sites


@pytest.mark.parametrize(("percent", "least"), [(0, 50), (20, 0)])
def test_it_can_be_switched_off(percent: float, least: int) -> None:
    bursts = Bursts()
    assert not sum(bursts.note("x", NOW, blamed=True, percent=percent, least=least) for _ in range(200))
