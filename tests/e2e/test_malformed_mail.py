"""Mail as it should not be: it arrives byte for byte, or is refused with a 5xx that says why; never a surprise.

All messages go through one relay; a test per message then looks at its reply and at what the MX got.
"""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dkim
import pytest
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import PLAIN_EXTENSIONS, Mx, Received, Script
from peers.office import record

HEAD = (
    b"From: App <app@sender.test>\r\nTo: someone@rcpt.test\r\nSubject: hello\r\n"
    b"Date: Fri, 20 Nov 2026 17:00:00 +0000\r\nMessage-ID: <one@sender.test>\r\n"
)
OURS = (b"dkim-signature:", b"received:")  # what stands above the message when it arrives
SESSIONS = 8  # at once
BODY = b"\r\nHello.\r\n"


@dataclass(frozen=True)
class Mail:
    """One message, and whether it may pass."""

    id: str
    content: bytes
    passes: bool
    words: bytes = b""  # of the refusal


def good(name: str, content: bytes) -> Mail:
    return Mail(name, content, passes=True)


def bad(name: str, content: bytes, words: bytes = b"") -> Mail:
    return Mail(name, content, passes=False, words=words)


def field(name: str, line: bytes) -> Mail:
    """Return a message with this odd field, which passes."""
    return good(f"field-{name}", HEAD + line + b"\r\n" + BODY)


def body(name: str, content: bytes) -> Mail:
    return good(f"body-{name}", HEAD + b"\r\n" + content)


def without(name: bytes) -> bytes:
    return b"".join(line for line in HEAD.splitlines(keepends=True) if not line.startswith(name))


def mime(name: str, kind: bytes, content: bytes) -> Mail:
    return good(f"mime-{name}", HEAD + b"MIME-Version: 1.0\r\nContent-Type: " + kind + b"\r\n\r\n" + content)


def line_ends() -> Iterator[Mail]:
    yield good("bare-lf-everywhere", (HEAD + BODY).replace(b"\r\n", b"\n"))
    yield body("bare-lf", b"one\ntwo\r\nthree\n\nfour\r\n")
    yield body("lf-dot-lf", b"one\n.\ntwo\r\n")
    yield body("lf-dot-crlf", b"one\n.\r\ntwo\r\n")
    yield body("crlf-dot-lf", b"one\r\n.\ntwo\r\n")
    yield body("ends-in-lf", b"one\n")
    yield body("no-line-end", b"one")
    yield bad("bare-cr-in-body", HEAD + b"\r\none\rtwo\r\n", b"bare CR")
    yield bad("bare-cr-in-header", HEAD + b"X-A: one\rtwo\r\n" + BODY, b"bare CR")
    yield bad("cr-cr-lf", HEAD + b"\r\none\r\r\ntwo\r\n", b"bare CR")
    yield bad("cr-dot-cr", HEAD + b"\r\none\r.\rtwo\r\n", b"bare CR")
    yield bad("nul-in-body", HEAD + b"\r\none\0two\r\n", b"NUL")
    yield bad("nul-in-header", HEAD + b"X-A: one\0two\r\n" + BODY, b"NUL")
    yield bad("utf-16", HEAD + b"\r\n" + "Grüße".encode("utf-16-le") + b"\r\n", b"NUL")
    for octet in (*range(1, 10), 11, 12, *range(14, 32), 127):
        yield body(f"control-{octet:02x}", b"one" + bytes([octet]) + b"two\r\n")
    for octet in (1, 7, 8, 11, 12, 27, 127):
        yield field(f"control-{octet:02x}", b"X-A: one" + bytes([octet]) + b"two")


