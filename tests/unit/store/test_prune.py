"""Retention, and content: what is old goes in small steps, what is undelivered stays."""

from functools import partial
from pathlib import Path

import pytest
from unit.store.build import NOW, accept, count, load, settle

from arkrelay.model.errors import NotFound, StoreError
from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import Recipient, Status
from arkrelay.model.report import Report, ReportKind
from arkrelay.model.settings import Retention
from arkrelay.model.suppression import Cause
from arkrelay.store import bodies, history, lists, prune, reports, suppressions, usage
from arkrelay.store.database import Store
from arkrelay.store.suppressions import NewEntry

DAY = 86400.0
LARGE = b"y" * (bodies.BLOB_BYTES + 1)


async def prune_all(store: Store, now: float, step: int = 3) -> int:
    steps = 1
    while await store.write(lambda db: prune.prune_step(db, now, Retention(), step)):
        steps += 1
        assert steps < 100
    return steps


async def accept_large(store: Store, **more: object) -> Recipient:
    message_id = store.new_message_id() + 1  # the next one, which `accept` takes
    await store.save_large(message_id, LARGE)
    one = await accept(store, content=None, **more)  # type: ignore[arg-type] # keyword arguments of accept
    assert one.message.id == message_id
    return one


async def has_content(store: Store, one: Recipient) -> bool:
    return await store.read(lambda conn: bodies.has_content(conn, one.message.id))


async def test_content_goes_first_then_the_message_then_nothing_is_left(store: Store) -> None:
    done = [await accept(store, at=NOW + n) for n in range(10)]
    large = await accept_large(store)
    for one in [*done, large]:
        await settle(store, one)
    file = bodies.path_of(store.directory, large.message.id)
    assert await store.read(lambda conn: bodies.load(conn, large.message.id)) == LARGE

    assert await prune_all(store, NOW + 29 * DAY) == 1
    assert await has_content(store, large)
    assert await prune_all(store, NOW + 31 * DAY) > 3
    assert not file.exists()
    assert not await has_content(store, large)
    assert await store.read(lambda conn: count(conn, "bodies")) == 0
    with pytest.raises(NotFound):
        await store.read(lambda conn: bodies.load(conn, large.message.id))
    assert await store.read(lambda conn: count(conn, "recipients")) == 11

    await prune_all(store, NOW + 61 * DAY)
    for table in ("messages", "recipients", "attempts", "events"):
        assert await store.read(partial(count, table=table)) == 0
    assert sum((await store.read(usage.totals)).values()) == 0
    assert await prune_all(store, NOW + 62 * DAY) == 1


async def test_a_retention_of_nothing_keeps_for_ever(store: Store) -> None:
    one = await accept(store, at=NOW)
    await settle(store, one)
    for_ever = Retention(content_s=0, messages_s=0, events_s=0)
    while await store.write(lambda db: prune.prune_step(db, NOW + 3650 * DAY, for_ever)):
        pass
    assert await has_content(store, one)
    for table in ("messages", "recipients", "attempts", "events"):
        assert await store.read(partial(count, table=table)) > 0


@pytest.mark.parametrize("state", ["pending", "softfail", "held", "leased"])
async def test_undelivered_mail_keeps_everything_whatever_its_age(store: Store, state: str) -> None:
    one = await accept(store, leased=state == "leased", status=Status.HELD if state == "held" else Status.PENDING)
    large = await accept_large(store)
    if state == "softfail":
        await settle(store, one, Status.SOFTFAIL, due_at=NOW + 5)
    after = await accept(store)
    await settle(store, after)
    await prune_all(store, NOW + 400 * DAY, step=1)
    for kept in (one, large):
        assert (await load(store, kept)).id == kept.id
        assert await has_content(store, kept)
    assert await store.read(lambda conn: count(conn, "messages")) == 2


async def test_ids_of_what_was_forgotten_are_not_given_again(state_dir: Path) -> None:
    store = Store.open(state_dir)
    one = await accept(store)
    await settle(store, one)
    await prune_all(store, NOW + 61 * DAY)
    assert await store.read(lambda conn: count(conn, "recipients")) == 0
    store.close()
    store = Store.open(state_dir)
    assert store.new_message_id() > one.message.id
    assert store.new_recipient_id() > one.id
    await store.write(lambda db: history.insert_events(db, [Event(EventKind.SENT, NOW)]))
    assert (await store.read(history.last_event)) == 3  # a number is not given twice either
    store.close()


async def test_expired_held_mail_is_returned_the_oldest_first(store: Store) -> None:
    new = await accept(store, status=Status.HELD, at=NOW + 100)
    old = await accept(store, status=Status.HELD, at=NOW)
    await accept(store)
    found = await store.read(lambda conn: prune.expired_held(conn, NOW + 101))
    assert [one.id for one in found] == [old.id, new.id]
    assert await store.read(lambda conn: prune.expired_held(conn, NOW)) == []


async def test_the_file_shrinks_after_deletes(store: Store) -> None:
    for _ in range(100):
        await settle(store, await accept(store, content=b"x" * 100_000))
    pages = await store.read(lambda conn: conn.execute("PRAGMA page_count").fetchone()[0])
    await prune_all(store, NOW + 31 * DAY, step=50)
    steps = 1
    while await store.write(prune.vacuum_step):
        steps += 1
    assert steps < pages / prune.PAGES + 1
    left = await store.read(lambda conn: conn.execute("PRAGMA page_count").fetchone()[0])
    assert left < pages / 5
    assert not await store.write(prune.vacuum_step)


