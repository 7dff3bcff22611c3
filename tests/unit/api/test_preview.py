"""What a stored message holds, for people: whatever it is, there is an answer, and it is JSON."""

import base64
import hashlib
import json
import os
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.api.operation import encode
from arkrelay.api.preview import CHUNK_BYTES, content_of

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


async def shown(content: bytes | None) -> dict[str, Any]:
    """Return all there is to say of a message, as a client reads it."""
    answer: dict[str, Any] = json.loads(encode(await content_of(content, ALL)))
    return answer


async def test_a_message_is_taken_apart() -> None:
    data = await shown(MIXED)
    assert data["headers"]["Subject"] == "Grüße"
    assert data["headers"]["Received"] == "by a with b\nby c"
    assert data["plain_body"].strip() == "Grüße"
    assert data["html_body"].strip() == "<p>ü</p>"
    assert data["attachments"] == [
        {
            "filename": "ü.pdf",
            "contentType": "application/pdf",
            "size": 4,
            "hash": hashlib.sha256(b"%PDF").hexdigest(),
            "data": base64.b64encode(b"%PDF").decode(),
        }
    ]
    assert base64.b64decode(data["raw_message"]) == MIXED


@pytest.mark.parametrize("extra", [-1, 0, 1, 2])
async def test_base64_in_pieces_is_base64(extra: int) -> None:
    content = os.urandom(2 * CHUNK_BYTES + extra)
    data = json.loads(encode(await content_of(content, {"raw"})))
    assert data["raw_message"] == base64.b64encode(content).decode()


async def test_after_its_retention_everything_is_empty() -> None:
    assert await shown(None) == {
        "raw_message": "",
        "headers": {},
        "html_body": None,
        "plain_body": None,
        "attachments": [],
    }


@pytest.mark.parametrize(
    "charset", ["utf-7", "unicode_escape", "undefined", "idna", "punycode", "zlib", "none-such", "utf-16"]
)
async def test_no_charset_surprises_us(charset: str) -> None:
    content = f"Content-Type: text/plain; charset={charset}\r\n\r\n+2AA- \\ud800 x\r\n".encode()
    data = await content_of(content, {"content"})
    assert isinstance(data["plain_body"], str)
    json.loads(encode(data))


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
    encode(await content_of(content, ALL))
    assert time.process_time() - began < 5.0


@given(
    st.binary(max_size=300) | st.lists(st.sampled_from(MIXED.splitlines(keepends=True)), max_size=40).map(b"".join)
)
async def test_whatever_is_stored_is_shown_as_json(content: bytes) -> None:
    assert base64.b64decode((await shown(content))["raw_message"]) == content
