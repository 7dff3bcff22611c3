"""Usage: every recipient stands where and when it should, whatever became of it, and nothing forgets it."""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.store.build import NOW, accept, load, outcome, settle

from arkrelay.model.message import Door, Message, Recipient, Status
from arkrelay.model.settings import Retention
from arkrelay.store import backup, prune, schema, usage
from arkrelay.store.accept import Insertion, insert_messages
from arkrelay.store.connection import Connection
from arkrelay.store.database import Store
from arkrelay.store.outcomes import apply
from arkrelay.store.usage import DAY_S, QUARTER_S

MIDNIGHT = NOW // DAY_S * DAY_S
ENDS = [status for status in Status if status is not Status.PENDING]
STRAIGHT = (  # what the counters must say, from the rows themselves
    "SELECT m.tenant_id, m.accepted_at, r.status FROM recipients r JOIN messages m ON m.id = r.message_id"
    " WHERE NOT m.test AND r.status != 'pending'"
)


@dataclass
class Books:
    """A database in memory, and what was done to it."""

    db: Connection = field(
        default_factory=lambda: sqlite3.connect(":memory:", isolation_level=None, factory=Connection)
    )
    recipients: list[Recipient] = field(default_factory=list)

    def __post_init__(self) -> None:
        schema.migrate(self.db)

    def accept(self, tenant_id: str, at: float, statuses: Sequence[Status], *, test: bool) -> None:
        n = len(self.recipients) + 1
        of = Message(n, tenant_id, Door.REST, None, at, f"<{n}@x>", "a@x.test", "x.test", None, test=test)
        new = [
            Recipient(n + i, of, f"t{n + i}", f"b{n + i}@y.test", "y.test", "y.test", status)
            for i, status in enumerate(statuses)
        ]
        insert_messages(self.db, [Insertion(of, new, b"", ())], 1)
        self.recipients += new

    def settle(self, index: int, status: Status) -> None:
        """Give one recipient a new state, as a delivery that read it long ago: by the state of its first row."""
        one = self.recipients[index % len(self.recipients)]
        apply(self.db, [outcome(one, status, attempt=None, details="", events=())])

    def commit(self) -> None:
        usage.flush(self.db)

    def straight(self, length_s: int) -> Counter[tuple[str, int, str]]:
        return Counter(
            (tenant, usage.start_of(at, length_s), status) for tenant, at, status in self.db.execute(STRAIGHT)
        )

    def counted(self, name: str) -> Counter[tuple[str, int, str]]:
        rows = self.db.execute("SELECT tenant_id, start, item, n FROM counters WHERE name = ? AND n != 0", (name,))
        return Counter({(tenant, start, item): n for tenant, start, item, n in rows})


accepts = st.tuples(
    st.sampled_from(["acme", "beta"]),
    st.integers(-2 * DAY_S, 2 * DAY_S).map(lambda s: MIDNIGHT + s + 0.5),
    st.lists(st.sampled_from([Status.PENDING, Status.HELD, Status.HARDFAIL]), min_size=1, max_size=3),
    st.booleans(),
)
changes = st.tuples(st.integers(0, 20), st.sampled_from(Status))
quarters = st.integers(-2 * 96 - 3, 2 * 96 + 3).map(lambda n: MIDNIGHT + n * QUARTER_S)


def keep_books(sent: Sequence[tuple[str, float, list[Status], bool]], became: Sequence[tuple[int, Status]]) -> Books:
    books = Books()
    for tenant_id, at, statuses, test in sent:
        books.accept(tenant_id, at, statuses, test=test)
    for n, (index, status) in enumerate(became):
        books.settle(index, status)
        if n % 3 == 0:
            books.commit()
    books.commit()
    return books


@given(st.lists(accepts, min_size=1, max_size=6), st.lists(changes, max_size=20))
def test_whatever_happens_the_counters_say_what_the_rows_say(
    sent: list[tuple[str, float, list[Status], bool]], became: list[tuple[int, Status]]
) -> None:
    books = keep_books(sent, became)
    assert books.counted(usage.QUARTER) == books.straight(QUARTER_S)
    assert books.counted(usage.DAY) == books.straight(DAY_S)
    rows = books.db.execute("SELECT tenant_id, 0, status FROM recipients").fetchall()
    assert books.counted(usage.TOTAL) == Counter(rows)


