"""Where mail goes, and where it never does."""

import ipaddress
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.model.delivery import Delivery, Route
from arkrelay.model.dns import MxAnswer, MxHost
from arkrelay.model.reply import Failure, FailureKind, Stage
from arkrelay.policy.providers import Providers
from arkrelay.policy.route import (
    MAX_ADDRESSES,
    MAX_HOSTS,
    Target,
    choose_targets,
    destination_of,
    forbidden,
    match_cause,
    match_route,
    moves_to,
    no_addresses,
    order_hosts,
    parse_networks,
    split,
)

NOBODY: frozenset[str] = frozenset()
ROUTES = (
    Route(domain="exact.test", host="Exact.example:25"),
    Route(domain="*.wild.test", host="wild.example:587"),
    Route(domain="Upper.TEST", host="upper.example:587"),
)


def answer(*hosts: tuple[int, str], implicit: bool = False) -> MxAnswer:
    return MxAnswer(tuple(MxHost(*host) for host in hosts), 60.0, implicit=implicit)


def names(ordered: tuple[MxHost, ...] | Failure) -> list[str]:
    assert not isinstance(ordered, Failure), ordered
    return [host.host for host in ordered]


def kind(result: object) -> FailureKind:
    assert isinstance(result, Failure), result
    assert result.stage is Stage.RESOLVE
    return result.kind


@pytest.mark.parametrize(
    ("domain", "host"),
    [
        ("exact.test", "Exact.example:25"),
        ("a.exact.test", None),
        ("a.wild.test", "wild.example:587"),
        ("a.b.wild.test", "wild.example:587"),
        ("wild.test", None),
        ("notwild.test", None),
        ("upper.test", "upper.example:587"),
        ("other.test", None),
    ],
)
def test_a_route_covers_what_its_pattern_says(domain: str, host: str | None) -> None:
    route = match_route(domain, ROUTES)
    assert (route.host if route else None) == host


def test_the_first_matching_route_wins() -> None:
    anything = Route(domain="*", host="any.example:25")
    assert match_route("exact.test", (anything, *ROUTES)) is anything
    assert match_route("exact.test", (*ROUTES, anything)) is ROUTES[0]
    assert match_route("other.test", (*ROUTES, anything)) is anything


def test_a_destination_is_the_domain_or_the_smarthost() -> None:
    assert destination_of("other.test", ROUTES) == "other.test"
    assert destination_of("exact.test", ROUTES) == "route:exact.example:25"


@pytest.mark.parametrize(
    ("domain", "requiretls", "any_tls", "expected"),
    [
        ("other.test", True, False, ("requiretls:", "other.test")),
        ("other.test", False, True, ("anytls:", "other.test")),
        ("other.test", True, True, ("requiretls:", "other.test")),
        ("exact.test", True, False, ("requiretls:", "route:exact.example:25")),
        ("exact.test", False, True, ("", "route:exact.example:25")),
        ("other.test", False, False, ("", "other.test")),
    ],
)
def test_mail_that_demands_another_tls_travels_apart(
    domain: str, requiretls: bool, any_tls: bool, expected: tuple[str, str]
) -> None:
    made = destination_of(domain, ROUTES, requiretls=requiretls, any_tls=any_tls)
    assert split(made) == (expected[0], "", expected[1])
    assert made == "".join(expected)


@pytest.mark.parametrize("mark", ["", "requiretls:", "anytls:"])
def test_mail_of_a_pool_travels_apart_unless_a_smarthost_takes_it(mark: str) -> None:
    demands = {"requiretls": mark == "requiretls:", "any_tls": mark == "anytls:"}
    made = destination_of("other.test", ROUTES, pool="bulk", **demands)
    assert made == f"{mark}pool:bulk:other.test"
    assert split(made) == (mark, "bulk", "other.test")
    assert "pool:" not in destination_of("exact.test", ROUTES, pool="bulk", **demands)


CAUSES = (
    Route(domain="*.test", host="after.example:25", after=3),
    Route(domain="*", host="late.example:587", after=6),
    Route(domain="*", host="clean.example:587", when="sender-reputation"),
    Route(domain="*", host="warm.example:587", when="warm-up"),
)


