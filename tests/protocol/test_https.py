"""One POST to an endpoint that somebody else chose: what it may do to us, and where we never go."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from peers import certificates
from peers.dns import DnsServer
from peers.receiver import ENDLESS_BYTES, FLOOD_BYTES, Receiver, Request

from arkrelay.model.hook import Answer
from arkrelay.policy.route import parse_networks
from arkrelay.wire.dns import Resolver
from arkrelay.wire.https import ANSWER_BYTES, EXCHANGE_BYTES, Poster
from arkrelay.wire.tls import verifying

ALLOWED = "127.0.0.2"
ALLOW = parse_networks([f"{ALLOWED}/32"])
DELUGE_BYTES = 1_000_000_000  # of one answer that nobody ends: a test ends, also one that fails
BODY = b'{"event":"MessageSent"}'
HEADERS = {"Content-Type": "application/json", "X-Ark-Signature": "c2ln", "User-Agent": "arkrelay"}


class Rig:
    def __init__(self, dns: DnsServer, resolver: Resolver, receiver: Receiver, trap: Receiver) -> None:
        self.dns, self.resolver, self.receiver, self.trap = dns, resolver, receiver, trap
        self.poster = Poster(resolver, frozenset({"192.0.2.200"}), context=trusting)

    async def post(self, url: str, *, timeout_s: float = 5.0, allow_http: bool = False) -> Answer:
        """Post to ``url``; PORT stands for the receiver's port and TRAP for that of what nobody may reach."""
        url = url.replace("PORT", str(self.receiver.port)).replace("TRAP", str(self.trap.port))
        return await self.poster.post(url, BODY, HEADERS, timeout_s=timeout_s, allow=ALLOW, allow_http=allow_http)


def trusting() -> ssl.SSLContext:
    return verifying(str(certificates.authority().ca_file))


@asynccontextmanager
async def rigged() -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        dns = await stack.enter_async_context(DnsServer())
        context = certificates.valid("hook.test").server_context()
        receiver = await stack.enter_async_context(Receiver(ALLOWED, context=context))
        trap = await stack.enter_async_context(Receiver("127.0.0.1"))
        await stack.enter_async_context(Receiver("::1", trap.port))
        dns.set("hook.test", "A", ALLOWED)
        resolver = Resolver([dns.address], 1.0)
        stack.push_async_callback(resolver.close)
        made = Rig(dns, resolver, receiver, trap)
        stack.push_async_callback(made.poster.close)
        yield made


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with rigged() as made:
        yield made


async def test_the_bytes_and_the_headers_arrive_as_they_were_given(rig: Rig) -> None:
    answer = await rig.post("https://hook.test:PORT/a%2fb/../c?x=1&y=%20")
    assert (answer.status, answer.success, answer.body, answer.error) == (200, True, "taken", None)
    assert 0 < answer.duration_s < 5
    (request,) = rig.receiver.requests
    assert (request.method, request.path, request.body) == ("POST", "/a%2fb/../c?x=1&y=%20", BODY)
    assert request.headers["host"] == f"hook.test:{rig.receiver.port}"
    assert {name.lower(): value for name, value in HEADERS.items()}.items() <= request.headers.items()
    assert request.headers["content-length"] == str(len(BODY))
    assert request.headers["accept-encoding"] == "identity"
    assert not request.headers.keys() & {"cookie", "authorization", "proxy-authorization"}


async def test_a_connection_is_kept_for_the_next_post(rig: Rig) -> None:
    rig.receiver.keeps = True
    for path in ("", "204", "400", "500", "redirect", ""):
        assert (await rig.post(f"https://hook.test:PORT/{path}")).status is not None
    assert rig.receiver.connections == 1
    assert len(rig.receiver.requests) == 6


async def test_a_kept_connection_that_is_closed_when_it_is_used_costs_no_attempt(rig: Rig) -> None:
    rig.receiver.keeps = True
    assert (await rig.post("https://hook.test:PORT/")).success
    seen: list[int] = []

    def close_the_kept(request: Request) -> int | None:
        seen.append(rig.receiver.connections)
        if len(seen) == 1:
            raise ConnectionError  # after the request was read: nothing is answered
        return None

    rig.receiver.decide = close_the_kept
    assert (await rig.post("https://hook.test:PORT/")).success
    assert seen == [1, 2], "once on the kept connection, once more on a new one"


async def test_a_fresh_connection_that_is_closed_is_a_failed_attempt(rig: Rig) -> None:
    rig.receiver.keeps = True
    assert (await rig.post("https://hook.test:PORT/")).success
    assert (await rig.post("https://hook.test:PORT/close")).error == "The connection ended before an answer came"
    assert len(rig.receiver.requests) == 3, "the second post was made twice, and not for ever"


