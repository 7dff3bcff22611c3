"""Letters: what a reader's program finds in them is what was given, byte for byte, and nothing else."""

import base64
import email
import email.policy
import re
from collections.abc import Mapping
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.mail.attachment import Attachment
from arkrelay.mail.compose import HEADERS, Letter, compose
from arkrelay.mail.fields import LetterError, Mailbox, text_field
from arkrelay.mail.header import HeaderError
from arkrelay.mail.intake import IntakeOptions, prepare
from arkrelay.model.address import Address

TOKEN = "0123456789abcdef"
APP = Mailbox("App", Address("app", "sender.test"))
ANN = Mailbox("", Address("ann", "rcpt.test"))
LONG_WORD = "x" * 900
LONG_LINE = "word " * 400


def letter(**fields: Any) -> Letter:
    """Return a letter with these fields instead of the usual ones."""
    usual: dict[str, Any] = {"author": APP, "to": [ANN], "subject": "Hello", "text": "Hello.\n"}
    return Letter(**(usual | fields))


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def read(content: bytes) -> EmailMessage:
    """Return the message as a reader's program sees it, when it is one that may be mailed."""
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", content), "a bare CR or LF"
    assert max(map(len, content.split(b"\r\n"))) <= 998
    assert b"\0" not in content
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    for part in message.walk():
        assert part.defects == []
    return message


def body(message: EmailMessage, kind: str) -> str | None:
    part = message.get_body((kind,))
    return None if part is None else str(part.get_content()).replace("\r\n", "\n")


TEXTS = {
    "ascii": "Hello there.\nBye.\n",
    "no-last-line-end": "Hello there",
    "utf8": "Grüße aus Zürich, naïve café ✓\n",
    "emoji": "😀 👩‍👩‍👧‍👧 🏳️‍🌈\n" * 30,
    "chinese": "你好,世界。\n" * 50,
    "rtl": "שלום עולם\nمرحب بكم\n",
    "long-line": LONG_LINE + "\n",
    "long-word": "x" * 5000 + "\nshort\n",
    "long-utf8-line": "ü" + LONG_LINE + "\n",
    "blank": "\n\n  \n",
    "trailing-blanks": "a  \nb\t\n \n",
    "dots": ".\n..\n.a\n",
    "from": "From here on\n>From there\n",
    "equals": "a=b =3D =\n",
    "boundary-like": f"--=_a{TOKEN}\n--=_a{TOKEN}--\n",
    "controls": "a\x0cb\x1b[31mc\x7f\0d\n",
    "tabs": "a\tb\n",
    "empty-line-first": "\n\nHello\n",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("beside", ["", "<p>Hello</p>\n"], ids=["alone", "with-html"])
def test_text_is_read_as_it_was_written(text: str, beside: str) -> None:
    message = read(compose(letter(text=text, html=beside or None), TOKEN))
    # a body that ends the message ends with a line end, as every message does
    ended = text if beside or text.endswith("\n") else text + "\n"
    assert body(message, "plain") == ended
    assert body(message, "html") == (beside or None)
    assert message.get_content_type() == ("multipart/alternative" if beside else "text/plain")


@pytest.mark.parametrize("html", TEXTS.values(), ids=TEXTS)
def test_html_is_read_as_it_was_written_with_everything_beside_it(html: str) -> None:
    files = [Attachment(encoded(bytes(range(256))), "application/pdf", "a.pdf")]
    message = read(compose(letter(html=html, attachments=files), TOKEN))
    assert message.get_content_type() == "multipart/mixed"
    assert (body(message, "plain"), body(message, "html")) == ("Hello.\n", html)
    (attached,) = message.iter_attachments()
    assert attached.get_content() == bytes(range(256))


def test_html_alone_is_html_alone() -> None:
    message = read(compose(letter(text=None, html="<p>Hi</p>"), TOKEN))
    assert (message.get_content_type(), body(message, "html")) == ("text/html", "<p>Hi</p>\n")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("x" * 998 + "\n", "7bit"),
        ("x" * 999 + "\n", "quoted-printable"),
        ("x" * 500 + "ü" + "\n", "quoted-printable"),
        ("ü" * 500 + "\n", "base64"),
        ("Grüße, und noch viel mehr Text.\n", "quoted-printable"),
        ("a\x1bbcdefgh", "quoted-printable"),
    ],
)
def test_the_shortest_encoding_is_chosen(text: str, encoding: str) -> None:
    content = compose(letter(text=text), TOKEN)
    assert read(content)["Content-Transfer-Encoding"] == encoding
    assert content.isascii()


