"""Links are found by their recipient, and what was done with them is counted without end and logged with one."""

from functools import partial

import pytest
from unit.store.build import NOW, accept, load, message, recipient

from arkrelay.model.event import EventKind
from arkrelay.store import engagement, history
from arkrelay.store.accept import Insertion, insert_messages
from arkrelay.store.database import Store
from arkrelay.store.engagement import EVENTS_KEPT, LinkSet, Seen, pack

URLS = ("https://x.test/a?b=1", "https://x.test/ü".encode("ascii", "xmlcharrefreplace").decode())


def opened(whom: int | str, tenant_id: str = "acme") -> Seen:
    return Seen(EventKind.LOADED, NOW, tenant_id, whom, {"ip_address": "192.0.2.1", "user_agent": "x"})


async def test_the_links_of_a_submission_are_those_of_all_its_recipients_and_of_no_other(store: Store) -> None:
    of = message(store)
    before = recipient(store, of, "before@x.test")
    some = [recipient(store, of, f"{number}@x.test") for number in range(3)]
    after = recipient(store, of, "after@x.test")
    links = LinkSet(some[0].id, some[-1].id, NOW, pack(URLS))
    await store.write(lambda db: insert_messages(db, [Insertion(of, some, b"", (), links=links)], store.epoch))
    for one in some:
        number = one.id
        assert await store.read(partial(engagement.load_links, recipient_id=number)) == URLS
    for number in (before.id, after.id, 10**9):
        assert await store.read(partial(engagement.load_links, recipient_id=number)) == ()


async def test_old_links_are_forgotten(store: Store) -> None:
    sets = [LinkSet(number, number, NOW + number, pack(URLS)) for number in range(1, 6)]
    await store.write(lambda db: engagement.insert_links(db, sets))
    assert await store.write(lambda db: engagement.prune_links(db, NOW + 3.5, 2))
    assert not await store.write(lambda db: engagement.prune_links(db, NOW + 3.5, 2))
    assert await store.read(lambda conn: engagement.load_links(conn, 3)) == ()
    assert await store.read(lambda conn: engagement.load_links(conn, 4)) == URLS


async def test_what_was_done_is_counted_for_its_recipient(store: Store) -> None:
    one = await accept(store, "a@x.test")
    seen = [opened(one.token), opened(one.id), opened("AAAAAAAAAAAAAAAA"), opened(one.token, "other"), opened(10**9)]
    await store.write(lambda db: engagement.record(db, seen))
    assert await store.read(lambda conn: engagement.counts(conn, one.id)) == (2, 0)
    events = [entry.event for entry in await store.read(history.list_events)]
    assert [(event.kind, event.recipient_id) for event in events if event.kind is EventKind.LOADED] == [
        (EventKind.LOADED, one.id)
    ] * 2
    assert (await load(store, one)).id == one.id


async def test_the_log_is_not_filled_by_one_recipient(store: Store) -> None:
    one = await accept(store, "a@x.test")
    await store.write(lambda db: engagement.record(db, [opened(one.id)] * (EVENTS_KEPT + 20)))
    assert await store.read(lambda conn: engagement.counts(conn, one.id)) == (EVENTS_KEPT + 20, 0)
    events = await store.read(lambda conn: history.list_events(conn, limit=1000, kinds=(EventKind.LOADED,)))
    assert len(events) == EVENTS_KEPT


@pytest.mark.parametrize("urls", [URLS, tuple(f"https://x.test/{number}" for number in range(1000))])
def test_links_are_packed_small(urls: tuple[str, ...]) -> None:
    assert len(pack(urls)) < sum(map(len, urls)) + 20
