"""Delivery status notifications: the part for programs, read into findings (RFC 3464, RFC 6533)."""

import re
from collections.abc import Mapping, Sequence

from arkrelay.mail.dsn import decode_xtext
from arkrelay.mail.mime import Part, head_and_body, read_fields
from arkrelay.model.report import ACTIONS, Finding

KINDS = frozenset({"message/delivery-status", "message/global-delivery-status"})
MAX_RECIPIENTS = 100
TEXT = 500  # characters of a diagnostic; as much as a reply of a peer keeps

_STATUS = re.compile(r"\b([245]\.\d{1,3}\.\d{1,3})\b")
_CODE = re.compile(r"(?<![\d.])([245]\d\d)(?:[ -]|$)(?:[ -]*#?(?:\(#)?([245]\.\d{1,3}\.\d{1,3})\)?[ :;]*)?")
# What xtext must encode, and no address but a very odd one has after its "+"; servers that undo it leave none
_XTEXT = re.compile(r"\+(?:2B|3D|5C)")
_ESCAPED = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")
_BLOCK_START = re.compile(r"^(?:original-recipient|final-recipient|action|status)\s*:", re.IGNORECASE | re.MULTILINE)


def findings_of(part: Part) -> tuple[Finding, ...]:
    """Return what a delivery-status part says of each recipient; empty when it says nothing that we can use."""
    body = part.body
    if part.encoding:
        body = part.text().encode("utf-8", "replace").replace(b"\n", b"\r\n")
    return _findings(body)


def findings_in_text(text: str) -> tuple[Finding, ...]:
    """Return the same from a text that holds the fields, as some servers send them to people."""
    start = _BLOCK_START.search(text)
    if start is None or "final-recipient" not in text.lower():
        return ()
    return _findings(text[start.start() :].encode("utf-8", "replace").replace(b"\n", b"\r\n"))


def reply_in(text: str) -> tuple[int, str, str]:
    """Return code, status and text of the first reply that ``text`` quotes; 0 and "" for what is not there."""
    joined = " ".join(text.split())
    for match in _CODE.finditer(joined):
        code, status = int(match[1]), match[2] or ""
        if status and status[0] != match[1][0]:
            continue
        rest = joined[match.end() : match.end() + 2 * TEXT]
        if not status:
            found = _STATUS.search(rest[:60])
            status = found[1] if found is not None and found[1][0] == match[1][0] else ""
        return code, status, _one_reply(rest, match[1], status)
    found = _STATUS.search(joined)
    return 0, found[1] if found is not None else "", joined[:TEXT].strip()


def _one_reply(text: str, code: str, status: str) -> str:
    """Return the text of a reply without the code and status with which each of its lines began."""
    again = rf"(?<![\d.]){code}-(?:\d\.\d{{1,3}}\.\d{{1,3}} )?"
    if status:
        again += rf"|(?<![\d.]){code} {re.escape(status)} "
    return re.sub(again, "", text)[:TEXT].strip()


def _findings(body: bytes) -> tuple[Finding, ...]:
    """Read groups of fields; empty lines part them, but some servers put one behind each field."""
    found: list[Finding] = []
    group: dict[str, str] = {}
    for fields in _groups(body):
        if group and ("final-recipient" in fields or "original-recipient" in fields) and "action" in group:
            found += _finding(group)
            group = {}
        group |= {name: value for name, value in fields.items() if name not in group}
        if len(found) >= MAX_RECIPIENTS:
            break
    found += _finding(group)
    return tuple(found)


def _groups(body: bytes) -> Sequence[Mapping[str, str]]:
    groups: list[Mapping[str, str]] = []
    while body.strip() and len(groups) < 2 * MAX_RECIPIENTS:
        head, body = head_and_body(body.lstrip(b"\r\n"))
        groups.append(read_fields(head))
    return groups


def _finding(fields: Mapping[str, str]) -> list[Finding]:
    action = fields.get("action", "").partition(";")[0].partition("(")[0].strip().lower()
    status = _STATUS.search(fields.get("status", ""))
    said = status[1] if status is not None else ""
    if action not in ACTIONS:
        # RFC 3464 §2.3.3 demands it, and servers that leave it out or translate it still say the status
        action = {"5": "failed", "4": "delayed", "2": "delivered"}.get(said[:1], "")
    if not action:
        return []
    kind, _, diagnostic = fields.get("diagnostic-code", "").partition(";")
    if not diagnostic:
        kind, diagnostic = "", kind
    code, quoted, text = reply_in(diagnostic)
    if kind.strip().lower() not in {"", "smtp", "rfc821", "x-smtp"} and not code:
        text = " ".join(diagnostic.split())[:TEXT]
    if quoted and (not said or said.endswith(".0.0") or said[0] == quoted[0]):
        said = quoted
    return [
        Finding(
            action=action,
            address=_address(fields.get("final-recipient", "")),
            original=_address(fields.get("original-recipient", "")),
            status=said,
            code=code,
            text=text,
            host=_value(fields.get("remote-mta", "")),
        )
    ]


def _value(field: str) -> str:
    """Return what follows the type of a field (RFC 3464 §2.1.2): "dns; mx.example.net"."""
    kind, semicolon, value = field.partition(";")
    return (value if semicolon else kind).strip()[:255]


def _address(field: str) -> str:
    """Return the address of a field as it is written in mail: xtext (RFC 3461 §4) and RFC 6533 §3 undone."""
    address = _value(field).strip("<>").strip()
    if _XTEXT.search(address) is not None:
        address = decode_xtext(address)
    if field.partition(";")[0].strip().lower() == "utf-8":
        address = _ESCAPED.sub(_character, address)
    return address


def _character(match: re.Match[str]) -> str:
    number = int(match[1], 16)
    return chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else match[0]
