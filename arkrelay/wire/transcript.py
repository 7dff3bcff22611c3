"""What is said on a connection, kept as it is until somebody wants it as text.

An entry costs a clock and a tuple; it is made into rows (``policy.transcript``) when an attempt ends. Commands that
carry a secret are never handed to a transcript: whoever writes them says what stands in their place.
"""

from collections.abc import Iterable

from arkrelay.wire.replies import Heard, clean

# when (``time.perf_counter``), and what: a reply, our commands, so many octets of content with the dot, or a note
Entry = tuple[float, Heard | list[bytes] | int | str]


def rows_of(entries: Iterable[Entry], began: float) -> list[str]:
    """Return the entries as rows, in milliseconds since ``began``."""
    rows: list[str] = []
    for at, said in entries:
        ms = int((at - began) * 1000)
        if isinstance(said, Heard):
            code, lines = said
            rows += [f"{ms}<{code}-{clean(line)}" for line in lines[:-1]]
            rows.append(f"{ms}<{code} {clean(lines[-1])}")
        elif isinstance(said, list):
            rows += [f"{ms}>{clean(command[:-2])}" for command in said]  # without CRLF
        elif isinstance(said, int):
            rows.append(f"{ms}>({said} octets of content, and the final dot)")
        else:
            rows.append(f"{ms}*{clean(said.encode('utf-8', 'replace'))}")
    return rows