@pytest.mark.parametrize(
    ("destination", "attempts", "expected"),
    [
        ("other.test", 2, None),
        ("other.test", 3, "route:after.example:25"),
        ("other.test", 9, "route:after.example:25"),
        ("pool:bulk:other.test", 3, "route:after.example:25"),
        ("anytls:other.test", 3, "route:after.example:25"),
        ("requiretls:pool:bulk:other.test", 3, "requiretls:route:after.example:25"),
        ("route:late.example:587", 9, None),
        ("test:", 9, None),
    ],
)
def test_a_route_after_so_many_attempts_is_taken_once(destination: str, attempts: int, expected: str | None) -> None:
    assert moves_to(destination, "other.test", CAUSES, attempts) == expected


def test_a_route_with_a_cause_takes_nothing_without_it() -> None:
    assert match_route("other.test", CAUSES) is None
    assert destination_of("other.test", CAUSES) == "other.test"
    found = match_cause("other.test", CAUSES, "sender-reputation")
    assert found is not None
    assert found.host == "clean.example:587"
    assert match_cause("other.test", CAUSES[:2], "warm-up") is None
    assert moves_to("other.example", "other.example", CAUSES[:1], 9) is None


@pytest.mark.parametrize(
    ("hosts", "site"),
    [
        ([(5, "gmail-smtp-in.l.google.com"), (10, "alt1.gmail-smtp-in.l.google.com")], "google"),
        ([(10, "aspmx3.googlemail.com"), (1, "aspmx.l.google.com")], "google"),
        ([(0, "contoso-com.mail.protection.outlook.com")], "microsoft"),
        ([(2, "outlook-com.olc.protection.outlook.com")], "microsoft"),
        ([(0, "contoso-com.o-v1.mx.microsoft")], "microsoft"),
        ([(1, "mta5.am0.yahoodns.net")], "yahoo"),
        ([(10, "mx01.mail.icloud.com")], "apple"),
        ([(10, "mx00.gmx.net")], "gmx"),
        ([(10, "mx-ha02.web.de")], "gmx"),
        ([(10, "mx1.mailbox.example.co.uk")], "example.co.uk"),
        ([(20, "google.com.evil.test"), (10, "mail.fake-google.com")], "fake-google.com"),
        ([(0, "localhost")], "localhost"),
    ],
)
def test_connections_are_counted_per_provider_or_zone(hosts: list[tuple[int, str]], site: str) -> None:
    assert Providers(Delivery()).site_of([MxHost(*host) for host in hosts]) == site


def test_hosts_go_by_preference_and_equals_are_shuffled() -> None:
    mx = answer((20, "c.test"), (10, "a.test"), (10, "b.test"))
    orders = {tuple(names(order_hosts(mx, NOBODY, Random(seed)))) for seed in range(50)}
    assert orders == {("a.test", "b.test", "c.test"), ("b.test", "a.test", "c.test")}


def test_a_host_named_twice_is_tried_once_at_its_better_place() -> None:
    mx = answer((10, "a.test"), (5, "b.test"), (1, "a.test"))
    assert names(order_hosts(mx, NOBODY, Random(0))) == ["a.test", "b.test"]


def test_sixty_hosts_are_capped_to_the_best() -> None:
    mx = answer(*((n, f"mx{n}.test") for n in range(60)))
    assert names(order_hosts(mx, NOBODY, Random(0))) == [f"mx{n}.test" for n in range(MAX_HOSTS)]


def test_ourselves_and_all_that_is_not_better_are_dropped() -> None:
    mx = answer((10, "a.test"), (20, "relay.test"), (20, "b.test"), (30, "c.test"))
    assert names(order_hosts(mx, frozenset({"relay.test"}), Random(0))) == ["a.test"]


@pytest.mark.parametrize("hosts", [[(10, "relay.test")], [(10, "relay.test"), (10, "b.test"), (30, "c.test")]])
def test_being_the_best_host_is_a_loop(hosts: list[tuple[int, str]]) -> None:
    result = order_hosts(answer(*hosts), frozenset({"relay.test"}), Random(0))
    assert kind(result) is FailureKind.LOOP
    assert "relay.test" in str(result)


