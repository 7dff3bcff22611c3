"""Connecting: every stage before MAIL, with every fault, and what comes of it within its time."""

import asyncio
import time

import pytest
from peers.certificates import authority, expired, self_signed, valid
from peers.dial import PATIENT, QUICK, dial, envelope, session, target
from peers.mx import (
    CLOSE,
    HANG,
    RESET,
    Act,
    Delay,
    Drip,
    Flood,
    Mx,
    Script,
    Then,
    black_hole,
    closed_port,
)

from arkrelay.model.peertls import TlsResult
from arkrelay.model.reply import Failure, FailureKind, Reply, Stage
from arkrelay.wire.smtp import Session, connect

ONE_STAGE_S = 1.5  # QUICK gives a stage 0.3 s; the rest is a slow machine


def _script(**stages: object) -> Script:
    return Script(tls=valid().server_context(), **stages)  # type: ignore[arg-type]  # rows of a table


FAULTS: list[tuple[str, dict[str, Act], Reply | Failure]] = [
    (
        "closed-at-connect",
        {"connect": CLOSE},
        Failure(FailureKind.CLOSED, Stage.GREETING, "the peer closed before its greeting"),
    ),
    (
        "reset-at-connect",
        {"connect": RESET},
        Failure(FailureKind.CLOSED, Stage.GREETING, "the peer reset the connection before its greeting"),
    ),
    (
        "silent-banner",
        {"banner": HANG},
        Failure(FailureKind.TIMEOUT, Stage.GREETING, "nothing within 0.3 s before its greeting"),
    ),
    (
        "dripping-banner",
        {"banner": Drip(b"220 " + b"x" * 400 + b"\r\n", 0.05)},
        Failure(FailureKind.TIMEOUT, Stage.GREETING, "nothing within 0.3 s before its greeting"),
    ),
    (
        "endless-banner",
        {"banner": Flood(b"220-x\r\n")},
        Failure(FailureKind.PROTOCOL, Stage.GREETING, "a reply of more than 100 lines or 32768 octets"),
    ),
    (
        "giant-banner",
        {"banner": Flood(b"x" * 4096)},
        Failure(FailureKind.PROTOCOL, Stage.GREETING, "a reply line of more than 8192 octets"),
    ),
    (
        "http",
        {"banner": b"HTTP/1.1 400 Bad Request\r\n\r\n"},
        Failure(FailureKind.PROTOCOL, Stage.GREETING, "not an SMTP reply: HTTP/1.1 400 Bad Request"),
    ),
    ("banner-421", {"banner": "421 4.3.2 busy"}, Reply(421, "4.3.2", "busy", Stage.GREETING)),
    ("banner-554", {"banner": "554 5.7.1 listed"}, Reply(554, "5.7.1", "listed", Stage.GREETING)),
    ("banner-521", {"banner": "521 no mail here"}, Reply(521, None, "no mail here", Stage.GREETING)),
    (
        "banner-354",
        {"banner": "354 hm"},
        Failure(FailureKind.PROTOCOL, Stage.GREETING, "354 is not its greeting"),
    ),
    (
        "two-banners",
        {"banner": b"220 a\r\n220 b\r\n"},
        Failure(FailureKind.PROTOCOL, Stage.GREETING, "the peer spoke before it was asked"),
    ),
    (
        "half-a-reply-behind-the-banner",
        {"banner": b"220 a\r\n250"},
        Failure(FailureKind.PROTOCOL, Stage.GREETING, "the peer spoke before it was asked"),
    ),
    ("ehlo-450", {"ehlo": "450 4.7.1 later"}, Reply(450, "4.7.1", "later", Stage.EHLO)),
    ("ehlo-421", {"ehlo": Then("421 4.3.2 busy", CLOSE)}, Reply(421, "4.3.2", "busy", Stage.EHLO)),
    (
        "ehlo-and-helo-550",
        {"ehlo": "500 what?", "helo": "550 5.7.1 not you"},
        Reply(550, "5.7.1", "not you", Stage.EHLO),
    ),
    (
        "ehlo-hangs",
        {"ehlo": HANG},
        Failure(FailureKind.TIMEOUT, Stage.EHLO, "nothing within 0.3 s before the reply to EHLO"),
    ),
    (
        "ehlo-closes",
        {"ehlo": CLOSE},
        Failure(FailureKind.CLOSED, Stage.EHLO, "the peer closed before the reply to EHLO"),
    ),
    (
        "ehlo-two-codes",
        {"ehlo": "550-no\n250 yes"},
        Failure(FailureKind.PROTOCOL, Stage.EHLO, "a reply with two codes, 550 and 250"),
    ),
]


