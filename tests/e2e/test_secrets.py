"""No password, key or text of a message is ever in the log, whatever clients, peers and files do with them."""

import asyncio
import base64
import contextlib
import smtplib
import urllib.parse
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Mx, Script

from arkrelay.config import tenants

RIGHT = "secret-of-production"  # the credential that every test relay has
WRONG = "Tr0ub4dor-and-three"
SMARTHOST = "smarthost-pa55word"
BODY = "A-line-of-the-text-of-a-message"
SETTINGS = """\
tarpit = "10ms"

[[route]]
domain = "smart.test"
host = "127.0.0.1:{port}"
tls = "none"
username = "relay"
secret = "{secret}"

[log]
level = "debug"
"""


@pytest.fixture
async def smarthost() -> AsyncIterator[Mx]:
    async with Mx(Script(users={"relay": SMARTHOST}, mechanisms="PLAIN LOGIN")) as mx:
        yield mx


@pytest.fixture
async def relay(tmp_path: Path, smarthost: Mx) -> AsyncIterator[Relay]:
    """Give a relay that logs everything, and asks for a password."""
    more = SETTINGS.format(port=smarthost.port, secret=SMARTHOST)
    async with DnsServer() as dns, Mx() as mx:
        dns.set("rcpt.test", "MX", "10 mx.rcpt.test.")
        dns.set("mx.rcpt.test", "A", "127.0.0.1")
        found = Relay(tmp_path, dns=dns.address, mx_port=mx.port, more=more)
        found.config.write_text(found.config.read_text().replace('tenant = "acme"\n', "", 1))
        found.config.chmod(0o600)
        async with found:
            yield found


def log_in(relay: Relay, username: str, password: str, mechanism: str) -> int:
    """Return the code of the answer to AUTH by one mechanism."""
    with smtplib.SMTP("127.0.0.1", relay.port(), timeout=20) as client:
        client.ehlo("client.test")
        client.user, client.password = username, password
        methods: dict[str, Any] = {  # smtplib's type for them is of no use here
            "PLAIN": client.auth_plain,
            "LOGIN": client.auth_login,
            "CRAM-MD5": client.auth_cram_md5,
        }
        try:
            return client.auth(mechanism, methods[mechanism])[0]
        except smtplib.SMTPAuthenticationError as error:
            return error.smtp_code


def send(relay: Relay, recipient: str) -> None:
    with smtplib.SMTP("127.0.0.1", relay.port(), timeout=20) as client:
        client.login("acme/production", RIGHT)
        text = f"From: app@sender.test\r\nSubject: {BODY}\r\nX-Ark-Tag: t\r\n\r\n{BODY}\r\n"
        client.sendmail("app@sender.test", [recipient], text)


def speak(relay: Relay, *lines: str) -> list[int]:
    """Say these lines one by one, as a confused client might, and return the codes of the answers."""
    codes: list[int] = []
    with contextlib.suppress(smtplib.SMTPServerDisconnected), smtplib.SMTP("127.0.0.1", relay.port()) as client:
        client.ehlo("client.test")
        codes.extend(client.docmd(line)[0] for line in lines)
    return codes


def forms(*secrets: str) -> set[str]:
    """Return what each of them looks like on its way: plain, in base64, in hexadecimal, in a URL."""
    found = set()
    for secret in secrets:
        raw = secret.encode()
        found |= {secret, urllib.parse.quote(secret), raw.hex()}
        # in base64 three ways, by where in a group of three octets it begins; the ends depend on neighbours
        found |= {base64.b64encode(b"\0" * shift + raw).decode()[4:-4] for shift in (0, 1, 2)}
        found |= {base64.urlsafe_b64encode(raw).decode()[4:-4]}
    return found


def leaks(relay: Relay, secrets: Iterable[str]) -> list[str]:
    """Return the lines of the log that hold one of them."""
    looked_for = forms(*secrets)
    return [line for line in relay.log.read_text().splitlines() if any(form in line for form in looked_for)]


async def test_what_is_looked_for_would_be_found(relay: Relay) -> None:
    for text in (RIGHT, base64.b64encode(f"\0acme/production\0{RIGHT}".encode()).decode()):
        with relay.log.open("a") as log:
            log.write(f'{{"event": "x", "text": "{text}"}}\n')
    assert len(leaks(relay, [RIGHT])) == 2


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
async def test_passwords_of_smtp_are_not_in_the_log(mechanism: str, relay: Relay) -> None:
    for username, password, code in (
        ("acme/production", RIGHT, 235),
        ("acme/production", WRONG, 535),
        (WRONG, RIGHT + "x", 535),  # the two swapped
        (WRONG, WRONG, 535),  # one token as both, as Postmark's clients do
        (RIGHT, RIGHT, 235),
    ):
        assert await asyncio.to_thread(log_in, relay, username, password, mechanism) == code, (username, password)
    await relay.stop()
    assert len(relay.lines("auth_failed")) == 3
    assert len(relay.lines("auth_succeeded")) == 2
    assert leaks(relay, [RIGHT, WRONG]) == []


