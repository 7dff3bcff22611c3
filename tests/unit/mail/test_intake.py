"""What goes, what comes and what stays in the header of a submitted message."""

import json
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.mail.header import HeaderError, scan, split
from arkrelay.mail.intake import Intake, IntakeOptions, prepare

NOW = 1_700_000_000.0
DATE = b"Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n"
OPTIONS = IntakeOptions(
    now=NOW,
    hostname="mail.relay.test",
    own_message_id=lambda: "token",
    tenant_domains=frozenset({"x.test", "xn--bcher-kva.test"}),
)
BASE = b"From: Joe <joe@x.test>\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\nMessage-ID: <1@x.test>\r\n"
BODY = b"\r\nHello\r\n"


def take(extra: bytes, base: bytes = BASE) -> Intake:
    return prepare(base + extra + BODY, OPTIONS)


def test_a_complete_message_without_control_fields_stays_the_same_object() -> None:
    content = BASE + b"To: a@y.test\r\nSubject: =?utf-8?q?gr=C3=BCn?=\r\n" + BODY
    intake = prepare(content, OPTIONS)
    assert intake.content is content
    assert str(intake.author) == "joe@x.test"
    assert intake.message_id == "<1@x.test>"
    assert intake.subject == "grün"
    assert intake == Intake(content, intake.author, message_id="<1@x.test>", subject="grün")


@pytest.mark.parametrize(
    "field",
    [
        pytest.param(b"Bcc: secret@y.test\r\n", id="bcc"),
        pytest.param(b"BCC: a@y.test,\r\n b@y.test\r\nbcc: c@y.test\r\n", id="two-folded-bcc"),
        pytest.param(b"Resent-Bcc: a@y.test\r\n", id="resent-bcc"),
        pytest.param(b"Return-Path: <a@x.test>\r\n", id="return-path"),
        pytest.param(b"X-Ark-Tag: t\r\n", id="tag"),
        pytest.param(b"X-Ark-Whatever: t\r\n", id="unknown-ark-field"),
        pytest.param(b"x-pm-keepid: true\r\n", id="postmark-keepid"),
        pytest.param(b"X-PM-Bounce-Type: x\r\n", id="unknown-postmark-field"),
        pytest.param(b"X-Ark-Metadata-Bad Value: x\r\n".replace(b" ", b"!", 1), id="bad-metadata"),
        pytest.param(b"X-Ark-Metadata-: x\r\n", id="metadata-without-a-key"),
        pytest.param(b"Sender: eve@evil.test\r\n", id="foreign-sender"),
        pytest.param(b"Sender: joe@x.test, eve@evil.test\r\n", id="sender-list"),
        pytest.param(b"Sender: \r\n", id="empty-sender"),
        pytest.param(b"Sender: joe@sub.x.test\r\n", id="sender-of-a-subdomain"),
        pytest.param(b"Resent-From: eve@evil.test\r\nResent-To: a@y.test\r\nresent-date: x\r\n", id="foreign-resent"),
        pytest.param(b"Resent-Date: x\r\nResent-From: joe@x.test\r\nResent-Sender: e@e.test\r\n", id="resent-sender"),
        pytest.param(b"DKIM-Signature: v=1; a=rsa-sha256; d=x.test; s=a; b=\r\n", id="own-signature"),
        pytest.param(b"DKIM-Signature: d = X.TEST ;v=1\r\n", id="own-signature-in-odd-form"),
        pytest.param(b"DKIM-Signature: v=1;\r\n\td=\r\n\tx.test;\r\n s=a\r\n", id="own-signature-folded"),
        pytest.param(b"Authentication-Results: mail.relay.test; dkim=pass\r\n", id="our-results"),
        pytest.param(b"Authentication-Results: MAIL.Relay.Test 1; none\r\n", id="our-results-with-a-version"),
        pytest.param(b'Authentication-Results: (a (b)) "mail.relay.test"; spf=pass\r\n', id="our-results-hidden"),
    ],
)
def test_what_is_not_the_submitters_to_send_goes_and_nothing_else(field: bytes) -> None:
    for extra in (field + b"X-Other: y\r\n", b"X-Other: y\r\n" + field):
        assert take(extra).content == BASE + b"X-Other: y\r\n" + BODY


