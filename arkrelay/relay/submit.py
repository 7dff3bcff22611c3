"""Taking responsibility for a message: from the moment ``submit`` returns, it is ours to deliver or explain.

Header clean-up, admission, trace line, signature, one write. Nothing is kept when anything on the way says no;
once the write has committed the message cannot be lost, whatever happens to the caller (RFC 5321 §6.1).
"""

import asyncio
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import structlog

from arkrelay.base.metrics import Metrics
from arkrelay.config.live import Live
from arkrelay.config.snapshot import Snapshot
from arkrelay.mail.header import HeaderError
from arkrelay.mail.intake import Intake, IntakeOptions, prepare, render_received
from arkrelay.model.address import Address, address_key
from arkrelay.model.errors import Refused, StoreError
from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import Accepted, Door, HoldReason, Message, Recipient, Status, Submission
from arkrelay.model.tenant import Credential, Tenant
from arkrelay.policy import admit as policy
from arkrelay.policy.describe import suppressed as describe_suppressed
from arkrelay.policy.limits import warns
from arkrelay.policy.route import destination_of
from arkrelay.relay.domains import DomainChecker
from arkrelay.relay.meter import Meter
from arkrelay.relay.queue import Queue
from arkrelay.relay.sign import Signing
from arkrelay.relay.upkeep import Upkeep
from arkrelay.store import bodies
from arkrelay.store.accept import Insertion, insert_messages
from arkrelay.store.database import Store
from arkrelay.store.lists import set_last_used, suppressed_among

log = structlog.get_logger()

MAX_DIGITS = 9  # of X-Ark-Expires in seconds: 30 years
USE_S = 60.0  # how exact "last used" is
INLINE_BYTES = 256_000  # larger messages are parsed in a thread: CPU work over ~1 ms leaves the event loop


@dataclass(frozen=True, slots=True)
class _Draft:
    """A message with its recipients as they will be inserted, and its content."""

    message: Message
    recipients: tuple[Recipient, ...]
    content: bytes
    events: tuple[Event, ...]