@pytest.mark.parametrize(
    ("stages", "expected"), [pytest.param(stages, expected, id=name) for name, stages, expected in FAULTS]
)
async def test_a_fault_before_mail_is_data_in_its_time(stages: dict[str, Act], expected: Reply | Failure) -> None:
    async with Mx(Script(**stages)) as mx:  # type: ignore[arg-type]  # rows of a table
        begun = time.monotonic()
        assert await dial(mx) == expected
        assert time.monotonic() - begun < ONE_STAGE_S
        await mx.wait_closed()


TLS_FAULTS: list[tuple[str, dict[str, object], str]] = [
    ("454", {"starttls": "454 4.7.0 not now"}, "STARTTLS was answered 454 4.7.0 not now"),
    ("501", {"starttls": "501 no"}, "STARTTLS was answered 501 no"),
    ("421", {"starttls": Then("421 bye", CLOSE)}, "STARTTLS was answered 421 bye"),
    ("closed", {"starttls": CLOSE}, "the peer closed before the reply to STARTTLS"),
    ("hangs", {"starttls": HANG}, "nothing within 0.3 s before the reply to STARTTLS"),
    ("garbage", {"starttls": b"\x15\x03\x01\r\n"}, "not an SMTP reply"),
    ("injected", {"starttls": b"220 go\r\n250 mx.test\r\n"}, "the peer spoke before it was asked"),
    ("injected-in-part", {"starttls": b"220 go\r\n250-m"}, "the peer spoke before it was asked"),
    ("injected-later", {"handshake": Delay(0.05, b"250-mx.test\r\n250 AUTH PLAIN\r\n")}, "TLS handshake: "),
    ("handshake-hangs", {"handshake": HANG}, "TLS handshake: SSL handshake is taking longer than 0.3 seconds"),
    ("handshake-closed", {"handshake": CLOSE}, "TLS handshake: "),
    ("handshake-reset", {"handshake": RESET}, "TLS handshake: "),
    ("handshake-garbage", {"handshake": Delay(0.05, b"\x00" * 200)}, "TLS handshake: "),
    ("ehlo-behind-tls-closes", {"after_tls_ehlo": CLOSE}, "the peer closed before the reply to EHLO"),
    ("ehlo-behind-tls-hangs", {"after_tls_ehlo": HANG}, "nothing within 0.3 s before the reply to EHLO"),
]


@pytest.mark.parametrize("demand", ["optional", "required"])
@pytest.mark.parametrize(
    ("stages", "detail"), [pytest.param(stages, detail, id=name) for name, stages, detail in TLS_FAULTS]
)
async def test_trouble_with_tls_is_a_failure_of_tls_and_never_goes_on_in_clear(
    stages: dict[str, object], detail: str, demand: str
) -> None:
    async with Mx(_script(**stages)) as mx:
        begun = time.monotonic()
        found = await dial(mx, tls=demand)
        assert time.monotonic() - begun < ONE_STAGE_S
        assert isinstance(found, Failure)
        assert (found.kind, found.stage) == (FailureKind.TLS, Stage.STARTTLS)
        assert found.detail.startswith(detail)
        await mx.wait_closed()
        commands = mx.conversations[0].commands
        assert not [command for command in commands if command[:4] not in {"EHLO", "STAR"}], commands


