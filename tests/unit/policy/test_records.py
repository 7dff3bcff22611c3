"""Which records a domain needs, and how what DNS has is judged."""

import dns.rdatatype
import dns.zone
import pytest
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.ANY.TXT import TXT
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.model.domain import DnsStatus
from arkrelay.model.reply import Failure, FailureKind, Stage
from arkrelay.policy.records import (
    Answer,
    Found,
    RecordSet,
    Verdicts,
    judge,
    judge_alias,
    render_json,
    render_rows,
    wanted,
    wanted_alias,
)
from arkrelay.policy.zoneforms import bind, sheet_of

KEY = "v=DKIM1; k=rsa; t=s; p=MIIBIjANBgkq+/AB=="
ED_KEY = "v=DKIM1; k=ed25519; t=s; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
SPF = "v=spf1 a mx include:spf.relay.test ~all"
RECORDS = wanted("example.com", [("ark-xyz", KEY)], "spf.relay.test", "rp.relay.test")
FAILED = Failure(FailureKind.RESOLVER, Stage.RESOLVE, "timeout")
DKIM_NAME = "ark-xyz._domainkey.example.com"


def found(
    spf: Answer = (SPF,),
    dkim: Answer = (KEY,),
    return_path: Answer = ("rp.relay.test",),
) -> Found:
    return Found(spf, {DKIM_NAME: dkim}, return_path)


@pytest.mark.parametrize(
    ("domain", "zone", "spf", "dkim", "return_path"),
    [
        ("example.com", "example.com", "@", "ark-xyz._domainkey", "psrp"),
        ("mail.example.com", "example.com", "mail", "ark-xyz._domainkey.mail", "psrp.mail"),
        ("example.co.uk", "example.co.uk", "@", "ark-xyz._domainkey", "psrp"),
        ("a.b.example.co.uk", "example.co.uk", "a.b", "ark-xyz._domainkey.a.b", "psrp.a.b"),
    ],
)
def test_names_are_relative_to_the_zone(domain: str, zone: str, spf: str, dkim: str, return_path: str) -> None:
    records = wanted(domain, [("ark-xyz", KEY)], "spf.relay.test", "rp.relay.test")
    assert records.zone == zone
    assert [record.name for record in records.all] == [spf, dkim, return_path]
    assert [record.full_name for record in records.all] == [
        domain,
        f"ark-xyz._domainkey.{domain}",
        f"psrp.{domain}",
    ]
    assert [record.type for record in records.all] == ["TXT", "TXT", "CNAME"]
    assert [record.value for record in records.all] == [SPF, KEY, "rp.relay.test"]


def test_what_we_ask_for_is_what_we_accept() -> None:
    verdicts = judge(RECORDS, found())
    assert verdicts.verified
    assert [verdicts.spf.error, verdicts.dkim.error, verdicts.return_path.error] == [None, None, None]