async def test_a_kept_connection_ends_after_a_minute_with_the_address_it_was_for(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.receiver.keeps = True
    rig.dns.set("hook.test", "A", ALLOWED, ttl=0)
    monkeypatch.setattr("arkrelay.wire.https.KEPT_S", 0.2)
    monkeypatch.setattr("arkrelay.wire.dnscache.MIN_TTL_S", 0.0)
    async with Receiver("127.0.0.4", rig.receiver.port, certificates.valid("hook.test").server_context()) as moved:
        assert (await rig.post("https://hook.test:PORT/")).success
        rig.dns.set("hook.test", "A", "127.0.0.4", ttl=0)
        assert (await rig.post("https://hook.test:PORT/")).success
        assert (rig.receiver.connections, moved.connections) == (1, 0)
        await asyncio.sleep(0.25)
        answer = await rig.post("https://hook.test:PORT/")
        assert answer.error is not None
        assert "127.0.0.4 may not be posted to" in answer.error
        assert moved.connections == 0


async def test_connections_are_not_kept_for_networks_that_are_no_longer_allowed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.receiver.keeps = True
    monkeypatch.setattr("arkrelay.wire.https.KEPT_S", 0.2)
    monkeypatch.setattr("arkrelay.wire.https.IDLE_S", 600.0)
    url = f"https://hook.test:{rig.receiver.port}/"
    for last in range(5, 8):
        allow = parse_networks([f"{ALLOWED}/32", f"127.0.0.{last}/32"])
        assert (await rig.poster.post(url, BODY, HEADERS, timeout_s=5.0, allow=allow)).success
    await asyncio.sleep(0.25)
    assert (await rig.post(url)).success
    async with asyncio.timeout(10):
        while rig.receiver.open > 1:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("204", 204, None),
        ("400", 400, "It answered 400"),
        ("500", 500, "It answered 500"),
        ("redirect", 302, "It answered 302; redirects are not followed"),
        ("close", None, "The connection ended before an answer came"),
        ("rubbish", None, "It did not answer in HTTP"),
    ],
)
async def test_what_an_endpoint_says_is_data(rig: Rig, path: str, status: int | None, error: str | None) -> None:
    rig.receiver.gone_away = f"http://127.0.0.1:{rig.trap.port}/"
    answer = await rig.post(f"https://hook.test:PORT/{path}")
    assert (answer.status, answer.error, answer.success) == (status, error, error is None)
    assert len(rig.receiver.requests) == 1
    assert rig.trap.connections == 0


async def test_one_that_hangs_is_left_at_the_deadline(rig: Rig) -> None:
    began = time.monotonic()
    answer = await rig.post("https://hook.test:PORT/hang", timeout_s=0.3)
    assert time.monotonic() - began < 2
    assert (answer.status, answer.error) == (None, "No answer within 0.3 s")


async def test_a_status_in_time_counts_though_its_body_drips(rig: Rig) -> None:
    began = time.monotonic()
    answer = await rig.post("https://hook.test:PORT/drip", timeout_s=0.5)
    assert time.monotonic() - began < 2
    assert (answer.status, answer.body, answer.error) == (200, "slow", None)


async def test_of_a_flood_only_the_beginning_is_read(rig: Rig) -> None:
    answer = await rig.post("https://hook.test:PORT/flood")
    assert (answer.success, answer.body) == (True, "x" * ANSWER_BYTES)
    assert rig.receiver.sent_bytes["flood"] < FLOOD_BYTES / 2


def flood(listener: socket.socket, answer: bytes, *, parting: bool) -> int:
    """Take one post, answer, with ``parting`` wait for the client's closure alert, and send on; return the bytes."""
    sent = 0
    connection, _ = listener.accept()
    context = certificates.valid("hook.test").server_context()
    with context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False) as tls:
        tls.recv(65_536)
        tls.sendall(answer)
        while parting and tls.recv(65_536):  # b"" for the alert (RFC 9112 §9.8), SSLEOFError for an end without it
            pass
        with contextlib.suppress(OSError):
            while sent < DELUGE_BYTES:
                sent += tls.send(b"x" * 16_000)
    return sent


