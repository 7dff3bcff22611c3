"""A peer may do anything at any stage: it decides about its own mail only, is told apart, and costs no other mail.

All rows of the table run at once against one relay, each with MX hosts of its own; a test per row then looks at
what became of its message.
"""

import asyncio
import contextlib
import smtplib
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from peers import certificates
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import (
    CLOSE,
    HANG,
    PLAIN_EXTENSIONS,
    RESET,
    Act,
    Drip,
    Flood,
    Mx,
    Script,
    Turns,
    closed_port,
)
from peers.office import record, verdicts

WAIT_S = 2  # how long the relay waits for a peer
DELIVERY = f"""\
connections_per_site = 2

[delivery.timeouts]
connect = "{WAIT_S}s"
greeting = "{WAIT_S}s"
command = "{WAIT_S}s"
data = "{WAIT_S}s"
final_dot = "{WAIT_S}s"
"""
GARBAGE = b"\x16\x03\x01 \xff\xfe this is not SMTP\r\n"
SLOW = Drip(b"2" + b"x" * 100, 0.3)
TCP_HANG = "its backlog is full"
ROUTE = "host of a [[route]] with tls = required"

Host = Script | str | None  # None: nobody listens


@dataclass(frozen=True)
class Row:
    """A destination with its hosts, the best first, and what shall become of a message to it."""

    id: str
    hosts: tuple[Host, ...]
    status: str
    classification: str | None = None
    words: str = ""  # in the sentence of `why`
    connections: int | None = None  # of the last host
    clear: bool | None = None  # did it arrive in clear text?
    body: str = "Hello.\r\n"
    local: str = "someone"
    route: bool = False


def at(stage: str, act: Act | Turns, **more: Any) -> tuple[Script]:
    """Return one host that behaves badly at this stage."""
    stages: dict[str, Any] = {stage: act, **more}
    return (Script(**stages),)


def soft(name: str, stage: str, act: Act, classification: str, words: str, **more: Any) -> Row:
    return Row(f"{stage}-{name}", at(stage, act, **more), "softfail", classification, words)


def hard(name: str, stage: str, act: Act, classification: str, words: str) -> Row:
    return Row(f"{stage}-{name}", at(stage, act), "hardfail", classification, words)


def unsure(name: str, act: Act, words: str) -> Row:
    return Row(f"dot-{name}", at("dot", act), "softfail", None, words)


def in_clear(name: str, **script: Any) -> Row:
    """Return a row whose TLS is broken: the message arrives all the same, on a second connection without it."""
    server = certificates.self_signed("mx.test").server_context()
    hosts = (Script(tls=server, **script),)
    return Row(f"tls-{name}", hosts, "sent", connections=2, clear=True)


def in_tls(name: str, pair: certificates.Pair) -> Row:
    return Row(f"tls-{name}", (Script(tls=pair.server_context()),), "sent", connections=1, clear=False)


