"""DKIM signatures: several to a message, relaxed/relaxed, by RSA-2048 and Ed25519 (RFC 6376, RFC 8301, RFC 8463).

Signing has two steps. ``canonicalise`` reads the message once and costs some 25 µs for 4 KB; ``sign_canonical``
is the arithmetic, about 230 µs for RSA, during which the interpreter lock is free. Both are pure functions, so
a caller may run either in any thread; ``sign`` is the two together.

The fields that readers show or that change what is shown are *oversigned*: named once more than they occur, so
that none can be added afterwards (RFC 6376 §8.15). There is no ``l=``, which would let a body be extended, no
``i=``, and ``x=`` ends replay after a week.
"""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from arkrelay.mail.canonical import relaxed_body, relaxed_field
from arkrelay.mail.dkim_verify import Verified, verify
from arkrelay.mail.feedback import FIELDS
from arkrelay.mail.header import Field, scan, split
from arkrelay.model.record import record

__all__ = [
    "Canonical",
    "PrivateKey",
    "Signer",
    "Verified",
    "canonicalise",
    "generate_key",
    "key_bits",
    "load_key",
    "public_record",
    "sign",
    "sign_canonical",
    "verify",
]

RSA = "rsa-sha256"
ED25519 = "ed25519-sha256"
RSA_BITS_LEAST = 1024  # RFC 8301 §3.2: shorter keys must not be used
RSA_BITS = 2048  # RFC 8301 §3.2: what signers should use
LIFETIME_S = 7 * 86400

OVERSIGNED = (
    b"from",
    b"to",
    b"cc",
    b"subject",
    b"date",
    b"message-id",
    b"reply-to",
    b"mime-version",
    b"content-type",
    b"content-transfer-encoding",
    b"list-unsubscribe",
    b"list-unsubscribe-post",
)
SIGNED = frozenset(
    {b"sender", b"in-reply-to", b"references", *FIELDS}
)  # and every other List-*; as often as they occur
KEEP_GIL_OCTETS = 16_384  # some 30 us of SHA-256
_LINE = 72  # where b= is folded; RFC 5322 §2.1.1 recommends lines of at most 78

PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Signer:
    """One key and the name under which its public half is found: ``selector._domainkey.domain``."""

    domain: str  # A-labels
    selector: str
    algorithm: str  # RSA or ED25519
    key: PrivateKey = field(repr=False)


@record(frozen=True, slots=True)
class Canonical:
    """What every signature of one message has in common."""

    names: tuple[bytes, ...]  # the h= tag, in order
    header: bytes  # the fields named there, canonical
    body_hash: bytes  # base64


