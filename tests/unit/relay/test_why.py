"""One plain sentence about anything that waits or has ended."""

import time
from dataclasses import replace
from typing import Any

import pytest
from unit.relay.rig import Rig

from arkrelay.model.errors import NotFound
from arkrelay.model.message import Door, Message, Recipient, Status
from arkrelay.model.report import ReportKind
from arkrelay.policy.pace import Order
from arkrelay.policy.schedule import Lane
from arkrelay.policy.sentences import lane_sentence, sentence, when
from arkrelay.relay.why import Why, about, came_back, next_attempt_at, why
from arkrelay.store.reports import StoredReport

NOW = 1_800_000_000.0  # 2027-01-15 08:00:00 UTC
MESSAGE = Message(1, "acme", Door.SMTP, None, NOW, "<1@sender.test>", "a@sender.test", "sender.test", "a@sender.test")


def recipient(status: Status, **changes: Any) -> Recipient:
    fields: dict[str, Any] = {"due_at": NOW, "reason": "what was said.", "status": status}
    return Recipient(7, MESSAGE, "token", "ann@rcpt.test", "rcpt.test", "rcpt.test", **fields | changes)


def resting(until: float, **changes: Any) -> Lane:
    return Lane("rcpt.test", rest_until=until, rest_reason="connection refused", **changes)


@pytest.mark.parametrize(
    ("of", "lane", "said"),
    [
        pytest.param(
            recipient(Status.PENDING, reason=""),
            None,
            "Accepted and about to be sent to ann@rcpt.test.",
            id="fresh",
        ),
        pytest.param(
            recipient(Status.PENDING, reason="", due_at=NOW + 90),
            None,
            "Waits for its first attempt at 2027-01-15 08:01:30 UTC (in 1 min 30 s).",
            id="later",
        ),
        pytest.param(
            recipient(Status.PENDING, reason=""),
            resting(NOW + 60),
            "Waits because rcpt.test could not be reached (connection refused); tried again 2027-01-15 08:01:00 UTC"
            " (in 1 min).",
            id="behind-a-resting-lane",
        ),
        pytest.param(
            recipient(Status.PENDING, uncertain=1, reason="the process ended: it may have arrived", due_at=NOW + 90),
            None,
            "Waits to be sent again 2027-01-15 08:01:30 UTC (in 1 min 30 s): the process ended: it may have arrived.",
            id="uncertain",
        ),
        pytest.param(
            recipient(Status.SOFTFAIL, attempts=1, due_at=NOW + 300),
            None,
            "Deferred after 1 attempt, next one 2027-01-15 08:05:00 UTC (in 5 min); the last one said: what was"
            " said.",
            id="deferred",
        ),
        pytest.param(
            recipient(Status.SOFTFAIL, attempts=2, due_at=NOW + 300),
            resting(NOW + 900),
            "Waits because rcpt.test could not be reached (connection refused); tried again 2027-01-15 08:15:00 UTC"
            " (in 15 min).",
            id="deferred-behind-a-longer-rest",
        ),
        pytest.param(
            recipient(Status.SOFTFAIL, attempts=2, due_at=NOW + 300),
            resting(NOW + 60),
            "Deferred after 2 attempts, next one 2027-01-15 08:05:00 UTC (in 5 min); the last one said: what was"
            " said.",
            id="deferred-beyond-the-rest",
        ),
        pytest.param(
            recipient(Status.SOFTFAIL, attempts=2, due_at=None),
            None,
            "Being delivered now, after 2 attempts; the last one said: what was said.",
            id="in-hand",
        ),
        pytest.param(recipient(Status.SENT), None, "Sent: what was said.", id="sent"),
        pytest.param(
            recipient(Status.HARDFAIL, attempts=1),
            None,
            "Failed for good after 1 attempt: what was said.",
            id="failed",
        ),
        pytest.param(
            recipient(Status.HELD),
            None,
            "Held, and sent to ann@rcpt.test only when somebody releases it: what was said.",
            id="held",
        ),
        pytest.param(
            recipient(Status.BOUNCED),
            None,
            "Accepted by the recipient's server, which later sent it back: what was said.",
            id="bounced",
        ),
    ],
)
def test_the_sentence_names_the_state_the_reason_and_the_next_time(
    of: Recipient, lane: Lane | None, said: str
) -> None:
    assert sentence(of, lane, NOW) == said


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (NOW - 1, "2027-01-15 07:59:59 UTC (now)"),
        (NOW, "2027-01-15 08:00:00 UTC (now)"),
        (NOW + 59, "2027-01-15 08:00:59 UTC (in 59 s)"),
        (NOW + 3600, "2027-01-15 09:00:00 UTC (in 1 h)"),
        (NOW + 90_061, "2027-01-16 09:01:01 UTC (in 1 d 1 h 1 min 1 s)"),
    ],
)
def test_a_time_is_told_by_the_clock_and_by_how_far_away_it_is(at: float, said: str) -> None:
    assert when(at, NOW) == said