def table() -> list[Row]:
    rows = [
        Row("good", (Script(),), "sent", clear=True),
        Row("tcp-refused", (None,), "softfail", "connection_error", "connection refused"),
        Row("tcp-hang", (TCP_HANG,), "softfail", "connection_error", f"no connection within {WAIT_S} s"),
    ]
    for stage, where in (
        ("connect", "its greeting"),
        ("banner", "its greeting"),
        ("ehlo", "the reply to EHLO"),
        ("mail", "the reply to MAIL"),
        ("rcpt", "the reply to RCPT"),
        ("data", "the reply to DATA"),
    ):
        rows += [
            soft("hang", stage, HANG, "connection_error", f"nothing within {WAIT_S} s before {where}"),
            soft("close", stage, CLOSE, "connection_error", f"before {where}"),
            soft("reset", stage, RESET, "connection_error", "the peer reset the connection"),
            soft("drip", stage, SLOW, "connection_error", f"nothing within {WAIT_S} s before {where}"),
            soft("garbage", stage, GARBAGE, "protocol_error", "Protocol error"),
        ]
    for stage in ("banner", "ehlo", "mail", "rcpt", "data", "dot"):
        rows += [
            soft("4xx", stage, "451 4.7.1 Greylisted", "temporarily_unavailable", "451 4.7.1 Greylisted"),
            soft("421", stage, "421 4.3.2 Closing down", "temporarily_unavailable", "421 4.3.2 Closing down"),
        ]
    for stage in ("mail", "rcpt", "data", "dot"):
        rows += [
            hard("5xx", stage, "550 5.7.1 Against our policy", "policy_violation", "550 5.7.1 Against our policy"),
            soft("5xx-that-passes", stage, "550 try again later", "temporarily_unavailable", "550 try again later"),
        ]
    rows += [
        soft("giant-line", "banner", b"220 " + b"x" * 100_000, "protocol_error", "Protocol error"),
        soft("flood", "ehlo", Flood(b"250-more\r\n" * 100), "protocol_error", "Protocol error"),
        soft("5xx", "banner", "554 5.7.1 go away", "connection_error", "554 5.7.1 go away"),
        soft("521", "banner", "521 host does not accept mail", "not_accepting_mail", "521 host does not accept mail"),
        soft("3xx", "mail", "354 what", "protocol_error", "Protocol error"),
        soft("2xx", "data", "250 what", "protocol_error", "Protocol error"),
        hard("5.1.1", "rcpt", "550 5.1.1 User unknown", "invalid_recipient", "550 5.1.1 User unknown"),
        Row("ehlo-5xx-then-helo", at("ehlo", "502 what?"), "sent"),
        Row(
            "ehlo-and-helo-5xx",
            (Script(ehlo="502 what?", helo="502 what?"),),
            "softfail",
            "protocol_error",
            "502 what?",
        ),
        Row("rcpt-251", at("rcpt", "251 will forward"), "sent"),
        Row("rcpt-252", at("rcpt", "252 cannot verify"), "sent"),
        Row("dot-200", at("dot", "200 fine"), "sent", words="200 fine"),
        Row("quit-hang", at("quit", HANG), "sent"),
        Row("quit-reset", at("quit", RESET), "sent"),
        Row("banner-drip-in-time", at("banner", Drip(b"220 slow but here\r\n", 0.01)), "sent"),
        Row(
            "content-cut-off",
            at("upload", CLOSE, upload_after=1000),
            "softfail",
            "connection_error",
            "before the end of the content",
            body="x" * 70 + "\r\n" + ("y" * 70 + "\r\n") * 100_000,
        ),
        Row(
            "content-refused-midway",
            at("upload", "552 5.3.4 enough", upload_after=1000, read_rate=200_000.0),
            "hardfail",
            "message_too_large",
            "552 5.3.4 enough",
            body=("y" * 70 + "\r\n") * 30_000,
        ),
        # After the dot nobody knows.
        unsure("hang", HANG, "it may have arrived"),
        unsure("close", CLOSE, "it may have arrived"),
        unsure("reset", RESET, "it may have arrived"),
        unsure("drip", SLOW, "it may have arrived"),
        unsure("garbage", GARBAGE, "it may have arrived"),
        unsure("3xx", "354 what", "it may have arrived"),
        # Opportunistic TLS.
        in_clear("command-hang", starttls=HANG),
        in_clear("command-close", starttls=CLOSE),
        in_clear("command-reset", starttls=RESET),
        in_clear("command-garbage", starttls=GARBAGE),
        in_clear("command-454", starttls="454 4.7.0 TLS not available"),
        in_clear("command-5xx", starttls="554 5.7.3 no"),
        in_clear("command-421", starttls="421 4.3.2 no"),
        in_clear("injected-reply", starttls="220 go ahead\n250 injected"),
        in_clear("handshake-hang", handshake=HANG),
        in_clear("handshake-close", handshake=CLOSE),
        in_clear("handshake-reset", handshake=RESET),
        in_clear("handshake-garbage", handshake=b"\x15\x03\x01\x00\x02\x02\x28 garbage instead of a handshake"),
        in_clear("ehlo-inside-hang", after_tls_ehlo=HANG),
        in_clear("ehlo-inside-reset", after_tls_ehlo=RESET),
        in_tls("expired", certificates.expired("mx.test")),
        in_tls("self-signed", certificates.self_signed("mx.test")),
        in_tls("other-name", certificates.valid("elsewhere.test")),
        Row(
            "tls-required-not-offered",
            (Script(),),
            "softfail",
            "tls_required",
            "the peer does not offer STARTTLS",
            route=True,
        ),
        Row(
            "tls-required-untrusted",
            (Script(tls=certificates.self_signed("mx.test").server_context()),),
            "softfail",
            "tls_required",
            "certificate",
            route=True,
        ),
        Row(
            "tls-required-454",
            (Script(tls=certificates.valid("mx.test").server_context(), starttls="454 4.7.0 not now"),),
            "softfail",
            "tls_required",
            "454 4.7.0 not now",
            route=True,
        ),
        Row(
            "tls-required-handshake-broken",
            (Script(tls=certificates.valid("mx.test").server_context(), handshake=RESET),),
            "softfail",
            "tls_required",
            "TLS",
            route=True,
        ),
        # Extensions that a peer lacks.
        Row(
            "no-8bitmime",
            (Script(extensions=("PIPELINING",)),),
            "sent",
            body="Grüße, naïve café ✓\r\n" * 3,
        ),
        Row("no-pipelining", (Script(extensions=()),), "sent"),
        Row(
            "no-smtputf8",
            (Script(),),
            "hardfail",
            "policy_violation",
            "SMTPUTF8",
            local="jürgen",
        ),
        Row("smtputf8", (Script(extensions=(*PLAIN_EXTENSIONS, "SMTPUTF8")),), "sent", local="jürgen"),
        Row(
            "size-too-small",
            (Script(extensions=("PIPELINING", "SIZE 1000")),),
            "hardfail",
            "message_too_large",
            "1000",
            body="x" * 70 + "\r\n" + "0123456789\r\n" * 500,
        ),
        # The next host is asked when one does not take the conversation.
        Row("second-after-refused", (None, Script()), "sent", connections=1),
        Row("second-after-5xx-greeting", (Script(banner="554 5.7.1 not you"), Script()), "sent", connections=1),
        Row("second-after-421", (Script(banner="421 4.3.2 full"), Script()), "sent", connections=1),
        Row("second-after-hang", (Script(banner=HANG), Script()), "sent", connections=1),
        Row("second-after-garbage", (Script(ehlo=GARBAGE), Script()), "sent", connections=1),
        Row(
            "both-bad",
            (Script(banner="554 5.7.1 not you"), Script(banner="554 5.5.0 nor you")),
            "softfail",
            "connection_error",
            "554 5.5.0 nor you",
        ),
    ]
    assert len({row.id for row in rows}) == len(rows)
    return rows


