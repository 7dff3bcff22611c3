"""What DNS says, and how it fails to: trouble is never the recipient's fault, and never leads mail astray.

All rows run at once against one relay with one DNS server; a test per row looks at what became of its message.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import Mx, closed_port

GOOD, SPARE = "127.0.30.1", "127.0.30.2"  # where MX listen; no row but its own leads to the second
NOT_ALLOWED = "127.0.40.1"  # loopback that the configuration does not open
SECOND_TRY_S = 900  # a domain that does not exist is asked for again after this

Zone = Callable[[DnsServer, str], None]


@dataclass(frozen=True)
class Row:
    """A domain with its zone and the zone's faults, and what shall become of a message to it."""

    id: str
    zone: Zone
    status: str
    classification: str | None = None
    words: str = ""  # in the sentence of `why`
    due_s: float = 0.0  # the next try is about so far away; 0: as the schedule has it


def good(dns: DnsServer, domain: str) -> None:
    dns.set(domain, "MX", f"10 mx.{domain}.")
    dns.set(f"mx.{domain}", "A", GOOD)


def fault_of_mx(how: str) -> Zone:
    """Return a zone whose MX look-up fails so, with an A record that must not be used instead."""

    def zone(dns: DnsServer, domain: str) -> None:
        good(dns, domain)
        dns.set(domain, "A", SPARE)
        dns.fail(domain, "MX", how)

    return zone


def fault_of_host(how: str) -> Zone:
    """Return a zone whose MX host cannot be looked up."""

    def zone(dns: DnsServer, domain: str) -> None:
        good(dns, domain)
        dns.fail(f"mx.{domain}", "A", how)

    return zone


def records(*mx: str, **hosts: str) -> Zone:
    """Return a zone with these MX values and hosts below the domain; ``@`` in a value is the domain."""

    def zone(dns: DnsServer, domain: str) -> None:
        if mx:
            dns.set(domain, "MX", *(value.replace("@", domain) for value in mx))
        for name, address in hosts.items():
            owner = domain if name == "apex" else f"{name}.{domain}"
            dns.set(owner, "AAAA" if ":" in address else "A", address)

    return zone


def text_only(dns: DnsServer, domain: str) -> None:
    dns.set(domain, "TXT", "a domain without mail")


def alias(dns: DnsServer, domain: str) -> None:
    dns.set(domain, "CNAME", f"real.{domain}.")
    good(dns, f"real.{domain}")


def fails_once(dns: DnsServer, domain: str) -> None:
    good(dns, domain)
    dns.fail(domain, "MX", "servfail", 1)


def sixty(dns: DnsServer, domain: str) -> None:
    """Sixty hosts, all dead but the best."""
    dns.set(domain, "MX", *(f"{10 * n} mx{n}.{domain}." for n in range(1, 61)))
    for n in range(1, 61):
        dns.set(f"mx{n}.{domain}", "A", GOOD if n == 1 else NOT_ALLOWED)


TROUBLE = (
    *("servfail", "refused", "formerr", "timeout", "garbage", "short", "wrong-id", "wrong-question"),
    *("not-a-response", "cname-loop", "tcp-hang", "tcp-close", "tcp-garbage"),
)
HARMLESS = ("truncate", "formerr-with-edns", "spoof-first")
SLIP: dict[str, Any] = {"status": "softfail", "due_s": SECOND_TRY_S}

