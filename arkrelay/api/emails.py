"""Emails: the list, one with its expansions, its deliveries, why it waits, and retry (Ark contract §8.1)."""

import sqlite3
import time
from typing import Annotated, Any, Literal

from arkrelay.api.ask import Ask
from arkrelay.api.auth import require_releaser
from arkrelay.api.model import UNSET, Answer, Meta, Nothing, Page, Paged, Query, UnsetType, field
from arkrelay.api.preview import Attachment, Base64, content_of
from arkrelay.api.query import Moment, Statuses, address, moment, statuses
from arkrelay.api.queue import Sentence, told
from arkrelay.api.refusal import ApiError
from arkrelay.api.shapes import Classification, EmailSummary, Iso, iso, summary
from arkrelay.model.attempt import REST_CLASS, TlsInfo
from arkrelay.model.errors import NotFound
from arkrelay.model.event import Event, EventKind
from arkrelay.model.message import QUEUED, HoldReason, Recipient, Status
from arkrelay.model.peertls import TlsPolicy
from arkrelay.model.transcript import Who
from arkrelay.relay.operate import Verb
from arkrelay.relay.why import about, next_attempt_at, with_reports
from arkrelay.store import bodies, engagement, history
from arkrelay.store import queue as rows
from arkrelay.store.find import Filters

OF_CONTENT = frozenset({"content", "headers", "attachments", "raw"})
EXPANSIONS = OF_CONTENT | {"full", "deliveries", "activity"}
_ITEM = "|".join(sorted(EXPANSIONS))


class EmailQuery(Paged):
    """Which emails; every filter is exact, and all that are given hold."""

    after: Moment | None = None
    before: Moment | None = None
    from_: str | None = field(name="from", default=None)
    to: str | None = None
    status: Statuses | None = None
    tag: str | None = None
    tenant_id: str | None = None


class Expansion(Query):
    """What an email is shown with."""

    expand: (
        Annotated[
            str,
            Meta(
                description="One item, or several with commas; full is all of them.",
                extra_json_schema={"pattern": f"^({_ITEM})(,({_ITEM}))*$"},
            ),
        ]
        | None
    ) = None


class Encryption(Answer):
    """How an attempt was encrypted, whether the certificate proved the host, and on whose word that was demanded."""

    version: str
    cipher: str
    verified: bool
    policy: TlsPolicy | None


class Spoken(Answer):
    """A line of an SMTP conversation, and how many milliseconds after its first line it was said."""

    ms: int
    who: Who
    line: str


class Delivery(Answer):
    """One attempt, or a decision about the recipient such as a hold; the two classifications are of failures.

    The transcript is null where none was kept, and after its retention.
    """

    id: str
    status: Status
    timestamp: float
    timestamp_iso: Iso
    code: int | None
    details: str
    output: str
    sent_with_ssl: bool
    remote_host: str | None
    source_address: str | None
    classification: Classification | None
    classification_code: int | None
    smtp_enhanced_code: str | None
    duration_ms: int
    tls: Encryption | None
    transcript: list[Spoken] | None


class Seen(Answer):
    """One opening of an email; ``visitor`` tells people from the proxies of mail services and from scanners."""

    visitor: Literal["person", "proxy", "scanner"]
    ip_address: str | None
    user_agent: str | None
    timestamp: float | None
    timestamp_iso: Iso | None


class Clicked(Seen):
    """One click on a link of an email."""

    url: str | None


class Activity(Answer):
    """What the recipient was seen to do: the first of it, and how often in all."""

    open_count: int
    click_count: int
    opens: list[Seen]
    clicks: list[Clicked]


class EmailDetail(EmailSummary):
    """One email; the keys of an expansion stand in it when it was asked for, empty after content retention."""

    scope: Literal["outgoing"]
    message_id: str | None
    spam: bool | None
    spam_score: float | None
    metadata: dict[str, str] | None
    reason: str
    due_at: float | None
    attempts: int
    html_body: str | UnsetType | None = UNSET
    plain_body: str | UnsetType | None = UNSET
    headers: dict[str, str] | UnsetType = UNSET
    deliveries: list[Delivery] | UnsetType = UNSET
    activity: Activity | UnsetType = UNSET
    attachments: list[Attachment] | UnsetType = UNSET
    raw_message: Base64 | UnsetType = UNSET