@pytest.mark.parametrize(
    "field",
    [
        b"Sender: Boss <boss@x.test>\r\n",
        "Sender: boss@bücher.test\r\n".encode(),
        b"Resent-From: joe@x.test\r\nResent-To: a@y.test\r\nResent-Date: x\r\n",
        b"Resent-To: a@y.test\r\n",
        b"DKIM-Signature: v=1; d=esp.test; s=d=x.test\r\n",
        b"DKIM-Signature: v=1; bd=x.test\r\n",
        b"DKIM-Signature: \r\n",
        b"Authentication-Results: other.test; mail.relay.test=pass\r\n",
        b"Authentication-Results: \r\n",
        b"Received: from a by b; c\r\n",
        b"X-Arkansas: y\r\n",
        b"X-PMX: y\r\n",
        b"Subject:\tfolded\r\n   and spaced  \r\n",
        b"Comments: \xff\xfe raw bytes\r\n",
    ],
)
def test_what_is_the_submitters_stays_byte_for_byte(field: bytes) -> None:
    assert take(field).content == BASE + field + BODY


def test_a_missing_date_and_message_id_come_at_the_end() -> None:
    intake = take(b"", base=b"From: joe@x.test\r\n")
    assert intake.content == b"From: joe@x.test\r\n" + DATE + b"Message-ID: <token@x.test>\r\n" + BODY
    assert intake.message_id == "<token@x.test>"


@pytest.mark.parametrize(
    "field",
    [
        b"1@x.test",
        b"<1>",
        b"<>",
        b"",
        b"<1 2@x.test>",
        b"<1\t@x.test>",
        b"<1@x.test> <2@x.test>",
        b"<1\x07@x.test>",
        b"<1\xff@x.test>",
        b"<1@2@x.test>",
        b"<a<b@x.test>",
        b"\r\n <" + b"a" * 980 + b"@x.test>",
        b"\r\n <1@\r\n x.test>",
    ],
)
def test_a_broken_message_id_is_replaced(field: bytes) -> None:
    base = b"From: joe@x.test\r\nDate: x\r\n"
    assert (
        take(b"", base + b"Message-Id: " + field + b"\r\n").content == base + b"Message-ID: <token@x.test>\r\n" + BODY
    )


def test_a_message_id_on_a_folded_line_is_kept() -> None:
    base = b"From: joe@x.test\r\nDate: x\r\nMessage-ID:\r\n <1@x.test>\r\n"
    intake = take(b"", base)
    assert (intake.message_id, intake.content) == ("<1@x.test>", base + BODY)


def test_the_control_fields_are_read() -> None:
    intake = take(
        b"X-PM-Tag: first\r\nX-Ark-Tag: =?utf-8?q?gr=C3=BCn?=\r\n"
        b"X-Ark-Metadata-userId: 42\r\nx-pm-metadata-Client-Id: a b\r\n"
        b"X-PM-TrackOpens: True\r\nX-Ark-TrackLinks: htmlonly\r\nX-Ark-Unsubscribe: news\r\n"
        b"X-Ark-Expires: 2h\r\nX-Ark-Priority: high\r\nX-PM-Message-Stream: outbound\r\n"
        b"Received: a\r\nReceived: b\r\n"
    )
    assert intake.tag == "grün"
    assert intake.metadata == {"userId": "42", "Client-Id": "a b"}
    assert intake.track_opens is True
    assert intake.track_links == "HtmlOnly"
    assert (intake.unsubscribe, intake.expires, intake.priority, intake.stream) == ("news", "2h", "high", "outbound")
    assert intake.received_count == 2
    assert split(intake.content)[0] == BASE + b"Received: a\r\nReceived: b\r\n"


def test_control_fields_that_say_nothing_valid_are_as_if_absent() -> None:
    intake = take(
        b"X-Ark-Tag: \r\nX-Ark-TrackOpens: maybe\r\nX-Ark-TrackLinks: all\r\nX-Ark-Unsubscribe: a\x01b\r\n"
        b"X-Ark-Expires: " + b"9" * 200 + b"\r\nX-PM-Tag: " + b"t" * 900 + b"\r\n " + b"t" * 200 + b"\r\n"
    )
    assert (intake.tag, intake.track_opens, intake.track_links) == (None, None, None)
    assert (intake.unsubscribe, intake.expires) == (None, None)


