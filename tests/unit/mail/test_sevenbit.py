"""Seven bits: nothing above 127 is left in a body, and every part still says what it said."""

import email
import email.message
import email.policy
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.mail.header import split
from arkrelay.mail.leaves import DEPTH_LIMIT, PART_LIMIT
from arkrelay.mail.sevenbit import to_seven_bit

TOP = b"From: a@x.test\r\nMIME-Version: 1.0\r\n"
UMLAUTS = "Grüße aus Köln\r\n".encode()


def read(content: bytes) -> list[tuple[str, bytes]]:
    """Return type and decoded bytes of each leaf, as another implementation reads them."""
    message = email.message_from_bytes(content, policy=email.policy.compat32)
    leaves = []
    for part in message.walk():
        if not part.is_multipart():
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            leaves.append((part.get_content_type(), payload))
    return leaves


def parts(*bodies: bytes, boundary: bytes = b"b") -> bytes:
    return b"".join(b"--%b\r\n%b\r\n" % (boundary, body) for body in bodies) + b"--%b--\r\n" % boundary


def test_a_seven_bit_message_is_returned_as_it_is() -> None:
    content = TOP + b"\r\nplain\r\n"
    assert to_seven_bit(content) is content


def test_bytes_in_the_header_alone_change_nothing() -> None:
    content = TOP + "Subject: grün\r\n".encode() + b"\r\nplain\r\n"
    assert to_seven_bit(content) == content


@pytest.mark.parametrize(
    ("header", "body", "encoding"),
    [
        pytest.param(b"Content-Type: text/plain; charset=utf-8\r\n", UMLAUTS, b"quoted-printable", id="text"),
        pytest.param(b"content-type: TEXT/HTML; charset=utf-8\r\n", UMLAUTS, b"quoted-printable", id="html"),
        pytest.param(
            b"Content-Type: text/plain\r\nContent-Transfer-Encoding: 8bit\r\n",
            UMLAUTS,
            b"quoted-printable",
            id="8bit",
        ),
        pytest.param(
            b"Content-Transfer-Encoding: BINARY (c)\r\nContent-Type: image/png\r\n",
            b"\x89\0\xff" * 99,
            b"base64",
            id="image",
        ),
        pytest.param(b"Content-Type: text/plain; charset=utf-16\r\n", b"\xff\xfea\0\xfc\0", b"base64", id="utf-16"),
        pytest.param(b"Content-Type: nonsense\r\n", UMLAUTS, b"quoted-printable", id="unreadable-type-is-text"),
        pytest.param(
            b"Content-Transfer-Encoding: x-own\r\nContent-Type: text/plain\r\n",
            UMLAUTS,
            b"quoted-printable",
            id="own",
        ),
        pytest.param(
            b"Content-Type: text/plain\r\n",
            b"x" * 500 + b"\xfc \r\n.\r\n..\r\n=\t\r\n",
            b"quoted-printable",
            id="long",
        ),
        pytest.param(b"Content-Type: message/delivery-status\r\n", UMLAUTS, b"quoted-printable", id="status"),
    ],
)
def test_a_leaf_is_encoded_by_its_type_and_reads_the_same(header: bytes, body: bytes, encoding: bytes) -> None:
    result = to_seven_bit(TOP + header + b"\r\n" + body)
    assert result.isascii()
    new_header, new_body = split(result)
    found = re.findall(rb"^content-transfer-encoding: *(.*)\r\n", new_header, re.IGNORECASE | re.MULTILINE)
    assert found == [encoding]
    assert max(len(line) for line in new_body.split(b"\r\n")) <= 76
    if b"delivery-status" not in header:
        assert read(result)[0][1] == body
    kept = [line for line in (TOP + header).split(b"\r\n") if b"transfer-encoding" not in line.lower()]
    assert [line for line in new_header.split(b"\r\n") if b"Transfer-Encoding" not in line] == kept


@pytest.mark.parametrize(("body", "charset"), [(UMLAUTS, b"utf-8"), (b"Gr\xfc\xdfe\r\n", b"unknown-8bit")])
def test_a_message_that_is_not_mime_becomes_mime(body: bytes, charset: bytes) -> None:
    result = to_seven_bit(b"From: a@x.test\r\n\r\n" + body)
    assert split(result)[0] == (
        b"From: a@x.test\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=" + charset + b"\r\n"
        b"Content-Transfer-Encoding: quoted-printable\r\n"
    )
    assert read(result) == [("text/plain", body)]


