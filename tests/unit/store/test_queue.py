"""Messages and recipients: kept whole, claimed once, settled in one write, recovered after a crash."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from unit.store.build import NOW, accept, accepted, attempt, count, load, message, outcome, recipient, settle

from arkrelay.model.attempt import BounceClass
from arkrelay.model.errors import NotFound, StoreError
from arkrelay.model.event import EventKind
from arkrelay.model.message import HoldReason, Status
from arkrelay.model.reply import Failure, FailureKind, Reply, Stage
from arkrelay.model.suppression import Suppress
from arkrelay.store import bodies, find, history, lists, peertls, prune, queue, suppressions, usage
from arkrelay.store.accept import Insertion, insert_messages
from arkrelay.store.database import Store
from arkrelay.store.journal import Phase
from arkrelay.store.outcomes import apply


async def test_a_message_comes_back_as_it_was_given(store: Store) -> None:
    of = message(
        store, tag="t", metadata={"order": "7", "name": "Zoë"}, subject="Grüße", return_path=None, eight_bit=True,
        smtputf8=True, ret="HDRS", envid="QQ1", expires_at=NOW + 60,
    )  # fmt: skip
    to = [
        recipient(store, of, "one@dest.test", notify="FAILURE", orcpt="rfc822;One@dest.test"),
        recipient(store, of, "zwei@dest.test", status=Status.HELD, due_at=None, hold_reason=HoldReason.SUPPRESSED),
    ]
    await store.write(lambda db: insert_messages(db, [Insertion(of, to, b"body", (accepted(of),))], store.epoch))
    assert [await load(store, one) for one in to] == to
    assert await store.read(lambda conn: queue.load_recipient(conn, to[0].token)) == to[0]
    assert await store.read(lambda conn: queue.list_recipients_of_message(conn, of.id)) == to
    assert await store.read(lambda conn: bodies.load(conn, of.id)) == b"body"
    assert [entry.event for entry in await store.read(history.list_events)] == [accepted(of)]
    assert [d.status for d in await store.read(lambda conn: history.list_attempts(conn, to[1].id))] == [Status.HELD]
    totals = await store.read(usage.totals)
    assert (totals[Status.PENDING], totals[Status.HELD], sum(totals.values())) == (1, 1, 2)
    assert await store.read(lambda conn: usage.granted_since(conn, "acme", NOW)) == 1


async def test_what_is_not_there_is_not_found(store: Store) -> None:
    for key in ("0123456789abcdef", 77, "\udcff"):
        with pytest.raises(NotFound):
            await store.read(lambda conn, key=key: queue.load_recipient(conn, key))  # type: ignore[misc] # key's type


async def test_a_token_cannot_be_given_twice(store: Store) -> None:
    one = await accept(store)
    of = message(store)
    twin = recipient(store, of)
    twin = replace(twin, token=one.token)
    with pytest.raises(StoreError):
        await store.write(lambda db: insert_messages(db, [Insertion(of, [twin], b"", ())], store.epoch))
    assert await store.read(lambda conn: count(conn, "messages")) == 1


async def test_each_due_recipient_is_claimed_once(store: Store) -> None:
    placed = [await accept(store, f"b{n}@dest.test", due_at=NOW - n) for n in range(40)]
    await accept(store, "later@dest.test", due_at=NOW + 10)
    await accept(store, "b@other.test")
    claims = await asyncio.gather(
        *(store.write(lambda db: queue.claim(db, "dest.test", "acme", NOW, 7, store.epoch)) for _ in range(10))
    )
    ids = [one.id for claimed in claims for one in claimed]
    assert sorted(ids) == sorted(one.id for one in placed)
    assert [one.due_at for one in claims[0]] == [NOW - n for n in range(39, 32, -1)]  # the longest due first
    assert await store.read(queue.due_by_share) == [("dest.test", "acme", NOW + 10), ("other.test", "acme", NOW)]
    assert await store.read(lambda conn: queue.next_due(conn, "dest.test", "acme")) == NOW + 10
    assert await store.read(lambda conn: queue.next_due(conn, "nowhere.test", "acme")) is None
    assert await store.read(lambda conn: queue.in_hand(conn, ids[0]))


async def test_a_released_claim_is_due_again(store: Store) -> None:
    one = await accept(store)
    await store.write(lambda db: queue.claim(db, "dest.test", "acme", NOW, 10, store.epoch))
    assert await store.read(queue.due_by_share) == []
    await store.write(lambda db: queue.release(db, [one.id], None))
    assert await store.read(queue.due_by_share) == [("dest.test", "acme", NOW)]
    await store.write(lambda db: queue.claim(db, "dest.test", "acme", NOW, 10, store.epoch))
    await store.write(lambda db: queue.release(db, [one.id], NOW + 5))
    assert await store.read(queue.due_by_share) == [("dest.test", "acme", NOW + 5)]


async def test_an_outcome_is_one_write(store: Store) -> None:
    one = await accept(store, leased=True)
    await settle(
        store, one, Status.HARDFAIL, bounce_class=BounceClass.NO_MAILBOX, suppress=Suppress("hard fail"),
        attempt=attempt(one, 550, "5.1.1 no such user"),
    )  # fmt: skip
    got = await load(store, one)
    assert (got.status, got.due_at, got.attempts) == (Status.HARDFAIL, None, 1)
    assert (got.reason, got.bounce_class) == ("because", BounceClass.NO_MAILBOX)
    (delivery,) = await store.read(lambda conn: history.list_attempts(conn, one.id))
    assert (delivery.code, delivery.output, delivery.past_dot) == (550, "550 5.1.1 no such user", True)
    assert (delivery.host, delivery.address, delivery.port) == ("mx.dest.test", "192.0.2.1", 25)
    assert delivery.tls is not None
    assert delivery.tls.verified
    kinds = [entry.event.kind for entry in await store.read(history.list_events)]
    assert kinds == [EventKind.ACCEPTED, EventKind.FAILED, EventKind.SUPPRESSED]
    assert await store.read(lambda conn: suppressions.among(conn, "acme", ["b@dest.test"])) == {
        "b@dest.test": {"": "hard fail"}
    }
    assert (await store.read(usage.totals))[Status.HARDFAIL] == 1
    assert not await store.read(lambda conn: queue.in_hand(conn, one.id))


async def test_a_softfail_is_queued_again_and_a_later_delivery_lifts_an_automatic_suppression(store: Store) -> None:
    one = await accept(store, leased=True)
    await store.write(lambda db: suppressions.suppress(db, "acme", "B@dest.test", "hard fail", NOW))
    await settle(
        store, one, Status.SOFTFAIL, due_at=NOW + 300,
        attempt=replace(attempt(one), result=Failure(FailureKind.TIMEOUT, Stage.GREETING, "silence")),
    )  # fmt: skip
    assert await store.read(queue.due_by_share) == [("dest.test", "acme", NOW + 300)]
    await settle(store, await load(store, one), unsuppress=True)
    assert (await load(store, one)).attempts == 2
    assert await store.read(lambda conn: suppressions.among(conn, "acme", ["b@dest.test"])) == {}
    kinds = [entry.event.kind for entry in await store.read(history.list_events)]
    assert kinds == [EventKind.ACCEPTED, EventKind.DELAYED, EventKind.SENT, EventKind.UNSUPPRESSED]
    first, second = await store.read(lambda conn: history.list_attempts(conn, one.id))
    assert (first.failure, first.stage, first.code, first.output) == ("timeout", "greeting", None, "silence")
    assert second.failure is None
    await settle(store, one, unsuppress=True)  # nothing to lift: no event about it
    assert len(await store.read(history.list_events)) == 5


async def test_what_a_peer_has_taken_is_not_queued_again_by_a_late_outcome(store: Store) -> None:
    one = await accept(store, leased=True)
    await settle(store, one)
    await settle(store, one, Status.SOFTFAIL, due_at=NOW + 1)
    assert (await load(store, one)).status is Status.SENT
    assert await store.read(queue.due_by_share) == []
    assert len(await store.read(lambda conn: history.list_attempts(conn, one.id))) == 2
    await settle(store, one, Status.BOUNCED, attempt=None)
    assert (await load(store, one)).status is Status.BOUNCED


async def test_an_outcome_for_a_recipient_that_is_gone_is_passed_over(store: Store) -> None:
    one, other = await accept(store), await accept(store)
    gone = replace(one, id=9999)
    await store.write(lambda db: apply(db, [outcome(gone), outcome(other)]))
    assert (await load(store, other)).status is Status.SENT


async def _settled(directory: Path, *, at_once: bool) -> dict[str, list[tuple[object, ...]]]:
    """Return what outcomes of every sort leave in the tables, but for public ids."""
    store = Store.open(directory)
    try:
        ones = [await accept(store, f"to{n}@dest.test", leased=True) for n in range(20)]
        await settle(store, ones[3])
        await settle(store, ones[4], Status.SOFTFAIL, due_at=NOW + 1)
        outcomes = [
            *(outcome(one) for one in ones[:3]),
            outcome(ones[3], Status.HARDFAIL),  # late: it has arrived
            outcome(await load(store, ones[4]), Status.SOFTFAIL, due_at=NOW + 9),
            replace(outcome(ones[5], Status.SOFTFAIL, due_at=NOW + 9), destination="other.test"),
            outcome(replace(ones[6], id=9999)),  # gone
            *(outcome(one, Status.HARDFAIL) for one in ones[7:]),
        ]
        for some in [outcomes] if at_once else [[one] for one in outcomes]:
            await store.write(partial(apply, outcomes=some))
        bounced = [outcome(await load(store, ones[0]), Status.BOUNCED, attempt=None)]
        twice = [outcome(ones[6], Status.SOFTFAIL, due_at=NOW + 1), outcome(ones[6])]
        for some in [[*bounced, *twice]] if at_once else [bounced, twice[:1], twice[1:]]:
            await store.write(partial(apply, outcomes=some))
        rows: dict[str, list[tuple[object, ...]]] = {}
        for name in ("recipients", "attempts", "events", "counters"):
            query = f"SELECT * FROM {name}"
            rows[name] = await store.read(lambda db, query=query: db.execute(query).fetchall())  # type: ignore[misc]
    finally:
        store.close()
    rows["recipients"] = [row[:4] + row[5:] for row in rows["recipients"]]
    return rows


async def test_many_outcomes_at_once_leave_what_they_leave_one_by_one(tmp_path: Path) -> None:
    at_once = await _settled(tmp_path / "at-once", at_once=True)
    assert at_once == await _settled(tmp_path / "one-by-one", at_once=False)
    statuses = [row[8] for row in at_once["recipients"]]
    assert statuses == ["bounced", "sent", "sent", "sent", "softfail", "softfail", "sent", *["hardfail"] * 13]


@pytest.mark.parametrize("hostile", ["\udcff\udcfe", "a\x00b", "\U0001f600", "\ud83d", "x" * 100_000])
async def test_hostile_text_is_stored_as_valid_text(store: Store, hostile: str) -> None:
    of = message(store, subject=hostile, tag=hostile, author=hostile, metadata={hostile: hostile})
    one = recipient(store, of, hostile + "@dest.test", destination=hostile, reason=hostile, orcpt=hostile)
    event = replace(accepted(of), data={hostile: [hostile]})
    await store.write(lambda db: insert_messages(db, [Insertion(of, [one], b"\xff\x00", (event,))], store.epoch))
    reply = Reply(550, hostile, hostile, Stage.RCPT)
    result = outcome(
        one,
        Status.HARDFAIL,
        details=hostile,
        suppress=Suppress(hostile),
        attempt=replace(attempt(one), result=reply, host=hostile),
    )
    await store.write(lambda db: apply(db, [replace(result, reason=hostile)]))
    got = await load(store, one)
    (delivery,) = await store.read(lambda conn: history.list_attempts(conn, one.id))
    for value in (got.reason, got.message.subject, got.address, delivery.output, delivery.details):
        value.encode()
    entries = await store.read(history.list_events)
    str(entries).encode()
    assert len(entries) == 3
    assert await store.write(lambda db: queue.claim(db, hostile, "acme", NOW, 1, store.epoch)) == []


@pytest.mark.parametrize(
    ("phase", "rebooted", "expected"),
    [
        pytest.param(None, False, "freed", id="never-begun"),
        pytest.param(Phase.TALKING, False, "freed", id="before-the-dot"),
        pytest.param(Phase.DOT, False, "uncertain", id="past-the-dot"),
        pytest.param(Phase.TAKEN, False, "taken", id="taken"),
        pytest.param(None, True, "uncertain", id="reboot"),
        pytest.param(Phase.TALKING, True, "uncertain", id="reboot-talking"),
        pytest.param(Phase.DOT, True, "uncertain", id="reboot-dot"),
        pytest.param(Phase.TAKEN, True, "taken", id="reboot-taken"),
    ],
)
async def test_recovery_follows_the_journal(store: Store, phase: Phase | None, rebooted: bool, expected: str) -> None:
    one = await accept(store, leased=True)
    queued = await accept(store)
    own = await accept(store, leased=True)
    await store.write(lambda db: db.execute("UPDATE recipients SET lease = lease + 5 WHERE id = ?", (own.id,)))
    epoch = store.epoch + 5
    left = {} if phase is None else {one.id: phase, 4711: Phase.DOT}
    for _ in range(2):  # a crash before its results are settled finds them again
        got = await store.write(lambda db: queue.recover(db, left, rebooted, epoch, NOW))
        found = {"uncertain": [r.id for r in got.uncertain], "taken": [r.id for r in got.taken]}
        assert {name: ids for name, ids in found.items() if ids} == (
            {} if expected == "freed" else {expected: [one.id]}
        )
        if expected == "freed":
            assert got.freed == 1
            break
    assert await store.read(lambda conn: queue.in_hand(conn, one.id)) == (expected != "freed")
    assert await store.read(lambda conn: queue.in_hand(conn, own.id))
    assert not await store.read(lambda conn: queue.in_hand(conn, queued.id))


async def test_recipients_are_found_by_what_is_known_of_them(store: Store) -> None:
    old = await accept(store, "Bob@Dest.test", at=NOW)
    new = await accept(store, "eve@other.test", at=NOW + 10, tag="news", author="z@sender.test")
    held = await accept(store, "bob@dest.test", at=NOW + 20, status=Status.HELD, tenant_id="beta")
    busy = await accept(store, "bob@dest.test", at=NOW + 30, leased=True)

    async def search(**filters: object) -> list[int]:
        given = find.Filters(**filters)  # type: ignore[arg-type] # a table of keyword arguments
        page = await store.read(lambda conn: history.list_recipients(conn, given))
        assert page.total == len(page.recipients)
        return [one.id for one in page.recipients]

    assert await search() == [busy.id, held.id, new.id, old.id]
    assert await search(tenant_id="acme") == [busy.id, new.id, old.id]
    assert await search(statuses=(Status.HELD,)) == [held.id]
    assert await search(tenant_id="acme", statuses=(Status.HELD, Status.SENT)) == []
    assert await search(address="BOB@dest.test") == [busy.id, held.id, old.id]
    assert await search(address="bob@dest.test", tenant_id="beta", statuses=(Status.HELD,)) == [held.id]
    assert await search(sender="z@sender.test") == [new.id]
    assert await search(sender="a@sender.test", tenant_id="acme", after=NOW + 1) == [busy.id]
    assert await search(tag="news", tenant_id="acme") == [new.id]
    assert await search(tag="news", sender="a@sender.test") == []
    assert await search(address="eve@other.test", tag="news") == [new.id]
    assert await search(after=NOW + 10, before=NOW + 20) == [held.id, new.id]
    assert await search(domain="other.test") == [new.id]
    assert await search(message_id=old.message.id) == [old.id]
    assert await search(idle=True, domain="dest.test", tenant_id="acme") == []  # Bob's domain was not lower case
    assert await search(idle=True, tenant_id="acme") == [new.id, old.id]

    by_words = await store.read(
        lambda conn: queue.find_recipients(conn, statuses=[Status.PENDING], per_page=2, page=2)
    )
    assert [one.id for one in by_words] == [old.id]
    chosen = await store.read(
        lambda conn: queue.select_for_operation(
            conn, tokens=[held.token, busy.token, "nobody"], address="bob@dest.test"
        )
    )
    assert [one.id for one in chosen] == [held.id]
    assert len(await store.read(lambda conn: queue.select_for_operation(conn, limit=2))) == 2

    async def choose(**wanted: object) -> list[int]:
        found = await store.read(
            lambda conn: queue.select_for_operation(conn, statuses=[Status.PENDING, Status.HELD], **wanted)  # type: ignore[arg-type] # a table of keyword arguments
        )
        return [one.id for one in found]

    assert await choose() == [held.id, new.id, old.id]
    assert await choose(tag="news") == await choose(sender="z@sender.test") == [new.id]
    assert await choose(tag="news", sender="a@sender.test") == await choose(tag="news", domain="dest.test") == []
    assert (
        await choose(tag="news", tenant_id="acme") == await choose(tag="news", address="eve@other.test") == [new.id]
    )
    assert await choose(sender="a@sender.test", before=NOW + 19) == [old.id]
    assert await choose(sender="a@sender.test", after=NOW + 1) == [held.id]
    assert await choose(after=NOW + 1, before=NOW + 19) == [new.id]
    assert await choose(below=(NOW + 20, held.id)) == await choose(below=(NOW + 19, held.id)) == [new.id, old.id]
    assert await choose(below=(NOW, old.id + 1), sender="a@sender.test") == [old.id]

    async def in_hand(**filters: object) -> int:
        given = find.Filters(**filters)  # type: ignore[arg-type] # a table of keyword arguments
        return await store.read(lambda conn: find.count_in_hand(conn, given))

    fits = {"address": "BOB@dest.test", "tenant_id": "acme", "statuses": (Status.PENDING,), "after": NOW + 30}
    assert await in_hand() == await in_hand(**fits) == await in_hand(sender="a@sender.test", **fits) == 1
    for other in ({"tenant_id": "beta"}, {"statuses": (Status.SOFTFAIL,)}, {"after": NOW + 31}, {"tag": "news"}):
        assert await in_hand(**{**fits, **other}) == 0, other


async def test_a_page_past_the_end_is_empty_and_counting_is_bounded(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(7):
        await accept(store, at=NOW + n)
    monkeypatch.setattr(find, "COUNT_MAX", 3)
    pages = [
        await store.read(lambda conn, n=n: history.list_recipients(conn, find.Filters(after=NOW), n, 3))  # type: ignore[misc] # n's type
        for n in (1, 2, 3, 4)
    ]
    assert [len(page.recipients) for page in pages] == [3, 3, 1, 0]
    assert [page.total for page in pages] == [4, 7, 7, 3]
    assert (await store.read(lambda conn: history.list_recipients(conn, find.Filters(), 4, 3))).total == 7


async def test_events_are_read_from_where_one_stopped(store: Store) -> None:
    a = await accept(store)
    b = await accept(store, tenant_id="beta")
    await settle(store, b)
    seqs = [entry.seq for entry in await store.read(history.list_events)]
    assert seqs == sorted(set(seqs))
    assert await store.read(history.last_event) == seqs[-1]
    rest = await store.read(lambda conn: history.list_events(conn, seqs[0], 1))
    assert [entry.event.message_id for entry in rest] == [b.message.id]
    of_b = await store.read(
        lambda conn: history.list_events(conn, tenant_id="beta", message_id=b.message.id, recipient_id=b.id)
    )
    assert [entry.event.kind for entry in of_b] == [EventKind.SENT]
    of_a = await store.read(lambda conn: history.list_events(conn, tenant_id="acme", kinds=[EventKind.ACCEPTED]))
    assert [entry.event.message_id for entry in of_a] == [a.message.id]


async def test_a_rare_kind_is_found_in_short_reads(store: Store) -> None:
    ours = [await accept(store) for _ in range(5)]
    await settle(store, ours[0])
    theirs = await accept(store, tenant_id="beta")
    seqs = [entry.seq for entry in await store.read(history.list_events)]
    after, reads = 0, []
    while True:
        found = await store.read(
            lambda conn, after=after: history.read_on(conn, after, 9, kinds=[EventKind.SENT], most=3)  # type: ignore[misc] # its type
        )
        assert found.last == seqs[-1]
        reads.append([entry.event.kind for entry in found.events])
        if found.next == after:
            break
        after = found.next
    assert reads == [[], [EventKind.SENT], [], []]
    assert after == seqs[-1]
    of_beta = await store.read(lambda conn: history.read_on(conn, 0, 9, tenant_id="beta"))
    assert [entry.event.message_id for entry in of_beta.events] == [theirs.message.id]
    two = await store.read(lambda conn: history.read_on(conn, 0, 2))
    assert ([entry.seq for entry in two.events], two.next) == (seqs[:2], seqs[1])


_ALLOWED = {  # walks over an index from one end, stopping early or holding nothing else
    "due_by_share": "USING INDEX recipients_due",
    "recover": "USING INDEX recipients_leased",
    "in_hand": "USING INDEX recipients_leased",
}


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        ("claim", lambda db: queue.claim(db, "dest.test", "acme", NOW, 5, 1)),
        ("release", lambda db: queue.release(db, [1], None)),
        ("due_by_share", queue.due_by_share),
        ("tenants_waiting", queue.tenants_waiting),
        ("track_state", lambda db: lists.remove_track_state(db, "acme", "t.x.test")),
        ("rename_last_used", lambda db: lists.rename_last_used(db, "acme", "a", "b")),
        ("forget_last_used", lambda db: lists.forget_last_used(db, "acme", "a")),
        ("remove_tenant_lists", lambda db: lists.remove_tenant_lists(db, "acme", 10)),
        ("recover", lambda db: queue.recover(db, {}, False, 99, NOW)),
        ("load", lambda db: queue.load_recipient(db, "x")),
        ("by_message", lambda db: queue.list_recipients_of_message(db, 1)),
        ("attempts", lambda db: history.list_attempts(db, 1)),
        ("events", lambda db: history.list_events(db, 1)),
        ("events_tenant", lambda db: history.list_events(db, 1, tenant_id="acme")),
        ("events_message", lambda db: history.list_events(db, 1, message_id=1)),
        ("read_on", lambda db: history.read_on(db, 1, 10, kinds=[EventKind.HELD])),
        ("read_on_tenant", lambda db: history.read_on(db, 1, 10, tenant_id="acme")),
        ("totals", usage.totals),
        ("granted", lambda db: usage.granted_since(db, "acme", NOW)),
        ("usage", lambda db: usage.sum_usage(db, NOW - 2 * usage.DAY_S, NOW + 900)),
        ("usage_tenant", lambda db: usage.sum_usage(db, NOW - 2 * usage.DAY_S, NOW + 900, "acme")),
        ("usage_series", lambda db: usage.list_usage(db, "acme", [NOW], NOW + 900)),
        ("usage_prune", lambda db: usage.prune(db, NOW, 10)),
        ("list", lambda db: history.list_recipients(db, find.Filters(tenant_id="acme"))),
        ("list_all", lambda db: history.list_recipients(db, find.Filters())),
        ("list_status", lambda db: history.list_recipients(db, find.Filters(statuses=(Status.SENT,)))),
        ("list_after", lambda db: history.list_recipients(db, find.Filters(tenant_id="acme", after=NOW))),
        ("list_sender", lambda db: history.list_recipients(db, find.Filters(sender="a@sender.test"))),
        ("list_tag", lambda db: history.list_recipients(db, find.Filters(tag="t", address="x@y.test"))),
        ("list_tagged", lambda db: history.list_recipients(db, find.Filters(tag="t", after=NOW))),
        ("suppressed", lambda db: suppressions.among(db, "acme", ["a", "b"])),
        ("suppressions", lambda db: suppressions.list_page(db, "acme")),
        (
            "by_tag",
            lambda db: queue.select_for_operation(db, statuses=[Status.HELD], tag="x", sender="y", below=(NOW, 1)),
        ),
        ("in_hand", lambda db: find.count_in_hand(db, find.Filters(tenant_id="acme", tag="x", address="a@b.test"))),
        ("expired", lambda db: prune.expired_held(db, NOW)),
        ("tls_results", lambda db: peertls.results(db, 0, 86400)),
        ("tls_results_domain", lambda db: peertls.results(db, 0, 86400, "rcpt.test")),
        ("tls_domains", lambda db: peertls.domains(db, 86400)),
        ("tls_prune", lambda db: peertls.prune(db, NOW, NOW, 10)),
        ("next_ids", queue.next_ids),
        ("body", lambda db: bodies.has_content(db, 1)),
    ],
)
async def test_no_table_is_read_as_a_whole(
    store: Store, name: str, statement: Callable[[sqlite3.Connection], object]
) -> None:
    await accept(store)
    await accept(store, status=Status.HELD)

    def plans(db: sqlite3.Connection) -> Sequence[str]:
        seen: list[str] = []
        db.set_trace_callback(seen.append)
        try:
            statement(db)
        except NotFound:
            pass
        finally:
            db.set_trace_callback(None)
        details = []
        for sql in seen:
            if sql.startswith(("SELECT", "UPDATE", "DELETE")):
                details += [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}")]
        return details

    found = await store.write(plans)
    assert found
    for line in found:
        if line.startswith("SCAN") and line not in {"SCAN CONSTANT ROW", "SCAN (subquery-1)"}:
            assert name in _ALLOWED, line
            assert line.endswith(_ALLOWED[name])
        assert "USE TEMP B-TREE FOR ORDER BY" not in line or name == "list_tag", line  # what one address got
