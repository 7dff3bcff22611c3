"""Signatures: another implementation verifies ours, ours verifies its, and nothing can be added afterwards."""

import base64
import functools
import re
import sys
import threading
import time
from collections.abc import Callable

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from arkrelay.mail.canonical import relaxed_body, simple_body
from arkrelay.mail.dkim import (
    ED25519,
    RSA,
    PrivateKey,
    Signer,
    canonicalise,
    generate_key,
    key_bits,
    load_key,
    public_record,
    sign,
    sign_canonical,
    verify,
)
from arkrelay.mail.header import HeaderError

NOW = float(int(time.time()))  # the other implementation asks the clock
HEADER = (
    b"From: Joe <joe@x.test>\r\nTo: a@y.test,\r\n\tb@y.test\r\nSubject:  two   spaces \r\n"
    b"Date: Mon, 1 Jan 2024 00:00:00 +0000\r\nMessage-ID: <1@x.test>\r\nReceived: from a by b; c\r\n"
    b"References: <0@x.test>\r\nList-Id: l.x.test\r\nReturn-Path: <joe@x.test>\r\nX-Other: y\r\n"
)
CONTENT = HEADER + b"\r\nHello\r\n"


@functools.cache
def a_key(algorithm: str) -> PrivateKey:
    return load_key(generate_key(algorithm), algorithm)


@functools.cache
def a_signer(algorithm: str) -> Signer:
    return Signer("x.test", algorithm.partition("-")[0], algorithm, a_key(algorithm))


@functools.cache
def records() -> dict[str, str]:
    return {f"{name.partition('-')[0]}._domainkey.x.test": public_record(a_key(name)) for name in (RSA, ED25519)}


def fetch(name: str) -> list[str]:
    return [record] if (record := records().get(name)) else []


def fetch_for_dkimpy(name: bytes, timeout: float = 5) -> bytes:
    return records()[name.decode().rstrip(".")].encode()


NASTY_BODIES = [
    pytest.param(b"", id="empty"),
    pytest.param(b"\r\n", id="one-empty-line"),
    pytest.param(b"\r\n" * 5, id="only-empty-lines"),
    pytest.param(b" \t\r\n \r\n", id="only-white-space"),
    pytest.param(b"no line end", id="no-line-end"),
    pytest.param(b"text\r\n\r\n\r\n\r\n", id="trailing-empty-lines"),
    pytest.param(b"text\r\n \r\n\t\r\n", id="trailing-lines-of-white-space"),
    pytest.param(b"trailing  \t \r\nspaces \r\n", id="trailing-spaces"),
    pytest.param(b"a \t  b\tc  d\r\n  indented\r\n\ttabbed\r\n", id="runs-of-white-space"),
    pytest.param(b"x" * 50_000 + b"\r\n", id="long-line"),
    pytest.param(b" " * 5001 + b"x\r\n", id="long-run-of-spaces"),
    pytest.param(b".\r\n..\r\n.a\r\n", id="dots"),
    pytest.param(b"\r\n\r\nafter empty lines\r\n", id="leading-empty-lines"),
    pytest.param(bytes(b for b in range(256) if b not in b"\r\n") * 9 + b"\r\n", id="all-bytes"),
]


@pytest.mark.parametrize("body", NASTY_BODIES)
def test_another_implementation_verifies_our_rsa_signature(body: bytes) -> None:
    content = HEADER + b"\r\n" + body
    assert dkim.verify(sign(content, [a_signer(RSA)], NOW) + content, dnsfunc=fetch_for_dkimpy)


@pytest.mark.parametrize("body", NASTY_BODIES)
def test_ours_verifies_both_of_our_signatures(body: bytes) -> None:
    content = HEADER + b"\r\n" + body
    verdicts = verify(sign(content, [a_signer(RSA), a_signer(ED25519)], NOW) + content, fetch, now=NOW)
    assert [(each.domain, each.selector, each.ok) for each in verdicts] == [
        ("x.test", "rsa", True),
        ("x.test", "ed25519", True),
    ]


@pytest.mark.parametrize("body", NASTY_BODIES)
@pytest.mark.parametrize("header_form", [b"simple", b"relaxed"])
@pytest.mark.parametrize("body_form", [b"simple", b"relaxed"])
def test_ours_verifies_what_another_implementation_signed(body: bytes, header_form: bytes, body_form: bytes) -> None:
    content = HEADER + b"\r\n" + body
    pem = a_key(RSA).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    field = dkim.sign(content, b"rsa", b"x.test", pem, canonicalize=(header_form, body_form))
    (verdict,) = verify(field + content, fetch)
    assert (verdict.ok, verdict.reason) == (True, "good signature (rsa-sha256)")