class Submitter:
    """The one way in, for every door."""

    def __init__(
        self,
        store: Store,
        live: Live,
        signing: Signing,
        queue: Queue,
        domains: DomainChecker,
        meter: Meter,
        upkeep: Upkeep,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._live = live
        self._signing = signing
        self._queue = queue
        self._domains = domains
        self._meter = meter
        self._upkeep = upkeep
        self._metrics = metrics
        self._insert = partial(_insert, epoch=store.epoch)  # one object, by which the writer knows what goes together
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
        snapshot = self._live.snapshot
        tenant, found = _who(snapshot, tenant_id, credential)
        refused = policy.check_sender(tenant, found, return_path, self._domains.states)
        if refused is not None:
            raise refused

    async def submit(self, submission: Submission) -> Accepted:
        """Return the public ids of a message that is now on disk; raises Refused or StoreError, and keeps nothing.

        With ``smtp.errors = "accept-and-log"`` a message that policy refuses is kept as a failed one instead, with
        the reason, and its sender is told 250 (as Postmark does, Ark contract §14.3).
        """
        snapshot = self._live.snapshot
        try:
            return await self._submit(submission, snapshot)
        except Refused as refused:
            self._metrics.refused.labels(str(refused.code)).inc()
            log.info(
                "message_refused",
                tenant=submission.tenant_id,
                credential=submission.credential,
                client=submission.client,
                reply=str(refused),
            )
            logged = snapshot.settings.smtp.errors == "accept-and-log" and submission.door is Door.SMTP
            if logged and refused.code >= 500:
                return await self._keep_refused(submission, refused)
            raise

    async def _submit(self, submission: Submission, snapshot: Snapshot) -> Accepted:
        if (refused := self.not_ready()) is not None:
            raise StoreError(refused.text) if refused.code == 451 else refused
        tenant, credential = _who(snapshot, submission.tenant_id, submission.credential)
        intake = await self._take_in(submission, tenant, snapshot)
        used = self._meter.used(tenant.id, submission.received_at)
        verdict = policy.admit(
            tenant,
            credential,
            submission.return_path,
            intake.author,
            len(submission.recipients),
            self._domains.states,
            used,
            intake.received_count,
        )
        if isinstance(verdict, Refused):
            raise verdict
        held = verdict
        counted = 0 if held else len(submission.recipients)
        self._meter.add(tenant.id, counted, submission.received_at)
        try:
            tokens = [self._store.new_token(submission.received_at) for _ in submission.recipients]
            received = render_received(
                submission.helo,
                snapshot.settings.hostname,
                submission.protocol,
                tokens[0],
                submission.received_at,
            )
            signers = snapshot.signers(tenant.id, intake.author.domain)
            signatures = await self._signing.sign(intake.content, signers, submission.received_at)
            content = signatures + received + intake.content
            draft = self._draft(submission, intake, snapshot, held, tokens, content)
            return await self._keep(replace(draft, events=self._limit_events(tenant, draft, used, held)), held)
        except BaseException:
            self._meter.add(tenant.id, -counted, submission.received_at)
            raise

    async def _take_in(self, submission: Submission, tenant: Tenant, snapshot: Snapshot) -> Intake:
        smtp = snapshot.settings.smtp
        options = IntakeOptions(
            submission.received_at,
            snapshot.settings.hostname,
            lambda: self._store.new_token(submission.received_at),
            frozenset(domain.name for domain in tenant.domains),
            smtp.tag_headers,
            smtp.metadata_headers,
        )
        try:
            if len(submission.content) <= INLINE_BYTES:
                return prepare(submission.content, options)
            return await asyncio.to_thread(prepare, submission.content, options)
        except HeaderError as error:
            raise Refused(550, "5.6.0", str(error), field="rawMessage") from None

    def _draft(
        self,
        submission: Submission,
        intake: Intake,
        snapshot: Snapshot,
        held: policy.Hold | None,
        tokens: Sequence[str],
        content: bytes,
    ) -> _Draft:
        at = submission.received_at
        message = Message(
            self._store.new_message_id(),
            submission.tenant_id,
            submission.door,
            submission.credential,
            at,
            intake.message_id,
            str(intake.author),
            intake.author.domain,
            None if submission.return_path is None else str(submission.return_path),
            intake.subject,
            intake.tag,
            intake.metadata,
            len(content),
            intake.eight_bit,
            # 8-bit header fields of a client that did not declare SMTPUTF8 may be in any charset: left as they are
            intake.utf8_header and submission.smtputf8,
            submission.ret,
            submission.envid,
            submission.expires_at if submission.expires_at is not None else _expires(intake.expires, at),
        )
        routes = snapshot.settings.route
        recipients = tuple(
            Recipient(
                self._store.new_recipient_id(),
                message,
                token,
                str(request.address),
                request.address.domain,
                destination_of(request.address.domain, routes),
                Status.HELD if held else Status.PENDING,
                0,
                None if held else at,
                held.reason if held else "",
                held.hold_reason if held else None,
                None,
                request.notify,
                request.orcpt,
            )
            for request, token in zip(submission.recipients, tokens, strict=True)
        )
        return _Draft(message, recipients, content, ())

    def _limit_events(
        self, tenant: Tenant, draft: _Draft, used: tuple[int, int], held: policy.Hold | None
    ) -> tuple[Event, ...]:
        """Return the event that tells, once an hour, that the tenant nears its hourly limit or has reached it."""
        at, limit = draft.message.accepted_at, tenant.limits.hourly
        data = {"volume": used[0] + len(draft.recipients), "limit": limit}
        if held is not None and held.hold_reason is HoldReason.SEND_LIMIT and self._meter.exceeded(tenant.id, at):
            return (Event(EventKind.LIMIT_EXCEEDED, at, tenant.id, data=data),)
        if held is None and warns(used[0], limit, len(draft.recipients)):
            return (Event(EventKind.LIMIT_APPROACHING, at, tenant.id, data=data),)
        return ()

    async def _keep(self, draft: _Draft, held: policy.Hold | None) -> Accepted:
        """Write the message and hand it over; nothing may be cancelled in between, so the write is shielded."""
        message, size = draft.message, len(draft.content)
        large = bodies.is_large(size)
        if large:
            await self._store.save_large(message.id, draft.content)
        destinations = [recipient.destination for recipient in draft.recipients]
        leased = held is None and self._queue.reserve(destinations, size)
        insertion = Insertion(
            message, draft.recipients, None if large else draft.content, draft.events, leased=leased
        )
        write = self._store.begin_together(self._insert, insertion)
        write.add_done_callback(lambda done: self._written(done, draft, leased=leased, large=large))
        self._note_use(message)
        began = time.perf_counter()
        kept = await asyncio.shield(write)
        self._metrics.commit_seconds.observe(time.perf_counter() - began)
        self._metrics.accepted.labels(message.door).inc(len(kept))
        log.info(
            "message_accepted",
            id=kept[0].token,
            tenant=message.tenant_id,
            credential=message.credential,
            door=str(message.door),
            author=message.author,
            recipients=len(kept),
            bytes=size,
            held=str(held.hold_reason) if held else None,
        )
        tokens = tuple(one.token for one in kept)
        return Accepted(message.id, tokens, held.hold_reason if held else None, message.message_id)

    def _written(
        self, done: "asyncio.Future[Sequence[Recipient]]", draft: _Draft, *, leased: bool, large: bool
    ) -> None:
        """Hand over what was committed, whether or not its submitter still waits; undo what was not."""
        size = len(draft.content)
        if done.cancelled() or done.exception() is not None:
            if leased:
                self._queue.unreserve(len(draft.recipients), size)
            if large:
                self._store.remove_large(draft.message.id)
            return
        waiting = [recipient for recipient in done.result() if recipient.due_at is not None]
        if leased:
            self._queue.hand_over(waiting, draft.content, len(draft.recipients))
            return
        for destination in {recipient.destination for recipient in waiting}:
            self._queue.note_due(destination, draft.message.accepted_at)

    def _note_use(self, message: Message) -> None:
        """Keep when the credential was last used, to the minute."""
        if message.credential is None:
            return
        key, at = (message.tenant_id, message.credential), message.accepted_at
        if at - self._used_at.get(key, 0.0) >= USE_S:
            self._used_at[key] = at
            self._store.write_later(lambda db: set_last_used(db, *key, at))

    async def _keep_refused(self, submission: Submission, refused: Refused) -> Accepted:
        """Keep a message that policy refused, as one that has failed, for its owner to look at."""
        at = submission.received_at
        author = submission.return_path or Address("postmaster", "")
        message = Message(
            self._store.new_message_id(),
            submission.tenant_id,
            submission.door,
            submission.credential,
            at,
            "",
            str(author),
            author.domain,
            None if submission.return_path is None else str(submission.return_path),
            size_bytes=len(submission.content),
        )
        reason = f"Refused: {refused}"
        recipients = tuple(
            Recipient(
                self._store.new_recipient_id(),
                message,
                self._store.new_token(at),
                str(request.address),
                request.address.domain,
                request.address.domain,
                Status.HARDFAIL,
                reason=reason,
            )
            for request in submission.recipients
        )
        data = {"status": "HardFail", "type": "SMTPApiError", "details": reason, "output": str(refused)}
        events = tuple(
            Event(EventKind.FAILED, at, message.tenant_id, message.id, recipient.id, data) for recipient in recipients
        )
        return await self._keep(_Draft(message, recipients, submission.content, events), None)


def _who(snapshot: Snapshot, tenant_id: str, credential: str | None) -> tuple[Tenant, Credential | None]:
    """Return the submitter as the configuration has it now; it may have gone since the session began."""
    tenant = snapshot.tenants.get(tenant_id)
    found = tenant.credential(credential) if tenant is not None and credential is not None else None
    if tenant is None or (credential is not None and found is None):
        raise Refused(535, "5.7.8", "This credential is no longer valid")
    return tenant, found


def _insert(db: sqlite3.Connection, insertions: Sequence[Insertion], *, epoch: int) -> Sequence[Sequence[Recipient]]:
    """A job of the writer: insert messages; recipients that their tenant may not mail are held from the start."""
    keys: dict[str, list[str]] = {}
    for one in insertions:
        pending = [address_key(to.address) for to in one.recipients if to.status is Status.PENDING]
        keys.setdefault(one.message.tenant_id, []).extend(pending)
    suppressed = {tenant_id: suppressed_among(db, tenant_id, some) for tenant_id, some in keys.items() if some}
    ready = [_ready(one, suppressed.get(one.message.tenant_id, {})) for one in insertions]
    insert_messages(db, ready, epoch)
    return [one.recipients for one in ready]


def _ready(insertion: Insertion, suppressed: Mapping[str, str]) -> Insertion:
    recipients = insertion.recipients
    if suppressed:
        recipients = [_suppress(one, suppressed) for one in recipients]
    events = [*insertion.events, *(_event(one) for one in recipients if one.status is not Status.HARDFAIL)]
    return Insertion(insertion.message, recipients, insertion.content, events, leased=insertion.leased)


def _suppress(recipient: Recipient, found: Mapping[str, str]) -> Recipient:
    reason = found.get(address_key(recipient.address))
    if reason is None or recipient.status is not Status.PENDING:
        return recipient
    text = describe_suppressed(recipient.address, reason)
    return replace(recipient, status=Status.HELD, due_at=None, reason=text, hold_reason=HoldReason.SUPPRESSED)


def _event(recipient: Recipient) -> Event:
    message = recipient.message
    at = message.accepted_at
    if recipient.status is Status.HELD:
        data = {"status": "Held", "details": recipient.reason, "output": "", "hold_reason": recipient.hold_reason}
        return Event(EventKind.HELD, at, message.tenant_id, message.id, recipient.id, data)
    return Event(EventKind.ACCEPTED, at, message.tenant_id, message.id, recipient.id)


def _expires(text: str | None, now: float) -> float | None:
    """Return when a message expires that says so itself: seconds from now or ISO 8601; anything else is ignored."""
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS:
        return now + int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
