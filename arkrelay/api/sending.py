"""What every way of sending by REST has in common: who sends, the message handed over, and the limits told."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from aiohttp import web

from arkrelay.api.ask import Ask
from arkrelay.api.auth import require_sender
from arkrelay.api.model import UNSET, Answer, Meta, UnsetType
from arkrelay.api.parts import parts_of
from arkrelay.api.refusal import ApiError
from arkrelay.model.address import Address
from arkrelay.model.message import Accepted, Door, RecipientRequest, Submission
from arkrelay.policy.limits import hour_end

BODY_BYTES = 25_000_000  # base64 inflates a 14 MB message by a third (Ark contract §15)

T = TypeVar("T")


class SendResult(Answer):
    """One email, accepted: it is on disk."""

    id: Annotated[str, Meta(description="Of the first recipient: one record is kept for each.")]
    ids: Annotated[list[str], Meta(description="Of every recipient: to, cc, bcc, each address once.")]
    tenant_id: str
    status: Literal["pending", "sent"]
    to: list[str]
    message_id: str | None
    sandbox: Annotated[bool, Meta(description="It is from the sandbox.")] | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class Sender:
    """For whom a key sends; a tenant's key sends as its credential."""

    tenant_id: str
    credential: str | None


def body_limit(request: web.Request) -> int:
    """Return how many bytes a request with mail may have."""
    return max(BODY_BYTES, parts_of(request).live.snapshot.settings.smtp.max_message_bytes * 3 // 2)


def sender_of(ask: Ask[Any, Any], wanted: str | None) -> Sender:
    """Return who sends; raises ApiError 403 when the key may not, or not for the tenant that ``tenantId`` names.

    An organisation key that names no tenant sends for ``default_tenant``, or the first (Ark contract §20, 13).
    """
    caller, snapshot = ask.caller, ask.snapshot
    require_sender(caller, test=True)
    named = ask.own_tenant(wanted)
    tenant_id = named or snapshot.settings.default_tenant or next(iter(snapshot.tenants), "")
    tenant = snapshot.tenants.get(tenant_id)
    if tenant is None:
        message = f"There is no tenant {tenant_id}." if tenant_id else "There is no tenant yet."
        raise ApiError(422, "validation_error", message, field="tenantId")
    if tenant.status != "active":
        raise ApiError(403, "tenant_suspended", f"The tenant is {tenant.status}.", field="tenantId")
    return Sender(tenant_id, None if caller.tenant_id is None else caller.name)


async def written(ask: Ask[Any, Any], write: Callable[[], T], *, heavy: bool) -> T:
    """Return what ``write`` returns, called in a thread when it is ``heavy``.

    One at a time: the interpreter lock goes round, and with ten such threads the event loop has a tenth of a core.
    """
    if not heavy:
        return write()
    async with ask.parts.composing:
        return await asyncio.to_thread(write)


def submission(
    ask: Ask[Any, Any],
    sender: Sender,
    return_path: Address | None,
    recipients: tuple[RecipientRequest, ...],
    content: bytes,
    **more: Any,
) -> Submission:
    """Return the message as the relay takes it; what a test key sends goes nowhere (Ark contract §16)."""
    return Submission(
        Door.REST,
        sender.tenant_id,
        sender.credential,
        return_path,
        recipients,
        content,
        time.time(),
        client=ask.request.remote or "",
        protocol="HTTP",
        smtputf8=True,
        test=ask.caller.test,
        **more,
    )


async def submit(ask: Ask[Any, Any], message: Submission, to: list[str]) -> SendResult:
    """Accept one message and return the answer, which is kept with it when the request has an Idempotency-Key."""

    def answer(accepted: Accepted) -> SendResult:
        return SendResult(
            id=accepted.tokens[0],
            ids=list(accepted.tokens),
            tenant_id=message.tenant_id,
            status="pending",
            to=to,
            message_id=accepted.message_id_header or None,
            sandbox=True if accepted.sandbox else UNSET,
        )

    def made(outcomes: Any) -> SendResult:
        return answer(outcomes[0])

    ask.recipients = len(message.recipients)
    accepted = await ask.parts.submitter.submit(message, ask.receipt(made))
    ask.email_id = accepted.tokens[0]
    tell_limit(ask, message.tenant_id)
    return answer(accepted)


def tell_limit_again(ask: Ask[Any, Any], body: bytes) -> None:
    """Put it on the answer of a send that was made before, as it is now."""
    tenant_id = msgspec.json.decode(body)["data"]["tenantId"]
    if tenant_id in ask.snapshot.tenants:
        tell_limit(ask, tenant_id)


def tell_limit(ask: Ask[Any, Any], tenant_id: str) -> None:
    """Put on the answer how much of the hour's send limit is used (Ark contract §4); no limit, nothing remains."""
    now = time.time()
    used, _ = ask.parts.meter.used(tenant_id, now)
    ask.headers["X-SendLimit-Used"] = str(used)
    ask.headers["X-SendLimit-Reset"] = str(int(hour_end(now)))
    limit = ask.snapshot.tenants[tenant_id].limits.hourly
    if limit:
        ask.headers["X-SendLimit-Limit"] = str(limit)
        ask.headers["X-SendLimit-Remaining"] = str(max(0, limit - used))
