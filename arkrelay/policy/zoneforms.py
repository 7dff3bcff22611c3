"""DNS records in the forms that people and programs take: a zone file, Terraform, octoDNS, Cloudflare, Route 53.

A TXT is strings of at most 255 octets (RFC 1035 §3.3.14), and every form wants them otherwise: side by side in
quotes, joined by two quotes, or whole, to be split by who reads it. Names are relative to the zone where the form has
an origin, and absolute elsewhere. The record of Route 53 and octoDNS is the whole set of a name and type, so what
stands beside ours would be lost; where that can be, the form says so.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from arkrelay.policy.records import DEFAULT_TTL_S, TXT_STRING_MAX, Record, RecordSet

SHARED = "other TXT records of this name belong into the same set: add them here"


@dataclass(frozen=True, slots=True)
class Entry:
    """One record to publish. ``optional``: mail goes without it; ``shared``: others' TXT may stand at its name."""

    record: Record  # its value without quotes and final dots; of an MX "preference host"
    optional: bool = False
    shared: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """What is to be published in one zone."""

    zone: str
    entries: tuple[Entry, ...]
    ttl_s: int = DEFAULT_TTL_S


def sheet_of(records: RecordSet, report_to: str = "") -> Sheet:
    """Return what a sender domain needs, with a DMARC record as a recommendation; ``report_to`` gets its reports."""
    name = f"_dmarc.{records.domain}"
    policy = f"v=DMARC1; p=none; rua=mailto:{report_to}" if report_to else "v=DMARC1; p=none"
    dmarc = Record("TXT", relative(name, records.zone), name, policy)
    return Sheet(
        records.zone,
        (
            Entry(records.spf, shared=True),
            *(Entry(key) for key in records.dkim),
            Entry(records.return_path),
            Entry(dmarc, optional=True, note="recommended: large receivers demand it of who sends much"),
        ),
    )


def sheet_of_machine(
    zone: str,
    hostname: str,
    spf_host: str,
    return_path_host: str,
    track_host: str,
    addresses: Sequence[tuple[str, str]],
) -> Sheet:
    """Return what the names of the relay itself need; ``addresses`` are those that mail leaves from, by EHLO name.

    A name that does two jobs gets one SPF record.
    """
    terms = " ".join(f"ip{6 if ':' in one else 4}:{one}" for _, one in addresses)
    spf = f"v=spf1 {terms} -all" if terms else "v=spf1 a -all"
    named = dict.fromkeys((hostname, *(name for name, _ in addresses), spf_host, return_path_host))
    wanted = [("AAAA" if ":" in one else "A", name, one) for name, one in addresses]
    wanted += [("TXT", name, spf) for name in named]
    wanted += [("MX", return_path_host, f"10 {hostname}")]
    wanted += [("CNAME", track_host, hostname)] if track_host not in named else []
    return Sheet(
        zone,
        tuple(
            Entry(
                Record(kind, relative(name, zone), name, value),
                optional=kind == "CNAME",
                note="for links and pixels" if kind == "CNAME" else "",
            )
            for kind, name, value in wanted
        ),
    )


def relative(full_name: str, zone: str) -> str:
    """Return the name below ``zone``, "@" for the zone itself; one that is outside of it ends with a dot."""
    if full_name == zone:
        return "@"
    below = full_name.removesuffix(f".{zone}")
    return below if below != full_name else f"{full_name}."


def strings_of(text: str) -> list[str]:
    """Return a TXT as its strings of at most 255 octets."""
    raw = text.encode()
    return [
        raw[start : start + TXT_STRING_MAX].decode("utf-8", "replace") for start in range(0, len(raw), TXT_STRING_MAX)
    ] or [""]


def quoted(text: str) -> str:
    """Return a TXT as zone files have it: its strings in quotes, side by side."""
    return " ".join('"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"' for part in strings_of(text))


def data_of(record: Record) -> str:
    """Return the data of a record as zone files have it, names with their final dot."""
    match record.type:
        case "TXT":
            return quoted(record.value)
        case "CNAME" | "MX":
            return f"{record.value}."
    return record.value


def bind(sheet: Sheet) -> str:
    """Return lines of a zone file (RFC 1035 §5.1)."""
    lines = [f"$ORIGIN {sheet.zone}."]
    for entry in sheet.entries:
        lines += [f"; {entry.note}"] if entry.note else []
        record = entry.record
        lines.append(f"{record.name} {sheet.ttl_s} IN {record.type} {data_of(record)}")
    return "\n".join(lines) + "\n"


def cloudflare(sheet: Sheet) -> str:
    """Return a zone file for Cloudflare's import, with absolute names; a proxied CNAME would not be one any more."""
    lines = [
        f"; Cloudflare: DNS, Records, Import and Export; leave Proxy imported DNS records off. Zone {sheet.zone}"
    ]
    for entry in sheet.entries:
        record = entry.record
        tag = " ; cf_tags=cf-proxied:false" if record.type in {"A", "AAAA", "CNAME"} else ""
        lines.append(f"{record.full_name}. {sheet.ttl_s} IN {record.type} {data_of(record)}{tag}")
    return "\n".join(lines) + "\n"


