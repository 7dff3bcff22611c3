"""A submission becomes what will be kept: header clean-up, admission, each recipient's own links, trace, signature.

Nothing is written here. What a draft takes of its tenant's limits is counted while it is made, so that messages which
are made at the same time do not share one place, and given back by ``uncount`` when nothing comes of it.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import structlog

from arkrelay.config.snapshot import Snapshot
from arkrelay.mail.feedback import render_feedback
from arkrelay.mail.header import HeaderError
from arkrelay.mail.intake import Intake, IntakeOptions, prepare, render_received
from arkrelay.mail.verp import ReturnPaths
from arkrelay.model.address import Address
from arkrelay.model.errors import Refused
from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import HoldReason, Recipient, Status, Submission
from arkrelay.model.tenant import Credential, Tenant
from arkrelay.policy import admit as policy
from arkrelay.policy.engage import stream_of
from arkrelay.policy.limits import warns
from arkrelay.policy.sandbox import is_sandboxed
from arkrelay.relay.copies import Copies, NotPersonal
from arkrelay.relay.domains import DomainChecker
from arkrelay.relay.drafting import Facts, Numbered, draft_of, refused_draft
from arkrelay.relay.keep import Draft
from arkrelay.relay.meter import Meter
from arkrelay.relay.personal import Personal
from arkrelay.relay.sandbox import SandboxCount
from arkrelay.relay.sign import Signing
from arkrelay.store.database import Store

log = structlog.get_logger()

INLINE_BYTES = 256_000  # larger messages are parsed in a thread: CPU work over ~1 ms leaves the event loop


class Drafts:
    """Makes drafts of submissions; holds none."""

    def __init__(
        self,
        store: Store,
        signing: Signing,
        domains: DomainChecker,
        meter: Meter,
        return_paths: ReturnPaths,
        personal: Personal,
    ) -> None:
        self._store = store
        self._signing = signing
        self._domains = domains
        self._meter = meter
        self._return_paths = return_paths
        self._personal = personal
        self._sandbox = SandboxCount(store)

    def check_sender(
        self, snapshot: Snapshot, tenant_id: str, credential: str | None, return_path: Address | None
    ) -> None:
        """Raise Refused when mail with this return path would be."""
        tenant, found = who(snapshot, tenant_id, credential)
        refused = policy.check_sender(tenant, found, return_path, self._domains.states, snapshot.settings.sandbox)
        if refused is not None:
            raise refused

    async def make(self, submission: Submission, snapshot: Snapshot) -> tuple[Draft, ...]:
        """Return the message as it will be kept, admitted, counted and signed: one, or one for each recipient.

        Raises Refused, and then nothing is counted.
        """
        tenant, credential = who(snapshot, submission.tenant_id, submission.credential)
        intake = await self._take_in(submission, tenant, snapshot)
        simulator = snapshot.settings.sandbox.simulator
        counting = 0 if submission.test else sum(one.address.domain != simulator for one in submission.recipients)
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
            counting=counting,
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
        counted = 0 if held else counting
        self._meter.add(tenant.id, counted, submission.received_at)
        stream = stream_of(
            tenant,
            intake.tag if submission.tag is None else submission.tag,
            intake.unsubscribe if submission.unsubscribe is None else submission.unsubscribe,
        )
        facts = Facts(submission, intake, snapshot, tenant, held, bulk, sandboxed, stream)
        try:
            events = self._limit_events(tenant, submission.received_at, used, counting, held)
            plan = self._personal.plan(submission, intake, tenant, snapshot, stream=stream)
            numbered = self._numbered(submission)
            if intake.unsubscribe_ignored:
                reason = "X-Ark-Unsubscribe is empty, too long or has control characters"
                log.warning("unsubscribe_ignored", id=numbered[0][1], reason=reason)
            if plan is not None:
                copies = await self._personal.copies(plan, intake.content, [one[:2] for one in numbered])
                if copies is not None:
                    with suppress(NotPersonal):
                        return await self._copies(facts, copies, numbered, events)
            content = await self._signed(facts, numbered, intake.content)
            return (draft_of(facts, self._store.new_message_id(), numbered, content, events),)
        except BaseException:
            self._meter.add(tenant.id, -counted, submission.received_at)
            raise

    def refused(self, submission: Submission, refused: Refused) -> Draft:
        """Return a message that policy refused, as one that has failed, for its owner to look at."""
        return refused_draft(submission, refused, self._store.new_message_id(), self._numbered(submission))

    def uncount(self, drafts: Sequence[Draft]) -> None:
        """Give back what messages took of their tenant's limits: they did not come about."""
        for draft in drafts:
            self._meter.add(draft.message.tenant_id, -draft.counted, draft.message.accepted_at)
            for event in draft.events:
                self._meter.untold(event)

    def kept(self, draft: Draft, recipients: Sequence[Recipient]) -> None:
        """Give back what of a message was held by the write that kept it: ``recipients`` are as they are there."""
        held = sum(one.counts for one in recipients if one.status is Status.HELD)
        if held and not draft.held:
            self._meter.add(draft.message.tenant_id, -held, draft.message.accepted_at)

    def _numbered(self, submission: Submission) -> list[Numbered]:
        """Return the recipients with numbers that follow one another (their links go by that), and public ids."""
        at = submission.received_at
        return [
            (self._store.new_recipient_id(), self._store.new_token(at), request) for request in submission.recipients
        ]

    async def _copies(
        self, facts: Facts, copies: Copies, numbered: Sequence[Numbered], events: tuple[Event, ...]
    ) -> tuple[Draft, ...]:
        """Return one message for each recipient; what is said once of all of them is said with the first."""
        drafts: list[Draft] = []
        try:
            for start in range(0, len(numbered), copies.at_once):
                some = numbered[start : start + copies.at_once]
                written = await copies.write(start, start + len(some))
                signed = await asyncio.gather(
                    *(self._signed(facts, [one], of) for one, of in zip(some, written, strict=True))
                )
                drafts += [
                    draft_of(facts, self._store.new_message_id(), [one], content)
                    for one, content in zip(some, signed, strict=True)
                ]
                if len(some) < len(numbered):  # not all are in memory at a time
                    drafts[start:] = await self._saved(drafts[start:])
        except BaseException:
            for draft in drafts:
                self._store.remove_large(draft.message.id)
            raise
        return (replace(drafts[0], events=events, links=copies.links), *drafts[1:])

    async def _saved(self, drafts: Sequence[Draft]) -> list[Draft]:
        """Return drafts with their content on the disk and no more in memory; when it raises, none is on the disk."""
        saving = [self._store.save_large(draft.message.id, draft.content or b"") for draft in drafts]
        done = await asyncio.gather(*saving, return_exceptions=True)
        error = next((one for one in done if one is not None), None)
        if error is not None:
            for draft in drafts:
                self._store.remove_large(draft.message.id)
            raise error
        return [replace(draft, content=None) for draft in drafts]

    async def _signed(self, facts: Facts, numbered: Sequence[Numbered], content: bytes) -> bytes:
        """Return the message with its trace line, its signatures, and what they cover beside it."""
        submission, intake, snapshot, tenant, *_ = facts
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

    async def _take_in(self, submission: Submission, tenant: Tenant, snapshot: Snapshot) -> Intake:
        smtp = snapshot.settings.smtp
        options = IntakeOptions(
            submission.received_at,
            snapshot.settings.hostname,
            lambda: self._store.new_token(submission.received_at),
            tenant.by_name.keys(),
            smtp.tag_headers,
            smtp.metadata_headers,
        )
        try:
            if len(submission.content) <= INLINE_BYTES:
                return prepare(submission.content, options)
            return await asyncio.to_thread(prepare, submission.content, options)
        except HeaderError as error:
            raise Refused(550, "5.6.0", str(error), field="rawMessage") from None

    def _limit_events(
        self, tenant: Tenant, at: float, used: tuple[int, int], counting: int, held: policy.Hold | None
    ) -> tuple[Event, ...]:
        """Return the event that tells, once an hour, that the tenant nears its hourly limit or has reached it."""
        limit = tenant.limits.hourly
        kind = None
        if held is not None and held.hold_reason is HoldReason.SEND_LIMIT:
            kind = EventKind.LIMIT_EXCEEDED
        elif held is None and warns(used[0], limit, counting):
            kind = EventKind.LIMIT_APPROACHING
        if kind is None:
            return ()
        event = Event(kind, at, tenant.id, data={"volume": used[0] + counting, "limit": limit})
        return (event,) if self._meter.tells(event) else ()


def who(snapshot: Snapshot, tenant_id: str, credential: str | None) -> tuple[Tenant, Credential | None]:
    """Return the submitter as the configuration has it now; it may have gone since the session began."""
    tenant = snapshot.tenants.get(tenant_id)
    found = tenant.credential(credential) if tenant is not None and credential is not None else None
    if tenant is None or (credential is not None and found is None):
        raise Refused(535, "5.7.8", "This credential is no longer valid")
    return tenant, found
