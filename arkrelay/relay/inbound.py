"""What came back: a report becomes the end of one recipient, a suppression, or a note, in one transaction.

A report touches the recipient whose return path it carries and no other, whatever it says in its text: for mail to a
return path that is the one in the address, for a feedback report the first in it whose code is good. It is read once,
kept for people, and a copy of one that was taken before changes nothing. What more comes than is kept of a kind is
dropped, unless nobody understood it: then it is postmaster's. Nothing is ever answered (RFC 3834 §2).
"""

import asyncio
import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import structlog

from arkrelay.base.metrics import Metrics
from arkrelay.config.live import Live
from arkrelay.mail.mime import head_and_body
from arkrelay.mail.report import parse_report
from arkrelay.model.address import Address
from arkrelay.model.errors import NotFound, Refused
from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import Recipient, Status
from arkrelay.model.outcome import Outcome
from arkrelay.model.report import Report, ReportKind
from arkrelay.model.suppression import Cause
from arkrelay.policy import reports as policy
from arkrelay.policy.classify import Rules
from arkrelay.policy.notify import Action, action_for_report
from arkrelay.policy.suppress import COMPLAINT, stream_of
from arkrelay.relay.bursts import BurstGuard
from arkrelay.relay.mailboxes import Mailbox, Mailboxes, Purpose
from arkrelay.relay.notices import Notice, Notices
from arkrelay.relay.notices import insert as insert_notices
from arkrelay.relay.settle import log_outcome
from arkrelay.relay.unsubscribe import Unsubscriber
from arkrelay.store import queue as rows
from arkrelay.store import reports, suppressions
from arkrelay.store.database import Store
from arkrelay.store.history import insert_events, list_attempts, list_events
from arkrelay.store.outcomes import apply

log = structlog.get_logger()

PATIENCE_S = 5.0  # for a delivery to end before its bounce is taken
POLL_S = 0.05  # the longest that an outcome waits for the writer
DIGEST_BYTES = 65_536  # of a body, by which a copy is known


@dataclass(frozen=True, slots=True)
class Taken:
    """What a report did to its recipient; ``outcome`` only where it changed its state."""

    recipient: Recipient
    kind: ReportKind
    outcome: Outcome | None = None


class Unneeded(StrEnum):
    """Why a report was not kept."""

    GONE = "its recipient is gone"
    COPY = "it came before"
    TOO_MANY = "as many of its kind are kept as ever are"