@pytest.mark.parametrize(
    ("fields", "metadata"),
    [
        pytest.param(b"X-Ark-Metadata-1a: x\r\n", {}, id="key-begins-with-a-digit"),
        pytest.param(b"X-Ark-Metadata-a.b: x\r\n", {}, id="dot-in-the-key"),
        pytest.param(b"X-Ark-Metadata-%b: x\r\n" % (b"k" * 40), {"k" * 40: "x"}, id="key-of-40"),
        pytest.param(b"X-Ark-Metadata-%b: x\r\n" % (b"k" * 41), {}, id="key-of-41"),
        pytest.param(b"X-Ark-Metadata-a:\r\n", {}, id="empty-value"),
        pytest.param(b"X-Ark-Metadata-a: %b\r\n" % (b"v" * 500), {"a": "v" * 500}, id="value-of-500"),
        pytest.param(b"X-Ark-Metadata-a: %b\r\n" % (b"v" * 501), {}, id="value-of-501"),
        pytest.param(b"X-Ark-Metadata-a: b\x7fc\r\n", {}, id="control"),
        pytest.param(b"X-Ark-Metadata-a: =?utf-8?q?b=0Ac?=\r\n", {}, id="encoded-control"),
        pytest.param(b"X-Ark-Metadata-a: b\r\n\tc\r\n", {}, id="tab-of-a-fold"),
        pytest.param(b"X-Ark-Metadata-a: b\r\n c\r\n", {"a": "b c"}, id="folded"),
        pytest.param(b"X-Ark-Metadata-a: 1\r\nX-PM-Metadata-a: 2\r\n", {"a": "2"}, id="last-one-wins"),
        pytest.param("X-Ark-Metadata-a: grün\r\n".encode(), {"a": "grün"}, id="raw-utf8"),
        pytest.param(
            b"".join(b"X-Ark-Metadata-k%d: v\r\n" % n for n in range(12)), {f"k{n}": "v" for n in range(10)}, id="ten"
        ),
        pytest.param(
            b"".join(b"X-Ark-Metadata-k%d: %b\r\n" % (n, b"v" * 500) for n in range(10)) + b"X-Ark-Metadata-z: v\r\n",
            {f"k{n}": "v" * 500 for n in range(8)},
            id="four-kilobytes-of-json",
        ),
    ],
)
def test_invalid_metadata_is_skipped_and_the_mail_taken(fields: bytes, metadata: dict[str, str]) -> None:
    intake = take(fields)
    if "z" not in metadata and len(metadata) == 8:
        assert intake.metadata.pop("z") == "v"
    assert intake.metadata == metadata
    assert len(json.dumps(intake.metadata)) <= 4096
    assert intake.content == BASE + BODY


def test_the_settings_name_the_fields_for_tag_and_metadata() -> None:
    options = IntakeOptions(NOW, "h.test", lambda: "t", frozenset(), ("X-Campaign",), ("X-Var-",))
    intake = prepare(
        BASE + b"x-campaign: c\r\nX-Var-Key: v\r\nX-Ark-Tag: t\r\nX-Ark-Metadata-k: v\r\n" + BODY, options
    )
    assert (intake.tag, intake.metadata, intake.content) == ("c", {"Key": "v"}, BASE + BODY)


def test_bytes_above_127_are_told_apart_by_place() -> None:
    assert (take(b"").eight_bit, take(b"").utf8_header) == (False, False)
    body = prepare(BASE + b"\r\n\xff\r\n", OPTIONS)
    assert (body.eight_bit, body.utf8_header) == (True, False)
    header = take("Subject: grün\r\n".encode())
    assert (header.eight_bit, header.utf8_header) == (True, True)
    removed = take("X-Ark-Tag: grün\r\n".encode())
    assert (removed.eight_bit, removed.utf8_header) == (False, False)


def test_a_message_without_a_separator_gets_one() -> None:
    assert prepare(BASE, OPTIONS).content == BASE + b"\r\n"
    assert prepare(BASE[:-2], OPTIONS).content == BASE + b"\r\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "From field is missing", id="empty"),
        pytest.param(b"\r\nbody", "From field is missing", id="empty-header"),
        pytest.param(b"Hello\r\n\r\nbody", "line 1", id="body-only"),
        pytest.param(BASE + b"From: joe@x.test\r\n" + BODY, "From field appears more than once", id="two-from"),
        pytest.param(BASE + b"Subject: a\r\nSUBJECT: b\r\n" + BODY, "Subject field", id="two-subjects"),
        pytest.param(b"From : joe@x.test\r\n" + BODY, "space before the colon", id="space-before-the-colon"),
    ],
)
def test_a_header_in_doubt_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(HeaderError, match=reason):
        prepare(content, OPTIONS)


