"""Signatures of our own domains go, and no other byte."""

import pytest

from arkrelay.mail.header import scan
from arkrelay.mail.strip import signed_by, strip_signatures

OURS = b"DKIM-Signature: v=1; a=rsa-sha256;\r\n\td=Sender.Test; s=s1; b=AAAA\r\n"
THEIRS = b"DKIM-Signature: v=1; d=other.test; s=x; b=BBBB\r\n"
REST = b"From: a@sender.test\r\nSubject: d=sender.test\r\n"


@pytest.mark.parametrize(
    ("content", "stripped"),
    [
        pytest.param(OURS + REST + b"\r\nbody\r\n", REST + b"\r\nbody\r\n", id="ours-goes"),
        pytest.param(THEIRS + REST + b"\r\nbody", THEIRS + REST + b"\r\nbody", id="theirs-stays"),
        pytest.param(OURS + THEIRS + OURS + REST + b"\r\n", THEIRS + REST + b"\r\n", id="several"),
        pytest.param(REST + b"\r\n" + OURS, REST + b"\r\n" + OURS, id="not-in-the-body"),
    ],
)
def test_only_our_signatures_are_removed(content: bytes, stripped: bytes) -> None:
    assert strip_signatures(content, frozenset({"sender.test"})) == stripped


@pytest.mark.parametrize(
    ("raw", "domain"),
    [
        (OURS, "sender.test"),
        (b"DKIM-Signature: v=1; bd=no.test; d = Spaced.Test ; s=x\r\n", "spaced.test"),
        (b"DKIM-Signature: rubbish\r\n", ""),
    ],
)
def test_the_signing_domain_is_read_in_lower_case(raw: bytes, domain: str) -> None:
    assert signed_by(scan(raw)[0]) == domain
