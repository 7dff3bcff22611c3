"""The one parser of mail addresses: strict RFC 5321 ``Mailbox``, on every path that an address can take.

Envelope, header fields, REST and the configuration all come through here, so that the address that policy
judged is, byte for byte, the address that goes on the wire. Two parsers that read the same text differently
let one person write as another (VU#244112, CVE-2023-27043, "splitting the email atom"), so what RFC 5322
still calls obsolete is refused: source routes, comments, folding, and encoded words inside an address.
``%`` and ``!`` are ordinary characters of a local part; nothing is ever routed by them.

Domains are compared as A-labels only. A U-label is mapped by UTS 46 and encoded by IDNA 2008, once, here:
full-width letters, the ideographic dot, a soft hyphen or a joiner either map to the plain name or fail.
"""

import re
import unicodedata

import idna

from arkrelay.model.record import record

LOCAL_OCTETS = 64  # RFC 5321 §4.5.3.1.1
DOMAIN_OCTETS = 253  # RFC 1035 §2.3.4: 255 octets in DNS form, which is 253 characters of text
LABEL_OCTETS = 63  # RFC 1035 §2.3.4
TEXT_LIMIT = 1000  # nothing longer can hold an address: 64 quoted pairs, a U-label form of 253 octets

_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~-"  # RFC 5322 §3.2.3
# A possessive group would save some backtracking, but matches too much before Python 3.11.5 (CPython issue 106052).
_DOT_ATOM = rf"[{_ATEXT}]++(?:\.[{_ATEXT}]++)*"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# The last label starts with a letter here, which excludes IPv4 addresses; `_check_ascii_domain` knows the rest.
_NAME = rf"(?:{_LABEL}\.)*[A-Za-z](?:[A-Za-z0-9-]{{0,61}}[A-Za-z0-9])?"

_PLAIN = re.compile(rf"({_DOT_ATOM})@({_NAME})")
_PLAIN_PATH = re.compile(rf"<({_DOT_ATOM})@({_NAME})>(?: (.*))?", re.DOTALL)
_PLAIN_LOCAL = re.compile(_DOT_ATOM)
_LABEL_ONLY = re.compile(_LABEL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_TO_ESCAPE = re.compile(r'(["\\])')
_JOINERS = "\u200c\u200d"  # part of words in Persian and Indic scripts; every other format character is refused


class AddressError(ValueError):
    """The text is not an address that we take; the message says why and never repeats the text."""


@record(frozen=True, slots=True)
class Address:
    """One mailbox as it goes on the wire: ``local`` quoted only if it must be, ``domain`` in lower-case A-labels.

    Two spellings of one mailbox (``"a.b"@X.test`` and ``a.b@x.test``) are equal. The domain is empty for the
    bare ``<postmaster>`` of RFC 5321 §4.5.1 and for nothing else.
    """

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}" if self.domain else self.local

    @property
    def utf8(self) -> bool:
        """Whether the address needs SMTPUTF8 (RFC 6531): only its local part can, the domain is A-labels."""
        return not self.local.isascii()

    @property
    def key(self) -> str:
        """The form under which suppressions are looked up: the whole address without case, in NFC.

        RFC 5321 §2.4 lets a host tell ``Joe`` from ``joe``, but hardly any does, and an address that
        unsubscribed must not come back because its case changed.
        """
        return address_key(str(self))