def test_a_destination_tells_whether_it_rests_or_is_served() -> None:
    assert lane_sentence(resting(NOW + 60), NOW) == (
        "rcpt.test is left alone until 2027-01-15 08:01:00 UTC (in 1 min), because its last connection failed:"
        " connection refused."
    )
    busy = Lane("rcpt.test", connections=2)
    assert lane_sentence(busy, NOW) == "rcpt.test is served by 2 connection(s); 0 wait in memory."


async def test_a_pause_of_everything_is_the_reason_of_all_that_waits(rig: Rig) -> None:
    waiting, held = rig.recipient(), rig.held("bob@rcpt.test")
    await rig.accept(waiting, held)
    rig.queue.paused = "the disk is full"
    (answer,) = await why(waiting.token, rig.store, rig.queue)
    assert answer.sentence == "Waits because nothing is sent at the moment: the disk is full."
    (answer,) = await why(held.token, rig.store, rig.queue)
    assert answer.sentence.startswith("Held, ")


async def test_whoever_waits_for_a_limit_or_an_order_is_told_which(rig: Rig) -> None:
    now, queue = time.time(), rig.queue
    one, other = replace(rig.recipient(), due_at=now), replace(rig.recipient("bob@other.test"), due_at=now)
    lane, pace = queue.schedule.lane("rcpt.test"), queue.pace

    def said(of: Recipient = one) -> str:
        return about(of, queue, now).sentence

    lane.site = "google"
    lane.connections = 1
    assert said() == "Waits for a connection to google, which is being made."
    lane.connections, lane.sessions = 3, 2
    assert said() == (
        "Waits for its turn, or is being sent now: 2 of 3 connections to google are at work, 0 wait in memory."
    )
    lane.connections = lane.sessions = 0
    for _ in range(5):
        pace.connected("google")
    queue.wait_for(lane, ["google"])
    assert said() == "Waits for a free connection to google: 5 of 5 in use."
    queue.wait_for(lane, ["google@192.0.2.1", "google@192.0.2.2"])
    assert said() == (
        "Waits for a free connection to google@192.0.2.1: 0 of 5, or to google@192.0.2.2: 0 of 5 in use."
    )
    queue.wait_for(lane, ["google"])
    assert said(replace(one, attempts=1, status=Status.SOFTFAIL, due_at=now + 60)).startswith(
        "Deferred after 1 attempt"
    )
    assert (await why("rcpt.test", rig.store, queue))[0].sentence == (
        "rcpt.test waits for a free connection to google: 5 of 5 in use."
    )
    queue.connections = queue.most_connections
    queue.hand_over([other], b"x", 1)
    assert said(other) == "Waits for a free connection: all 200 are in use ([delivery] concurrency)."
    queue.stopping = True
    assert said() == "Waits because the service is being stopped; it goes on when it has started again."


