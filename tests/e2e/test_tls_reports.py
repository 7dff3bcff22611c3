"""Daily TLS reports: who asks for one gets it, by mail or by https, and nobody twice."""

import email
import email.policy
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from peers import certificates
from peers.configuration import Folder
from peers.daemon import signing_key
from peers.dns import DnsServer
from peers.office import record, verdicts
from peers.receiver import Receiver

from arkrelay.config.live import Live
from arkrelay.daemon import Daemon
from arkrelay.model.peertls import StsPolicy, TlsPolicy, TlsResult
from arkrelay.model.tlsreport import DAY_S
from arkrelay.relay.tlsreports import TlsReports
from arkrelay.store import bodies
from arkrelay.store.find import Filters
from arkrelay.store.history import list_recipients
from arkrelay.wire.https import Poster
from arkrelay.wire.tls import verifying

DAY = 1_700_006_400  # a midnight in UTC
STS = StsPolicy("1", "enforce", ("mx.asks.test", "*.asks.test"), 86400.0, float(DAY))
MAIN = """
[delivery]
allow_destinations = ["127.0.0.0/8"]

[dns]
nameservers = ["{dns}"]

[tls_reports]
send = {send}
organisation = "Ärke & Söhne"
contact = "tls@sender.test"
"""
TENANT = """
[[domains]]
name = "sender.test"
trusted = true
[[domains.dkim]]
selector = "s1"
private_key = "dkim/sender.test.pem"
"""


@dataclass
class World:
    daemon: Daemon
    dns: DnsServer
    web: Receiver

    async def count(self, domain: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Count some sessions of ``DAY``."""
        monkeypatch.setattr("time.time", lambda: DAY + 3600.0)
        counts = self.daemon.peer_tls.counts
        for _ in range(3):
            counts.add(domain, "mx.asks.test", "192.0.2.1", TlsPolicy.STS, None, STS)
        for _ in range(2):
            counts.add(domain, "mx.asks.test", "192.0.2.2", TlsPolicy.STS, TlsResult.EXPIRED, STS)
        counts.add(domain, "mx2.asks.test", "192.0.2.3", TlsPolicy.NONE, TlsResult.STARTTLS_NOT_SUPPORTED)
        monkeypatch.undo()
        await counts.write()

    async def mails(self) -> list[tuple[str, bytes]]:
        """Return address and content of all mail in the queue, oldest first."""
        store = self.daemon.store
        found = (await store.read(lambda db: list_recipients(db, Filters()))).recipients
        return [
            (one.address, await store.read(lambda db, id_=one.message.id: bodies.load(db, id_)))  # type: ignore[misc]  # mypy takes no default of a lambda for a type
            for one in reversed(found)
        ]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        dns = await stack.enter_async_context(DnsServer())
        context = certificates.valid("reports.test").server_context()
        web = await stack.enter_async_context(Receiver(context=context))
        folder = Folder(tmp_path)
        folder.main(MAIN.format(dns=dns.address, send="true"), hostname="relay.test")
        folder.tenant("acme", TENANT)
        folder.write("state/keys/dkim/sender.test.pem", signing_key(), 0o600)
        dns.set("reports.test", "A", "127.0.0.1")
        daemon = Daemon(Live(folder.path))
        yield World(daemon, dns, web)
        await daemon.queue.stop(5.0)
        await daemon.settler.drained(5.0)
        await daemon.http.stop()
        await daemon.resolver.close()
        daemon.signing.close()
        daemon.journal.close()
        daemon.store.close()


def _told(content: bytes) -> dict[str, Any]:
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "tlsrpt"
    _, attached = message.iter_parts()
    assert attached.get_content_type() == "application/tlsrpt+gzip"
    told: dict[str, Any] = json.loads(gzip.decompress(attached.get_content()))
    return told


async def test_a_domain_that_asks_by_mail_gets_a_signed_report_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.dns.set("_smtp._tls.asks.test", "TXT", "v=TLSRPTv1; rua=mailto:tls@asks.test,mailto:other@watch.test!10m")
    await world.count("asks.test", monkeypatch)
    await world.count("silent.test", monkeypatch)
    reports = world.daemon.tls_reports
    assert await reports.report(DAY + 100.0) == 0  # that day has not ended
    assert await reports.report(DAY + DAY_S + 100.0) == 1
    assert await reports.report(DAY + DAY_S + 4000.0) == 0
    ((address, content),) = await world.mails()
    assert address == "tls@asks.test"
    assert verdicts(content, {"s1": record()}) == [True]
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert message["TLS-Report-Domain"] == "asks.test"
    assert message["TLS-Report-Submitter"] == "relay.test"
    assert message["TLS-Required"] == "No"
    assert message["From"] == "Ärke & Söhne <tls@sender.test>"
    assert message["Subject"] == (
        "Report Domain: asks.test Submitter: relay.test Report-ID: <2023-11-15.asks.test@relay.test>"
    )
    told = _told(content)
    assert told["organization-name"] == "Ärke & Söhne"
    assert told["date-range"] == {"start-datetime": "2023-11-15T00:00:00Z", "end-datetime": "2023-11-15T23:59:59Z"}
    by_type = {one["policy"]["policy-type"]: one for one in told["policies"]}
    sts = by_type["sts"]
    assert sts["policy"]["policy-string"] == [
        "version: STSv1",
        "mode: enforce",
        "mx: mx.asks.test",
        "mx: *.asks.test",
        "max_age: 86400",
    ]
    assert sts["policy"]["mx-host"] == ["mx.asks.test", "*.asks.test"]
    assert sts["summary"] == {"total-successful-session-count": 3, "total-failure-session-count": 2}
    assert sts["failure-details"] == [
        {
            "result-type": "certificate-expired",
            "receiving-mx-hostname": "mx.asks.test",
            "receiving-ip": "192.0.2.2",
            "failed-session-count": 2,
        }
    ]
    assert by_type["no-policy-found"]["summary"]["total-failure-session-count"] == 1


async def test_a_domain_that_asks_by_https_gets_it_posted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.dns.set("_smtp._tls.asks.test", "TXT", f"v=TLSRPTv1;rua=https://reports.test:{world.web.port}/tlsrpt")
    await world.count("asks.test", monkeypatch)
    daemon = world.daemon
    poster = Poster(daemon.resolver, frozenset(), context=lambda: verifying(str(certificates.authority().ca_file)))
    reports = TlsReports(daemon.store, daemon.live, daemon.resolver, daemon.submitter, poster, daemon.peer_tls.counts)
    assert await reports.report(DAY + DAY_S + 100.0) == 1
    await poster.close()
    (request,) = world.web.requests
    assert (request.method, request.path) == ("POST", "/tlsrpt")
    assert request.headers["content-type"] == "application/tlsrpt+gzip"
    assert json.loads(gzip.decompress(request.body))["report-id"] == "2023-11-15.asks.test@relay.test"
    assert await world.mails() == []


async def test_a_crash_in_the_middle_repeats_no_report_that_was_sent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.test", "b.test", "c.test"):
        world.dns.set(f"_smtp._tls.{name}", "TXT", f"v=TLSRPTv1; rua=mailto:tls@{name}")
        await world.count(name, monkeypatch)
    await world.daemon.store.write(
        lambda db: db.execute("INSERT INTO notes VALUES ('tls_reports', ?)", (f"{DAY} a.test",))
    )
    assert await world.daemon.tls_reports.report(DAY + DAY_S + 100.0) == 2
    assert [address for address, _ in await world.mails()] == ["tls@b.test", "tls@c.test"]
