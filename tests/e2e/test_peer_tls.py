"""Policies about TLS towards peers: each kind of policy with each kind of certificate, against one relay.

Every row is a domain with MX hosts of its own; where MTA-STS is published, the policy comes from a web server behind
HTTPS. An enforced policy never lets a message leave in clear text or to the wrong host.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from peers import certificates
from peers.certificates import Pair
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import RESET, Mx, Script, closed_port
from peers.policyhost import PolicyHost, policy

DELIVERY = 'mta_sts_port = {port}\n\n[delivery.timeouts]\nconnect = "2s"\ncommand = "3s"\n'
GOOD, OTHER, EXPIRED, SELF, NONE, REFUSED, BROKEN = "good", "other", "expired", "self", "none", "454", "broken"
BAD = {
    OTHER: ("not valid for", "certificate-host-mismatch"),
    EXPIRED: ("certificate has expired", "certificate-expired"),
    SELF: ("self-signed certificate", "certificate-not-trusted"),
    NONE: ("does not offer STARTTLS", "starttls-not-supported"),
    REFUSED: ("454 4.7.0 not now", "starttls-not-supported"),
    BROKEN: ("TLS handshake", "validation-failure"),
}


@dataclass(frozen=True)
class Row:
    """A domain: its policies, its hosts' certificates (the best host first), and what becomes of mail to it."""

    id: str
    shows: tuple[str, ...]
    status: str
    sts: str = ""  # mode of its MTA-STS policy; empty: none is published
    names: tuple[str, ...] = ("mx0.DOMAIN", "mx1.DOMAIN")  # that the policy names
    rule: str = ""  # require of our own [[tls_policy]]
    web: str = ""  # what is wrong with the policy's web server
    policy: str = "none"
    tls: bool = True  # of a message that arrived
    verified: bool = False
    words: str = ""
    connections: int | None = None
    counted: Mapping[tuple[str, str], int] = field(default_factory=dict)  # (policy, result) → sessions


def _rows() -> list[Row]:
    rows = [
        Row("no-policy-good", (GOOD,), "sent", counted={("no-policy-found", ""): 1}),
        Row("no-policy-self", (SELF,), "sent"),
        Row("no-policy-none", (NONE,), "sent", tls=False, counted={("no-policy-found", "starttls-not-supported"): 1}),
        Row(
            "enforce-good", (GOOD,), "sent", sts="enforce", policy="mta-sts", verified=True, counted={("sts", ""): 1}
        ),
        Row("testing-good", (GOOD,), "sent", sts="testing", policy="mta-sts", verified=True, connections=1),
        Row("mode-none-self", (SELF,), "sent", sts="none"),
        Row("verified-good", (GOOD,), "sent", rule="verified", policy="domain", verified=True),
        Row("encrypted-good", (GOOD,), "sent", rule="encrypted", policy="domain"),
        Row("enforce-and-verified", (GOOD,), "sent", sts="enforce", rule="verified", policy="mta-sts", verified=True),
        Row(
            "enforce-wildcard",
            (GOOD,),
            "sent",
            sts="enforce",
            names=("*.DOMAIN",),
            policy="mta-sts",
            verified=True,
        ),
        Row(
            "enforce-unlisted",
            (GOOD,),
            "softfail",
            sts="enforce",
            names=("elsewhere.test", "*.mx0.DOMAIN"),
            policy="mta-sts",
            words="does not name its MX host mx0.",
            connections=0,
            counted={("sts", "validation-failure"): 1},
        ),
        Row(
            "enforce-first-unlisted",
            (GOOD, GOOD),
            "sent",
            sts="enforce",
            names=("mx1.DOMAIN",),
            policy="mta-sts",
            verified=True,
        ),
        Row("enforce-first-bad", (SELF, GOOD), "sent", sts="enforce", policy="mta-sts", verified=True),
        Row(
            "testing-unlisted",
            (GOOD,),
            "sent",
            sts="testing",
            names=("elsewhere.test",),
            policy="mta-sts",
            verified=True,
            counted={("sts", "validation-failure"): 1},
        ),
    ]
    for kind, (words, result) in BAD.items():
        rows += [
            Row(
                f"enforce-{kind}",
                (kind,),
                "softfail",
                sts="enforce",
                policy="mta-sts",
                words=words,
                connections=1,
                counted={("sts", result): 1},
            ),
            Row(
                f"testing-{kind}",
                (kind,),
                "sent",
                sts="testing",
                policy="mta-sts",
                tls=kind in {OTHER, EXPIRED, SELF},
                counted={("sts", result): 1},
            ),
            Row(
                f"verified-{kind}", (kind,), "softfail", rule="verified", policy="domain", words=words, connections=1
            ),
        ]
        if kind in {OTHER, EXPIRED, SELF}:
            rows.append(Row(f"encrypted-{kind}", (kind,), "sent", rule="encrypted", policy="domain"))
        else:
            rows.append(
                Row(f"encrypted-{kind}", (kind,), "softfail", rule="encrypted", policy="domain", connections=1)
            )
    rows += [
        Row(
            f"not-fetched-{web}",
            (SELF,),
            "sent",
            sts="enforce",
            web=web,
            counted={("sts", "sts-policy-fetch-error"): 1},
        )
        for web in ("404", "302", "kind", "certificate", "name", "big", "rubbish", "closed", "no-address")
    ]
    assert len({row.id for row in rows}) == len(rows)
    return rows


