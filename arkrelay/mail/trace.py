"""Our trace field (RFC 5321 §4.4), which tells the world which host took the message, and nothing of its client."""

import math
import re
import time
from functools import lru_cache

from arkrelay.model.address import AddressError, parse_domain

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_WORD = re.compile(r"[A-Za-z0-9._+-]{1,255}")
_PATH = re.compile(r"[^\s<>\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,320}")


def render_date(at: float) -> str:
    """Return the date-time of RFC 5322 §3.3 in UTC, in English whatever the locale says."""
    return _render_second(math.floor(at))


@lru_cache(maxsize=8)  # the messages of one second share it
def _render_second(at: int) -> str:
    moment = time.gmtime(at)
    return (
        f"{_DAYS[moment.tm_wday]}, {moment.tm_mday} {_MONTHS[moment.tm_mon - 1]} {moment.tm_year:04}"
        f" {moment.tm_hour:02}:{moment.tm_min:02}:{moment.tm_sec:02} +0000"
    )


def render_received(
    helo: str, hostname: str, protocol: str, token: str, at: float, recipient: str | None = None
) -> bytes:
    """Return the Received field with its CRLF, to be put before the message.

    The client's address is not among the arguments, and a ``helo`` that is an address (``[192.0.2.1]``,
    ``192.0.2.1``) or no domain name at all becomes ``unknown``: submission servers need not tell where their
    users sit. An empty ``helo`` leaves the clause out, as for mail that came by HTTP. ``recipient`` may be given
    only where the message has a single one (RFC 5321 §7.2).
    """
    came_from = f"from {_helo_name(helo)} " if helo else ""
    for_whom = f"\r\n\tfor <{recipient}>" if recipient and _PATH.fullmatch(recipient) else ""
    return (
        f"Received: {came_from}by {_word(hostname)}\r\n\twith {_word(protocol)} id {_word(token)}{for_whom};"
        f"\r\n\t{render_date(at)}\r\n"
    ).encode()


def _helo_name(helo: str) -> str:
    try:
        return parse_domain(helo)
    except AddressError:
        return "unknown"


def _word(text: str) -> str:
    """Return the text if it cannot end the clause or the line it stands in."""
    return text if _WORD.fullmatch(text) else "unknown"
