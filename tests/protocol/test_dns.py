"""The resolver against a real DNS server on loopback that answers as told, also rudely."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peers.dns import DnsServer

from arkrelay.model.dns import AddressAnswer, MxAnswer, MxHost
from arkrelay.model.peertls import Tlsa, TlsaAnswer
from arkrelay.model.reply import Failure, FailureKind, Stage
from arkrelay.wire.dns import Resolver
from arkrelay.wire.dnsquery import Nameserver, Nameservers, parse_nameserver

TIMEOUT_S = 5.0  # long enough for a slow machine; nothing waits for it
SHORT_S = 0.1  # where the wait is the point


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    async with DnsServer() as dns:
        dns.set("example.test", "MX", "20 mx2.example.test.", "10 MX1.Example.TEST.")
        dns.set("example.test", "A", "192.0.2.9")
        dns.set("mx1.example.test", "A", "192.0.2.1", "192.0.2.2")
        dns.set("mx1.example.test", "AAAA", "2001:DB8:0::1")
        yield dns


@pytest.fixture
async def resolver(server: DnsServer) -> AsyncIterator[Resolver]:
    resolver = Resolver([server.address], TIMEOUT_S)
    yield resolver
    await resolver.close()


def kind(answer: object) -> FailureKind:
    assert isinstance(answer, Failure), answer
    assert answer.stage is Stage.RESOLVE
    assert answer.detail.isprintable()
    assert 0 < len(answer.detail) <= 500
    return answer.kind


async def test_mx_hosts_come_by_preference_in_lower_case(resolver: Resolver) -> None:
    hosts = (MxHost(10, "mx1.example.test"), MxHost(20, "mx2.example.test"))
    assert await resolver.mx("example.test") == MxAnswer(hosts, 300.0)


async def test_a_domain_without_mx_is_its_own_host(server: DnsServer, resolver: Resolver) -> None:
    server.set("plain.test", "A", "192.0.2.3")
    assert await resolver.mx("plain.test") == MxAnswer((MxHost(0, "plain.test"),), 60.0, implicit=True)
    assert await resolver.addresses("plain.test") == AddressAnswer(("192.0.2.3",), 300.0)


async def test_an_alias_is_followed_to_its_mail_hosts(server: DnsServer, resolver: Resolver) -> None:
    server.set("alias.test", "CNAME", "example.test.", ttl=30)
    answer = await resolver.mx("alias.test")
    assert isinstance(answer, MxAnswer)
    assert [host.host for host in answer.hosts] == ["mx1.example.test", "mx2.example.test"]
    assert answer.ttl_s == 30.0


async def test_what_dns_itself_says_is_permanent(server: DnsServer, resolver: Resolver) -> None:
    server.set("null.test", "MX", "0 .")
    server.set("empty.test", "TXT", "nothing else")
    server.set("dangling.test", "CNAME", "gone.test.")
    assert kind(await resolver.mx("unknown.test")) is FailureKind.NO_DOMAIN
    assert kind(await resolver.mx("dangling.test")) is FailureKind.NO_DOMAIN
    assert kind(await resolver.mx("null.test")) is FailureKind.NULL_MX
    assert isinstance(await resolver.mx("empty.test"), MxAnswer)  # implicit, and then:
    assert kind(await resolver.addresses("empty.test")) is FailureKind.NO_ADDRESS
    assert kind(await resolver.addresses("empty.test", (4,))) is FailureKind.NO_ADDRESS
    assert server.count("null.test") == 1  # RFC 7505: no look-up of an address


@pytest.mark.parametrize(
    "how",
    [
        "servfail",
        "refused",
        "formerr",
        "timeout",
        "tcp-hang",
        "tcp-close",
        "tcp-garbage",
        "garbage",
        "short",
        "wrong-id",
        "wrong-question",
        "not-a-response",
        "cname-loop",
    ],
)
async def test_a_resolver_in_trouble_is_temporary_and_never_falls_back_to_a(server: DnsServer, how: str) -> None:
    resolver = Resolver([server.address], SHORT_S)
    server.fail("example.test", "MX", how)
    async with asyncio.timeout(2 * SHORT_S + 2):  # two rounds, and a slow machine
        assert kind(await resolver.mx("example.test")) is FailureKind.RESOLVER
        while server.count("example.test", "MX") < 2:  # its server may be slower to read than the wait was long
            await asyncio.sleep(0.01)
    assert server.count("example.test", "A") == 0


@pytest.mark.parametrize(
    ("how", "transports"),
    [
        pytest.param("truncate", ["udp", "tcp"], id="cut-off-goes-on-by-tcp"),
        pytest.param("formerr-with-edns", ["udp", "udp"], id="asked-again-without-edns"),
        pytest.param("spoof-first", ["udp"], id="guessed-answers-are-passed-over"),
    ],
)
async def test_odd_manners_are_understood(
    server: DnsServer, resolver: Resolver, how: str, transports: list[str]
) -> None:
    server.fail("example.test", "MX", how)
    assert isinstance(await resolver.mx("example.test"), MxAnswer)
    assert [query.transport for query in server.queries] == transports


async def test_edns_asks_for_1232_bytes(server: DnsServer, resolver: Resolver) -> None:
    server.fail("example.test", "MX", "formerr-with-edns")
    await resolver.mx("example.test")
    assert [query.payload for query in server.queries] == [1232, None]


async def test_one_lost_answer_costs_a_round_and_not_the_look_up(server: DnsServer) -> None:
    resolver = Resolver([server.address], 0.5)
    server.fail("example.test", "MX", "timeout", times=1)
    assert isinstance(await resolver.mx("example.test"), MxAnswer)
    assert server.count("example.test") == 2


async def test_the_second_nameserver_serves_when_the_first_is_in_trouble(server: DnsServer) -> None:
    async with DnsServer() as broken:
        broken.fail("*", "*", "servfail")
        resolver = Resolver([broken.address, server.address], TIMEOUT_S)
        assert isinstance(await resolver.mx("example.test"), MxAnswer)
        assert isinstance(await resolver.addresses("mx1.example.test"), AddressAnswer)
        assert broken.count() == 1  # the one that answered is asked first from then on


async def test_nameservers_that_are_not_there_fail_at_once(server: DnsServer) -> None:
    resolver = Resolver([server.address], 30)
    await server.stop()
    answer = await asyncio.wait_for(resolver.mx("example.test"), 5)
    assert kind(answer) is FailureKind.RESOLVER
    await server.start()
    assert isinstance(await resolver.mx("example.test", fresh=True), MxAnswer)


async def test_sixty_mx_arrive_whole(server: DnsServer, resolver: Resolver) -> None:
    server.set("many.test", "MX", *[f"{n} {'x' * 40}-{n}.many.test." for n in range(60)])
    answer = await resolver.mx("many.test")
    assert isinstance(answer, MxAnswer)
    assert [host.preference for host in answer.hosts] == list(range(60))
    assert server.queries[-1].transport == "tcp"


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        pytest.param(["0 .", "10 mx.test."], ["mx.test"], id="null-mx-beside-others-is-ignored"),
        pytest.param(["10 192.0.2.1.", "20 mx.test."], ["mx.test"], id="an-address-is-no-host"),
        pytest.param([r"10 a\032b\000.test."], [r"a\032b\000.test"], id="odd-bytes-stay-escaped"),
        pytest.param(["10 192.0.2.1."], FailureKind.RESOLVER, id="only-addresses-may-be-mended"),
        pytest.param(["10 ."], FailureKind.NULL_MX, id="null-mx-of-any-preference"),
    ],
)
async def test_strange_mx_records(
    server: DnsServer, resolver: Resolver, records: list[str], expected: list[str] | FailureKind
) -> None:
    server.set("odd.test", "MX", *records)
    answer = await resolver.mx("odd.test")
    if isinstance(answer, MxAnswer):
        assert [host.host for host in answer.hosts] == expected
        for host in answer.hosts:
            await resolver.addresses(host.host)
    else:
        assert kind(answer) is expected


async def test_addresses_of_both_families_in_the_order_asked(server: DnsServer, resolver: Resolver) -> None:
    answer = await resolver.addresses("mx1.example.test", (6, 4))
    assert isinstance(answer, AddressAnswer)
    assert answer.addresses[0] == "2001:db8::1"
    assert sorted(answer.addresses[1:]) == ["192.0.2.1", "192.0.2.2"]
    queries = len(server.queries)
    assert await resolver.addresses("mx1.example.test", (6, 4)) == answer
    assert len(server.queries) == queries


async def test_one_family_is_enough_when_the_other_is_in_trouble(server: DnsServer, resolver: Resolver) -> None:
    server.fail("mx1.example.test", "AAAA", "servfail")
    answer = await resolver.addresses("mx1.example.test", (6, 4))
    assert isinstance(answer, AddressAnswer)
    assert sorted(answer.addresses) == ["192.0.2.1", "192.0.2.2"]


async def test_trouble_with_both_families_is_temporary(server: DnsServer, resolver: Resolver) -> None:
    server.fail("mx1.example.test", "*", "servfail")
    assert kind(await resolver.addresses("mx1.example.test")) is FailureKind.RESOLVER


async def test_trouble_beside_nxdomain_is_temporary(server: DnsServer, resolver: Resolver) -> None:
    server.fail("unknown.test", "AAAA", "servfail")
    assert kind(await resolver.addresses("unknown.test")) is FailureKind.RESOLVER


async def test_trouble_with_one_family_is_not_no_address(server: DnsServer, resolver: Resolver) -> None:
    server.set("v6only.test", "TXT", "x")
    server.fail("v6only.test", "AAAA", "servfail")
    assert kind(await resolver.addresses("v6only.test")) is FailureKind.RESOLVER
    assert kind(await resolver.addresses("v6only.test", (4,))) is FailureKind.RESOLVER


async def test_a_host_of_the_other_family_is_unreachable_and_not_missing(
    server: DnsServer, resolver: Resolver
) -> None:
    server.set("v6only.test", "AAAA", "2001:db8::5")
    assert kind(await resolver.addresses("v6only.test", (4,))) is FailureKind.UNREACHABLE
    assert kind(await resolver.addresses("nowhere.test", (4,))) is FailureKind.NO_DOMAIN


@pytest.mark.parametrize("literal", ["127.0.0.1", "2001:db8::1", "fe80::1%eth0"])
async def test_an_address_is_its_own_answer(server: DnsServer, resolver: Resolver, literal: str) -> None:
    answer = await resolver.addresses(literal)
    assert isinstance(answer, AddressAnswer)
    assert answer.addresses == (literal.partition("%")[0],)
    assert server.queries == []


async def test_texts_are_joined_and_valid_unicode(server: DnsServer, resolver: Resolver) -> None:
    server.set("texts.test", "TXT", '"v=DKIM1; " "p=abc"', '"\\255\\000x"')
    found = await resolver.txt("texts.test")
    assert isinstance(found, tuple)
    assert sorted(found) == ["\\xff\x00x", "v=DKIM1; p=abc"]
    assert await resolver.txt("example.test") == ()
    assert await resolver.txt("unknown.test") == ()
    server.fail("texts.test", "TXT", "refused")
    assert kind(await resolver.txt("texts.test", fresh=True)) is FailureKind.RESOLVER


async def test_an_alias_is_shown_and_not_followed(server: DnsServer, resolver: Resolver) -> None:
    server.set("psrp.example.test", "CNAME", "RP.relay.test.")
    assert await resolver.cname("psrp.example.test") == ("rp.relay.test",)
    assert await resolver.cname("example.test") == ()
    assert server.count("rp.relay.test") == 0


@pytest.mark.parametrize(
    ("ip", "reverse"),
    [
        ("192.0.2.1", "1.2.0.192.in-addr.arpa"),
        ("2001:db8::1", f"1.{'0.' * 23}8.b.d.0.1.0.0.2.ip6.arpa"),
    ],
)
async def test_reverse_names(server: DnsServer, resolver: Resolver, ip: str, reverse: str) -> None:
    server.set(reverse, "PTR", r"evil\010\000\".test.")
    assert await resolver.ptr(ip) == (r"evil\010\000\".test",)
    assert await resolver.ptr("198.51.100.1") == ()


@pytest.mark.parametrize("hostile", ["", "not an ip", "1.2.3", "::1::", "\x00", "é", "\u0661.2.3.4"])
async def test_a_reverse_look_up_of_rubbish_is_empty(server: DnsServer, resolver: Resolver, hostile: str) -> None:
    assert await resolver.ptr(hostile) == ()
    assert server.queries == []


@pytest.mark.parametrize(
    "name",
    ["", ".", "@", "a..b", "x" * 64 + ".test", "a." * 140 + "test", "münchen.test", "\\", "\\9", "\ud800.test"],
)
async def test_a_name_that_dns_cannot_hold_does_not_exist(server: DnsServer, resolver: Resolver, name: str) -> None:
    assert kind(await resolver.mx(name)) is FailureKind.NO_DOMAIN
    assert kind(await resolver.addresses(name)) is FailureKind.NO_DOMAIN
    assert await resolver.txt(name) == ()
    assert server.queries == []


@given(name=st.text(max_size=80))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_name_raises(name: str) -> None:
    async def look_up() -> None:
        async with DnsServer() as server:
            resolver = Resolver([server.address], TIMEOUT_S)
            assert isinstance(await resolver.mx(name), Failure | MxAnswer)
            assert isinstance(await resolver.ptr(name), tuple)
            await resolver.close()

    asyncio.run(look_up())


@pytest.mark.parametrize("seed", range(20))
async def test_a_mangled_answer_is_temporary_or_read_and_never_raises(
    server: DnsServer, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(seed)
    answer = server.answer

    def mangled(wire: bytes, transport: str) -> list[bytes]:
        packets = []
        for packet in answer(wire, transport):
            changed = bytearray(packet)
            for _ in range(dice.randint(1, 4)):
                changed[dice.randrange(2, len(changed))] = dice.randrange(256)
            packets.append(bytes(changed[: dice.randint(2, len(changed))] if dice.random() < 0.3 else changed))
        return packets

    monkeypatch.setattr(server, "answer", mangled)
    resolver = Resolver([server.address], 0.02)
    for _ in range(10):
        answered = await resolver.mx("example.test", fresh=True)
        assert isinstance(answered, Failure | MxAnswer)
    await resolver.close()


async def test_ad_is_believed_from_loopback_only(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver([server.address], TIMEOUT_S)
    answer = await resolver.mx("example.test")
    assert isinstance(answer, MxAnswer)
    assert not answer.secure
    server.ad = True
    answer = await resolver.mx("example.test", fresh=True)
    assert isinstance(answer, MxAnswer)
    assert answer.secure
    addresses = await resolver.addresses("mx1.example.test")
    assert isinstance(addresses, AddressAnswer)
    assert addresses.secure
    monkeypatch.setattr(Nameserver, "loopback", property(lambda _: False))
    answer = await resolver.mx("example.test", fresh=True)
    assert isinstance(answer, MxAnswer)
    assert not answer.secure


async def test_ad_of_another_machine_is_believed_where_the_admin_says_so(
    server: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.ad = True
    server.set("example.test", "MX", "10 mx.example.test.")
    monkeypatch.setattr(Nameserver, "loopback", property(lambda _: False))
    resolver = Resolver([server.address], 1.0, trust_ad=True)
    answer = await resolver.mx("example.test")
    assert isinstance(answer, MxAnswer)
    assert answer.secure
    await resolver.close()


async def test_tlsa_records_come_as_they_are_and_a_name_without_any_is_empty(server: DnsServer) -> None:
    server.ad = True
    server.set("_25._tcp.mx.example.test", "TLSA", f"3 1 1 {'ab' * 32}", f"2 0 2 {'cd' * 64}")
    server.fail("_25._tcp.bogus.example.test", "TLSA", "servfail")
    resolver = Resolver([server.address], 1.0)
    found = await resolver.tlsa("mx.example.test", 25)
    assert isinstance(found, TlsaAnswer)
    assert found.secure
    assert set(found.records) == {Tlsa(3, 1, 1, b"\xab" * 32), Tlsa(2, 0, 2, b"\xcd" * 64)}  # in any order
    assert await resolver.tlsa("none.example.test", 25) == TlsaAnswer((), secure=True)
    assert isinstance(await resolver.tlsa("bogus.example.test", 25), Failure)
    await resolver.close()


@pytest.mark.parametrize(
    ("ip", "loopback"), [("127.0.0.53", True), ("::1", True), ("192.0.2.1", False), ("2001:db8::1", False)]
)
def test_which_nameservers_are_loopback(ip: str, loopback: bool) -> None:
    assert Nameserver(ip).loopback is loopback


def test_resolv_conf_is_read_again_when_it_changes(tmp_path: Path) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text("# none yet\nsearch example.test\nnameserver rubbish\nnameserver\n")
    servers = Nameservers([], TIMEOUT_S, conf)
    assert servers.in_force() == (Nameserver("127.0.0.1"),)
    conf.write_text("nameserver 192.0.2.53\nnameserver ::1 # this host\n")
    for _ in range(2):
        assert servers.in_force() == (Nameserver("192.0.2.53"), Nameserver("::1"))
    conf.unlink()
    assert servers.in_force() == (Nameserver("192.0.2.53"), Nameserver("::1"))
    conf.write_text("nameserver 192.0.2.54\n")
    assert servers.in_force() == (Nameserver("192.0.2.54"),)


def test_without_resolv_conf_this_machine_is_asked(tmp_path: Path) -> None:
    assert Nameservers([], TIMEOUT_S, tmp_path / "absent").in_force() == (Nameserver("127.0.0.1"),)


async def test_a_nameserver_may_be_ipv6() -> None:
    async with DnsServer("::1") as server:
        server.set("example.test", "MX", "10 mx.test.")
        server.fail("example.test", "MX", "truncate")
        assert isinstance(await Resolver([server.address], TIMEOUT_S).mx("example.test"), MxAnswer)


@pytest.mark.parametrize(
    ("text", "nameserver"),
    [
        ("192.0.2.1", Nameserver("192.0.2.1", 53)),
        ("192.0.2.1:5353", Nameserver("192.0.2.1", 5353)),
        ("2001:DB8::1", Nameserver("2001:db8::1", 53)),
        ("[::1]", Nameserver("::1", 53)),
        ("[::1]:5353", Nameserver("::1", 5353)),
    ],
)
def test_nameservers_are_parsed(text: str, nameserver: Nameserver) -> None:
    assert parse_nameserver(text) == nameserver
    assert parse_nameserver(str(nameserver)) == nameserver


@pytest.mark.parametrize(
    "text", ["", "dns.example.com", "192.0.2.1:x", "192.0.2.1:0", "192.0.2.1:70000", "[::1", "[::1]x", ":53"]
)
def test_a_nameserver_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Resolver([text])


async def test_records_are_text_of_each_type(server: DnsServer) -> None:
    server.set("a.test", "MX", "10 mx.A.test.", "20 .")
    server.set("a.test", "A", "192.0.2.1")
    server.set("b.test", "CNAME", "a.test.")
    resolver = Resolver([server.address], 2)
    assert sorted(await resolver.records("a.test", "MX")) == ["10 mx.a.test", "20 "]  # type: ignore[arg-type]
    assert await resolver.records("b.test", "A") == ("192.0.2.1",)
    assert await resolver.records("b.test", "CNAME") == ("a.test",)
    assert await resolver.records("c.test", "TXT") == ()
    await resolver.close()


async def test_each_nameserver_says_how_long_it_takes_or_why_it_does_not(server: DnsServer) -> None:
    resolver = Resolver([server.address, "127.0.0.1:9"], 2)
    found = await resolver.latencies()
    assert isinstance(found[server.address], float)
    assert found["127.0.0.1:9"] == "Connection refused"
    assert await resolver.root_is_proved() is False
    server.ad = True
    assert await resolver.root_is_proved() is True
    assert resolver.trusted
    assert not Resolver(["192.0.2.53"], 2).trusted
    server.fail("*", "*", "servfail")
    assert await resolver.root_is_proved() is None
    await resolver.close()