async def test_after_trouble_with_tls_a_second_connection_in_clear_delivers() -> None:
    async with Mx(_script(handshake=CLOSE)) as mx:
        first = target(mx.port)
        assert isinstance(await connect(first, QUICK), Failure)
        again = first.in_clear()
        assert again is not None
        opened = await connect(again, QUICK)
        assert isinstance(opened, Session)
        assert opened.tls is None
        await opened.send(envelope(), b"x\r\n")
        await opened.quit()
        assert not mx.messages[0].tls


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        pytest.param({}, True, id="opportunistic"),
        pytest.param({"tls": "required"}, False, id="required"),
        pytest.param({"tls": "none"}, False, id="it-was-in-clear"),
        pytest.param({"verify": True}, False, id="verified"),
        pytest.param({"implicit_tls": True}, False, id="implicit"),
        pytest.param({"username": "u", "secret": "s"}, True, id="password-on-loopback"),
        pytest.param({"username": "u", "secret": "s", "address": "192.0.2.1"}, False, id="password"),
    ],
)
def test_clear_text_is_allowed_only_where_it_breaks_no_promise(changes: dict[str, object], allowed: bool) -> None:
    assert (target(25, **changes).in_clear() is not None) is allowed


@pytest.mark.parametrize(
    ("pair", "verify", "host", "expected"),
    [
        pytest.param("self-signed", False, "mx.test", True, id="opportunistic-takes-self-signed"),
        pytest.param("expired", False, "mx.test", True, id="opportunistic-takes-expired"),
        pytest.param("valid", False, "other.test", True, id="opportunistic-takes-another-name"),
        pytest.param("valid", True, "mx.test", True, id="valid"),
        pytest.param("valid", True, "mx.test.", True, id="root-dot"),
        pytest.param("valid", True, "127.0.0.1", True, id="address"),
        pytest.param("valid", True, "other.test", "certificate: Hostname mismatch", id="another-name"),
        pytest.param("expired", True, "mx.test", "certificate: certificate has expired", id="expired"),
        pytest.param("self-signed", True, "mx.test", "certificate: self-signed certificate", id="self-signed"),
        pytest.param("valid", True, "a" * 64 + ".test", "TLS handshake: ", id="impossible-name"),
    ],
)
async def test_the_certificate_counts_where_it_is_to_be_verified(
    pair: str, verify: bool, host: str, expected: bool | str
) -> None:
    shown = {"valid": valid, "expired": expired, "self-signed": self_signed}[pair]()
    async with Mx(Script(tls=shown.server_context())) as mx:
        found = await dial(mx, tls="required", verify=verify, host=host, ca_file=str(authority().ca_file))
        if isinstance(expected, str):
            assert isinstance(found, Failure)
            assert (found.kind, found.stage) == (FailureKind.TLS, Stage.STARTTLS)
            assert expected in found.detail
        else:
            assert isinstance(found, Session)
            assert found.tls is not None
            assert (found.tls.version, found.tls.verified) == ("TLSv1.3", verify)
            assert (await found.send(envelope(), b"x\r\n")).results[0].stage is Stage.DOT
            await found.quit()
            assert mx.messages[0].tls


async def test_implicit_tls_comes_before_the_greeting() -> None:
    async with Mx(_script(implicit_tls=True)) as mx:
        found = await dial(mx, implicit_tls=True, verify=True, ca_file=str(authority().ca_file))
        assert isinstance(found, Session)
        assert found.tls is not None
        await found.quit()
        assert mx.conversations[0].commands[:2] == ["EHLO us.test", "QUIT"]


async def test_implicit_tls_towards_a_plain_server_fails_as_tls() -> None:
    async with Mx() as mx:
        found = await dial(mx, implicit_tls=True)
        assert isinstance(found, Failure)
        assert (found.kind, found.stage) == (FailureKind.TLS, Stage.STARTTLS)