def shapes() -> Iterator[Mail]:
    yield bad("empty", b"", b"From")
    yield bad("only-empty-line", b"\r\n", b"From")
    yield bad("no-header", b"\r\nHello.\r\n", b"From")
    yield bad("body-without-header", b"Hello, this is a line of text\r\nand another\r\n")
    yield good("header-only", HEAD)
    yield good("header-and-empty-line", HEAD + b"\r\n")
    yield good("header-only-without-line-end", HEAD[:-2])
    yield body("only-dots", b".\r\n..\r\n...\r\n.\r\n")
    yield body("only-empty-lines", b"\r\n" * 500)
    yield body("trailing-empty-lines", b"one\r\n" + b"\r\n" * 50)
    yield body("trailing-spaces", b"one   \r\n\t\r\n  two \t \r\n")
    yield body("from-lines", b"From here on\r\n>From there\r\nFrom app@sender.test Fri\r\n")
    yield body("looks-like-smtp", b"RCPT TO:<other@rcpt.test>\r\nDATA\r\n354 go\r\nQUIT\r\n")
    for length in (998, 999, 1000, 5000, 100_000, 1_000_000):
        yield body(f"line-of-{length}", b"x" * length + b"\r\nend\r\n")
    yield body("one-octet", b"x")
    yield body("all-octets", bytes(octet for octet in range(1, 256) if octet not in (10, 13)) + b"\r\n")
    yield body("latin-1", "Grüße\r\n".encode("latin-1"))
    yield body("broken-utf-8", b"\xc0\x80 \xed\xa0\x80 \xff\xfe \xf8\x88\x80\x80\x80\r\n")
    yield body("line-separators", "one\u2028two\u2029three\x85four\r\n".encode())
    yield body("two-megabytes", b"0123456789abcdef\r\n" * 120_000)


def fields() -> Iterator[Mail]:
    yield field("latin-1", "X-A: Grüße".encode("latin-1"))
    yield field("utf-8", "X-A: Grüße ✉".encode())
    yield field("broken-utf-8", b"X-A: \xff\xfe\xc0\x80")
    yield field("empty-value", b"X-A:")
    yield field("only-space", b"X-A:    ")
    yield field("folded-at-once", b"X-A:\r\n value")
    yield field("folded-by-tab", b"X-A: one\r\n\ttwo\r\n\t\tthree")
    yield field("folded-over-empty-looking-lines", b"X-A: one\r\n \r\n\t\r\n two")
    yield field("odd-name", b"X!#$%&'*+-/=?^_`{|}~: value")
    yield field("many-colons", b"X-A::::: a:b:c")
    yield field("name-of-500", b"X-" + b"a" * 500 + b": value")
    yield field("line-of-998", b"X-A: " + b"a" * 993)
    yield field("long-and-folded", b"X-A: " + b"\r\n ".join([b"a" * 900] * 100))
    yield field("twice-unknown", b"X-A: one\r\nX-A: two")
    yield field("200-kb", b"References: " + b"\r\n ".join([b"<%d@example.org>" % n for n in range(9000)]))
    yield field("900-fields", b"\r\n".join(b"X-%d: x" % n for n in range(900)))
    yield field("50-received", b"\r\n".join([b"Received: from a by b; Fri, 20 Nov 2026 17:00:00 +0000"] * 50))
    yield field("foreign-signature", b"DKIM-Signature: v=1; a=rsa-sha256; d=elsewhere.test; s=x; h=from; bh=a; b=b")
    yield field("broken-signature", b"DKIM-Signature: this is none ;;;; d= ; b=")
    yield field("arc", b"ARC-Seal: i=1; a=rsa-sha256; cv=none; d=elsewhere.test; s=x; b=abc")
    yield field("encoded-word-unknown-charset", b"X-A: =?x-unknown?q?abc?=")
    yield field("encoded-word-unterminated", b"X-A: =?utf-8?q?abc")
    yield field("encoded-word-with-line-end", b"X-A: =?utf-8?q?a=0d=0aX-Injected:_1?=")
    yield field("encoded-word-bomb", b"X-A: " + b"\r\n ".join([b"=?utf-8?b?" + b"QUFB" * 200 + b"?="] * 100))
    bomb = b"".join(b";\r\n filename*%d*=utf-8''%%41" % n for n in range(5000))
    yield field("rfc-2231-bomb", b"Content-Disposition: attachment" + bomb)
    yield field("parameters-without-end", b"Content-Type: text/plain" + b";\r\n a=b" * 5000)
    yield field("nested-comments", b"X-A: " + b"(" * 400 + b")" * 400)
    yield field("unclosed-quote", b'X-A: "never closed \\')
    yield field("regex-bait", b"X-A: " + b"a" * 450 + b"!" + b" \t" * 200)
    yield field("15000-addresses", b"Cc: " + b",\r\n ".join([b"a@b.example"] * 15_000))
    yield bad("field-line-of-999", HEAD + b"X-A: " + b"a" * 994 + b"\r\n" + BODY, b"998")
    yield bad("field-300-kb", HEAD + b"X-A: " + b"\r\n ".join([b"a" * 900] * 340) + b"\r\n" + BODY, b"longer than")
    yield bad("1001-fields", HEAD + b"".join(b"X-%d: x\r\n" % n for n in range(1001)) + BODY, b"more than 1000")
    yield bad("10000-received", HEAD + b"Received: x\r\n" * 10_000 + BODY)
    received = b"Received: from a by b; Fri, 20 Nov 2026 17:00:00 +0000\r\n"
    yield bad("51-received", HEAD + received * 51 + BODY, b"Loop detected")
    yield bad("no-colon", HEAD + b"this is no field\r\n" + BODY)
    yield bad("space-before-colon", HEAD + b"X-A : value\r\n" + BODY)
    yield bad("empty-name", HEAD + b": value\r\n" + BODY)
    yield bad("space-in-name", HEAD + b"X A: value\r\n" + BODY)
    yield bad("eight-bit-name", HEAD + "Grüße: value\r\n".encode() + BODY)
    yield bad("begins-folded", b" folded\r\n" + HEAD + BODY)
    yield bad("byte-order-mark", b"\xef\xbb\xbf" + HEAD + BODY)
    yield bad("mbox-line", b"From app@sender.test Fri Nov 20 17:00:00 2026\r\n" + HEAD + BODY)