class RetryState(Answer):
    """What comes next for an email that is queued; the next time is null when it is due now or in hand."""

    attempt: int
    max_attempts: int
    attempts_remaining: int
    manual: bool
    processing: bool
    next_retry_at: float | None
    next_retry_at_iso: Iso | None


class DeliveryHistory(Answer):
    """The attempts of one email; it can be retried while its content is kept."""

    id: str
    tenant_id: str
    status: Status
    can_retry_manually: bool
    deliveries: list[Delivery]
    retry_state: RetryState | None


class RetryResult(Answer):
    """That a retry was begun."""

    id: str
    tenant_id: str
    message: str


class EmailWhy(Answer):
    """What an email waits for, in a sentence, and when something happens next: null for never, or now."""

    id: str
    tenant_id: str
    status: Status
    hold_reason: HoldReason | None
    sentences: list[Sentence]
    next_retry_at: float | None
    next_retry_at_iso: Iso | None


async def list_all(ask: Ask[EmailQuery, Nothing]) -> Page[EmailSummary]:
    """One page of emails, newest first."""
    query = ask.query
    filters = Filters(
        tenant_id=ask.own_tenant(query.tenant_id),
        statuses=statuses(query.status),
        sender=address(query.from_),
        address=address(query.to),
        tag=query.tag,
        after=moment(query.after, "after"),
        before=moment(query.before, "before"),
    )
    found = await ask.parts.store.read(lambda db: history.list_recipients(db, filters, query.page, query.per_page))
    emails = [EmailSummary(**summary(one)) for one in found.recipients]
    return Page(emails, query.page, query.per_page, found.total)


async def retrieve(ask: Ask[Expansion, Nothing]) -> EmailDetail:
    """One email, with what ``expand`` asks for."""
    wanted = {item.strip() for item in (ask.query.expand or "").split(",") if item.strip()}
    if not wanted <= EXPANSIONS:
        known = ", ".join(sorted(EXPANSIONS))
        raise ApiError(400, "validation_error", f"expand knows only: {known}.", field="expand")
    recipient = await find_email(ask)
    if "full" in wanted:
        wanted = set(EXPANSIONS)
    expanded: dict[str, Any] = {}
    if "deliveries" in wanted:
        expanded["deliveries"] = await _deliveries(ask, recipient)
    if "activity" in wanted:
        expanded["activity"] = await ask.parts.store.read(lambda db: _activity(db, recipient))
    if wanted & OF_CONTENT:
        ask.heavy = True
        async with ask.parts.composing:  # one at a time: many threads would leave the event loop little of the core
            content = await ask.parts.store.read(lambda db: _content(db, recipient))
            expanded |= await content_of(content, wanted)
    return EmailDetail(
        **summary(recipient),
        scope="outgoing",
        spam=None,  # nothing of ours looks for it
        spam_score=None,
        message_id=recipient.message.message_id or None,
        metadata=dict(recipient.message.metadata) or None,
        reason=recipient.reason,
        due_at=recipient.due_at,
        attempts=recipient.attempts,
        **expanded,
    )


async def retrieve_deliveries(ask: Ask[Nothing, Nothing]) -> DeliveryHistory:
    """The attempts of one email, oldest first, and what comes next while it is queued."""
    recipient = await find_email(ask)
    kept, busy = await ask.parts.store.read(
        lambda db: (bodies.has_content(db, recipient.message.id), rows.in_hand(db, recipient.id))
    )
    state = None
    if recipient.status in QUEUED:
        most = ask.snapshot.settings.delivery.max_attempts
        next_at = None if busy else next_attempt_at(recipient, ask.parts.queue, time.time())
        state = RetryState(
            attempt=recipient.attempts,
            max_attempts=most,
            attempts_remaining=max(0, most - recipient.attempts),
            manual=False,
            processing=busy,
            next_retry_at=next_at,
            next_retry_at_iso=iso(next_at),
        )
    return DeliveryHistory(
        id=recipient.token,
        tenant_id=recipient.message.tenant_id,
        status=recipient.status,
        can_retry_manually=kept,
        deliveries=await _deliveries(ask, recipient),
        retry_state=state,
    )