@pytest.mark.parametrize(
    ("given", "wanted"), [("a\r\nb\rc\nd", "a\nb\nc\nd\n"), ("a\r\r\nb", "a\n\nb\n"), ("a\n\rb", "a\n\nb\n")]
)
def test_every_kind_of_line_end_is_one(given: str, wanted: str) -> None:
    assert body(read(compose(letter(text=given), TOKEN)), "plain") == wanted


def test_a_boundary_stands_in_no_part() -> None:
    text = f"--=_a{TOKEN}\n--=_m{TOKEN}x\n"
    files = [Attachment(encoded(f"Subject: x\r\n\r\n{TOKEN}xx\r\n".encode()), "message/rfc822", "a.eml")]
    content = compose(letter(text=text, html="<p>x</p>", attachments=files), TOKEN)
    message = read(content)
    assert body(message, "plain") == text
    assert message.get_boundary() == f"=_m{TOKEN}xxx"


SUBJECTS = [
    "Hello",
    "Grüße aus Zürich: 50 % off",
    "😀" * 200,
    "שלום עולם " * 20,
    "=?utf-8?q?not_a_word?=",
    "=?utf-8?q?a?= =?utf-8?b?Yg==?=",
    "a =? b ?= c",
    LONG_WORD,
    "ü" + LONG_WORD,
    "word " * 150 + "end",
    "two  spaces   three" * 10,
    " leading and trailing ",
    "x",
    "_underscore_ = 100% ?",
    "a" * 77,
    "a" * 70 + " b",
    "\u00ad\u200bsoft",
    "Re: [list] (x) \"y\" <a@b.test>, c; d: 'e'",
]


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_subject_is_read_as_it_was_written(subject: str) -> None:
    content = compose(letter(subject=subject), TOKEN)
    assert read(content)["Subject"] == subject
    assert prepare(content, OPTIONS).subject == subject
    assert_folded(content)