def once() -> Iterator[Mail]:
    for name in (
        b"From",
        b"To",
        b"Cc",
        b"Subject",
        b"Date",
        b"Message-ID",
        b"Reply-To",
        b"In-Reply-To",
        b"References",
    ):
        line = b"app@sender.test" if name in (b"From", b"To", b"Cc", b"Reply-To") else b"<x@sender.test>"
        if name == b"Date":
            line = b"Fri, 20 Nov 2026 17:00:00 +0000"
        twice = without(name) + (name + b": " + line + b"\r\n") * 2
        yield bad(f"twice-{name.decode().lower()}", twice + BODY, name)
    for name in (b"To", b"Subject", b"Date", b"Message-ID"):
        yield good(f"without-{name.decode().lower()}", without(name) + BODY)


def authors() -> Iterator[Mail]:
    rest = without(b"From")
    for name, value in {
        "bare": b"app@sender.test",
        "quoted": b'"App, the \\"best\\"" <app@sender.test>',
        "encoded": b"=?utf-8?q?Gr=C3=BC=C3=9Fe?= <app@sender.test>",
        "folded": b"App\r\n <app@sender.test>",
        "upper-case": b"<APP@SENDER.TEST>",
        "eight-bit": "Grüße <app@sender.test>".encode(),
    }.items():
        yield good(f"author-{name}", b"From: " + value + b"\r\n" + rest + BODY)
    for name, value in {
        "empty": b"",
        "none": b"<>",
        "name-only": b"App",
        "group": b"all: app@sender.test;",
        "two": b"app@sender.test, other@sender.test",
        "foreign": b"app@elsewhere.test",
        "foreign-behind-ours": b"app@sender.test <boss@bank.test>",
        "foreign-in-the-name": b'"boss@bank.test" <app@sender.test> <boss@bank.test>',
        "unclosed": b"<app@sender.test",
        "route": b"<@a.test:app@sender.test>",
        "trailing": b"<app@sender.test> boss@bank.test",
        "encoded-address": b"=?utf-8?q?app=40sender.test?=",
        "control": b"<app\x01@sender.test>",
    }.items():
        yield bad(f"author-{name}", b"From: " + value + b"\r\n" + rest + BODY)
    yield bad("author-missing", rest + BODY, b"From")


