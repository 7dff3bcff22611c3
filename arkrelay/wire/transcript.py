"""What is said on a connection, kept as it is until somebody wants it as text.

An entry costs a clock and a tuple; it is made into rows (``policy.transcript``) when an attempt ends. Commands that
carry a secret are never handed to a transcript: whoever writes them says what stands in their place.
"""

from collections.abc import Sequence

from arkrelay.wire.replies import LONGEST_TEXT, Heard, clean

# when (``time.perf_counter``), and what: a reply, our commands, so many octets of content with the dot, or a note
Entry = tuple[float, Heard | list[bytes] | int | str]


def rows_of(entries: Sequence[Entry], began: float) -> list[str]:
    """Return the entries as rows, in milliseconds since ``began``.

    What is said is nearly always plain and short. To find that out of all rows at once, and not to clean each of
    them, takes half the time: 3 us of a message.
    """
    try:
        text = "\n".join([_as_said(said, int((at - began) * 1000)) for at, said in entries])
    except UnicodeDecodeError:
        return _cleaned(entries, began)
    rows = text.split("\n") if text else []
    if not "".join(rows).isprintable() or (len(text) > LONGEST_TEXT and max(map(len, rows)) > LONGEST_TEXT):
        return _cleaned(entries, began)
    return rows


def _as_said(said: Heard | list[bytes] | int | str, ms: int) -> str:
    """Return the rows of one entry when all of it is ASCII; UnicodeDecodeError when it is not."""
    if isinstance(said, list):
        return f"{ms}>{b''.join(said)[:-2].decode('ascii')}".replace("\r\n", f"\n{ms}>")
    if isinstance(said, Heard):
        code, lines = said
        if len(lines) == 1:
            return f"{ms}<{code} {lines[0].decode('ascii')}"
        *before, last = (line.decode("ascii") for line in lines)
        return "".join([f"{ms}<{code}-{line}\n" for line in before]) + f"{ms}<{code} {last}"
    if isinstance(said, int):
        return f"{ms}>({said} octets of content, and the final dot)"
    return f"{ms}*{clean(said.encode('utf-8', 'replace'))}"


def _cleaned(entries: Sequence[Entry], began: float) -> list[str]:
    rows: list[str] = []
    for at, said in entries:
        ms = int((at - began) * 1000)
        if isinstance(said, list):
            rows += [f"{ms}>{clean(command[:-2])}" for command in said]  # without CRLF
        elif isinstance(said, Heard):
            code, lines = said
            rows += [f"{ms}<{code}-{clean(line)}" for line in lines[:-1]]
            rows.append(f"{ms}<{code} {clean(lines[-1])}")
        else:
            rows.append(_as_said(said, ms))
    return rows
