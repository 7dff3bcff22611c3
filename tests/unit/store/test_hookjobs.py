"""Events on their way to webhooks, as rows: made once, in order, parked, put back, dropped."""

import sqlite3
import uuid

import pytest
from unit.store.build import NOW, message, recipient

from arkrelay.model.event import Event, EventKind
from arkrelay.model.hook import Answer, Endpoint, HookDelivery, HookJob, JobEnd
from arkrelay.model.message import Recipient
from arkrelay.store import hookjobs
from arkrelay.store.accept import Insertion, insert_messages
from arkrelay.store.database import Store
from arkrelay.store.history import insert_events
from arkrelay.store.hookjobs import Attempted, NewJob


class Site:
    """One endpoint, and recipients with events."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.cursor = 0

    async def begin(self) -> "Site":
        def job(db: sqlite3.Connection) -> None:
            self.cursor = hookjobs.start_cursor(db)
            hookjobs.add_endpoint(db, "acme", "1", "https://hook.test/")

        await self.store.write(job)
        return self

    async def happen(self, *of: Recipient, kind: EventKind = EventKind.SENT) -> None:
        """Let an event of each be in the log, and follow it."""
        events = [Event(kind, NOW, "acme", one.message.id, one.id, {"details": one.address}) for one in of]
        await self.store.write(lambda db: insert_events(db, events))
        told, end = await self.store.read(lambda db: hookjobs.read_told(db, self.cursor, 100, {kind}))
        jobs = [NewJob(1, one.seq, one.recipient_id, uuid.uuid4()) for one in told]
        after, self.cursor = self.cursor, end
        await self.store.write(lambda db: hookjobs.insert_jobs(db, jobs, NOW, after, end))

    async def accept(self, n: int) -> list[Recipient]:
        made = [recipient(self.store, message(self.store), f"u{i}@dest.test") for i in range(n)]
        insertions = [Insertion(one.message, [one], b"x", ()) for one in made]
        await self.store.write(lambda db: insert_messages(db, insertions, self.store.epoch))
        return made

    async def due(self, now: float = NOW, limit: int = 50, over: frozenset[int] = frozenset()) -> list[HookJob]:
        return await self.store.read(lambda db: hookjobs.due_jobs(db, 1, now, limit, over))

    def delivery(self, job: HookJob, status: int, due_at: float | None = None) -> HookDelivery:
        answer = Answer(status, "", None if status < 300 else f"It answered {status}", 0.1)
        return HookDelivery(
            public_id=f"whr_{uuid.uuid4()}",
            owner="acme",
            webhook_id="1",
            webhook_name="w",
            tenant_id="acme",
            event="MessageSent",
            url="https://hook.test/",
            attempt=job.attempts + 1,
            will_retry=due_at is not None,
            at=NOW,
            headers={},
            body="{}",
            answer=answer,
        )

    async def end(self, job: HookJob, end: JobEnd, due_at: float | None = None, status: int = 200) -> None:
        failures = 0 if end is JobEnd.DONE else 1
        done = Attempted(job, end, due_at, self.delivery(job, status, due_at), failures, None)
        await self.store.write(lambda db: hookjobs.settle(db, done))

    async def endpoint(self) -> Endpoint:
        (found,) = await self.store.read(hookjobs.list_endpoints)
        return found


@pytest.fixture
async def site(store: Store) -> Site:
    return await Site(store).begin()


async def test_a_job_knows_its_event_its_recipient_and_an_id_of_its_own(site: Site) -> None:
    ann, bob = await site.accept(2)
    await site.happen(ann, bob)
    one, two = await site.due()
    assert (one.recipient, one.event and one.event.data) == (ann, {"details": ann.address})
    assert (one.attempts, two.recipient_id) == (0, bob.id)
    assert one.uuid != two.uuid
    assert uuid.UUID(one.uuid).version == 4
    assert await site.due() == [one, two]  # the same ids, however often it is read
    assert (await site.endpoint()).waiting == 2


async def test_a_stretch_of_the_log_becomes_jobs_once(site: Site) -> None:
    (ann,) = await site.accept(1)
    await site.happen(ann)
    again = [NewJob(1, 1, ann.id, uuid.uuid4())]
    cursor = await site.store.write(lambda db: hookjobs.insert_jobs(db, again, NOW, 0, site.cursor))
    assert cursor == site.cursor
    assert len(await site.due()) == 1


async def test_a_log_that_was_never_followed_is_followed_from_its_end(store: Store) -> None:
    site = Site(store)
    made = await site.accept(1)
    await store.write(lambda db: insert_events(db, [Event(EventKind.SENT, NOW, "acme", 1, made[0].id)]))
    await site.begin()
    assert site.cursor == 1
    told, end = await store.read(lambda db: hookjobs.read_told(db, site.cursor, 100, {EventKind.SENT}))
    assert (told, end) == ([], 1)


async def test_a_stretch_without_anybody_who_wants_it_is_passed_over_whole(site: Site) -> None:
    made = await site.accept(3)
    await site.store.write(
        lambda db: insert_events(db, [Event(EventKind.SENT, NOW, "acme", 1, one.id) for one in made])
    )
    assert await site.store.read(lambda db: hookjobs.read_told(db, 0, 2, frozenset())) == ([], 3)
    told, end = await site.store.read(lambda db: hookjobs.read_told(db, 0, 2, {EventKind.SENT}))
    assert ([one.seq for one in told], end) == ([1, 2], 2)


async def test_of_one_recipient_the_oldest_goes_first_and_others_pass(site: Site) -> None:
    ann, bob = await site.accept(2)
    await site.happen(ann, kind=EventKind.DELAYED)
    await site.happen(ann)
    await site.happen(bob)
    first, other = await site.due()
    assert (first.recipient_id, other.recipient_id) == (ann.id, bob.id)
    await site.end(first, JobEnd.RETRY, NOW + 60, 500)
    assert [job.recipient_id for job in await site.due()] == [bob.id]
    assert await site.store.read(lambda db: hookjobs.next_due(db, 1, NOW)) == NOW + 60
    (again, _) = sorted(await site.due(NOW + 61), key=lambda job: job.id)
    assert (again.uuid, again.attempts) == (first.uuid, 1)
    await site.end(again, JobEnd.DONE)
    assert [job.event and job.event.kind for job in await site.due() if job.recipient_id == ann.id] == [
        EventKind.SENT
    ]


async def test_what_is_in_hand_is_not_read_again_and_holds_back_its_followers(site: Site) -> None:
    ann, bob = await site.accept(2)
    await site.happen(ann, bob, ann)
    held = frozenset({(await site.due())[0].id})
    assert [job.recipient_id for job in await site.due(over=held)] == [bob.id]
    assert [job.recipient_id for job in await site.due(limit=1, over=held)] == [bob.id]


async def test_counts_follow_every_end(site: Site) -> None:
    made = await site.accept(4)
    await site.happen(*made)
    done, retried, parked, dropped = await site.due()
    await site.end(done, JobEnd.DONE)
    await site.end(retried, JobEnd.RETRY, NOW + 1, 500)
    await site.end(parked, JobEnd.PARKED, None, 500)
    await site.store.write(lambda db: hookjobs.settle(db, Attempted(dropped, JobEnd.DONE, None, None, 0, None)))
    await site.end(done, JobEnd.DONE)  # twice: nothing is counted twice
    now = await site.endpoint()
    assert (now.waiting, now.parked, now.status, now.failures) == (1, 1, 200, 0)
    assert await site.store.read(hookjobs.oldest_waiting) == NOW


async def test_what_is_parked_comes_back_under_its_id_before_what_happened_later(site: Site) -> None:
    (ann,) = await site.accept(1)
    await site.happen(ann, ann)
    (first,) = await site.due()
    await site.end(first, JobEnd.PARKED, None, 500)
    (later,) = await site.due()
    assert await site.store.write(lambda db: hookjobs.put_back(db, 1, NOW + 1, NOW)) == 0
    assert await site.store.write(lambda db: hookjobs.put_back(db, 1, 0, NOW)) == 1
    (back,) = await site.due()
    assert (back.id, back.uuid, back.attempts) == (first.id, first.uuid, 0)
    assert back.id < later.id
    assert ((await site.endpoint()).waiting, (await site.endpoint()).parked) == (2, 0)


async def test_an_id_is_never_used_twice_while_its_job_is_parked(site: Site) -> None:
    (ann,) = await site.accept(1)
    for _ in range(3):
        await site.happen(ann)
        (job,) = await site.due()
        await site.end(job, JobEnd.PARKED, None, 500)
    assert (await site.endpoint()).parked == 3


async def test_what_was_due_for_too_long_is_parked_and_old_parked_ones_are_forgotten(site: Site) -> None:
    made = await site.accept(3)
    await site.happen(*made)
    await site.end((await site.due())[0], JobEnd.RETRY, NOW + 100, 500)
    assert await site.store.write(lambda db: hookjobs.park_overdue(db, 1, NOW + 50)) == 2
    assert ((await site.endpoint()).waiting, (await site.endpoint()).parked) == (1, 2)
    assert await site.store.write(lambda db: hookjobs.prune_parked(db, NOW, 100)) == 0
    assert await site.store.write(lambda db: hookjobs.prune_parked(db, NOW + 1, 100)) == 2
    assert (await site.endpoint()).parked == 0


async def test_what_is_in_hand_is_not_parked_and_what_was_taken_is_not_kept_parked(site: Site) -> None:
    made = await site.accept(3)
    await site.happen(*made)
    one, two, _ = await site.due()
    assert await site.store.write(lambda db: hookjobs.park_overdue(db, 1, NOW + 50, [one.id])) == 2
    await site.end(one, JobEnd.DONE)
    await site.end(two, JobEnd.DONE)  # its post was under way
    assert ((await site.endpoint()).waiting, (await site.endpoint()).parked) == (0, 1)
    assert await site.store.write(lambda db: hookjobs.put_back(db, 1, 0, NOW)) == 1


async def test_what_waits_goes_when_its_endpoint_comes_back_but_for_the_suspects(site: Site) -> None:
    made = await site.accept(4)
    await site.happen(*made)
    *failed, last = await site.due()
    for job in failed:
        await site.end(job, JobEnd.RETRY, NOW + 9999, 500)
    suspect, *others = [job.id for job in failed]
    done = Attempted(last, JobEnd.DONE, None, site.delivery(last, 200), 0, None, forward_but=(suspect,))
    assert await site.store.write(lambda db: hookjobs.settle(db, done)) == others
    assert [job.id for job in await site.due()] == others
    for step in ([suspect], []):
        assert await site.store.write(lambda db: hookjobs.bring_forward(db, 1, NOW, limit=1)) == step


async def test_an_answer_that_comes_late_is_not_written_down_about_another_webhook(site: Site) -> None:
    (ann,) = await site.accept(1)
    await site.happen(ann)
    (job,) = await site.due()
    await site.store.write(lambda db: hookjobs.remove_endpoint(db, 1))
    await site.store.write(lambda db: hookjobs.add_endpoint(db, "other", "1", "https://other.test/"))
    await site.end(job, JobEnd.DONE)
    now = await site.endpoint()
    assert (now.id, now.owner, now.status, now.waiting) == (1, "other", None, 0)


async def test_a_row_that_cannot_be_read_keeps_no_other(site: Site) -> None:
    made = await site.accept(2)
    await site.happen(*made)
    await site.store.write(lambda db: db.execute("UPDATE events SET data = '{\"details\": ' WHERE seq = 1"))
    broken, good = await site.due()
    assert (broken.event, good.event is not None) == (None, True)
    assert "JSON" in broken.unreadable


async def test_a_renewed_endpoint_is_asked_for_all_at_once(site: Site) -> None:
    made = await site.accept(2)
    await site.happen(*made)
    for job in await site.due():
        await site.end(job, JobEnd.RETRY, NOW + 9999, 500)
    await site.store.write(lambda db: hookjobs.renew_endpoint(db, 1, "https://new.test/", NOW))
    assert len(await site.due()) == 2
    now = await site.endpoint()
    assert (now.url, now.failures, now.rest_until, now.gone_at) == ("https://new.test/", 0, None, None)


async def test_a_removed_endpoint_takes_its_jobs_along(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hookjobs, "STEP", 2)
    made = await site.accept(5)
    await site.happen(*made)
    await site.end((await site.due())[0], JobEnd.PARKED, None, 500)
    steps = 0
    while await site.store.write(lambda db: hookjobs.remove_endpoint(db, 1)):
        steps += 1
    assert steps == 2
    assert await site.store.read(hookjobs.list_endpoints) == []
    assert await site.due() == []


async def test_what_retention_took_is_said_to_be_gone(site: Site) -> None:
    (ann,) = await site.accept(1)
    await site.happen(ann)
    await site.store.write(lambda db: db.execute("DELETE FROM events"))
    (job,) = await site.due()
    assert (job.event, job.recipient) == (None, ann)


async def test_each_look_uses_the_index_that_it_names(site: Site) -> None:
    def plan(db: sqlite3.Connection) -> str:
        rows = db.execute(f"EXPLAIN QUERY PLAN {hookjobs._CLAIM}", (1, NOW, 50)).fetchall()
        return "; ".join(str(row[3]) for row in rows)

    found = await site.store.read(plan)
    assert "hook_jobs_due (endpoint=? AND due_at<?)" in found
    assert "hook_jobs_order (endpoint=? AND recipient_id=? AND rowid<?)" in found
    assert "SCAN hook_jobs" not in found
