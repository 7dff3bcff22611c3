"""What comes back, shape by shape: ``tests/data/bounces`` holds one message of each, written after descriptions."""

import base64
import quopri
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.mail.mime import MAX_PARTS, walk
from arkrelay.mail.report import parse_report
from arkrelay.mail.verp import ReturnPaths
from arkrelay.model.attempt import BounceClass
from arkrelay.model.report import Report, ReportKind
from arkrelay.policy.classify import Rules
from arkrelay.policy.reports import bounce_class_of

FOLDER = Path(__file__).parents[2] / "data" / "bounces"
MARK = ReturnPaths(b"s" * 32).local_part(7, 1_770_000_000.0)
RULES = Rules.load()
TO = "bob@dest.test"

BOUNCE, DELAY, RECEIPT = ReportKind.BOUNCE, ReportKind.DELAY, ReportKind.RECEIPT
AUTO, COMPLAINT, UNKNOWN = ReportKind.AUTO_REPLY, ReportKind.COMPLAINT, ReportKind.UNKNOWN
BAD, GONE, FULL = BounceClass.BAD_ADDRESS, BounceClass.NOT_ACCEPTING, BounceClass.MAILBOX_FULL

# name → kind, class, status
FORMS: dict[str, tuple[ReportKind, BounceClass | None, str]] = {
    "aol-old": (BOUNCE, GONE, ""),
    "base64-report": (BOUNCE, BAD, "5.1.1"),
    "blocklisted": (BOUNCE, BounceClass.BLOCKLISTED, "5.7.1"),
    "bounce-quotes-delayed-original": (BOUNCE, BAD, "5.1.1"),
    "bounce-then-delayed-original": (BOUNCE, BAD, "5.1.1"),
    "communigate": (BOUNCE, FULL, ""),
    "domino": (BOUNCE, BAD, ""),
    "exchange-2003": (BOUNCE, BAD, "5.1.1"),
    "exchange-german": (BOUNCE, BAD, "5.1.1"),
    "exchange-online": (BOUNCE, BAD, "5.1.10"),
    "exchange-prose-confirm-subject": (BOUNCE, BAD, "5.1.1"),
    "exchange-quota": (BOUNCE, FULL, "5.2.2"),
    "exchange-restricted": (BOUNCE, BounceClass.POLICY, "5.7.133"),
    "exim-report": (BOUNCE, BounceClass.CONTENT_SPAM, "5.7.1"),
    "exim-report-bare": (BOUNCE, BAD, "5.0.0"),
    "exim-retry-timeout": (BOUNCE, BounceClass.TRY_LATER, ""),
    "exim-text": (BOUNCE, BAD, "5.1.1"),
    "exim-verify-subject": (BOUNCE, BAD, "5.1.1"),
    "forwarded-alias": (BOUNCE, FULL, "5.2.2"),
    "gmail-not-found": (BOUNCE, BAD, "5.1.1"),
    "gmail-text": (BOUNCE, BAD, "5.1.1"),
    "groupwise-report": (BOUNCE, BAD, "5.1.1"),
    "icloud-full": (BOUNCE, FULL, "5.2.2"),
    "imail": (BOUNCE, FULL, ""),
    "lost-empty-lines": (BOUNCE, BAD, "5.1.1"),
    "mailenable": (BOUNCE, BounceClass.NO_MAILBOX, ""),
    "mdaemon": (BOUNCE, BAD, ""),
    "mixed-without-report-type": (BOUNCE, BAD, "5.1.1"),
    "no-action": (BOUNCE, GONE, "5.2.1"),
    "noreply-bounces": (BOUNCE, BAD, "5.1.1"),
    "opensmtpd": (BOUNCE, BAD, ""),
    "policy-dmarc": (BOUNCE, BounceClass.POLICY, "5.7.26"),
    "postfix-gave-up": (BOUNCE, BounceClass.TRY_LATER, "4.4.1"),
    "postfix-local-unknown": (BOUNCE, BAD, "5.1.1"),
    "postfix-mailbox-full": (BOUNCE, FULL, "5.2.2"),
    "postfix-unknown-user": (BOUNCE, BAD, "5.1.1"),
    "prose-chinese": (BOUNCE, BounceClass.NO_MAILBOX, ""),
    "prose-french": (BOUNCE, BAD, "5.1.1"),
    "prose-german-gave-up": (BOUNCE, None, ""),
    "prose-japanese": (BOUNCE, BAD, "5.1.1"),
    "prose-portuguese": (BOUNCE, FULL, "5.2.2"),
    "prose-russian": (BOUNCE, BAD, "5.1.1"),
    "prose-spanish": (BOUNCE, BAD, "5.1.1"),
    "prose-subject-is-ours": (BOUNCE, BAD, "5.1.1"),
    "prose-waiting-list-subject": (BOUNCE, BAD, ""),
    "qmail-office-subject": (BOUNCE, BounceClass.NO_MAILBOX, "5.1.1"),
    "qmail-qsbmf": (BOUNCE, BounceClass.NO_MAILBOX, "5.1.1"),
    "qmail-remote": (BOUNCE, FULL, "5.2.2"),
    "sendmail-gave-up": (BOUNCE, BounceClass.TRY_LATER, ""),
    "sendmail-old": (BOUNCE, BAD, ""),
    "sendmail-report": (BOUNCE, BAD, "5.1.1"),
    "smartermail": (BOUNCE, GONE, "5.2.1"),
    "smtputf8-global": (BOUNCE, BAD, "5.1.1"),
    "text-with-fields": (BOUNCE, BAD, "5.1.1"),
    "wrapped-in-mixed": (BOUNCE, BAD, "5.1.1"),
    "xmail": (BOUNCE, BAD, "5.1.1"),
    "yahoo-disabled": (BOUNCE, GONE, "5.0.0"),
    "yahoo-gave-up": (BOUNCE, BounceClass.TRY_LATER, ""),
    "yahoo-text": (BOUNCE, BAD, ""),
    "delay-quotes-reply": (DELAY, None, "4.2.0"),
    "exchange-delayed": (DELAY, None, "4.4.7"),
    "exim-warning": (DELAY, None, ""),
    "gmail-delay": (DELAY, None, "4.4.2"),
    "postfix-delay-warning": (DELAY, None, "4.4.1"),
    "sendmail-warning": (DELAY, None, "4.4.1"),
    "dsn-delivered": (RECEIPT, None, "2.1.5"),
    "dsn-expanded": (RECEIPT, None, "2.0.0"),
    "postfix-relayed": (RECEIPT, None, "2.0.0"),
    "challenge-response": (AUTO, None, ""),
    "exchange-out-of-office": (AUTO, None, ""),
    "noreply-quotes-us": (AUTO, None, ""),
    "noreply-ticket": (AUTO, None, ""),
    "read-receipt": (AUTO, None, ""),
    "read-receipt-deleted": (AUTO, None, ""),
    "ticket-system": (AUTO, None, ""),
    "vacation-french": (AUTO, None, ""),
    "vacation-german": (AUTO, None, ""),
    "vacation-quotes-bounce": (AUTO, None, ""),
    "vacation-rfc3834": (AUTO, None, ""),
    "vacation-with-fields": (AUTO, None, ""),
    "vacation-xautoreply": (AUTO, None, ""),
    "arf-abuse": (COMPLAINT, None, ""),
    "arf-cfbl": (COMPLAINT, None, ""),
    "arf-commented": (COMPLAINT, None, ""),
    "arf-fraud": (COMPLAINT, None, ""),
    "arf-redacted": (COMPLAINT, None, ""),
    "jmrp-legacy": (COMPLAINT, None, ""),
    "arf-auth-failure": (UNKNOWN, None, ""),
    "arf-not-spam": (UNKNOWN, None, ""),
    "arf-untyped": (UNKNOWN, None, ""),
    "arf-virus": (UNKNOWN, None, ""),
    "daemon-says-nothing": (UNKNOWN, None, ""),
    "empty": (UNKNOWN, None, ""),
    "human-answers-confirm": (UNKNOWN, None, ""),
    "human-asks": (UNKNOWN, None, ""),
    "human-reply": (UNKNOWN, None, ""),
    "mimecast-footer": (UNKNOWN, None, ""),
    "noreply-acknowledges": (UNKNOWN, None, ""),
    "spam": (UNKNOWN, None, ""),
}


