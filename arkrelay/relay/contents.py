"""The content of what is in hand: kept from its acceptance, or read when it is needed, until all are done."""

from collections.abc import Callable
from dataclasses import dataclass

from arkrelay.model.message import Recipient
from arkrelay.store import bodies
from arkrelay.store.database import Store


@dataclass(slots=True)
class _Held:
    """Content in memory, while recipients of it are in hand."""

    content: bytes | None
    recipients: int = 0
    reserved: int = 0  # recipients that ``Schedule.room`` counted


class Contents:
    """One content for all recipients of a message; ``free`` gives back what was reserved for it."""

    def __init__(self, store: Store, free: Callable[[int, int], None]) -> None:
        self._store = store
        self._free = free
        self._held: dict[int, _Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    def take(self, message_id: int, content: bytes, recipients: int, reserved: int) -> None:
        """Keep the content of a message that was just accepted, for so many recipients in hand."""
        self._held[message_id] = _Held(content, recipients, reserved)

    def claimed(self, recipient: Recipient) -> None:
        """One more recipient is in hand; its content is read when it is asked for."""
        held = self._held.setdefault(recipient.message.id, _Held(None))
        held.recipients += 1

    async def of(self, recipient: Recipient) -> bytes:
        """Return the message's signed content; raises StoreError when it cannot be read."""
        message_id = recipient.message.id
        held = self._held.get(message_id)
        if held is None:
            held = self._held[message_id] = _Held(None, 1)
        if held.content is None:
            held.content = await self._store.read(lambda db: bodies.load(db, message_id))
        return held.content

    def finished(self, recipient: Recipient) -> None:
        """This recipient is no longer in hand; with the last one its content goes."""
        held = self._held.get(recipient.message.id)
        if held is None:
            return
        held.recipients -= 1
        if held.recipients <= 0:
            del self._held[recipient.message.id]
            if held.reserved:
                self._free(held.reserved, len(held.content or b""))
