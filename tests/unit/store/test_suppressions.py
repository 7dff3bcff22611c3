"""The suppression list."""

from unit.store.build import NOW

from arkrelay.model.attempt import BounceClass
from arkrelay.model.suppression import Cause
from arkrelay.store import suppressions
from arkrelay.store.database import Store
from arkrelay.store.suppressions import Entries, NewEntry, reason_for


async def test_a_suppression_is_one_per_address_whatever_its_case(store: Store) -> None:
    first = await store.write(lambda db: suppressions.add(db, "acme", "Bob@Dest.test", "asked", NOW))
    again = await store.write(lambda db: suppressions.add(db, "acme", "bob@dest.TEST", "asked twice", NOW + 1))
    assert (again.id, again.reason, again.created_at, again.automatic) == (first.id, "asked twice", NOW, False)
    assert await store.read(lambda conn: suppressions.get(conn, "beta", "bob@dest.test")) is None
    keys = [f"{n}@x.test" for n in range(1200)] + ["bob@dest.test", "\udcff"]
    assert await store.read(lambda conn: suppressions.among(conn, "acme", keys)) == {
        "bob@dest.test": {"": "asked twice"}
    }
    assert await store.write(lambda db: suppressions.remove(db, "acme", "BOB@dest.test"))
    assert not await store.write(lambda db: suppressions.remove(db, "acme", "BOB@dest.test"))


async def test_an_automatic_entry_neither_replaces_nor_lifts_a_persons(store: Store) -> None:
    await store.write(lambda db: suppressions.add(db, "acme", "a@x.test", "asked", NOW))
    assert not await store.write(lambda db: suppressions.suppress(db, "acme", "a@x.test", "hard fail", NOW))
    assert not await store.write(
        lambda db: suppressions.suppress(db, "acme", "a@x.test", "complaint", NOW, cause=Cause.COMPLAINT)
    )
    assert not await store.write(lambda db: suppressions.lift(db, "acme", "a@x.test"))
    found = await store.read(lambda conn: suppressions.get(conn, "acme", "a@x.test"))
    assert found is not None
    assert (found.reason, found.cause) == ("asked", Cause.HAND)
    assert await store.write(lambda db: suppressions.suppress(db, "acme", "b@x.test", "hard fail", NOW))
    await store.write(lambda db: suppressions.add(db, "acme", "b@x.test", "asked", NOW))
    assert not await store.write(lambda db: suppressions.lift(db, "acme", "b@x.test"))  # a person's now


async def test_a_complaint_takes_the_place_of_a_failure_and_no_delivery_lifts_it(store: Store) -> None:
    await store.write(lambda db: suppressions.suppress(db, "acme", "a@x.test", "hard fail", NOW))
    assert await store.write(
        lambda db: suppressions.suppress(db, "acme", "a@x.test", "complaint", NOW, cause=Cause.COMPLAINT)
    )
    assert not await store.write(lambda db: suppressions.lift(db, "acme", "a@x.test"))
    assert not await store.write(lambda db: suppressions.suppress(db, "acme", "a@x.test", "hard fail", NOW))
    found = await store.read(lambda conn: suppressions.get(conn, "acme", "a@x.test"))
    assert found is not None
    assert (found.reason, found.automatic) == ("complaint", True)


async def test_an_entry_of_a_stream_covers_that_tag_alone(store: Store) -> None:
    await store.write(
        lambda db: suppressions.suppress(
            db, "acme", "a@x.test", "complaint", NOW, cause=Cause.COMPLAINT, stream="news"
        )
    )
    await store.write(lambda db: suppressions.suppress(db, "acme", "b@x.test", "hard fail", NOW))
    found = await store.read(lambda conn: suppressions.among(conn, "acme", ["a@x.test", "b@x.test"]))
    assert [reason_for(found, "a@x.test", tag) for tag in ("news", "receipt", None)] == ["complaint", None, None]
    assert [reason_for(found, "b@x.test", tag) for tag in ("news", None)] == ["hard fail", "hard fail"]
    assert not await store.write(lambda db: suppressions.lift(db, "acme", "a@x.test"))


async def test_suppressions_are_listed_newest_first(store: Store) -> None:
    for n in range(5):
        await store.write(lambda db, n=n: suppressions.add(db, "acme", f"{n}@x.test", "r", NOW + n))  # type: ignore[misc] # n's type
    await store.write(lambda db: suppressions.add(db, "beta", "z@x.test", "r", NOW))
    found, total = await store.read(lambda conn: suppressions.list_page(conn, "acme", None, 2, 2))
    assert ([one.address for one in found], total) == (["2@x.test", "1@x.test"], 5)
    assert await store.read(lambda conn: suppressions.list_page(conn, "acme", None, 9, 2)) == ([], 5)


