"""MTA-STS (RFC 8461): what a domain says about its mail hosts, by a TXT record and a file behind HTTPS."""

import re
from collections.abc import Sequence

from arkrelay.model.address import AddressError, parse_domain
from arkrelay.model.peertls import StsPolicy

MAX_AGE_S = 31_557_600  # RFC 8461 §3.2: a year and no more
MAX_MX = 100  # patterns kept of one policy; no domain has as many hosts
REFRESH_S = 86_400.0  # RFC 8461 §3.3 and §10.2: a policy in use is fetched again each day, so that it never runs out

_VERSION = re.compile(r"v=STSv1[ \t]*(?:;|$)")
_FIELD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=([!-:<>-~]+)")  # RFC 8461 §3.1: sts-extension
_ID = re.compile(r"[A-Za-z0-9]{1,32}")
_MODES = frozenset({"enforce", "testing", "none"})


def parse_record(texts: Sequence[str]) -> str | None:
    """Return the id in the TXT records of ``_mta-sts.<domain>``; None: the domain has no policy.

    Other TXT records do not count, and two that begin like ours are as good as none (RFC 8461 §3.1).
    """
    records = [text for text in texts if _VERSION.match(text)]
    if len(records) != 1:
        return None
    fields = [field.strip(" \t") for field in records[0].split(";")]
    found = None
    for field in fields[1:]:
        if not field:
            continue
        match = _FIELD.fullmatch(field)
        if match is None:
            return None
        if match[1] == "id" and found is None:
            found = match[2]
    return found if found is not None and _ID.fullmatch(found) else None


def parse_policy(body: bytes, id_: str, now: float) -> StsPolicy:
    """Return the policy of the file that was fetched ``now`` under ``id_``; raises ValueError with what is wrong.

    Of a field that may stand once the first one counts, and unknown fields are passed over (RFC 8461 §3.2). A file
    with an unusable host pattern is refused as a whole: what it means to say is unknown.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise ValueError("the policy is not UTF-8") from None
    fields: dict[str, str] = {}
    mx: list[str] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        key, colon, value = line.partition(":")
        if not colon:
            raise ValueError(f"the policy has a line without a colon: {line[:50]!r}")
        if key.strip() == "mx":
            mx.append(_pattern(value.strip()))
        else:
            fields.setdefault(key.strip(), value.strip())
    if fields.get("version") != "STSv1":
        raise ValueError("the policy's version is not STSv1")
    if fields.get("mode") not in _MODES:
        raise ValueError("the policy's mode is not enforce, testing or none")
    age = fields.get("max_age", "")
    if not (age.isascii() and age.isdigit() and len(age) <= 10):
        raise ValueError("the policy's max_age is not a number of seconds")
    if fields["mode"] != "none" and not mx:
        raise ValueError("the policy names no host")
    return StsPolicy(id_, fields["mode"], tuple(mx[:MAX_MX]), float(min(int(age), MAX_AGE_S)), now)


def listed(host: str, policy: StsPolicy) -> bool:
    """Return whether the policy names ``host``: itself, or by "*." and all but its first label (RFC 8461 §4.1)."""
    parent = host.partition(".")[2]
    return any(pattern == host or (pattern[:2] == "*." and pattern[2:] == parent) for pattern in policy.mx)


def lines(policy: StsPolicy) -> list[str]:
    """Return the policy as its file has it, for reports."""
    hosts = [f"mx: {pattern}" for pattern in policy.mx]
    return ["version: STSv1", f"mode: {policy.mode}", *hosts, f"max_age: {policy.max_age_s:.0f}"]


def wants_refresh(policy: StsPolicy, now: float) -> bool:
    """Return whether a policy should be fetched again although its id is the same: it must not run out in use."""
    return now - policy.fetched_at >= min(REFRESH_S, policy.max_age_s / 2)


def _pattern(text: str) -> str:
    name = text.removeprefix("*.")
    try:
        plain = parse_domain(name.rstrip("."))
    except AddressError:
        raise ValueError(f"the policy's mx is not a host name: {text[:100]!r}") from None
    return f"*.{plain}" if name != text else plain