@pytest.mark.parametrize(
    ("demand", "expected"),
    [
        ("none", None),
        ("optional", None),
        (
            "required",
            Failure(
                FailureKind.TLS,
                Stage.STARTTLS,
                "the peer does not offer STARTTLS",
                TlsResult.STARTTLS_NOT_SUPPORTED,
            ),
        ),
    ],
)
async def test_a_peer_without_tls_is_refused_only_where_tls_is_required(
    demand: str, expected: Failure | None
) -> None:
    async with Mx() as mx:
        found = await dial(mx, tls=demand)
        if expected is not None:
            assert found == expected
        else:
            assert isinstance(found, Session)
            await found.quit()


async def test_what_was_offered_in_clear_text_is_forgotten() -> None:
    ehlo = "250-mx.test\n250-STARTTLS\n250-SIZE 10\n250 DSN"
    async with Mx(_script(ehlo=ehlo, after_tls_ehlo="250 mx.test")) as mx, session(mx) as opened:
        assert opened.extensions.size is None
        assert not opened.extensions.dsn


async def test_a_peer_that_does_not_know_ehlo_gets_helo() -> None:
    async with Mx(Script(ehlo="502 5.5.1 what?", extensions=())) as mx, session(mx) as opened:
        transaction = await opened.send(envelope(), b"x\r\n")
        assert transaction.results == (Reply(250, "2.0.0", "queued", Stage.DOT),)
        assert mx.conversations[0].commands[:2] == ["EHLO us.test", "HELO us.test"]
        assert mx.messages[0].mail_parameters == ""


async def test_nobody_listening_is_refused() -> None:
    found = await connect(target(closed_port()), QUICK)
    assert found == Failure(FailureKind.REFUSED, Stage.CONNECT, "connection refused")


async def test_a_connection_that_is_never_answered_times_out() -> None:
    async with black_hole() as port:
        begun = time.monotonic()
        found = await connect(target(port), QUICK)
        assert found == Failure(FailureKind.TIMEOUT, Stage.CONNECT, "no connection within 0.3 s")
        assert time.monotonic() - begun < ONE_STAGE_S


@pytest.mark.parametrize("source", ["192.0.2.77", "::1"])
async def test_a_source_address_that_cannot_be_bound_is_data(source: str) -> None:
    async with Mx() as mx:
        found = await dial(mx, source_address=source)
        assert isinstance(found, Failure)
        assert (found.kind, found.stage) == (FailureKind.UNREACHABLE, Stage.CONNECT)


async def test_the_source_address_is_bound() -> None:
    async with Mx() as mx, session(mx, source_address="127.0.0.9") as opened:
        await opened.send(envelope(), b"x\r\n")
        assert mx.messages[0].client == "127.0.0.9"


async def test_a_forbidden_address_is_not_even_connected_to() -> None:
    async with Mx() as mx:
        found = await connect(target(mx.port), QUICK, permit=lambda address: f"{address} is loopback")
        assert found == Failure(FailureKind.FORBIDDEN, Stage.CONNECT, "127.0.0.1 is loopback")
        assert mx.connections == 0


async def test_the_connected_socket_is_asked_for_its_peer_before_anything_is_sent() -> None:
    asked: list[str] = []

    def permit(address: str) -> str | None:
        asked.append(address)
        return "not that one" if len(asked) == 2 else None

    async with Mx() as mx:
        found = await connect(target(mx.port, address="localhost"), QUICK, permit=permit)
        assert found == Failure(FailureKind.FORBIDDEN, Stage.CONNECT, "not that one")
        assert asked == ["localhost", "127.0.0.1"]
        await mx.wait_closed()
        assert all(not conversation.commands for conversation in mx.conversations)


async def test_a_cancelled_connect_leaves_nothing_open() -> None:
    async with Mx(Script(banner=HANG)) as mx:
        task = asyncio.create_task(dial(mx, PATIENT))
        await mx.wait_open()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await mx.wait_closed()


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
async def test_each_mechanism_logs_in(mechanism: str) -> None:
    script = Script(tls=valid().server_context(), users={"us": "sécret"}, mechanisms=f"{mechanism} NTLM")
    async with Mx(script) as mx, session(mx, username="us", secret="sécret") as opened:
        await opened.send(envelope(), b"x\r\n")
        assert mx.mechanisms == [mechanism]
        assert mx.messages[0].username == "us"


