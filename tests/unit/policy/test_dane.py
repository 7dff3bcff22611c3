"""TLSA records against chains of certificates, also of chains that try to get by."""

import datetime as dt
import hashlib
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.model.peertls import Tlsa
from arkrelay.policy.dane import judge, usable

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
HOST = ("mx.rcpt.test", "rcpt.test")


@dataclass
class Made:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    def tlsa(self, usage: int, selector: int = 0, matching: int = 1) -> Tlsa:
        data = self.der
        if selector:
            data = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return Tlsa(usage, selector, matching, hashlib.sha256(data).digest() if matching else data)


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def make(
    subject: str,
    issuer: Made | None = None,
    *,
    ca: bool = True,
    path: int | None = None,
    signs: bool | None = None,
    hosts: tuple[str, ...] = (),
    age: int = 0,
    strange: bool = False,
) -> Made:
    """Return a certificate; ``age`` moves its days, ``strange`` adds a critical extension that nobody knows."""
    key = ec.generate_private_key(ec.SECP256R1())
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(issuer.certificate.subject if issuer else name(subject))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - DAY * (10 + age))
        .not_valid_after(NOW + DAY * (10 - age))
    )
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path), critical=True)
    if signs is not None:
        usage = x509.KeyUsage(True, False, False, False, False, signs, False, False, False)
        builder = builder.add_extension(usage, critical=True)
    if hosts:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(one) for one in hosts]), critical=False
        )
    if strange:
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
        builder = builder.add_extension(unknown, critical=True)
    return Made(builder.sign(signer, hashes.SHA256()), key)


ROOT = make("root")
MIDDLE = make("middle", ROOT, path=0, signs=True)


def leaf(issuer: Made = MIDDLE, **more: Any) -> Made:
    return make("leaf", issuer, ca=False, **({"hosts": ("mx.rcpt.test",)} | more))


def chain(*made: Made) -> list[bytes]:
    return [one.der for one in made]


GOOD = leaf()
NO_MATCH = "no TLSA record matches its certificate"


