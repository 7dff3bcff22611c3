"""What a stored message holds, for people: whatever it is, there is an answer, and it is JSON."""

import base64
import hashlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.api.preview import content_of
from arkrelay.api.shapes import dump

ALL = {"content", "headers", "attachments", "raw"}
MIXED = b"""\
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r
Received: by a\r
\twith b\r
Received: by c\r
Content-Type: multipart/mixed; boundary=x\r
\r
--x\r
Content-Type: multipart/alternative; boundary=y\r
\r
--y\r
Content-Type: text/plain; charset=utf-8\r
Content-Transfer-Encoding: quoted-printable\r
\r
Gr=C3=BC=C3=9Fe\r
--y\r
Content-Type: text/html; charset=iso-8859-1\r
\r
<p>\xfc</p>\r
--y--\r
--x\r
Content-Type: application/pdf\r
Content-Disposition: attachment; filename*=utf-8''%C3%BC.pdf\r
Content-Transfer-Encoding: base64\r
\r
JVBERg==\r
--x--\r
"""


async def test_a_message_is_taken_apart() -> None:
    data = await content_of(MIXED, ALL)
    assert data["headers"]["Subject"] == "Grüße"
    assert data["headers"]["Received"] == "by a with b\nby c"
    assert data["plainBody"].strip() == "Grüße"
    assert data["htmlBody"].strip() == "<p>ü</p>"
    assert data["attachments"] == [
        {
            "filename": "ü.pdf",
            "contentType": "application/pdf",
            "size": 4,
            "hash": hashlib.sha256(b"%PDF").hexdigest(),
            "data": base64.b64encode(b"%PDF").decode(),
        }
    ]
    assert base64.b64decode(data["rawMessage"]) == MIXED


async def test_after_its_retention_everything_is_empty() -> None:
    assert await content_of(None, ALL) == {
        "rawMessage": "",
        "headers": {},
        "htmlBody": None,
        "plainBody": None,
        "attachments": [],
    }


@pytest.mark.parametrize(
    "charset", ["utf-7", "unicode_escape", "undefined", "idna", "punycode", "zlib", "none-such", "utf-16"]
)
async def test_no_charset_surprises_us(charset: str) -> None:
    content = f"Content-Type: text/plain; charset={charset}\r\n\r\n+2AA- \\ud800 x\r\n".encode()
    data = await content_of(content, {"content"})
    assert isinstance(data["plainBody"], str)
    dump(data).encode()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(
            b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (i, i) for i in range(5000)),
            id="nested-5000",
        ),
        pytest.param(
            b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\n" * 100_000, id="parts-100000"
        ),
        pytest.param(b"Content-Type: text/plain;" + b";" * 1_000_000 + b"\r\n\r\nx", id="semicolons"),
        pytest.param(b'Content-Disposition: attachment; filename="' + b'\\"' * 300_000 + b"\r\n\r\nx", id="quotes"),
        pytest.param(b"A: b\r\n" * 100_000 + b"\r\nx", id="fields-100000"),
    ],
)
async def test_a_bomb_is_cheap(content: bytes) -> None:
    began = time.process_time()
    dump(await content_of(content, ALL)).encode()
    assert time.process_time() - began < 5.0


@given(
    st.binary(max_size=300) | st.lists(st.sampled_from(MIXED.splitlines(keepends=True)), max_size=40).map(b"".join)
)
async def test_whatever_is_stored_is_shown_as_json(content: bytes) -> None:
    answer = dump(await content_of(content, ALL)).encode()
    assert base64.b64decode(json.loads(answer)["rawMessage"]) == content