def address_key(text: str) -> str:
    """Return the form under which this address, already parsed once, is looked up: see ``Address.key``."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", text).casefold()


def parse_mailbox(text: str, *, utf8: bool = False) -> Address:
    """Return the mailbox that ``text`` is, whole and without angle brackets, or raise ``AddressError``.

    ``utf8`` admits what RFC 6531 adds: a UTF-8 local part and U-labels in the domain.
    """
    match = _PLAIN.fullmatch(text)
    if match is not None:
        local, domain = match.groups()
        if len(local) <= LOCAL_OCTETS and len(domain) <= DOMAIN_OCTETS and "=?" not in local:
            return Address(local, domain.lower())
    return _parse_fully(text, utf8=utf8)


def parse_path(text: str, *, utf8: bool = False) -> tuple[Address | None, str]:
    """Return the address of a MAIL or RCPT argument and its parameters, stripped; None is the null path ``<>``.

    ``text`` is what follows ``FROM:`` or ``TO:``; spaces before ``<`` are tolerated as every server does. The
    caller refuses None at RCPT. ``<postmaster>`` without a domain is ``Address("postmaster", "")``.
    """
    match = _PLAIN_PATH.fullmatch(text)
    if match is not None:
        local, domain, rest = match.groups()
        if len(local) <= LOCAL_OCTETS and len(domain) <= DOMAIN_OCTETS and "=?" not in local:
            return Address(local, domain.lower()), _parameters(rest or "")
    text = text.lstrip(" ")
    if not text.startswith("<"):
        raise AddressError("the address must stand in angle brackets")
    end = _closing_bracket(text)
    inner, rest = text[1:end], text[end + 1 :]
    if rest and not rest.startswith(" "):
        raise AddressError("a space must follow the closing angle bracket")
    parameters = _parameters(rest)
    if not inner:
        return None, parameters
    if inner.lower() == "postmaster":
        return Address("postmaster", ""), parameters
    return parse_mailbox(inner, utf8=utf8), parameters


def parse_domain(text: str, *, utf8: bool = False) -> str:
    """Return the domain in lower-case A-labels, or raise ``AddressError``.

    Address literals, trailing dots and dotted numbers are refused: a sender domain and a destination have a name
    in DNS.
    """
    if len(text) > TEXT_LIMIT:
        raise AddressError("the domain is too long")
    if _CONTROL.search(text):
        raise AddressError("control character in the domain")
    if text.startswith("["):
        raise AddressError("address literals are not accepted: use a domain name")
    if not text.isascii():
        if not utf8:
            raise AddressError("a non-ASCII domain needs SMTPUTF8, or its xn-- form")
        try:
            # transitional processing is off: "faß" and "fass" stay two names (RFC 5894 §2.3.2)
            text = idna.encode(text, uts46=True, std3_rules=True).decode("ascii")
        except UnicodeError as exc:  # IDNAError is one; so is what its codecs raise
            raise AddressError("the domain is not a valid internationalised name") from exc
    _check_ascii_domain(text)
    return text.lower()


def _check_ascii_domain(text: str) -> None:
    """Raise unless ``text`` is letters, digits and hyphens in labels (RFC 5321 §4.1.2, RFC 1123 §2.1)."""
    if not text:
        raise AddressError("the domain is empty")
    if len(text) > DOMAIN_OCTETS:
        raise AddressError(f"the domain is longer than {DOMAIN_OCTETS} characters")
    if text.endswith("."):
        raise AddressError("the domain ends with a dot")
    labels = text.split(".")
    for label in labels:
        if not label:
            raise AddressError("the domain has an empty label")
        if len(label) > LABEL_OCTETS:
            raise AddressError(f"a label of the domain is longer than {LABEL_OCTETS} characters")
        if not _LABEL_ONLY.fullmatch(label):
            raise AddressError("a label of the domain is not letters, digits and inner hyphens")
    if labels[-1].isdecimal():
        raise AddressError("the domain looks like an IP address")


def _parse_fully(text: str, *, utf8: bool) -> Address:
    """The whole grammar, for what the fast path did not match: also the one place that words the refusal."""
    if len(text) > TEXT_LIMIT:
        raise AddressError("the address is too long")
    if not text:
        raise AddressError("the address is empty")
    if _CONTROL.search(text):
        raise AddressError("control character in the address")
    if "=?" in text:
        raise AddressError("encoded words have no meaning in an address")
    if text.startswith("@"):
        raise AddressError("source routes are not accepted" if ":" in text else "the local part is empty")
    if not utf8 and not text.isascii():
        raise AddressError("a non-ASCII address needs SMTPUTF8")
    if text.startswith('"'):
        local, rest = _quoted_local(text)
    else:
        local, at, rest = text.partition("@")
        rest = at + rest
        _check_dot_string(local)
    if not rest.startswith("@"):
        raise AddressError("the address has no @domain" if not rest else "text between the local part and the @")
    if len(local.encode()) > LOCAL_OCTETS:
        raise AddressError(f"the local part is longer than {LOCAL_OCTETS} octets")
    return Address(local, parse_domain(rest[1:], utf8=utf8))


def _quoted_local(text: str) -> tuple[str, str]:
    """Return the local part in canonical form, and what follows its closing quote."""
    content: list[str] = []
    position = 1
    while position < len(text) and text[position] != '"':
        if text[position] == "\\":
            position += 1
            if position == len(text):
                break
            if not text[position].isascii():  # quoted-pairSMTP is ASCII only, also in RFC 6531 §3.3
                raise AddressError("the quoted local part escapes a non-ASCII character")
        content.append(text[position])
        position += 1
    if position >= len(text):
        raise AddressError("the quoted local part has no end")
    local = "".join(content)
    if not local.isascii():
        _check_utf8_text(local)
    if not _is_dot_string(local):
        local = '"' + _TO_ESCAPE.sub(r"\\\1", local) + '"'
    return local, text[position + 1 :]


def _is_dot_string(local: str) -> bool:
    """Whether the local part may stand without quotes (RFC 5321 Dot-string, with RFC 6531's UTF-8)."""
    if local.isascii():
        return _PLAIN_LOCAL.fullmatch(local) is not None
    return _PLAIN_LOCAL.fullmatch("".join(c if c.isascii() else "x" for c in local)) is not None


def _check_dot_string(local: str) -> None:
    if not _is_dot_string(local):
        if "(" in local or ")" in local:
            raise AddressError("comments are not accepted in an address")
        if local.startswith(".") or local.endswith(".") or ".." in local:
            raise AddressError("misplaced dot in the local part")
        raise AddressError("the local part holds a character that would need quotes")
    if not local.isascii():
        _check_utf8_text(local)


def _check_utf8_text(local: str) -> None:
    """Raise for what could pass as something else: invisible characters, and look-alikes of ``@ < > "``."""
    for character in local:
        if not character.isprintable() and character not in _JOINERS:
            raise AddressError("invisible character in the local part")
    outside = "".join(c for c in local if not c.isascii())
    folded = "".join(c for c in unicodedata.normalize("NFKC", outside) if c.isascii())
    if folded and not all(c.isalnum() for c in folded):
        raise AddressError("the local part holds a look-alike of an ASCII sign")


def _closing_bracket(text: str) -> int:
    """Return the index of the ``>`` that ends the path; one inside a quoted local part does not."""
    quoted = False
    position = 1
    while position < len(text):
        character = text[position]
        if quoted:
            if character == "\\":
                position += 1
            elif character == '"':
                quoted = False
        elif character == '"':
            quoted = True
        elif character == ">":
            return position
        position += 1
    raise AddressError("the closing angle bracket is missing")


def _parameters(rest: str) -> str:
    if rest and _CONTROL.search(rest):
        raise AddressError("control character in the parameters")
    return rest.strip(" ")


def kept_address(given: str) -> str:
    """Return an address as the database has it, its domain in A-labels.

    What is no address is looked for as it stands, in vain: a filter is exact, whatever its characters.
    """
    try:
        return str(parse_mailbox(given, utf8=True))
    except AddressError:
        return given


def kept_domain(given: str) -> str:
    """Return a domain as the database has it, in lower-case A-labels; what is none stays as it is."""
    try:
        return parse_domain(given, utf8=True)
    except AddressError:
        return given.lower()
