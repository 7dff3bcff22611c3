"""Each form of the records is read back by a program of its own kind, and says the same."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dns.rdatatype
import dns.zone
import hcl2
import pytest
import yaml
from dns.rdtypes.ANY.TXT import TXT
from hypothesis import given
from hypothesis import strategies as st

from arkrelay.policy.records import Record, merged_spf, wanted
from arkrelay.policy.zoneforms import (
    Entry,
    Sheet,
    bind,
    cloudflare,
    octodns,
    quoted,
    relative,
    route53,
    sheet_of,
    sheet_of_machine,
    strings_of,
    terraform_cloudflare,
    terraform_route53,
)

LONG = "v=DKIM1; k=rsa; t=s; p=" + "A" * 392
SPF = "v=spf1 a mx include:spf.relay.test ~all"
SHEET = sheet_of(wanted("mail.example.com", [("ark-xyz", LONG)], "spf.relay.test", "rp.relay.test"))
APEX = sheet_of(wanted("example.com", [("ark-xyz", LONG)], "spf.relay.test", "rp.relay.test"), "d@example.com")
MACHINE = sheet_of_machine(
    "example.com", "relay.example.com", "spf.example.com", "rp.example.com", "track.example.com",
    [("relay.example.com", "192.0.2.1"), ("bulk.example.com", "2001:db8::1")],
)  # fmt: skip
SOA = "example.com. 60 IN SOA ns.example.com. a.example.com. 1 2 3 4 5\nexample.com. 60 IN NS ns.example.com.\n"
GLUE = "ns.example.com. 60 IN A 192.0.2.53\n"


def facts(sheet: Sheet) -> set[tuple[str, str, str]]:
    return {(one.record.full_name, one.record.type, one.record.value) for one in sheet.entries}


def read_zone(text: str) -> set[tuple[str, str, str]]:
    zone = dns.zone.from_text(text, origin="example.com", relativize=False, check_origin=False)
    found = set()
    for name, _, record in zone.iterate_rdatas():
        kind = dns.rdatatype.to_text(record.rdtype)
        value = b"".join(record.strings).decode() if isinstance(record, TXT) else record.to_text().removesuffix(".")
        found.add((name.to_text(omit_final_dot=True), kind, value))
    return found


def joined(text: str) -> str:
    """Return a TXT in quotes as a name server reads it."""
    parts = re.findall(r'"((?:[^"\\]|\\.)*)"', text)
    assert all(len(part) <= 255 for part in parts)
    return re.sub(r"\\(.)", r"\1", "".join(parts))


@pytest.mark.parametrize("sheet", [SHEET, APEX, MACHINE])
def test_a_name_server_reads_zone_lines_back(sheet: Sheet) -> None:
    assert read_zone(bind(sheet)) == facts(sheet)
    assert read_zone(cloudflare(sheet)) == facts(sheet)


@pytest.mark.parametrize("sheet", [SHEET, APEX, MACHINE])
def test_bind_itself_takes_the_lines(sheet: Sheet, tmp_path: Path, need: Callable[[str], Path]) -> None:
    file = tmp_path / "zone"
    file.write_text(SOA + GLUE + bind(sheet))
    done = subprocess.run([need("named-checkzone"), "example.com", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_names_are_relative_to_the_zone_and_absolute_outside_of_it() -> None:
    assert [relative(name, "example.com") for name in ("example.com", "a.example.com", "a.example.org")] == [
        "@",
        "a",
        "a.example.org.",
    ]
    other = sheet_of(wanted("mail.example.com", [], "spf.relay.test", "rp.relay.test", "mail.example.com"))
    assert [one.record.name for one in other.entries] == ["@", "psrp", "_dmarc"]


def test_route_53_gets_sets_and_never_replaces_others_txt() -> None:
    batch = json.loads(route53(APEX))
    found = set()
    for change in batch["Changes"]:
        one = change["ResourceRecordSet"]
        for record in one["ResourceRecords"]:
            value = joined(record["Value"]) if one["Type"] == "TXT" else record["Value"].removesuffix(".")
            found.add((one["Name"].removesuffix("."), one["Type"], value))
        shared = one["Type"] == "TXT" and one["Name"] == "example.com."
        assert change["Action"] == ("CREATE" if shared else "UPSERT")
    assert found == facts(APEX)
    names = [(one["ResourceRecordSet"]["Name"], one["ResourceRecordSet"]["Type"]) for one in batch["Changes"]]
    assert len(names) == len(set(names))


def plain(value: Any) -> str:
    """Return a string as HCL means it, whether the parser kept its quotes or not."""
    text = str(value)
    if text.startswith('"') and text.endswith('"') and len(text) > 1:
        text = json.loads(text)
    return text.replace("$${", "${").replace("%%{", "%{")


def resources(text: str, kind: str) -> list[dict[str, Any]]:
    found = []
    for block in hcl2.loads(text)["resource"]:
        for label, named in block.items():
            assert label.strip('"') == kind
            found += list(named.values())
    return found


@pytest.mark.parametrize("sheet", [SHEET, APEX, MACHINE])
def test_terraform_reads_its_forms_back(sheet: Sheet) -> None:
    aws = set()
    for one in resources(terraform_route53(sheet), "aws_route53_record"):
        kind, name = plain(one["type"]), plain(one["name"])
        for value in one["records"]:
            text = plain(value)
            text = "".join(text.split('""')) if kind == "TXT" else text.removesuffix(".")
            aws.add((name, kind, text))
    assert aws == facts(sheet)
    found = set()
    for one in resources(terraform_cloudflare(sheet), "cloudflare_dns_record"):
        kind, content = plain(one["type"]), plain(one["content"])
        if kind == "TXT":
            content = joined(content)
        if kind == "MX":
            content = f"{one['priority']} {content}"
        if kind in {"A", "AAAA", "CNAME"}:
            assert one["proxied"] is False
        found.add((plain(one["name"]), kind, content))
    assert found == facts(sheet)


@pytest.mark.parametrize("sheet", [SHEET, APEX, MACHINE])
def test_octodns_reads_its_form_back(sheet: Sheet) -> None:
    found = set()
    for name, sets in yaml.safe_load(octodns(sheet)).items():
        full = f"{name}.{sheet.zone}" if name else sheet.zone
        for one in sets:
            for value in one["values"]:
                said = f"{value['preference']} {value['exchange']}" if isinstance(value, dict) else value
                assert one["type"] != "TXT" or ";" not in said.replace("\\;", "")
                text = said.replace("\\;", ";") if one["type"] == "TXT" else said.removesuffix(".")
                found.add((full, one["type"], text))
    assert found == facts(sheet)


def test_the_machine_gets_one_spf_record_for_each_of_its_names() -> None:
    texts = [one.record for one in MACHINE.entries if one.record.type == "TXT"]
    assert {one.value for one in texts} == {"v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 -all"}
    assert [one.full_name.partition(".")[0] for one in texts] == ["relay", "bulk", "spf", "rp"]
    assert ("bulk.example.com", "AAAA", "2001:db8::1") in facts(MACHINE)
    name = "relay.example.com"
    alone = sheet_of_machine("example.com", name, name, name, name, [])
    assert [one.record.type for one in alone.entries] == ["TXT", "MX"]


@given(st.text(min_size=1, max_size=700).filter(lambda text: text.isascii() and text.isprintable()))
def test_any_text_survives_every_form(text: str) -> None:
    record = Record("TXT", "x", "x.example.com", text)
    sheet = Sheet("example.com", (Entry(record),))
    assert "".join(strings_of(text)) == text
    assert joined(quoted(text)) == text
    assert read_zone(bind(sheet)) == facts(sheet)
    value = json.loads(route53(sheet))["Changes"][0]["ResourceRecordSet"]["ResourceRecords"][0]["Value"]
    assert joined(value) == text
    (one,) = yaml.safe_load(octodns(sheet))["x"][0]["values"]
    assert one == text.replace(";", "\\;")


@pytest.mark.parametrize(
    ("published", "merged"),
    [
        ("v=spf1 mx -all", "v=spf1 mx include:spf.relay.test -all"),
        ("v=spf1", "v=spf1 include:spf.relay.test"),
        ("v=spf1 a redirect=x.test", "v=spf1 a include:spf.relay.test redirect=x.test"),
        ("v=spf1 -all include:spf.relay.test", "v=spf1 include:spf.relay.test -all"),
        ("v=spf1 -include:spf.relay.test ?all", "v=spf1 include:spf.relay.test ?all"),
    ],
)
def test_our_include_goes_into_a_record_that_is_there(published: str, merged: str) -> None:
    assert merged_spf(published, Record("TXT", "@", "example.com", SPF)) == merged