@dataclass
class Seen:
    """What became of a row."""

    mxs: list[Mx] = field(default_factory=list)
    email: dict[str, Any] = field(default_factory=dict)
    sentence: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def delivery(self) -> dict[str, Any]:
        delivery: dict[str, Any] = self.email["deliveries"][-1]
        return delivery


ROWS = table()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """Send to all rows at once, and return what became of each."""
    return asyncio.run(_run(tmp_path_factory.mktemp("rude")))


async def _run(folder: Path) -> dict[str, Seen]:
    port = closed_port()
    seen = {row.id: Seen() for row in ROWS}
    tokens: dict[str, str] = {}
    async with contextlib.AsyncExitStack() as stack:
        dns = await stack.enter_async_context(DnsServer())
        routes = []
        number = 1
        for index, row in enumerate(ROWS):
            for preference, host in enumerate(row.hosts):
                address = f"127.0.20.{number}"
                number += 1
                if isinstance(host, Script):
                    mx = Mx(host, host=address, port=port)
                    seen[row.id].mxs.append(await stack.enter_async_context(mx))
                    if host.read_rate:
                        mx.shrink()  # else the kernel may take the whole message before its peer refuses it
                elif host == TCP_HANG:
                    stack.enter_context(_full_backlog(address, port))
                if row.route:
                    routes.append(f'[[route]]\ndomain = "{_domain(index)}"\nhost = "{address}:{port}"\n')
                dns.set(f"mx{preference}.{_domain(index)}", "A", address)
            records = [f"{10 * n + 10} mx{n}.{_domain(index)}." for n in range(len(row.hosts))]
            dns.set(_domain(index), "MX", *records)
        more = "".join(f'{route}tls = "required"\n' for route in routes)
        relay = Relay(folder, dns=dns.address, mx_port=port, delivery=DELIVERY, more=more)
        await stack.enter_async_context(relay)
        for index, row in enumerate(ROWS):
            tokens[row.id] = await asyncio.to_thread(_send, relay, f"{row.local}@{_domain(index)}", row.body)
        events = await _settled(relay, set(tokens.values()))
        for row in ROWS:
            one = seen[row.id]
            token = tokens[row.id]
            one.email = (await relay.get(f"/v1/emails/{token}?expand=deliveries"))["data"]
            one.sentence = (await relay.get(f"/v1/why?q={token}"))["data"]["sentences"][0]["sentence"]
            one.events = [event for event in events if event["emailId"] == token]
        crashed = [line for line in relay.lines() if line.get("event") in {"task_crashed", "connection_crashed"}]
        assert crashed == []
    return seen