@pytest.mark.parametrize(
    ("texts", "status", "error"),
    [
        pytest.param([SPF], DnsStatus.OK, "", id="ours"),
        pytest.param(["x=y", SPF, "google-site-verification=1"], DnsStatus.OK, "", id="beside-other-texts"),
        pytest.param(["V=SPF1 INCLUDE:SPF.Relay.TEST -ALL"], DnsStatus.OK, "", id="any-case"),
        pytest.param(["v=spf1 +include:spf.relay.test. -all"], DnsStatus.OK, "", id="plus-and-final-dot"),
        pytest.param(["v=spf1 ip4:192.0.2.1   include:spf.relay.test ?all"], DnsStatus.OK, "", id="merged"),
        pytest.param([], DnsStatus.MISSING, "publish", id="nothing"),
        pytest.param(["v=spf10 include:spf.relay.test"], DnsStatus.MISSING, "no SPF", id="another-version"),
        pytest.param(["include:spf.relay.test"], DnsStatus.MISSING, "no SPF", id="no-version"),
        pytest.param(["v=spf1 a mx -all"], DnsStatus.INVALID, "lacks", id="without-us"),
        pytest.param(["v=spf1"], DnsStatus.INVALID, "lacks", id="empty"),
        pytest.param(["v=spf1 include:spf.relay.test.evil -all"], DnsStatus.INVALID, "lacks", id="longer-name"),
        pytest.param(["v=spf1 -include:spf.relay.test ~all"], DnsStatus.INVALID, "lacks", id="refused"),
        pytest.param(["v=spf1 -all include:spf.relay.test"], DnsStatus.INVALID, "behind", id="never-reached"),
        pytest.param([SPF, "v=spf1 -all"], DnsStatus.INVALID, "merge", id="two-records"),
        pytest.param([SPF, SPF], DnsStatus.INVALID, "merge", id="twice-the-same"),
        pytest.param(
            ["v=spf1 \x1b[31m" + "x" * 500], DnsStatus.INVALID, "?[31mxx", id="a-hostile-one-is-shown-safely"
        ),
        pytest.param(FAILED, None, "timeout", id="could-not-be-asked"),
    ],
)
def test_spf(texts: Answer, status: DnsStatus | None, error: str) -> None:
    verdict = judge(RECORDS, found(spf=texts)).spf
    assert verdict.status is status
    check_error(verdict.error, error)


@pytest.mark.parametrize(
    ("texts", "status", "error"),
    [
        pytest.param([KEY], DnsStatus.OK, "", id="ours"),
        pytest.param(["p=MIIBIjANBgkq+/AB==;t=s;k=rsa;v=DKIM1;"], DnsStatus.OK, "", id="other-order"),
        pytest.param(["v = DKIM1 ;\tp= MIIBIj ANBgkq+\r\n /AB== ;"], DnsStatus.OK, "", id="white-space-and-no-k"),
        pytest.param(["p=MIIBIjANBgkq+/AB=="], DnsStatus.OK, "", id="only-the-key"),
        pytest.param([KEY + "; h=sha1:sha256; s=email; n=note"], DnsStatus.OK, "", id="more-tags"),
        pytest.param([], DnsStatus.MISSING, DKIM_NAME, id="nothing"),
        pytest.param([KEY, KEY], DnsStatus.INVALID, "2 TXT", id="two"),
        pytest.param(["v=DKIM1; k=rsa; p=AAAA"], DnsStatus.INVALID, "another key", id="another-key"),
        pytest.param([KEY.lower()], DnsStatus.INVALID, "no DKIM", id="the-case-of-v-counts"),
        pytest.param([KEY.replace("MIIB", "miib")], DnsStatus.INVALID, "another key", id="the-case-of-p-counts"),
        pytest.param([ED_KEY], DnsStatus.INVALID, "another kind", id="another-algorithm"),
        pytest.param(["v=DKIM1; p="], DnsStatus.INVALID, "revoked", id="revoked"),
        pytest.param(["v=DKIM2; p=MIIBIjANBgkq+/AB=="], DnsStatus.INVALID, "no DKIM", id="another-version"),
        pytest.param([KEY.replace("t=s", "t=s:y")], DnsStatus.INVALID, "t=y", id="testing"),
        pytest.param([KEY + "; h=sha1"], DnsStatus.INVALID, "sha256", id="sha1-only"),
        pytest.param([KEY + "; s=other"], DnsStatus.INVALID, "email", id="another-service"),
        pytest.param([KEY + "; p=MIIBIjANBgkq+/AB=="], DnsStatus.INVALID, "no DKIM", id="a-tag-twice"),
        pytest.param(["v=spf1 -all"], DnsStatus.INVALID, "no DKIM", id="something-else"),
        pytest.param([";;;"], DnsStatus.INVALID, "no DKIM", id="no-tags"),
        pytest.param(["just text"], DnsStatus.INVALID, "no DKIM", id="no-list"),
        pytest.param(FAILED, None, "timeout", id="could-not-be-asked"),
    ],
)
def test_dkim(texts: Answer, status: DnsStatus | None, error: str) -> None:
    verdict = judge(RECORDS, found(dkim=texts)).dkim
    assert verdict.status is status
    check_error(verdict.error, error)


