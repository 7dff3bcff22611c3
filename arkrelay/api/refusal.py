"""What the API says no with."""

from collections.abc import Mapping

from arkrelay.model.errors import ArkrelayError


class ApiError(ArkrelayError):
    """A refusal in the contract's words; ``retry`` False tells SDKs not to repeat it (Ark contract §6).

    ``retry_after_s`` is when it may be repeated; SDKs heed up to 60. ``close`` ends the connection, on which the
    rest of a body would come. ``more`` stands beside ``error`` in the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        retry: bool | None = None,
        retry_after_s: int | None = None,
        close: bool = False,
        more: Mapping[str, object] | None = None,
    ) -> None:
        self.status, self.code, self.message, self.field, self.retry = status, code, message, field, retry
        self.retry_after_s, self.close, self.more = retry_after_s, close, more
        super().__init__(message)