def load(name: str) -> bytes:
    content = (FOLDER / f"{name}.eml").read_bytes().replace(b"\n", b"\r\n")
    return content.replace(b"@TO@", MARK.encode() + b"@rp.relay.test").replace(b"@MARK@", MARK.encode())


def test_every_message_of_the_folder_has_its_row() -> None:
    assert {path.stem for path in FOLDER.glob("*.eml")} == set(FORMS)


@pytest.mark.parametrize("name", FORMS)
def test_each_shape_is_told(name: str) -> None:
    kind, bounce_class, status = FORMS[name]
    report = parse_report(load(name))
    finding = report.about(TO)
    assert report.kind_for(finding) is kind
    assert (finding.status if finding is not None else "") == status
    if bounce_class is not None:
        assert bounce_class_of(finding, RULES) is bounce_class
    if kind is COMPLAINT:
        assert report.marks == (MARK,)


def test_what_is_said_of_our_recipient_goes_before_what_is_said_of_others() -> None:
    report = parse_report(load("forwarded-alias"))
    mine, other = report.about("BOB@dest.test"), report.about("ann@dest.test")
    assert mine is not None
    assert other is not None
    assert (mine.address, mine.action) == ("robert@elsewhere.test", "failed")
    assert other.action == "delivered"


@pytest.mark.parametrize(
    ("field", "address"),
    [
        ("Final-Recipient: utf-8; b\\x{FC}b@dest.test", "b\u00fcb@dest.test"),
        ("Final-Recipient: UTF-8; B\u00dcB@dest.test", "b\u00fcb@dest.test"),
        ("Final-Recipient: utf-8; bob@b\u00fccher.test", "bob@xn--bcher-kva.test"),
        ("Original-Recipient: rfc822; bob+2Bnews@dest.test", "bob+news@dest.test"),
        ("Original-Recipient: rfc822; bob+20@dest.test", "bob+20@dest.test"),
        ("Original-Recipient: utf-8; b+5Cx{FC}b@dest.test", "b\u00fcb@dest.test"),
        ("Final-Recipient: rfc822; <Bob@dest.test>", "bob@dest.test"),
    ],
)
def test_our_recipient_is_known_however_it_is_written(field: str, address: str) -> None:
    content = (
        "Content-Type: multipart/report; boundary=b\r\n\r\n"
        "--b\r\nContent-Type: message/global-delivery-status\r\n\r\n"
        f"Reporting-MTA: dns; mx.dest.test\r\n\r\n{field}\r\nAction: delivered\r\nStatus: 2.0.0\r\n\r\n"
        "Final-Recipient: rfc822; ann@dest.test\r\nAction: failed\r\nStatus: 5.1.1\r\n--b--\r\n"
    )
    report = parse_report(content.encode())
    assert report.kind_for(report.about(address)) is RECEIPT
    assert report.kind_for(report.about("ann@dest.test")) is BOUNCE


