"""What was posted to webhooks: found by owner and by what is known of it, never by anybody else."""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from unit.store.build import NOW

from arkrelay.model.hook import Answer, HookDelivery
from arkrelay.model.settings import Retention
from arkrelay.store import hooks, prune
from arkrelay.store.database import Store
from arkrelay.store.hooks import Filters, find_delivery, insert_delivery, list_deliveries

DAY = 86400.0


def delivery(number: int = 0, *, status: int | None = 200, **more: Any) -> HookDelivery:
    fields: dict[str, Any] = {
        "public_id": f"whr_{number}",
        "owner": "acme",
        "webhook_id": "1",
        "webhook_name": "Production",
        "tenant_id": "acme",
        "event": "MessageSent",
        "url": "https://x.example/hook",
        "attempt": 1,
        "will_retry": False,
        "at": NOW + number,
        "headers": {"Content-Type": "application/json", "X-Ark-Signature": "c2ln"},
        "body": '{"event":"MessageSent","payload":{"subject":"\\u00fc"}}',
        "answer": Answer(status, "taken", None if status == 200 else "It answered so", 0.25),
    }
    return HookDelivery(**(fields | more))


async def keep(store: Store, *made: HookDelivery) -> None:
    for one in made:
        await store.write(lambda db, one=one: insert_delivery(db, one))  # type: ignore[misc] # the default's type


async def listed(store: Store, page: int = 1, per_page: int = 30, **filters: Any) -> tuple[list[str], int]:
    wanted = Filters(**({"owner": "acme"} | filters))
    rows, total = await store.read(lambda conn: list_deliveries(conn, wanted, page, per_page))
    return [row.public_id for row in rows], total


async def test_a_delivery_comes_back_as_it_was_given(store: Store) -> None:
    odd = Answer(None, "\udcff\x00 half", "Could not connect\udc80", 5.0)
    given = [delivery(1), delivery(2, status=500, will_retry=True, attempt=3), delivery(3, answer=odd, event="Odd")]
    await keep(store, *given)
    found = [await store.read(lambda conn, one=one: find_delivery(conn, "acme", one.public_id)) for one in given]  # type: ignore[misc] # the default's type
    assert found[:2] == given[:2]
    assert found[2] is not None
    assert replace(found[2], answer=odd) == given[2]  # what is no text became some
    assert (found[2].answer.status, found[2].answer.success) == (None, False)


@pytest.mark.parametrize(
    ("owner", "public_id", "webhook_id", "there"),
    [
        ("acme", "whr_1", None, True),
        ("acme", "whr_1", "1", True),
        ("acme", "whr_1", "2", False),
        ("other", "whr_1", None, False),
        ("", "whr_1", None, False),
        ("acme", "whr_2", None, False),
        ("acme", "\udcff", None, False),
    ],
)
async def test_only_its_owner_finds_it_and_only_by_its_webhook(
    store: Store, owner: str, public_id: str, webhook_id: str | None, there: bool
) -> None:
    await keep(store, delivery(1))
    found = await store.read(lambda conn: find_delivery(conn, owner, public_id, webhook_id))
    assert (found is not None) is there


async def test_an_id_cannot_be_given_twice(store: Store) -> None:
    await keep(store, delivery(1))
    with pytest.raises(Exception, match="UNIQUE"):
        await keep(store, delivery(1))


async def test_deliveries_are_found_by_what_is_known_of_them(store: Store) -> None:
    await keep(
        store,
        delivery(0),
        delivery(1, status=500),
        delivery(2, event="MessageBounced"),
        delivery(3, status=None, webhook_id="2"),
        delivery(4, owner="other", tenant_id="other"),
        delivery(5, owner="", public_id="pwd_5", webhook_id="pwh_1"),
        delivery(6, owner="", public_id="pwd_6", webhook_id="pwh_1", tenant_id="other"),
    )
    assert await listed(store) == (["whr_3", "whr_2", "whr_1", "whr_0"], 4)
    assert await listed(store, 2, 3) == (["whr_0"], 4)
    assert await listed(store, 3, 3) == ([], 4)
    assert await listed(store, webhook_id="1") == (["whr_2", "whr_1", "whr_0"], 3)
    assert await listed(store, success=True) == (["whr_2", "whr_0"], 2)
    assert await listed(store, success=False) == (["whr_3", "whr_1"], 2)
    assert await listed(store, event="MessageBounced") == (["whr_2"], 1)
    assert await listed(store, event="\udcff") == ([], 0)
    assert await listed(store, after=NOW + 1, before=NOW + 2) == (["whr_2", "whr_1"], 2)
    assert await listed(store, after=NOW + 2.5) == (["whr_3"], 1)
    assert await listed(store, owner="other") == (["whr_4"], 1)
    assert await listed(store, owner="") == (["pwd_6", "pwd_5"], 2)
    assert await listed(store, owner="", tenant_id="other") == (["pwd_6"], 1)
    assert await listed(store, owner="", webhook_id="pwh_1", success=True, event="MessageSent", tenant_id="acme") == (
        ["pwd_5"], 1,
    )  # fmt: skip


async def test_old_deliveries_go_in_steps_with_the_request_log(store: Store) -> None:
    await keep(store, *(delivery(number) for number in range(5)), delivery(9, at=NOW + 20 * DAY))
    assert await store.write(lambda db: hooks.prune(db, NOW + 3, 2)) == 2
    assert (await listed(store))[1] == 4
    for retention, left in ((Retention(request_log_s=30 * DAY), 4), (Retention(), 1)):
        while await store.write(lambda db, kept=retention: prune.prune_step(db, NOW + 15 * DAY, kept)):  # type: ignore[misc] # the default's type
            pass
        assert (await listed(store))[1] == left


STATEMENTS: list[tuple[str, Callable[[sqlite3.Connection], object]]] = [
    ("find", lambda db: find_delivery(db, "acme", "whr_1", "1")),
    ("list", lambda db: list_deliveries(db, Filters(owner="acme"), 2, 10)),
    ("list of one webhook", lambda db: list_deliveries(db, Filters(owner="acme", webhook_id="1", success=True))),
    (
        "list by everything",
        lambda db: list_deliveries(
            db,
            Filters(owner="", webhook_id="1", tenant_id="a", event="b", success=False, after=1.0, before=2.0),
        ),
    ),
    ("prune", lambda db: hooks.prune(db, NOW, 10)),
]


@pytest.mark.parametrize(("name", "statement"), STATEMENTS, ids=[name for name, _ in STATEMENTS])
async def test_no_table_is_read_as_a_whole(
    store: Store, name: str, statement: Callable[[sqlite3.Connection], object]
) -> None:
    await keep(store, delivery(1), delivery(2))

    def plans(db: sqlite3.Connection) -> Sequence[str]:
        seen: list[str] = []
        db.set_trace_callback(seen.append)
        statement(db)
        db.set_trace_callback(None)
        return [row[3] for sql in seen for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")]

    found = await store.write(plans)
    assert found
    for line in found:
        # the oldest rows are a walk along the primary key that stops at its limit
        assert not line.startswith("SCAN") or (name == "prune" and line == "SCAN hook_deliveries"), line
        assert "TEMP B-TREE" not in line
        if "COVERING" not in line and name.startswith("list"):
            assert "hook_deliveries_owner (owner=?" in line
