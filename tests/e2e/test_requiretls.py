"""What a message demands of TLS itself (RFC 8689): REQUIRETLS on MAIL, and the field "TLS-Required: No"."""

import asyncio
import contextlib
import smtplib
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from peers import certificates
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import PLAIN_EXTENSIONS, Mx, Script, closed_port
from peers.policyhost import PolicyHost, policy

PROMISING = (*PLAIN_EXTENSIONS, "REQUIRETLS")
DELIVERY = 'mta_sts_port = {port}\n\n[delivery.timeouts]\nconnect = "2s"\ncommand = "3s"\n'
TLS = '[tls]\ncertificate = "cert.pem"\nprivate_key = "key.pem"\n\n'
GOOD, SELF, NONE, CLOSED = "good", "self", "none", "closed"


@dataclass(frozen=True)
class Row:
    """A domain with MTA-STS (unless ``sts`` is empty), and what becomes of one message to it."""

    id: str
    shows: tuple[str, ...]
    status: str
    promises: bool = True
    sts: str = "enforce"
    requiretls: bool = True
    field: str = ""
    rule: str = ""
    route: bool = False
    code: str | None = None
    words: str = ""
    policy: str = "requiretls"
    verified: bool = True


NO = "TLS-Required: No\r\n"
ROWS = [
    Row("promised", (GOOD,), "sent"),
    Row("testing-mode", (GOOD,), "sent", sts="testing"),
    Row("second-host", (SELF, GOOD), "sent"),
    Row("field-is-passed-over", (GOOD,), "sent", field=NO),
    Row("not-demanded", (GOOD,), "sent", requiretls=False, policy="mta-sts"),
    Row("smarthost", (GOOD,), "sent", sts="", route=True),
    Row("not-promised", (GOOD,), "hardfail", promises=False, code="5.7.30", words="does not offer REQUIRETLS"),
    Row("smarthost-not-promised", (GOOD,), "hardfail", promises=False, sts="", route=True, code="5.7.30"),
    Row("self-signed", (SELF,), "hardfail", code="5.7.10", words="self-signed certificate"),
    Row("no-tls", (NONE,), "hardfail", code="5.7.10", words="does not offer STARTTLS"),
    Row("unproved-host", (GOOD,), "hardfail", sts="", code="5.7.30", words="neither DNSSEC nor MTA-STS proves"),
    Row("host-down", (CLOSED,), "softfail", words="connection refused"),
    Row("one-down-one-not-promising", (CLOSED, GOOD), "softfail", promises=False, words="connection refused"),
    Row("any-tls", (SELF,), "sent", requiretls=False, field=NO, policy="none", verified=False),
    Row(
        "any-tls-lower-case",
        (SELF,),
        "sent",
        requiretls=False,
        field="tls-required: NO\r\n",
        policy="none",
        verified=False,
    ),
    Row("other-value", (SELF,), "softfail", requiretls=False, field="TLS-Required: Yes\r\n", words="MTA-STS policy"),
    Row("our-rule-stays", (SELF,), "softfail", requiretls=False, field=NO, rule="verified", words="[[tls_policy]]"),
]


@dataclass
class Seen:
    mxs: list[Mx] = field(default_factory=list)
    email: dict[str, Any] = field(default_factory=dict)


def _script(shows: str, host: str, *, promises: bool) -> Script:
    extensions = PROMISING if promises else PLAIN_EXTENSIONS
    if shows == NONE:
        return Script(extensions=extensions)
    pair = certificates.self_signed(host) if shows == SELF else certificates.valid(host)
    return Script(extensions=extensions, tls=pair.server_context())


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """Send to all rows at once, and return what became of each."""
    return asyncio.run(_run(tmp_path_factory.mktemp("requiretls")))