@pytest.mark.parametrize(
    ("shown", "records", "verdict"),
    [
        pytest.param((GOOD,), [GOOD.tlsa(3, 1)], None, id="leaf"),
        pytest.param((leaf(age=20),), [MIDDLE.tlsa(3)], NO_MATCH, id="leaf-is-not-the-issuer"),
        pytest.param((GOOD, MIDDLE, ROOT), [ROOT.tlsa(2)], None, id="root"),
        pytest.param((GOOD, MIDDLE, ROOT), [ROOT.tlsa(2, 1)], None, id="root-by-key"),
        pytest.param((GOOD, ROOT, MIDDLE), [ROOT.tlsa(2)], None, id="out-of-order"),
        pytest.param((GOOD, MIDDLE), [MIDDLE.tlsa(2)], None, id="intermediate"),
        pytest.param((GOOD, MIDDLE), [ROOT.tlsa(2)], NO_MATCH, id="root-not-shown"),
        pytest.param((GOOD, MIDDLE), [ROOT.tlsa(2, 0, 0)], None, id="root-in-dns"),
        pytest.param((GOOD, ROOT), [ROOT.tlsa(2)], NO_MATCH, id="gap"),
        pytest.param((GOOD, MIDDLE), [GOOD.tlsa(2)], NO_MATCH, id="leaf-as-anchor"),
        pytest.param((leaf(make("middle")), MIDDLE), [MIDDLE.tlsa(2)], NO_MATCH, id="same-name-other-key"),
        pytest.param((leaf(GOOD), GOOD, MIDDLE), [MIDDLE.tlsa(2)], NO_MATCH, id="leaf-that-signs"),
        pytest.param(
            (leaf(deep := make("deep", MIDDLE)), deep, MIDDLE, ROOT), [ROOT.tlsa(2)], NO_MATCH, id="path-too-long"
        ),
        pytest.param(
            (leaf(mute := make("mute", ROOT, signs=False)), mute, ROOT), [ROOT.tlsa(2)], NO_MATCH, id="may-not-sign"
        ),
        pytest.param(
            (leaf(odd := make("odd", ROOT, strange=True)), odd, ROOT), [ROOT.tlsa(2)], NO_MATCH, id="unknown-critical"
        ),
        pytest.param(
            (leaf(old := make("old", ROOT, age=20)), old, ROOT), [ROOT.tlsa(2)], NO_MATCH, id="expired-intermediate"
        ),
        pytest.param((leaf(age=20), MIDDLE), [MIDDLE.tlsa(2)], "its certificate has expired", id="expired-leaf"),
        pytest.param((leaf(age=-20), MIDDLE), [MIDDLE.tlsa(2)], "its certificate has expired", id="future-leaf"),
        pytest.param((leaf(age=20),), [leaf().tlsa(3)], NO_MATCH, id="another-leaf"),
        pytest.param((leaf(hosts=("rcpt.test",)), MIDDLE), [MIDDLE.tlsa(2)], None, id="domain"),
        pytest.param((leaf(hosts=("*.rcpt.test",)), MIDDLE), [MIDDLE.tlsa(2)], None, id="wildcard"),
        pytest.param((leaf(hosts=("MX.Rcpt.Test",)), MIDDLE), [MIDDLE.tlsa(2)], None, id="capitals"),
        pytest.param(
            (leaf(hosts=("*.test",)), MIDDLE),
            [MIDDLE.tlsa(2)],
            "its certificate is not for mx.rcpt.test",
            id="wildcard-of-all",
        ),
        pytest.param(
            (leaf(hosts=("mx.else.test",)), MIDDLE),
            [MIDDLE.tlsa(2)],
            "its certificate is not for mx.rcpt.test",
            id="other-name",
        ),
        pytest.param((make("mx.rcpt.test", MIDDLE, ca=False), MIDDLE), [MIDDLE.tlsa(2)], None, id="common-name"),
        pytest.param((), [GOOD.tlsa(3)], "it showed no certificate", id="nothing"),
    ],
)
def test_a_chain_is_the_one_described_or_it_is_not(
    shown: tuple[Made, ...], records: list[Tlsa], verdict: str | None
) -> None:
    assert judge(records, chain(*shown), HOST, NOW) == verdict


@pytest.mark.parametrize(
    ("record", "counts"),
    [
        (Tlsa(3, 1, 1, b"x" * 32), True),
        (Tlsa(2, 0, 2, b"x" * 64), True),
        (Tlsa(0, 0, 1, b"x" * 32), False),
        (Tlsa(1, 0, 1, b"x" * 32), False),
        (Tlsa(4, 0, 1, b"x" * 32), False),
        (Tlsa(3, 2, 1, b"x" * 32), False),
        (Tlsa(3, 1, 3, b"x" * 32), False),
        (Tlsa(3, 1, 1, b"x" * 31), False),
        (Tlsa(3, 0, 0, b"rubbish"), False),
        (GOOD.tlsa(3, 0, 0), True),
        (GOOD.tlsa(3, 1, 0), True),
    ],
)
def test_only_records_that_can_match_count(record: Tlsa, counts: bool) -> None:
    assert bool(usable([record])) is counts


@given(st.lists(st.binary(max_size=80), max_size=4), st.binary(max_size=80))
def test_whatever_a_peer_shows_it_is_judged(shown: list[bytes], data: bytes) -> None:
    records = usable([Tlsa(2, 0, 0, data), GOOD.tlsa(3), ROOT.tlsa(2, 0, 0)])
    assert judge(records, shown, HOST, NOW) is not None
    assert judge(records, [GOOD.der, *shown], HOST, NOW) is None
    assert judge(records, [leaf_bytes(), *shown], HOST, NOW) is not None


def leaf_bytes() -> bytes:
    return OTHER.der


OTHER = make("other", ca=False, hosts=("mx.rcpt.test",))