@pytest.mark.parametrize("body", [b" ", b"space at the end ", b"a\r\n ", b"x"])
def test_a_missing_last_line_end_which_the_wire_adds_does_not_break_the_signature(body: bytes) -> None:
    content = HEADER + b"\r\n" + body
    signed = sign(content, [a_signer(RSA)], NOW) + content + b"\r\n"
    assert verify(signed, fetch, now=NOW)[0].ok
    assert dkim.verify(signed, dnsfunc=fetch_for_dkimpy)


@pytest.mark.parametrize("body", [b"a\n", b"a\r", b"a\r\n\n\r\n", b"\n", b"a\r\r\n", b"a\n\n\r\n\r\n"])
def test_only_whole_line_ends_are_taken_from_the_end(body: bytes) -> None:
    text = re.sub(rb"(?:\r\n)*\Z", b"", body)
    assert simple_body(body) == relaxed_body(body) == text + b"\r\n"


BODY_PIECES = st.sampled_from([b" ", b"\t", b"\r\n", b"a", b"\xff", b".", b"  ", b"\r\n\r\n"])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(BODY_PIECES, max_size=20).map(b"".join),
    st.lists(st.sampled_from([b"a", b" ", b"\t", b"\r\n ", b":", b";"]), max_size=8).map(b"".join),
)
def test_any_body_and_any_folding_verifies_elsewhere(body: bytes, subject: bytes) -> None:
    content = b"From: joe@x.test\r\nSubject:" + subject + b"\r\nsubject:x\r\n\r\n" + body + b"\r\n"
    signed = sign(content, [a_signer(RSA)], NOW) + content
    assert dkim.verify(signed, dnsfunc=fetch_for_dkimpy)
    assert verify(signed, fetch, now=NOW)[0].ok


def test_the_signature_says_what_the_standards_want() -> None:
    fields = sign(CONTENT, [a_signer(RSA), a_signer(ED25519)], NOW + 0.7)
    lines = fields.split(b"\r\n")
    assert max(len(line) for line in lines) <= 78
    first, second = re.findall(rb"DKIM-Signature: .*?\r\n(?=DKIM|\Z)", fields, re.DOTALL)
    assert b"a=rsa-sha256" in first
    assert b"a=ed25519-sha256" in second
    items = [item.partition(b"=") for item in first[len(b"DKIM-Signature:") :].split(b";")]
    tags = {name.strip(): re.sub(rb"\s", b"", text) for name, _, text in items}
    assert set(tags) == {b"v", b"a", b"c", b"d", b"s", b"t", b"x", b"h", b"bh", b"b"}  # neither l= nor i=
    assert int(tags[b"t"]) == NOW
    assert int(tags[b"x"]) - int(tags[b"t"]) == 7 * 86400
    names = tags[b"h"].split(b":")
    for once in (b"from", b"to", b"subject", b"date", b"message-id"):
        assert names.count(once) == 2
    for absent in (
        *(b"cc", b"reply-to", b"mime-version", b"content-type", b"content-transfer-encoding"),
        *(b"list-unsubscribe", b"list-unsubscribe-post"),
    ):
        assert names.count(absent) == 1
    for plain in (b"references", b"list-id"):
        assert names.count(plain) == 1
    assert not {b"received", b"return-path", b"bcc", b"x-other", b"dkim-signature"} & set(names)


