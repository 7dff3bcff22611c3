"""TLS towards peers: how sessions came out, and the MTA-STS policies in force; beyond Ark's contract."""

import time
from typing import Annotated

from arkrelay.api.ask import Ask
from arkrelay.api.model import Answer, Meta, Nothing, Query
from arkrelay.api.query import domain
from arkrelay.api.shapes import Iso, iso
from arkrelay.model.tlsreport import DAY_S
from arkrelay.store import peertls as rows

MOST = 1000  # lines of one answer


class TlsQuery(Query):
    """Of which domain, and of how many days (UTC), today included."""

    domain: str | None = None
    days: Annotated[int, Meta(ge=1, le=60)] = 7


class Sessions(Answer):
    """Sessions of a day that came out alike; ``result`` is one of RFC 8460 §4.3, null for success."""

    day: str
    domain: str
    policy: str
    host: str | None
    address: str | None
    result: str | None
    sessions: int


class Policy(Answer):
    """An MTA-STS policy as it was fetched last."""

    domain: str
    id: str
    mode: str
    mx: list[str]
    fetched_at_iso: Iso | None
    expires_at_iso: Iso | None


class TlsState(Answer):
    """What was seen, newest day first, and what is in force; up to 1000 lines of each."""

    sessions: list[Sessions]
    policies: list[Policy]


async def show(ask: Ask[TlsQuery, Nothing]) -> TlsState:
    """How TLS towards peers came out, and which policies are in force. What was seen is up to a minute old."""
    now = time.time()
    wanted = None if ask.query.domain is None else domain(ask.query.domain)
    last = int(now // DAY_S) * DAY_S
    first = last - (ask.query.days - 1) * DAY_S
    counted = await ask.parts.store.read(lambda db: rows.results(db, first, last, wanted, MOST))
    policies = await ask.parts.store.read(lambda db: rows.policies(db, now))
    return TlsState(
        sessions=[
            Sessions(
                day=(iso(one.day) or "")[:10],
                domain=one.domain,
                policy=one.policy,
                host=one.host or None,
                address=one.address or None,
                result=one.result or None,
                sessions=n,
            )
            for one, n in counted
        ],
        policies=[
            Policy(
                domain=name,
                id=policy.id,
                mode=policy.mode,
                mx=list(policy.mx),
                fetched_at_iso=iso(policy.fetched_at),
                expires_at_iso=iso(policy.expires_at),
            )
            for name, policy in sorted(policies.items())[:MOST]
            if wanted in {None, name}
        ],
    )
