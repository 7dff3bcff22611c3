"""One GET of a policy from a host that somebody else named: what it may do to us."""

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from peers import certificates
from peers.dns import DnsServer
from peers.receiver import ENDLESS_BYTES, Receiver

from arkrelay.policy.route import parse_networks
from arkrelay.wire.dns import Resolver
from arkrelay.wire.fetch import EXCHANGE_BYTES, MAX_BYTES, Fetcher, FetchError
from arkrelay.wire.tls import verifying

HOST = "127.0.0.2"
ALLOW = parse_networks([f"{HOST}/32"])


def trusting() -> ssl.SSLContext:
    return verifying(str(certificates.authority().ca_file))


@pytest.fixture
async def web() -> AsyncIterator[tuple[Fetcher, Receiver]]:
    async with AsyncExitStack() as stack:
        dns = await stack.enter_async_context(DnsServer())
        dns.set("policy.test", "A", HOST)
        context = certificates.valid("policy.test").server_context()
        receiver = await stack.enter_async_context(Receiver(HOST, context=context))
        resolver = Resolver([dns.address], 1.0)
        stack.push_async_callback(resolver.close)
        yield Fetcher(resolver, frozenset(), context=trusting, timeout_s=5.0), receiver


@pytest.mark.parametrize("path", ["extension", "interim"])
async def test_an_answer_without_an_end_is_cut_off(web: tuple[Fetcher, Receiver], path: str) -> None:
    fetcher, receiver = web
    with pytest.raises(FetchError) as caught:
        await fetcher.text("policy.test", f"/{path}", port=receiver.port, allow=ALLOW)
    assert str(caught.value) == f"Its answer did not end within {EXCHANGE_BYTES} bytes"
    assert receiver.sent_bytes[path] < ENDLESS_BYTES / 10


@pytest.mark.parametrize("size", [1, MAX_BYTES - 1, MAX_BYTES])
async def test_a_text_of_the_longest_is_read_whole(web: tuple[Fetcher, Receiver], size: int) -> None:
    fetcher, receiver = web
    receiver.taken = b"x" * size
    assert await fetcher.text("policy.test", "/", port=receiver.port, allow=ALLOW) == b"x" * size


async def test_a_longer_one_is_refused(web: tuple[Fetcher, Receiver]) -> None:
    fetcher, receiver = web
    receiver.taken = b"x" * (MAX_BYTES + 1)
    with pytest.raises(FetchError, match="longer than"):
        await fetcher.text("policy.test", "/", port=receiver.port, allow=ALLOW)
