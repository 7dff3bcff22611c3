"""A request to the API as it is remembered (Ark contract §8.2)."""

from typing import NamedTuple


class LoggedRequest(NamedTuple):
    """What is known of a request without its bodies; a tuple, because thousands are made in a second.

    It is stored in this order: new fields go to the end, with a default.
    """

    request_id: str
    at_ms: int  # when it began, Unix milliseconds
    tenant_id: str  # of the key; empty: an organisation's
    credential_id: str
    endpoint: str  # as the official client calls it
    status: int
    method: str
    path: str  # as it was asked for, without its query
    duration_ms: int
    key_prefix: str
    address: str  # of the client; empty on a unix socket
    user_agent: str | None
    idempotency_key: str | None
    query: dict[str, str] | None
    rate_limit: int | None  # what the key might do in a window; None: as much as it likes
    rate_remaining: int | None
    rate_reset_at: int | None  # Unix seconds
    limited: bool  # refused for its rate
    email_id: str | None
    recipients: int | None
    error_code: str | None
    error: str | None
    sdk: str | None
    sdk_version: str | None
    request_bytes: int | None  # of the body as it came, None when it was not read to its end
    response_bytes: int | None