def targets(
    *resolved: tuple[int, str, list[str]], allow: tuple[str, ...] = (), own: frozenset[str] = NOBODY, seed: int = 0
) -> tuple[Target, ...] | Failure:
    return choose_targets(
        [(MxHost(preference, host), addresses) for preference, host, addresses in resolved],
        allow=parse_networks(allow),
        own=own,
        dice=Random(seed),
    )


def chosen(result: tuple[Target, ...] | Failure) -> list[tuple[str, str]]:
    assert not isinstance(result, Failure), result
    return [(target.host, target.address) for target in result]


def test_a_host_with_many_addresses_leaves_room_for_the_next() -> None:
    many = [f"9.9.9.{n}" for n in range(20)]
    result = chosen(targets((1, "a.test", many), (2, "b.test", ["8.8.8.1"]), (3, "c.test", ["8.8.8.2", "8.8.8.3"])))
    assert [host for host, _ in result] == ["a.test", "a.test", "b.test", "c.test", "c.test"]
    result = chosen(targets((1, "a.test", many), (2, "b.test", ["8.8.8.1"])))
    assert [host for host, _ in result] == ["a.test"] * 4 + ["b.test"]
    assert len(set(result)) == MAX_ADDRESSES
    assert len(chosen(targets((1, "a.test", many)))) == MAX_ADDRESSES


def test_families_take_turns_and_the_first_one_leads() -> None:
    result = chosen(targets((1, "a.test", ["2600::1", "2600::2", "9.9.9.1", "9.9.9.2"])))
    assert [":" in address for _, address in result] == [True, False, True, False]


def test_addresses_of_a_host_are_shuffled() -> None:
    firsts = {chosen(targets((1, "a.test", ["9.9.9.1", "9.9.9.2"]), seed=seed))[0][1] for seed in range(20)}
    assert firsts == {"9.9.9.1", "9.9.9.2"}


def test_forbidden_addresses_are_passed_over() -> None:
    result = targets((1, "a.test", ["127.0.0.1", "9.9.9.9"]), (2, "b.test", ["10.0.0.1"]), (3, "c.test", ["8.8.8.8"]))
    assert chosen(result) == [("a.test", "9.9.9.9"), ("c.test", "8.8.8.8")]


def test_nothing_but_forbidden_addresses_is_forbidden_and_says_why() -> None:
    result = targets((1, "a.test", ["127.0.0.1", "169.254.169.254"]))
    assert kind(result) is FailureKind.FORBIDDEN
    assert "127.0.0.1 (loopback)" in str(result)
    assert "169.254.169.254 (link-local)" in str(result)


def test_our_own_address_drops_its_host_and_all_that_is_not_better() -> None:
    own = frozenset({"9.9.9.9"})
    resolved = (
        (1, "a.test", ["8.8.8.8"]),
        (5, "b.test", ["9.9.9.9", "8.8.4.4"]),
        (5, "c.test", ["1.1.1.1"]),
        (9, "d.test", ["1.0.0.1"]),
    )
    assert chosen(targets(*resolved, own=own)) == [("a.test", "8.8.8.8")]
    assert kind(targets(*resolved[1:], own=own)) is FailureKind.LOOP


