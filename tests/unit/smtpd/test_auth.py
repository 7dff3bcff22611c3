"""SASL mechanisms against credentials, without a socket."""

from collections.abc import Awaitable, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from protocol.saslclients import Dialogue, cram_md5, digest_md5, login, plain, scram_sha_256
from protocol.smtpd_rig import (
    API_KEY,
    BOUND,
    HELD_KEY,
    KEY,
    MUTE_KEY,
    NAMED_KEY,
    OTHER_KEY,
    SUSPENDED_KEY,
    write_config,
)

from arkrelay.config.live import Live, Snapshot
from arkrelay.model.errors import Refused
from arkrelay.model.tenant import Credential, Tenant
from arkrelay.smtpd.auth import MECHANISMS, Attempt, authenticate, loggable_username

HOST = "relay.test"
# (username, password, the credential that it is)
GOOD = [
    ("acme/production", KEY, "production"),
    ("Acme Inc/production", KEY, "production"),
    (f"acme/{KEY}", KEY, "production"),
    (KEY, KEY, "production"),
    ("mailer", NAMED_KEY, "named"),
    ("acme/named", NAMED_KEY, "named"),
]
BAD = [
    pytest.param("acme/production", "wrong", id="wrong-password"),
    pytest.param("nobody/nothing", "wrong", id="unknown-name"),
    pytest.param("acme/production", OTHER_KEY, id="another-tenants-password"),
    pytest.param("other/production", KEY, id="another-tenants-name"),
    pytest.param("gone/production", SUSPENDED_KEY, id="suspended-tenant"),
    pytest.param("acme/held", HELD_KEY, id="on-hold"),
    pytest.param("acme/mute", MUTE_KEY, id="without-send"),
    pytest.param("acme/rest", API_KEY, id="rest-key"),
]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return Live(write_config(tmp_path_factory.mktemp("config"), BOUND)).snapshot


def answering(dialogue: Dialogue) -> tuple[bytes, Callable[[bytes], Awaitable[bytes]]]:
    """Return the first message of the client and what it answers to each challenge."""
    first = next(dialogue)

    async def ask(challenge: bytes) -> bytes:
        return dialogue.send(challenge)

    return first, ask


async def never(_: bytes) -> bytes:
    raise AssertionError("no question is due")


async def log_in(mechanism: str, username: str, password: str, snapshot: Snapshot) -> Attempt:
    initial: bytes | None = None
    ask: Callable[[bytes], Awaitable[bytes]] = never
    match mechanism:
        case "PLAIN":
            initial = plain(username, password)
        case "LOGIN":
            _, ask = answering(login(username, password))
        case "CRAM-MD5":
            _, ask = answering(cram_md5(username, password))
        case "SCRAM-SHA-256":
            initial, ask = answering(scram_sha_256(username, password))
        case _:
            _, ask = answering(digest_md5(username, password))
    return await authenticate(mechanism, initial, ask, snapshot, HOST)


async def outcome(
    mechanism: str, ask: Callable[[bytes], Awaitable[bytes]], snapshot: Snapshot
) -> int | tuple[Tenant, Credential] | None:
    """Return the code of a refusal, or whose credential was proved."""
    try:
        return (await authenticate(mechanism, None, ask, snapshot, HOST)).proved
    except Refused as refused:
        return refused.code


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(("username", "password", "credential"), GOOD)
async def test_every_mechanism_knows_every_name(
    mechanism: str, username: str, password: str, credential: str, snapshot: Snapshot
) -> None:
    attempt = await log_in(mechanism, username, password, snapshot)
    assert attempt.proved is not None
    assert (attempt.proved[0].id, attempt.proved[1].name) == ("acme", credential)
    assert attempt.username == username


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(("username", "password"), BAD)
async def test_every_refusal_looks_the_same(mechanism: str, username: str, password: str, snapshot: Snapshot) -> None:
    attempt = await log_in(mechanism, username, password, snapshot)
    assert attempt == Attempt(username)