def _domain(index: int) -> str:
    return f"row{index}.test"


@contextlib.contextmanager
def _full_backlog(address: str, port: int) -> Iterator[None]:
    """Take a port where a connection attempt is never answered."""
    with socket.socket() as listener, contextlib.ExitStack() as clients:
        listener.bind((address, port))
        listener.listen(0)
        for _ in range(4):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex((address, port))
        yield


def _send(relay: Relay, to: str, body: str) -> str:
    text = f"From: app@sender.test\r\nTo: {to}\r\nSubject: hello\r\n\r\n{body}"
    options = [] if to.isascii() else ["SMTPUTF8"]
    with smtplib.SMTP("127.0.0.1", relay.port(), timeout=20) as client:
        client.ehlo("client.test")
        client.command_encoding = "utf-8"
        client.mail("app@sender.test", options)
        code, answer = client.rcpt(to)
        assert code == 250, answer
        code, answer = client.data(text.encode())
        assert code == 250, answer
    return answer.decode().rsplit(" ", 1)[1]


async def _settled(relay: Relay, tokens: set[str]) -> list[dict[str, Any]]:
    """Return all events when each of these has had its first attempt."""
    events: list[dict[str, Any]] = []
    after = 0
    waiting = set(tokens)
    async with asyncio.timeout(60):
        while waiting:
            page = (await relay.get(f"/v1/events?after={after}&limit=1000&wait=10"))["data"]
            events += page["events"]
            after = page["next"]
            told = {"MessageSent", "MessageDelayed", "MessageDeliveryFailed", "MessageHeld"}
            waiting -= {event["emailId"] for event in page["events"] if event["event"] in told}
    return events


