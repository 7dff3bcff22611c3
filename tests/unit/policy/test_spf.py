"""SPF as RFC 7208 has it: its own examples, its limits, and the same results as another implementation."""

import warnings
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arkrelay.model.reply import Failure, FailureKind, Stage
from arkrelay.policy.spf import Answer, Question, SpfResult, check_host
from arkrelay.policy.spfrecord import Identity, SpfSyntax, expand, is_spf, parse_record

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import spf as other

Zone = Mapping[tuple[str, str], tuple[str, ...]]
TROUBLE = Failure(FailureKind.RESOLVER, Stage.RESOLVE, "SERVFAIL")


def run(zone: Zone, ip: str, sender: str, helo: str = "relay.test", broken: str = "") -> SpfResult:
    asking = check_host(ip, sender, helo)
    try:
        question = next(asking)
        for _ in range(300):
            answer: Answer = zone.get((question.name, question.kind), ())
            question = asking.send(TROUBLE if broken and question.name == broken else answer)
    except StopIteration as end:
        result: SpfResult = end.value
        return result
    raise AssertionError("it asks without end")


# RFC 7208 appendix A
EXAMPLE: dict[tuple[str, str], tuple[str, ...]] = {
    ("example.com", "A"): ("192.0.2.10", "192.0.2.11"),
    ("amy.example.com", "A"): ("192.0.2.65",),
    ("bob.example.com", "A"): ("192.0.2.66",),
    ("mail-a.example.com", "A"): ("192.0.2.129",),
    ("mail-b.example.com", "A"): ("192.0.2.130",),
    ("mail-c.example.org", "A"): ("192.0.2.140",),
    ("example.com", "MX"): ("10 mail-a.example.com", "20 mail-b.example.com"),
    ("example.org", "MX"): ("10 mail-c.example.org",),
}


@pytest.mark.parametrize(
    ("record", "ip", "result"),
    [
        ("v=spf1 +all", "192.0.2.129", "pass"),
        ("v=spf1 a -all", "192.0.2.10", "pass"),
        ("v=spf1 a -all", "192.0.2.65", "fail"),
        ("v=spf1 a:example.org -all", "192.0.2.10", "fail"),
        ("v=spf1 mx -all", "192.0.2.129", "pass"),
        ("v=spf1 mx:example.org -all", "192.0.2.140", "pass"),
        ("v=spf1 mx mx:example.org -all", "192.0.2.140", "pass"),
        ("v=spf1 mx/30 mx:example.org/30 -all", "192.0.2.131", "pass"),
        ("v=spf1 mx/30 mx:example.org/30 -all", "192.0.2.143", "pass"),
        ("v=spf1 ptr -all", "192.0.2.65", "fail"),  # we never let ptr match
        ("v=spf1 ip4:192.0.2.128/28 -all", "192.0.2.65", "fail"),
        ("v=spf1 ip4:192.0.2.128/28 -all", "192.0.2.129", "pass"),
        ("v=spf1 ip4:192.0.2.128/28 ~all", "::ffff:192.0.2.129", "pass"),
        ("v=spf1 ip6:2001:db8::/32 ?all", "2001:db8::1", "pass"),
        ("v=spf1 ?all", "192.0.2.1", "neutral"),
        ("v=spf1", "192.0.2.1", "neutral"),
        ("V=SPF1 IP4:192.0.2.1 -ALL", "192.0.2.1", "pass"),
        ("v=spf1 unknown=thing a -all", "192.0.2.10", "pass"),
        ("v=spf1 a//64 a/0 -all", "203.0.113.1", "pass"),
        ("v=spf10 -all", "192.0.2.1", "none"),
    ],
)
def test_the_examples_of_the_standard(record: str, ip: str, result: str) -> None:
    zone = {**EXAMPLE, ("example.com", "TXT"): ("other", record)}
    assert run(zone, ip, "example.com").result == result


@pytest.mark.parametrize(
    "record",
    [
        "v=spf1 a:1.2.3.4",
        "v=spf1 ip4:1.2.3",
        "v=spf1 ip4:1.2.3.4/33",
        "v=spf1 ip4:1.2.3.4/08",
        "v=spf1 ip6:1.2.3.4",
        "v=spf1 include",
        "v=spf1 include:",
        "v=spf1 all:x.test",
        "v=spf1 nonsense",
        "v=spf1 a/33",
        "v=spf1 a:x.test//129",
        "v=spf1 mx:%{z}.x.test",
        "v=spf1 redirect=a.test redirect=b.test",
        "v=spf1 -redirect=a.test",
        "v=spf1 exists:%{i",
        "v=spf1 a:x_.-",
        "v=spf1 ä",
        "v=spf1 -all +",
    ],
)
def test_one_term_that_is_none_spoils_the_record(record: str) -> None:
    with pytest.raises(SpfSyntax):
        parse_record(record)
    assert run({("x.test", "TXT"): (record,)}, "192.0.2.1", "x.test").result == "permerror"


