"""Which way a connection goes: new addresses first, then known ones, then a route that has the cause, or not yet."""

from dataclasses import dataclass, field
from random import Random

from arkrelay.model.delivery import Route, Source, Warmup
from arkrelay.policy.pace import Capacity, Order, Pace
from arkrelay.policy.warmup import DAY_S, Warmups
from arkrelay.policy.ways import Chooser, Detours, Wait, Way

NOW = 20_000 * DAY_S + 3600.0
CANARY_S = 86400.0
A, B = Source(address="192.0.2.1"), Source(address="192.0.2.2")
NEW = Source(address="192.0.2.9", warmup=True)
CLEAN = Route(domain="*", host="Clean.example:587", when="sender-reputation")
OVERFLOW = Route(domain="*", host="warm.example:587", when="warm-up")


@dataclass
class Lanes:
    """The state of all lanes, and a choice."""

    pace: Pace = field(default_factory=lambda: Pace(lambda _lane: Capacity(connections=2, rate=20)))
    warmups: Warmups = field(default_factory=lambda: Warmups(lambda: Warmup(daily=(3, 6))))

    def choose(self, *sources: Source, detours: Detours | None = None, now: float = NOW) -> Way | Wait:
        chooser = Chooser(self.pace, self.warmups)
        return chooser.choose("google", sources, detours or Detours(), CANARY_S, now, Random(1))

    def way(self, *sources: Source, detours: Detours | None = None, now: float = NOW) -> Way:
        found = self.choose(*sources, detours=detours, now=now)
        assert isinstance(found, Way), found
        return found

    def wait(self, *sources: Source, detours: Detours | None = None, now: float = NOW) -> Wait:
        found = self.choose(*sources, detours=detours, now=now)
        assert isinstance(found, Wait), found
        return found


def test_without_addresses_of_our_own_the_lane_is_the_site() -> None:
    assert Lanes().way() == Way("google")


def test_the_address_with_the_fewest_connections_is_next() -> None:
    lanes = Lanes()
    lanes.pace.connected("google@192.0.2.1")
    assert lanes.way(A, B).lane == "google@192.0.2.2"
    lanes.pace.connected("google@192.0.2.2")
    lanes.pace.connected("google@192.0.2.2")
    assert lanes.way(A, B).lane == "google@192.0.2.1"


def test_mail_waits_for_a_connection_when_every_address_has_all_of_them() -> None:
    lanes = Lanes()
    for name in ("google@192.0.2.1", "google@192.0.2.2") * 2:
        lanes.pace.connected(name)
    wait = lanes.wait(A, B)
    assert wait.until is None
    assert set(wait.lanes) == {"google@192.0.2.1", "google@192.0.2.2"}
    assert "in use" in wait.reason


def test_a_new_address_goes_first_until_its_day_is_over_and_then_a_known_one() -> None:
    lanes = Lanes()
    for _ in range(3):
        assert lanes.way(A, NEW).lane == "google@192.0.2.9"
        lanes.warmups.started("google@192.0.2.9", NOW)
    assert lanes.way(A, NEW).lane == "google@192.0.2.1"
    assert lanes.way(A, NEW, now=NOW + DAY_S).lane == "google@192.0.2.9"


def test_new_addresses_alone_overflow_to_a_route_or_wait_for_tomorrow() -> None:
    lanes = Lanes()
    for _ in range(3):
        lanes.warmups.started("google@192.0.2.9", NOW)
    way = lanes.way(NEW, detours=Detours(warmup=OVERFLOW))
    assert (way.lane, way.route) == ("warm.example:587", OVERFLOW)
    wait = lanes.wait(NEW, detours=Detours(reputation=CLEAN))  # nobody has refused it
    assert "all 3 messages of today" in wait.reason
    assert wait.until is not None
    assert NOW < wait.until < NOW + DAY_S + 600


def test_mail_for_a_known_address_that_is_busy_waits_for_it_and_takes_no_detour() -> None:
    lanes = Lanes()
    for _ in range(3):
        lanes.warmups.started("google@192.0.2.9", NOW)
    for _ in range(2):
        lanes.pace.connected("google@192.0.2.1")
    assert lanes.wait(A, NEW, detours=Detours(warmup=OVERFLOW)).lanes == ("google@192.0.2.1",)


