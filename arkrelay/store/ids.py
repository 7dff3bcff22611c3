"""Ids: integers in order of acceptance inside, 16 characters ordered by time outside."""

import os
import struct
from collections.abc import Iterator
from itertools import count

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # in ASCII order, so tokens sort by time
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]
_BASE = 62
_RANDOM = _BASE**9  # 53 bits: not to be guessed through an API that answers 10 times a second
_DRAWN_BYTES = 4096  # taken from the system at once: a system call gives the GIL away, which costs 40 µs under load
TOKEN_LENGTH = 16


class Tokens:
    """Makes public ids; used from one thread, the event loop's."""

    def __init__(self) -> None:
        self._chances: Iterator[int] = iter(())

    def new(self, now: float) -> str:
        """Return a public id: 7 base-62 digits of the time in milliseconds (until 2081), 9 of chance."""
        high, low = divmod(int(now * 1000), _BASE * _BASE)
        higher, high = divmod(high, _BASE * _BASE)
        highest, higher = divmod(higher, _BASE * _BASE)
        chance, a = divmod(self._draw(), _BASE * _BASE)
        chance, b = divmod(chance, _BASE * _BASE)
        chance, c = divmod(chance, _BASE * _BASE)
        e, d = divmod(chance, _BASE * _BASE)
        return (
            _ALPHABET[highest % _BASE] + _PAIRS[higher] + _PAIRS[high] + _PAIRS[low]
            + _ALPHABET[e] + _PAIRS[d] + _PAIRS[c] + _PAIRS[b] + _PAIRS[a]
        )  # fmt: skip

    def _draw(self) -> int:
        """Return a number below ``_RANDOM``: 2^64 is 1362 times that, so a remainder is even enough."""
        for number in self._chances:
            return number % _RANDOM
        self._chances = iter(struct.unpack(f"<{_DRAWN_BYTES // 8}Q", os.urandom(_DRAWN_BYTES)))
        return next(self._chances) % _RANDOM


class Ids:
    """The next message and recipient ids; only one process writes, so the disk need not be asked."""

    def __init__(self, next_message_id: int, next_recipient_id: int) -> None:
        self._messages = count(next_message_id)
        self._recipients = count(next_recipient_id)

    def new_message_id(self) -> int:
        """Return an id that no message has had."""
        return next(self._messages)

    def new_recipient_id(self) -> int:
        """Return an id that no recipient has had."""
        return next(self._recipients)
