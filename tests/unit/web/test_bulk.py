"""Which verbs are offered for all that a filter finds, for how many, and at what cost."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.backlog import Backlog, fill

from arkrelay.model.message import Status
from arkrelay.relay.operate import Verb
from arkrelay.store import browse, place
from arkrelay.store.connection import Connection, connect
from arkrelay.store.find import Filters
from arkrelay.web.bulk import Offer, offers, statuses_of

ROWS = 2000


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    state: Path = tmp_path_factory.mktemp("bulk") / "state"
    fill(state, Backlog(rows=ROWS, destinations=20, dead=0), time.time())
    opened = connect(state / place.DATABASE)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("asked", "verbs"),
    [
        ((), {"retry": "softfail", "hold": "pending softfail", "release": "held", "delete": "held pending softfail"}),
        ((Status.SOFTFAIL,), {"retry": "softfail", "hold": "softfail", "delete": "softfail"}),
        ((Status.PENDING,), {"retry": "pending", "hold": "pending", "delete": "pending"}),
        ((Status.HELD,), {"release": "held", "delete": "held"}),
        ((Status.HARDFAIL, Status.SENT), {"retry": "hardfail"}),
        ((Status.SENT, Status.BOUNCED), {}),
    ],
)
def test_a_verb_is_for_the_states_that_it_fits(asked: tuple[Status, ...], verbs: dict[str, str]) -> None:
    found = {verb.value: " ".join(states) for verb in Verb if (states := statuses_of(verb, Filters(statuses=asked)))}
    assert found == verbs


def test_a_state_is_counted_exactly_and_what_is_rare_as_far_as_it_is_looked_at(
    db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued = Filters(statuses=(Status.PENDING, Status.SOFTFAIL))
    every = {one.verb: one for one in offers(db, queued)}
    assert (every[Verb.HOLD].n, every[Verb.HOLD].unfinished) == (ROWS, False)
    rare = {one.verb: one for one in offers(db, Filters(domain="d0.test"))}
    assert 0 < rare[Verb.HOLD].n < ROWS
    assert not rare[Verb.HOLD].unfinished
    assert Verb.RELEASE not in rare, "nothing is held"
    monkeypatch.setattr(browse, "LOOKED", 30)
    few = {one.verb: one for one in offers(db, Filters(domain="d0.test"))}
    assert few[Verb.HOLD].unfinished
    assert few[Verb.HOLD].n < rare[Verb.HOLD].n
    assert offers(db, queued) == list(every.values()), "a counter knows"
    assert offers(db, Filters(domain="none.test", statuses=(Status.HELD,))) == []


@pytest.mark.parametrize(
    ("n", "unfinished", "said"),
    [
        (1, False, "1 message matches."),
        (12_000, False, "12\N{NARROW NO-BREAK SPACE}000 messages match."),
        (1, True, "At least 1 message matches."),
        (12, True, "At least 12 messages match."),
        (0, True, "How many match is not known before it is done."),
    ],
)
def test_how_many_match_is_said_as_far_as_it_is_known(n: int, unfinished: bool, said: str) -> None:
    assert Offer(Verb.HOLD, n, unfinished, ()).matches == said
