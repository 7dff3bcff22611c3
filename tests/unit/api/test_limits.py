"""The send limit of one tenant, and of several together."""

import pytest

from arkrelay.api.limits import send_limit

NOW = 1_800_000_600.0  # ten minutes past the hour


@pytest.mark.parametrize(
    ("uses", "limit", "used", "remaining", "percent", "approaching", "exceeded"),
    [
        pytest.param([(0, 100)], 100, 0, 100, 0, False, False, id="nothing-sent"),
        pytest.param([(90, 100)], 100, 90, 10, 90, False, False, id="nine-tenths-are-not-above"),
        pytest.param([(91, 100)], 100, 91, 9, 91, True, False, id="approaching"),
        pytest.param([(100, 100)], 100, 100, 0, 100, True, True, id="full"),
        pytest.param([(120, 100)], 100, 120, 0, 100, True, True, id="lowered-since"),
        pytest.param([(1, 3)], 3, 1, 2, 33.33, False, False, id="rounded"),
        pytest.param([(500, 0)], None, 500, None, None, False, False, id="no-limit"),
        pytest.param([(50, 100), (10, 100)], 200, 60, 140, 30, False, False, id="two-tenants"),
        pytest.param([(120, 100), (0, 100)], 200, 120, 100, 50, False, False, id="one-s-rest-is-not-another-s"),
        pytest.param([(100, 100), (1, 1)], 101, 101, 0, 100, True, True, id="both-full"),
        pytest.param([(100, 100), (7, 0)], None, 107, None, None, False, False, id="one-without-limit"),
    ],
)
def test_it_is_the_sum_of_what_tenants_have(
    uses: list[tuple[int, int]],
    limit: int | None,
    used: int,
    remaining: int | None,
    percent: float | None,
    approaching: bool,
    exceeded: bool,
) -> None:
    found = send_limit(uses, NOW)
    assert found is not None
    assert (found.limit, found.used, found.remaining, found.usage_percent) == (limit, used, remaining, percent)
    assert (found.approaching, found.exceeded) == (approaching, exceeded)
    assert found.resets_at == "2027-01-15T09:00:00.000Z"


def test_where_nobody_may_send_there_is_none() -> None:
    assert send_limit([], NOW) is None
