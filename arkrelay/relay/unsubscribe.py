"""A recipient leaves a stream, by one click in a mail program, on our page, or by mail: the verb (RFC 8058).

The token says who and what, and nobody but us can make one; it is good as long as its recipient's record is kept.
To leave twice is to leave once. Mail of the stream is held from then on, and no other, unless the stream is all mail
of the tenant.
"""

import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from arkrelay.config.live import Live
from arkrelay.mail.unsubscribe import UnsubscribeTokens
from arkrelay.model.errors import NotFound
from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import Recipient
from arkrelay.model.suppression import Cause
from arkrelay.store import bodies, suppressions
from arkrelay.store.database import Store
from arkrelay.store.history import insert_events
from arkrelay.store.queue import load_recipient

log = structlog.get_logger()

REASON = "unsubscribe"  # Ark contract §9.3
BY_CLICK, BY_PAGE, BY_MAIL = "one-click", "page", "mail"


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a token is good for; ``ended``: its recipient has left the stream before, or complained."""

    recipient: Recipient
    sender: str  # the tenant's name, as people know it
    stream: str
    ended: bool


class Unsubscriber:
    """Reads tokens and does what they are for."""

    def __init__(
        self,
        store: Store,
        live: Live,
        tokens: UnsubscribeTokens,
        on_suppressed: Callable[[str, Iterable[str]], None] = lambda _tenant_id, _addresses: None,
    ) -> None:
        self._store = store
        self._live = live
        self._tokens = tokens
        self._on_suppressed = on_suppressed  # the queue, which may have mail for the address

    async def find(self, token: str) -> Subscription | None:
        """Return what the token is good for, or None: we did not make it, or its record is no longer kept."""
        recipient_id = self._tokens.recipient_of(token)
        if recipient_id is None:
            return None

        def read(db: sqlite3.Connection) -> tuple[Recipient, bool] | None:
            try:
                recipient = load_recipient(db, recipient_id)
            except NotFound:
                return None
            message = recipient.message
            left = suppressions.has_left(db, message.tenant_id, recipient.address, message.stream or "")
            return recipient, left

        found = await self._store.read(read)
        if found is None:
            return None
        recipient, ended = found
        message = recipient.message
        tenant = self._live.snapshot.tenants.get(message.tenant_id)
        stream = message.stream
        if tenant is None or stream is None:
            return None
        if not self._tokens.proves(token, message.tenant_id, recipient.id, stream):
            return None
        return Subscription(recipient, tenant.name, stream, ended)

    async def offered(self, recipient: Recipient) -> Subscription | None:
        """Return what the message itself offers its reader to leave, or None: it may have come with its own way."""
        message = recipient.message
        if message.stream is None:
            return None
        token = self._tokens.make(message.tenant_id, recipient.id, message.stream)
        content = await self._store.read(lambda db: bodies.load(db, message.id))
        return await self.find(token) if token.encode() in content else None

    async def by_mail(self, local_part: str) -> None:
        """Do what mail to the address of a token means: nothing, if it is none of ours or its record has gone."""
        found = await self.find(local_part)
        if found is not None:
            await self.end(found, BY_MAIL)

    async def end(self, subscription: Subscription, by: str) -> bool:
        """Suppress the address in its stream, and return whether that is new; on return it is on disk."""
        recipient, stream = subscription.recipient, subscription.stream
        message = recipient.message
        at = time.time()

        def job(db: sqlite3.Connection) -> bool:
            new = suppressions.suppress(
                db,
                message.tenant_id,
                recipient.address,
                REASON,
                at,
                cause=Cause.UNSUBSCRIBE,
                stream=stream,
                recipient_id=recipient.id,
            )
            if new:
                data = {"address": recipient.address, "stream": stream, "by": by}
                kinds = {EventKind.UNSUBSCRIBED: data, EventKind.SUPPRESSED: data | {"reason": REASON}}
                insert_events(
                    db,
                    [
                        Event(kind, at, message.tenant_id, message.id, recipient.id, what)
                        for kind, what in kinds.items()
                    ],
                )
            return new

        new = await self._store.write(job)
        if new:
            self._on_suppressed(message.tenant_id, [recipient.address])
            log.info("recipient_unsubscribed", id=recipient.token, tenant=message.tenant_id, stream=stream, by=by)
        return new
