"""The exceptions that are for us: what a peer does is data (``reply.py``), not one of these."""

from pathlib import Path


class ArkrelayError(Exception):
    """Whatever we raise on purpose; its text may be shown to a person."""


class ConfigError(ArkrelayError):
    """A configuration file cannot be used: which file, which key, and why, in one line."""

    def __init__(self, file: Path | str, key: str, reason: str) -> None:
        self.file, self.key, self.reason = str(file), key, reason
        super().__init__(f"{file}: {key}: {reason}" if key else f"{file}: {reason}")


class Refused(ArkrelayError):
    """Policy says no to the submitter; nothing was kept.

    ``code`` and ``enhanced`` are the SMTP reply (RFC 5321 §4.2, RFC 3463), ``text`` says what to do about it,
    and ``field`` names the REST field where there is one; ``rest`` is REST's code, where the reply does not say it.
    """

    def __init__(self, code: int, enhanced: str, text: str, field: str | None = None, *, rest: str = "") -> None:
        self.code, self.enhanced, self.text, self.field, self.rest = code, enhanced, text, field, rest
        super().__init__(f"{code} {enhanced} {text}")


class StoreError(ArkrelayError):
    """The database cannot do what was asked: full, locked, damaged or closed. Always our trouble (4xx, 5xx)."""


class StoreFull(StoreError):
    """No room is left on the disk; nothing was written."""


class NotFound(ArkrelayError):
    """No such message, recipient or tenant, or not one that this caller may see."""


class Conflict(ArkrelayError):
    """The state of the thing forbids what was asked, and the text says why."""


class Exists(Conflict):
    """A thing of that name is there already."""


class Busy(Conflict):
    """Somebody else is at it at this moment: the same may be asked again."""