def structures() -> Iterator[Mail]:
    yield mime("no-boundary", b"multipart/mixed", b"--a\r\n\r\nx\r\n")
    yield mime("never-closed", b"multipart/mixed; boundary=a", b"--a\r\n\r\nx\r\n")
    yield mime("boundary-not-there", b"multipart/mixed; boundary=a", b"no parts here\r\n")
    yield mime("empty-boundary", b'multipart/mixed; boundary=""', b"--\r\n\r\nx\r\n----\r\n")
    yield mime("boundary-twice", b"multipart/mixed; boundary=a; boundary=b", b"--b\r\n\r\nx\r\n--b--\r\n")
    yield mime("boundary-of-500", b"multipart/mixed; boundary=" + b"a" * 500, b"--" + b"a" * 500 + b"\r\n\r\nx\r\n")
    yield mime(
        "eight-bit-boundary", b'multipart/mixed; boundary="\xff\xfe"', b"--\xff\xfe\r\n\r\nx\r\n--\xff\xfe--\r\n"
    )
    yield mime("closed-twice", b"multipart/mixed; boundary=a", b"--a\r\n\r\nx\r\n--a--\r\n--a--\r\nepilogue\r\n")
    for depth in (10, 100, 5000):
        parts = b"".join(
            b"--%d\r\nContent-Type: multipart/mixed; boundary=%d\r\n\r\n" % (n, n + 1) for n in range(depth)
        )
        yield mime(f"nested-{depth}", b"multipart/mixed; boundary=0", parts + b"--%d\r\n\r\nx\r\n" % depth)
    yield mime("10000-parts", b"multipart/mixed; boundary=a", b"--a\r\n\r\nx\r\n" * 10_000 + b"--a--\r\n")
    yield mime("messages-in-messages", b"message/rfc822", b"Content-Type: message/rfc822\r\n\r\n" * 1000 + b"x\r\n")
    yield mime("unknown-charset", b"text/plain; charset=x-unknown", b"\xff\xfe\r\n")
    yield mime("empty-type", b"", b"x\r\n")
    yield mime("garbage-type", b";;;=;=;\"';,", b"x\r\n")
    yield mime("base64-with-rubbish", b"text/plain\r\nContent-Transfer-Encoding: base64", b"!!! no ===base64=\r\n")
    yield mime("qp-with-rubbish", b"text/plain\r\nContent-Transfer-Encoding: quoted-printable", b"=ZZ =\r\n==3D=\r\n")
    yield mime("eight-bit-in-7bit", b"text/plain\r\nContent-Transfer-Encoding: 7bit", b"\xe4\xf6\xfc\r\n")
    yield mime("binary", b"application/x\r\nContent-Transfer-Encoding: binary", bytes(range(1, 10)) + b"\x80" * 3000)
    yield mime("unknown-encoding", b"text/plain\r\nContent-Transfer-Encoding: x-rot13", b"uryyb\r\n")
    yield mime("yenc", b"text/plain", b"=ybegin line=128 size=3 name=a\r\n\x93\x94\x95\r\n=yend size=3\r\n")


def all_mail() -> list[Mail]:
    mails = [mail for kind in (line_ends, shapes, fields, once, authors, structures) for mail in kind()]
    assert len({mail.id for mail in mails}) == len(mails)
    return mails


MAILS = all_mail()


@dataclass
class Office:
    """Replies and arrivals by the name of the message."""

    replies: dict[str, bytes]
    arrived: dict[str, Received]


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Office:
    """Submit everything, and return what was answered and what arrived."""
    return asyncio.run(_run(tmp_path_factory.mktemp("malformed")))


async def _run(folder: Path) -> Office:
    replies: dict[str, bytes] = {}
    script = Script(extensions=(*PLAIN_EXTENSIONS, "SMTPUTF8"))
    async with DnsServer() as dns, Mx(script) as mx:
        dns.set("rcpt.test", "A", "127.0.0.1")
        async with Relay(folder, dns=dns.address, mx_port=mx.port) as relay:
            turns = asyncio.Semaphore(SESSIONS)

            async def submit(mail: Mail) -> None:
                async with turns:
                    replies[mail.id] = await _submit(relay.port(), mail)

            await asyncio.gather(*(submit(mail) for mail in MAILS))
            taken = sum(reply.startswith(b"250") for reply in replies.values())
            await mx.wait(taken, 30)
            crashes = ("message_cannot_be_sent", "task_crashed", "connection_crashed", "smtp_crashed")
            assert [line for line in relay.lines() if line.get("event") in crashes] == []
        assert mx.violations == []
        return Office(replies, {one.recipients[0].removesuffix("@rcpt.test"): one for one in mx.messages})


