"""A reload swaps the whole configuration or nothing, and no client notices: good files, broken files, new keys."""

import asyncio
import re
import signal
import smtplib
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from peers import certificates
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Mx
from peers.office import verdicts

from arkrelay.mail.dkim import generate_key, public_record

RELOADS = 50
CLIENTS = 4
QUICK = 'tarpit = "50ms"'  # goes into [limits]


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        server.set("rcpt.test", "MX", "10 mx.rcpt.test.")
        server.set("mx.rcpt.test", "A", "127.0.0.1")
        yield server


class Clients:
    """Clients that send without pause, each message in a session of its own or in a kept one."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.stopping = False
        self.acknowledged: list[str] = []
        self.refused: list[str] = []

    async def run(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(self._client, number) for number in range(CLIENTS)))

    def _client(self, number: int) -> None:
        sent = 0
        while not self.stopping:
            try:
                with smtplib.SMTP("127.0.0.1", self.relay.port(), timeout=20) as client:
                    for _ in range(1 if number % 2 else 10):
                        name = f"c{number}-{sent}@rcpt.test"
                        sent += 1
                        text = f"From: app@sender.test\r\nSubject: {name}\r\n\r\nx\r\n"
                        client.sendmail("app@sender.test", [name], text)
                        self.acknowledged.append(name)
            except (OSError, smtplib.SMTPException) as error:
                self.refused.append(str(error))


def syntax(relay: Relay) -> Path:
    return _append(relay.config, "\nthis is not TOML\n")


def unknown_key(relay: Relay) -> Path:
    return _append(relay.config, "\n[delivery.surprise]\nx = 1\n")


def half_written(relay: Relay) -> Path:
    text = relay.config.read_text()
    relay.config.write_text(text[: len(text) // 2])
    return relay.config


def wrong_type(relay: Relay) -> Path:
    relay.config.write_text(relay.config.read_text().replace('first_delay = "5m"', "first_delay = true"))
    return relay.config


def broken_tenant(relay: Relay) -> Path:
    return _append(_tenant(relay), "\n[limits]\nhourly = -1\n")


def missing_key_file(relay: Relay) -> Path:
    tenant = _tenant(relay)
    tenant.write_text(tenant.read_text().replace("dkim/sender.test.pem", "dkim/gone.pem"))
    return tenant


BROKEN: list[Callable[[Relay], Path]] = [
    syntax,
    unknown_key,
    half_written,
    wrong_type,
    broken_tenant,
    missing_key_file,
]


def _append(file: Path, text: str) -> Path:
    file.write_text(file.read_text() + text)
    return file


def _tenant(relay: Relay) -> Path:
    return relay.folder / "tenants" / "acme.toml"


@pytest.mark.timeout(120)
async def test_fifty_reloads_under_load_refuse_no_session_and_keep_the_last_good_files(
    tmp_path: Path, dns: DnsServer
) -> None:
    async with Mx() as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay:
        good = {file: file.read_text() for file in (relay.config, _tenant(relay))}
        clients = Clients(relay)
        running = asyncio.create_task(clients.run())
        for number in range(RELOADS):
            if number % 5 == 4:  # ten of fifty are broken
                wrong = BROKEN[number // 5 % len(BROKEN)](relay)
                answer = await relay.call("POST", "/v1/control/reload", status=422)
                assert [Path(one["file"]).name for one in answer["problems"]].count(wrong.name) >= 1, answer
                assert all(one["reason"] for one in answer["problems"])
                shown = (await relay.get("/v1/status"))["data"]
                assert shown["ready"]
                assert shown["configProblems"] == answer["problems"]
                for file, text in good.items():
                    file.write_text(text)
            elif number % 5 == 3:
                seen = len(relay.lines("reloaded"))
                _factor(relay, number)
                assert relay.process is not None
                relay.process.send_signal(signal.SIGHUP)
                await _logged(relay, "reloaded", seen)
            else:
                _factor(relay, number)
                answer = await relay.call("POST", "/v1/control/reload")
                assert any("factor" in line for line in answer["data"]["changes"]), answer
                assert (await relay.get("/v1/status"))["data"]["configProblems"] == []
            good[relay.config] = relay.config.read_text()
        clients.stopping = True
        await running
        assert clients.refused == []
        await relay.until("/v1/status", lambda one: one["data"]["queue"]["pending"] == 0, timeout_s=30)
        assert Counter(one.recipients[0] for one in mx.messages) == Counter(clients.acknowledged)
        assert len(clients.acknowledged) > RELOADS
        await relay.logged("reload_refused", 10)


def _factor(relay: Relay, number: int) -> None:
    """Change a setting that a reload takes over."""
    text = re.sub(r"(?m)^factor = .*\n", "", relay.config.read_text())
    relay.config.write_text(text.replace("[delivery]\n", f"[delivery]\nfactor = {1.5 + number / 100}\n"))


async def test_a_new_tenant_can_send_after_a_reload_and_not_before(tmp_path: Path, dns: DnsServer) -> None:
    async with Mx() as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port, more=QUICK) as relay:
        beta = relay.folder / "tenants" / "beta.toml"
        beta.write_text(
            'name = "Beta"\n[[credentials]]\nname = "first"\ntype = "smtp"\nsecret = "secret-of-beta"\n'
            '[[domains]]\nname = "beta.test"\ntrusted = true\n'
        )
        beta.chmod(0o600)
        assert await asyncio.to_thread(_send_as_beta, relay) == 535
        assert (await relay.call("POST", "/v1/control/reload"))["data"]["changes"] != []
        assert await asyncio.to_thread(_send_as_beta, relay) == 250
        await mx.wait(1)
        beta.unlink()
        await relay.call("POST", "/v1/control/reload")
        assert await asyncio.to_thread(_send_as_beta, relay) == 535


def _send_as_beta(relay: Relay) -> int:
    with smtplib.SMTP("127.0.0.1", relay.port(), timeout=20) as client:
        client.ehlo("client.test")
        try:
            client.login("beta/first", "secret-of-beta")
        except smtplib.SMTPAuthenticationError as error:
            return error.smtp_code
        client.mail("app@beta.test")
        client.rcpt("ann@rcpt.test")
        return client.data(b"From: app@beta.test\r\nSubject: x\r\n\r\nx\r\n")[0]


async def test_a_new_certificate_is_shown_to_new_sessions_while_old_ones_go_on(tmp_path: Path) -> None:
    tls = '[tls]\ncertificate = "cert.pem"\nprivate_key = "key.pem"\n'
    door = '[[listen]]\nservice = "submissions"\naddress = "127.0.0.1:0"\n'
    first, second = (certificates.authority().issue("relay.test", "127.0.0.1") for _ in range(2))
    relay = Relay(tmp_path, more=tls + door)
    _install(relay, first)
    async with relay:
        port = relay.port("submissions")
        trust = ssl.create_default_context(cafile=str(certificates.authority().ca_file))

        def session() -> smtplib.SMTP_SSL:
            return smtplib.SMTP_SSL("127.0.0.1", port, timeout=20, context=trust)

        with await asyncio.to_thread(session) as old:
            assert _serial(old) == _serial_of(first)
            _install(relay, second)
            with await asyncio.to_thread(session) as new:  # no reload is needed
                assert _serial(new) == _serial_of(second)
            assert (await asyncio.to_thread(old.noop))[0] == 250
        (tmp_path / "cert.pem").write_text("half of a certificate")
        with await asyncio.to_thread(session) as after:
            assert _serial(after) == _serial_of(second)


def _install(relay: Relay, pair: certificates.Pair) -> None:
    for name, source in (("key.pem", pair.private_key), ("cert.pem", pair.certificate)):
        new = relay.folder / f"{name}.new"
        new.write_bytes(source.read_bytes())
        new.chmod(0o600)
        new.rename(relay.folder / name)


def _serial(client: smtplib.SMTP_SSL) -> int:
    assert isinstance(client.sock, ssl.SSLSocket)
    shown = client.sock.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


def _serial_of(pair: certificates.Pair) -> int:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes()).serial_number


@pytest.mark.parametrize("how", ["reload", "by-itself"])
async def test_a_replaced_dkim_key_signs_what_comes_then(tmp_path: Path, dns: DnsServer, how: str) -> None:
    async with Mx() as mx, Relay(tmp_path, dns=dns.address, mx_port=mx.port) as relay:
        file = relay.state / "keys" / "dkim" / "sender.test.pem"
        old = _record(file.read_bytes())
        await relay.send("before@rcpt.test")
        await mx.wait(1)
        assert verdicts(mx.messages[0].content, {"s1": old}) == [True]
        file.write_text("half of a key")  # a key that cannot be used changes nothing
        await relay.send("meanwhile@rcpt.test")
        await mx.wait(2)
        assert verdicts(mx.messages[1].content, {"s1": old}) == [True]
        pem = generate_key("rsa-sha256")
        file.write_bytes(pem)
        if how == "reload":
            await relay.call("POST", "/v1/control/reload")
        else:
            await _logged(relay, "key_files_reread")
        await relay.send("after@rcpt.test")
        await mx.wait(3)
        assert verdicts(mx.messages[2].content, {"s1": _record(pem)}) == [True]


async def _logged(relay: Relay, event: str, before: int = 0) -> None:
    """Return when the log has more lines of this event than before."""
    async with asyncio.timeout(20):
        while len(relay.lines(event)) <= before:
            await asyncio.sleep(0.05)


def _record(pem: bytes) -> str:
    key: Any = serialization.load_pem_private_key(pem, None)
    return public_record(key)
