"""Messages, outcomes and databases that fail on demand, for the tests of the store."""

import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any

from arkrelay.model.attempt import Attempt, TlsInfo
from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import Door, HoldReason, Message, Recipient, Status
from arkrelay.model.outcome import Outcome
from arkrelay.model.reply import Reply, Stage
from arkrelay.store import queue
from arkrelay.store.accept import Insertion, insert_messages
from arkrelay.store.connection import Connection
from arkrelay.store.database import Store
from arkrelay.store.outcomes import apply

NOW = 1_800_000_000.0
STEPS = 100  # the grain of ``steps``


def message(
    store: Store, *, tenant_id: str = "acme", at: float = NOW, tag: str | None = None, **more: Any
) -> Message:
    fields: dict[str, Any] = {
        "author": "a@sender.test",
        "author_domain": "sender.test",
        "return_path": "a@sender.test",
        "subject": "Hello",
        "size_bytes": 9,
    }
    return Message(
        id=store.new_message_id(),
        tenant_id=tenant_id,
        door=Door.SMTP,
        credential="app",
        accepted_at=at,
        message_id="<1@sender.test>",
        tag=tag,
        **(fields | more),
    )


def recipient(store: Store, of: Message, address: str = "b@dest.test", **more: Any) -> Recipient:
    domain = address.rpartition("@")[2]
    fields: dict[str, Any] = {"due_at": of.accepted_at, "domain": domain, "destination": domain}
    return Recipient(
        id=store.new_recipient_id(),
        message=of,
        token=store.new_token(of.accepted_at),
        address=address,
        **(fields | more),
    )


def accepted(of: Message) -> Event:
    return Event(EventKind.ACCEPTED, of.accepted_at, of.tenant_id, of.id, None, {"size": of.size_bytes})


async def accept(
    store: Store,
    address: str = "b@dest.test",
    *,
    content: bytes | None = b"the body\n",
    leased: bool = False,
    status: Status = Status.PENDING,
    due_at: float | None = NOW,
    **more: Any,
) -> Recipient:
    """Insert one message for one recipient and return it."""
    of = message(store, **more)
    held = status is Status.HELD
    one = recipient(
        store,
        of,
        address,
        status=status,
        due_at=None if held else due_at,
        hold_reason=HoldReason.OPERATOR if held else None,
        reason="held by a test" if held else "",
    )
    await store.write(
        lambda db: insert_messages(db, [Insertion(of, [one], content, (accepted(of),), leased=leased)], store.epoch)
    )
    return one


def attempt(of: Recipient, code: int = 250, text: str = "2.0.0 taken", at: float = NOW) -> Attempt:
    tls = TlsInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", verified=True)
    reply = Reply(code, None, text, Stage.DOT)
    return Attempt(of.id, at, 0.1, reply, past_dot=True, host="mx.dest.test", address="192.0.2.1", port=25, tls=tls)


def outcome(of: Recipient, status: Status = Status.SENT, *, at: float = NOW, **more: Any) -> Outcome:
    kinds = {Status.SENT: EventKind.SENT, Status.SOFTFAIL: EventKind.DELAYED, Status.HARDFAIL: EventKind.FAILED}
    events: Sequence[Event] = ()
    if status in kinds:
        events = (Event(kinds[status], at, of.message.tenant_id, of.message.id, of.id, {"details": "so"}),)
    fields: dict[str, Any] = {"attempt": attempt(of, at=at), "details": "so", "events": events}
    return Outcome(of, at, status, "because", of.attempts + 1, **(fields | more))


class Faults:
    """Counts the calls to the database and makes chosen ones fail."""

    def __init__(self) -> None:
        self.calls = 0
        self.fail_at: int | None = None
        self.fail_on: str | None = None
        self.code = sqlite3.SQLITE_IOERR
        self.times = 1

    def check(self, sql: str) -> None:
        self.calls += 1
        hit = self.calls == self.fail_at or (self.fail_on is not None and sql.startswith(self.fail_on))
        if hit and self.times > 0:
            self.times -= 1
            error = sqlite3.OperationalError("a fault of the test")
            error.sqlite_errorcode = self.code
            raise error

    def factory(self) -> type[Connection]:
        faults = self

        class Faulty(Connection):
            def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
                faults.check(sql)
                return super().execute(sql, parameters)

            def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
                faults.check(sql)
                return super().executemany(sql, parameters)

        return Faulty


async def settle(store: Store, of: Recipient, status: Status = Status.SENT, **more: Any) -> None:
    """Apply one outcome, as the result of a delivery."""
    result = outcome(of, status, **more)
    await store.write(lambda db: apply(db, [result]), essential=True)


async def load(store: Store, of: Recipient) -> Recipient:
    return await store.read(lambda conn: queue.load_recipient(conn, of.id))


def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread, which has no event to offer; the test's timeout ends it."""
    while not condition():
        time.sleep(0.01)


def count(conn: sqlite3.Connection, table: str) -> int:
    return int(conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def steps(db: Connection, job: Callable[[Connection], object]) -> int:
    """Return how many steps the job took SQLite."""
    taken = 0

    def another() -> int:
        nonlocal taken
        taken += STEPS
        return 0

    db.set_progress_handler(another, STEPS)
    try:
        job(db)
    finally:
        db.set_progress_handler(None, 0)
    return taken