NAMES = [
    "Acme",
    "Acme Inc",
    "Acme, Inc.",
    'The "Best" \\ Shop',
    "Jörg Müller",
    "社長 " * 20,
    "Joe (home)",
    "a" * 61,
    "a" * 200,
    "😀" * 200,
    "O'Hara; Sons: & co.",
    "two  spaces",
    ".",
    '"',
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_read_as_it_was_written(name: str) -> None:
    named = Mailbox(name, Address("app", "sender.test"))
    content = compose(letter(author=named, to=[named, ANN, named], cc=[named], reply_to=named), TOKEN)
    message = read(content)
    for field, count in (("From", 1), ("To", 3), ("Cc", 1), ("Reply-To", 1)):
        found = message[field].addresses
        assert [one.addr_spec for one in found].count("app@sender.test") == len(found) - (field == "To")
        assert len(found) == count
        if count == 1:
            assert unquoted(readable(content, field)) == (name, "<app@sender.test>")
    assert str(prepare(content, OPTIONS).author) == "app@sender.test"
    assert_folded(content)


def test_a_name_that_looks_like_an_encoded_word_is_text() -> None:
    named = Mailbox("=?utf-8?q?ceo=40bank=2Etest?=", Address("ann", "rcpt.test"))
    message = read(compose(letter(to=[named]), TOKEN))
    assert message["To"].addresses[0].display_name == named.name


@pytest.mark.parametrize(
    "address",
    [
        Address("jörg", "sender.test"),
        Address("用户", "xn--fsqu00a.test"),
        Address('"a b"', "sender.test"),
        Address("a" * 64, "b" * 60 + "." + "c" * 60 + ".test"),
    ],
)
def test_an_address_stands_as_it_goes_on_the_wire(address: Address) -> None:
    content = compose(letter(to=[Mailbox("Jörg", address), Mailbox("", address)]), TOKEN)
    (line,) = re.findall(rb"^To: ((?:.*\r\n)(?:[ \t].*\r\n)*)", content, re.MULTILINE)
    assert line.count(str(address).encode()) == 2


def test_fifty_recipients_are_folded() -> None:
    many = [Mailbox("Müller" if number % 2 else "", Address(f"rcpt{number}", "rcpt.test")) for number in range(50)]
    content = compose(letter(to=many, cc=many), TOKEN)
    message = read(content)
    for field in ("To", "Cc"):
        assert [one.addr_spec for one in message[field].addresses] == [str(one.address) for one in many]
    assert_folded(content)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Order": "A-17"},
        {"X-Empty": ""},
        {"X-Name": "Jörg Müller " * 20},
        {"References": " ".join(f"<{number}.{'x' * 30}@sender.test>" for number in range(20))},
        {"List-Unsubscribe": f"<https://sender.test/u/{'x' * 300}>, <mailto:u@sender.test>"},
        {"X-" + "a" * 74: "value beside a long name"},
        {"X-" + "a" * 74: "ü" * 100},
        {"X-Json": '{"a": [1, 2, 3], "b":  "c"}' * 20},
        {"X-Word": "y" * 2000},
    ],
)
def test_a_header_of_ones_own_is_read_as_it_was_written(headers: Mapping[str, str]) -> None:
    content = compose(letter(headers=headers), TOKEN)
    message = read(content)
    for name, value in headers.items():
        assert str(message[name]).strip() == value.strip()
    prepare(content, OPTIONS)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        *(
            ({"headers": {name: "x"}}, f"headers.{name}")
            for name in (
                "From",
                "sender",
                "To",
                "Cc",
                "BCC",
                "Subject",
                "Reply-To",
                "Return-Path",
                "Received",
                "DKIM-Signature",
                "ARC-Seal",
                "arc-x",
                "Authentication-Results",
                "Content-Type",
                "Content-X",
                "MIME-Version",
                "Date",
                "Message-ID",
                "Resent-From",
                "resent-bcc",
                "X_Y",
                "X Y",
                "X:Y",
                "X\r\nBcc",
                "X\n",
                "Ünïcode",
                "x" * 77,
                "",
            )
        ),
        *(({"headers": {"X-A": f"a{sign}b"}}, "headers.X-A") for sign in "\r\n\0\t\x0b\x1b\x7f\x85\x9f\u2028\u2029"),
        ({"headers": {"X-A": "a\r\nBcc: x@y.test"}}, "headers.X-A"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "headers.x-a"),
        ({"headers": {"X-A": "x" * 8001}}, "headers.X-A"),
        ({"headers": {f"X-{number}": "x" for number in range(HEADERS + 1)}}, "headers"),
        ({"headers": {f"X-{number}": "ü" * 3000 for number in range(HEADERS)}}, "headers"),
        ({"subject": "a\r\nBcc: x@y.test"}, "subject"),
        ({"subject": "a\u2028b"}, "subject"),
        ({"author": Mailbox("a\nb", APP.address)}, "from"),
        ({"to": [ANN, Mailbox("a\rb", ANN.address)]}, "to"),
        ({"cc": [Mailbox("a\x85b", ANN.address)]}, "cc"),
        ({"reply_to": Mailbox("a\0b", ANN.address)}, "replyTo"),
        ({"text": None}, "text"),
    ],
)
def test_what_would_forge_or_break_a_header_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(LetterError) as caught:
        compose(letter(**fields), TOKEN)
    assert caught.value.field == named
    assert str(caught.value).isprintable() or "\n" in named or "\r" in named


FILENAMES = [
    "report.pdf",
    "Zeugnis ü.bin",
    "履歴書.docx",
    "ü" * 255,
    "a" * 251 + ".pdf",
    'quo"te\\back.txt',
    "=?utf-8?q?x?=.txt",
    "it's 100%.txt",
    "a;b=c, d.txt",
    "😀.png",
]


@pytest.mark.parametrize("filename", FILENAMES)
def test_a_filename_is_read_as_it_was_written(filename: str) -> None:
    content = compose(letter(attachments=[Attachment(encoded(b"data"), "text/plain", filename)]), TOKEN)
    (attached,) = read(content).iter_attachments()
    assert attached.get_filename() == filename
    assert attached.get_content_disposition() == "attachment"
    assert attached.get_payload(decode=True) == b"data"


@pytest.mark.parametrize(
    ("given", "found", "parameters"),
    [
        ("application/pdf", "application/pdf", {}),
        ("Image/PNG", "image/png", {}),
        ("text/plain; charset=utf-8", "text/plain", {"charset": "utf-8"}),
        (
            'text/calendar;method=REQUEST; charset="utf-8"',
            "text/calendar",
            {"method": "REQUEST", "charset": "utf-8"},
        ),
        ('text/csv; header="a;b=c"', "text/csv", {"header": "a;b=c"}),
        ("text/html;", "text/html", {}),
        (
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            {},
        ),
    ],
)
def test_a_media_type_is_kept(given: str, found: str, parameters: dict[str, str]) -> None:
    content = compose(letter(attachments=[Attachment(encoded(b"x"), given, "x")]), TOKEN)
    (attached,) = read(content).iter_attachments()
    assert attached.get_content_type() == found
    assert dict(attached["Content-Type"].params) == parameters


