"""Notices, read back by the standard library's parser."""

from dataclasses import replace
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from arkrelay.mail.dsn import ORIGINAL_BYTES, Report, decode_xtext, render, subject_of
from arkrelay.mail.header import decode_words, scan, split
from arkrelay.mail.sevenbit import to_seven_bit

NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 +0000
ORIGINAL = b"Received: by relay.test\r\nFrom: app@sender.test\r\nSubject: Order 17\r\n\r\nHello.\r\n"
REPORT = Report(
    action="failed",
    hostname="relay.test",
    return_path="app@sender.test",
    at=NOW,
    message_id="<n1@relay.test>",
    boundary="=_n1",
    original_message_id="<17@sender.test>",
    original_subject="Order 17",
    arrived_at=NOW - 60,
    address="ann@rcpt.test",
    token="t17",
    status="5.1.1",
    sentence="550 no mailbox: Delivery to ann@rcpt.test failed at 192.0.2.1:25 (mx.rcpt.test): 550 5.1.1 who?",
    advice="Check the address.",
    envid="QQ+2B17",
    orcpt="rfc822;Ann+2Btag@rcpt.test",
    remote_host="mx.rcpt.test",
    diagnostic=("smtp", "550 5.1.1 who?"),
    attempted_at=NOW - 1,
)


def parsed(report: Report = REPORT, original: bytes = ORIGINAL, *, whole: bool = False) -> EmailMessage:
    content = render(report, original, whole=whole)
    assert content.count(b"\n") == content.count(b"\r\n") == content.count(b"\r")
    scan(split(content)[0])
    found = message_from_bytes(content, policy=default)
    assert isinstance(found, EmailMessage)
    # the parser takes what stands encoded in a message/global for a header
    assert b"message/global" in content or [part.defects for part in found.walk() if part.defects] == []
    return found


def parts(message: EmailMessage) -> list[Any]:
    return list(message.get_payload())


def fields(message: EmailMessage) -> list[dict[str, str]]:
    """Return the two groups of the part for programs."""
    return [{name: str(text) for name, text in group.items()} for group in parts(message)[1].get_payload()]


