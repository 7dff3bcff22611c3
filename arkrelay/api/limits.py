"""What a key has left: requests of this second, recipients of this hour (Ark contract §8.4)."""

import time
from collections.abc import Sequence
from typing import Final, Literal

from arkrelay.api.ask import Ask
from arkrelay.api.model import Answer, Nothing
from arkrelay.api.parts import RATE
from arkrelay.api.shapes import iso
from arkrelay.policy.limits import WARN_SHARE, hour_end

NO_LIMIT: Final = 2**31 - 1  # the official models know no null in ``rateLimit``, and 0 would keep a client waiting


class RateLimit(Answer):
    """Requests; ``reset`` is in Unix seconds. Without a limit it is 2147483647."""

    limit: int
    period: Literal["second"]
    remaining: int
    reset: int


class SendLimit(Answer):
    """Recipients of this hour; ``limit``, ``remaining`` and ``usagePercent`` are null without a limit."""

    limit: int | None
    period: Literal["hour"]
    used: int
    remaining: int | None
    usage_percent: float | None
    approaching: bool
    exceeded: bool
    resets_at: str


class Limits(Answer):
    """``sendLimit`` is null when no tenant may send at all; ``billing`` always: a relay of one's own has none."""

    rate_limit: RateLimit
    send_limit: SendLimit | None
    billing: None


async def retrieve(ask: Ask[Nothing, Nothing]) -> Limits:
    """What the key that asks has left.

    A tenant's key sees its tenant's send limit. An organisation key sees the sum over all active tenants, and no
    limit when one of them has none. Mail that is held at once, and mail of test keys, uses up nothing. A rate below
    one request in a second is shown as one, and ``reset`` says when the next may be made. This request counts too.
    """
    meter, now = ask.parts.meter, time.time()
    uses = [
        (meter.used(tenant.id, now)[0], tenant.limits.hourly)
        for tenant in ask.snapshot.tenants.values()
        if tenant.status == "active" and ask.caller.tenant_id in {None, tenant.id}
    ]
    return Limits(rate_limit=_rate_limit(ask), send_limit=send_limit(uses, now), billing=None)


def send_limit(uses: Sequence[tuple[int, int]], now: float) -> SendLimit | None:
    """Return the send limit of tenants taken together, from what each has used in this hour and its limit (0: none).

    One tenant's rest is of no use to another, so what remains is the sum of what each has left.
    """
    if not uses:
        return None
    limit = sum(limit for _, limit in uses) if all(limit for _, limit in uses) else None
    remaining = None if limit is None else sum(max(0, limit - used) for used, limit in uses)
    spent = 0 if limit is None or remaining is None else limit - remaining
    return SendLimit(
        limit=limit,
        period="hour",
        used=sum(used for used, _ in uses),
        remaining=remaining,
        usage_percent=None if limit is None else round(100 * spent / limit, 2),
        approaching=limit is not None and spent > limit * WARN_SHARE,
        exceeded=remaining == 0,
        resets_at=iso(hour_end(now)),
    )


def _rate_limit(ask: Ask[Nothing, Nothing]) -> RateLimit:
    """Return what the key has left after this request; a peer on the control socket is told, and not counted."""
    settings = ask.snapshot.settings.limits
    rate = ask.request.get(RATE) or ask.parts.rates.look(ask.caller.rate_key, settings.api_requests_per_s)
    if rate is None:
        return RateLimit(limit=NO_LIMIT, period="second", remaining=NO_LIMIT, reset=int(time.time()) + 1)
    return RateLimit(limit=rate.limit, period="second", remaining=rate.remaining, reset=rate.reset_at)
