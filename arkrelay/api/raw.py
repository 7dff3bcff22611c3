"""Raw submission: a finished message, base64 in JSON (Ark contract §8.1, RawBody)."""

import base64
import binascii
from typing import Annotated

from arkrelay.api.ask import Ask
from arkrelay.api.letter import INLINE_CHARS, too_large
from arkrelay.api.model import Body, Line, Meta, Nothing, Text
from arkrelay.api.model import field as key
from arkrelay.api.refusal import ApiError
from arkrelay.api.sending import SendResult, sender_of, submission, submit, written
from arkrelay.mail.author import parse_author, parse_named_mailbox
from arkrelay.mail.header import HeaderError, scan, split
from arkrelay.model.address import Address, AddressError, parse_mailbox
from arkrelay.model.message import RecipientRequest

_WRAPPED = str.maketrans("", "", "\r\n")  # base64 in lines of 76, as most tools write it


class RawBody(Body):
    """A finished message and its envelope."""

    sender: Annotated[Line, Meta(description="Authorises the message, whose From field is of the same domain.")] = (
        key(name="from")
    )
    to: Annotated[list[Line], Meta(min_length=1)]
    raw_message: Annotated[Text, Meta(description="RFC 5322, in base64.")]
    bounce: Annotated[bool | None, Meta(description="It is a bounce: its return path is null.")] = None
    tenant_id: Annotated[Line | None, Meta(description="Whose message it is, for an organisation key.")] = None


async def send_raw(ask: Ask[Nothing, RawBody]) -> SendResult:
    """Send a finished message: it is on disk when this answers."""
    body, smtp = ask.body, ask.snapshot.settings.smtp
    who = sender_of(ask, body.tenant_id)
    author = _author(body.sender)
    if len(body.to) > smtp.max_recipients:
        raise ApiError(400, "validation_error", f"to has more than {smtp.max_recipients} addresses.", field="to")
    addresses = dict.fromkeys(_address(one, f"to[{number}]") for number, one in enumerate(body.to))
    raw, most = body.raw_message, smtp.max_message_bytes
    content = await written(ask, lambda: _content(raw, most, author), heavy=len(raw) > INLINE_CHARS)
    message = submission(ask, who, None if body.bounce else author, tuple(map(RecipientRequest, addresses)), content)
    return await submit(ask, message, body.to)


def canonical(message: bytes) -> bytes:
    """Return the message with CRLF line ends; a bare CR and NUL are refused (RFC 5321 §2.3.8, RFC 5322 §2.2)."""
    joined = message.replace(b"\r\n", b"\n")
    if b"\r" in joined or b"\0" in joined:
        raise HeaderError("the message holds a bare CR or a NUL")
    joined = joined.replace(b"\n", b"\r\n")
    return joined if joined.endswith(b"\r\n") else joined + b"\r\n"


def _author(given: str) -> Address:
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


def _content(raw: str, most: int, author: Address) -> bytes:
    """Return the message, whose From field must be of the domain that was authorised."""
    try:
        message = base64.b64decode(raw.translate(_WRAPPED) if "\n" in raw else raw, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(400, "validation_error", "rawMessage is not base64.", field="rawMessage") from None
    if len(message) > most:
        raise too_large(f"The message is longer than {most} bytes.", "rawMessage")
    try:
        content = canonical(message)
        found = parse_author(scan(split(content)[0]))
    except HeaderError as error:
        raise ApiError(422, "validation_error", f"{error}.", field="rawMessage") from None
    if found.domain != author.domain:
        text = f"The From field is of {found.domain}, and from is of {author.domain}: they must share the domain."
        raise ApiError(422, "validation_error", text, field="from")
    return content
