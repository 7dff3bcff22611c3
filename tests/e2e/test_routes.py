"""``[[route]]``: some mail goes to a smarthost instead of the MX, on the terms of the route and no weaker ones."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from peers import certificates
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Mx, Script

USERS = {"relay": "smarthost-password"}


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with DnsServer() as server:
        server.set("smarthost.test", "A", "127.0.0.1")
        server.set("rcpt.test", "MX", "10 mx.rcpt.test.")
        server.set("mx.rcpt.test", "A", "127.0.0.1")
        yield server


def smarthost(**script: Any) -> Mx:
    """Return a smarthost with a certificate that our authority vouches for."""
    return Mx(Script(tls=certificates.valid("smarthost.test").server_context(), users=USERS, **script))


def route(port: int, domain: str = "*", secret: str = USERS["relay"], tls: str = "required") -> str:
    return (
        f'[[route]]\ndomain = "{domain}"\nhost = "smarthost.test:{port}"\ntls = "{tls}"\n'
        f'username = "relay"\nsecret = "{secret}"\n'
    )


def relay_with(folder: Path, dns: DnsServer, routes: str, **settings: Any) -> Relay:
    """Return a relay that trusts our authority; loopback is not opened, a route needs no leave."""
    relay = Relay(folder, dns=dns.address, more=routes, **settings)
    relay.config.write_text(relay.config.read_text().replace('["127.0.0.0/8"]', "[]"))
    relay.config.chmod(0o600)  # it holds a password
    relay.environment["SSL_CERT_FILE"] = str(certificates.authority().ca_file)
    return relay


async def becomes(relay: Relay, token: str, status: str) -> dict[str, Any]:
    answer = await relay.until(f"/v1/emails/{token}?expand=deliveries", lambda one: one["data"]["status"] == status)
    found: dict[str, Any] = answer["data"]
    return found


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
async def test_a_smarthost_gets_the_password_inside_of_verified_tls(
    tmp_path: Path, dns: DnsServer, mechanism: str
) -> None:
    async with smarthost(mechanisms=mechanism) as host, relay_with(tmp_path, dns, route(host.port)) as relay:
        sent = await becomes(relay, await relay.send("ann@anywhere.test"), "sent")
        (received,) = host.messages
        assert received.tls
        assert received.username == "relay"
        assert host.mechanisms == [mechanism]
        assert sent["deliveries"][0]["sentWithSsl"]
        assert sent["deliveries"][0]["remoteHost"] == "smarthost.test"
        assert [one for one in dns.queries if one.rdtype == "MX" and one.name == "anywhere.test"] == []
    assert USERS["relay"] not in relay.log.read_text()


async def test_a_wrong_password_is_our_trouble_and_the_mail_goes_when_it_is_mended(
    tmp_path: Path, dns: DnsServer
) -> None:
    async with smarthost() as host, relay_with(tmp_path, dns, route(host.port, secret="wrong-password")) as relay:
        token = await relay.send("ann@anywhere.test")
        soft = await becomes(relay, token, "softfail")
        assert soft["deliveries"][0]["code"] == 535
        sentence = (await relay.get(f"/v1/why?q={token}"))["data"]["sentences"][0]["sentence"]
        assert "535 5.7.8 wrong" in sentence
        assert " UTC (in " in sentence
        assert (await relay.get("/v1/tenants/acme/suppressions"))["total"] == 0
        relay.config.write_text(relay.config.read_text().replace("wrong-password", USERS["relay"]))
        await relay.call("POST", "/v1/control/reload")
        await relay.call("POST", f"/v1/emails/{token}/retry")
        await becomes(relay, token, "sent")
        assert len(host.messages) == 1
    assert "wrong-password" not in relay.log.read_text()


@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(certificates.self_signed("smarthost.test"), id="self-signed"),
        pytest.param(certificates.expired("smarthost.test"), id="expired"),
        pytest.param(certificates.valid("elsewhere.test"), id="another-name"),
    ],
)
async def test_a_smarthost_that_cannot_prove_itself_gets_neither_password_nor_mail(
    tmp_path: Path, dns: DnsServer, pair: certificates.Pair
) -> None:
    host = Mx(Script(tls=pair.server_context(), users=USERS))
    async with host, relay_with(tmp_path, dns, route(host.port)) as relay:
        soft = await becomes(relay, await relay.send("ann@anywhere.test"), "softfail")
        assert soft["deliveries"][0]["classification"] == "tls_required"
        assert host.mechanisms == []
        assert host.messages == []


async def test_a_wildcard_covers_what_lies_below_and_the_rest_goes_to_its_mx(tmp_path: Path, dns: DnsServer) -> None:
    dns.set("internal.test", "MX", "10 mx.rcpt.test.")
    async with smarthost() as below, smarthost() as exact, Mx() as mx:
        routes = route(exact.port, "special.internal.test") + route(below.port, "*.internal.test")
        relay = relay_with(tmp_path, dns, routes, mx_port=mx.port)
        relay.config.write_text(
            relay.config.read_text().replace("allow_destinations = []", 'allow_destinations = ["127.0.0.0/8"]')
        )
        async with relay:
            people = [
                "a@special.internal.test",
                "b@deep.internal.test",
                "c@very.deep.internal.test",
                "d@internal.test",
                "e@rcpt.test",
            ]
            await relay.send(*people)
            await relay.until("/v1/emails", lambda one: all(row["status"] == "sent" for row in one["data"]))
        assert [one.recipients for one in exact.messages] == [["a@special.internal.test"]]
        assert sorted(one.recipients[0] for one in below.messages) == people[1:3]
        assert sorted(one.recipients[0] for one in mx.messages) == people[3:]
