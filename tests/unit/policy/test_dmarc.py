"""DMARC by RFC 9989: records, the tree walk, alignment."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.model.reply import Failure, FailureKind, Stage
from arkrelay.policy.dmarc import Answer, Found, aligned, parse_record, permission, permits, walk


def run(zone: Mapping[str, tuple[str, ...]], domain: str, broken: str = "") -> tuple[Found, list[str]]:
    asked: list[str] = []
    walking = walk(domain)
    try:
        name = next(walking)
        while True:
            asked.append(name.removeprefix("_dmarc."))
            answer: Answer = zone.get(asked[-1], ())
            if asked[-1] == broken:
                answer = Failure(FailureKind.RESOLVER, Stage.RESOLVE, "SERVFAIL")
            name = walking.send(answer)
    except StopIteration as end:
        return end.value, asked


@pytest.mark.parametrize(
    ("text", "policy", "problems"),
    [
        ("v=DMARC1; p=none", "none", 0),
        ("v=DMARC1;p=reject;adkim=s;aspf=r;rua=mailto:a@b.test", "reject", 0),
        ("v = DMARC1 ; P = Quarantine ;", "quarantine", 0),
        ("v=DMARC1; p=none; pct=50; rf=afrf; ri=86400", "none", 3),
        ("v=DMARC1; rua=mailto:a@b.test", "none", 1),
        ("v=DMARC1; p=none; adkim=x", "none", 1),
        ("v=DMARC1; p=none; p=reject", "none", 1),
        ("v=DMARC1; p=none; nonsense", "none", 1),
        ("v=DMARC1; p=none; rua=reports@b.test", "none", 1),
        ("v=DMARC1; p=none; rua=mailto:a@b.test mailto:a@c.test", "none", 1),
        ("v=DMARC1; p=none; rua=mailto:a@b.test!10m , MAILTO:a@c.test", "none", 0),
    ],
)
def test_what_a_record_says(text: str, policy: str, problems: int) -> None:
    record = parse_record(text)
    assert record is not None
    assert (record.policy, len(record.problems)) == (policy, problems)


@pytest.mark.parametrize(
    ("rua", "hosts"),
    [
        ("mailto:a@b.test", ("b.test",)),
        ("mailto:a@B.test!10m, mailto:c@b.test.,mailto:a@c.test", ("b.test", "c.test")),
        ("https://b.test/in, a@c.test", ()),
        ("mailto:a", ()),
    ],
)
def test_whose_mailboxes_get_the_reports(rua: str, hosts: tuple[str, ...]) -> None:
    record = parse_record(f"v=DMARC1; p=none; rua={rua}")
    assert record is not None
    assert record.report_hosts == hosts


@pytest.mark.parametrize(
    ("texts", "said"),
    [(("v=DMARC1",), True), (("x", "v=DMARC1; rua=mailto:a@b.test"), True), (("v=spf1 -all",), False), ((), False)],
)
def test_who_wants_reports_of_others_says_so(texts: tuple[str, ...], said: bool) -> None:
    assert permits(texts) is said
    assert permission("a.test", "b.test") == "a.test._report._dmarc.b.test"


@pytest.mark.parametrize(
    "text", ["", "v=dmarc1; p=none", "p=none; v=DMARC1", "v=DMARC1", "v=DMARC1; p=maybe", "v=DMARC12"]
)
def test_what_receivers_ignore(text: str) -> None:
    assert parse_record(text) is None


NONE = ("v=DMARC1; p=none",)


@pytest.mark.parametrize(
    ("zone", "domain", "organisation", "at"),
    [
        ({"example.com": NONE}, "example.com", "example.com", "example.com"),
        ({"example.com": NONE}, "a.mail.example.com", "example.com", "example.com"),
        ({"example.com": NONE, "mail.example.com": NONE}, "mail.example.com", "example.com", "mail.example.com"),
        ({"mail.example.com": ("v=DMARC1; p=none; psd=n",), "example.com": NONE}, "a.mail.example.com",
         "mail.example.com", "mail.example.com"),
        ({"com": ("v=DMARC1; p=reject; psd=y",)}, "a.example.com", "example.com", "com"),
        ({}, "a.example.com", "a.example.com", ""),
    ],
)  # fmt: skip
def test_whose_record_applies_and_which_organisation_it_is(
    zone: dict[str, tuple[str, ...]], domain: str, organisation: str, at: str
) -> None:
    found, _ = run(zone, domain)
    assert (found.organisation, found.at) == (organisation, at)


def test_a_long_name_is_walked_in_eight_questions() -> None:
    _, asked = run({}, "a.b.c.d.e.f.g.h.i.j.mail.example.com")
    assert asked[0] == "a.b.c.d.e.f.g.h.i.j.mail.example.com"
    assert asked[1] == "g.h.i.j.mail.example.com".partition(".")[0] + ".h.i.j.mail.example.com"
    assert len(asked) == 8
    assert run({}, "a.b.c.d.e.f.example.com")[1][1] == "b.c.d.e.f.example.com"  # eight labels: seven are left


def test_two_records_a_wrong_one_and_trouble_are_told() -> None:
    assert "2 DMARC records" in run({"x.test": NONE * 2}, "x.test")[0].faults[0]
    assert "does not begin" in run({"x.test": ("V=DMARC1; p=none",)}, "x.test")[0].faults[0]
    assert "no policy" in run({"x.test": ("v=DMARC1; p=all",)}, "x.test")[0].faults[0]
    assert run({}, "x.test", broken="x.test")[0].trouble == "SERVFAIL"


def test_alignment_is_of_organisations_unless_it_is_strict() -> None:
    house = ("example.com", "example.com")
    assert aligned("example.com", "psrp.example.com", house, strict=False)
    assert not aligned("example.com", "psrp.example.com", house, strict=True)
    assert aligned("example.com", "example.com", house, strict=True)
    assert not aligned("example.com", "example.org", ("example.com", "example.org"), strict=False)


@given(st.text(max_size=80))
def test_rubbish_is_no_record(text: str) -> None:
    parse_record(text)
    parse_record(f"v=DMARC1; {text}")
    run({"x.test": (text, f"v=DMARC1; {text}")}, "x.test")