@pytest.mark.parametrize("odd", ["\\x{D800}", "\\x{110000}", "\\x{}", "\\x{1}", "+5Cx{D800}"])
def test_an_escape_of_no_character_does_no_harm(odd: str) -> None:
    content = load("smtputf8-global").replace("j\u00f6rg@".encode(), f"j{odd}@".encode())
    finding = parse_report(content).about(TO)
    assert finding is not None
    assert finding.address.isprintable()


def test_a_reply_of_many_lines_is_one_text() -> None:
    finding = parse_report(load("gmail-not-found")).about(TO)
    assert finding is not None
    assert (finding.code, finding.host.split(".", maxsplit=1)[0]) == (550, "gmail-smtp-in")
    assert finding.text.startswith("The email account that you tried to reach does not exist. Please try double-")
    assert "550" not in finding.text


def test_our_own_message_inside_a_bounce_decides_nothing() -> None:
    quoted = b"\r\nReturned mail: 550 5.1.1 user unknown, mailbox is full\r\n"
    content = load("vacation-xautoreply") + b"\r\n-----Original Message-----" + quoted
    assert parse_report(content).kind is AUTO
    finding = parse_report(load("qmail-remote") + quoted).about(TO)
    assert finding is not None
    assert finding.status == "5.2.2"


def test_marks_come_from_the_envelope_before_the_text() -> None:
    other = ReturnPaths(b"s" * 32).local_part(8, 1_770_000_000.0).encode()
    content = load("arf-abuse").replace(b"This is an email abuse report.", b"see " + other + b"@rp.relay.test")
    assert parse_report(content).marks == (MARK, other.decode())


@pytest.mark.parametrize("encode", [base64.encodebytes, quopri.encodestring], ids=["base64", "quoted-printable"])
@pytest.mark.parametrize(("told", "kind"), [("abuse", COMPLAINT), ("not-spam", UNKNOWN)])
def test_a_feedback_report_is_read_whatever_its_parts_are_encoded_in(
    encode: Callable[[bytes], bytes], told: str, kind: ReportKind
) -> None:
    name = b"base64" if encode is base64.encodebytes else b"quoted-printable"
    report = b"Feedback-Type: %b\nVersion: 1\n" % told.encode()
    returned = b"Received: from relay.test by mx.dest.test\nReturn-Path: <%b@rp.relay.test>\n" % MARK.encode()
    content = b"Content-Type: multipart/report; boundary=b\n\n" + b"".join(
        b"--b\nContent-Type: %b\nContent-Transfer-Encoding: %b\n\n%b\n" % (type_, name, encode(part))
        for type_, part in ((b"message/feedback-report", report), (b"text/rfc822-headers", returned))
    )
    found = parse_report((content + b"--b--\n").replace(b"\n", b"\r\n"))
    assert (found.kind, found.feedback_type, found.marks) == (kind, told, (MARK,))