def route53(sheet: Sheet) -> str:
    """Return a change batch for ``aws route53 change-resource-record-sets``, one set for each name and type.

    A set with a TXT beside which others may stand is created and never replaced: it fails where there is one.
    """
    changes = [
        {
            "Action": "CREATE" if any(entry.shared for entry in entries) else "UPSERT",
            "ResourceRecordSet": {
                "Name": f"{name}.",
                "Type": kind,
                "TTL": sheet.ttl_s,
                "ResourceRecords": [{"Value": data_of(entry.record)} for entry in entries],
            },
        }
        for (name, kind), entries in _sets(sheet).items()
    ]
    comment = f"arkrelay: mail of {sheet.zone}. CREATE fails where TXT records exist: {SHARED}"
    return json.dumps({"Comment": comment, "Changes": changes}, indent=2) + "\n"


def terraform_route53(sheet: Sheet) -> str:
    """Return resources of the hashicorp/aws provider; the zone's id is the variable ``zone_id``."""
    blocks = [_variable("aws_route53_zone", sheet)]
    for (name, kind), entries in _sets(sheet).items():
        comment = f"  # {SHARED}\n" if any(entry.shared for entry in entries) else ""
        values = ", ".join(_hcl(_joined(entry.record)) for entry in entries)
        blocks.append(
            f'resource "aws_route53_record" "{_label(name, kind)}" {{\n{comment}'
            f"  zone_id = var.zone_id\n  name    = {_hcl(name)}\n  type    = {_hcl(kind)}\n"
            f"  ttl     = {sheet.ttl_s}\n  records = [{values}]\n}}\n"
        )
    return "\n".join(blocks)


def terraform_cloudflare(sheet: Sheet) -> str:
    """Return resources of the cloudflare/cloudflare provider, version 5, one for each record."""
    blocks = [_variable("cloudflare_zone", sheet)]
    for number, entry in enumerate(sheet.entries):
        record = entry.record
        preference, _, host = record.value.partition(" ")
        content = {"TXT": quoted(record.value), "MX": host}.get(record.type, record.value)
        more = f"  priority = {preference}\n" if record.type == "MX" else ""
        more += "  proxied  = false\n" if record.type in {"A", "AAAA", "CNAME"} else ""
        blocks.append(
            f'resource "cloudflare_dns_record" "{_label(record.full_name, record.type)}_{number}" {{\n'
            f"  zone_id  = var.zone_id\n  name     = {_hcl(record.full_name)}\n  type     = {_hcl(record.type)}\n"
            f"  ttl      = {sheet.ttl_s}\n  content  = {_hcl(content)}\n{more}}}\n"
        )
    return "\n".join(blocks)


def octodns(sheet: Sheet) -> str:
    """Return entries for the zone's YAML file of octoDNS; it splits TXT itself and wants each ";" escaped."""
    lines = ["---", f"# entries for the file of {sheet.zone}: merge them, since octoDNS removes what is not in it"]
    names: dict[str, list[tuple[str, list[Entry]]]] = {}
    for (full_name, kind), entries in _sets(sheet).items():
        names.setdefault(relative(full_name, sheet.zone), []).append((kind, entries))
    for name, sets in names.items():
        lines.append(f"{_yaml('' if name == '@' else name)}:")
        for kind, entries in sets:
            lines += [f"  # {SHARED}"] if any(entry.shared for entry in entries) else []
            lines += [f"  - type: {kind}", f"    ttl: {sheet.ttl_s}", "    values:"]
            for entry in entries:
                lines += _octodns_value(entry.record)
    return "\n".join(lines) + "\n"


def _octodns_value(record: Record) -> list[str]:
    match record.type:
        case "TXT":
            escaped = record.value.replace(";", "\\;")
            return [f"      - {_yaml(escaped)}"]
        case "MX":
            preference, _, host = record.value.partition(" ")
            return [f"      - preference: {preference}", f"        exchange: {_yaml(host + '.')}"]
        case "CNAME":
            return [f"      - {_yaml(record.value + '.')}"]
    return [f"      - {_yaml(record.value)}"]


TEXT_FORMS: Mapping[str, Callable[[Sheet], str]] = MappingProxyType(
    {
        "bind": bind,
        "terraform": terraform_route53,
        "octodns": octodns,
        "cloudflare": cloudflare,
        "route53": route53,
    }
)


def _sets(sheet: Sheet) -> dict[tuple[str, str], list[Entry]]:
    found: dict[tuple[str, str], list[Entry]] = {}
    for entry in sheet.entries:
        found.setdefault((entry.record.full_name, entry.record.type), []).append(entry)
    return found


def _variable(what: str, sheet: Sheet) -> str:
    return f'variable "zone_id" {{\n  type        = string\n  description = "The {what} of {sheet.zone}"\n}}\n'


def _joined(record: Record) -> str:
    """Return the data for Route 53's provider, which quotes a TXT itself and splits it only where it is told."""
    return '""'.join(strings_of(record.value)) if record.type == "TXT" else data_of(record)


def _label(name: str, kind: str) -> str:
    return "arkrelay_" + re.sub(r"[^a-z0-9]+", "_", f"{name} {kind}".lower()).strip("_")


def _hcl(text: str) -> str:
    """Return a string of HCL; "${" and "%{" would begin a template there."""
    return json.dumps(text).replace("${", "$${").replace("%{", "%%{")


def _yaml(text: str) -> str:
    """Return a single-quoted scalar of YAML, in which nothing but the quote is special."""
    return "'" + text.replace("'", "''") + "'"
