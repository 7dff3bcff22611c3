"""Notices to senders: made when a recipient is settled, and written in the same transaction.

So a crash can neither lose nor double one. A notice is mail of the same tenant in our own queue, with a null return
path; it does not count towards send limits, and its tag says what it is. A person who deletes mail from the queue
answers for it: of that no notice is sent.
"""

import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from arkrelay.config.live import Live
from arkrelay.config.snapshot import Snapshot
from arkrelay.mail.dkim import Signer
from arkrelay.mail.dsn import Report, render, subject_of
from arkrelay.model.address import address_key
from arkrelay.model.errors import NotFound, StoreError
from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import Door, Message, Recipient
from arkrelay.model.outcome import Outcome
from arkrelay.policy import notify
from arkrelay.policy.notify import Action
from arkrelay.policy.route import REQUIRETLS, destination_of
from arkrelay.relay.sign import Signing
from arkrelay.store import bodies
from arkrelay.store.accept import Insertion, insert_messages
from arkrelay.store.database import Store
from arkrelay.store.deadlines import end_delay, has_status
from arkrelay.store.suppressions import among, reason_for

log = structlog.get_logger()

TAG = "dsn"  # by which notices are told from other mail in lists


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice that is ready to be written, and the outcome that it is about."""

    action: Action
    outcome: Outcome
    insertion: Insertion

    @property
    def recipient(self) -> Recipient:
        """To whom it goes."""
        return self.insertion.recipients[0]


class Notices:
    """Decides and makes notices; ``insert`` writes them."""

    def __init__(self, store: Store, live: Live, signing: Signing) -> None:
        self._store = store
        self._live = live
        self._signing = signing

    def wanted(self, outcome: Outcome) -> Action | None:
        """Return which notice the outcome calls for; None for mail of a tenant that is gone."""
        snapshot = self._live.snapshot
        if outcome.recipient.message.tenant_id not in snapshot.tenants:
            return None
        return notify.action_for(outcome, snapshot.settings.dsn)

    async def make(self, action: Action, outcome: Outcome) -> Notice:
        """Return the notice, signed; one whose original cannot be read goes without it."""
        snapshot, now = self._live.snapshot, time.time()
        message = outcome.recipient.message
        token = self._store.new_token(now)
        report = self._report(action, outcome, token, now)
        try:
            original = await self._store.read(lambda db: bodies.load(db, message.id))
        except (NotFound, StoreError) as error:
            log.warning("notice_without_original", id=outcome.recipient.token, error=str(error))
            original = b""
        # RFC 8689 §5: what such a message brought on is as secret as itself, and of its body nothing comes back
        requiretls = outcome.recipient.destination.startswith(REQUIRETLS)
        whole = notify.whole_original(message, action, snapshot.settings.dsn) and not requiretls
        content = render(report, original, whole=whole)
        signers = signers_of(snapshot)
        content = await self._signing.sign(content, signers, now) + content
        domain = report.return_path.rpartition("@")[2]
        pool = snapshot.tenants[message.tenant_id].pool
        destination = destination_of(domain, snapshot.settings.route, pool=pool, requiretls=requiretls)
        return Notice(action, outcome, self._insertion(report, content, signers, message.tenant_id, destination))

    def _report(self, action: Action, outcome: Outcome, token: str, now: float) -> Report:
        settings = self._live.snapshot.settings
        recipient, attempt = outcome.recipient, outcome.attempt
        message = recipient.message
        retry_until = None
        if action is Action.DELAYED:
            end_at = message.accepted_at + settings.delivery.lifetime_s
            retry_until = end_at if message.expires_at is None else min(end_at, message.expires_at)
        return Report(
            action=action,
            hostname=settings.hostname,
            return_path=message.return_path or "",
            at=now,
            message_id=f"<{token}@{settings.hostname}>",
            boundary=f"=_{token}",
            original_message_id=message.message_id,
            original_subject=message.subject,
            arrived_at=message.accepted_at,
            address=recipient.address,
            token=recipient.token,
            status=notify.status_of(outcome),
            sentence=outcome.reason,
            advice=notify.advice(action, outcome.bounce_class),
            envid=message.envid,
            orcpt=recipient.orcpt,
            remote_host=attempt.host if attempt is not None else None,
            diagnostic=notify.diagnostic_of(outcome),
            attempted_at=attempt.started_at if attempt is not None else None,
            retry_until=retry_until,
        )

    def _insertion(
        self, report: Report, content: bytes, signers: Sequence[Signer], tenant_id: str, destination: str
    ) -> Insertion:
        message = Message(
            self._store.new_message_id(),
            tenant_id,
            Door.DSN,
            None,
            report.at,
            report.message_id,
            f"postmaster@{report.hostname}",
            signers[0].domain if signers else report.hostname,
            None,
            subject_of(report),
            TAG,
            size_bytes=len(content),
            eight_bit=not content.isascii(),
            smtputf8=not report.return_path.isascii(),
        )
        recipient = Recipient(
            self._store.new_recipient_id(),
            message,
            report.message_id[1:].partition("@")[0],
            report.return_path,
            report.return_path.rpartition("@")[2],
            destination,
            due_at=report.at,
            notify="NEVER",
        )
        event = Event(EventKind.ACCEPTED, report.at, tenant_id, message.id, recipient.id)
        return Insertion(message, (recipient,), content, (event,))


def signers_of(snapshot: Snapshot) -> Sequence[Signer]:
    """Return the keys of the domain that the hostname is, or is in: they sign what comes from its postmaster."""
    domain = snapshot.settings.hostname
    while "." in domain:
        owner = snapshot.owner_of(domain)
        if owner is not None and (signers := snapshot.signers(owner[0].id, domain)):
            return signers
        domain = domain.partition(".")[2]
    return ()


def insert(db: sqlite3.Connection, notices: Sequence[Notice], epoch: int) -> None:
    """Write the notices whose outcome this transaction brought about, once each; none to suppressed addresses."""
    ready = []
    for notice in notices:
        about = notice.outcome.recipient
        if not has_status(db, about.id, notice.outcome.status):
            continue  # a late outcome changed nothing
        if notice.action is Action.DELAYED and not end_delay(db, about.id):
            continue
        key = address_key(notice.recipient.address)
        if reason_for(among(db, about.message.tenant_id, [key]), key, None) is not None:
            log.info("notice_not_sent", id=about.token, reason="its address is on the suppression list")
            continue
        ready.append(notice.insertion)
    if ready:
        insert_messages(db, ready, epoch)