async def _run(folder: Path) -> dict[str, Seen]:
    port, web_port = closed_port(), closed_port()
    seen = {row.id: Seen() for row in ROWS}
    pair = certificates.valid("relay.test")
    for name, source in (("cert.pem", pair.certificate), ("key.pem", pair.private_key)):
        (folder / name).write_bytes(source.read_bytes())
        (folder / name).chmod(0o600)
    async with contextlib.AsyncExitStack() as stack:
        dns = await stack.enter_async_context(DnsServer())
        more, number = TLS, 1
        for index, row in enumerate(ROWS):
            domain = f"{row.id}.test"
            for place, shows in enumerate(row.shows):
                host, address = f"mx{place}.{domain}", f"127.0.50.{number}"
                number += 1
                dns.set(host, "A", address)
                if shows != CLOSED:
                    mx = Mx(_script(shows, host, promises=row.promises), host=address, port=port)
                    seen[row.id].mxs.append(await stack.enter_async_context(mx))
                if row.route:
                    more += f'[[route]]\ndomain = "{domain}"\nhost = "{host}:{port}"\n\n'
            dns.set(domain, "MX", *(f"{place} mx{place}.{domain}." for place in range(len(row.shows))))
            if row.rule:
                more += f'[[tls_policy]]\ndomain = "{domain}"\nrequire = "{row.rule}"\n\n'
            if row.sts:
                web, address = f"mta-sts.{domain}", f"127.0.51.{index + 1}"
                served = PolicyHost(certificates.valid(web).server_context(), address, web_port)
                (await stack.enter_async_context(served)).files[web] = policy(row.sts, f"*.{domain}")
                dns.set(f"_mta-sts.{domain}", "TXT", "v=STSv1; id=1;")
                dns.set(web, "A", address)
        relay = Relay(folder, dns=dns.address, mx_port=port, delivery=DELIVERY.format(port=web_port), more=more)
        relay.environment["SSL_CERT_FILE"] = str(certificates.authority().ca_file)
        async with relay:
            tokens = {row.id: await asyncio.to_thread(_send, relay, row) for row in ROWS}
            for row in ROWS:
                path = f"/v1/emails/{tokens[row.id]}?expand=deliveries"
                answer = await relay.until(path, lambda found: found["data"]["attempts"] > 0)
                seen[row.id].email = answer["data"]
            await asyncio.to_thread(_look_at_the_door, relay)
        crashed = {"task_crashed", "connection_crashed", "message_cannot_be_sent"}
        assert [line for line in relay.lines() if line["event"] in crashed] == []
    return seen


def _client(relay: Relay) -> smtplib.SMTP:
    client = smtplib.SMTP("127.0.0.1", relay.port(), timeout=20)
    client.ehlo("client.test")
    return client


def _send(relay: Relay, row: Row) -> str:
    to = f"someone@{row.id}.test"
    text = f"From: app@sender.test\r\nTo: {to}\r\nSubject: hello\r\n{row.field}\r\nHello.\r\n"
    with _client(relay) as client:
        client.starttls(context=ssl._create_unverified_context())
        client.ehlo("client.test")
        assert client.mail("app@sender.test", ["REQUIRETLS"] if row.requiretls else [])[0] == 250
        assert client.rcpt(to)[0] == 250
        code, answer = client.data(text.encode())
        assert code == 250, answer
        return answer.decode().rsplit(" ", 1)[1]


def _look_at_the_door(relay: Relay) -> None:
    with _client(relay) as client:
        assert not client.has_extn("REQUIRETLS")  # RFC 8689 §4.1: not before TLS
        assert client.mail("app@sender.test", ["REQUIRETLS"])[0] == 555
        client.starttls(context=ssl._create_unverified_context())
        client.ehlo("client.test")
        assert client.has_extn("REQUIRETLS")
        assert client.mail("app@sender.test", ["REQUIRETLS=1"])[0] == 501


@pytest.mark.timeout(120)
@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in ROWS])
def test_a_message_gets_the_tls_that_it_asks_for_itself(row: Row, outcomes: dict[str, Seen]) -> None:
    seen = outcomes[row.id]
    assert seen.email["status"] == row.status, seen.email
    arrived = [message for mx in seen.mxs for message in mx.messages]
    delivery = seen.email["deliveries"][-1]
    if row.status != "sent":
        assert arrived == []
        assert row.words in delivery["details"], delivery
        if row.code is not None:
            assert delivery["smtpEnhancedCode"] == row.code, delivery
            assert delivery["classification"] == "tls_required"
        return
    (message,) = arrived
    assert ("REQUIRETLS" in message.mail_parameters.split()) == row.requiretls
    assert message.tls
    assert (delivery["tls"]["policy"], delivery["tls"]["verified"]) == (row.policy, row.verified)
    assert row.field.encode() in message.content
