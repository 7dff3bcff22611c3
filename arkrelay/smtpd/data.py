"""The content of one DATA command: where it ends, and which line ends it may have (RFC 5321 §4.1.1.4).

Only CRLF.CRLF ends it. A peer that also ended it at a bare LF or CR would read a second envelope out of the
same bytes (SMTP smuggling, CVE-2023-51764, CVE-2023-51765, CVE-2024-27305). What we keep has CRLF as its only
line end, decided once, here, so that what is signed is what every later hop sees.
"""

from collections.abc import Callable
from typing import Final

from arkrelay.model.errors import Refused
from arkrelay.smtpd.input import Input

END: Final = b"\r\n.\r\n"
# Above the limit we read on for so many bytes, so that an honest client hears its 552 and keeps its
# connection; then the connection is closed.
DRAIN_BYTES: Final = 16 * 1024 * 1024
SLACK_BYTES: Final = 1024


class TooMuch(Exception):
    """More came than any message may have, and its end is not in sight: the connection cannot be kept."""


async def read_data(source: Input, limit: int, progress: Callable[[int], None]) -> bytes | None:
    """Return the content up to the final dot, still dot-stuffed, or None when it is larger than ``limit``.

    Holds about ``limit`` bytes, however long the lines. ``progress`` is told the number of bytes so far after each
    read. What follows the dot stays in ``source``. Raises ``TooMuch``, and ``EOFError`` when the client leaves before
    the dot: of such a message nothing is kept.
    """
    # A client doubles the dot of a line; in the worst case, lines of one dot, that is a third more.
    hold = limit + limit // 3 + SLACK_BYTES
    data = bytearray(b"\r\n")  # the line end of the DATA command: the first line may be the final dot
    received = 0
    too_large = False
    while True:
        if source.buffer:
            searched = max(0, len(data) - len(END) + 1)
            chunk = source.take_all()
            data += chunk
            received += len(chunk)
            end = data.find(END, searched)
            if end >= 0:
                if len(data) > end + len(END):
                    source.give_back(bytes(memoryview(data)[end + len(END) :]))
                return None if too_large else bytes(memoryview(data)[: end + 2])
            if too_large or len(data) > hold:
                too_large = True
                del data[: -len(END) + 1]
                if received > hold + DRAIN_BYTES:
                    raise TooMuch
            progress(received)
        elif source.eof:
            raise EOFError
        else:
            await source.more()


def canonical(stuffed: bytes, *, reject_bare_newline: bool) -> bytes:
    """Return the content with its dots unstuffed and every line ended by CRLF, or raise ``Refused``.

    ``stuffed`` is what ``read_data`` returned: it begins with the CRLF of the command before it.

    NUL and a bare CR are refused: no mail needs them, and peers disagree about what they mean. A bare LF, which
    scripts on Unix write, becomes CRLF unless it is to be refused too.
    """
    if b"\0" in stuffed:
        raise Refused(550, "5.6.0", "The message holds a NUL byte")
    pairs = stuffed.count(b"\r\n")
    if stuffed.count(b"\r") != pairs:
        raise Refused(550, "5.6.0", "The message holds a bare CR; lines end in CRLF (RFC 5321 2.3.8)")
    bare = stuffed.count(b"\n") != pairs
    if bare and reject_bare_newline:
        raise Refused(550, "5.6.0", "The message holds a bare LF; lines end in CRLF (RFC 5321 2.3.8)")
    # Whole-buffer replacements, because a regular expression would stop the event loop for seconds at 14 MB.
    # RFC 5321 §4.5.2: the first dot of a line goes.
    if not bare:
        return stuffed.replace(b"\r\n.", b"\r\n")[2:]
    # A single dot before or behind a bare LF was not put there by stuffing, which would have made it two: it stays.
    # Two behind a bare LF were one: smtplib, given bytes, leaves line ends as they are and stuffs every line.
    stuffed = stuffed.replace(b"\r\n.\n", b"\r\n..\n").replace(b"\r\n.", b"\r").replace(b"\r\n", b"\r")
    stuffed = stuffed.replace(b"\n..", b"\n.").replace(b"\n", b"\r")  # here CR stands for CRLF, LF was bare
    return stuffed.replace(b"\r", b"\r\n")[2:]