ROWS = [
    Row("good", good, "sent"),
    *(Row(f"mx-{how}", fault_of_mx(how), "softfail", "dns_error", "MX look-up of") for how in TROUBLE),
    *(Row(f"host-{how}", fault_of_host(how), "softfail", "dns_error", "A look-up of") for how in TROUBLE),
    *(Row(f"mx-{how}", fault_of_mx(how), "sent") for how in HARMLESS),
    *(Row(f"host-{how}", fault_of_host(how), "sent") for how in HARMLESS),
    Row("mx-fails-once", fails_once, "sent"),
    Row("nxdomain", lambda _dns, _domain: None, classification="dns_error", words="does not exist", **SLIP),
    Row("nodata", text_only, classification="dns_error", words="has no address", **SLIP),
    Row("null-mx", records("0 ."), "hardfail", "not_accepting_mail", "accepts no mail (null MX)"),
    Row("null-mx-beside-others", records("0 .", "10 mx.@.", mx=GOOD), "sent"),
    Row("implicit-mx", records(apex=GOOD), "sent"),
    Row("cname", alias, "sent"),
    Row("mx-is-an-address", records(f"10 {GOOD}."), "softfail", "dns_error", "are IP addresses, not names"),
    Row("mx-host-missing", records("10 gone.@."), "softfail", "dns_error", "has an address in DNS"),
    Row("one-of-two-missing", records("10 gone.@.", "20 mx.@.", mx=GOOD), "sent"),
    Row("sixty-mx", sixty, "sent"),
    Row("loopback", records("10 mx.@.", mx=NOT_ALLOWED), words="(loopback)", **SLIP),
    Row("private", records("10 mx.@.", mx="10.1.2.3"), words="(private)", **SLIP),
    Row("link-local", records("10 mx.@.", mx="169.254.169.254"), words="(link-local)", **SLIP),
    Row("unspecified", records("10 mx.@.", mx="0.0.0.0"), words="(unspecified)", **SLIP),
    Row("multicast", records("10 mx.@.", mx="224.0.0.1"), words="(multicast)", **SLIP),
    Row("private-then-good", records("10 a.@.", "20 b.@.", a="10.1.2.3", b=GOOD), "sent"),
    Row("loop", records("10 relay.test."), "hardfail", "policy_violation", "would come back to us"),
    Row(
        "loop-then-worse", records("10 relay.test.", "20 mx.@.", mx=SPARE), "hardfail", None, "would come back to us"
    ),
    Row("better-than-us", records("5 mx.@.", "10 relay.test.", mx=GOOD), "sent"),
]


@dataclass
class Seen:
    """What became of a row."""

    email: dict[str, Any] = field(default_factory=dict)
    sentence: str = ""
    event: dict[str, Any] = field(default_factory=dict)

    @property
    def delivery(self) -> dict[str, Any]:
        delivery: dict[str, Any] = self.email["deliveries"][-1]
        return delivery


@dataclass
class Office:
    """Everything that a test looks at when all is over."""

    seen: dict[str, Seen]
    again: dict[str, Seen]  # of those that were tried a second time
    dns: DnsServer
    spare: Mx
    domains: dict[str, str]


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Office:
    """Send to all rows at once, and return what became of each."""
    return asyncio.run(_run(tmp_path_factory.mktemp("dns")))


async def _run(folder: Path) -> Office:
    port = closed_port()
    domains = {row.id: f"row{index}.test" for index, row in enumerate(ROWS)}
    async with contextlib.AsyncExitStack() as stack:
        dns = await stack.enter_async_context(DnsServer())
        await stack.enter_async_context(Mx(host=GOOD, port=port))
        spare = await stack.enter_async_context(Mx(host=SPARE, port=port))
        dns.set("relay.test", "A", SPARE)
        for row in ROWS:
            row.zone(dns, domains[row.id])
        relay = Relay(folder, dns=dns.address, mx_port=port)
        text = relay.config.read_text().replace('["127.0.0.0/8"]', f'["{GOOD}/32", "{SPARE}/32"]')
        relay.config.write_text(text)
        await stack.enter_async_context(relay)
        tokens = {row.id: await relay.send(f"someone@{domains[row.id]}") for row in ROWS}
        seen = await _settled(relay, tokens, 0)
        second = {row.id: tokens[row.id] for row in ROWS if row.due_s}
        after = (await relay.get("/v1/events?after=0&limit=1000"))["data"]["next"]
        await relay.call("POST", "/v1/queue/retry", {"ids": list(second.values())})
        again = await _settled(relay, second, after)
        assert [line for line in relay.lines() if line.get("event") in {"task_crashed", "connection_crashed"}] == []
    return Office(seen, again, dns, spare, domains)