async def test_orphans_are_removed(store: Store) -> None:
    kept = await accept(store)
    await store.write(lambda db: db.execute("INSERT INTO bodies VALUES (99, x'00')"))
    row = history.attempt_row(99, Status.SENT, None, NOW, "", None)
    await store.write(lambda db: history.insert_attempts(db, [row]))
    assert await store.write(prune.remove_orphans) == 2
    assert await store.write(prune.remove_orphans) == 0
    assert await has_content(store, kept)


async def test_files_without_a_row_are_swept_at_start(state_dir: Path) -> None:
    store = Store.open(state_dir)
    kept = await accept_large(store)
    await store.save_large(999, LARGE)
    half = bodies.path_of(state_dir, 998).with_suffix(".new")
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"half")
    await store.save_large(1000, LARGE)
    store.remove_large(1000)
    assert not bodies.path_of(state_dir, 1000).exists()
    store.close()
    store = Store.open(state_dir)
    files = sorted(path.name for path in (state_dir / "bodies").glob("*/*"))
    assert files == [f"{kept.message.id}.eml"]
    assert await store.read(lambda conn: bodies.load(conn, kept.message.id)) == LARGE
    bodies.path_of(state_dir, kept.message.id).unlink()
    with pytest.raises(NotFound):
        await store.read(lambda conn: bodies.load(conn, kept.message.id))
    store.close()


async def test_a_large_body_that_cannot_be_saved_leaves_nothing(store: Store) -> None:
    (store.directory / "bodies").write_text("in the way")
    with pytest.raises(StoreError):
        await store.save_large(5, LARGE)
    assert bodies.is_large(len(LARGE))
    assert not bodies.is_large(bodies.BLOB_BYTES)


async def test_a_message_that_is_not_inserted_keeps_its_file_out_of_sight(store: Store) -> None:
    await store.save_large(77, LARGE)
    with pytest.raises(NotFound):
        await store.read(lambda conn: bodies.load(conn, 77))
    assert not await store.read(lambda conn: bodies.has_content(conn, 77))


async def test_old_notes_on_hosts_and_usage_go(store: Store) -> None:
    await store.write(lambda db: lists.set_clear_text(db, "mx.test", NOW + 5))
    await accept(store)
    assert await store.read(lambda conn: lists.clear_text_hosts(conn, NOW)) == {"mx.test": NOW + 5}
    await prune_all(store, NOW + 6)
    assert await store.read(lambda conn: lists.clear_text_hosts(conn, 0)) == {}
    assert await store.read(lambda conn: usage.granted_since(conn, "acme", 0)) == 1
    await prune_all(store, NOW + 500 * DAY)
    assert await store.read(lambda conn: usage.granted_since(conn, "acme", 0)) == 0


async def test_what_came_back_is_forgotten_with_the_content_and_goes_with_the_message(store: Store) -> None:
    one = await accept(store)
    await settle(store, one)
    report = Report(kind=ReportKind.UNKNOWN, form="", sender="Bob", subject="Re: secret", explanation="What?")
    await store.write(
        lambda db: reports.insert(db, one.id, report, report.kind, None, b"digest", b"> your secret", NOW)
    )
    await prune_all(store, NOW + 29 * DAY)
    assert [kept.content for kept in await store.read(lambda conn: reports.list_reports(conn, one.id))] == [
        b"> your secret"
    ]
    await prune_all(store, NOW + 31 * DAY)
    assert [kept.content for kept in await store.read(lambda conn: reports.list_reports(conn, one.id))] == [b""]
    await prune_all(store, NOW + 61 * DAY)
    assert await store.read(partial(count, table="reports")) == 0


async def test_what_failures_have_made_lapses_and_nothing_else_does(store: Store) -> None:
    causes = list(enumerate(Cause))
    old = [NewEntry(f"{cause}@x.test", "r", "", NOW - number, cause) for number, cause in causes]
    many = [NewEntry(f"n{number}@x.test", "r", "", NOW, Cause.FAILURE) for number in range(prune.LAPSED)]
    young = NewEntry("young@x.test", "r", "", NOW + 60, Cause.FAILURE)
    await store.write(lambda db: suppressions.insert_many(db, "acme", [*old, *many, young]))
    assert await store.write(lambda db: prune.lapse_step(db, NOW + DAY + 1, DAY))
    assert not await store.write(lambda db: prune.lapse_step(db, NOW + DAY + 1, DAY))
    left, _ = await store.read(lambda conn: suppressions.list_page(conn, "acme", None, 1, 100))
    assert {one.address for one in left} == {"young@x.test"} | {
        f"{cause}@x.test" for cause in Cause if cause is not Cause.FAILURE
    }
    (event, *others) = await store.read(lambda conn: history.list_events(conn, limit=1000))
    assert (event.event.kind, event.event.tenant_id) == (EventKind.UNSUPPRESSED, "acme")
    assert event.event.data == {"address": "failure@x.test", "reason": "lapsed"}
    assert len(others) == prune.LAPSED