ROWS = _rows()


@dataclass
class Seen:
    """What became of a row."""

    mxs: list[Mx] = field(default_factory=list)
    email: dict[str, Any] = field(default_factory=dict)
    counted: dict[tuple[str, str], int] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)  # modes of its policies after a restart

    @property
    def delivery(self) -> dict[str, Any]:
        delivery: dict[str, Any] = self.email["deliveries"][-1]
        return delivery


def _domain(index: int) -> str:
    return f"row{index}.test"


def _script(shows: str, host: str) -> Script:
    pairs: dict[str, Pair] = {
        OTHER: certificates.valid("elsewhere.test"),
        EXPIRED: certificates.expired(host),
        SELF: certificates.self_signed(host),
    }
    if shows == NONE:
        return Script()
    tls = pairs.get(shows, certificates.valid(host)).server_context()
    if shows == REFUSED:
        return Script(tls=tls, starttls="454 4.7.0 not now")
    return Script(tls=tls, handshake=RESET if shows == BROKEN else None)


async def _publish(
    stack: contextlib.AsyncExitStack, dns: DnsServer, row: Row, domain: str, n: int, port: int
) -> None:
    """Put the MTA-STS policy of a row into DNS and behind HTTPS."""
    host, address = f"mta-sts.{domain}", f"127.0.31.{n}"
    dns.set(f"_mta-sts.{domain}", "TXT", "v=STSv1; id=1;")
    if row.web != "no-address":
        dns.set(host, "A", address)
    if row.web in {"closed", "no-address"}:
        return
    pair = certificates.valid("elsewhere.test" if row.web == "name" else host)
    if row.web == "certificate":
        pair = certificates.self_signed(host)
    web = await stack.enter_async_context(PolicyHost(pair.server_context(), address, port))
    text = policy(row.sts, *(name.replace("DOMAIN", domain) for name in row.names))
    web.files[host] = {"big": text + "x: y\r\n" * 20_000, "rubbish": "<html>", "404": ""}.get(row.web, text)
    web.status = int(row.web) if row.web.isdigit() else 200
    web.kind = "text/html" if row.web == "kind" else web.kind


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """Send to all rows at once, and return what became of each."""
    return asyncio.run(_run(tmp_path_factory.mktemp("tls")))


