"""What we say to a peer, as octets: what it offers, the command group of a transaction, the content."""

import re
from dataclasses import dataclass

from arkrelay.model.message import Envelope
from arkrelay.model.record import record
from arkrelay.model.reply import Failure, FailureKind, Stage
from arkrelay.wire.replies import clean

# RFC 5321 §4.1.2 as far as it protects the command line: no control characters; spaces and angle brackets only
# inside a quoted local part, where they belong to the address.
_SAFE = re.compile(
    r"""(?: [^\x00-\x20\x7f-\x9f<>"\s]+
          | "(?: [^\x00-\x1f\x7f-\x9f"\\\u2028\u2029] | \\[\x20-\x7e] )*" )
        (?: @ [^\x00-\x20\x7f-\x9f<>"@\s]+ )?""",
    re.VERBOSE,
)
_PARAMETER = re.compile(r"[\x21-\x7e]{1,500}")  # xtext and comma lists (RFC 3461 §4)


@dataclass(frozen=True, slots=True)
class Extensions:
    """What the peer offers, as far as we make use of it."""

    pipelining: bool = False  # RFC 2920
    size: int | None = None  # RFC 1870; None: not offered, 0: offered without a limit
    eight_bit_mime: bool = False  # RFC 6152
    smtputf8: bool = False  # RFC 6531
    dsn: bool = False  # RFC 3461
    by_least: int | None = None  # RFC 2852: the shortest time that it takes; None: not offered
    starttls: bool = False  # RFC 3207
    requiretls: bool = False  # RFC 8689, counts under TLS only
    auth: frozenset[str] = frozenset()  # RFC 4954, upper case
    mail_max: int | None = None  # RFC 9422: transactions in one session
    rcpt_max: int | None = None  # RFC 9422: recipients in one transaction


def parse_extensions(lines: tuple[bytes, ...]) -> Extensions:
    """Return what the lines of a 250 to EHLO offer (RFC 5321 §4.1.1.1); what we do not understand is not there."""
    offered: dict[str, list[str]] = {}
    for line in lines[1:]:
        # "AUTH=LOGIN" is how servers from before RFC 2554 wrote it; many still add that line
        words = line.decode("ascii", "replace").replace("=", " ", 1 if line[:5].upper() == b"AUTH=" else 0).split()
        if words:
            offered.setdefault(words[0].upper(), []).extend(word.upper() for word in words[1:])
    limits = dict(word.partition("=")[::2] for word in offered.get("LIMITS", []))
    size = next(iter(offered.get("SIZE", [])), "")
    least = next(iter(offered.get("DELIVERBY", [])), "").partition(",")[0]
    return Extensions(
        pipelining="PIPELINING" in offered,
        size=(_number(size) or 0) if "SIZE" in offered else None,
        eight_bit_mime="8BITMIME" in offered,
        smtputf8="SMTPUTF8" in offered,
        dsn="DSN" in offered,
        by_least=(_number(least) or 0) if "DELIVERBY" in offered else None,
        starttls="STARTTLS" in offered,
        requiretls="REQUIRETLS" in offered,
        auth=frozenset(offered.get("AUTH", [])),
        mail_max=_number(limits.get("MAILMAX", "")) or None,
        rcpt_max=_number(limits.get("RCPTMAX", "")) or None,
    )


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


@record(frozen=True, slots=True)
class Prepared:
    """Content as it goes on the wire, with dots stuffed and the final dot: made once, sent to many."""

    wire: bytes
    size_bytes: int  # of the content itself, for SIZE


def prepare(content: bytes) -> Prepared:
    """Return ``content`` ready to be sent; nothing but dot-stuffing changes (RFC 5321 §4.5.2).

    Content that does not end with CRLF gets one. Line ends are canonical since acceptance and are not counted again
    here (that would cost more than all the rest); still, a dot is doubled after any LF, not only after CRLF, so that
    a bare LF that slipped through a bug of ours cannot end the message at a lenient peer (VU#302671).
    """
    stuffed = content.replace(b"\n.", b"\n..") if b"." in content else content
    lead = b"." if content.startswith(b".") else b""
    tail = b".\r\n" if not content or content.endswith(b"\r\n") else b"\r\n.\r\n"
    return Prepared(b"".join((lead, stuffed, tail)), len(content) + len(tail) - 3)


def unfit(envelope: Envelope, content: Prepared, extensions: Extensions) -> Failure | None:
    """Return why nothing of this can be sent to this peer, or None."""
    if envelope.smtputf8 and not extensions.smtputf8:
        return Failure(FailureKind.NO_SMTPUTF8, Stage.MAIL, "the peer does not offer SMTPUTF8, which is needed here")
    if extensions.size and content.size_bytes > extensions.size:
        detail = f"the message has {content.size_bytes} octets, the peer takes {extensions.size}"
        return Failure(FailureKind.TOO_LARGE, Stage.MAIL, detail)
    if envelope.requiretls and not extensions.requiretls:
        return Failure(
            FailureKind.NO_REQUIRETLS, Stage.MAIL, "the peer does not offer REQUIRETLS, which is needed here"
        )
    if envelope.return_path and (problem := unsafe(envelope.return_path, utf8=envelope.smtputf8)):
        return problem
    return None


def unsafe(address: str, *, utf8: bool) -> Failure | None:
    """Return a failure for an address that must not be put into a command, whoever let it come this far."""
    if _SAFE.fullmatch(address) and (utf8 or address.isascii()):
        return None
    shown = clean(address.encode("utf-8", "backslashreplace"), 100)
    return Failure(FailureKind.INTERNAL, Stage.MAIL, f"not an address for the wire: {shown}")


def render_group(envelope: Envelope, sent: list[int], content: Prepared, extensions: Extensions) -> list[bytes]:
    """Return MAIL, a RCPT for each index of ``sent``, and DATA; they go in one write where PIPELINING is offered."""
    mail = f"MAIL FROM:<{envelope.return_path or ''}>"
    if extensions.size is not None:
        mail += f" SIZE={content.size_bytes}"
    if envelope.eight_bit and extensions.eight_bit_mime:
        mail += " BODY=8BITMIME"
    if envelope.smtputf8:
        mail += " SMTPUTF8"
    if envelope.requiretls and extensions.requiretls:
        mail += " REQUIRETLS"
    if extensions.dsn:
        mail += _parameter("RET", envelope.ret) + _parameter("ENVID", envelope.envid)
    if envelope.by is not None and extensions.by_least is not None:
        seconds, mode = envelope.by
        if mode == "N" or seconds >= max(extensions.by_least, 1):  # else it would be refused (RFC 2852 §4.1)
            mail += f" BY={seconds};{mode}"
    commands = [mail]
    for index in sent:
        rcpt = f"RCPT TO:<{envelope.recipients[index]}>"
        if extensions.dsn:
            notify = envelope.notify[index] if envelope.notify else None
            orcpt = envelope.orcpt[index] if envelope.orcpt else None
            rcpt += _parameter("NOTIFY", notify) + _parameter("ORCPT", orcpt)
        commands.append(rcpt)
    commands.append("DATA")
    return [f"{command}\r\n".encode() for command in commands]


def _parameter(name: str, value: str | None) -> str:
    """Return `` name=value``, or nothing; a value that would break the line is left out, not sent."""
    return f" {name}={value}" if value and _PARAMETER.fullmatch(value) else ""