def test_an_allowed_network_overrules_own_and_loopback() -> None:
    own = frozenset({"127.0.0.1"})
    assert kind(targets((1, "a.test", ["127.0.0.1"]), own=own)) is FailureKind.LOOP
    result = targets((1, "a.test", ["127.0.0.1"]), own=own, allow=("127.0.0.0/8",))
    assert chosen(result) == [("a.test", "127.0.0.1")]


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("10.1.2.3", "private"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.168.1.1", "private"),
        ("169.254.169.254", "link-local"),
        ("100.64.0.1", "shared by a carrier (RFC 6598)"),
        ("100.127.255.255", "shared by a carrier (RFC 6598)"),
        ("192.0.0.8", "reserved for protocols"),
        ("192.0.2.1", "for documentation"),
        ("198.18.0.1", "for benchmarks"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.255", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::7f00:1", "reserved"),
        ("fc00::1", "private"),
        ("fd12:3456::1", "private"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("2600::1%eth0", "link-local"),
        ("fec0::1", "site-local"),
        ("ff02::1", "multicast"),
        ("2001:db8::1", "for documentation"),
        ("100::1", "reserved"),
        ("5f00::1", "reserved"),
        ("64:ff9b:1::1", "reserved"),
        ("2001:1::1", "reserved for protocols"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:10.0.0.1", "private"),
        ("::ffff:0:0", "unspecified"),
        ("64:ff9b::7f00:1", "loopback"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("2002:7f00:1::1", "loopback"),
        ("2002:c0a8:101::1", "private"),
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", "loopback"),
        ("2001:0:7f00:1:8000:63bf:fefe:fefe", "loopback"),
        ("203.0.114.1", None),
        ("172.32.0.1", None),
        ("100.128.0.1", None),
        ("8.8.8.8", None),
        ("2600::1", None),
        ("2001:4860:4860::8888", None),
        ("::ffff:8.8.8.8", None),
        ("64:ff9b::808:808", None),
        ("2002:808:808::1", None),
        ("9.9.9.9", "our own address"),
        ("::ffff:9.9.9.9", "our own address"),
        ("64:ff9b::909:909", "our own address"),
        ("2600:0:0::9", "our own address"),
        ("mail.example.com", "not an IP address"),
        ("", "not an IP address"),
        ("0177.0.0.1", "not an IP address"),
        ("2130706433", "not an IP address"),
    ],
)
def test_where_we_never_connect_to(address: str, reason: str | None) -> None:
    assert forbidden(address, (), frozenset({"9.9.9.9", "2600::9"})) == reason


@pytest.mark.parametrize(
    ("address", "allow", "reason"),
    [
        ("127.0.0.1", "127.0.0.0/8", None),
        ("::ffff:127.0.0.1", "127.0.0.0/8", None),
        ("::1", "127.0.0.0/8", "loopback"),
        ("::1", "::1/128", None),
        ("10.0.0.1", "10.0.1.0/24", "private"),
        ("9.9.9.9", "9.9.9.9/32", None),
    ],
)
def test_what_is_allowed_is_allowed_alone(address: str, allow: str, reason: str | None) -> None:
    assert forbidden(address, parse_networks([allow]), frozenset({"9.9.9.9"})) == reason


@given(address=st.ip_addresses())
def test_what_python_calls_not_global_is_refused(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    reason = forbidden(str(address), (), NOBODY)
    if address.is_multicast or address.is_loopback or address.is_link_local or address.is_unspecified:
        assert reason is not None
    if reason is None and address.version == 4:
        assert address.is_global


@given(text=st.text(max_size=50))
def test_no_text_raises(text: str) -> None:
    forbidden(text, parse_networks(["127.0.0.0/8", "::1/128"]), NOBODY)


def failure(what: FailureKind) -> Failure:
    return Failure(what, Stage.RESOLVE, what.value)


@pytest.mark.parametrize(
    ("implicit", "failures", "expected"),
    [
        pytest.param(True, [FailureKind.NO_ADDRESS], FailureKind.NO_ADDRESS, id="its-own-host-without-address"),
        pytest.param(True, [FailureKind.RESOLVER], FailureKind.RESOLVER, id="its-own-host-in-trouble"),
        pytest.param(False, [FailureKind.NO_DOMAIN], FailureKind.RESOLVER, id="a-missing-mx-host-may-be-mended"),
        pytest.param(False, [FailureKind.NO_ADDRESS] * 2, FailureKind.RESOLVER, id="mx-hosts-without-address"),
        pytest.param(
            False, [FailureKind.NO_DOMAIN, FailureKind.UNREACHABLE], FailureKind.UNREACHABLE, id="other-family"
        ),
        pytest.param(
            False, [FailureKind.UNREACHABLE, FailureKind.RESOLVER], FailureKind.RESOLVER, id="trouble-comes-first"
        ),
        pytest.param(False, [], FailureKind.RESOLVER, id="nobody-was-asked"),
    ],
)
def test_hosts_without_addresses(implicit: bool, failures: list[FailureKind], expected: FailureKind) -> None:
    mx = answer((10, "mx.example.test"), implicit=implicit)
    result = no_addresses("example.test", mx, [failure(what) for what in failures])
    assert result.kind is expected