@pytest.mark.parametrize("size", [0, 1, 2, 56, 57, 58, 113, 114, 115, 10_000])
@pytest.mark.parametrize("wrapped", [False, True], ids=["one-line", "wrapped"])
def test_an_attachment_keeps_its_bytes(size: int, wrapped: bool) -> None:
    data = bytes(number % 251 for number in range(size))
    written = base64.encodebytes(data).decode() if wrapped else encoded(data)
    files = [Attachment(written, "application/x-thing", f"{number}.bin") for number in range(3)]
    content = compose(letter(attachments=files), TOKEN)
    assert [one.get_content() for one in read(content).iter_attachments()] == [data] * 3
    assert max(map(len, content.split(b"\r\n"))) <= 78


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"content": "QUJDR"}, "content"),
        ({"content": "QUJD="}, "content"),
        ({"content": "QU=D"}, "content"),
        ({"content": "===="}, "content"),
        ({"content": "QUJ-"}, "content"),
        ({"content": "QU D"}, "content"),
        ({"content": "QUJü"}, "content"),
        ({"content": "data:text/plain;base64,QUJD"}, "content"),
        ({"contentType": "pdf"}, "contentType"),
        ({"contentType": ""}, "contentType"),
        ({"contentType": "text/plain\r\nBcc: x@y.test"}, "contentType"),
        ({"contentType": 'text/plain; x="a\r\nb"'}, "contentType"),
        ({"contentType": "text/plain; charset"}, "contentType"),
        ({"contentType": "text/plain (comment)"}, "contentType"),
        ({"contentType": "text/plain; x=ü"}, "contentType"),
        ({"contentType": "text/" + "x" * 300}, "contentType"),
        ({"contentType": "multipart/mixed; boundary=x"}, "contentType"),
        ({"contentType": "Multipart/Mixed"}, "contentType"),
        ({"contentType": "message/external-body"}, "contentType"),
        ({"contentType": "message/partial"}, "contentType"),
        ({"contentType": "message/rfc822", "content": encoded(b"Subject: x\r\n\r\na\rb")}, "content"),
        ({"contentType": "message/rfc822", "content": encoded(b"Subject: x\r\n\r\na\0b")}, "content"),
        ({"contentType": "message/rfc822", "content": encoded(b"Subject: x\r\n\r\n" + b"x" * 999)}, "content"),
        ({"filename": ""}, "filename"),
        ({"filename": "a\r\nb"}, "filename"),
        ({"filename": "a\u2029b"}, "filename"),
        ({"filename": "x" * 256}, "filename"),
    ],
)
def test_an_attachment_that_is_none_is_refused_by_name(changed: dict[str, str], field: str) -> None:
    values = {"content": "QUJD", "contentType": "application/pdf", "filename": "a.pdf"} | changed
    bad = Attachment(values["content"], values["contentType"], values["filename"])
    good = Attachment("QUJD", "application/pdf", "a.pdf")
    with pytest.raises(LetterError) as caught:
        compose(letter(attachments=[good, bad]), TOKEN)
    assert (caught.value.field, caught.value.too_large) == (f"attachments[1].{field}", False)


def test_an_attachment_may_have_ten_megabytes_and_not_a_byte_more() -> None:
    most = Attachment(encoded(bytes(10 * 1024 * 1024)), "application/x-thing", "a.bin")
    assert len(compose(letter(attachments=[most]), TOKEN)) > 14_000_000
    more = Attachment(encoded(bytes(10 * 1024 * 1024 + 1)), "application/x-thing", "a.bin")
    with pytest.raises(LetterError) as caught:
        compose(letter(attachments=[more]), TOKEN)
    assert (caught.value.field, caught.value.too_large) == ("attachments[0].content", True)


