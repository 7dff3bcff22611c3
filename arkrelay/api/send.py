"""Emails from their parts, one or many at once (Ark contract §8.1, SendBody and BatchBody)."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final

from arkrelay.api.ask import Ask
from arkrelay.api.letter import Email, Priority, SendBody, Written, author_of, is_heavy, write
from arkrelay.api.model import UNSET, Answer, Body, Line, Meta, Nothing, UnsetType, convert, field
from arkrelay.api.refusal import ApiError
from arkrelay.api.sending import Sender, SendResult, sender_of, submission, submit, tell_limit, written
from arkrelay.model.address import Address
from arkrelay.model.errors import Refused, StoreError
from arkrelay.model.message import Submission
from arkrelay.relay.submit import Outcome

BATCH_RECIPIENTS: Final = 1000  # in all of a batch (Ark contract §8.1)
INLINE_EMAILS: Final = 20  # written without a pause
KEY_CHARS: Final = 320  # of an address that stands for itself in the answer; no mailbox is longer


class BatchEmail(Body):
    """One email of a batch: its limits are those of a single one, and it fails alone."""

    to: list[str] | str
    subject: str
    html: str | None = None
    text: str | None = None
    tag: str | None = None
    metadata: dict[str, Any] | None = None
    track_opens: bool | None = None
    track_clicks: bool | None = None
    unsubscribe: str | None = None
    sender: Annotated[str | None, Meta(description="Instead of the batch's.")] = field(name="from", default=None)


# the fields that it shares with a single one, and as what they come
_PARTS: Final = tuple(
    (name, written_as)
    for name, written_as in zip(BatchEmail.__struct_fields__, BatchEmail.__struct_encode_fields__, strict=True)
    if name in Email.__struct_fields__
)


class BatchBody(Body):
    """Emails from one sender, up to ``limits.batch_max`` of them."""

    emails: Annotated[list[BatchEmail], Meta(min_length=1)]
    sender: Annotated[Line | None, Meta(description="Of every email that names none.")] = field(
        name="from", default=None
    )
    tenant_id: Annotated[Line | None, Meta(description="Whose emails they are, for an organisation key.")] = None
    priority: Annotated[Priority | None, Meta(description="Of every email of the batch.")] = None


class BatchEntry(Answer):
    """What became of the email to one address: its id, or an empty one and why not."""

    id: str
    error: str | UnsetType = UNSET


class BatchResult(Answer):
    """How many emails were accepted, and by address what became of each; the last accepted one counts."""

    total: int
    accepted: int
    failed: int
    tenant_id: str
    messages: dict[str, BatchEntry]
    sandbox: bool | UnsetType = UNSET


async def send(ask: Ask[Nothing, SendBody]) -> SendResult:
    """Send an email: it is on disk when this answers."""
    body = ask.body
    sender = sender_of(ask, body.tenant_id)
    expires_at = None if body.expires_at is None else _expiry(body.expires_at)
    most = ask.snapshot.settings.smtp.max_message_bytes
    author = author_of(body.sender)
    heavy = is_heavy(body.html, body.text, body.attachments)
    email = await written(ask, lambda: write(body, author, most), heavy=heavy)
    message = submission(
        ask,
        sender,
        author.address,
        email.recipients,
        email.content,
        expires_at=expires_at,
        priority=body.priority,
        **_said(body, email),
    )
    return await submit(ask, message, [body.to] if isinstance(body.to, str) else body.to)


async def send_batch(ask: Ask[Nothing, BatchBody]) -> BatchResult:
    """Send many emails: those that can be accepted are on disk when this answers; 207 when some cannot."""
    body = ask.body
    sender = sender_of(ask, body.tenant_id)
    _check_size(ask)
    batch = await _written(ask, sender)
    if (refused := ask.parts.submitter.not_ready()) is not None:  # about the relay, so not about any email
        raise StoreError(refused.text) if refused.code == 451 else refused

    def answer(outcomes: Sequence[Outcome]) -> BatchResult:
        result = _result(sender.tenant_id, batch, outcomes)
        ask.status = 207 if result.failed else ask.status
        return result

    messages = [one.message for one in batch if one.message is not None]
    ask.recipients = sum(len(message.recipients) for message in messages)
    outcomes = await ask.parts.submitter.submit_all(messages, ask.receipt(answer)) if messages else []
    ask.email_id = next((one.tokens[0] for one in outcomes if not isinstance(one, Refused)), None)
    tell_limit(ask, sender.tenant_id)
    return answer(outcomes)


@dataclass(frozen=True, slots=True)
class _One:
    """An email of a batch: the message that it became, or why it did not."""

    to: list[str]  # as the client wrote them
    error: str = ""
    message: Submission | None = None
    addresses: Sequence[Address] = ()  # beside ``to``


def _check_size(ask: Ask[Nothing, BatchBody]) -> None:
    """Refuse what is wrong with a batch as a whole."""
    emails, most = ask.body.emails, ask.snapshot.settings.limits.batch_max
    if len(emails) > most:
        raise ApiError(400, "validation_error", f"emails must have at most {most} items.", field="emails")
    recipients = sum(1 if isinstance(one.to, str) else len(one.to) for one in emails)
    if recipients > BATCH_RECIPIENTS:
        message = f"A batch must have at most {BATCH_RECIPIENTS} recipients, and this one has {recipients}."
        raise ApiError(400, "validation_error", message, field="emails")
    if ask.body.sender is None and any(one.sender is None for one in emails):
        raise ApiError(400, "missing_required_field", "from is required.", field="from")


async def _written(ask: Ask[Nothing, BatchBody], sender: Sender) -> list[_One]:
    """Return each email as a message or with what is wrong with it."""
    body, most = ask.body, ask.snapshot.settings.smtp.max_message_bytes
    common = None if body.sender is None else author_of(body.sender)
    if common is not None and any(one.sender is None for one in body.emails):
        ask.parts.submitter.check_sender(sender.tenant_id, sender.credential, common.address)

    def one(email: BatchEmail) -> _One:
        to = [email.to] if isinstance(email.to, str) else email.to
        try:
            author = common if email.sender is None and common is not None else author_of(email.sender or "")
            whole = convert({written_as: getattr(email, name) for name, written_as in _PARTS}, Email)
            made = write(whole, author, most)
        except ApiError as error:
            return _One(to, error.message)
        more = _said(whole, made)
        message = submission(
            ask, sender, author.address, made.recipients, made.content, priority=body.priority, **more
        )
        return _One(to, "", message, made.to)

    batch = []
    for number, email in enumerate(body.emails):
        if number % INLINE_EMAILS == INLINE_EMAILS - 1:
            await asyncio.sleep(0)  # others have waited for a millisecond
        batch.append(await written(ask, partial(one, email), heavy=is_heavy(email.html, email.text)))
    return batch


def _said(email: Email, made: Written) -> dict[str, Any]:
    """Return what an email says of itself beside its content."""
    return {
        "tag": made.tag,
        "metadata": made.metadata,
        "track_opens": email.track_opens,
        "track_clicks": email.track_clicks,
        "unsubscribe": email.unsubscribe,
    }


def _result(tenant_id: str, batch: Sequence[_One], outcomes: Sequence[Outcome]) -> BatchResult:
    messages: dict[str, BatchEntry] = {}
    accepted = 0
    waiting = iter(outcomes)
    for one in batch:
        outcome = next(waiting) if one.message is not None else None
        if one.message is None or outcome is None or isinstance(outcome, Refused):
            error = outcome.text if isinstance(outcome, Refused) else one.error
            for written_as in one.to:
                messages.setdefault(written_as[:KEY_CHARS], BatchEntry(id="", error=error))
            continue
        accepted += 1
        requested = [request.address for request in one.message.recipients]
        tokens = dict(zip(requested, outcome.tokens, strict=True))
        for written_as, address in zip(one.to, one.addresses, strict=True):
            key = str(address) if written_as.endswith(">") else written_as
            messages[key] = BatchEntry(id=tokens[address])
    return BatchResult(
        total=len(batch),
        accepted=accepted,
        failed=len(batch) - accepted,
        tenant_id=tenant_id,
        messages=messages,
        sandbox=True if any(not isinstance(one, Refused) and one.sandbox for one in outcomes) else UNSET,
    )


def _expiry(given: str | float) -> float:
    """Return the time that ``expiresAt`` names; it must be to come."""
    at: float = math.nan
    if isinstance(given, str):
        try:
            parsed = datetime.fromisoformat(given)
            at = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            pass
    else:
        at = float(given)
    if not math.isfinite(at):
        message = "expiresAt must be Unix seconds or an ISO 8601 time."
        raise ApiError(400, "validation_error", message, field="expiresAt")
    if at <= time.time():
        raise ApiError(400, "validation_error", "expiresAt must be in the future.", field="expiresAt")
    return at
