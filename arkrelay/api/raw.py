"""Raw submission: a finished message, base64 in JSON (Ark contract §8.1, RawBody)."""

import base64
import binascii
import time
from typing import Any

from aiohttp import web

from arkrelay.api.auth import caller_of, own_tenant
from arkrelay.api.body import body_of, field_of, flag, line, lines, text
from arkrelay.api.errors import ApiError
from arkrelay.api.parts import parts_of
from arkrelay.api.shapes import single
from arkrelay.mail.author import parse_author, parse_named_mailbox
from arkrelay.mail.header import HeaderError, scan, split
from arkrelay.model.address import Address, AddressError, parse_mailbox
from arkrelay.model.message import Door, RecipientRequest, Submission

BODY_BYTES = 25_000_000  # base64 inflates a 14 MB message by a third (Ark contract §15)
_WRAPPED = str.maketrans("", "", "\r\n")  # base64 in lines of 76, as most tools write it


async def send_raw(request: web.Request) -> web.Response:
    """Submit a finished message, base64 in ``rawMessage``; on disk when this answers 200."""
    parts = parts_of(request)
    smtp = parts.live.snapshot.settings.smtp
    body = await body_of(request, max(BODY_BYTES, smtp.max_message_bytes * 3 // 2))
    tenant_id, credential = _submitter(request, field_of(body, "tenantId", line, "a tenant's id", None))
    sender = _sender(field_of(body, "from", line, "an address"))
    recipients = field_of(body, "to", lambda value: lines(value) and bool(value), "a list of addresses")
    if len(recipients) > smtp.max_recipients:
        raise ApiError(400, "validation_error", f"to has more than {smtp.max_recipients} addresses.", field="to")
    requests = tuple(RecipientRequest(_address(to, f"to[{i}]")) for i, to in enumerate(recipients))
    content = _content(body, smtp.max_message_bytes)
    bounce = field_of(body, "bounce", flag, "true or false", False)  # noqa: FBT003 -- the default of a flag
    _check_author(content, sender)
    accepted = await parts.submitter.submit(
        Submission(
            Door.REST,
            tenant_id,
            credential,
            None if bounce else sender,
            requests,
            content,
            time.time(),
            client=request.remote or "",
            protocol="HTTP",
            smtputf8=True,
        )
    )
    data = {
        "id": accepted.tokens[0],
        "ids": list(accepted.tokens),  # one for each address in ``to``; beyond the contract
        "tenantId": tenant_id,
        "status": "pending",
        "to": recipients,
        "messageId": accepted.message_id_header or None,
    }
    return single(request, data)


def canonical(message: bytes) -> bytes:
    """Return the message with CRLF line ends; a bare CR and NUL are refused (RFC 5321 §2.3.8, RFC 5322 §2.2)."""
    joined = message.replace(b"\r\n", b"\n")
    if b"\r" in joined or b"\0" in joined:
        raise HeaderError("the message holds a bare CR or a NUL")
    joined = joined.replace(b"\n", b"\r\n")
    return joined if joined.endswith(b"\r\n") else joined + b"\r\n"


def _submitter(request: web.Request, wanted: str | None) -> tuple[str, str | None]:
    """Return the tenant that sends, and the credential's name for a tenant's key (Ark contract §8.1, `tenantId`)."""
    caller = caller_of(request)
    if caller.test:
        raise ApiError(403, "permission_denied", "A test key may look, and not send what would really go out.")
    if caller.hold:
        raise ApiError(403, "credential_on_hold", "This key is on hold and may not send.")
    named = own_tenant(request, wanted)
    if caller.tenant_id is not None:
        return caller.tenant_id, caller.name
    snapshot = parts_of(request).live.snapshot
    tenant_id = named or snapshot.settings.default_tenant or next(iter(snapshot.tenants), "")
    tenant = snapshot.tenants.get(tenant_id)
    if tenant is None:
        raise ApiError(422, "validation_error", f"There is no tenant {tenant_id!r}.", field="tenantId")
    if tenant.status != "active":
        raise ApiError(403, "tenant_suspended", f"The tenant is {tenant.status}.", field="tenantId")
    return tenant_id, None


def _sender(given: str) -> Address:
    """Return the mailbox of ``from``, which may carry a name as in a header."""
    try:
        return parse_named_mailbox(given.encode(), "from")[1]
    except HeaderError as error:
        raise ApiError(400, "invalid_email_format", f"{error}.", field="from") from None


def _address(given: str, field: str) -> Address:
    try:
        return parse_mailbox(given, utf8=True)
    except AddressError as error:
        raise ApiError(400, "invalid_email_format", f"{field}: {error}.", field=field) from None


def _content(body: dict[str, Any], most: int) -> bytes:
    raw = field_of(body, "rawMessage", text, "a base64 message")
    try:
        message = base64.b64decode(raw.translate(_WRAPPED) if "\n" in raw else raw, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, "validation_error", "rawMessage is not base64.", field="rawMessage") from None
    if len(message) > most:
        raise ApiError(
            413, "payload_too_large", f"The message is longer than {most} bytes.", field="rawMessage", retry=False
        )
    try:
        return canonical(message)
    except HeaderError as error:
        raise ApiError(422, "validation_error", f"{error}.", field="rawMessage") from None


def _check_author(content: bytes, sender: Address) -> None:
    """Refuse a message whose From field is of another domain than ``from``, which is what was authorised."""
    try:
        author = parse_author(scan(split(content)[0]))
    except HeaderError as error:
        raise ApiError(422, "validation_error", f"{error}.", field="rawMessage") from None
    if author.domain != sender.domain:
        message = f"The From field is of {author.domain}, and from is of {sender.domain}: they must share the domain."
        raise ApiError(422, "validation_error", message, field="from")
