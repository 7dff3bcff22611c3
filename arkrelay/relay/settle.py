"""What became of a recipient, all of it in one write: state, attempt, events, suppression.

``policy.outcomes`` says what an attempt means; ``Settler`` collects outcomes and gives them to the store. They ride
with the next batch of the writer and wait at most 50 ms for it: the journal remembers meanwhile which recipients
the peer has taken, so a crash in between repeats nothing. An outcome that cannot be written (disk full, database
locked) stays here and is tried again until it is: what happened to a message is not forgotten. A notice to the sender
that an outcome calls for is made first and written with it.
"""

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache

import structlog

from arkrelay.base.metrics import Metrics
from arkrelay.base.tasks import Tasks
from arkrelay.config.live import Live
from arkrelay.model.attempt import BLAMES_RECIPIENT, Attempt
from arkrelay.model.message import Recipient, Status
from arkrelay.model.outcome import Outcome
from arkrelay.model.reply import Failure, FailureKind
from arkrelay.policy.classify import Rules
from arkrelay.policy.notify import Action
from arkrelay.policy.outcomes import decide
from arkrelay.policy.sentences import sentence
from arkrelay.relay import notices
from arkrelay.relay.bursts import BurstGuard
from arkrelay.relay.notices import Notice, Notices
from arkrelay.store.database import Store
from arkrelay.store.outcomes import apply

log = structlog.get_logger()

GATHER_S = 0.01  # outcomes of so long go to the writer as one job, which costs it half
RETRY_WRITE_S = 1.0

_Done = Callable[[], None] | None
_Waiting = tuple[Outcome, _Done, Notice | None]