def test_a_notice_of_failure_field_by_field() -> None:
    message = parsed()
    assert dict(message.items()) == {
        "From": "MAILER-DAEMON <postmaster@relay.test>",
        "To": "app@sender.test",
        "Subject": "Not delivered to ann@rcpt.test",
        "Date": "Fri, 15 Jan 2027 08:00:00 +0000",
        "Message-ID": "<n1@relay.test>",
        "References": "<17@sender.test>",
        "Auto-Submitted": "auto-replied",
        "MIME-Version": "1.0",
        "Content-Type": 'multipart/report; report-type="delivery-status"; boundary="=_n1"',
    }
    assert [part.get_content_type() for part in parts(message)] == [
        "text/plain", "message/delivery-status", "text/rfc822-headers",
    ]  # fmt: skip
    assert fields(message) == [
        {
            "Original-Envelope-Id": "QQ+17",
            "Reporting-MTA": "dns; relay.test",
            "Arrival-Date": "Fri, 15 Jan 2027 07:59:00 +0000",
        },
        {
            "Original-Recipient": "rfc822; Ann+tag@rcpt.test",
            "Final-Recipient": "rfc822; ann@rcpt.test",
            "Action": "failed",
            "Status": "5.1.1",
            "Remote-MTA": "dns; mx.rcpt.test",
            "Diagnostic-Code": "smtp; 550 5.1.1 who?",
            "Last-Attempt-Date": "Fri, 15 Jan 2027 07:59:59 +0000",
            "Final-Log-ID": "t17",
        },
    ]
    text = parts(message)[0].get_content()
    for words in ("relay.test", "ann@rcpt.test", "Order 17", "no mailbox", "Check the address.", "07:59:00"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 76
    assert parts(message)[2].get_content() == ORIGINAL.split(b"Hello")[0][:-2].decode()


def test_a_notice_of_delay_says_until_when_it_is_tried() -> None:
    message = parsed(replace(REPORT, action="delayed", status="4.2.0", retry_until=NOW + 3600))
    assert fields(message)[1]["Action"] == "delayed"
    assert fields(message)[1]["Will-Retry-Until"] == "Fri, 15 Jan 2027 09:00:00 +0000"
    assert "gives up on Fri, 15 Jan 2027 09:00:00 +0000" in parts(message)[0].get_content()
    assert message["Subject"] == "Not yet delivered to ann@rcpt.test"


def test_what_is_not_known_is_left_out() -> None:
    bare = replace(
        REPORT, envid=None, orcpt=None, remote_host=None, diagnostic=None, attempted_at=None, original_message_id="",
        original_subject="",
    )  # fmt: skip
    message = parsed(bare, b"")
    assert set(fields(message)[0]) == {"Reporting-MTA", "Arrival-Date"}
    assert set(fields(message)[1]) == {"Final-Recipient", "Action", "Status", "Final-Log-ID"}
    assert message["References"] is None
    assert len(parts(message)) == 2


@pytest.mark.parametrize(
    ("size", "whole", "kind"),
    [
        pytest.param(0, True, "message/rfc822", id="full"),
        pytest.param(0, False, "text/rfc822-headers", id="headers"),
        pytest.param(ORIGINAL_BYTES, True, "text/rfc822-headers", id="too-large"),
    ],
)
def test_what_comes_back_of_the_original(size: int, kind: str, *, whole: bool) -> None:
    last = parts(parsed(original=ORIGINAL + b"x" * size, whole=whole))[2]
    assert last.get_content_type() == kind
    if kind == "message/rfc822":
        assert last.get_payload()[0]["Subject"] == "Order 17"
        assert last.get_payload()[0].get_content() == "Hello.\r\n"


def test_a_huge_header_comes_back_in_part() -> None:
    header = b"".join(b"X-%d: %b\r\n" % (number, b"y" * 900) for number in range(200))
    assert len(render(REPORT, header + b"\r\nbody", whole=False)) < ORIGINAL_BYTES + 5000


def test_eight_bit_content_comes_back_byte_by_byte_and_fits_a_seven_bit_peer() -> None:
    original = ORIGINAL + "Grüße\r\n".encode()
    content = render(REPORT, original, whole=True)
    assert b"Content-Transfer-Encoding: 8bit" in split(content)[0]
    assert original in content
    plain = to_seven_bit(content)
    assert plain.isascii()
    found: Any = message_from_bytes(plain, policy=default).get_payload()
    assert found[2].get_payload()[0].get_content() == "Hello.\r\nGrüße\r\n"


def test_an_international_recipient_is_told_in_seven_bits_to_a_plain_sender() -> None:
    original = "From: app@sender.test\r\nSubject: Grüße\r\n\r\nx\r\n".encode()
    report = replace(
        REPORT, address="bü+x@rcpt.test", diagnostic=("smtp", "550 kein Briefkasten für bü"), envid=None,
        orcpt=r"utf-8;b\x{FC}+2Bx@rcpt.test", original_subject="Grüße",
    )  # fmt: skip
    for whole in (False, True):
        content = render(report, original, whole=whole)
        assert content.isascii()
        message = parsed(report, original, whole=whole)
        assert fields(message)[1]["Final-Recipient"] == r"utf-8; b\x{FC}\x{2B}x@rcpt.test"
        assert fields(message)[1]["Original-Recipient"] == r"utf-8; b\x{FC}+x@rcpt.test"
        assert fields(message)[1]["Diagnostic-Code"] == "smtp; 550 kein Briefkasten f?r b?"
        assert "Grüße" in parts(message)[0].get_content()
        assert message["Subject"] == "Not delivered to bü+x@rcpt.test"
    assert b"Content-Type: message/global\r\nContent-Transfer-Encoding: base64\r\n" in content


def test_an_international_sender_is_told_in_utf8() -> None:
    original = "From: ü@sender.test\r\nSubject: Grüße\r\n\r\nx\r\n".encode()
    report = replace(REPORT, return_path="ü@sender.test", address="bü@rcpt.test", diagnostic=("smtp", "550 für"))
    content = render(report, original, whole=False)
    assert "To: ü@sender.test\r\n".encode() in content
    assert b"Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n" in content
    assert "Final-Recipient: utf-8; bü@rcpt.test\r\n".encode() in content
    assert "Diagnostic-Code: smtp; 550 für\r\n".encode() in content
    assert b"Content-Type: message/global-headers\r\nContent-Transfer-Encoding: 8bit\r\n" in content
    assert split(original)[0] in content


def test_a_header_in_no_known_charset_comes_back_encoded() -> None:
    last = parts(parsed(original=b"From: a@sender.test\r\nSubject: Gr\xfc\xdfe\r\n\r\nx\r\n"))[2]
    assert last.get_content_type() == "text/rfc822-headers"
    assert last.get_payload(decode=True) == b"From: a@sender.test\r\nSubject: Gr\xfc\xdfe\r\n"


def test_half_a_surrogate_pair_of_an_odd_charset_is_told_as_a_mark() -> None:
    text = decode_words(b"=?utf-7?q?Order_+2AA-?=")
    message = parsed(replace(REPORT, original_subject=text, sentence=text))
    assert str(parts(message)[0].get_content()).count("Order \N{REPLACEMENT CHARACTER}") == 2


def test_a_boundary_in_the_original_does_not_end_the_part() -> None:
    message = parsed(original=ORIGINAL + b"--=_n1\r\n--=_n1--\r\n", whole=True)
    assert len(parts(message)) == 3
    assert message.get_boundary() == "=_n1="


@pytest.mark.parametrize(
    ("xtext", "text"),
    [("QQ314159", "QQ314159"), ("a+2Bb+3Dc", "a+b=c"), ("+2b", "+2b"), ("+", "+"), ("", ""), ("+20+20", "  ")],
)
def test_xtext_is_undone(xtext: str, text: str) -> None:
    assert decode_xtext(xtext) == text


@example(sentence="x", subject="x", orcpt="x", envid="x", said="a NUL \x00 and \x1b[31m", original=b"")
@given(
    sentence=st.text(max_size=600), subject=st.text(max_size=200), orcpt=st.text(max_size=40),
    envid=st.text(alphabet="+0123456789ABCDEFx\r\n", max_size=40), said=st.text(max_size=500),
    original=st.binary(max_size=300),
)  # fmt: skip
def test_no_text_breaks_the_frame(
    sentence: str, subject: str, orcpt: str, envid: str, said: str, original: bytes
) -> None:
    printable = "".join(one for one in subject if one.isprintable())
    report = replace(
        REPORT, sentence=sentence, original_subject=printable, orcpt=f"rfc822;{orcpt}", envid=envid,
        diagnostic=("smtp", said),
    )  # fmt: skip
    content = render(report, original, whole=True)
    header = split(content)[0]
    assert header.isascii()
    assert [name for name, _ in scan(header)][:2] == [b"from", b"to"]
    status = content.split(b"Content-Type: message/delivery-status\r\n\r\n")[1].split(b"\r\n--")[0]
    for group in status.rstrip(b"\r\n").split(b"\r\n\r\n"):
        scan(group + b"\r\n")
    assert len(status.split(b"\r\n\r\n")) == 2
    assert subject_of(report).endswith("ann@rcpt.test")