def test_an_address_that_a_site_refuses_is_passed_over_until_its_canary() -> None:
    lanes = Lanes()
    lanes.pace.block("google@192.0.2.1", NOW, 0, "listed")
    for later in (0.0, 7 * 3600.0, CANARY_S - 1):
        assert lanes.way(A, B, now=NOW + later) == Way("google@192.0.2.2", B)
    lanes.pace.connected("google@192.0.2.2")
    canary = lanes.way(A, B, now=NOW + CANARY_S)
    assert canary == Way("google@192.0.2.1", A, messages=1)
    lanes.pace.connected(canary.lane)  # while it is under way the others keep off
    assert lanes.way(A, B, now=NOW + CANARY_S).lane == "google@192.0.2.2"
    lanes.pace.succeeded(canary.lane, NOW + CANARY_S)
    assert lanes.way(A, now=NOW + CANARY_S).messages == 0


def test_a_site_that_refuses_every_address_is_reached_by_the_route_until_the_canary_passes() -> None:
    lanes, detours = Lanes(), Detours(reputation=CLEAN)
    lanes.pace.block("google", NOW, 0, "listed")
    way = lanes.way(detours=detours)
    assert (way.lane, way.route) == ("clean.example:587", CLEAN)
    assert lanes.way(detours=detours, now=NOW + CANARY_S) == Way("google", messages=1)
    lanes.pace.block("google", NOW + CANARY_S, 0, "still listed")
    assert lanes.way(detours=detours, now=NOW + CANARY_S + 7 * 3600).route is CLEAN
    lanes.pace.succeeded("google", NOW + 2 * CANARY_S)
    assert lanes.way(detours=detours, now=NOW + 2 * CANARY_S) == Way("google")


def test_without_a_route_a_refused_address_is_tried_after_its_rest() -> None:
    lanes = Lanes()
    until = lanes.pace.block("google", NOW, 0, "listed by zen")
    wait = lanes.wait()
    assert (wait.until, wait.reason) == (until, "listed by zen")
    assert lanes.way(now=until) == Way("google")
    both = Lanes()
    first = both.pace.block("google@192.0.2.1", NOW, 0, "listed")
    both.pace.block("google@192.0.2.2", NOW + 60, 0, "listed")
    assert both.wait(A, B, now=NOW + 60).until == first
    assert both.way(A, B, now=first).lane == "google@192.0.2.1"


def test_a_lane_that_was_slowed_down_leaves_the_mail_to_the_others() -> None:
    lanes = Lanes()
    lanes.pace.slow("google@192.0.2.1", NOW, "unusual rate")
    lanes.pace.started("google@192.0.2.1", NOW)
    assert lanes.way(A, B).lane == "google@192.0.2.2"
    wait = lanes.wait(A)
    assert wait.reason == "unusual rate"
    assert wait.until is not None
    assert 5 < wait.until - NOW <= 120


def test_a_route_that_has_no_room_is_waited_for() -> None:
    lanes, detours = Lanes(), Detours(reputation=CLEAN)
    lanes.pace.block("google", NOW, 0, "listed")
    for _ in range(2):
        lanes.pace.connected("clean.example:587")
    assert lanes.wait(detours=detours).lanes == ("clean.example:587",)
    lanes.pace.closed("clean.example:587", NOW)
    lanes.pace.order("clean.example:587", Order(rest=True))
    assert lanes.wait(detours=detours).until is not None


def test_what_was_refused_on_one_way_knows_whether_there_is_another() -> None:
    lanes = Lanes()
    chooser = Chooser(lanes.pace, lanes.warmups)

    def another(*sources: Source, detours: Detours | None = None) -> bool:
        return chooser.another("google", sources, detours or Detours(), "google@192.0.2.1", CANARY_S, NOW)

    assert not another(A)
    assert another(A, B)
    assert another(A, detours=Detours(reputation=CLEAN))
    lanes.pace.block("google@192.0.2.2", NOW, 0, "listed")
    assert not another(A, B)
