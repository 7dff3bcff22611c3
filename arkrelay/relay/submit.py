"""Taking responsibility for a message: from the moment ``submit`` returns, it is ours to deliver or explain.

``drafts`` makes it ready, and here is the one write. Nothing is kept when anything on the way says no;
once the write has committed the message cannot be lost, whatever happens to the caller (RFC 5321 §6.1).
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import cache, partial

import structlog

from arkrelay.base.metrics import Metrics
from arkrelay.config.live import Live
from arkrelay.config.snapshot import Snapshot
from arkrelay.model.address import Address
from arkrelay.model.errors import Refused, StoreError
from arkrelay.model.message import Accepted, Door, HoldReason, Message, Recipient, Submission
from arkrelay.model.receipt import Receipt
from arkrelay.relay.drafts import Drafts
from arkrelay.relay.keep import Draft, Write, accepted_of, insert
from arkrelay.relay.leaks import LeakGuard
from arkrelay.relay.queue import Queue
from arkrelay.relay.upkeep import Upkeep
from arkrelay.store.accept import Insertion
from arkrelay.store.database import Store
from arkrelay.store.jobs import Failed
from arkrelay.store.lists import set_last_used

log = structlog.get_logger()

USE_S = 60.0  # how exact "last used" is


Outcome = Accepted | Refused
MakeReceipt = Callable[[Sequence[Outcome]], Receipt]


class Submitter:
    """The one way in, for every door."""

    def __init__(
        self,
        store: Store,
        live: Live,
        drafts: Drafts,
        queue: Queue,
        upkeep: Upkeep,
        metrics: Metrics,
        leaks: LeakGuard,
    ) -> None:
        self._store = store
        self._live = live
        self._drafts = drafts
        self._queue = queue
        self._upkeep = upkeep
        self._metrics = metrics
        self._accepted_by = cache(metrics.accepted.labels)
        self._leaks = leaks
        self._insert = partial(insert, epoch=store.epoch)  # one object, by which the writer knows what goes together
        self.stopping = False
        self._used_at: dict[tuple[str, str], float] = {}  # when each credential's use was last written down

    def not_ready(self) -> Refused | None:
        """Return why nothing is accepted now (421 stopping, 452 no room on the disk, 451 other trouble), or None."""
        if self.stopping:
            return Refused(421, "4.3.2", "The relay is stopping, try again in a moment")
        if self._upkeep.disk_low:
            return Refused(452, "4.3.1", "No room to keep mail safely, try again later")
        if self._queue.paused:
            return Refused(451, "4.3.0", "Mail cannot be kept safely now, try again later")
        return None

    def check_sender(self, tenant_id: str, credential: str | None, return_path: Address | None) -> None:
        """Raise Refused when mail with this return path would be: known at MAIL, so said there."""
        self._drafts.check_sender(self._live.snapshot, tenant_id, credential, return_path)

    async def submit(self, submission: Submission, receipt: MakeReceipt | None = None) -> Accepted:
        """Return the public ids of a message that is now on disk; raises Refused or StoreError, and keeps nothing.

        What ``receipt`` returns, called before the commit, is kept in the same transaction.
        With ``smtp.errors = "accept-and-log"`` a message that policy refuses is kept as a failed one instead, with
        the reason, and its sender is told 250 (as Postmark does, Ark contract §14.3).
        """
        snapshot = self._live.snapshot
        try:
            drafts = await self._make(submission, snapshot)
        except Refused as refused:
            self._note_refusal(submission, refused)
            logged = snapshot.settings.smtp.errors == "accept-and-log" and submission.door is Door.SMTP
            if not (logged and refused.code >= 500):
                raise
            drafts = (self._drafts.refused(submission, refused),)
        (accepted,) = await self._keep((drafts,), receipt)
        return accepted

    async def submit_all(
        self, submissions: Sequence[Submission], receipt: MakeReceipt | None = None
    ) -> Sequence[Outcome]:
        """Return for each message its public ids or why it was refused; those accepted are on disk, in one write.

        Raises StoreError when nothing can be kept, and then nothing was.
        """
        snapshot = self._live.snapshot
        made = await asyncio.gather(*(self._make(one, snapshot) for one in submissions), return_exceptions=True)
        ready = [drafts for drafts in made if isinstance(drafts, tuple)]
        for submission, drafts in zip(submissions, made, strict=True):
            if isinstance(drafts, Refused):
                self._note_refusal(submission, drafts)
            elif isinstance(drafts, BaseException):
                self._forget([draft for some in ready for draft in some])
                raise drafts
        if not ready:
            return [drafts for drafts in made if isinstance(drafts, Refused)]

        def outcomes(kept: Sequence[Accepted]) -> list[Outcome]:
            accepted = iter(kept)
            return [drafts if isinstance(drafts, Refused) else next(accepted) for drafts in made]

        kept = await self._keep(ready, None if receipt is None else lambda kept: receipt(outcomes(kept)))
        return outcomes(kept)

    async def _make(self, submission: Submission, snapshot: Snapshot) -> tuple[Draft, ...]:
        if (refused := self.not_ready()) is not None:
            raise StoreError(refused.text) if refused.code == 451 else refused
        return await self._drafts.make(submission, snapshot)

    def _note_refusal(self, submission: Submission, refused: Refused) -> None:
        self._metrics.refused.labels(str(refused.code)).inc()
        log.info(
            "message_refused",
            tenant=submission.tenant_id,
            credential=submission.credential,
            client=submission.client,
            reply=str(refused),
        )

    async def _keep(
        self, submitted: Sequence[Sequence[Draft]], receipt: Callable[[Sequence[Accepted]], Receipt] | None
    ) -> Sequence[Accepted]:
        """Write the messages and hand them over; a submitter that goes away meanwhile changes nothing about that."""
        drafts = [draft for some in submitted for draft in some]
        try:
            accepted = [accepted_of(some) for some in submitted]
            made = None if receipt is None else receipt(accepted)
            for draft in drafts:
                if draft.content is not None and draft.large:
                    await self._store.save_large(draft.message.id, draft.content)
        except BaseException:
            self._forget(drafts)
            raise
        leased = [self._reserve(draft) for draft in drafts]
        insertions = tuple(
            Insertion(
                draft.message,
                draft.recipients,
                None if draft.large else draft.content,
                draft.events,
                leased=in_hand,
                new_daily=draft.new_daily,
                links=draft.links,
            )
            for draft, in_hand in zip(drafts, leased, strict=True)
        )
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def written(kept: Sequence[Sequence[Recipient]] | Failed) -> None:
            try:
                self._written(kept, drafts, leased)
            finally:
                if waiter.done():  # its submitter went away
                    pass
                elif isinstance(kept, Failed):
                    waiter.set_exception(kept.error)
                else:
                    waiter.set_result(None)

        self._store.write_together(self._insert, Write(insertions, made), written)
        for draft in drafts:
            self._note_use(draft.message)
        began = time.perf_counter()
        await waiter
        self._metrics.commit_seconds.observe(time.perf_counter() - began)
        for draft in drafts:
            message = draft.message
            self._accepted_by(message.door).inc(len(draft.recipients))
            log.info(
                "message_accepted",
                id=draft.recipients[0].token,
                tenant=message.tenant_id,
                credential=message.credential,
                door=str(message.door),
                author=message.author,
                recipients=len(draft.recipients),
                bytes=message.size_bytes,
                held=str(draft.held.hold_reason) if draft.held else None,
            )
        return accepted

    def _reserve(self, draft: Draft) -> bool:
        """Return whether the message goes from memory to its delivery, for which there is room then."""
        if draft.held is not None or draft.content is None:
            return False
        destinations = [recipient.destination for recipient in draft.recipients]
        return self._queue.reserve(destinations, draft.message.tenant_id, len(draft.content))

    def _forget(self, drafts: Sequence[Draft]) -> None:
        """Undo what was done for messages that will not be kept."""
        self._drafts.uncount(drafts)
        for draft in drafts:
            if draft.large:
                self._store.remove_large(draft.message.id)

    def _written(
        self, kept: Sequence[Sequence[Recipient]] | Failed, drafts: Sequence[Draft], leased: Sequence[bool]
    ) -> None:
        """Hand over what was committed, whether or not its submitter still waits; undo what was not."""
        if isinstance(kept, Failed):
            self._forget(drafts)
        for index, draft in enumerate(drafts):
            if isinstance(kept, Failed):
                if leased[index]:
                    self._queue.unreserve(len(draft.recipients), draft.message.size_bytes)
                continue
            waiting = [recipient for recipient in kept[index] if recipient.due_at is not None]
            if len(waiting) < len(kept[index]):
                self._drafts.kept(draft, kept[index])
            if draft.new_daily and any(one.hold_reason is HoldReason.NEW_RECIPIENTS for one in kept[index]):
                self._leaks.over_budget(draft.message)
            if leased[index] and draft.content is not None:
                self._queue.hand_over(waiting, draft.content, len(draft.recipients))
                continue
            for destination in {recipient.destination for recipient in waiting}:
                self._queue.note_due(destination, draft.message.tenant_id, draft.message.accepted_at)

    def _note_use(self, message: Message) -> None:
        """Keep when the credential was last used, to the minute."""
        if message.credential is None:
            return
        key, at = (message.tenant_id, message.credential), message.accepted_at
        if at - self._used_at.get(key, 0.0) >= USE_S:
            self._used_at[key] = at
            self._store.write_later(lambda db: set_last_used(db, *key, at))
