"""MTA-STS records and policy files, as they should be and as they are."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.model.peertls import StsPolicy
from arkrelay.policy.mtasts import MAX_AGE_S, lines, listed, parse_policy, parse_record, wants_refresh

GOOD = b"version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n"


@pytest.mark.parametrize(
    ("texts", "id_"),
    [
        (["v=STSv1; id=20160831085700Z;"], "20160831085700Z"),  # RFC 8461 §3.1's own example
        (["v=STSv1;id=1"], "1"),
        (["v=STSv1 ; id=1 ; "], "1"),
        (["v=STSv1; a=b; id=1; c=d"], "1"),
        (["v=STSv1; id=1; id=2"], "1"),
        (["google-site-verification=x", "v=STSv1; id=1"], "1"),
        ([], None),
        (["v=spf1 -all"], None),
        (["v=STSv1"], None),
        (["v=STSv1; id="], None),
        (["v=STSv1; id=with-hyphen"], None),
        (["v=STSv1; id=" + "a" * 33], None),
        (["v=STSv10; id=1"], None),
        (["v=STSv1; id=1", "v=STSv1; id=2"], None),
        (["v=STSv1; id=1; rubbish"], None),
        (["id=1; v=STSv1"], None),
        (["v=stsv1; id=1"], None),
    ],
)
def test_a_record_counts_when_it_is_the_only_one_and_well_formed(texts: list[str], id_: str | None) -> None:
    assert parse_record(texts) == id_


def test_a_policy_is_read_as_its_domain_wrote_it() -> None:
    found = parse_policy(GOOD, "7", 1000.0)
    assert found == StsPolicy("7", "enforce", ("mail.example.com", "*.example.net"), 604800.0, 1000.0)
    assert found.expires_at == 605800.0
    assert "\r\n".join(lines(found)) + "\r\n" == GOOD.decode()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ((b"\r\n", b"\n"), ("enforce", 604800.0, 2)),
        ((b"max_age: 604800\r\n", b"max_age: 604800"), ("enforce", 604800.0, 2)),
        ((b"enforce", b"testing  "), ("testing", 604800.0, 2)),
        ((b"604800", b"9999999999"), ("enforce", float(MAX_AGE_S), 2)),
        ((b"604800", b"0"), ("enforce", 0.0, 2)),
        ((b"mode: enforce", b"mode: enforce\r\nmode: none"), ("enforce", 604800.0, 2)),
        ((b"mode: ", b"extra: 1\r\nmode:"), ("enforce", 604800.0, 2)),
        ((b"mx: mail.example.com", b"mx: MAIL.Example.com."), ("enforce", 604800.0, 2)),
    ],
)
def test_harmless_differences_are_taken(change: tuple[bytes, bytes], expected: tuple[str, float, int]) -> None:
    found = parse_policy(GOOD.replace(*change), "7", 0.0)
    assert (found.mode, found.max_age_s, len(found.mx)) == expected
    assert listed("mail.example.com", found)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ((b"STSv1", b"STSv2"), "version"),
        ((b"version: STSv1\r\n", b""), "version"),
        ((b"enforce", b"Enforce!"), "mode"),
        ((b"mode: enforce\r\n", b""), "mode"),
        ((b"604800", b"a week"), "max_age"),
        ((b"604800", b"-1"), "max_age"),
        ((b"max_age", b"age"), "max_age"),
        ((b"mx: mail.example.com\r\nmx: *.example.net\r\n", b""), "no host"),
        ((b"mail.example.com", b"10.0.0.1"), "mx"),
        ((b"*.example.net", b"*.*.example.net"), "mx"),
        ((b"*.example.net", b"mail.*.net"), "mx"),
        ((b"mode: enforce", b"<html>"), "colon"),
        ((b"enforce", b"\xff"), "UTF-8"),
    ],
)
def test_a_policy_that_cannot_be_understood_is_refused_as_a_whole(change: tuple[bytes, bytes], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_policy(GOOD.replace(*change), "7", 0.0)


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("mail.example.com", True),
        ("a.example.net", True),
        ("example.net", False),
        ("a.b.example.net", False),  # RFC 8461 §4.1: the wildcard is one label
        ("other.example.com", False),
        ("", False),
    ],
)
def test_a_wildcard_stands_for_one_label(host: str, found: bool) -> None:
    assert listed(host, parse_policy(GOOD, "7", 0.0)) is found


@given(st.binary(max_size=300))
def test_whatever_a_policy_host_says_it_is_a_policy_or_a_value_error(body: bytes) -> None:
    for text in (body, GOOD + body, body + GOOD):
        with contextlib.suppress(ValueError):
            assert parse_policy(text, "7", 0.0).mode in {"enforce", "testing", "none"}


@given(st.lists(st.text(max_size=60), max_size=3))
def test_whatever_is_in_dns_it_is_an_id_or_none(texts: list[str]) -> None:
    for some in (texts, [f"v=STSv1; {text}" for text in texts]):
        found = parse_record(some)
        assert found is None or found.isalnum()


def test_a_policy_is_fetched_again_after_a_day_or_half_its_life() -> None:
    long, short = StsPolicy("1", "enforce", ("a.test",), 1e6, 0.0), StsPolicy("1", "enforce", ("a.test",), 600.0, 0.0)
    assert not wants_refresh(long, 86399.0)
    assert wants_refresh(long, 86400.0)
    assert not wants_refresh(short, 299.0)
    assert wants_refresh(short, 300.0)