class Inbound:
    """The verb for mail from the world."""

    def __init__(
        self,
        store: Store,
        live: Live,
        mailboxes: Mailboxes,
        rules: Rules,
        metrics: Metrics,
        bursts: BurstGuard,
        notices: Notices,
        unsubscriber: Unsubscriber,
        site_of: Callable[[str], str],
        on_due: Callable[[str, str, float], None],
        on_suppressed: Callable[[str, Iterable[str]], None] = lambda _tenant_id, _addresses: None,
    ) -> None:
        self.mailboxes = mailboxes
        self._store = store
        self._live = live
        self._rules = rules
        self._metrics = metrics
        self._bursts = bursts
        self._notices = notices
        self._unsubscriber = unsubscriber
        self._site_of = site_of
        self._on_due = on_due  # the queue, which has a notice to send
        self._on_suppressed = on_suppressed  # the queue, which may have mail for the address

    async def find(self, address: Address) -> Mailbox | None:
        """Return the mailbox of this address, or None: there is none, or we did not make it."""
        found = self.mailboxes.find(address, time.time())
        if found is not None and found.purpose is Purpose.UNSUBSCRIBE:
            return found if await self._unsubscriber.find(address.local) is not None else None
        return found

    async def take(self, mailboxes: Iterable[Mailbox], content: bytes) -> bool:
        """Do what a message to these mailboxes means; return False when a person must read it.

        On return it is on disk; raises ``StoreError`` when that is not possible, and Refused while a delivery has the
        recipient in hand. What was done before then is not done again when the message comes again.
        """
        report: Report | None = None
        for_person = False
        for mailbox in mailboxes:
            recipient_id = mailbox.recipient_id
            if mailbox.purpose is Purpose.UNSUBSCRIBE:
                await self._unsubscriber.by_mail(mailbox.address.partition("@")[0])
                continue
            if mailbox.purpose is not Purpose.POSTMASTER:
                # in a thread, whatever its size: 0.1 ms for most, 5 ms for a page of prose, 25 for bait
                if report is None:
                    report = await asyncio.to_thread(parse_report, content)
                if mailbox.purpose is Purpose.FEEDBACK:
                    recipient_id = self._reported(report)
            if report is None or recipient_id is None or await self._apply(recipient_id, report, mailbox, content):
                for_person = True
        return not for_person

    def _reported(self, report: Report) -> int | None:
        """Return whom a complaint is about: the first whose return path it carries. None: nobody, or it is none."""
        if report.kind is not ReportKind.COMPLAINT:
            return None
        now = time.time()
        found = (self.mailboxes.recipient_of(mark, now) for mark in report.marks)
        return next((one for one in found if one is not None), None)

    async def _apply(self, recipient_id: int, report: Report, mailbox: Mailbox, content: bytes) -> bool:
        """Do what the report means for its recipient; return whether a person must read it, for it is not kept."""
        if report.findings:  # what becomes of them, and what its sender is told, depends on the recipient's state
            await self._until_settled(recipient_id)
        now = time.time()
        site = await self._site(recipient_id)
        # servers write the same of each message that comes back, and a retry has the return path of its first attempt
        digest = _digest(report, content, report.date or await self._last_sent(recipient_id))
        notice = await self._notice(recipient_id, report, mailbox, digest, now)

        def job(db: sqlite3.Connection) -> Taken | Unneeded:
            told = _is_told(db, notice) if notice is not None else False
            taken = self._job(db, recipient_id, report, mailbox, digest, content, now)
            if isinstance(taken, Unneeded):
                return taken
            if taken.outcome is not None:
                outcome = taken.outcome
                if site and self._bursts.burst(site, outcome.recipient.message.tenant_id, now) is not None:
                    outcome = replace(outcome, suppress=None)
                apply(db, [outcome])
                taken = replace(taken, outcome=outcome)
            if notice is not None and not told:
                insert_notices(db, [notice], self._store.epoch)
            return taken

        taken = await self._store.write(job)
        if isinstance(taken, Unneeded):
            log.info(
                "report_not_needed",
                recipient_id=recipient_id,
                kind=str(report.kind),
                form=report.form,
                why=str(taken),
            )
            return report.kind is ReportKind.UNKNOWN and taken is not Unneeded.COPY
        self._taken(taken, report, notice, site, now)
        return False

    def _taken(self, taken: Taken, report: Report, notice: Notice | None, site: str, now: float) -> None:
        """Tell the others of a report that is kept."""
        if taken.kind is ReportKind.COMPLAINT or (taken.outcome is not None and taken.outcome.suppress is not None):
            self._on_suppressed(taken.recipient.message.tenant_id, [taken.recipient.address])
        self._metrics.reports.labels(taken.kind).inc()
        self._log(taken, report)
        if notice is not None:
            to = notice.recipient
            self._on_due(to.destination, to.message.tenant_id, to.message.accepted_at)
        if taken.outcome is not None and site:
            self._bursts.note(site, taken.outcome, now)

    async def _notice(
        self, recipient_id: int, report: Report, mailbox: Mailbox, digest: bytes, now: float
    ) -> Notice | None:
        """Return the notice by which a sender who asked hears of the report; it is written only if that counts."""

        def job(db: sqlite3.Connection) -> tuple[Recipient, bool, frozenset[str]] | None:
            try:
                recipient = rows.load_recipient(db, recipient_id)
            except NotFound:
                return None
            if reports.has(db, recipient_id, digest):
                return None
            return recipient, rows.in_hand(db, recipient_id), _actions(db, recipient)

        found = await self._store.read(job)
        if found is None:
            return None
        recipient, in_hand, told = found
        finding = report.about(recipient.address)
        kind = report.kind_for(finding)
        settings = self._live.snapshot.settings
        if policy.ends(recipient, kind, in_hand=in_hand):
            outcome = policy.bounced(recipient, report, finding, 0, mailbox.address, self._rules, settings, now)
            action = self._notices.wanted(outcome)
        elif finding is not None and recipient.message.tenant_id in self._live.snapshot.tenants:
            outcome = policy.told(recipient, finding, now)
            action = action_for_report(recipient, kind, finding)
            if action in told:
                return None
        else:
            return None
        if action is None:
            return None
        try:
            return await self._notices.make(action, outcome)
        except Exception:  # a bug of ours costs the notice and not what came back
            log.exception("notice_not_made", id=recipient.token)
            return None

    async def _until_settled(self, recipient_id: int) -> None:
        """Return when no delivery has the recipient in hand; raises Refused, temporary, when one keeps it for long.

        A peer on the same network reports within milliseconds, before it is on disk that it took the message.
        """
        ends_at = time.monotonic() + PATIENCE_S
        while await self._store.read(lambda db: rows.in_hand(db, recipient_id)):
            if time.monotonic() > ends_at:
                raise Refused(451, "4.3.0", "Its delivery is still under way, try again later")
            await asyncio.sleep(POLL_S)

    def _job(
        self,
        db: sqlite3.Connection,
        recipient_id: int,
        report: Report,
        mailbox: Mailbox,
        digest: bytes,
        content: bytes,
        now: float,
    ) -> Taken | Unneeded:
        """Keep the report and say what it means, or why it is not kept."""
        try:
            recipient = rows.load_recipient(db, recipient_id)
        except NotFound:
            return Unneeded.GONE
        if reports.has(db, recipient_id, digest):
            return Unneeded.COPY
        finding = report.about(recipient.address)
        kind = report.kind_for(finding)
        ends = policy.ends(recipient, kind, in_hand=rows.in_hand(db, recipient_id))
        if not ends and reports.number(db, recipient_id, kind) >= reports.MOST:
            return Unneeded.TOO_MANY
        report_id = reports.insert(db, recipient_id, report, kind, finding, digest, content, now)
        if ends:
            settings = self._live.snapshot.settings
            outcome = policy.bounced(
                recipient, report, finding, report_id, mailbox.address, self._rules, settings, now
            )
            return Taken(recipient, kind, outcome)
        events = [policy.noted(recipient, report, kind, finding, report_id, now)]
        if kind is ReportKind.COMPLAINT:
            events += self._complained(db, recipient, now)
        insert_events(db, events)
        return Taken(recipient, kind)

    def _complained(self, db: sqlite3.Connection, recipient: Recipient, now: float) -> Sequence[Event]:
        """Put the address on the list at once, whatever ``[suppression] on`` says of failures (Ark contract §9.3)."""
        message = recipient.message
        stream = stream_of(self._live.snapshot.tenants.get(message.tenant_id), message.tag)
        changed = suppressions.suppress(
            db,
            message.tenant_id,
            recipient.address,
            COMPLAINT,
            now,
            cause=Cause.COMPLAINT,
            stream=stream,
            recipient_id=recipient.id,
        )
        if not changed:
            return ()
        data = {"address": recipient.address, "reason": COMPLAINT, "stream": stream}
        return (Event(EventKind.SUPPRESSED, now, message.tenant_id, message.id, recipient.id, data),)

    async def _last_sent(self, recipient_id: int) -> str:
        """Return which attempt it was that sent the message, as text; empty: none did."""
        attempts = await self._store.read(lambda db: list_attempts(db, recipient_id))
        return str(next((one.id for one in reversed(attempts) if one.status is Status.SENT), ""))

    async def _site(self, recipient_id: int) -> str:
        """Return the site that took the message, where the guard applies to bounces; else an empty text."""
        settings = self._live.snapshot.settings.suppression
        if not settings.bounces or settings.on != "recipient":
            return ""
        attempts = await self._store.read(lambda db: list_attempts(db, recipient_id))
        hosts = [one.host for one in attempts if one.status is Status.SENT and one.host]
        return self._site_of(hosts[-1]) if hosts else ""

    @staticmethod
    def _log(taken: Taken, report: Report) -> None:
        recipient = taken.recipient
        log_at = log.warning if taken.kind is ReportKind.UNKNOWN else log.info
        log_at(
            "report_taken",
            id=recipient.token,
            tenant=recipient.message.tenant_id,
            recipient=recipient.address,
            kind=str(taken.kind),
            form=report.form,
            subject=report.subject,
        )
        if taken.outcome is not None:
            log_outcome(taken.outcome)


def _actions(db: sqlite3.Connection, recipient: Recipient) -> frozenset[str]:
    """Return what earlier reports said of a recipient that they left in its state: its sender heard of each."""
    kinds = [EventKind.REPORTED]
    found = list_events(db, limit=1000, message_id=recipient.message.id, recipient_id=recipient.id, kinds=kinds)
    return frozenset(str(one.event.data.get("action")) for one in found)


def _is_told(db: sqlite3.Connection, notice: Notice) -> bool:
    return notice.action is not Action.FAILED and notice.action in _actions(db, notice.outcome.recipient)


def _digest(report: Report, content: bytes, date: str) -> bytes:
    """Return by what a copy of the report is known: its trace fields may differ."""
    body = head_and_body(content)[1][:DIGEST_BYTES]
    named = f"{report.message_id}\0{report.sender}\0{report.subject}\0{date}\0"
    return hashlib.sha256(named.encode("utf-8", "replace") + body).digest()[:16]
