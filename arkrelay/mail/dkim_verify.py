"""Verification of DKIM signatures (RFC 6376 §6), for ``demo`` and ``doctor``: does our own mail verify?

What RFC 8301 forbids fails here: SHA-1 and RSA keys below 1024 bits. A signature with ``l=`` fails as well,
because text can be added behind what it covers.
"""

import base64
import binascii
import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from arkrelay.mail.canonical import relaxed_body, relaxed_field, simple_body
from arkrelay.mail.header import CRLF, Field, scan, split, value

SIGNATURE_LIMIT = 10  # signatures judged in one message: each costs a look-up and a public-key operation
RECORD_LIMIT = 3  # key records tried under one name; there should be one (RFC 6376 §3.6.2.2)
CLOCK_SKEW_S = 300

_FWS = re.compile(rb"[ \t\r\n]+")
_TAG = re.compile(rb"[A-Za-z][A-Za-z0-9_]*")
_OWN_CODE = re.compile(rb"((?:^|;)[ \t\r\n]*b[ \t\r\n]*=)[^;]*")
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?")
_REQUIRED = ("v", "a", "b", "bh", "d", "h", "s")

PublicKey = rsa.RSAPublicKey | ed25519.Ed25519PublicKey
FetchTxt = Callable[[str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Verified:
    """The verdict on one signature; ``reason`` is one sentence, also when it is good."""

    domain: str
    selector: str
    ok: bool
    reason: str


class _Fails(Exception):
    """The signature does not verify, and why."""


def verify(content: bytes, fetch_txt: FetchTxt, *, now: float | None = None) -> list[Verified]:
    """Return a verdict for each of the first 10 signatures, from the top; none when the message has none.

    ``fetch_txt`` returns the TXT records of a name, each with its strings joined, and an empty sequence when
    there are none; what it raises is raised. ``now`` (Unix seconds, by default the clock's) is held against
    ``x=``. Raises ``HeaderError`` for a header that is none.
    """
    header, body = split(content)
    fields = scan(header)
    moment = time.time() if now is None else now
    signatures = [index for index, field in enumerate(fields) if field.name == b"dkim-signature"]
    return [_verify_one(fields, index, body, fetch_txt, moment) for index in signatures[:SIGNATURE_LIMIT]]


def _verify_one(fields: list[Field], index: int, body: bytes, fetch_txt: FetchTxt, now: float) -> Verified:
    tags: dict[str, bytes] = {}
    try:
        tags = _parse_tags(value(fields[index]))
        _check_tags(tags, now)
        _check_body(tags, body)
        signed = _signed_bytes(tags, fields, index)
        records = fetch_txt(f"{_text(tags, 's')}._domainkey.{_text(tags, 'd')}")
        _check_code(tags, signed, records)
    except _Fails as exc:
        return Verified(_text(tags, "d"), _text(tags, "s"), ok=False, reason=str(exc))
    return Verified(_text(tags, "d"), _text(tags, "s"), ok=True, reason=f"good signature ({_text(tags, 'a')})")


def _parse_tags(raw: bytes) -> dict[str, bytes]:
    """Return the tags of a list (RFC 6376 §3.2), their values without white space at the ends."""
    tags: dict[str, bytes] = {}
    for item in raw.rstrip(b" \t;").split(b";"):
        name, equals, text = item.partition(b"=")
        name = name.strip(b" \t\r\n")
        if not equals or not _TAG.fullmatch(name):
            raise _Fails("it is not a list of tags")
        key = name.decode("ascii")
        if key in tags:
            raise _Fails(f"the tag {key}= appears twice")
        tags[key] = text.strip(b" \t\r\n")
    return tags


def _text(tags: dict[str, bytes], name: str) -> str:
    return tags.get(name, b"").decode("ascii", "replace")


def _number(tags: dict[str, bytes], name: str) -> int | None:
    if name not in tags:
        return None
    if not tags[name].isdigit() or len(tags[name]) > 12:  # RFC 6376 §3.5: at most 12 digits need be taken
        raise _Fails(f"{name}= is not a number")
    return int(tags[name])


def _check_tags(tags: dict[str, bytes], now: float) -> None:
    """Raise for what can be seen without the key (RFC 6376 §6.1.1)."""
    for name in _REQUIRED:
        if not tags.get(name):
            raise _Fails(f"the tag {name}= is missing")
    if tags["v"] != b"1":
        raise _Fails("v= is not 1")
    if tags["a"] not in {b"rsa-sha256", b"ed25519-sha256"}:
        raise _Fails("a= is neither rsa-sha256 nor ed25519-sha256")
    if "l" in tags:
        raise _Fails("l= leaves a part of the body unsigned")
    if b"dns/txt" not in _items(tags.get("q", b"dns/txt")):
        raise _Fails("q= does not offer dns/txt")
    if b"from" not in _signed_names(tags):
        raise _Fails("h= does not sign From")
    _check_identity(tags)
    _check_times(tags, now)


def _check_identity(tags: dict[str, bytes]) -> None:
    if not _NAME.fullmatch(_text(tags, "d")) or not _NAME.fullmatch(_text(tags, "s")):
        raise _Fails("d= or s= is not a name")
    if "i" in tags and not f".{_agent_host(tags)}".endswith(f".{_text(tags, 'd').lower()}"):
        raise _Fails("i= is not within d=")


def _check_times(tags: dict[str, bytes], now: float) -> None:
    made_at, ends_at = _number(tags, "t"), _number(tags, "x")
    if made_at is not None and ends_at is not None and ends_at < made_at:
        raise _Fails("x= is before t=")
    if ends_at is not None and ends_at + CLOCK_SKEW_S < now:
        raise _Fails("it has expired")


def _agent_host(tags: dict[str, bytes]) -> str:
    """Return the domain of i=, the agent or user of the signature (RFC 6376 §3.5)."""
    return _text(tags, "i").rpartition("@")[2].lower()


def _items(text: bytes) -> list[bytes]:
    """Return the items of a colon-separated value."""
    return [item.strip(b" \t\r\n") for item in text.split(b":")]


def _signed_names(tags: dict[str, bytes]) -> list[bytes]:
    return _items(tags["h"].lower())


def _forms(tags: dict[str, bytes]) -> tuple[bytes, bytes]:
    """Return the canonical forms of header and body (RFC 6376 §3.5, c=)."""
    header, _, body = tags.get("c", b"simple/simple").partition(b"/")
    forms = header, body or b"simple"
    if not {*forms} <= {b"simple", b"relaxed"}:
        raise _Fails("c= is neither simple nor relaxed")
    return forms


def _check_body(tags: dict[str, bytes], body: bytes) -> None:
    form = relaxed_body if _forms(tags)[1] == b"relaxed" else simple_body
    if hashlib.sha256(form(body)).digest() != _decode(tags, "bh"):
        raise _Fails("the body was changed: bh= is not its hash")


def _decode(tags: dict[str, bytes], name: str) -> bytes:
    try:
        return base64.b64decode(_FWS.sub(b"", tags[name]), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise _Fails(f"{name}= is not base64") from exc


def _signed_bytes(tags: dict[str, bytes], fields: list[Field], index: int) -> bytes:
    """Return what b= signs: the fields of h= from the bottom up, then this field with an empty b= (§3.7)."""
    relaxed = _forms(tags)[0] == b"relaxed"
    left: dict[bytes, list[Field]] = {}
    for position, item in enumerate(fields):
        if position != index:
            left.setdefault(item.name, []).append(item)
    parts = []
    for name in _signed_names(tags):
        if left.get(name):
            item = left[name].pop()
            parts.append(relaxed_field(item) if relaxed else item.raw)
    own = fields[index]
    name_length = len(own.name) + 1
    own = Field(
        own.name, own.raw[:name_length] + _OWN_CODE.sub(rb"\1", own.raw[name_length:].removesuffix(CRLF)) + CRLF
    )
    parts.append((relaxed_field(own) if relaxed else own.raw).removesuffix(CRLF))
    return b"".join(parts)


def _check_code(tags: dict[str, bytes], signed: bytes, records: Sequence[str]) -> None:
    if not records:
        raise _Fails("there is no key record")
    code = _decode(tags, "b")
    failure = _Fails("there is no key record")
    for record in records[:RECORD_LIMIT]:
        try:
            _check_signature(_load_public(record, tags), code, signed)
        except _Fails as exc:
            failure = exc
        else:
            return
    raise failure


def _load_public(record: str, tags: dict[str, bytes]) -> PublicKey:
    """Return the key of a record that may be used for this signature (RFC 6376 §3.6.1, §6.1.2)."""
    found = _parse_tags(record.encode("utf-8", "replace"))
    kind = _text(tags, "a").partition("-")[0]
    _check_record(found, tags, kind)
    raw = _decode(found, "p")
    try:
        if kind == "ed25519":
            return ed25519.Ed25519PublicKey.from_public_bytes(raw)
        key = serialization.load_der_public_key(raw)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise _Fails("the key record holds no key that can be read") from exc
    if not isinstance(key, rsa.RSAPublicKey):
        raise _Fails("the key record is for another algorithm")
    if key.key_size < 1024:
        raise _Fails("the key is shorter than 1024 bits (RFC 8301 §3.2)")
    return key


def _check_record(found: dict[str, bytes], tags: dict[str, bytes], kind: str) -> None:
    """Raise if the record is not one, or not for this signature."""
    if "v" in found and (found["v"] != b"DKIM1" or next(iter(found)) != "v"):
        raise _Fails("the key record is not of DKIM1")
    if (_text(found, "k") or "rsa") != kind:
        raise _Fails("the key record is for another algorithm")
    if b"sha256" not in _items(found.get("h", b"sha256")):
        raise _Fails("the key record does not allow sha256")
    if not {b"*", b"email"}.intersection(_items(found.get("s", b"*"))):
        raise _Fails("the key record is not for mail")
    if b"s" in _items(found.get("t", b"")) and "i" in tags and _agent_host(tags) != _text(tags, "d").lower():
        raise _Fails("the key record wants i= to be d= itself")
    if "p" not in found:
        raise _Fails("the key record has no key")
    if not found["p"]:
        raise _Fails("the key was revoked")


def _check_signature(key: PublicKey, code: bytes, signed: bytes) -> None:
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(code, signed, padding.PKCS1v15(), hashes.SHA256())
        else:
            key.verify(code, hashlib.sha256(signed).digest())
    except InvalidSignature as exc:
        raise _Fails("b= is not the signature of this header by this key") from exc
