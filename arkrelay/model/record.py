"""``record``: a dataclass for what is made anew for each message.

A frozen dataclass fills each of its fields by a call of ``object.__setattr__``: 22 fields take 1.6 us, and without
that 0.2 (CPython 3.11). The 170 or so fields that are filled for a message came to 1 % of all that it costs. A record
is frozen for mypy, which sees all of our code, and at run time it is a dataclass like any other.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as record
else:

    def record(*, frozen: bool, slots: bool) -> Callable[[type], type]:
        """Return the decorator; the arguments are those of ``dataclass``."""
        return dataclasses.dataclass(slots=slots, unsafe_hash=frozen)


__all__ = ["record"]