@given(st.lists(accepts, min_size=1, max_size=6), st.lists(changes, max_size=12), quarters, quarters)
def test_any_time_has_the_recipients_that_were_accepted_in_it(
    sent: list[tuple[str, float, list[Status], bool]],
    became: list[tuple[int, Status]],
    one: float,
    other: float,
) -> None:
    books = keep_books(sent, became)
    start, end = sorted((one, other))
    rows = [row for row in books.db.execute(STRAIGHT) if start <= row[1] < end]
    found = usage.sum_usage(books.db, start, end)
    for tenant_id in ("acme", "beta"):
        wanted = Counter(status for tenant, _, status in rows if tenant == tenant_id)
        for counts in (
            found.get(tenant_id, usage.nothing()),
            usage.sum_usage(books.db, start, end, tenant_id).get(tenant_id, usage.nothing()),
        ):
            assert counts == {status: wanted[status.value] for status in ENDS}
    if start == end:
        return
    cuts = sorted({start, *(cut for cut in (MIDNIGHT - DAY_S, MIDNIGHT, MIDNIGHT + 900) if start < cut < end)})
    parts = usage.list_usage(books.db, "acme", cuts, end)
    assert parts == [
        usage.sum_usage(books.db, since, until, "acme").get("acme", usage.nothing())
        for since, until in pairwise([*cuts, end])
    ]


async def test_a_recipient_moves_from_state_to_state_where_it_was_accepted(store: Store) -> None:
    one = await accept(store)
    start = usage.start_of(NOW, QUARTER_S)

    async def counts() -> dict[Status, int]:
        found = await store.read(lambda conn: usage.list_usage(conn, "acme", [start], start + QUARTER_S))
        return {status: n for status, n in found[0].items() if n}

    assert await counts() == {}  # pending
    for status, at in (
        (Status.SOFTFAIL, NOW + 3600),
        (Status.HELD, NOW + DAY_S),
        (Status.PENDING, NOW + DAY_S),
        (Status.SENT, NOW + 2 * DAY_S),
        (Status.BOUNCED, NOW + 3 * DAY_S),
    ):
        await settle(store, await load(store, one), status, at=at, due_at=at)
        assert await counts() == ({} if status is Status.PENDING else {status: 1})


async def test_a_late_outcome_of_mail_that_was_sent_changes_nothing(store: Store) -> None:
    one = await accept(store)
    await settle(store, one)
    await settle(store, one, Status.HARDFAIL)
    found = await store.read(lambda conn: usage.sum_usage(conn, MIDNIGHT, MIDNIGHT + DAY_S))
    assert (found["acme"][Status.SENT], sum(found["acme"].values())) == (1, 1)


async def test_retention_lowers_no_usage_until_the_usage_itself_is_old(store: Store) -> None:
    for at in (NOW, NOW + 10 * DAY_S):
        await settle(store, await accept(store, at=at))

    async def sent() -> int:
        found = await store.read(lambda conn: usage.sum_usage(conn, 0, MIDNIGHT + 1000 * DAY_S))
        return found["acme"][Status.SENT] if "acme" in found else 0

    for days, left in ((100, 2), (399, 2), (409, 1), (411, 0)):
        while await store.write(lambda db, days=days: prune.prune_step(db, NOW + days * DAY_S, Retention())):  # type: ignore[misc] # mypy cannot type a default in a lambda
            pass
        assert await sent() == left, days
    assert await store.read(lambda conn: conn.execute("SELECT DISTINCT name FROM counters").fetchall()) == [
        ("total",)
    ]


async def test_old_usage_goes_in_bounded_steps_and_by_whole_days(store: Store) -> None:
    for hour in range(0, 48, 6):
        await settle(store, await accept(store, at=MIDNIGHT + hour * 3600))
    before = MIDNIGHT + 1.5 * DAY_S  # within the second day, which stays whole
    removed = 0
    while step := await store.write(lambda db: usage.prune(db, before, 3)):
        assert step <= 3
        removed += step
    assert removed == 4 + 4 + 1  # hours of the send limit, quarters, the day
    kept = await store.read(lambda conn: usage.sum_usage(conn, MIDNIGHT, MIDNIGHT + 2 * DAY_S))
    assert kept["acme"][Status.SENT] == 4


@pytest.mark.parametrize("forgotten", [False, True])
async def test_a_recovered_database_still_has_the_usage_of_mail_that_is_gone(
    state_dir: Path,
    forgotten: bool,
) -> None:
    store = Store.open(state_dir)
    await settle(store, await accept(store))
    if forgotten:
        while await store.write(lambda db: prune.prune_step(db, NOW + 100 * DAY_S, Retention())):
            pass
    store.close()
    backup.recover(state_dir)
    store = Store.open(state_dir)
    found = await store.read(lambda conn: usage.sum_usage(conn, MIDNIGHT, MIDNIGHT + DAY_S))
    assert found["acme"][Status.SENT] == 1
    store.close()


async def test_only_what_was_granted_uses_up_a_send_limit(store: Store) -> None:
    top = usage.start_of(NOW, usage.HOUR_S)
    for at in (top, top + 3599, top + 3600):
        await accept(store, at=at)
    await accept(store, at=top, status=Status.HELD)
    await accept(store, at=top, test=True)
    since = [
        await store.read(lambda conn, at=at: usage.granted_since(conn, "acme", at))  # type: ignore[misc] # as above
        for at in (top + 3500, top + 3600, top + 7200)
    ]
    assert since == [3, 1, 0]
    assert await store.read(lambda conn: usage.granted_since(conn, "nobody", 0)) == 0
