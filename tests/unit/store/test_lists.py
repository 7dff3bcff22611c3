"""Domain states, credentials and notes."""

from unit.store.build import NOW

from arkrelay.model.domain import DomainState, TrackState
from arkrelay.store import lists, suppressions
from arkrelay.store.database import Store


async def test_domain_states_are_kept_by_tenant_and_domain(store: Store) -> None:
    state = DomainState("acme", "x.test", spf="OK", dkim="Missing", dkim_error="no key", checked_at=NOW)
    await store.write(lambda db: lists.set_domain_state(db, state))
    await store.write(lambda db: lists.set_domain_state(db, DomainState("beta", "x.test")))
    assert await store.read(lambda conn: lists.get_domain_state(conn, "acme", "x.test")) == state
    assert set(await store.read(lists.all_domain_states)) == {("acme", "x.test"), ("beta", "x.test")}
    await store.write(lambda db: lists.remove_domain_state(db, "acme", "x.test"))
    assert await store.read(lambda conn: lists.get_domain_state(conn, "acme", "x.test")) is None


async def test_last_use_only_moves_forward(store: Store) -> None:
    for at in (NOW, NOW + 5, NOW + 1):
        await store.write(lambda db, at=at: lists.set_last_used(db, "acme", "app", at))  # type: ignore[misc] # at's type
    assert await store.read(lambda conn: lists.last_used(conn, "acme")) == {"app": NOW + 5}
    assert await store.read(lambda conn: lists.last_used(conn, "beta")) == {}


async def test_the_use_of_a_credential_goes_with_its_name_and_with_its_end(store: Store) -> None:
    for tenant, name, at in (("acme", "old", NOW), ("acme", "taken", NOW + 9), ("beta", "old", NOW + 1)):
        await store.write(lambda db, key=(tenant, name, at): lists.set_last_used(db, *key))  # type: ignore[misc] # its type
    await store.write(lambda db: lists.rename_last_used(db, "acme", "old", "new"))
    await store.write(lambda db: lists.rename_last_used(db, "acme", "unused", "newer"))
    assert await store.read(lambda conn: lists.last_used(conn, "acme")) == {"new": NOW, "taken": NOW + 9}
    await store.write(
        lambda db: lists.rename_last_used(db, "acme", "new", "taken")
    )  # of one that was removed by hand
    assert await store.read(lambda conn: lists.last_used(conn, "acme")) == {"taken": NOW}
    await store.write(lambda db: lists.forget_last_used(db, "acme", "taken"))
    assert await store.read(lambda conn: lists.last_used(conn, "acme")) == {}
    assert await store.read(lambda conn: lists.last_used(conn, "beta")) == {"old": NOW + 1}


async def test_track_states_are_kept_by_tenant_and_name(store: Store) -> None:
    state = TrackState("acme", "t.x.test", "Invalid", "points elsewhere \udcff", NOW)
    await store.write(lambda db: lists.set_track_state(db, TrackState("acme", "t.x.test", "OK", None, NOW - 1)))
    await store.write(lambda db: lists.set_track_state(db, state))
    await store.write(lambda db: lists.set_track_state(db, TrackState("beta", "t.x.test", "OK", None, NOW)))
    found = await store.read(lists.all_track_states)
    assert set(found) == {("acme", "t.x.test"), ("beta", "t.x.test")}
    kept = found["acme", "t.x.test"]
    assert (kept.status, kept.checked_at, kept.ok) == ("Invalid", NOW, False)
    assert found["beta", "t.x.test"].ok
    await store.write(lambda db: lists.remove_track_state(db, "acme", "t.x.test"))
    assert set(await store.read(lists.all_track_states)) == {("beta", "t.x.test")}


async def test_the_lists_of_a_deleted_tenant_are_removed_step_by_step(store: Store) -> None:
    for n in range(5):
        await store.write(lambda db, n=n: suppressions.add(db, "acme", f"{n}@x.test", "r", NOW))  # type: ignore[misc] # n's type
    await store.write(lambda db: suppressions.add(db, "beta", "z@x.test", "r", NOW))
    await store.write(lambda db: lists.set_last_used(db, "acme", "app", NOW))
    steps = 1
    while await store.write(lambda db: lists.remove_tenant_lists(db, "acme", 2)):
        steps += 1
    assert steps == 3
    assert (await store.read(lambda conn: suppressions.list_page(conn, "acme")))[1] == 0
    assert (await store.read(lambda conn: suppressions.list_page(conn, "beta")))[1] == 1
    assert await store.read(lambda conn: lists.last_used(conn, "acme")) == {}


async def test_notes_are_kept_and_forgotten(store: Store) -> None:
    await store.write(lambda db: lists.set_note(db, "a", "1"))
    await store.write(lambda db: lists.set_note(db, "a", "2"))
    assert await store.read(lambda conn: lists.get_note(conn, "a")) == "2"
    await store.write(lambda db: lists.set_note(db, "a", None))
    assert await store.read(lambda conn: lists.get_note(conn, "a")) is None