async def _submit(port: int, mail: Mail) -> bytes:
    """Return the reply to the message, which goes out as it is, dots apart."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(30):
            await _reply(reader)
            for command in (
                "EHLO client.test",
                "MAIL FROM:<app@sender.test>",
                f"RCPT TO:<{mail.id}@rcpt.test>",
                "DATA",
            ):
                writer.write(command.encode() + b"\r\n")
                assert (await _reply(reader))[:1] in b"23", command
            stuffed = re.sub(rb"(?m)(\A|(?<=\r\n))\.", b"..", mail.content)
            if mail.content and not mail.content.endswith(b"\r\n"):
                stuffed += b"\r\n"
            writer.write(stuffed + b".\r\n")
            return await _reply(reader)
    finally:
        writer.close()


async def _reply(reader: asyncio.StreamReader) -> bytes:
    while (line := await reader.readline())[3:4] == b"-":
        pass
    return line


def expected(content: bytes) -> bytes:
    """Return the message with the line ends that a relay may give it, after the one that its client adds."""
    ended = content if content.endswith(b"\r\n") else content + b"\r\n"
    canonical = re.sub(rb"(?<!\r)\n", b"\r\n", ended)
    return canonical if b"\r\n\r\n" in canonical else canonical + b"\r\n"


def stripped(received: Received, original: bytes) -> bytes:
    """Return what arrived without the fields that the relay adds: above, and Date and Message-ID where missing."""
    header, _, rest = received.content.partition(b"\r\n\r\n")
    fields = re.split(rb"\r\n(?![ \t])", header)
    while fields and fields[0].lower().startswith(OURS):
        ours = fields.pop(0).lower()
        if ours.startswith(b"received:"):
            break
    for name in (b"Date:", b"Message-ID:"):
        if name not in original.partition(b"\r\n\r\n")[0].replace(b"\n", b"\r\n"):
            assert any(line.startswith(name) for line in fields[-2:]), name
            fields = [line for line in fields if not line.startswith(name)]
    return b"\r\n".join(fields) + b"\r\n\r\n" + rest


def test_there_are_enough_of_them() -> None:
    assert len(MAILS) >= 150
    assert sum(not mail.passes for mail in MAILS) >= 30


@pytest.mark.timeout(120)
@pytest.mark.parametrize("mail", [pytest.param(mail, id=mail.id) for mail in MAILS])
def test_odd_mail_arrives_as_it_is_or_is_refused_with_a_reason(mail: Mail, office: Office) -> None:
    reply = office.replies[mail.id]
    if not mail.passes:
        assert re.fullmatch(rb"55[0-9] 5\.\d+\.\d+ [ -~]{10,400}\r\n", reply), reply
        assert mail.words.lower() in reply.lower(), reply
        assert b"Traceback" not in reply
        assert mail.id not in office.arrived
        return
    assert reply.startswith(b"250 2.0.0 Ok: queued as "), reply
    received = office.arrived[mail.id]
    assert stripped(received, mail.content) == expected(mail.content)


@pytest.mark.timeout(120)
def test_what_arrived_is_signed_validly_wherever_dkimpy_can_read_it(office: Office) -> None:
    def fetch(name: bytes, timeout: int = 5) -> bytes | None:
        return record().encode() if name == b"s1._domainkey.sender.test." else None

    verified, unreadable = 0, []
    for name, received in office.arrived.items():
        try:
            assert dkim.DKIM(received.content).verify(idx=0, dnsfunc=fetch), name
            verified += 1
        except dkim.DKIMException as error:
            unreadable.append((name, str(error)))
    assert verified >= 100
    assert len(unreadable) <= 10, unreadable