async def retry(ask: Ask[Nothing, Nothing]) -> RetryResult:
    """Put one email back into the queue, past holds; 409 when it is sent, or its content is no longer kept."""
    recipient = await find_email(ask)
    require_releaser(ask.caller, test=recipient.message.test)
    await ask.parts.operator.one(Verb.RETRY, recipient.token, ask.caller.tenant_id)
    return RetryResult(id=recipient.token, tenant_id=recipient.message.tenant_id, message="Put back into the queue.")


async def why(ask: Ask[Nothing, Nothing]) -> EmailWhy:
    """Say in a sentence what became of one email, or what it waits for."""
    recipient = await find_email(ask)
    busy = await ask.parts.store.read(lambda db: rows.in_hand(db, recipient.id))
    now = time.time()
    next_at = None if busy else next_attempt_at(recipient, ask.parts.queue, now)
    return EmailWhy(
        id=recipient.token,
        tenant_id=recipient.message.tenant_id,
        status=recipient.status,
        hold_reason=recipient.hold_reason,
        sentences=[told(await with_reports(about(recipient, ask.parts.queue, now), recipient, ask.parts.store))],
        next_retry_at=next_at,
        next_retry_at_iso=iso(next_at),
    )


def _encryption(tls: TlsInfo, policy: TlsPolicy | None) -> Encryption:
    return Encryption(version=tls.version, cipher=tls.cipher, verified=tls.verified, policy=policy)


def delivery(one: history.Delivery) -> Delivery:
    """Return an attempt as REST shows it."""
    name, code = (None, None) if one.bounce_class is None else REST_CLASS[one.bounce_class]
    return Delivery(
        id=str(one.id),
        status=one.status,
        timestamp=one.at,
        timestamp_iso=iso(one.at),
        code=one.code,
        details=one.details,
        output=one.output,
        sent_with_ssl=one.tls is not None,
        remote_host=one.host,
        source_address=one.source,
        classification=name,  # type: ignore[arg-type]  # REST_CLASS has these words only, a test compares them
        classification_code=code,
        smtp_enhanced_code=one.enhanced,
        duration_ms=round(one.duration_s * 1000),
        tls=None if one.tls is None else _encryption(one.tls, one.policy),
        transcript=None
        if one.transcript is None
        else [Spoken(ms=said.ms, who=said.who, line=said.line) for said in one.transcript],
    )


async def find_email(ask: Ask[Any, Nothing]) -> Recipient:
    """Return the email that the path names; another tenant's is unknown."""
    token = ask.path("emailId")
    recipient = await ask.parts.store.read(lambda db: rows.load_recipient(db, token))
    if ask.caller.tenant_id not in {None, recipient.message.tenant_id}:
        raise NotFound(f"there is no message {token}")
    ask.email_id = recipient.token
    return recipient


async def _deliveries(ask: Ask[Any, Nothing], recipient: Recipient) -> list[Delivery]:
    found = await ask.parts.store.read(lambda db: history.list_attempts(db, recipient.id))
    return [delivery(one) for one in found]


def _activity(db: sqlite3.Connection, recipient: Recipient) -> Activity:
    opens, clicks = engagement.counts(db, recipient.id)
    events = [
        one.event
        for one in history.list_events(
            db,
            limit=2 * engagement.EVENTS_KEPT,
            message_id=recipient.message.id,
            recipient_id=recipient.id,
            kinds=(EventKind.LOADED, EventKind.CLICKED),
        )
    ]
    return Activity(
        open_count=opens,
        click_count=clicks,
        opens=[Seen(**_seen(event)) for event in events if event.kind is EventKind.LOADED],
        clicks=[
            Clicked(url=event.data.get("url"), **_seen(event)) for event in events if event.kind is EventKind.CLICKED
        ],
    )


def _seen(event: Event) -> dict[str, Any]:
    return {
        "visitor": event.data.get("visitor", "person"),
        "ip_address": event.data.get("ip_address"),
        "user_agent": event.data.get("user_agent"),
        "timestamp": event.at,
        "timestamp_iso": iso(event.at),
    }


def _content(db: sqlite3.Connection, recipient: Recipient) -> bytes | None:
    """Return the content, or None when its retention has ended."""
    try:
        return bodies.load(db, recipient.message.id)
    except NotFound:
        return None