def test_nothing_in_it_can_speak_to_a_terminal() -> None:
    content = load("human-reply").replace(b"Re: Your", b"\x1b[2J=?utf-8?q?=1B=0D=0A?=").replace(b"Thank", b"\x1b[31m")
    report = parse_report(content)
    assert report.subject.isprintable()
    assert report.explanation.replace("\n", "").isprintable()


@pytest.mark.parametrize("name", ["postfix-unknown-user", "text-with-fields", "exim-text", "prose-french"])
def test_no_finding_can_speak_to_a_terminal(name: str) -> None:
    odd = b"\x1b[31m\x07\xe2\x80\xae\t=?utf-7?q?+2AA-?="
    content = load(name).replace(b"550 5.1.1 ", b"550 5.1.1 " + odd).replace(b"; ", b"; " + odd)
    content = content.replace(b"bob@dest.test", b"bob" + odd + b"@dest.test").replace(b"\r\nIl ", b"\r\n" + odd)
    found = parse_report(content).findings
    assert found
    for finding in found:
        for text in (finding.address, finding.original, finding.status, finding.text, finding.host):
            assert text.isprintable()


@pytest.mark.parametrize("name", FORMS)
def test_a_report_that_is_cut_anywhere_is_still_read(name: str) -> None:
    content = load(name)
    dice = random.Random(name)
    for at in [*range(0, min(len(content), 200), 7), *(dice.randrange(len(content) + 1) for _ in range(20))]:
        assert isinstance(parse_report(content[:at]), Report)


@given(st.binary(max_size=2000))
def test_rubbish_is_read_as_something(rubbish: bytes) -> None:
    assert isinstance(parse_report(rubbish), Report)


@given(st.sampled_from(sorted(FORMS)), st.integers(0, 3000), st.binary(max_size=60))
def test_rubbish_within_a_report_does_no_harm(name: str, at: int, rubbish: bytes) -> None:
    content = load(name)
    assert isinstance(parse_report(content[:at] + rubbish + content[at:]), Report)


def test_nested_and_endless_parts_cost_a_bounded_number_of_them() -> None:
    nested = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(5000))
    many = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 50_000
    assert len(walk(nested)) <= MAX_PARTS
    assert len(walk(many)) == MAX_PARTS
    recipients = b"Final-Recipient: rfc822; a@b.test\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n" * 20_000
    content = load("no-action").replace(b"Final-Recipient: rfc822; bob@dest.test", recipients)
    assert len(parse_report(content).findings) <= 101


@pytest.mark.parametrize(
    "bait",
    [
        b"<" * 60_000,
        b"said: host " * 6000,
        b"<style>" * 9000,
        b"550-" * 15_000,
        b"a@" * 30_000,
        b"550 5.1.1 " * 6000,
        b"not " * 15_000,
        b"=?utf-8?q?" * 6000,
        b"\r\n" * 30_000,
    ],
)
def test_bait_for_regular_expressions_is_read_in_no_time(bait: bytes) -> None:
    import time  # noqa: PLC0415 -- for this test alone

    for kind in (b"text/plain", b"text/html"):
        content = b"From: mailer-daemon\r\nContent-Type: %b\r\n\r\n%b" % (kind, bait)
        began = time.process_time()
        parse_report(content)
        parse_report(b"Subject: " + bait + b"\r\n\r\n")
        assert time.process_time() - began < 1.0


def mute_failures() -> bytes:
    """Return a report of 12 KB: many failures without words of their own, beside a text that is slow to search."""
    text = b"undeliverable " + (b"rcpt to: host said " * 500)[:8000]
    status = b"Action: failed\r\nFinal-Recipient: rfc822; a@dest.test\r\n\r\n" * 100
    return (
        b"From: mailer-daemon@dest.test\r\nContent-Type: multipart/report; boundary=b\r\n\r\n"
        b"--b\r\n\r\n"
        + text
        + b" 550 \r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n"
        + status
        + b"--b--\r\n"
    )


def test_the_text_for_people_is_read_once_for_all_failures_without_words() -> None:
    import time  # noqa: PLC0415 -- for this test alone

    content = mute_failures()
    assert len(content) < 32_768
    began = time.process_time()
    report = parse_report(content)
    assert time.process_time() - began < 0.5
    assert len(report.findings) == 100
    assert all(one.text for one in report.findings)