# RFC 7208 §7.4
@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("%{s}", "strong-bad@email.example.com"),
        ("%{o}", "email.example.com"),
        ("%{d4}", "email.example.com"),
        ("%{d2}", "example.com"),
        ("%{d1}", "com"),
        ("%{dr}", "com.example.email"),
        ("%{d2r}", "example.email"),
        ("%{l-}", "strong.bad"),
        ("%{lr}", "strong-bad"),
        ("%{lr-}", "bad.strong"),
        ("%{l1r-}", "strong"),
        ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
        ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
        ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
        ("a%%b%_c%-d.x", "a%b c%20d.x"),
        ("%{L}.%{h}.x", "strong-bad.relay.test.x"),
    ],
)
def test_macros_are_those_of_the_standard(spec: str, name: str) -> None:
    import ipaddress  # noqa: PLC0415

    identity = Identity(ipaddress.ip_address("192.0.2.3"), "strong-bad@email.example.com", "relay.test")
    assert expand(spec, identity, "email.example.com") == name


def test_an_ipv6_client_is_nibbles_in_macros_and_the_left_of_a_long_name_is_cut() -> None:
    import ipaddress  # noqa: PLC0415

    identity = Identity(ipaddress.ip_address("2001:db8::cb01"), "a@b.test", "relay.test")
    assert expand("%{ir}.%{v}.x", identity, "b.test").startswith("1.0.b.c.0.0.0.0.")
    long = expand(".".join(["%{i}"] * 5) + ".end.test", identity, "b.test")
    assert len(long) <= 253
    assert long.endswith(".end.test")


def test_the_limits_of_look_ups() -> None:
    ten = " ".join(f"include:i{number}.test" for number in range(10))
    zone: dict[tuple[str, str], tuple[str, ...]] = {
        (f"i{number}.test", "TXT"): ("v=spf1 -all",) for number in range(11)
    }
    zone["x.test", "TXT"] = (f"v=spf1 {ten} +all",)
    assert (run(zone, "192.0.2.1", "x.test").result, run(zone, "192.0.2.1", "x.test").lookups) == ("pass", 10)
    zone["x.test", "TXT"] = (f"v=spf1 {ten} include:i10.test +all",)
    found = run(zone, "192.0.2.1", "x.test")
    assert (found.result, "more than 10 look-ups" in found.reason) == ("permerror", True)
    zone["x.test", "TXT"] = ("v=spf1 a:n1.test a:n2.test +all",)
    assert (run(zone, "192.0.2.1", "x.test").result, run(zone, "192.0.2.1", "x.test").void) == ("pass", 2)
    zone["x.test", "TXT"] = ("v=spf1 a:n1.test a:n2.test exists:n3.test +all",)
    assert run(zone, "192.0.2.1", "x.test").result == "permerror"
    zone["x.test", "TXT"] = ("v=spf1 mx -all",)
    zone["x.test", "MX"] = tuple(f"10 m{number}.test" for number in range(11))
    assert run(zone, "192.0.2.1", "x.test").result == "permerror"
    zone["x.test", "TXT"] = ("v=spf1 include:x.test",)
    assert run(zone, "192.0.2.1", "x.test").result == "permerror"  # a loop ends at the limit


def test_what_an_include_or_a_redirect_comes_to() -> None:
    for inner, result in (
        ("v=spf1 -all", "softfail"),
        ("v=spf1 ?all", "softfail"),
        ("v=spf1 +all", "pass"),
        ("no record", "permerror"),
        ("v=spf1 nonsense", "permerror"),
    ):
        zone = {("x.test", "TXT"): ("v=spf1 include:y.test ~all",), ("y.test", "TXT"): (inner,)}
        assert run(zone, "192.0.2.1", "x.test").result == result
    redirect = {("x.test", "TXT"): ("v=spf1 redirect=y.test",), ("y.test", "TXT"): ("v=spf1 -all",)}
    assert run(redirect, "192.0.2.1", "x.test").result == "fail"
    assert run({("x.test", "TXT"): ("v=spf1 redirect=y.test",)}, "192.0.2.1", "x.test").result == "permerror"
    unread = {("x.test", "TXT"): ("v=spf1 redirect=y.test ~all",)}
    assert run(unread, "192.0.2.1", "x.test").result == "softfail"