@pytest.mark.parametrize(
    ("inner", "encoding"),
    [
        (b"From: a@x.test\nSubject: inner\n\nplain\n", "7bit"),
        (b"From: a@x.test\r\nSubject: inner\r\n\r\nna\xc3\xafve\r\n", "8bit"),
    ],
)
def test_an_attached_message_is_a_message(inner: bytes, encoding: str) -> None:
    content = compose(letter(attachments=[Attachment(encoded(inner), "message/rfc822", "a.eml")]), TOKEN)
    (attached,) = read(content).iter_attachments()
    assert attached["Content-Transfer-Encoding"] == encoding
    inside = attached.get_content()
    assert (inside["Subject"], inside["From"]) == ("inner", "a@x.test")
    assert inner.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") in content


OPTIONS = IntakeOptions(1e9, "relay.test", lambda: "id", frozenset({"sender.test"}))

# what no control character is in, half a surrogate pair least of all
LINES = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=400)


@given(LINES.filter(bool))
def test_any_subject_is_read_as_it_was_written(subject: str) -> None:
    content = compose(letter(subject=subject), TOKEN)
    assert prepare(content, OPTIONS).subject == subject
    assert readable(content, "Subject") == subject
    assert_folded(content)


@given(LINES.filter(lambda name: "=?" not in name and not set("@<>") & set(name)).map(lambda name: name[:200]))
def test_any_name_leaves_its_address_alone(name: str) -> None:
    content = compose(letter(author=Mailbox(name, APP.address), to=[Mailbox(name, ANN.address), ANN]), TOKEN)
    try:
        intake = prepare(content, OPTIONS)
    except HeaderError as error:  # pragma: no cover -- says which name
        pytest.fail(f"{error}: {content!r}")
    assert str(intake.author) == "app@sender.test"
    found = email.message_from_bytes(content, policy=email.policy.default)["To"].addresses
    assert [one.addr_spec for one in found] == ["ann@rcpt.test"] * 2
    assert_folded(content)


@given(st.dictionaries(st.from_regex(r"X-[A-Za-z0-9-]{1,60}", fullmatch=True), LINES, max_size=5))
def test_any_header_is_read_as_it_was_written(headers: dict[str, str]) -> None:
    if len({name.lower() for name in headers}) < len(headers):
        return
    content = compose(letter(headers=headers), TOKEN)
    for name, value in headers.items():
        assert readable(content, name) == value
    names = [line.partition(b":")[0].decode() for line in re.split(rb"\r\n(?![ \t])", content.split(b"\r\n\r\n")[0])]
    expected = ["From", "To", "Subject", *headers, "MIME-Version"]
    assert [name for name in names if not name.startswith("Content-")] == expected


@given(st.text(st.characters(codec="utf-8"), max_size=3000))
def test_any_text_is_read_as_it_was_written(text: str) -> None:
    content = compose(letter(text=text, html=text), TOKEN)
    lines = re.sub("\r\n?", "\n", text)
    parts = email.message_from_bytes(content).get_payload()
    assert isinstance(parts, list)
    for part in parts:
        assert isinstance(part, email.message.Message)
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        assert payload.decode().replace("\r\n", "\n") == lines
    assert max(map(len, content.split(b"\r\n"))) <= 998
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", content)


@given(st.text(max_size=300))
def test_a_field_is_one_field_whatever_stands_in_it(text: str) -> None:
    """Control characters are refused before; this is what happens if they were not."""
    try:
        written = text_field("X-A", text)
    except UnicodeEncodeError:  # half a surrogate pair
        return
    if text.isprintable():
        assert re.fullmatch(rb"X-A:[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*", written)


def unquoted(value: str) -> tuple[str, str]:
    """Return the name and the rest of ``Name <a@b>``."""
    name, _, address = value.rpartition(" ")
    if name.startswith('"') and name.endswith('"') and len(name) > 1:
        name = re.sub(r"\\(.)", r"\1", name[1:-1])
    return name, address


def readable(content: bytes, name: str) -> str:
    """Return the value as RFC 2047 says, by another decoder than ours (which ``prepare`` uses)."""
    (raw,) = re.findall(rb"^" + name.encode() + rb":((?:.*\r\n)(?:[ \t].*\r\n)*)", content, re.MULTILINE)
    value = raw.replace(b"\r\n", b"").decode()
    assert value.startswith(" ")
    parts = email.header.decode_header(value[1:])
    return "".join(data if isinstance(data, str) else data.decode(charset or "ascii") for data, charset in parts)


def assert_folded(content: bytes) -> None:
    """Assert that lines are short wherever there was a place to end them."""
    for line in content.split(b"\r\n\r\n")[0].split(b"\r\n"):
        assert len(line) <= (76 if b"=?" in line else 78) or b" " not in line.partition(b": ")[2].strip(), line
