"""Bodies and heads that want to be misunderstood, through the real door; none is our surprise."""

import asyncio
import base64
import contextlib
import gzip
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from peers.restdoor import ACME_KEY, RestDoor, open_rest_door

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAIT_S = 20.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RestDoor]:
    async with open_rest_door(tmp_path_factory.mktemp("hostile")) as opened:
        yield opened
        assert opened.relay.lines("request_crashed") == []
        assert opened.relay.lines("task_crashed") == []
        assert [line for line in opened.relay.lines() if line.get("level") == "error"] == []


async def say(door: RestDoor, data: bytes) -> tuple[bytes, bytes]:
    """Return status line and the rest of what comes until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    try:
        writer.write(data)
        async with asyncio.timeout(WAIT_S):
            status = await reader.readline()
            rest = b""
            with contextlib.suppress(OSError):
                rest = await reader.read()
        return status, rest
    finally:
        writer.transport.abort()


async def status_of(door: RestDoor, data: bytes) -> bytes:
    """Return the status line that comes while the rest of the request does not."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    try:
        writer.write(data)
        async with asyncio.timeout(WAIT_S):
            return await reader.readline()
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[]", id="array"),
        pytest.param(b"{", id="cut-off"),
        pytest.param(b"\xff\xfe", id="not-utf-8"),
        pytest.param(b'{"address": "\\ud800@x.test"}', id="lone-surrogate"),
        pytest.param(b'{"address": NaN}', id="nan"),
        pytest.param(b'{"address": ' + b"1" * 5000 + b"}", id="5000-digits"),
        pytest.param(b'{"address":' + b"[" * 100_000, id="deep"),
        pytest.param(b'{"address": 1e999}', id="overflow"),
        pytest.param(b'{"address": "a@x.test", "address": "b@x.test"}', id="key-twice"),
        pytest.param(b'{"address": ["a@x.test"]}', id="wrong-type"),
        pytest.param(b'{"address": "a@x.test\\u0000"}', id="nul"),
        pytest.param(b'{"address": "a@x.test\\u2028"}', id="line-separator"),
        pytest.param(b"address=a@x.test", id="form"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/tenants/acme/suppressions", "/v1/emails/raw", "/v1/queue/hold"])
async def test_json_traps_are_refused(door: RestDoor, path: str, body: bytes) -> None:
    answer = await door.ask("POST", path, data=body, key=ACME_KEY)
    assert answer.status == 400
    assert answer.body["error"]["message"]


@pytest.mark.parametrize("method_path", ["POST /v1/control/reload", "DELETE /v1/tenants/acme/suppressions/no@x.test"])
async def test_an_empty_body_with_a_json_type_is_no_error_of_json(door: RestDoor, method_path: str) -> None:
    method, _, path = method_path.partition(" ")
    answer = await door.ask(method, path, data=b"")
    assert answer.status in {200, 404}


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "GZIP", "gzip, identity", "x"])
@pytest.mark.parametrize("body", [gzip.compress(b'{"address": "a@x.test"}'), b""], ids=["body", "empty"])
async def test_nothing_is_inflated(door: RestDoor, coding: str, body: bytes) -> None:
    answer = await door.ask("POST", "/v1/tenants/acme/suppressions", data=body, headers={"Content-Encoding": coding})
    assert (answer.status, answer.code) == (415, "unsupported_media_type")


async def test_identity_is_no_coding(door: RestDoor) -> None:
    answer = await door.ask(
        "POST", "/v1/tenants/acme/suppressions", {"address": "i@x.test"}, headers={"Content-Encoding": "identity"}
    )
    assert answer.status == 201


async def test_a_body_over_the_limit_is_refused_while_it_comes(door: RestDoor) -> None:
    head = (
        "POST /v1/tenants/acme/suppressions HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {door.key}\r\nTransfer-Encoding: chunked\r\n\r\n"
    ).encode()
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    status = await status_of(door, head + chunk * 40)  # 1.3 MB, and no end
    assert b" 413 " in status


async def test_a_declared_length_over_the_limit_is_refused_before_it_comes(door: RestDoor) -> None:
    head = f"POST /v1/emails/raw HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {door.key}\r\n"
    assert b" 413 " in await status_of(door, (head + "Content-Length: 99000000\r\n\r\n").encode())


async def test_without_a_key_no_body_is_waited_for(door: RestDoor) -> None:
    head = b"POST /v1/emails/raw HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    assert b" 401 " in await status_of(door, head)


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", id="length-and-chunks"),
        pytest.param(b"Content-Length: 2\r\nContent-Length: 3\r\n", id="length-twice"),
        pytest.param(b"Transfer-Encoding: chunked, chunked\r\n", id="chunked-twice"),
        pytest.param(b"Host: y\r\n", id="host-twice"),
    ],
)
async def test_smuggling_is_refused(door: RestDoor, head: bytes) -> None:
    request = b"POST /v1/control/reload HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n"
    status, rest = await say(door, request + b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b" 400 " in status
    assert b"ok\n" not in rest


async def test_broken_chunks_are_refused(door: RestDoor) -> None:
    status, rest = await say(
        door,
        f"POST /v1/tenants/acme/suppressions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {door.key}\r\n"
        "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n".encode(),
    )
    assert b" 400 " in status
    assert b"X-Request-I" in rest


async def test_who_leaves_within_a_body_leaves_no_trace(door: RestDoor) -> None:
    for _ in range(5):
        _, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(
            f"POST /v1/emails/raw HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {door.key}\r\n"
            'Content-Length: 1000\r\n\r\n{"from":'.encode()
        )
        await writer.drain()
        writer.transport.abort()
    assert (await door.ask("GET", "/v1/status")).status == 200  # the fixture looks at the log


async def test_a_message_may_be_as_large_as_smtp_takes(door: RestDoor) -> None:
    body = "x" * 70 + "\r\n"
    answer = await door.send("large@held.test", rawMessage=_large(body * (13_900_000 // len(body))))
    assert answer.status == 200, answer.text
    shown = await door.ask("GET", f"/v1/emails/{answer.data['id']}?expand=raw")
    assert len(shown.data["rawMessage"]) > 18_000_000


def _large(body: str) -> str:
    return base64.b64encode(f"From: app@sender.test\r\n\r\n{body}".encode()).decode()


async def test_every_path_survives_odd_queries(door: RestDoor) -> None:
    odd = ["%", "%ff", "%00", "\u2028", "a" * 3000, "[]", "1;drop table", "%ED%A0%80", "&&&===", "page=1&page=2"]
    for path in ("/v1/emails", "/v1/queue", "/v1/events", "/v1/why", "/v1/tenants/acme/suppressions", "/v1/status"):
        for value in odd:
            for name in ("q", "page", "status", "to", "from", "tag", "after", "tenantId", "domain", "expand"):
                answer = await door.ask("GET", f"{path}?{name}={value}")
                assert answer.status < 500, (path, name, value)
                json.dumps(answer.body)