def test_two_records_are_none_trouble_is_temporary_and_ptr_is_noted() -> None:
    assert run({("x.test", "TXT"): ("v=spf1 -all", "v=spf1 +all")}, "192.0.2.1", "x.test").result == "permerror"
    assert run({}, "192.0.2.1", "x.test", broken="x.test").result == "temperror"
    zone = {("x.test", "TXT"): ("v=spf1 a:y.test -all",)}
    assert run(zone, "192.0.2.1", "x.test", broken="y.test").result == "temperror"
    noted = run({("x.test", "TXT"): ("v=spf1 ptr ip4:192.0.2.1 -all",)}, "192.0.2.1", "x.test")
    assert (noted.result, len(noted.notes)) == ("pass", 1)
    assert run({}, "192.0.2.1", "localhost").result == "none"


HOSTS = ["a.test", "b.test", "c.test", "none.test"]
IPS = ["192.0.2.1", "192.0.2.9", "198.51.100.7", "2001:db8::1", "2001:db8::2"]
host = st.sampled_from(HOSTS)
cidr = st.sampled_from(["", "/24", "//64", "/30//126"])


def records_of(*further: str) -> st.SearchStrategy[str]:
    """Return records that refer to those of ``further`` alone: a loop is an error of its own to the other one."""
    term = st.one_of(
        st.builds("a:{}{}".format, host, cidr),
        st.builds("mx:{}{}".format, host, cidr),
        st.builds("include:{}".format, st.sampled_from(further)),
        st.builds("exists:%{{i}}.{}".format, host),
        st.builds("exists:{}".format, host),
        st.sampled_from(
            ["a", "mx", "ip4:192.0.2.0/29", "ip6:2001:db8::/127", "ip4:198.51.100.7", "x=y", "bad", "a/99"]
        ),
    )
    qualified = st.builds("{}{}".format, st.sampled_from(["", "", "", "+", "-", "~", "?"]), term)
    end = st.sampled_from(["", "-all", "~all", *(f"redirect={name}" for name in further)])
    return st.builds(
        lambda terms, last: " ".join(["v=spf1", *terms, last]).strip(), st.lists(qualified, max_size=5), end
    )


@settings(max_examples=400, deadline=None)
@given(
    records=st.tuples(
        records_of("b.test", "c.test", "none.test"), records_of("c.test", "none.test"), records_of("none.test")
    ),
    addresses=st.lists(st.tuples(host, st.sampled_from(IPS)), max_size=5),
    exchanges=st.lists(st.tuples(host, host), max_size=3),
    ip=st.sampled_from(IPS),
)
def test_another_implementation_comes_to_the_same(
    records: tuple[str, ...], addresses: list[tuple[str, str]], exchanges: list[tuple[str, str]], ip: str
) -> None:
    zone: dict[tuple[str, str], tuple[str, ...]] = {
        (name, "TXT"): (text,) for name, text in zip(HOSTS, records, strict=False)
    }
    for name, address in addresses:
        key = (name, "AAAA" if ":" in address else "A")
        zone[key] = (*zone.get(key, ()), address)
    for name, exchange in exchanges:
        zone[name, "MX"] = (*zone.get((name, "MX"), ()), f"10 {exchange}")

    def look_up(name: str, kind: str, *_: object) -> list[object]:
        found: list[object] = []
        for value in zone.get((name.lower(), kind), ()):
            if kind == "TXT":
                found.append(((name, kind), (value.encode(),)))
            elif kind == "MX":
                found.append(((name, kind), (10, value.partition(" ")[2])))
            else:
                found.append(((name, kind), value))
        return found

    mine = run(zone, ip, "someone@a.test", "a.test")
    original, other.DNSLookup = other.DNSLookup, look_up
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = other.check2(ip, "someone@a.test", "a.test")
    finally:
        other.DNSLookup = original
    assert mine.result == theirs[0], (mine, theirs, zone, ip)


@given(st.text(max_size=60), st.text(alphabet="aip4mx:/.%{}ds1- ?=", max_size=40))
def test_rubbish_is_no_record_and_nothing_worse(text: str, close: str) -> None:
    for candidate in (text, f"v=spf1 {text}", f"v=spf1 {close}"):
        is_spf(candidate)
        try:
            parse_record(candidate if candidate.startswith("v=spf1") else f"v=spf1 {candidate}")
        except SpfSyntax:
            pass
        result = run({("x.test", "TXT"): (candidate,)}, "192.0.2.1", "x.test").result
        assert result in {"none", "neutral", "pass", "fail", "softfail", "permerror"}


def test_a_question_names_what_is_asked() -> None:
    asking = check_host("2001:db8::1", "x.test", "relay.test")
    assert next(asking) == Question("x.test", "TXT")
    assert asking.send(("v=spf1 a -all",)) == Question("x.test", "AAAA")
