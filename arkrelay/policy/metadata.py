"""What a client may keep with a tenant (Ark contract §8.5)."""

import json
import math
from collections.abc import Iterator, Mapping

KEYS, KEY_CHARS, VALUE_CHARS, BYTES = 50, 40, 500, 8192  # Ark contract §8.5
_SHOWN_CHARS = KEY_CHARS + 1  # of a key that is named: one more than a good one has


def faults(metadata: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with tenant metadata: the key ("" for all of it), and why.

    Values are strings, numbers, booleans and null; the size is that of compact JSON in UTF-8.
    """
    if len(metadata) > KEYS:
        yield "", f"has more than {KEYS} keys"
    for key, value in metadata.items():
        shown = "".join(letter if letter.isprintable() else "?" for letter in key[:_SHOWN_CHARS])
        if len(key) > KEY_CHARS:
            yield shown, f"the key is longer than {KEY_CHARS} characters"
        if not isinstance(value, str | int | float | None):
            yield shown, "expected a string, a number, a boolean or null"
        elif isinstance(value, float) and not math.isfinite(value):
            yield shown, "is not a number that JSON can write"
        elif isinstance(value, str) and len(value) > VALUE_CHARS:
            yield shown, f"is longer than {VALUE_CHARS} characters"
    size = len(
        json.dumps(metadata, default=str, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    )
    if size > BYTES:
        yield "", f"is larger than {BYTES} bytes"