@pytest.mark.timeout(120)
@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in ROWS])
def test_whatever_a_peer_does_its_mail_gets_a_verdict_with_a_reason(row: Row, outcomes: dict[str, Seen]) -> None:
    seen = outcomes[row.id]
    assert seen.email["status"] == row.status, seen.email
    assert seen.email["attempts"] == 1
    assert seen.delivery["status"] == row.status
    if row.classification is not None:
        assert seen.delivery["classification"] == row.classification, seen.delivery
    assert row.words in seen.sentence, seen.sentence
    match row.status:
        case "softfail":
            assert " UTC (in " in seen.sentence, seen.sentence
            assert seen.email["dueAt"] > seen.delivery["timestamp"]
        case "hardfail":
            assert seen.sentence.startswith("Failed for good after 1 attempt: ")
            assert seen.email["dueAt"] is None
        case "sent":
            assert seen.sentence.startswith("Sent: ")
    for mx in seen.mxs:
        assert mx.violations == []
    if row.status == "sent":
        (received,) = seen.mxs[-1].messages
        assert verdicts(received.content, {"s1": record()}) == [True]
        if row.clear is not None:
            assert received.tls is not row.clear
            assert seen.delivery["sentWithSsl"] is not row.clear
    elif not row.id.startswith("dot-"):
        assert [mx.messages for mx in seen.mxs if mx.messages] == []
    if row.connections is not None:
        assert len(seen.mxs[-1].conversations) == row.connections


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in ROWS if row.words == "it may have arrived"])
@pytest.mark.timeout(120)
def test_a_reply_lost_after_the_dot_is_told_and_not_repeated_for_five_minutes(
    row: Row, outcomes: dict[str, Seen]
) -> None:
    seen = outcomes[row.id]
    kinds = [event["event"] for event in seen.events]
    assert kinds == ["MessageAccepted", "MessageUncertain", "MessageDelayed"]
    assert seen.events[1]["data"]["copies"] == 1
    assert seen.email["dueAt"] - seen.events[1]["at"] >= 300
    assert len(seen.mxs[0].messages) == 1


@pytest.mark.timeout(120)
def test_good_mail_does_not_wait_for_the_bad_peers(outcomes: dict[str, Seen]) -> None:
    for name in ("good", "rcpt-251", "second-after-refused", "no-8bitmime"):
        accepted, sent = outcomes[name].events
        assert sent["at"] - accepted["at"] < 5, name


@pytest.mark.timeout(120)
def test_eight_bit_mail_for_a_peer_without_8bitmime_arrives_in_seven_bits(outcomes: dict[str, Seen]) -> None:
    (received,) = outcomes["no-8bitmime"].mxs[0].messages
    assert received.content.isascii()
    assert "BODY=" not in received.mail_parameters
    assert received.content.count(b"DKIM-Signature:") == 1


@pytest.mark.timeout(120)
def test_a_peer_without_tls_is_never_sent_what_must_be_encrypted(outcomes: dict[str, Seen]) -> None:
    for row in ROWS:
        if row.route:
            (mx,) = outcomes[row.id].mxs
            commands = [command for one in mx.conversations for command in one.commands]
            assert not any(command.startswith("MAIL") for command in commands), row.id
            assert len(mx.conversations) == 1


# What needs more than one attempt has a relay of its own.


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        server.set("rcpt.test", "MX", "10 mx.rcpt.test.")
        server.set("mx.rcpt.test", "A", "127.0.0.1")
        yield server


async def _event(relay: Relay, token: str, *kinds: str) -> dict[str, Any]:
    """Return the first event of one of these kinds about this message."""
    after = 0
    async with asyncio.timeout(30):
        while True:
            page = (await relay.get(f"/v1/events?after={after}&wait=10"))["data"]
            after = page["next"]
            for event in page["events"]:
                if event["emailId"] == token and event["event"] in kinds:
                    found: dict[str, Any] = event
                    return found


async def test_broken_tls_is_remembered_also_over_a_restart(tmp_path: Path, dns: DnsServer) -> None:
    script = Script(tls=certificates.self_signed("mx.test").server_context(), handshake=RESET)
    async with Mx(script) as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay:
        await _event(relay, await relay.send("one@rcpt.test"), "MessageSent")
        assert _tried_tls(mx) == [True, False]
        await relay.logged("tls_broken")
        await mx.wait_closed()
        await _event(relay, await relay.send("two@rcpt.test"), "MessageSent")
        assert _tried_tls(mx) == [True, False, False]
        await relay.stop()
        await relay.start()
        await _event(relay, await relay.send("three@rcpt.test"), "MessageSent")
        assert _tried_tls(mx) == [True, False, False, False]