async def test_a_rest_is_told_with_who_ordered_it_and_when_it_ends(rig: Rig) -> None:
    now, queue = time.time(), rig.queue
    waits, lane, pace = replace(rig.recipient(), due_at=now), queue.schedule.lane("rcpt.test"), queue.pace

    def said() -> str:
        return about(waits, queue, now).sentence

    def rests(reason: str, *, of: str) -> str:
        lane.site, lane.rest_site = "google", of
        queue.schedule.rest(lane, now + 60, reason)
        return when(now + 60, now)

    until = rests("connection refused", of="google")
    assert said() == f"Waits because rcpt.test could not be reached (connection refused); tried again {until}."
    until = rests("an internal error (KeyError)", of="")
    assert said() == f"Waits because of an internal error (KeyError); tried again {until}."
    pace.order("google", Order(rate=0.05))
    pace.connected("google")
    pace.started("google", now)
    until = rests("a person set its limits", of="")
    assert said() == (
        f"Waits because google gets no more than 3 messages a minute (a person set its limits); goes on {until}."
    )
    pace.block("google", now, 0, "550 listed")
    until = rests("550 listed", of="google")
    assert said() == f"Waits because google does not want our address (550 listed); tried again {until}."
    pace.order("google", Order(rest=True))
    assert said() == (
        "Waits because a person lets google rest, until somebody ends that (arkrelay lane resume google)."
    )
    assert next_attempt_at(waits, queue, now) is None
    assert (await why("rcpt.test", rig.store, queue))[0].sentence.startswith("rcpt.test waits because a person lets")


async def test_the_next_time_is_that_of_the_sentence(rig: Rig) -> None:
    now, queue = time.time(), rig.queue
    waits, held = replace(rig.recipient(), attempts=1, due_at=now + 60), rig.held("bob@rcpt.test")
    assert next_attempt_at(waits, queue, now) == now + 60
    assert when(now + 60, now) in about(waits, queue, now).sentence
    assert next_attempt_at(replace(waits, due_at=now), queue, now) is None
    assert next_attempt_at(held, queue, now) is None
    assert next_attempt_at(replace(waits, status=Status.SENT), queue, now) is None
    queue.schedule.rest(queue.schedule.lane("rcpt.test"), now + 90, "connection refused")
    assert next_attempt_at(waits, queue, now) == now + 90
    assert when(now + 90, now) in about(waits, queue, now).sentence
    queue.paused = "the disk is full"
    assert next_attempt_at(waits, queue, now) is None


async def test_a_question_is_an_id_an_address_or_a_domain(rig: Rig) -> None:
    ann, bob = rig.recipient("ann@rcpt.test"), rig.recipient("bob@rcpt.test")
    await rig.accept(ann, bob)
    lane = rig.queue.schedule.lane("rcpt.test")
    rig.queue.schedule.rest(lane, time.time() + 60, "connection refused")

    def ids(answers: list[Why]) -> list[str | None]:
        return [one.id for one in answers]

    assert ids(await why(ann.token, rig.store, rig.queue)) == [ann.token]
    assert ids(await why("ANN@rcpt.test", rig.store, rig.queue)) == [ann.token]
    answers = await why("rcpt.test", rig.store, rig.queue)
    assert ids(answers) == [None, bob.token, ann.token]
    assert answers[0].subject == "rcpt.test"
    assert ids(await why("rcpt.test", rig.store, rig.queue, "acme")) == [bob.token, ann.token]
    for question, tenant in ((ann.token, "other"), ("rcpt.test", "other"), ("nobody@rcpt.test", None), ("x", None)):
        with pytest.raises(NotFound, match=f"nothing is known of {question}"):
            await why(question, rig.store, rig.queue, tenant)


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        ((), ""),
        ((ReportKind.AUTO_REPLY,), ""),
        ((ReportKind.UNKNOWN,), "On 2026-02-02 02:40 UTC something came back that a person must read (Hm): arkrelay"),
        ((ReportKind.UNKNOWN, ReportKind.COMPLAINT), "Its recipient called it spam (2026-02-02 02:40 UTC)."),
        ((ReportKind.DELAY,), "Its server said on 2026-02-02 02:40 UTC that it still waits there."),
    ],
)
def test_what_came_back_is_told_beside_the_state(kinds: tuple[ReportKind, ...], said: str) -> None:
    found = [StoredReport(n, 1_770_000_000.0, kind, "", "Bob", "Hm", "", "", b"") for n, kind in enumerate(kinds)]
    assert came_back(found).startswith(said)
    assert bool(came_back(found)) is bool(said)