NASTY_HEADERS = [
    b"",
    b"Subject: =?utf-8?q?a=0d=0aX-Inj:_1?=\r\n",
    b"Subject: " + b"x" * 980 + b"\r\n",
    b"Subject: " + b"x" * 1200 + b"\r\n",
    b"To: " + b",\r\n ".join(b"a%d@y.test" % n for n in range(5000)) + b"\r\n",
    b"To: undisclosed-recipients:;\r\n",
    b"X: " + b"(" * 900 + b"\r\n",
    b"X-A: b\r\n" * 990,
    b"X-A: b\r\n" * 1010,
    b'Content-Type: multipart/mixed; boundary="a"\r\n',
    b'Content-Type: text/plain; charset="\xff"\r\n',
    b"Content-Transfer-Encoding: bogus\r\nContent-Transfer-Encoding: 8bit\r\n",
    b"MIME-Version: 1.0 (odd)\r\n",
    b"X-Nul: a\0b\r\n",
    b"X-Cr: a\rb\r\n",
    b"X-Lf: a\nb\r\n",
    b"X-Empty:\r\n",
    b"X-Fold:\r\n \r\n\t\r\n x\r\n",
    b"no colon here\r\n",
    b" fold of nothing\r\n",
    b"X-8bit: \xff\xfe\r\n",
    "X-UTF8: \u2028\u202e\r\n".encode(),
    b"X-Control: \x01\x02\x1b[31m\r\n",
    b"Received: x\r\n" * 60,
    b"x-ark-metadata-a: " + b"\xff" * 900 + b"\r\n",
    b"DKIM-Signature: " + b"d=x.test;" * 90 + b"\r\n",
    b"Authentication-Results: " + b"(" * 900 + b"\r\n",
    b"Sender: " + b"<" * 900 + b"\r\n",
]
NASTY_BODIES = [
    b"",
    b"\r\n",
    b".\r\n..\r\n. \r\n",
    b"x" * 100_000,
    bytes(range(256)).replace(b"\n", b"").replace(b"\r", b"") * 50 + b"\r\n",
    b"From: eve@evil.test\r\nBcc: y\r\nX-Ark-Tag: z\r\n\r\n",
    b"--a\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n" * 3000,
    b"trailing  \r\n\t\r\n\r\n\r\n",
]
GOES = re.compile(rb"(?:bcc|sender|x-ark-|dkim-signature)", re.IGNORECASE)


@pytest.mark.parametrize("header_of", [lambda extra: extra + BASE, lambda extra: BASE + b"X: y\r\n" + extra])
@pytest.mark.parametrize("extra", NASTY_HEADERS, ids=lambda extra: repr(extra[:20]))
def test_nasty_messages_are_refused_or_keep_every_byte_that_is_not_ours_to_take(
    extra: bytes, header_of: Callable[[bytes], bytes]
) -> None:
    header = header_of(extra)
    try:
        kept = b"".join(raw for name, raw in scan(header) if not GOES.match(name))
    except HeaderError:
        for body in NASTY_BODIES:
            with pytest.raises(HeaderError) as caught:
                prepare(header + b"\r\n" + body, OPTIONS)
            assert str(caught.value).isprintable()
        return
    for body in NASTY_BODIES:
        intake = prepare(header + b"\r\n" + body, OPTIONS)
        assert intake.content == kept + b"\r\n" + body
        assert intake.subject.isprintable()


HEADER_PIECES = st.sampled_from(
    [
        *(line for line in NASTY_HEADERS if len(line) < 200),
        BASE,
        b"From: a@x.test\r\n",
        b"Bcc: x\r\n",
        b"\r\n",
        b"x",
        b":",
    ]
)


@given(st.one_of(st.binary(), st.lists(HEADER_PIECES, max_size=8).map(b"".join)))
def test_any_bytes_are_prepared_once_and_for_all_or_refused(content: bytes) -> None:
    try:
        intake = prepare(content, OPTIONS)
    except HeaderError:
        return
    again = prepare(intake.content, OPTIONS)
    assert again.content is intake.content
    assert (again.message_id, again.author, again.eight_bit) == (intake.message_id, intake.author, intake.eight_bit)
    names = {field.name for field in scan(split(intake.content)[0])}
    assert {b"from", b"date", b"message-id"} <= names
    assert not {b"bcc", b"return-path"} & names


@pytest.mark.parametrize(
    ("field", "found"),
    [
        (b"TLS-Required: No", True),
        (b"tls-required:  no ", True),
        (b"TLS-Required: Yes", False),
        (b"TLS-Required:", False),
        (b"X-TLS-Required: No", False),
    ],
)
def test_a_message_may_ask_for_any_tls_and_the_field_stays(field: bytes, found: bool) -> None:
    content = b"From: app@sender.test\r\n" + field + b"\r\n\r\nHello.\r\n"
    intake = prepare(content, IntakeOptions(NOW, "relay.test", lambda: "1"))
    assert intake.any_tls is found
    assert field + b"\r\n" in intake.content
