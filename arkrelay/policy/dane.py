"""DANE for SMTP (RFC 7672): which TLSA records count, and whether a certificate chain is the one they describe.

Python cannot hand TLSA records to OpenSSL, so the chain that the peer showed is judged here, after the handshake that
proved that it has the leaf's key. Usage 3 is a comparison. For usage 2 a path is followed from the leaf to the
certificate that a record describes: signatures, dates, CA flags and path lengths are checked. A critical extension
that is not understood here, name constraints among them, ends a path: rather no mail than a wrong yes.
"""

import datetime as dt
import hashlib
from collections.abc import Iterable, Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from cryptography.x509.oid import ExtensionOID, NameOID

from arkrelay.model.peertls import Tlsa

TRUST_ANCHOR, END_ENTITY = 2, 3  # RFC 7218 §2.1: DANE-TA, DANE-EE
FULL, SHA256, SHA512 = 0, 1, 2
MAX_CHAIN = 10  # certificates of one peer that are looked at
_LENGTHS = {SHA256: 32, SHA512: 64}
_UNDERSTOOD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)
_NOT_SIGNED = (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError)


def usable(records: Iterable[Tlsa]) -> tuple[Tlsa, ...]:
    """Return the records that can be held against a certificate.

    Usages 0 and 1 need authorities that both sides trust, which mail has not: they are as good as unknown ones (RFC
    7672 §3.1.3). What is no certificate, key or hash matches nothing, and would only hide that no record is of use.
    """
    return tuple(
        one
        for one in records
        if one.usage in {TRUST_ANCHOR, END_ENTITY}
        and one.selector in {0, 1}
        and (len(one.data) == _LENGTHS.get(one.matching) or (one.matching == FULL and _readable(one)))
    )


def _readable(record: Tlsa) -> bool:
    """Return whether a whole certificate or key is one."""
    try:
        if record.selector == 0:
            x509.load_der_x509_certificate(record.data)
        else:
            load_der_public_key(record.data)
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True


def judge(records: Sequence[Tlsa], chain: Sequence[bytes], names: Sequence[str], now: dt.datetime) -> str | None:
    """Return None when the chain (DER, the leaf first) is one that a record describes, else why it is not.

    For usage 3 neither names nor dates count (RFC 7672 §3.1.1); for usage 2 the leaf must name one of ``names``.
    """
    if not chain:
        return "it showed no certificate"
    certificates = _read(chain[:1])
    if not certificates:
        return "it showed a certificate that cannot be read"
    leaf, others = certificates[0], _read(chain[1:MAX_CHAIN])
    if any(one.usage == END_ENTITY and _matches(one, leaf) for one in records):
        return None
    anchors = [one for one in records if one.usage == TRUST_ANCHOR]
    if not anchors or not _leads_to(anchors, leaf, [*others, *_given(anchors)], now, below=0):
        return "no TLSA record matches its certificate"
    if not _dated(leaf, now):
        return "its certificate has expired"
    return None if _named(leaf, names) else f"its certificate is not for {names[0]}" if names else "no name is wanted"


def _matches(record: Tlsa, certificate: x509.Certificate) -> bool:
    if record.selector == 0:
        data = certificate.public_bytes(Encoding.DER)
    else:
        try:
            data = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        except (ValueError, UnsupportedAlgorithm):
            return False
    if record.matching == SHA256:
        data = hashlib.sha256(data).digest()
    elif record.matching == SHA512:
        data = hashlib.sha512(data).digest()
    return data == record.data


def _given(anchors: Iterable[Tlsa]) -> list[x509.Certificate]:
    """Return the whole certificates among the records: the peer need not show those (RFC 7672 §3.1.2)."""
    return _read(one.data for one in anchors if one.selector == 0 and one.matching == FULL)


def _read(ders: Iterable[bytes]) -> list[x509.Certificate]:
    """Return the certificates that can be read; rubbish beside them proves nothing and spoils nothing."""
    found = []
    for der in ders:
        try:
            found.append(x509.load_der_x509_certificate(der))
        except ValueError:
            continue
    return found


def _leads_to(
    anchors: Sequence[Tlsa],
    certificate: x509.Certificate,
    others: Sequence[x509.Certificate],
    now: dt.datetime,
    *,
    below: int,
) -> bool:
    """Return whether ``certificate`` was signed, over however many of ``others``, by one that an anchor describes.

    ``below``: how many CAs stand between the leaf and the issuer that is looked for (RFC 5280 §4.2.1.9).
    """
    for index, issuer in enumerate(others):
        if not _issued(certificate, issuer) or not _may_issue(issuer, below, now):
            continue
        if any(_matches(one, issuer) for one in anchors):
            return True
        rest = [*others[:index], *others[index + 1 :]]
        if _leads_to(anchors, issuer, rest, now, below=below + 1):
            return True
    return False


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except _NOT_SIGNED:
        return False
    return True


def _may_issue(issuer: x509.Certificate, below: int, now: dt.datetime) -> bool:
    try:
        extensions = issuer.extensions
    except ValueError:
        return False
    if any(one.critical and one.oid not in _UNDERSTOOD for one in extensions):
        return False
    try:
        basic = extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return False
    if not basic.ca or (basic.path_length is not None and below > basic.path_length):
        return False
    try:
        if not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign:
            return False
    except x509.ExtensionNotFound:
        pass
    return _dated(issuer, now)


def _dated(certificate: x509.Certificate, now: dt.datetime) -> bool:
    return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


def _named(leaf: x509.Certificate, names: Sequence[str]) -> bool:
    """Return whether the leaf names one of these; its common name counts where it has no other (RFC 7672 §3.2.3)."""
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        given = found.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, ValueError):
        given = []
    if not given:
        given = [str(one.value) for one in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return any(_same(pattern.lower().rstrip("."), name) for pattern in given for name in names)


def _same(pattern: str, name: str) -> bool:
    if pattern == name:
        return True
    return pattern[:2] == "*." and pattern.count(".") > 1 and name.partition(".")[2] == pattern[2:]
