"""A state directory with a large queue, as hours of trouble leave it, filled through the store's own functions.

Every row is what ``relay.submit`` and ``store.outcomes`` would have written: messages with content and an event,
recipients that wait for their first try or for a later one (with the attempt before), counters that agree. A few
destinations have most of the mail, as ever. Some are dead, each in one of the ways of ``DEAD``.

Only journal and fsync are left out while it is filled, and the database is closed as in order.
"""

import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import Door, Message, Recipient, Status
from arkrelay.store import place, queue, usage
from arkrelay.store.accept import Insertion, insert_messages
from arkrelay.store.connection import Connection, connect
from arkrelay.store.database import Store
from arkrelay.store.history import attempt_row, insert_attempts
from arkrelay.store.ids import Tokens

DEAD = ("refused", "silent", "servfail")  # connection refused; accepts and says nothing; its DNS fails
BATCH = 2000  # messages in one transaction
FILL_CACHE_KIB = 1_000_000
_LINE = "The quick brown fox jumps over the lazy dog, again and again and again.\r\n"


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits: so many recipients for so many destinations, due from an hour ago to ``hours`` ahead."""

    rows: int = 1_000_000
    destinations: int = 10_000
    dead: int = 100
    tenants: tuple[str, ...] = ("acme", "beta", "gamma", "delta", "bench")
    overdue: float = 0.02  # share that is due already
    hours: float = 12.0
    body_bytes: int = 1000
    seed: int = 1

    def destination(self, number: int) -> str:
        """Return the name of a destination; the dead stand among the others, evenly."""
        every = self.destinations // self.dead if self.dead else 0
        if every and number % every == every - 1 and number // every < self.dead:
            return f"{DEAD[number // every % len(DEAD)]}{number}.test"
        return f"d{number}.test"

    def names(self) -> list[str]:
        """Return all destinations."""
        return [self.destination(number) for number in range(self.destinations)]


def fill(state_dir: Path, backlog: Backlog, now: float) -> float:
    """Make the database of ``state_dir`` and fill it; return how many seconds that took."""
    began = time.monotonic()
    Store.open(state_dir).close()
    db = connect(state_dir / place.DATABASE)
    try:
        db.execute("PRAGMA journal_mode = OFF")  # the daemon's writer turns WAL on again
        db.execute("PRAGMA synchronous = OFF")
        db.execute(f"PRAGMA cache_size = -{FILL_CACHE_KIB}")
        accepted = _accepted(db, backlog, now)
        while batch := list(islice(accepted, BATCH)):
            db.execute("BEGIN IMMEDIATE")
            insert_messages(db, batch, 0)
            tried = [one for insertion in batch for one in insertion.recipients if one.attempts]
            insert_attempts(
                db,
                [attempt_row(one.id, one.status, None, one.message.accepted_at, one.reason, None) for one in tried],
            )
            usage.flush(db)
            db.execute("COMMIT")
    finally:
        db.close()
    with (state_dir / place.DATABASE).open("rb") as file:
        os.fsync(file.fileno())
    return time.monotonic() - began


def forget_cached(path: Path) -> None:
    """Let the kernel forget a file that is on disk: as after a reboot, nothing of it is in the page cache."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_through(path: Path) -> None:
    """Let the kernel have all of a file in its page cache, if there is room."""
    with path.open("rb") as file:
        while file.read(1 << 20):
            pass


def _accepted(db: Connection, backlog: Backlog, now: float) -> Iterator[Insertion]:
    """Give the messages in the order of their acceptance, over the last day, each for one recipient."""
    dice = random.Random(backlog.seed)
    names, new_token = backlog.names(), Tokens().new
    message_id, recipient_id = queue.next_ids(db)
    text = (_LINE * (backlog.body_bytes // len(_LINE) + 1))[: backlog.body_bytes]
    for number in range(backlog.rows):
        at = now - 86400 * (1 - number / backlog.rows)
        tenant_id = dice.choice(backlog.tenants)
        destination = names[int(len(names) * dice.random() ** 2)]  # the first has a hundredth of all
        due_at = (
            now - dice.uniform(0, 3600)
            if dice.random() < backlog.overdue
            else now + dice.uniform(60, backlog.hours * 3600)
        )
        attempts = dice.choice((0, 1, 2, 5, 9))
        message = Message(
            id=message_id + number,
            tenant_id=tenant_id,
            door=Door.SMTP,
            credential=None,
            accepted_at=at,
            message_id=f"<{number}@sender.test>",
            author="app@sender.test",
            author_domain="sender.test",
            return_path="app@sender.test",
            subject=f"Your order {number}",
            size_bytes=backlog.body_bytes,
            bulk=dice.random() < 0.3,
        )
        recipient = Recipient(
            id=recipient_id + number,
            message=message,
            token=new_token(at),
            address=f"user{dice.randrange(10**6)}@{destination}",
            domain=destination,
            destination=destination,
            status=Status.SOFTFAIL if attempts else Status.PENDING,
            attempts=attempts,
            due_at=due_at,
            reason="451 4.7.1 try again later" if attempts else "",
        )
        head = f"From: app@sender.test\r\nTo: {recipient.address}\r\nSubject: {message.subject}\r\n\r\n"
        event = Event(EventKind.ACCEPTED, at, tenant_id, message.id, None, {"size": message.size_bytes})
        yield Insertion(message, [recipient], (head + text).encode(), (event,))
