"""What a client may say of one email, and the message that comes of it (Ark contract §8.1, SendBody)."""

import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec

from arkrelay.api.model import ONE_LINE, Body, Line, LoneLine, Meta, Text, field
from arkrelay.api.refusal import ApiError
from arkrelay.mail.attachment import Attachment
from arkrelay.mail.author import parse_named_mailbox
from arkrelay.mail.compose import Letter, compose
from arkrelay.mail.fields import LetterError, Mailbox
from arkrelay.mail.header import HeaderError, has_control
from arkrelay.mail.plaintext import text_of
from arkrelay.model.address import Address, AddressError, parse_mailbox
from arkrelay.model.message import RecipientRequest
from arkrelay.policy.engage import STREAM_CHARS

RECIPIENTS: Final = 50  # of each of to, cc and bcc; Ark contract §15, as are the next
CONTENT_CHARS: Final = 5_242_880
SUBJECT_CHARS: Final = 998
TAG_CHARS: Final = 1000
METADATA_KEYS: Final = 10
METADATA_KEY: Final = r"^[a-zA-Z][a-zA-Z0-9_]{0,39}\Z"
METADATA_CHARS: Final = 500
METADATA_BYTES: Final = 4096  # as JSON
NAME_CHARS: Final = 200  # of a name before an address: in encoded words it still is a From that we take
QUOTED_CHARS: Final = 100  # of a client's key that an error names

INLINE_CHARS: Final = 64_000  # what is longer is written in a thread: CPU work over ~1 ms leaves the event loop
INLINE_HTML: Final = 1000  # likewise of HTML whose text must be found first
TEXT_S: Final = 0.5  # for that

_KEY = re.compile(METADATA_KEY)

Addresses = Annotated[list[Line], Meta(max_length=RECIPIENTS)]
To = Annotated[list[Line], Meta(min_length=1, max_length=RECIPIENTS)] | LoneLine
Content = Annotated[str, Meta(max_length=CONTENT_CHARS)]
_Metadata = Annotated[
    dict[str, Any],  # checked by ``metadata_of``, which names the key
    Meta(
        max_length=METADATA_KEYS,
        description=f"Comes back in every webhook; at most {METADATA_BYTES} bytes as JSON. Recipients never see it.",
        extra_json_schema={
            "propertyNames": {"pattern": METADATA_KEY.replace(r"\Z", "$")},
            "additionalProperties": {"type": "string", "minLength": 1, "maxLength": METADATA_CHARS},
        },
    ),
]
_Headers = Annotated[
    dict[str, Any],  # checked by ``_headers``, likewise
    Meta(
        description="Header fields of your own, but none that other keys or the relay write.",
        extra_json_schema={"additionalProperties": {"type": "string"}},
    ),
]


# bulk goes behind what people wait for; without it the credential's own priority holds
Priority = Literal["transactional", "bulk"]


class File(Body):
    """An attachment."""

    content: Annotated[Text, Meta(description="Base64, at most 10 MB decoded.")]
    content_type: Line
    filename: Line


class Email(Body):
    """What every email says."""

    to: Annotated[To, Meta(description="`a@b` or `Name <a@b>`; one alone may stand without the list.")]
    subject: Annotated[str, Meta(min_length=1, max_length=SUBJECT_CHARS, pattern=ONE_LINE)]
    html: Content | None = None
    text: Annotated[Content | None, Meta(description="Found in `html` when it is absent.")] = None
    tag: Annotated[str, Meta(max_length=TAG_CHARS, pattern=ONE_LINE)] | None = None
    metadata: _Metadata | None = None
    track_opens: Annotated[bool | None, Meta(description="Instead of what the track domain says.")] = None
    track_clicks: Annotated[bool | None, Meta(description="Likewise.")] = None
    unsubscribe: (
        Annotated[
            str,
            Meta(
                max_length=STREAM_CHARS,
                pattern=ONE_LINE,
                description="What its recipients may leave by one click: the name of a stream of your mail. Where "
                "{{unsubscribe_url}} stands in text or HTML goes the address of the page on which they do.",
            ),
        ]
        | None
    ) = None


class SendBody(Email, kw_only=True):
    """One email."""

    sender: Annotated[Line, Meta(description="`a@b` or `Name <a@b>`, of a verified domain.")] = field(name="from")
    cc: Addresses | None = None
    bcc: Annotated[Addresses | None, Meta(description="They get the email, and nobody sees that they do.")] = None
    reply_to: Line | None = None
    headers: _Headers | None = None
    attachments: list[File] | None = None
    tenant_id: Annotated[Line | None, Meta(description="Whose email it is, for an organisation key.")] = None
    expires_at: Annotated[
        Line | float | None,
        Meta(description="When it is given up if it has not left: ISO 8601 or Unix seconds."),
    ] = None
    priority: Priority | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """An email as it is handed to the relay; ``to`` is beside the request's."""

    to: list[Address]
    recipients: tuple[RecipientRequest, ...]
    content: bytes
    tag: str | None
    metadata: dict[str, str] | None


def is_heavy(html: str | None, text: str | None, attachments: Sequence[File] | None = None) -> bool:
    """Whether it takes a thread to ``write`` an email of these."""
    if not text and html and len(html) > INLINE_HTML:
        return True
    attached = sum(len(file.content) for file in attachments or ())
    return len(html or "") + len(text or "") + attached > INLINE_CHARS