@pytest.mark.parametrize(
    ("answer", "parting"),
    [
        pytest.param(b"Content-Length: 999999999999\r\n\r\n", False, id="never-ends"),
        pytest.param(b"Content-Length: 2\r\nConnection: close\r\n\r\nok", True, id="has-ended"),
    ],
)
def test_nothing_is_read_of_a_flood_while_tls_takes_leave(answer: bytes, parting: bool) -> None:
    """On uvloop, as the daemon runs: it would read on for 30 s until the peer takes leave, too."""
    uvloop = pytest.importorskip("uvloop")

    async def post() -> int:
        with socket.create_server((ALLOWED, 0)) as listener:
            url = f"https://hook.test:{listener.getsockname()[1]}/"
            async with rigged() as rig, asyncio.timeout(30):
                sent = asyncio.create_task(
                    asyncio.to_thread(flood, listener, b"HTTP/1.1 200 OK\r\n" + answer, parting=parting)
                )
                assert (await rig.post(url)).success
                return await sent

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(post()) < DELUGE_BYTES / 10


@pytest.mark.parametrize("path", ["extension", "interim"])
@pytest.mark.parametrize("kept", [False, True])
async def test_an_answer_without_an_end_is_cut_off_and_is_no_answer(rig: Rig, path: str, kept: bool) -> None:
    if kept:
        rig.receiver.keeps = True
        assert (await rig.post("https://hook.test:PORT/")).success
    answer = await rig.post(f"https://hook.test:PORT/{path}")
    assert (answer.status, answer.body) == (None, "")
    assert answer.error == f"Its answer did not end within {EXCHANGE_BYTES} bytes"
    assert rig.receiver.sent_bytes[path] < ENDLESS_BYTES / 10
    assert [request.path for request in rig.receiver.requests].count(f"/{path}") == 1
    assert (await rig.post("https://hook.test:PORT/")).success


async def test_what_is_read_of_answers_is_counted_for_each_by_itself(rig: Rig) -> None:
    rig.receiver.keeps = True
    rig.receiver.taken = b"x" * (ANSWER_BYTES - 1)
    for _ in range(2 * EXCHANGE_BYTES // ANSWER_BYTES):
        assert (await rig.post("https://hook.test:PORT/")).body == "x" * (ANSWER_BYTES - 1)
    assert rig.receiver.connections == 1


async def test_nothing_is_inflated(rig: Rig) -> None:
    assert "bomb" in (await rig.post("https://hook.test:PORT/zip")).body


async def test_no_proxy_is_asked(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{rig.trap.port}")
    assert (await rig.post("https://hook.test:PORT/")).success
    assert rig.trap.connections == 0


@pytest.mark.parametrize(
    ("pair", "error"),
    [
        (lambda: certificates.expired("hook.test"), "has expired"),
        (lambda: certificates.self_signed("hook.test"), "self-signed"),
        (lambda: certificates.valid("other.test"), "mismatch"),
    ],
)
async def test_a_certificate_has_to_be_valid_before_anything_is_said(
    rig: Rig, pair: Callable[[], certificates.Pair], error: str
) -> None:
    async with Receiver(ALLOWED, context=pair().server_context()) as bad:
        answer = await rig.post(f"https://hook.test:{bad.port}/")
        assert answer.status is None
        assert answer.error is not None
        assert answer.error.startswith("Its certificate is not valid: ")
        assert error in answer.error
        assert bad.requests == []


async def test_a_server_without_tls_is_not_told_anything(rig: Rig) -> None:
    async with Receiver(ALLOWED) as plain:
        answer = await rig.post(f"https://hook.test:{plain.port}/", timeout_s=0.3)
        assert (answer.status, plain.requests) == (None, [])
        refused = await rig.post(f"http://hook.test:{plain.port}/")
        assert (refused.error, plain.requests) == (
            "The URL plain http needs allow_http in [webhooks] of arkrelay.toml", [],
        )  # fmt: skip
        assert (await rig.post(f"http://hook.test:{plain.port}/", allow_http=True)).success


@pytest.mark.parametrize(
    ("url", "records"),
    [
        ("https://127.0.0.1:TRAP/", {}),
        ("https://[::1]:TRAP/", {}),
        ("https://[::ffff:127.0.0.1]:TRAP/", {}),
        ("https://[64:ff9b::7f00:1]:TRAP/", {}),
        ("https://0.0.0.0:TRAP/", {}),
        ("https://[::]:TRAP/", {}),
        ("https://10.1.2.3/", {}),
        ("https://172.16.0.1/", {}),
        ("https://192.168.1.1/", {}),
        ("https://100.64.0.1/", {}),
        ("https://169.254.169.254/latest/meta-data/", {}),
        ("https://[fe80::1]/", {}),
        ("https://[fd00::1]/", {}),
        ("https://224.0.0.1/", {}),
        ("https://192.0.2.200/", {}),  # our own
        ("https://2130706433:TRAP/", {}),
        ("https://0x7f000001:TRAP/", {}),
        ("https://0177.0.0.1:TRAP/", {}),
        ("https://127.1:TRAP/", {}),
        ("https://localhost:TRAP/", {}),
        ("https://sub.localhost:TRAP/", {}),
        ("https://inside.test:TRAP/", {"A": ("127.0.0.1",)}),
        ("https://inside.test:TRAP/", {"AAAA": ("::1",)}),
        ("https://inside.test:TRAP/", {"AAAA": ("::ffff:127.0.0.1",)}),
        ("https://inside.test:TRAP/", {"A": ("10.0.0.1", "127.0.0.1", "169.254.169.254")}),
        ("https://inside.test:TRAP/", {"CNAME": ("behind.test.",)}),
    ],
)
async def test_what_only_we_can_reach_is_never_connected_to(
    rig: Rig, url: str, records: dict[str, tuple[str, ...]]
) -> None:
    rig.dns.set("behind.test", "A", "127.0.0.1")
    for kind, values in records.items():
        rig.dns.set("inside.test", kind, *values)
    began = time.monotonic()
    for allow_http in (False, True):
        answer = await rig.post(url.replace("https", "http") if allow_http else url, allow_http=allow_http)
        assert answer.status is None
        assert answer.error is not None
        assert "may not be posted to" in answer.error or "no usable host" in answer.error
    assert rig.trap.connections == 0
    assert time.monotonic() - began < 1  # nobody tried


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.2]:25/",
        "https://192.0.2.200/",
        "https://x:y@z/",
        "https://1.1.1.1:25/",
    ],
)
async def test_what_an_address_or_a_text_forbids_is_known_without_a_look_up(rig: Rig, url: str) -> None:
    assert rig.poster.refusal(url, ALLOW, allow_http=False)
    for good in ("https://127.0.0.2:25/", "https://inside.test/", "https://inside.test:25/", "https://1.1.1.1:8443/"):
        assert rig.poster.refusal(good, ALLOW, allow_http=False) is None
    assert rig.poster.refusal("https://inside.test:25/", (), allow_http=False) is not None
    assert rig.dns.count() == 0