def test_only_the_parts_that_need_it_change() -> None:
    ascii_part = b"Content-Type: text/plain\r\n\r\nplain  text"
    text_part = b"Content-Type: text/html\r\nContent-Transfer-Encoding: 8bit\r\nX: y\r\n\r\n" + UMLAUTS
    image_part = b"Content-Type: image/png\r\n\r\n\x89PNG"
    bare_part = b"\r\nGr\xc3\xbcn"
    content = (
        TOP + b'Content-Transfer-Encoding: 8bit\r\nContent-Type: multipart/mixed;\r\n\tboundary="b"\r\n\r\n'
        b"preamble \xfc\r\n" + parts(ascii_part, text_part, image_part, bare_part) + b"epilogue \xfc\r\n"
    )
    result = to_seven_bit(content)
    assert result.isascii()
    assert result == (
        TOP
        + b'Content-Type: multipart/mixed;\r\n\tboundary="b"\r\n\r\npreamble ?\r\n--b\r\n'
        + ascii_part
        + b"\r\n--b\r\n"
        b"Content-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\nX: y\r\n\r\n"
        b"Gr=C3=BC=C3=9Fe aus K=C3=B6ln\r\n\r\n--b\r\n"
        b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw==\r\n\r\n--b\r\n"
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BCn\r\n--b--\r\nepilogue ?\r\n"
    )
    assert [payload for _, payload in read(result)] == [payload for _, payload in read(content)]


def test_a_message_inside_is_opened_and_never_encoded_whole() -> None:
    inner = b"From: b@y.test\r\nContent-Type: text/plain; charset=utf-8\r\nMIME-Version: 1.0\r\n\r\n" + UMLAUTS
    forwarded = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + inner
    result = to_seven_bit(TOP + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + parts(forwarded))
    assert result.isascii()
    assert b"message/rfc822\r\n\r\nFrom: b@y.test\r\n" in result
    assert read(result) == [("text/plain", UMLAUTS)]
    digest = to_seven_bit(TOP + b"Content-Type: multipart/digest; boundary=b\r\n\r\n" + parts(b"\r\n" + inner))
    assert b"--b\r\n\r\nFrom: b@y.test\r\n" in digest
    assert digest.isascii()


def test_broken_encodings_lose_their_stray_bytes_or_escape_them() -> None:
    base64_part = b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\niVBO\xffRw=="
    printable_part = b"Content-Type: text/plain\r\nContent-Transfer-Encoding: Quoted-Printable\r\n\r\nGr\xfcn =3D"
    content = TOP + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + parts(base64_part, printable_part)
    assert read(to_seven_bit(content)) == [("image/png", b"\x89PNG"), ("text/plain", b"Gr\xfcn =")]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        pytest.param(b"multipart/mixed", parts(b"\r\n\xfc"), id="no-boundary"),
        pytest.param(b"multipart/mixed; boundary=other", parts(b"\r\n\xfc"), id="boundary-that-does-not-occur"),
        pytest.param(b'multipart/mixed; boundary="\xfc"', b"--\xfc\r\n\r\nx\r\n--\xfc--\r\n", id="8-bit-boundary"),
        pytest.param(b"multipart/mixed; boundary=b", parts(*[b"\r\n\xfc"] * (PART_LIMIT + 1)), id="too-many-parts"),
    ],
)
def test_what_cannot_be_opened_is_kept_whole_as_an_attachment(kind: bytes, body: bytes) -> None:
    result = to_seven_bit(TOP + b"Content-Type: " + kind + b"\r\n\r\n" + body)
    assert result.isascii()
    assert read(result) == [("application/octet-stream", body)]


def test_parts_are_counted_over_the_whole_message() -> None:
    inner = b"Content-Type: multipart/mixed; boundary=c\r\n\r\n" + parts(*[b"\r\n\xfc"] * 600, boundary=b"c")
    leaves = read(to_seven_bit(TOP + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + parts(inner, inner)))
    assert [kind for kind, _ in leaves] == ["text/plain"] * 600 + ["application/octet-stream"]


