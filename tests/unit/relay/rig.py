"""The parts of the path around a real store, with connections that do as a test says."""

import asyncio
import functools
import time
from collections.abc import Callable
from typing import Any

from peers.configuration import Folder

from arkrelay.base.metrics import Metrics
from arkrelay.config.live import Live
from arkrelay.model.event import EventKind
from arkrelay.model.message import Door, HoldReason, Message, Recipient, Status
from arkrelay.policy.classify import Rules
from arkrelay.policy.pace import Capacity
from arkrelay.policy.schedule import Lane
from arkrelay.relay.bursts import BurstGuard
from arkrelay.relay.meter import Meter
from arkrelay.relay.notices import Notices
from arkrelay.relay.queue import Queue
from arkrelay.relay.settle import Settler
from arkrelay.relay.sign import Signing
from arkrelay.store import queue as rows
from arkrelay.store.accept import Insertion, insert_messages
from arkrelay.store.database import Store
from arkrelay.store.history import Delivery, list_attempts, list_events

NOW = time.time() - 1  # just now: the parts have no clock but the real one


@functools.cache
def rules() -> Rules:
    return Rules.load()


class Stub:
    """A connection that serves nothing until it is told to end; ``error`` is what its run raises."""

    error: Exception | None = None

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.hungry = False
        self.leaving = False
        self.woken = 0
        self.ends = asyncio.Event()

    def wake(self) -> None:
        self.woken += 1

    async def run(self) -> None:
        if Stub.error is not None:
            raise Stub.error
        await self.ends.wait()


class Rig:
    """Store, configuration, settler and queue of one tenant."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.live = Live(folder.path)
        self.store = Store.open(folder.state)
        self.signing = Signing()
        bursts = BurstGuard(self.store, self.live, lambda host: host)
        notices = Notices(self.store, self.live, self.signing)
        self.settler = Settler(self.store, self.live, Metrics(), rules(), notices, bursts)
        self.meter = Meter(self.store)
        self.connections: list[Stub] = []
        self.queue = Queue(self.store, self.live, self.settler, self._serve, lambda _site: Capacity(rate=0))

    def _serve(self, _queue: Queue, lane: Lane) -> Stub:
        self.connections.append(Stub(lane))
        return self.connections[-1]

    def message(self, **changes: Any) -> Message:
        fields: dict[str, Any] = {
            "id": self.store.new_message_id(),
            "tenant_id": "acme",
            "door": Door.SMTP,
            "credential": None,
            "accepted_at": NOW,
            "message_id": "<1@sender.test>",
            "author": "app@sender.test",
            "author_domain": "sender.test",
            "return_path": "app@sender.test",
        }
        return Message(**fields | changes)

    def recipient(self, address: str = "ann@rcpt.test", of: Message | None = None, **changes: Any) -> Recipient:
        fields: dict[str, Any] = {
            "id": self.store.new_recipient_id(),
            "message": of or self.message(),
            "token": self.store.new_token(NOW),
            "address": address,
            "domain": address.rpartition("@")[2],
            "destination": address.rpartition("@")[2],
            "due_at": NOW,
        }
        return Recipient(**fields | changes)

    async def accept(self, *recipients: Recipient, leased: bool = False) -> None:
        """Put messages into the table, one for each recipient."""

        def job(db: Any) -> None:
            for one in recipients:
                insert_messages(db, [Insertion(one.message, [one], b"x", (), leased=leased)], self.store.epoch)

        await self.store.write(job)

    def held(self, address: str = "ann@rcpt.test", reason: HoldReason = HoldReason.OPERATOR) -> Recipient:
        return self.recipient(address, status=Status.HELD, due_at=None, hold_reason=reason, reason="held by a test")

    async def load(self, recipient: Recipient) -> Recipient:
        return await self.store.read(lambda db: rows.load_recipient(db, recipient.id))

    async def events(self) -> list[EventKind]:
        found = await self.store.read(lambda db: list_events(db, limit=1000))
        return [one.event.kind for one in found]

    async def attempts(self, recipient: Recipient) -> list[Delivery]:
        return await self.store.read(lambda db: list_attempts(db, recipient.id))

    async def until(self, holds: Callable[[], bool]) -> None:
        """Let the event loop run until it holds; the test's timeout ends it."""
        while not holds():
            await asyncio.sleep(0.005)
