"""One line of an SMTP conversation, as it is kept of an attempt."""

from dataclasses import dataclass
from enum import StrEnum


class Who(StrEnum):
    """Whose words a line is."""

    WE = "we"
    PEER = "peer"
    NOTE = "note"  # nobody's: what happened


@dataclass(frozen=True, slots=True)
class Spoken:
    """One line; ``ms`` is how long after the first line of the transcript it was said."""

    ms: int
    who: Who
    line: str