async def test_a_response_too_long_for_a_command_line_comes_by_itself() -> None:
    script = Script(users={"us": "x" * 600}, mechanisms="PLAIN")
    async with Mx(script) as mx, session(mx, username="us", secret="x" * 600):
        assert mx.conversations[0].commands[1] == "AUTH PLAIN"


async def test_in_clear_text_the_password_is_not_shown_where_that_can_be_had() -> None:
    async with Mx(Script(users={"us": "s"})) as mx, session(mx, username="us", secret="s", tls="none"):
        assert mx.mechanisms == ["CRAM-MD5"]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param(Script(users={"us": "other"}), Reply(535, "5.7.8", "wrong", Stage.AUTH), id="wrong"),
        pytest.param(
            Script(users={"us": "s"}, auth="454 4.7.0 later"), Reply(454, "4.7.0", "later", Stage.AUTH), id="later"
        ),
        pytest.param(
            Script(),
            Failure(FailureKind.PROTOCOL, Stage.AUTH, "the peer offers no AUTH mechanism that we speak"),
            id="no-auth",
        ),
        pytest.param(
            Script(users={"us": "s"}, auth=Delay(0, Then("334 !", HANG)), mechanisms="CRAM-MD5"),
            Failure(FailureKind.PROTOCOL, Stage.AUTH, "a challenge that is not base64"),
            id="challenge-is-not-base64",
        ),
        pytest.param(
            Script(users={"us": "s"}, auth=Then("334 aGk=", "334 aGk=", HANG), mechanisms="CRAM-MD5"),
            Failure(FailureKind.PROTOCOL, Stage.AUTH, "the peer spoke before it was asked"),
            id="two-challenges-at-once",
        ),
        pytest.param(
            Script(users={"us": "s"}, auth="354 hm"),
            Failure(FailureKind.PROTOCOL, Stage.AUTH, "354 is not the reply to AUTH"),
            id="nonsense",
        ),
        pytest.param(
            Script(users={"us": "s"}, auth=HANG),
            Failure(FailureKind.TIMEOUT, Stage.AUTH, "nothing within 0.3 s before the reply to AUTH"),
            id="hangs",
        ),
    ],
)
async def test_a_login_that_fails_is_data(script: Script, expected: Reply | Failure) -> None:
    async with Mx(script) as mx:
        assert await dial(mx, username="us", secret="s") == expected
        await mx.wait_closed()


async def test_a_prompt_that_is_not_base64_is_answered_all_the_same() -> None:
    script = Script(users={"us": "s"}, mechanisms="LOGIN", auth="334 Username:")
    async with Mx(script) as mx:
        assert await dial(mx, username="us", secret="s") == Reply(500, "5.5.1", "what?", Stage.AUTH)
        await mx.wait_closed()
        assert mx.conversations[0].commands[1:] == ["AUTH LOGIN", "dXM=", "QUIT"]


async def test_an_endless_login_ends() -> None:
    script = Script(users={"us": "s"}, mechanisms="LOGIN", auth="334 aGk=", unknown="334 aGk=")
    async with Mx(script) as mx:
        found = await dial(mx, username="us", secret="s")
        assert found == Failure(FailureKind.PROTOCOL, Stage.AUTH, "a challenge too many for LOGIN")


async def test_a_password_is_not_sent_in_clear_text_beyond_this_machine() -> None:
    async with Mx(Script(users={"us": "s"})) as mx:
        found = await dial(mx, address="localhost", username="us", secret="s")  # a name: it may be anybody
        detail = "no TLS, and the password is not sent in clear text"
        assert found == Failure(FailureKind.TLS, Stage.AUTH, detail)
        assert mx.mechanisms == []


def test_a_password_does_not_show_itself() -> None:
    assert "hunter2" not in repr(target(25, username="us", secret="hunter2"))