def test_an_encoded_multipart_which_may_not_be_is_kept_whole() -> None:
    header = b"Content-Transfer-Encoding: base64\r\nContent-Type: multipart/mixed; boundary=b\r\n"
    body = parts(b"\r\n\xfc")
    assert read(to_seven_bit(TOP + header + b"\r\n" + body)) == [("application/octet-stream", body)]


def test_nesting_is_followed_to_its_limit_without_recursion() -> None:
    def nested(depth: int) -> bytes:
        content = b"Content-Type: text/plain\r\n\r\nGr\xc3\xbcn"
        for level in range(depth):
            boundary = b"n%d" % level
            content = b"Content-Type: multipart/mixed; boundary=%b\r\n\r\n" % boundary + parts(
                content, boundary=boundary
            )
        return b"MIME-Version: 1.0\r\n" + content

    fits = to_seven_bit(nested(DEPTH_LIMIT))
    assert fits.isascii()
    assert b"Gr=C3=BCn" in fits
    for depth in (DEPTH_LIMIT + 1, 3000):
        deep = to_seven_bit(nested(depth))
        assert deep.isascii()
        assert deep.count(b"application/octet-stream") == 1


@pytest.mark.parametrize(
    ("body", "leaves"),
    [
        pytest.param(b"--b\r\n\r\n\xfc", 1, id="no-end"),
        pytest.param(b"--b\r\n\r\n\xfc\r\n--b", 2, id="ends-in-a-delimiter"),
        pytest.param(b"--b\r\n--b\r\n\r\n\xfc\r\n--b--", 2, id="empty-part"),
        pytest.param(b"--b \t\r\n\r\n\xfc\r\n--b-- \r\n", 1, id="spaces-behind-the-delimiter"),
        pytest.param(b"--bb\r\n--b\r\n\r\n\xfc\r\n--bb\r\n--b--\r\n", 1, id="longer-look-alike"),
        pytest.param(b"--b--\r\n\xfc\r\n", 0, id="only-the-end"),
    ],
)
def test_odd_multiparts_keep_their_delimiters(body: bytes, leaves: int) -> None:
    header = TOP + b'Content-Type: multipart/mixed; name="boundary=x;"; Boundary=b; boundary=c\r\n\r\n'
    result = to_seven_bit(header + body)
    assert result.isascii()
    assert result.startswith(header)
    found = re.findall(rb"^--b-*[ \t]*\r?$", result, re.MULTILINE)
    assert found == re.findall(rb"^--b-*[ \t]*\r?$", header + body, re.MULTILINE)
    assert result.count(b"Content-Transfer-Encoding: quoted-printable") == min(leaves, 1)


@given(st.binary(max_size=300).map(lambda body: re.sub(rb"\r|\n", b"", body)), st.integers(0, 90))
def test_any_line_of_text_survives_quoted_printable(line: bytes, position: int) -> None:
    body = line[:position] + b"\r\n" + line[position:] + b"\xfc\r\n"
    result = to_seven_bit(TOP + b"Content-Type: text/plain\r\n\r\n" + body)
    assert max(len(text) for text in split(result)[1].split(b"\r\n")) <= 76
    assert read(result)[0][1] == body


PIECES = st.sampled_from(
    (
        *(b"--b\r\n", b"--b--\r\n", b"\r\n", b"--c\r\n", b"--c--", b"\xfc", b"text", b"--", b"boundary=b", b"\0"),
        *(b"Content-Type: multipart/mixed; boundary=c\r\n", b"Content-Type: message/rfc822\r\n"),
        *(b"Content-Type: text/plain\r\n", b"Content-Transfer-Encoding: base64\r\n", b"Content-Type: x\r\n"),
    )
)


@given(st.one_of(st.binary(), st.lists(PIECES, max_size=20).map(b"".join)))
def test_any_body_comes_out_in_seven_bits(body: bytes) -> None:
    for kind in (b"multipart/mixed; boundary=b", b"message/rfc822", b"text/plain"):
        result = to_seven_bit(TOP + b"Content-Type: " + kind + b"\r\n\r\n" + body)
        # only what stands where header fields stand may keep such bytes
        assert result.isascii() or kind != b"text/plain"
        assert to_seven_bit(result) == result
    to_seven_bit(body)