async def test_a_host_that_is_down_altogether_keeps_its_chance_of_tls(tmp_path: Path, dns: DnsServer) -> None:
    script = Script(tls=certificates.self_signed("mx.test").server_context(), starttls=CLOSE)
    script.banner = Turns(None, "421 4.3.2 overloaded")
    async with Mx(script) as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay:
        await _event(relay, await relay.send("one@rcpt.test"), "MessageDelayed")
        assert relay.lines("tls_broken") == []
        mx.script = Script(tls=script.tls)
        await relay.call("POST", "/v1/queue/flush")
        await mx.wait(1)
        assert mx.messages[-1].tls


def _tried_tls(mx: Mx) -> list[bool]:
    return ["STARTTLS" in one.commands for one in mx.conversations]


@pytest.mark.timeout(120)
async def test_a_message_whose_reply_is_lost_again_and_again_is_sent_four_times_and_then_held(
    tmp_path: Path, dns: DnsServer
) -> None:
    async with Mx(Script(dot=CLOSE)) as mx:
        relay = Relay(tmp_path, dns=dns.address, mx_port=mx.port)
        await relay.start()
        token = await relay.send("ann@rcpt.test")
        for copies in range(1, 5):
            answer = await relay.until(f"/v1/emails/{token}", lambda one, n=copies: one["data"]["attempts"] == n)
            if answer["data"]["status"] == "held":
                break
            await relay.call("POST", f"/v1/emails/{token}/retry")  # a person does not wait until the site has rested
        assert answer["data"]["status"] == "held"
        assert "may have arrived" in answer["data"]["reason"]
        events = (await relay.get("/v1/events"))["data"]["events"]
        assert [one["data"]["copies"] for one in events if one["event"] == "MessageUncertain"] == [1, 2, 3, 4]
        await relay.stop()
    assert len(mx.messages) == 4


async def test_each_recipient_of_a_message_has_its_own_fate(tmp_path: Path, dns: DnsServer) -> None:
    rcpt: dict[str, Act] = {
        "gone@rcpt.test": "550 5.1.1 User unknown",
        "full@rcpt.test": "452 4.2.2 Mailbox full",
        "cut@rcpt.test": CLOSE,
    }
    people = ["ann@rcpt.test", *rcpt, "bob@rcpt.test"]
    async with Mx(Script(rcpt=rcpt)) as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay:
        await relay.send(*people)
        answer = await relay.until(
            "/v1/emails", lambda one: all(row["status"] != "pending" for row in one["data"]), timeout_s=30
        )
        assert {row["to"]: row["status"] for row in answer["data"]} == {
            "ann@rcpt.test": "sent",
            "gone@rcpt.test": "hardfail",
            "full@rcpt.test": "softfail",
            "cut@rcpt.test": "softfail",
            "bob@rcpt.test": "sent",
        }
        await mx.wait(2)
        assert sorted(one.recipients[0] for one in mx.messages) == ["ann@rcpt.test", "bob@rcpt.test"]
        suppressed = await relay.get("/v1/tenants/acme/suppressions")
        assert [row["address"] for row in suppressed["data"]] == ["gone@rcpt.test"]


async def test_a_kept_connection_that_ends_costs_the_next_message_no_attempt(tmp_path: Path, dns: DnsServer) -> None:
    for how in (CLOSE, RESET, "421 4.7.0 enough for one connection"):
        folder = tmp_path / str(how)[:8].replace(" ", "")
        folder.mkdir()
        script = Script(mail=Turns(None, how, None))
        delivery = 'idle_connection = "1m"\nconnections_per_site = 1'
        relay = Relay(folder, dns=dns.address, mx_port=9)
        async with Mx(script) as mx:
            relay.write(dns=dns.address, mx_port=mx.port, more="")
            relay.config.write_text(relay.config.read_text().replace('idle_connection = "1s"', delivery))
            async with relay:
                first = await relay.send("ann@rcpt.test")
                await _event(relay, first, "MessageSent")
                second = await relay.send("bob@rcpt.test")
                await _event(relay, second, "MessageSent", "MessageDelayed")
                email = (await relay.get(f"/v1/emails/{second}?expand=deliveries"))["data"]
                assert email["status"] == "sent", how
                assert len(email["deliveries"]) == 1
                assert len(mx.conversations) == 2
