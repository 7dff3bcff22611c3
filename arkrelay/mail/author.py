"""Who wrote the message, when there is no doubt about it, and which fields may stand only once.

Mail readers and mail servers read a doubtful From differently: one checks the address that it found, the other
shows another one (VU#244112, CVE-2023-27043). So the grammar taken here is much smaller than RFC 5322's: one
field, one mailbox, one ``@``, and nothing that any reader could take for a second address.
"""

import binascii
import re
from collections.abc import Sequence

from arkrelay.mail.header import Field, HeaderError, decode_words, has_control, value
from arkrelay.model.address import Address, AddressError, parse_mailbox

# RFC 5322 §3.6: at most one of each. Bcc is missing because every Bcc is removed.
ONCE = {
    b"date": "Date",
    b"from": "From",
    b"sender": "Sender",
    b"reply-to": "Reply-To",
    b"to": "To",
    b"cc": "Cc",
    b"message-id": "Message-ID",
    b"in-reply-to": "In-Reply-To",
    b"references": "References",
    b"subject": "Subject",
}
VALUE_LIMIT = 2000  # bytes of a From value; a name of 300 characters in encoded words fits

_COMMENT = rb"\([^()<>@,;:\\\"]*+\)"
# The two ways to write a mailbox. `(?s)` is not needed: an unfolded value has no line ends.
_BARE = re.compile(rb"([^\s<>()\",;:\\\[\]]++)(?:[ \t]*+(" + _COMMENT + rb"))?")
_NAMED = re.compile(rb"([^<>]*+)<([^\s<>()\",;:\\\[\]]++)>")
# A phrase: atoms, dots, quoted strings and plain comments (RFC 5322 §3.2.5, §4.1 obs-phrase), UTF-8 (RFC 6532).
# Its alternatives begin differently, so it need not be possessive: before Python 3.11.5 such a group matches too much
# (CPython issue 106052).
_PHRASE = re.compile(rb"(?:[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\x80-\xff \t-]++|\"(?:[^\"\\]++|\\.)*\"|" + _COMMENT + rb")*")
_WORD = re.compile(rb"=\?[!->@-~]{1,40}\?(?:[Qq]\?[!->@-~]*+|[Bb]\?[A-Za-z0-9+/]*+={0,2})\?=")
# Nearly every From: a name of plain words, in quotes or not, or none. What matches needs none of the checks below.
_USUAL = re.compile(rb"(?:(\"?)([A-Za-z0-9][A-Za-z0-9 ._'-]*)\1 )?<([A-Za-z0-9._+=-]++@[A-Za-z0-9.-]++)>")
_ADDRESS_SIGNS = frozenset("@<>")


def parse_author(fields: Sequence[Field]) -> Address:
    """Return the one mailbox of the one From field, or raise ``HeaderError`` at any doubt.

    The domain comes in A-labels, ready to be compared with those that the tenant owns. The local part may be
    UTF-8 (RFC 6531), never quoted.
    """
    found = [field for field in fields if field.name == b"from"]
    if not found:
        raise HeaderError("the From field is missing")
    if len(found) > 1:
        raise HeaderError("the From field appears more than once")
    return parse_named_mailbox(value(found[0]), "From")[1]


def parse_named_mailbox(raw: bytes, where: str = "the address", *, words: bool = True) -> tuple[str, Address]:
    """Return the decoded display name (may be empty) and the mailbox of one unfolded address value.

    Takes ``a@b``, ``<a@b>``, ``Name <a@b>`` and ``a@b (comment)``. Raises ``HeaderError`` naming ``where`` for
    lists, groups (RFC 6854), nested or odd comments, and for any name that holds ``@``, ``<`` or ``>``, be it in
    quotes or in encoded words. Without ``words`` an encoded word in the name is text like any other: in JSON nobody
    needs one.
    """
    match = _USUAL.fullmatch(raw)
    if match is not None and len(raw) <= VALUE_LIMIT:
        return (match[2] or b"").decode("ascii"), _parse_spec(match[3], where)
    if not raw:
        raise HeaderError(f"{where} is empty")
    if len(raw) > VALUE_LIMIT:
        raise HeaderError(f"{where} is longer than {VALUE_LIMIT} bytes")
    try:
        text = raw.decode()
    except UnicodeDecodeError as exc:
        raise HeaderError(f"{where} is neither ASCII nor UTF-8") from exc
    if has_control(text.replace("\t", " ")):
        raise HeaderError(f"{where} holds a control character")
    if raw.count(b"@") != 1:
        raise HeaderError(f'{where} must hold exactly one address, and "@" nowhere else')
    if b"<" in raw or b">" in raw:
        match = _NAMED.fullmatch(raw)
        if match is None:
            raise HeaderError(f"{where} is not one name and one <address>")
        phrase, spec = match[1].rstrip(b" \t"), match[2]
    else:
        match = _BARE.fullmatch(raw)
        if match is None:
            raise HeaderError(f"{where} is not one plain address")
        spec, phrase = match[1], match[2] or b""
    return _parse_phrase(phrase, where, words=words), _parse_spec(spec, where)


def check_once(fields: Sequence[Field]) -> None:
    """Raise ``HeaderError`` naming the field if one stands twice that RFC 5322 §3.6 allows once."""
    seen: set[bytes] = set()
    for name, _ in fields:
        if name in ONCE:
            if name in seen:
                raise HeaderError(f"the {ONCE[name]} field appears more than once")
            seen.add(name)


def _parse_spec(spec: bytes, where: str) -> Address:
    try:
        return parse_mailbox(spec.decode(), utf8=True)
    except AddressError as exc:
        raise HeaderError(f"{where}: {exc}") from exc


def _parse_phrase(phrase: bytes, where: str, *, words: bool) -> str:
    if not phrase:
        return ""
    if not _PHRASE.fullmatch(phrase):
        raise HeaderError(f"{where}: the name has a sign that needs double quotes around it")
    words = words and b"=?" in phrase
    if words:
        _check_words(phrase, where)
    name = decode_words(phrase) if words else phrase.decode()
    if not _ADDRESS_SIGNS.isdisjoint(name) or (words and "=?" in name):
        raise HeaderError(f"{where}: the name holds what could pass for an address")
    if has_control(name.replace("\t", " ")):
        raise HeaderError(f"{where}: the name holds a control character")
    if name.startswith('"') and name.endswith('"') and len(name) > 1:
        name = re.sub(r"\\(.)", r"\1", name[1:-1])
    return name.strip()


def _check_words(phrase: bytes, where: str) -> None:
    """Raise unless every ``=?`` begins a whole encoded word that can be decoded in only one way."""
    if b"=?" in _WORD.sub(b" ", phrase):
        raise HeaderError(f"{where}: the name holds a broken encoded word")
    for word in _WORD.findall(phrase):
        _, _, encoding, data, _ = word.split(b"?")
        if encoding in b"Bb":
            try:
                binascii.a2b_base64(data, strict_mode=True)
            except binascii.Error as exc:
                raise HeaderError(f"{where}: the name holds a broken encoded word") from exc
