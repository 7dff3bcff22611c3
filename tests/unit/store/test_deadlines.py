"""What is to be said by a certain time is found by index, once."""

import sqlite3
from dataclasses import replace

import pytest
from unit.store.build import NOW, accept, load, message, recipient, settle

from arkrelay.model.message import Door, Status
from arkrelay.store.accept import Insertion, insert_messages
from arkrelay.store.database import Store
from arkrelay.store.deadlines import end_delay, has_status, lease_expired
from arkrelay.store.usage import granted_since, sum_usage


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        pytest.param({"expires_at": NOW}, True, id="at-its-end"),
        pytest.param({"expires_at": NOW + 1}, False, id="before"),
        pytest.param({}, False, id="no-end"),
        pytest.param({"expires_at": NOW, "due_at": NOW + 9000}, True, id="due-much-later"),
        pytest.param({"expires_at": NOW, "status": Status.SOFTFAIL}, True, id="deferred"),
        pytest.param({"expires_at": NOW, "status": Status.HELD}, True, id="held"),
        pytest.param({"expires_at": NOW, "status": Status.SENT, "due_at": None}, False, id="sent"),
        pytest.param({"expires_at": NOW, "leased": True}, False, id="in-hand"),
    ],
)
async def test_what_waits_beyond_its_lifetime_is_leased(
    store: Store, changes: dict[str, object], *, found: bool
) -> None:
    one = await accept(store, **changes)  # type: ignore[arg-type]  # a row of the table
    taken = await store.write(lambda db: lease_expired(db, NOW, 10, store.epoch))
    assert [each.id for each in taken] == ([one.id] if found else [])
    assert await store.write(lambda db: lease_expired(db, NOW, 10, store.epoch)) == []  # in hand now


async def test_a_delay_notice_is_due_until_it_is_sent(store: Store) -> None:
    of = message(store)
    one = recipient(store, of, delay_at=NOW + 60)
    await store.write(lambda db: insert_messages(db, [Insertion(of, [one], b"x", ())], store.epoch))
    assert (await load(store, one)).delay_at == NOW + 60
    assert await store.write(lambda db: end_delay(db, one.id))
    assert not await store.write(lambda db: end_delay(db, one.id))
    assert (await load(store, one)).delay_at is None


async def test_the_state_is_that_of_the_row(store: Store) -> None:
    one = await accept(store, leased=True)
    await settle(store, one, Status.SENT)
    assert await store.write(lambda db: has_status(db, one.id, Status.SENT))
    assert not await store.write(lambda db: has_status(db, one.id, Status.HARDFAIL))
    assert not await store.write(lambda db: has_status(db, 10**9, Status.SENT))


async def test_a_notice_uses_up_no_limit_and_is_nobodys_usage(store: Store) -> None:
    plain = await accept(store, leased=True)
    notice = replace(message(store), door=Door.DSN)
    one = recipient(store, notice)
    await store.write(lambda db: insert_messages(db, [Insertion(notice, [one], b"x", ())], store.epoch))
    for each in (plain, one):
        await settle(store, each, Status.SENT)
    assert await store.read(lambda db: granted_since(db, "acme", NOW)) == 1
    day = NOW - NOW % 86400
    usage = await store.read(lambda db: sum_usage(db, day, day + 86400, "acme"))
    assert usage["acme"][Status.SENT] == 1


async def test_no_table_is_read_as_a_whole(store: Store) -> None:
    def plans(db: sqlite3.Connection) -> list[str]:
        seen: list[str] = []
        db.set_trace_callback(seen.append)
        lease_expired(db, NOW, 10, store.epoch)
        end_delay(db, 1)
        has_status(db, 1, Status.SENT)
        db.set_trace_callback(None)
        return [
            row[3]
            for sql in seen
            if sql[:6] in {"SELECT", "UPDATE"}
            for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")
        ]

    lines = await store.write(plans)
    assert any("recipients_expiring" in line for line in lines)
    assert not [line for line in lines if line.startswith("SCAN") or "TEMP B-TREE" in line]