@pytest.mark.parametrize(
    "name",
    [
        *("From", "To", "Cc", "Subject", "Date", "Message-ID", "Reply-To", "MIME-Version", "Content-Type"),
        *("Content-Transfer-Encoding", "List-Unsubscribe", "List-Unsubscribe-Post"),
    ],
)
def test_no_field_that_readers_show_can_be_added(name: str) -> None:
    signed = sign(CONTENT, [a_signer(RSA)], NOW) + CONTENT
    added = f"{name}: x\r\n".encode()
    for forged in (added + signed, signed.replace(b"X-Other: y\r\n", added)):
        (verdict,) = verify(forged, fetch, now=NOW)
        assert (verdict.ok, verdict.reason[:2]) == (False, "b=")
        assert not dkim.verify(forged, dnsfunc=fetch_for_dkimpy)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param(b"Hello", b"Hallo", "body was changed", id="body"),
        pytest.param(b"Hello\r\n", b"Hello\r\nmore\r\n", "body was changed", id="body-extended"),
        pytest.param(b"Joe", b"Eve", "b= is not", id="author"),
        pytest.param(b"<0@x.test>", b"<2@x.test>", "b= is not", id="references"),
        pytest.param(b"t=1", b"t=2", "x= is before t=", id="time"),
        pytest.param(b"v=1", b"v=2", "v= is not 1", id="version"),
        pytest.param(b"rsa-sha256", b"rsa-sha1", "a= is neither", id="sha1"),
        pytest.param(b"rsa-sha256", b"ed25519-sha256", "another algorithm", id="algorithm-swapped"),
        pytest.param(b"relaxed/relaxed", b"relaxed/nofws", "c= is neither", id="canonical-form"),
        pytest.param(b"relaxed/relaxed", b"relaxed", "body was changed", id="body-form-defaults-to-simple"),
        pytest.param(b" d=x.test;", b"", "d= is missing", id="no-domain"),
        pytest.param(b" d=x.test;", b" d=x.test; d=x.test;", "d= appears twice", id="tag-twice"),
        pytest.param(b" d=x.test;", b" d=x..;", "not a name", id="bad-domain"),
        pytest.param(b" d=x.test;", b" d=y.test;", "no key record", id="no-key"),
        pytest.param(b" d=x.test;", b" d=x.test; i=joe@y.test;", "i= is not within", id="foreign-agent"),
        pytest.param(b" d=x.test;", b" d=x.test; i=joe@a.x.test;", "i= to be d=", id="agent-of-a-subdomain"),
        pytest.param(b" d=x.test;", b" d=x.test; i=@x.test;", "b= is not", id="agent-added"),
        pytest.param(b" d=x.test;", b" d=x.test; q=other;", "q= does not", id="query-method"),
        pytest.param(b" d=x.test;", b" d=x.test; l=5;", "l= leaves", id="length"),
        pytest.param(b" d=x.test;", b" d=x.test; nonsense;", "not a list of tags", id="no-tag"),
        pytest.param(b"h=from:from:", b"h=", "does not sign From", id="from-not-signed"),
        pytest.param(b"x=", b"x=x", "x= is not a number", id="no-number"),
        pytest.param(b"bh=", b"bh=!", "bh= is not base64", id="no-base64"),
    ],
)
def test_a_changed_message_or_signature_fails_and_says_why(old: bytes, new: bytes, reason: str) -> None:
    content = CONTENT if b"nofws" in new or old != b"relaxed/relaxed" else CONTENT + b"a  b\r\n"
    signed = sign(content, [a_signer(RSA)], NOW) + content
    assert verify(signed, fetch, now=NOW)[0].ok
    (verdict,) = verify(signed.replace(old, new, 1), fetch, now=NOW)
    assert not verdict.ok
    assert reason in verdict.reason


def test_a_signature_ends_after_a_week() -> None:
    signed = sign(CONTENT, [a_signer(RSA)], NOW) + CONTENT
    assert verify(signed, fetch, now=NOW + 7 * 86400)[0].ok
    assert verify(signed, fetch, now=NOW + 8 * 86400)[0].reason == "it has expired"
    assert verify(signed, fetch)[0].ok  # by the clock


def _with(**changes: str | None) -> Callable[[str], str]:
    def change(record: str) -> str:
        tags = dict(item.strip().split("=", 1) for item in record.split(";"))
        tags.update({name: value for name, value in changes.items() if value is not None})
        return "; ".join(f"{name}={value}" for name, value in tags.items() if changes.get(name, "") is not None)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda record: record, "good signature (rsa-sha256)", id="as-it-is"),
        pytest.param(_with(v=None), "good signature (rsa-sha256)", id="no-version"),
        pytest.param(_with(k=None), "good signature (rsa-sha256)", id="rsa-is-the-default"),
        pytest.param(
            _with(h="sha1:sha256", s="email", n="note"), "good signature (rsa-sha256)", id="restrictions-met"
        ),
        pytest.param(_with(v="DKIM2"), "the key record is not of DKIM1", id="version"),
        pytest.param(
            lambda record: f"k=rsa; {record.replace('k=rsa; ', '')}", "the key record is not of DKIM1", id="late"
        ),
        pytest.param(_with(k="ed25519"), "the key record is for another algorithm", id="kind"),
        pytest.param(_with(h="sha1"), "the key record does not allow sha256", id="hash"),
        pytest.param(_with(s="tlsrpt"), "the key record is not for mail", id="service"),
        pytest.param(_with(p=None), "the key record has no key", id="no-key"),
        pytest.param(_with(p=""), "the key was revoked", id="revoked"),
        pytest.param(_with(p="AAAA"), "the key record holds no key that can be read", id="rubbish"),
        pytest.param(_with(p="?"), "p= is not base64", id="not-base64"),
        pytest.param(lambda _: "v=spf1 -all", "the key record is not of DKIM1", id="spf"),
        pytest.param(lambda _: "nothing", "it is not a list of tags", id="text"),
    ],
)
def test_the_key_record_is_judged(change: Callable[[str], str], reason: str) -> None:
    signed = sign(CONTENT, [a_signer(RSA)], NOW) + CONTENT
    (verdict,) = verify(signed, lambda name: [change(record) for record in fetch(name)], now=NOW)
    assert verdict.reason == reason


