"""The message and the recipients that a submission becomes, as they will be inserted."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import structlog

from arkrelay.config.snapshot import Snapshot
from arkrelay.mail.intake import Intake
from arkrelay.model.address import Address
from arkrelay.model.errors import Refused
from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import SIMULATOR, Message, Recipient, RecipientRequest, Status, Submission
from arkrelay.model.tenant import Tenant
from arkrelay.policy.admit import Hold
from arkrelay.policy.notify import delay_at
from arkrelay.policy.outcomes import REFUSED
from arkrelay.policy.route import TEST_DESTINATION, destination_of
from arkrelay.relay.keep import Draft

log = structlog.get_logger()

MAX_DIGITS = 9  # of X-Ark-Expires in seconds: 30 years

Numbered = tuple[int, str, RecipientRequest]  # a recipient's number and public id


class Facts(NamedTuple):
    """What was found out of a submission before any of its messages is made."""

    submission: Submission
    intake: Intake
    snapshot: Snapshot
    tenant: Tenant
    held: Hold | None
    bulk: bool
    sandboxed: bool
    stream: str | None  # what it is mail of, whether or not it offers a way to leave it


def draft_of(
    facts: Facts, message_id: int, numbered: Sequence[Numbered], content: bytes, events: tuple[Event, ...] = ()
) -> Draft:
    """Return the message with this number, to these recipients."""
    submission, intake, snapshot, tenant, held, bulk, sandboxed, stream = facts
    at = submission.received_at
    message = Message(
        message_id,
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
        submission.expires_at if submission.expires_at is not None else _expires(intake.expires, at, numbered[0][1]),
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
            SIMULATOR
            if request.address.domain == snapshot.settings.sandbox.simulator
            else TEST_DESTINATION
            if submission.test
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
    counted = 0 if held else sum(one.counts for one in recipients)
    new_daily = tenant.limits.new_recipients_daily if message.counts else 0
    return Draft(message, recipients, content, events, held, counted, new_daily, sandbox=sandboxed)


def refused_draft(submission: Submission, refused: Refused, message_id: int, numbered: Sequence[Numbered]) -> Draft:
    """Return a message that policy refused, as one that has failed, for its owner to look at."""
    at = submission.received_at
    author = submission.return_path or Address("postmaster", "")
    message = Message(
        message_id,
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
    reason = f"{REFUSED}{refused}"
    recipients = tuple(
        Recipient(
            recipient_id,
            message,
            token,
            str(request.address),
            request.address.domain,
            request.address.domain,
            Status.HARDFAIL,
            reason=reason,
        )
        for recipient_id, token, request in numbered
    )
    data = {"status": "HardFail", "type": "SMTPApiError", "details": reason, "output": str(refused)}
    events = tuple(
        Event(EventKind.FAILED, at, message.tenant_id, message.id, recipient.id, data) for recipient in recipients
    )
    return Draft(message, recipients, submission.content, events)


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
