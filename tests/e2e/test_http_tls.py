"""https: served, with a certificate that changes under it, and closed to clear text."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from cryptography import x509
from peers.restdoor import RestDoor, open_rest_door, show_certificate

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RestDoor]:
    async with open_rest_door(tmp_path_factory.mktemp("tls")) as opened:
        yield opened


async def shown(door: RestDoor) -> str:
    """Return the name in the certificate that a new connection is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    port = int(door.tls.rpartition(":")[2])
    async with asyncio.timeout(20):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
    return x509.load_der_x509_certificate(found).subject.rfc4514_string()


async def test_https_answers_with_a_replaced_certificate_at_once(door: RestDoor) -> None:
    assert (await door.ask("GET", "/v1/status", base=door.tls)).status == 200
    assert await shown(door) == "CN=relay.test"
    show_certificate(door.relay.folder, "renewed.test")
    assert await shown(door) == "CN=renewed.test"
    assert (await door.ask("GET", "/v1/status", base=door.tls)).status == 200


async def test_no_handshake_is_lost_that_comes_with_the_connection(door: RestDoor) -> None:
    """A client in a process or thread of its own speaks before the daemon's first turn, which uvloop reads early."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = ("127.0.0.1", int(door.tls.rpartition(":")[2]))

    def shake_hands() -> None:
        for _ in range(20):
            with socket.create_connection(address, timeout=5) as raw, context.wrap_socket(raw) as secured:
                assert secured.version() == "TLSv1.3"

    await asyncio.to_thread(shake_hands)


async def test_a_large_answer_comes_whole_by_tls(door: RestDoor) -> None:
    answer = await door.ask("GET", "/metrics", key=None, base=door.tls)
    assert answer.status == 200
    assert "arkrelay_up 1.0" in answer.text


async def test_clear_text_gets_no_answer(door: RestDoor) -> None:
    port = int(door.tls.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /v1/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {door.key}\r\n\r\n".encode())
    async with asyncio.timeout(20):
        with contextlib.suppress(OSError):
            assert b"HTTP" not in await reader.read()
    writer.transport.abort()


async def test_old_tls_is_refused(door: RestDoor) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    port = int(door.tls.rpartition(":")[2])
    with pytest.raises((ssl.SSLError, OSError)):
        await asyncio.open_connection("127.0.0.1", port, ssl=context)