class Settler:
    """Turns attempts into outcomes and sees to it that every outcome reaches the disk."""

    def __init__(
        self, store: Store, live: Live, metrics: Metrics, rules: Rules, made: Notices, bursts: BurstGuard
    ) -> None:
        self._store = store
        self._live = live
        self._settled_as = cache(metrics.settled.labels)
        self._rules = rules
        self._notices = made
        self.bursts = bursts
        self._tasks = Tasks()
        self._noticing = 0  # outcomes whose notice is being made
        self._waiting: list[_Waiting] = []
        self._scheduled = False
        self._writing = 0
        self._apart = False
        self._settled = asyncio.Event()
        self.on_settled: Callable[[Outcome], None] = lambda _outcome: None
        self.on_due: Callable[[str, str, float], None] = lambda _destination, _tenant_id, _at: None
        self.on_suppressed: Callable[[str, Iterable[str]], None] = lambda _tenant_id, _addresses: None

    @property
    def unwritten(self) -> int:
        """How many outcomes are not yet on disk."""
        return len(self._waiting) + self._writing + self._noticing

    def attempted(
        self,
        recipient: Recipient,
        attempt: Attempt,
        done: _Done = None,
        *,
        another_way: Callable[[], bool] = lambda: False,
    ) -> Outcome:
        """Decide what ``attempt`` means and write it soon; ``done`` is called when it is on disk.

        ``another_way`` is asked when the peer did not want our address: may the mail leave in another way?
        """
        now = time.time()
        dice = random.uniform(-1, 1)  # noqa: S311 -- spreads retries, hides nothing
        settings = self._live.snapshot.settings
        try:
            outcome = decide(recipient, attempt, self._rules, settings, now, dice, another_way=another_way)
        except Exception as error:  # a bug of ours defers, and past the dot it may have arrived
            log.exception("attempt_not_understood", id=recipient.token)
            surprise = Failure(FailureKind.INTERNAL, attempt.result.stage, f"{type(error).__name__}: {error}"[:500])
            outcome = decide(recipient, replace(attempt, result=surprise), self._rules, settings, now, dice)
        if attempt.site and (outcome.status is Status.SENT or outcome.status is Status.HARDFAIL):
            self.bursts.note(attempt.site, outcome, now)
            outcome = self._believed(outcome)
        self.settle(outcome, done)
        return outcome

    def _believed(self, outcome: Outcome) -> Outcome:
        """Return the outcome, which suppresses nobody while the site that refused is not believed."""
        attempt, wanted = outcome.attempt, outcome.suppress
        if wanted is None or attempt is None or not attempt.site or outcome.bounce_class not in BLAMES_RECIPIENT:
            return outcome
        burst = self.bursts.burst(attempt.site, outcome.recipient.message.tenant_id, outcome.at)
        if burst is None:
            return outcome
        return replace(outcome, suppress=None, reason=f"{outcome.reason} (not suppressed: {burst})")

    def settle(self, outcome: Outcome, done: _Done = None) -> None:
        """Write ``outcome`` soon, with a log line; ``done`` is called when it is on disk."""
        log_outcome(outcome)
        self.on_settled(outcome)
        self._settled_as(outcome.status).inc()
        action = self._notices.wanted(outcome)
        if action is None:
            self._wait(outcome, done, None)
        else:
            self._noticing += 1
            self._tasks.spawn("notice", self._with_notice(action, outcome, done))

    async def drained(self, timeout_s: float) -> bool:
        """Return True when every outcome is on disk within ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.unwritten:
                    self._settled.clear()
                    await self._settled.wait()
        except TimeoutError:
            return False
        return True

    async def _with_notice(self, action: Action, outcome: Outcome, done: _Done) -> None:
        notice = None
        try:
            notice = await self._notices.make(action, outcome)
        except Exception:  # a bug of ours costs the notice and not what happened to the message
            log.exception("notice_not_made", id=outcome.recipient.token)
        finally:
            self._noticing -= 1
        self._wait(outcome, done, notice)

    def _wait(self, outcome: Outcome, done: _Done, notice: Notice | None) -> None:
        self._waiting.append((outcome, done, notice))
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_later(GATHER_S, self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        # an outcome that cannot be written must not keep others from it: after a failure each goes alone
        batches = [[one] for one in waiting] if self._apart else [waiting]
        self._apart = False
        for batch in batches:
            self._write(batch)

    def _write(self, batch: Sequence[_Waiting]) -> None:
        self._writing += len(batch)
        outcomes = [self._believed(outcome) for outcome, _, _ in batch]  # a burst may have begun since
        made = [notice for _, _, notice in batch if notice is not None]

        def job(db: sqlite3.Connection) -> None:
            apply(db, outcomes)
            if made:
                notices.insert(db, made, self._store.epoch)

        self._store.write_later(job, lambda error: self._written(batch, error))

    def _written(self, batch: Sequence[_Waiting], error: Exception | None) -> None:
        """Runs on the event loop when the batch's transaction has ended."""
        self._writing -= len(batch)
        if error is not None:
            log.error("outcomes_not_written", recipients=len(batch), error=str(error))
            self._waiting[:0] = batch
            self._apart = True
            if not self._scheduled:
                self._scheduled = True
                asyncio.get_running_loop().call_later(RETRY_WRITE_S, self._flush)
            return
        for outcome, done, notice in batch:
            if done is not None:
                done()
            if outcome.suppress is not None:
                self.on_suppressed(outcome.recipient.message.tenant_id, [outcome.recipient.address])
            if outcome.due_at is not None:
                recipient = outcome.recipient
                destination = outcome.destination or recipient.destination
                self.on_due(destination, recipient.message.tenant_id, outcome.due_at)
            if notice is not None:
                log.info(
                    "notice_written", id=notice.recipient.token, about=outcome.recipient.token, action=notice.action
                )
                self.on_due(
                    notice.recipient.destination,
                    notice.recipient.message.tenant_id,
                    notice.insertion.message.accepted_at,
                )
        self._settled.set()


def log_outcome(outcome: Outcome) -> None:
    """Write the one line about a recipient's change of state."""
    attempt = outcome.attempt
    recipient = outcome.recipient
    fields: dict[str, object] = {
        "id": recipient.token,
        "tenant": recipient.message.tenant_id,
        "recipient": recipient.address,
        "status": str(outcome.status),
    }
    if attempt is not None:
        fields |= {"host": attempt.host, "reply": str(attempt.result), "seconds": round(attempt.duration_s, 3)}
        fields["tls"] = attempt.tls.version if attempt.tls else None
    if outcome.status is not Status.SENT:
        fields |= {"reason": outcome.reason, "due_at": outcome.due_at}
    if outcome.status is Status.SOFTFAIL:
        fields["why"] = sentence(_settled(outcome), None, outcome.at)
    log.info("recipient_settled", **fields)


def _settled(outcome: Outcome) -> Recipient:
    """Return the recipient as its row is after ``outcome``, as far as a sentence tells of it."""
    return replace(
        outcome.recipient,
        status=outcome.status,
        attempts=outcome.attempts,
        due_at=outcome.due_at,
        reason=outcome.reason,
        uncertain=outcome.uncertain,
    )