@pytest.mark.parametrize(
    ("targets", "status", "error"),
    [
        pytest.param(["rp.relay.test"], DnsStatus.OK, "", id="ours"),
        pytest.param(["RP.Relay.Test."], DnsStatus.OK, "", id="case-and-final-dot"),
        pytest.param([], DnsStatus.MISSING, "psrp.example.com", id="nothing"),
        pytest.param(["rp.arkhq.io"], DnsStatus.INVALID, "rp.arkhq.io", id="somewhere-else"),
        pytest.param(["rp.relay.test.example.com"], DnsStatus.INVALID, "with a dot", id="zone-appended"),
        pytest.param(["rp.relay.test", "rp.relay.test"], DnsStatus.INVALID, "", id="two"),
        pytest.param(FAILED, None, "timeout", id="could-not-be-asked"),
    ],
)
def test_return_path(targets: Answer, status: DnsStatus | None, error: str) -> None:
    verdict = judge(RECORDS, found(return_path=targets)).return_path
    assert verdict.status is status
    check_error(verdict.error, error)


def check_error(said: str | None, part: str) -> None:
    assert part in (said or "")
    assert said is None or (said.isprintable() and len(said) < 300)


@pytest.mark.parametrize("part", ["spf", "dkim", "return_path"])
def test_one_part_that_is_not_ok_is_not_verified(part: str) -> None:
    assert not judge(RECORDS, found(**{part: ()})).verified
    assert not judge(RECORDS, found(**{part: FAILED})).verified


def test_a_domain_without_a_key_is_not_verified() -> None:
    records = wanted("example.com", [], "spf.relay.test", "rp.relay.test")
    verdicts = judge(records, found())
    assert verdicts.dkim.status is DnsStatus.MISSING
    assert not verdicts.verified
    assert list(render_json(records, verdicts)) == ["zone", "spf", "returnPath"]


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        ((KEY,), (ED_KEY,), DnsStatus.OK),
        ((KEY,), (), DnsStatus.MISSING),
        ((KEY,), FAILED, None),
        ((), FAILED, DnsStatus.MISSING),
        ((), ("rubbish",), DnsStatus.INVALID),
    ],
)
def test_of_several_keys_the_worst_counts(first: Answer, second: Answer, status: DnsStatus | None) -> None:
    records, verdicts = two_keys(first, second)
    assert verdicts.dkim.status is status
    assert [row[0] for row in render_rows(records)] == ["TXT", "TXT", "TXT", "CNAME"]


def two_keys(first: Answer, second: Answer) -> tuple[RecordSet, Verdicts]:
    records = wanted("example.com", [("one", KEY), ("two", ED_KEY)], "spf.relay.test", "rp.relay.test")
    dkim = {"one._domainkey.example.com": first, "two._domainkey.example.com": second}
    return records, judge(records, Found((SPF,), dkim, ("rp.relay.test",)))


def test_rows_show_status_and_error() -> None:
    rows = render_rows(RECORDS, judge(RECORDS, found(spf=(), dkim=FAILED)))
    assert [(row[1], row[3]) for row in rows] == [("@", "Missing"), ("ark-xyz._domainkey", ""), ("psrp", "OK")]
    assert "publish" in rows[0][4]
    assert [row[3:] for row in render_rows(RECORDS)] == [("", "")] * 3


def test_json_is_the_shape_of_rest() -> None:
    shaped = render_json(RECORDS, judge(RECORDS, found(return_path=())))
    assert list(shaped) == ["zone", "spf", "dkim", "returnPath"]
    assert shaped["zone"] == "example.com"
    assert shaped["returnPath"] == {
        "type": "CNAME",
        "name": "psrp",
        "fullName": "psrp.example.com",
        "value": "rp.relay.test",
        "status": "Missing",
    }
    assert render_json(RECORDS)["spf"]["status"] is None
    records, verdicts = two_keys((KEY,), ())
    assert [key["status"] for key in render_json(records, verdicts)["dkimKeys"]] == ["OK", "Missing"]