async def test_nobody_acts_for_somebody_else(snapshot: Snapshot) -> None:
    message = plain("acme/production", KEY, authzid="other/production")
    assert (await authenticate("PLAIN", message, never, snapshot, HOST)).proved is None
    message = plain("acme/production", KEY, authzid="acme/production")
    assert (await authenticate("PLAIN", message, never, snapshot, HOST)).proved is not None
    initial, ask = answering(scram_sha_256("acme/production", KEY, gs2="n,a=other/production,"))
    assert (await authenticate("SCRAM-SHA-256", initial, ask, snapshot, HOST)).proved is None
    _, ask = answering(digest_md5("acme/production", KEY, extra=',authzid="other/production"'))
    assert (await authenticate("DIGEST-MD5", None, ask, snapshot, HOST)).proved is None


@pytest.mark.parametrize("spoil", ["proof", "nonce", "channel"])
async def test_scram_refuses_a_spoiled_final_message(spoil: str, snapshot: Snapshot) -> None:
    initial, ask = answering(scram_sha_256("acme/production", KEY, spoil=spoil))
    assert (await authenticate("SCRAM-SHA-256", initial, ask, snapshot, HOST)).proved is None


async def test_scram_without_initial_response_asks_for_it(snapshot: Snapshot) -> None:
    dialogue = scram_sha_256("acme/production", KEY)
    started = False

    async def ask(challenge: bytes) -> bytes:
        nonlocal started
        if not started:
            started = True
            assert challenge == b""
            return next(dialogue)
        return dialogue.send(challenge)

    assert (await authenticate("SCRAM-SHA-256", None, ask, snapshot, HOST)).proved is not None


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"n=user,r=abc",
        b"p=tls-unique,,n=user,r=abc",
        b"n,,m=ext,n=user,r=abc",
        b"n,,n=us=er,r=abc",
        b"n,,n=user",
        b"n,,n=user,r=a b",
        b"\xff,,n=user,r=abc",
    ],
)
async def test_scram_refuses_a_malformed_first_message(first: bytes, snapshot: Snapshot) -> None:
    with pytest.raises(Refused) as caught:
        await authenticate("SCRAM-SHA-256", first, never, snapshot, HOST)
    assert caught.value.code == 501


@pytest.mark.parametrize(
    "message", [b"", b"\0", b"\0\0", b"a", b"\0user\0", b"\0\0password", b"a\0b\0c\0d", b"\0\xff\0x"]
)
async def test_plain_refuses_malformed_messages(message: bytes, snapshot: Snapshot) -> None:
    with pytest.raises(Refused) as caught:
        await authenticate("PLAIN", message, never, snapshot, HOST)
    assert caught.value.code == 501


@pytest.mark.parametrize("changed", [{"uri": "imap/relay.test"}, {"nc": "00000002"}, {"extra": ",realm=x"}])
async def test_digest_md5_checks_what_the_client_signed(changed: dict[str, str], snapshot: Snapshot) -> None:
    _, ask = answering(digest_md5("acme/production", KEY, **changed))
    assert await outcome("DIGEST-MD5", ask, snapshot) in (501, None)


@pytest.mark.parametrize("mechanism", ["CRAM-MD5", "DIGEST-MD5"])
async def test_server_first_mechanisms_take_no_initial_response(mechanism: str, snapshot: Snapshot) -> None:
    with pytest.raises(Refused):
        await authenticate(mechanism, b"x", never, snapshot, HOST)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5"]), st.lists(st.binary(max_size=60), min_size=4))
async def test_rubbish_proves_nothing(snapshot: Snapshot, mechanism: str, answers: list[bytes]) -> None:
    given_answers = iter(answers)

    async def ask(_: bytes) -> bytes:
        return next(given_answers)

    assert await outcome(mechanism, ask, snapshot) in (501, None)


@pytest.mark.parametrize(
    ("username", "shown"),
    [
        ("acme/production", "acme"),
        (f"acme/{KEY}", "acme"),
        ("Acme Inc/production", "Acme Inc"),
        ("mailer", "mailer"),
        (KEY, "-"),
        ("hunter2", "-"),
        ("hunter2/x", "-"),
        ("", "-"),
        ("x\r\nauth_failed client=192.0.2.1", "-"),
    ],
)
def test_only_what_is_certainly_no_secret_is_logged(username: str, shown: str, snapshot: Snapshot) -> None:
    assert loggable_username(username, snapshot) == shown