@pytest.mark.parametrize("host", ["mail.test", "1.1.1.1", "[2606:4700::1111]"])
async def test_no_server_of_the_system_is_posted_to_out_there(rig: Rig, host: str) -> None:
    rig.dns.set("mail.test", "A", "1.1.1.1")
    answer = await rig.post(f"https://{host}:25/")
    assert answer.error == "port 25 is not for webhooks: use 443, or 1024 and above"


async def test_of_several_addresses_only_the_good_ones_are_tried(rig: Rig) -> None:
    rig.dns.set("hook.test", "A", "127.0.0.1", ALLOWED, "10.0.0.1")
    assert (await rig.post("https://hook.test:PORT/")).success
    assert rig.trap.connections == 0


async def test_a_name_that_changes_its_mind_is_judged_anew(rig: Rig) -> None:
    """DNS rebinding: the answer is good when the webhook is made and when it is first used, and then it is not."""
    rig.dns.set("hook.test", "A", ALLOWED, ttl=0)
    assert (await rig.post("https://hook.test:PORT/")).success
    rig.dns.set("hook.test", "A", "127.0.0.1", ttl=0)
    fresh = Resolver([rig.dns.address], 1.0)
    poster = Poster(fresh, frozenset(), context=trusting)
    answer = await poster.post(f"https://hook.test:{rig.trap.port}/", BODY, HEADERS, timeout_s=5.0, allow=ALLOW)
    await poster.close()
    await fresh.close()
    assert answer.error == "127.0.0.1 may not be posted to: it is loopback"
    assert rig.trap.connections == 0


async def test_each_post_looks_up_once_and_connects_to_that(rig: Rig) -> None:
    assert (await rig.post("https://hook.test:PORT/")).success
    assert rig.dns.count("hook.test", "A") == 1
    assert rig.receiver.connections == 1


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("nowhere.test", "nowhere.test does not exist in DNS (NXDOMAIN)"),
        ("empty.test", "empty.test has no address in DNS"),
        ("trouble.test", "failed"),
    ],
)
async def test_a_name_without_an_address_is_named(rig: Rig, name: str, error: str) -> None:
    rig.dns.set("empty.test", "TXT", "x")
    rig.dns.fail("trouble.test", "*", "servfail")
    answer = await rig.post(f"https://{name}/")
    assert answer.status is None
    assert answer.error is not None
    assert error in answer.error


async def test_a_closed_port_is_told_without_the_url(rig: Rig) -> None:
    async with Receiver(ALLOWED) as gone:
        port = gone.port
    answer = await rig.post(f"https://hook.test:{port}/secret-path")
    assert answer.error == "Could not connect: Connection refused"