def _short_key() -> rsa.RSAPrivateKey:
    """A key of 648 bits from two known primes, because libraries make none so short any more."""
    p, q, e = 2**521 - 1, 2**127 - 1, 65537
    d = pow(e, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(e, p * q)
    return rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public).private_key()


def _spki(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    der = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(der).decode()


def test_keys_of_the_wrong_kind_or_size_in_the_record_fail() -> None:
    signed = sign(CONTENT, [a_signer(RSA)], NOW) + CONTENT
    curve = _spki(ec.generate_private_key(ec.SECP256R1()))
    assert "another algorithm" in verify(signed, lambda _: [f"p={curve}"], now=NOW)[0].reason
    short = _spki(_short_key())
    assert "1024" in verify(signed, lambda _: [f"p={short}"], now=NOW)[0].reason
    both = [records()["ed25519._domainkey.x.test"], records()["rsa._domainkey.x.test"]]
    assert verify(signed, lambda _: both, now=NOW)[0].ok


def test_only_ten_signatures_are_judged() -> None:
    asked: list[str] = []

    def count(name: str) -> list[str]:
        asked.append(name)
        return fetch(name)

    verdicts = verify(sign(CONTENT, [a_signer(ED25519)] * 12, NOW) + CONTENT, count, now=NOW)
    assert len(verdicts) == len(asked) == 10
    assert all(verdict.ok for verdict in verdicts)


def test_a_message_without_signatures_has_no_verdicts() -> None:
    assert verify(CONTENT, fetch) == []
    assert sign(CONTENT, [], NOW) == b""
    with pytest.raises(HeaderError):
        sign(b"nothing\r\n\r\n", [a_signer(RSA)], NOW)


# RFC 8463 Appendix A: the example message with its keys
RFC_8463 = b"""\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
""".replace(b"\n", b"\r\n")
RFC_8463_KEYS = {
    "brisbane._domainkey.football.example.com": "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "test._domainkey.football.example.com": "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWR"
    "iGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4h"
    "stT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
}
RFC_8463_SECRET = base64.b64decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")


def test_the_example_of_rfc_8463_verifies() -> None:
    verdicts = verify(RFC_8463, lambda name: [RFC_8463_KEYS[name]])
    assert [(each.selector, each.ok, each.reason) for each in verdicts] == [
        ("brisbane", True, "good signature (ed25519-sha256)"),
        ("test", True, "good signature (rsa-sha256)"),
    ]


def test_the_private_key_of_rfc_8463_gives_its_record() -> None:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(RFC_8463_SECRET)
    published = RFC_8463_KEYS["brisbane._domainkey.football.example.com"]
    assert public_record(key) == published.replace("; p=", "; t=s; p=")


def _pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def test_only_usable_keys_are_loaded() -> None:
    assert key_bits(a_key(RSA)) == 2048
    assert key_bits(a_key(ED25519)) == 256
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    assert key_bits(load_key(_pem(weak), RSA)) == 1024  # the caller warns
    for pem, algorithm in (
        (b"", RSA),
        (b"rubbish", ED25519),
        (generate_key(ED25519), RSA),
        (_pem(weak), ED25519),
        (_pem(ec.generate_private_key(ec.SECP256R1())), RSA),
        (_pem(weak, b"secret"), RSA),
        (_pem(weak), "rsa-sha1"),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            load_key(pem, algorithm)
    with pytest.raises(ValueError, match="neither"):
        generate_key("rsa-sha1")


def test_an_rsa_key_below_1024_bits_must_not_sign() -> None:
    with pytest.raises(ValueError, match="648 bits"):
        load_key(_pem(_short_key()), RSA)


def test_a_key_is_never_shown() -> None:
    assert "key" not in repr(a_signer(RSA))


def test_signing_is_the_same_in_any_thread() -> None:
    canonical = canonicalise(CONTENT)
    expected = sign(CONTENT, [a_signer(RSA)], NOW)
    found: list[bytes] = []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [
            threading.Thread(target=lambda: found.append(sign_canonical(canonical, [a_signer(RSA)], NOW)))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert found == [expected] * 8
