"""All that is wrong with a configuration, in one exception."""

from collections.abc import Sequence

from arkrelay.model.errors import ArkrelayError, ConfigError


class ConfigErrors(ArkrelayError):
    """A configuration cannot be used; ``problems`` has every reason, and the text one line for each."""

    def __init__(self, problems: Sequence[ConfigError]) -> None:
        self.problems: list[ConfigError] = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class CannotWrite(ConfigErrors):
    """A file could not be written, so nothing changed: the disk is ``full``, or the service may not write there."""

    def __init__(self, problems: Sequence[ConfigError], *, full: bool) -> None:
        self.full = full
        super().__init__(problems)