async def test_undo_takes_what_a_class_and_a_time_name_and_of_this_tenant_only(store: Store) -> None:
    rows = [
        ("acme", "a@x.test", BounceClass.BAD_ADDRESS, NOW),
        ("acme", "b@x.test", BounceClass.BAD_ADDRESS, NOW + 60),
        ("acme", "c@x.test", BounceClass.MAILBOX_FULL, NOW + 60),
        ("beta", "b@x.test", BounceClass.BAD_ADDRESS, NOW + 60),
    ]
    for tenant, address, blamed, at in rows:
        await store.write(
            lambda db, key=(tenant, address, blamed, at): suppressions.suppress(  # type: ignore[misc] # its type
                db, key[0], key[1], "hard fail", key[3], bounce_class=key[2], recipient_id=7
            )
        )
    await store.write(lambda db: suppressions.add(db, "acme", "d@x.test", "asked", NOW + 60))
    entries = Entries(bounce_classes=(BounceClass.BAD_ADDRESS,), since=NOW + 1, until=NOW + 61)
    assert await store.read(lambda conn: suppressions.count(conn, "acme", entries)) == 1
    assert await store.write(lambda db: suppressions.undo(db, "acme", entries, 10)) == ["b@x.test"]
    left, _ = await store.read(lambda conn: suppressions.list_page(conn, "acme"))
    assert {one.address for one in left} == {"a@x.test", "c@x.test", "d@x.test"}
    assert await store.read(lambda conn: suppressions.get(conn, "beta", "b@x.test")) is not None
    by = Entries(reason="asked", cause=Cause.HAND, stream="")
    assert [one.address for one in (await store.read(lambda conn: suppressions.list_page(conn, "acme", by)))[0]] == [
        "d@x.test"
    ]


async def test_an_import_leaves_what_is_there(store: Store) -> None:
    await store.write(lambda db: suppressions.add(db, "acme", "a@x.test", "asked", NOW))
    rows = [
        NewEntry("A@x.test", "bounce", "", NOW),
        NewEntry("b@x.test", "spam", "", NOW, Cause.FAILURE, BounceClass.NO_MAILBOX),
        NewEntry("b@x.test", "spam", "news", NOW),
    ]
    assert await store.write(lambda db: suppressions.insert_many(db, "acme", rows)) == 2
    found = await store.read(lambda conn: suppressions.get(conn, "acme", "a@x.test"))
    assert found is not None
    assert found.reason == "asked"
    kept = await store.read(lambda conn: suppressions.of_address(conn, "acme", "B@x.test"))
    assert [(one.stream, one.cause, one.automatic, one.bounce_class) for one in kept] == [
        ("", Cause.FAILURE, True, BounceClass.NO_MAILBOX), ("news", Cause.IMPORT, False, None),
    ]  # fmt: skip


async def test_entries_are_found_by_the_whole_domain_of_their_addresses(store: Store) -> None:
    for address in ("a@x.test", "b@sub.x.test", "c@x.test.example", '"d@x.test"@y.test', "e@X_test", "f@Xxtest"):
        await store.write(lambda db, address=address: suppressions.add(db, "acme", address, "asked", NOW))  # type: ignore[misc] # its type
    for domain, wanted in {"X.test": ["a@x.test"], "x_test": ["e@X_test"], "test": []}.items():
        found, total = await store.read(
            lambda conn, domain=domain: suppressions.list_page(conn, "acme", Entries(domain=domain))  # type: ignore[misc] # its type
        )
        assert [one.address for one in found] == wanted
        assert total == len(wanted)


async def test_pages_by_address_miss_nothing_while_others_leave_the_list(store: Store) -> None:
    names = [f"{n:02}@x.test" for n in range(20)]
    rows = [NewEntry(one, "r", stream, NOW) for one in names for stream in ("", "news")]
    await store.write(lambda db: suppressions.insert_many(db, "acme", rows))
    await store.write(lambda db: suppressions.insert_many(db, "beta", rows))
    found: list[tuple[str, str]] = []
    after = ("", "")
    while some := (
        await store.read(lambda conn: suppressions.list_by_address(conn, "acme", Entries(), *after, 3))  # noqa: B023 -- read at once
    )[0]:
        found += [(one.address, one.stream) for one in some]
        after = found[-1]
        await store.write(lambda db: suppressions.remove(db, "acme", after[0]))  # noqa: B023 -- written at once
    left = {
        one.address for one in (await store.read(lambda conn: suppressions.list_page(conn, "acme", None, 1, 99)))[0]
    }
    assert left <= {address for address, _ in found}
    assert found == sorted(set(found))