async def _run(folder: Path) -> dict[str, Seen]:
    port, web_port = closed_port(), closed_port()
    seen = {row.id: Seen() for row in ROWS}
    async with contextlib.AsyncExitStack() as stack:
        dns = await stack.enter_async_context(DnsServer())
        rules = ""
        number = 1
        for index, row in enumerate(ROWS):
            domain = _domain(index)
            for place, shows in enumerate(row.shows):
                host, address = f"mx{place}.{domain}", f"127.0.30.{number}"
                number += 1
                mx = Mx(_script(shows, host), host=address, port=port)
                seen[row.id].mxs.append(await stack.enter_async_context(mx))
                dns.set(host, "A", address)
            dns.set(domain, "MX", *(f"{10 * place + 10} mx{place}.{domain}." for place in range(len(row.shows))))
            if row.sts:
                await _publish(stack, dns, row, domain, index + 1, web_port)
            if row.rule:
                rules += f'[[tls_policy]]\ndomain = "{domain}"\nrequire = "{row.rule}"\n\n'
        relay = Relay(folder, dns=dns.address, mx_port=port, delivery=DELIVERY.format(port=web_port), more=rules)
        relay.environment["SSL_CERT_FILE"] = str(certificates.authority().ca_file)
        async with relay:
            tokens = {row.id: await relay.send(f"someone@{_domain(index)}") for index, row in enumerate(ROWS)}
            for row in ROWS:
                path = f"/v1/emails/{tokens[row.id]}?expand=deliveries"
                answer = await relay.until(path, lambda found: found["data"]["attempts"] > 0)
                seen[row.id].email = answer["data"]
        await relay.start()  # what was counted and fetched is on disk
        try:
            for index, row in enumerate(ROWS):
                told = (await relay.get(f"/v1/control/tls?domain={_domain(index)}"))["data"]
                for one in told["sessions"]:
                    key = (one["policy"], one["result"] or "")
                    seen[row.id].counted[key] = seen[row.id].counted.get(key, 0) + one["sessions"]
                seen[row.id].kept = [one["mode"] for one in told["policies"]]
        finally:
            await relay.stop()
        seen["no-policy-good"].log = relay.lines()
        assert [line for line in relay.lines() if line["event"] in {"task_crashed", "connection_crashed"}] == []
    return seen


@pytest.mark.timeout(120)
@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in ROWS])
def test_a_policy_decides_who_gets_the_message_and_how(row: Row, outcomes: dict[str, Seen]) -> None:
    seen = outcomes[row.id]
    assert seen.email["status"] == row.status, seen.email
    arrived = [message for mx in seen.mxs for message in mx.messages]
    if row.status == "sent":
        assert [message.tls for message in arrived] == [row.tls]
        tls = seen.delivery["tls"]
        assert (tls is not None) == row.tls
        if tls is not None:
            assert (tls["policy"], tls["verified"]) == (row.policy, row.verified)
            assert tls["version"].startswith("TLSv1.")
            assert tls["cipher"]
    else:
        assert arrived == []
        assert seen.delivery["classification"] == "tls_required"
        assert row.words in seen.delivery["details"], seen.delivery
        said = {"mta-sts": "MTA-STS policy of", "domain": "[[tls_policy]]"}[row.policy]
        assert said in seen.delivery["details"], seen.delivery
    if row.connections is not None:
        assert sum(mx.connections for mx in seen.mxs) == row.connections
    assert seen.kept == ([row.sts] if row.sts and not row.web else [])
    for key, n in row.counted.items():
        assert seen.counted.get(key) == n, seen.counted


def test_only_opportunistic_tls_is_remembered_as_broken(outcomes: dict[str, Seen]) -> None:
    """A demand that is not met says nothing of the host that others may not want to know: it stays as it was."""
    broken = {line["host"] for line in outcomes["no-policy-good"].log if line["event"] == "tls_broken"}
    wanted = {row.id for row in ROWS if row.sts == "testing" and row.shows[0] in {REFUSED, BROKEN}}
    assert broken == {f"mx0.{_domain(index)}" for index, row in enumerate(ROWS) if row.id in wanted}
    assert len(wanted) == 2


async def test_what_one_domain_demands_does_not_make_others_wait_at_the_same_host(tmp_path: Path) -> None:
    host = "mx.shared.test"
    async with DnsServer() as dns, Mx(Script(tls=certificates.self_signed(host).server_context())) as mx:
        dns.set(host, "A", "127.0.0.1")
        rule = '[[tls_policy]]\ndomain = "strict.test"\nrequire = "verified"\n'
        async with Relay(tmp_path, dns=dns.address, mx_port=mx.port, more=rule) as relay:
            for domain, status in (("strict.test", "softfail"), ("easy.test", "sent")):
                dns.set(domain, "MX", f"10 {host}.")
                path = f"/v1/emails/{await relay.send(f'ann@{domain}')}"
                await relay.until(path, lambda found, status=status: found["data"]["status"] == status, 5.0)