async def test_passwords_in_the_wrong_place_are_not_in_the_log(relay: Relay) -> None:
    token = base64.b64encode(WRONG.encode()).decode()
    full = base64.b64encode(f"\0acme\0{WRONG}".encode()).decode()
    told = [
        await asyncio.to_thread(speak, relay, *lines)
        for lines in (
            (WRONG, token, f"AUTH {WRONG}", f"AUTH PLAIN {full}=", f"AUTH PLAIN {full} {full}"),
            (f"AUTHPLAIN {full}", f"AUTH XOAUTH2 {full}", f"PASS {WRONG}", f"MAIL FROM:<{WRONG}>"),
            ("AUTH LOGIN", token, "*"),
            ("AUTH LOGIN", f"{WRONG}!", "NOOP"),
            (f"EHLO {WRONG} {token}", f"VRFY {WRONG}", f"HELP {WRONG}"),
        )
    ]
    assert all(400 <= code < 600 for code in told[0] + told[1]), told
    await relay.stop()
    assert leaks(relay, [WRONG]) == []


async def test_keys_of_rest_are_not_in_the_log(relay: Relay) -> None:
    _, secret = await asyncio.to_thread(tenants.add_key, relay.config, "ops")
    await relay.call("POST", "/v1/control/reload")
    base = f"http://127.0.0.1:{relay.port('http')}"
    wrong = "ark_live_" + WRONG
    async with aiohttp.ClientSession() as session:
        for path, headers, status in (
            ("/v1/status", {"Authorization": f"Bearer {secret}"}, 200),
            ("/v1/status", {"Authorization": f"Bearer {wrong}"}, 401),
            ("/v1/status", {"Authorization": f"Bearer {WRONG}"}, 401),
            ("/v1/status", {"Authorization": f"Basic {base64.b64encode(WRONG.encode()).decode()}"}, 401),
            ("/v1/status", {"Authorization": f"Bearer {WRONG} {secret}"}, 401),
            (f"/v1/nothing/{WRONG}", {"Authorization": f"Bearer {secret}"}, 404),
            (f"/v1/status?api_key={WRONG}", {}, 401),
        ):
            async with session.get(base + path, headers=headers) as response:
                assert response.status == status, (path, headers)
        body = {"from": "app@sender.test", "to": "ann@rcpt.test", "subject": BODY, "text": BODY, "nonsense": WRONG}
        async with session.post(
            f"{base}/v1/emails", json=body, headers={"Authorization": f"Bearer {secret}"}
        ) as answer:
            assert answer.status < 500
    await relay.stop()
    assert len(relay.lines("key_refused")) >= 1
    assert leaks(relay, [secret, WRONG, BODY]) == []


async def test_passwords_of_smarthosts_are_not_in_the_log(relay: Relay, smarthost: Mx) -> None:
    await asyncio.to_thread(send, relay, "ann@smart.test")
    await smarthost.wait(1)
    await smarthost.wait_closed()  # the next message logs in anew
    smarthost.script.users = {"relay": "another one"}
    await asyncio.to_thread(send, relay, "bob@smart.test")
    await relay.until("/v1/status", lambda answer: answer["data"]["queue"]["softfail"] == 1)
    await relay.stop()
    assert smarthost.messages[0].username == "relay"
    assert {row["status"] for row in relay.lines("recipient_settled")} == {"sent", "softfail"}
    assert leaks(relay, [SMARTHOST, RIGHT, BODY]) == []


@pytest.mark.parametrize(
    "line",
    [
        pytest.param('secret = "{}"', id="plain-in-a-readable-file"),
        pytest.param('secret = "sealed:v1:{}"', id="sealed-by-nobody"),
        pytest.param('secret = "sealed:{}"', id="sealed-in-no-form"),
        pytest.param('secret = "sha256:{}"', id="no-digest"),
        pytest.param('secret = ["{}"]', id="wrong-type"),
        pytest.param('secret = "{}', id="no-toml"),
        pytest.param('secrets = "{}"', id="unknown-key"),
    ],
)
async def test_secrets_of_files_that_are_refused_are_not_in_the_log(line: str, relay: Relay) -> None:
    broken = relay.folder / "tenants" / "broken.toml"
    broken.write_text(f'name = "x"\n[[credentials]]\nname = "x"\ntype = "smtp"\n{line.format(WRONG)}\n')
    broken.chmod(0o644)
    answer = await relay.call("POST", "/v1/control/reload", status=422)
    assert "broken.toml" in str(answer)
    await relay.stop()
    assert len(relay.lines("reload_refused")) >= 1
    assert WRONG not in str(answer)
    assert leaks(relay, [WRONG]) == []


async def test_secrets_that_are_made_while_it_runs_are_not_in_the_log(relay: Relay) -> None:
    _, secret = await asyncio.to_thread(tenants.add_credential, relay.config, "acme", "second")
    await relay.call("POST", "/v1/control/reload")
    assert await asyncio.to_thread(log_in, relay, "acme/second", secret, "PLAIN") == 235
    await asyncio.to_thread(send, relay, "ann@rcpt.test")
    await relay.until("/v1/status", lambda answer: answer["data"]["queue"]["sent"] == 1)
    await relay.stop()
    sealed = (relay.folder / "tenants" / "acme.toml").read_text().partition('"sealed:v1:')[2].partition('"')[0]
    assert sealed
    assert leaks(relay, [secret, sealed, RIGHT, BODY]) == []