def load_key(pem: bytes, algorithm: str) -> PrivateKey:
    """Return the private key, or raise ``ValueError``: no PEM, encrypted, of another kind, or RSA below 1024 bits.

    OpenSSL's own check of an RSA key tests its primes, 28 ms a key and a start of 15 s with 500 of them; a
    signature that verifies shows as well that no bit of the file is wrong, in 0.3 ms.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
        if isinstance(key, rsa.RSAPrivateKey):
            probe = key.sign(b"probe", padding.PKCS1v15(), hashes.SHA256())
            key.public_key().verify(probe, b"probe", padding.PKCS1v15(), hashes.SHA256())
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise ValueError("not a PEM private key without a password") from exc
    except InvalidSignature as exc:
        raise ValueError("the RSA key is damaged: its parts do not belong together") from exc
    match algorithm, key:
        case "rsa-sha256", rsa.RSAPrivateKey():
            if key.key_size < RSA_BITS_LEAST:
                raise ValueError(f"an RSA key of {key.key_size} bits must not sign (RFC 8301 §3.2)")
            return key
        case "ed25519-sha256", ed25519.Ed25519PrivateKey():
            return key
        case (("rsa-sha256" | "ed25519-sha256"), _):
            raise ValueError(f"the key is of another kind than {algorithm}")
        case _:
            raise ValueError("the algorithm is neither rsa-sha256 nor ed25519-sha256")


def generate_key(algorithm: str) -> bytes:
    """Return a new private key as PEM (PKCS #8): RSA with 2048 bits, or Ed25519."""
    key: PrivateKey
    match algorithm:
        case "rsa-sha256":
            key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
        case "ed25519-sha256":
            key = ed25519.Ed25519PrivateKey.generate()
        case _:
            raise ValueError("the algorithm is neither rsa-sha256 nor ed25519-sha256")
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def key_bits(key: PrivateKey) -> int:
    """Return the size of the key; one of RSA below 2048 bits deserves a warning (RFC 8301 §3.2)."""
    return key.key_size if isinstance(key, rsa.RSAPrivateKey) else 256


def public_record(key: PrivateKey) -> str:
    """Return the TXT record to publish (RFC 6376 §3.6.1, RFC 8463 §4), whole; DNS splits it into strings of 255."""
    if isinstance(key, rsa.RSAPrivateKey):
        kind = "rsa"
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    else:
        kind = "ed25519"
        public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return f"v=DKIM1; k={kind}; t=s; p={base64.b64encode(public).decode('ascii')}"


def sign(content: bytes, signers: Sequence[Signer], at: float) -> bytes:
    """Return the DKIM-Signature fields, to be put before ``content``: one for each signer, in their order.

    ``content`` is the message exactly as it will be sent, with CRLF line ends. The body is hashed once for all.
    Raises ``HeaderError`` for a header that is none.
    """
    return sign_canonical(canonicalise(content), signers, at) if signers else b""


def canonicalise(content: bytes) -> Canonical:
    """Return what is to be signed of this message, the body already hashed."""
    header, body = split(content)
    fields = scan(header)
    by_name: dict[bytes, list[Field]] = {}
    for item in fields:
        by_name.setdefault(item.name, []).append(item)
    names: list[bytes] = []
    parts: list[bytes] = []
    for name in (*OVERSIGNED, *(n for n in by_name if n in SIGNED or (n[:5] == b"list-" and n not in OVERSIGNED))):
        for item in reversed(by_name.get(name, ())):  # RFC 6376 §5.4.2: from the bottom up
            names.append(name)
            parts.append(relaxed_field(item))
        if name in OVERSIGNED:
            names.append(name)
    return Canonical(tuple(names), b"".join(parts), binascii.b2a_base64(_digest(relaxed_body(body)), newline=False))


def _digest(body: bytes) -> bytes:
    """Return the SHA-256 of the body; of a small one without giving the GIL away, which takes longer to win back.

    hashlib keeps it for up to 2047 octets at once.
    """
    if len(body) > KEEP_GIL_OCTETS:
        return hashlib.sha256(body).digest()
    found = hashlib.sha256()
    for start in range(0, len(body), 2047):
        found.update(body[start : start + 2047])
    return found.digest()


def sign_canonical(canonical: Canonical, signers: Sequence[Signer], at: float) -> bytes:
    """Return the DKIM-Signature fields for a message that ``canonicalise`` has read."""
    stamp = int(at)
    names, folded_names = _list_names(canonical.names)
    fields = []
    for signer in signers:
        lead = f"v=1; a={signer.algorithm}; c=relaxed/relaxed; d={signer.domain}; s={signer.selector};".encode()
        times = b"t=%d; x=%d;" % (stamp, stamp + LIFETIME_S)
        body_hash = b"bh=%b;" % canonical.body_hash
        # the field as the receiver will have canonicalised it, b= empty and without a last CRLF (RFC 6376 §3.7)
        own = b"dkim-signature:" + b" ".join((lead, times, b"h=%b;" % names, body_hash, b"b="))
        code = binascii.b2a_base64(_sign_bytes(signer.key, canonical.header + own), newline=False)
        lines = [code[start : start + _LINE] for start in range(0, len(code), _LINE)]
        fields.append(
            b"DKIM-Signature: "
            + b"\r\n\t".join((lead, times, b"h=%b;" % folded_names, body_hash, b"b=" + b"\r\n\t ".join(lines)))
            + b"\r\n"
        )
    return b"".join(fields)


def _list_names(names: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return the h= value in relaxed form, and folded for the message; a fold becomes one space."""
    lines: list[bytes] = []
    line = b""
    for name in names:
        if line and len(line) + len(name) > _LINE - 3:
            lines.append(line)
            line = name
        else:
            line = line + b":" + name if line else name
    lines.append(line)
    return b": ".join(lines), b":\r\n\t ".join(lines)


def _sign_bytes(key: PrivateKey, data: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(hashlib.sha256(data).digest())  # RFC 8463 §3: the digest is what Ed25519 signs