def write(email: Email, author: Mailbox, most: int) -> Written:
    """Return the message, of at most ``most`` bytes, and who gets it; raises ApiError that names the field.

    An address that stands in several of to, cc and bcc gets it once, as the first of them.
    """
    to = mailboxes(email.to, "to")
    cc: Sequence[Mailbox] = ()
    bcc: Sequence[Mailbox] = ()
    reply_to: Mailbox | None = None
    headers: Mapping[str, str] = {}
    attachments: Sequence[Attachment] = ()
    if isinstance(email, SendBody):
        cc, bcc = mailboxes(email.cc or [], "cc"), mailboxes(email.bcc or [], "bcc")
        reply_to = None if email.reply_to is None else mailbox(email.reply_to, "replyTo")
        headers = _headers(email.headers or {})
        attachments = [Attachment(file.content, file.content_type, file.filename) for file in email.attachments or ()]
    metadata = None if email.metadata is None else metadata_of(email.metadata)
    if not email.html and not email.text:
        raise ApiError(400, "missing_required_field", "html or text is required.", field="html")
    text = email.text or _text(email.html or "")
    letter = Letter(author, to, email.subject, text, email.html or None, cc, reply_to, headers, attachments)
    # Not the system's chance, which gives the interpreter lock away: 0.15 ms under load. ``compose`` checks it.
    token = f"{random.getrandbits(96):024x}"
    try:
        content = compose(letter, token)
    except LetterError as error:
        if error.too_large:
            raise too_large(f"{error}.", error.field) from None
        raise ApiError(400, "validation_error", f"{error}.", field=error.field) from None
    if len(content) > most:
        raise too_large(f"The email is longer than {most} bytes.")
    addresses = dict.fromkeys(one.address for one in (*to, *cc, *bcc))
    recipients = tuple(map(RecipientRequest, addresses))
    return Written([one.address for one in to], recipients, content, email.tag or None, metadata)


def too_large(message: str, where: str | None = None) -> ApiError:
    """Return the refusal of what is longer than the limits allow (Ark contract §15)."""
    return ApiError(413, "payload_too_large", message, field=where, retry=False)


def author_of(given: str) -> Mailbox:
    """Return the author that ``from`` names, by the grammar that every From field must obey."""
    try:
        name, address = parse_named_mailbox(given.encode(), "from", words=False)
    except HeaderError as error:
        raise ApiError(400, "invalid_email_format", f"{error}.", field="from") from None
    if "=?" in name:  # readers that decode twice would show another author
        message = "from: write the name as it reads, not as an encoded word."
        raise ApiError(400, "invalid_email_format", message, field="from")
    return Mailbox(_name(name, "from"), address)


def mailbox(given: str, where: str) -> Mailbox:
    """Return the mailbox that ``given`` is, with a name or without."""
    try:
        if not given.endswith(">"):
            return Mailbox("", parse_mailbox(given, utf8=True))
        name, address = parse_named_mailbox(given.encode(), where, words=False)
    except AddressError as error:
        raise ApiError(400, "invalid_email_format", f"{where}: {error}.", field=where) from None
    except HeaderError as error:
        raise ApiError(400, "invalid_email_format", f"{error}.", field=where) from None
    return Mailbox(_name(name, where), address)


def mailboxes(given: str | Sequence[str], where: str) -> list[Mailbox]:
    """Return the mailboxes of a list; one alone need not stand in a list."""
    if isinstance(given, str):
        return [mailbox(given, where)]
    return [mailbox(one, f"{where}[{number}]") for number, one in enumerate(given)]


def metadata_of(given: Mapping[str, Any]) -> dict[str, str]:
    """Return metadata that the contract allows (§8.1); raises ApiError naming the key."""
    for key, value in given.items():
        where = f"metadata.{key[:QUOTED_CHARS]}"
        wanted = ""
        if not _KEY.match(key):
            wanted = "must have a key of 1 to 40 letters, digits and underscores that begins with a letter"
        elif not isinstance(value, str):
            wanted = "must be a string"
        elif not 0 < len(value) <= METADATA_CHARS:
            wanted = f"must have 1 to {METADATA_CHARS} characters"
        elif has_control(value):
            wanted = "must be one line without control characters"
        if wanted:
            raise ApiError(400, "validation_error", f"{where} {wanted}.", field=where)
    if len(given) > METADATA_KEYS or len(msgspec.json.encode(given)) > METADATA_BYTES:
        message = f"metadata must have at most {METADATA_KEYS} keys and {METADATA_BYTES} bytes as JSON."
        raise ApiError(400, "validation_error", message, field="metadata")
    return dict(given)


def _headers(given: Mapping[str, Any]) -> dict[str, str]:
    """Return the client's own header fields; ``compose`` knows which it may set."""
    for name, value in given.items():
        if not isinstance(value, str):
            where = f"headers.{name[:QUOTED_CHARS]}"
            raise ApiError(400, "validation_error", f"{where} must be a string.", field=where)
    return dict(given)


def _name(name: str, where: str) -> str:
    name = name.replace("\t", " ")
    if len(name) > NAME_CHARS:
        message = f"{where}: the name must have at most {NAME_CHARS} characters."
        raise ApiError(400, "invalid_email_format", message, field=where)
    return name


def _text(html: str) -> str | None:
    end = time.monotonic() + TEXT_S
    return text_of(html, lambda: time.monotonic() > end)
