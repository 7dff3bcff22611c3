"""The burst guard: when a site is not believed any more, and when again."""

import pytest

from arkrelay.policy.burst import SITES, WINDOW_S, Bursts

NOW = 1_770_000_000.0


def feed(bursts: Bursts, blamed: int, taken: int, at: float = NOW, tenant: str = "acme") -> bool:
    """Count these; return whether a burst has begun, of the tenant or of everybody."""
    for _ in range(taken):
        bursts.note("google", tenant, at, blamed=False, percent=20, least=50)
    return sum(len(bursts.note("google", tenant, at, blamed=True, percent=20, least=50)) for _ in range(blamed)) > 0


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
    assert (bursts.burst("google", "acme", NOW) is not None) is tripped
    assert bursts.burst("yahoo", "acme", NOW) is None


def test_it_is_believed_again_an_hour_after_the_last_of_it() -> None:
    bursts = Bursts()
    assert feed(bursts, 60, 0)
    assert not feed(bursts, 1, 0, NOW + 1800)  # said once
    found = bursts.burst("google", "acme", NOW + 1801)
    assert found is not None
    assert str(found) == "google refused 61 of 61 recipients as unknown within an hour"
    assert bursts.burst("google", "acme", NOW + 1800 + WINDOW_S) is None
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
        bursts.note(f"s{number}", "acme", NOW + number, blamed=False, percent=20, least=50)
    assert len(bursts._sites) == SITES
    assert "s0" not in bursts._sites


@pytest.mark.parametrize(("percent", "least"), [(0, 50), (20, 0)])
def test_it_can_be_switched_off(percent: float, least: int) -> None:
    bursts = Bursts()
    assert not any(bursts.note("x", "acme", NOW, blamed=True, percent=percent, least=least) for _ in range(200))


@pytest.mark.parametrize(
    ("shares", "paused"),
    [
        pytest.param({"acme": (60, 0), "beta": (1, 0)}, {"acme"}, id="one-dead-address-is-no-witness"),
        pytest.param({"acme": (60, 0), "beta": (5, 300)}, {"acme"}, id="the-other-list-is-good"),
        pytest.param({"acme": (30, 0), "beta": (30, 0)}, {"acme", "beta", "third"}, id="two-see-it"),
        pytest.param({"acme": (5, 0), "beta": (5, 0), "c": (5, 0), "d": (45, 0)}, set(), id="one-sees-it"),
        pytest.param({"acme": (49, 0)}, set(), id="too-few"),
    ],
)
def test_a_tenant_pauses_itself_and_two_pause_everybody(shares: dict[str, tuple[int, int]], paused: set[str]) -> None:
    bursts = Bursts()
    for tenant, (blamed, taken) in shares.items():
        feed(bursts, blamed, taken, tenant=tenant)
    found = {tenant for tenant in (*shares, "third") if bursts.burst("google", tenant, NOW) is not None}
    assert found == paused


def test_nobody_reads_the_numbers_of_others() -> None:
    bursts = Bursts()
    feed(bursts, 30, 0, tenant="acme")
    feed(bursts, 30, 0, tenant="beta")
    found = bursts.burst("google", "third", NOW)
    assert str(found) == "google refused too many recipients of several senders as unknown within an hour"
    feed(bursts, 40, 0, tenant="acme")
    assert str(bursts.burst("google", "acme", NOW)).startswith("google refused 70 of 70 recipients")


def test_what_was_counted_outlives_the_process() -> None:
    bursts, after = Bursts(), Bursts()
    feed(bursts, 45, 0)
    feed(bursts, 60, 0, tenant="beta")
    after.restore(bursts.counted(), NOW + 60)
    assert bursts.counted() == []
    assert after.burst("google", "beta", NOW + 60) == bursts.burst("google", "beta", NOW + 60)
    assert after.burst("google", "acme", NOW + 60) == bursts.burst("google", "acme", NOW + 60)
    assert feed(after, 5, 0, NOW + 60)  # 45 and 5
    late = Bursts()
    late.restore(after.counted(), NOW + 3 * WINDOW_S)
    assert late._sites == {}
