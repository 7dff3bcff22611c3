"""Taking responsibility for a message: from the moment ``submit`` returns, it is ours to deliver or explain.

Header clean-up, admission, trace line, signature, one write. Nothing is kept when anything on the way says no;
once the write has committed the message cannot be lost, whatever happens to the caller (RFC 5321 §6.1).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import structlog

from arkrelay.base.metrics import Metrics
from arkrelay.config.live import Live
from arkrelay.config.snapshot import Snapshot
from arkrelay.mail.feedback import render_feedback
from arkrelay.mail.header import HeaderError
from arkrelay.mail.intake import Intake, IntakeOptions, prepare, render_received
from arkrelay.mail.verp import ReturnPaths
from arkrelay.model.address import Address
from arkrelay.model.errors import Refused, StoreError
from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import (
    Accepted,
    Door,
    HoldReason,
    Message,
    Recipient,
    RecipientRequest,
    Status,
    Submission,
)
from arkrelay.model.receipt import Receipt
from arkrelay.model.tenant import Credential, Tenant
from arkrelay.policy import admit as policy
from arkrelay.policy.limits import warns
from arkrelay.policy.notify import delay_at
from arkrelay.policy.route import SIMULATOR, TEST_DESTINATION, destination_of
from arkrelay.policy.sandbox import is_sandboxed
from arkrelay.relay.domains import DomainChecker
from arkrelay.relay.keep import Draft, Write, accepted_of, insert
from arkrelay.relay.leaks import LeakGuard
from arkrelay.relay.meter import Meter
from arkrelay.relay.personal import Copies, Personal
from arkrelay.relay.queue import Queue
from arkrelay.relay.sandbox import SandboxCount
from arkrelay.relay.sign import Signing
from arkrelay.relay.upkeep import Upkeep
from arkrelay.store import bodies
from arkrelay.store.accept import Insertion
from arkrelay.store.database import Store
from arkrelay.store.lists import set_last_used

log = structlog.get_logger()

MAX_DIGITS = 9  # of X-Ark-Expires in seconds: 30 years
USE_S = 60.0  # how exact "last used" is
INLINE_BYTES = 256_000  # larger messages are parsed in a thread: CPU work over ~1 ms leaves the event loop


Outcome = Accepted | Refused
Numbered = tuple[int, str, RecipientRequest]  # a recipient's number and public id
MakeReceipt = Callable[[Sequence[Outcome]], Receipt]


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
        leaks: LeakGuard,
        return_paths: ReturnPaths,
        personal: Personal,
    ) -> None:
        self._store = store
        self._return_paths = return_paths
        self._live = live
        self._signing = signing
        self._queue = queue
        self._domains = domains
        self._meter = meter
        self._upkeep = upkeep
        self._metrics = metrics
        self._leaks = leaks
        self._personal = personal
        self._sandbox = SandboxCount(store)
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
        snapshot = self._live.snapshot
        tenant, found = _who(snapshot, tenant_id, credential)
        refused = policy.check_sender(tenant, found, return_path, self._domains.states, snapshot.settings.sandbox)
        if refused is not None:
            raise refused

    async def submit(self, submission: Submission, receipt: MakeReceipt | None = None) -> Accepted:
        """Return the public ids of a message that is now on disk; raises Refused or StoreError, and keeps nothing.

        What ``receipt`` returns, called before the commit, is kept in the same transaction.
        With ``smtp.errors = "accept-and-log"`` a message that policy refuses is kept as a failed one instead, with
        the reason, and its sender is told 250 (as Postmark does, Ark contract §14.3).
        """
        snapshot = self._live.snapshot
        try:
            drafts = await self._prepare(submission, snapshot)
        except Refused as refused:
            self._note_refusal(submission, refused)
            logged = snapshot.settings.smtp.errors == "accept-and-log" and submission.door is Door.SMTP
            if not (logged and refused.code >= 500):
                raise
            drafts = (self._refused_draft(submission, refused),)
        (accepted,) = await self._keep((drafts,), receipt)
        return accepted

    async def submit_all(
        self, submissions: Sequence[Submission], receipt: MakeReceipt | None = None
    ) -> Sequence[Outcome]:
        """Return for each message its public ids or why it was refused; those accepted are on disk, in one write.

        Raises StoreError when nothing can be kept, and then nothing was.
        """
        snapshot = self._live.snapshot
        made = await asyncio.gather(*(self._prepare(one, snapshot) for one in submissions), return_exceptions=True)
        ready = [drafts for drafts in made if isinstance(drafts, tuple)]
        for submission, drafts in zip(submissions, made, strict=True):
            if isinstance(drafts, Refused):
                self._note_refusal(submission, drafts)
            elif isinstance(drafts, BaseException):
                self._uncount([draft for some in ready for draft in some])
                raise drafts
        if not ready:
            return [drafts for drafts in made if isinstance(drafts, Refused)]

        def outcomes(kept: Sequence[Accepted]) -> list[Outcome]:
            accepted = iter(kept)
            return [drafts if isinstance(drafts, Refused) else next(accepted) for drafts in made]

        kept = await self._keep(ready, None if receipt is None else lambda kept: receipt(outcomes(kept)))
        return outcomes(kept)

    def _note_refusal(self, submission: Submission, refused: Refused) -> None:
        self._metrics.refused.labels(str(refused.code)).inc()
        log.info(
            "message_refused",
            tenant=submission.tenant_id,
            credential=submission.credential,
            client=submission.client,
            reply=str(refused),
        )

    async def _prepare(self, submission: Submission, snapshot: Snapshot) -> tuple[Draft, ...]:
        """Return the message as it will be kept, admitted, counted and signed: one, or one for each recipient."""
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
            counts=not submission.test,
            sandbox=snapshot.settings.sandbox,
        )
        if isinstance(verdict, Refused):
            raise verdict
        held = verdict
        sandbox = snapshot.settings.sandbox
        sandboxed = is_sandboxed(tenant, intake.author, sandbox) or is_sandboxed(
            tenant, submission.return_path, sandbox
        )
        if sandboxed:
            await self._sandbox.admit(submission, sandbox)
        bulk = policy.is_bulk(submission.priority or intake.priority, credential)
        counted = 0 if held or submission.test else len(submission.recipients)
        self._meter.add(tenant.id, counted, submission.received_at)
        try:
            make = partial(self._draft, submission, intake, snapshot, tenant, held, bulk)
            sign = partial(self._signed, submission, intake, snapshot, tenant)
            events = self._limit_events(tenant, submission, used, held)
            plan = self._personal.plan(submission, intake, tenant, snapshot)
            numbered = self._numbered(submission)
            if plan is not None:
                copies = await self._personal.copies(plan, intake.content, [one[:2] for one in numbered])
                if copies is not None:
                    drafts = await self._copies(copies, numbered, sign, make, events, counted)
                    return (replace(drafts[0], sandbox=sandboxed), *drafts[1:])
            draft = make(numbered, await sign(numbered, intake.content), events, counted)
            return (replace(draft, sandbox=True) if sandboxed else draft,)
        except BaseException:
            self._meter.add(tenant.id, -counted, submission.received_at)
            raise

    def _numbered(self, submission: Submission) -> list[Numbered]:
        """Return the recipients with numbers that follow one another (their links go by that), and public ids."""
        at = submission.received_at
        return [
            (self._store.new_recipient_id(), self._store.new_token(at), request) for request in submission.recipients
        ]

    async def _copies(
        self,
        copies: Copies,
        numbered: Sequence[Numbered],
        sign: Callable[[Sequence[Numbered], bytes], Awaitable[bytes]],
        make: Callable[..., Draft],
        events: tuple[Event, ...],
        counted: int,
    ) -> tuple[Draft, ...]:
        """Return one message for each recipient; what is said once of all of them is said with the first."""
        signed = await asyncio.gather(*(sign([one], of) for one, of in zip(numbered, copies.contents, strict=True)))
        drafts = [
            make([one], content, (), counted // len(numbered), copies.stream)
            for one, content in zip(numbered, signed, strict=True)
        ]
        return (replace(drafts[0], events=events, links=copies.links), *drafts[1:])

    async def _signed(
        self,
        submission: Submission,
        intake: Intake,
        snapshot: Snapshot,
        tenant: Tenant,
        numbered: Sequence[Numbered],
        content: bytes,
    ) -> bytes:
        """Return the message with its trace line, its signatures, and what they cover beside it."""
        at, token = submission.received_at, numbered[0][1]
        received = render_received(submission.helo, snapshot.settings.hostname, submission.protocol, token, at)
        owner = snapshot.owner_of(intake.author.domain)  # not the tenant: whose domain the sandbox is
        signers = () if owner is None else snapshot.signers(owner[0].id, intake.author.domain)
        signed = self._feedback(submission, tenant, intake, snapshot, numbered) + content
        return await self._signing.sign(signed, signers, at) + received + signed

    def _feedback(
        self,
        submission: Submission,
        tenant: Tenant,
        intake: Intake,
        snapshot: Snapshot,
        numbered: Sequence[Numbered],
    ) -> bytes:
        """Return the fields that say where complaints go, if that is wanted and the author's domain can vouch."""
        if not snapshot.settings.public.complaint_address or submission.return_path is None:
            return b""
        domain = intake.author.domain
        state = self._domains.states.get((tenant.id, domain))
        if state is None or state.return_path != "OK":
            return b""
        mark = self._return_paths.local_part(numbered[0][0], submission.received_at) if len(numbered) == 1 else None
        return render_feedback(domain, mark)

    def _uncount(self, drafts: Sequence[Draft]) -> None:
        """Give back what messages took of their tenant's limits: they did not come about."""
        for draft in drafts:
            self._meter.add(draft.message.tenant_id, -draft.counted, draft.message.accepted_at)
            for event in draft.events:
                self._meter.untold(draft.message.tenant_id, event.kind, event.at)

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
        tenant: Tenant,
        held: policy.Hold | None,
        bulk: bool,  # noqa: FBT001 -- one of the facts that were found
        numbered: Sequence[Numbered],
        content: bytes,
        events: tuple[Event, ...],
        counted: int,
        stream: str | None = None,
    ) -> Draft:
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
            intake.tag if submission.tag is None else submission.tag,
            intake.metadata if submission.metadata is None else submission.metadata,
            len(content),
            intake.eight_bit,
            # 8-bit header fields of a client that did not declare SMTPUTF8 may be in any charset: left as they are
            intake.utf8_header and submission.smtputf8,
            submission.ret,
            submission.envid,
            submission.expires_at
            if submission.expires_at is not None
            else _expires(intake.expires, at, numbered[0][1]),
            submission.test,
            submission.tell_at,
            bulk,
            stream,
        )
        routes = snapshot.settings.route
        recipients = tuple(
            Recipient(
                recipient_id,
                message,
                token,
                str(request.address),
                request.address.domain,
                TEST_DESTINATION
                if submission.test
                else SIMULATOR
                if request.address.domain == snapshot.settings.sandbox.simulator
                else destination_of(
                    request.address.domain,
                    routes,
                    pool=tenant.pool,
                    requiretls=submission.requiretls,
                    any_tls=intake.any_tls,
                ),
                Status.HELD if held else Status.PENDING,
                0,
                None if held else at,
                held.reason if held else "",
                held.hold_reason if held else None,
                None,
                request.notify,
                request.orcpt,
                delay_at=delay_at(request.notify, at, submission.tell_at, snapshot.settings.dsn),
            )
            for recipient_id, token, request in numbered
        )
        new_daily = tenant.limits.new_recipients_daily if message.counts else 0
        return Draft(message, recipients, content, events, held, counted, new_daily)

    def _limit_events(
        self, tenant: Tenant, submission: Submission, used: tuple[int, int], held: policy.Hold | None
    ) -> tuple[Event, ...]:
        """Return the event that tells, once an hour, that the tenant nears its hourly limit or has reached it."""
        at, recipients = submission.received_at, 0 if submission.test else len(submission.recipients)
        limit = tenant.limits.hourly
        kind = None
        if held is not None and held.hold_reason is HoldReason.SEND_LIMIT:
            kind = EventKind.LIMIT_EXCEEDED
        elif held is None and warns(used[0], limit, recipients):
            kind = EventKind.LIMIT_APPROACHING
        if kind is None or not self._meter.tells(tenant.id, kind, at):
            return ()
        return (Event(kind, at, tenant.id, data={"volume": used[0] + recipients, "limit": limit}),)

    async def _keep(
        self, submitted: Sequence[Sequence[Draft]], receipt: Callable[[Sequence[Accepted]], Receipt] | None
    ) -> Sequence[Accepted]:
        """Write the messages and hand them over; nothing may be cancelled in between, so the write is shielded."""
        drafts = [draft for some in submitted for draft in some]
        try:
            accepted = [accepted_of(some) for some in submitted]
            made = None if receipt is None else receipt(accepted)
            for draft in drafts:
                if bodies.is_large(len(draft.content)):
                    await self._store.save_large(draft.message.id, draft.content)
        except BaseException:
            self._uncount(drafts)
            for draft in drafts:  # one of a batch may have been saved before another failed
                self._store.remove_large(draft.message.id)
            raise
        leased = [self._reserve(draft) for draft in drafts]
        insertions = tuple(
            Insertion(
                draft.message,
                draft.recipients,
                None if bodies.is_large(len(draft.content)) else draft.content,
                draft.events,
                leased=in_hand,
                new_daily=draft.new_daily,
                links=draft.links,
            )
            for draft, in_hand in zip(drafts, leased, strict=True)
        )
        write = self._store.begin_together(self._insert, Write(insertions, made))
        write.add_done_callback(lambda done: self._written(done, drafts, leased))
        for draft in drafts:
            self._note_use(draft.message)
        began = time.perf_counter()
        await asyncio.shield(write)
        self._metrics.commit_seconds.observe(time.perf_counter() - began)
        for draft in drafts:
            message = draft.message
            self._metrics.accepted.labels(message.door).inc(len(draft.recipients))
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
        destinations = [recipient.destination for recipient in draft.recipients]
        return draft.held is None and self._queue.reserve(destinations, draft.message.tenant_id, len(draft.content))

    def _written(
        self, done: "asyncio.Future[Sequence[Sequence[Recipient]]]", drafts: Sequence[Draft], leased: Sequence[bool]
    ) -> None:
        """Hand over what was committed, whether or not its submitter still waits; undo what was not."""
        failed = done.cancelled() or done.exception() is not None
        if failed:
            self._uncount(drafts)
        for index, draft in enumerate(drafts):
            size = len(draft.content)
            if failed:
                if leased[index]:
                    self._queue.unreserve(len(draft.recipients), size)
                if bodies.is_large(size):
                    self._store.remove_large(draft.message.id)
                continue
            kept = done.result()[index]
            waiting = [recipient for recipient in kept if recipient.due_at is not None]
            if draft.new_daily and any(one.hold_reason is HoldReason.NEW_RECIPIENTS for one in kept):
                self._leaks.over_budget(draft.message)
            if leased[index]:
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

    def _refused_draft(self, submission: Submission, refused: Refused) -> Draft:
        """Return a message that policy refused, as one that has failed, for its owner to look at."""
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
        return Draft(message, recipients, submission.content, events)


def _who(snapshot: Snapshot, tenant_id: str, credential: str | None) -> tuple[Tenant, Credential | None]:
    """Return the submitter as the configuration has it now; it may have gone since the session began."""
    tenant = snapshot.tenants.get(tenant_id)
    found = tenant.credential(credential) if tenant is not None and credential is not None else None
    if tenant is None or (credential is not None and found is None):
        raise Refused(535, "5.7.8", "This credential is no longer valid")
    return tenant, found


def _expires(text: str | None, now: float, token: str) -> float | None:
    """Return when a message expires that says so itself: seconds from now or ISO 8601; the log tells of the rest."""
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS:
        return now + int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        log.warning("expires_ignored", id=token, value=text[:60], reason="neither seconds nor a time in ISO 8601")
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