@pytest.mark.parametrize(
    ("full_name", "name"), [("track.example.com", "track"), ("go.mail.example.co.uk", "go.mail")]
)
def test_a_track_domain_is_an_alias_of_the_track_host(full_name: str, name: str) -> None:
    record = wanted_alias(full_name, "track.relay.test")
    assert (record.type, record.name, record.full_name, record.value) == (
        "CNAME", name, full_name, "track.relay.test",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("targets", "status", "error"),
    [
        (("track.relay.test.",), DnsStatus.OK, ""),
        (("Track.RELAY.test",), DnsStatus.OK, ""),
        ((), DnsStatus.MISSING, "no CNAME record at track.example.com: point it to track.relay.test"),
        (("elsewhere.test",), DnsStatus.INVALID, "points to elsewhere.test, not to track.relay.test"),
        (("track.relay.test.example.com",), DnsStatus.INVALID, "end the target with a dot"),
        (Failure(FailureKind.RESOLVER, Stage.RESOLVE, "SERVFAIL"), None, "SERVFAIL"),
    ],
)
def test_an_alias_is_judged_by_where_it_points(targets: Answer, status: DnsStatus | None, error: str) -> None:
    verdict = judge_alias(wanted_alias("track.example.com", "track.relay.test"), targets)
    assert verdict.status == status
    assert error in (verdict.error or "")


@pytest.mark.parametrize("domain", ["example.com", "mail.example.co.uk"])
def test_a_name_server_reads_back_what_the_zone_lines_say(domain: str) -> None:
    long_key = "v=DKIM1; k=rsa; p=" + "A" * 600
    records = wanted(domain, [("ark-xyz", long_key)], "spf.relay.test", "rp.relay.test")
    text = bind(sheet_of(records))
    assert f"$ORIGIN {records.zone}." in text
    zone = dns.zone.from_text(text, origin=records.zone, relativize=False, check_origin=False)
    texts = {
        name.to_text(omit_final_dot=True): b"".join(record.strings).decode()
        for name, _, record in zone.iterate_rdatas(dns.rdatatype.TXT)
        if isinstance(record, TXT)
    }
    assert texts == {domain: SPF, f"ark-xyz._domainkey.{domain}": long_key, f"_dmarc.{domain}": "v=DMARC1; p=none"}
    aliases = {
        name.to_text(omit_final_dot=True): record.target.to_text()
        for name, _, record in zone.iterate_rdatas(dns.rdatatype.CNAME)
        if isinstance(record, CNAME)
    }
    assert aliases == {f"psrp.{domain}": "rp.relay.test."}
    assert all(len(part) <= 255 for part in text.split('"')[1::2])


@given(texts=st.lists(st.text(), max_size=3))
def test_nothing_that_dns_may_hold_raises(texts: list[str]) -> None:
    verdicts = judge(RECORDS, found(texts, texts, texts))
    for verdict in (verdicts.spf, verdicts.dkim, verdicts.return_path):
        assert (verdict.error is None) == (verdict.status is DnsStatus.OK)
        assert verdict.error is None or verdict.error.isprintable()
    assert not verdicts.verified


@given(value=st.text(min_size=1).filter(lambda text: text.isascii() and text.isprintable()))
def test_any_text_survives_a_zone_file(value: str) -> None:
    records = wanted("example.com", [("s", value)], "spf.relay.test", "rp.relay.test")
    zone = dns.zone.from_text(bind(sheet_of(records)), origin="example.com", relativize=False, check_origin=False)
    record = zone.get_rdataset("s._domainkey.example.com.", "TXT")
    assert record is not None
    assert b"".join(record[0].strings).decode() == value
