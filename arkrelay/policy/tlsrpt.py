"""TLS reports (RFC 8460): who wants them, and what is in them."""

import json
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from arkrelay.model.address import AddressError, parse_mailbox
from arkrelay.model.tlsreport import DAY_S, Report, Session, when

MAX_RECEIVERS = 5  # of one domain; RFC 8460 §3 leaves the number open
POLICIES = 100  # shown in one report, and DETAILS under each: hosts without number are nobody's report
DETAILS = 200


def parse_record(texts: Sequence[str]) -> tuple[str, ...]:
    """Return where ``_smtp._tls.<domain>`` wants reports: "mailto:" addresses bare, and https URLs; () for nowhere.

    Two records that begin like ours are as good as none (RFC 8460 §3).
    """
    records = [text for text in texts if text.partition(";")[0].strip() == "v=TLSRPTv1"]
    if len(records) != 1:
        return ()
    for field in records[0].split(";")[1:]:
        key, _, value = field.strip().partition("=")
        if key.strip() == "rua":
            found = (_receiver(one.strip()) for one in value.split(","))
            return tuple(one for one in found if one)[:MAX_RECEIVERS]
    return ()


def render(report: Report, sessions: Iterable[Session]) -> bytes:
    """Return the report as JSON (RFC 8460 §4.4)."""
    policies: dict[tuple[str, str], list[Session]] = {}
    for one in sessions:
        policies.setdefault((one.policy, one.said), []).append(one)
    shown = [_policy(report, kind, said, group) for (kind, said), group in list(policies.items())[:POLICIES]]
    body = {
        "organization-name": report.organisation,
        "date-range": {"start-datetime": when(report.day), "end-datetime": when(report.day + DAY_S - 1)},
        "contact-info": report.contact,
        "report-id": report.id,
        "policies": shown,
    }
    return json.dumps(body, indent=1).encode()


def _policy(report: Report, kind: str, said: str, sessions: Sequence[Session]) -> dict[str, Any]:
    lines: list[str] = json.loads(said)
    policy: dict[str, Any] = {"policy-type": kind, "policy-string": lines, "policy-domain": report.domain}
    patterns = [line.removeprefix("mx: ") for line in lines if kind == "sts" and line.startswith("mx: ")]
    if patterns:
        policy["mx-host"] = patterns
    failed = [one for one in sessions if one.result]
    return {
        "policy": policy,
        "summary": {
            "total-successful-session-count": sum(one.sessions for one in sessions if not one.result),
            "total-failure-session-count": sum(one.sessions for one in failed),
        },
        "failure-details": [_detail(one) for one in failed[:DETAILS]],
    }


def _detail(one: Session) -> dict[str, Any]:
    found: dict[str, Any] = {"result-type": one.result}
    if one.host:
        found["receiving-mx-hostname"] = one.host
    if one.address:
        found["receiving-ip"] = one.address
    return {**found, "failed-session-count": one.sessions}


def _receiver(uri: str) -> str:
    """Return the address or URL of one rua, or an empty string for one that cannot be used."""
    if uri[:7].lower() == "mailto:":
        try:
            return str(parse_mailbox(unquote(uri[7:].partition("?")[0])))
        except AddressError:
            return ""
    if uri[:8].lower() == "https://":
        try:
            return uri if urlsplit(uri).hostname else ""
        except ValueError:
            return ""
    return ""