async def _settled(relay: Relay, tokens: dict[str, str], after: int) -> dict[str, Seen]:
    """Return what became of each row, once each of them has had an attempt after event number ``after``."""
    seen = {token: Seen() for token in tokens.values()}
    async with asyncio.timeout(60):
        while not all(one.event for one in seen.values()):
            page = (await relay.get(f"/v1/events?after={after}&limit=1000&wait=10"))["data"]
            after = page["next"]
            for event in page["events"]:
                told = {"MessageSent", "MessageDelayed", "MessageDeliveryFailed", "MessageHeld"}
                if event["event"] in told and event["emailId"] in seen:
                    seen[event["emailId"]].event = event
    for token, one in seen.items():
        one.email = (await relay.get(f"/v1/emails/{token}?expand=deliveries"))["data"]
        one.sentence = (await relay.get(f"/v1/why?q={token}"))["data"]["sentences"][0]["sentence"]
    return {name: seen[token] for name, token in tokens.items()}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in ROWS])
def test_what_dns_says_decides_and_its_trouble_only_delays(row: Row, office: Office) -> None:
    seen = office.seen[row.id]
    assert seen.email["status"] == row.status, seen.sentence
    if row.classification is not None:
        assert seen.delivery["classification"] == row.classification
    assert row.words in seen.sentence, seen.sentence
    if row.status == "softfail":
        assert " UTC (in " in seen.sentence
        due_s = seen.email["dueAt"] - seen.event["at"]
        wanted_s = row.due_s or 300
        assert wanted_s * 0.89 < due_s < wanted_s * 1.11 + 1


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", [row.id for row in ROWS if row.due_s])
def test_a_domain_that_cannot_take_mail_is_given_up_at_the_second_try(name: str, office: Office) -> None:
    seen = office.again[name]
    assert seen.email["status"] == "hardfail"
    assert [one["status"] for one in seen.email["deliveries"]] == ["softfail", "hardfail"]
    assert seen.sentence.startswith("Failed for good after 2 attempts: ")


@pytest.mark.timeout(120)
def test_a_null_mx_fails_at_once_with_its_own_status(office: Office) -> None:
    assert office.seen["null-mx"].event["data"]["smtp_enhanced_code"] == "5.1.10"  # RFC 7505 §4.2
    assert office.seen["null-mx"].email["attempts"] == 1


@pytest.mark.timeout(120)
def test_a_failed_mx_look_up_never_falls_back_to_the_address_of_the_domain(office: Office) -> None:
    assert office.spare.conversations == []
    for how in TROUBLE:
        domain = office.domains[f"mx-{how}"]
        assert office.dns.count(domain, "MX") >= 1
        assert office.dns.count(domain, "A") == 0


@pytest.mark.timeout(120)
def test_a_domain_with_sixty_hosts_does_not_cost_sixty_look_ups(office: Office) -> None:
    domain = office.domains["sixty-mx"]
    looked_up = {query.name for query in office.dns.queries if query.name.endswith(f".{domain}")}
    looked_up.discard(f"_mta-sts.{domain}")  # not a host: its policy
    assert 1 <= len(looked_up) <= 10


async def test_mail_waits_while_no_nameserver_answers_and_goes_when_one_does(tmp_path: Path) -> None:
    port = closed_port()
    async with Mx(host=GOOD, port=port) as mx:
        dns_port = closed_port()
        relay = Relay(tmp_path, dns=f"127.0.0.1:{dns_port}", mx_port=port)
        async with relay:
            token = await relay.send("ann@rcpt.test")
            answer = await relay.until(f"/v1/emails/{token}", lambda one: one["data"]["status"] == "softfail")
            assert "dns error" in answer["data"]["reason"].lower()
            async with DnsServer(port=dns_port) as dns:
                good(dns, "rcpt.test")
                async with asyncio.timeout(20):
                    while not mx.messages:  # a failure to resolve is remembered for a second (RFC 9520 §3.2)
                        after = (await relay.get("/v1/events?limit=1000"))["data"]["next"]
                        await relay.call("POST", f"/v1/emails/{token}/retry")
                        await _settled(relay, {"it": token}, after)
            assert (await relay.get(f"/v1/emails/{token}"))["data"]["status"] == "sent"
