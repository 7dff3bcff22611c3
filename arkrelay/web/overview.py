"""The first page: what waits and for how long, what became of the last day, what is slow, and what wants a person."""

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from arkrelay.model.message import Status
from arkrelay.policy.finding import Level
from arkrelay.relay.lanes import troubled
from arkrelay.store import hooks
from arkrelay.store.browse import oldest
from arkrelay.store.usage import HOUR_S, Counts, list_usage, start_of, totals
from arkrelay.web.charts import Bar, draw
from arkrelay.web.doctor import findings
from arkrelay.web.render import url
from arkrelay.web.visit import Page, Visit

HOURS = 24
FINDINGS = 5  # of the doctor, that are shown; its page has all
LANES = 12  # that are shown; the others are counted
AGES = (("under 1 h", HOUR_S), ("1 to 6 h", 6 * HOUR_S), ("6 to 24 h", 24 * HOUR_S))
KINDS = {  # in the order of the bars, from the ground
    "delivered": Status.SENT,
    "deferred": Status.SOFTFAIL,
    "held": Status.HELD,
    "failed": Status.HARDFAIL,
    "bounced": Status.BOUNCED,
}
_QUARTER_S = 900


@dataclass(frozen=True, slots=True)
class Attention:
    """Something that a person should look at, and where; ``grave``: mail does not go now."""

    said: str
    href: str = ""
    grave: bool = False


@dataclass(frozen=True, slots=True)
class _Read:
    counts: Counts
    hours: list[Counts]
    ages: list[Counts]
    oldest: dict[Status, float | None]
    hook_failures: int


async def show(visit: Visit) -> Page:
    """Return the overview."""
    now, tenant_id = time.time(), visit.caller.tenant_id
    read = await visit.parts.store.read(lambda db: _read(db, now, tenant_id))
    lanes, more_lanes = ([], 0) if tenant_id is not None else troubled(visit.parts.queue, now, LANES)
    bars = [
        Bar(datetime.fromtimestamp(at, UTC).strftime("%a %H:00"), tuple(counts[kind] for kind in KINDS.values()))
        for at, counts in zip(_hours(now), read.hours, strict=True)
    ]
    waiting = [
        {
            "status": status,
            "label": label,
            "count": read.counts[status],
            "oldest": read.oldest[status],
            "ages": _ages(read, status) if status is not Status.PENDING and read.counts[status] else (),
        }
        for status, label in (
            (Status.PENDING, "Being sent"),
            (Status.SOFTFAIL, "Deferred"),
            (Status.HELD, "Held"),
        )
    ]
    return Page(
        "overview.html",
        "Overview",
        {
            "waiting": waiting,
            "ended": [(status, read.counts[status]) for status in (Status.SENT, Status.HARDFAIL, Status.BOUNCED)],
            "age_names": [name for name, _ in AGES] + ["over 24 h"],
            "bars": bars,
            "kinds": list(KINDS),
            "chart": draw(bars, list(KINDS), "Recipients of the last 24 hours"),
            "total": sum(bar.total for bar in bars),
            "lanes": lanes,
            "more_lanes": more_lanes,
            "attention": list(_attention(visit, read)),
            "empty": not any(read.counts.values()),
        },
    )


def _hours(now: float) -> list[float]:
    first = start_of(now, HOUR_S) - (HOURS - 1) * HOUR_S
    return [first + number * HOUR_S for number in range(HOURS)]


def _read(db: sqlite3.Connection, now: float, tenant_id: str | None) -> _Read:
    quarter = start_of(now, _QUARTER_S) + _QUARTER_S
    begins = [quarter - length for _, length in reversed(AGES)]
    return _Read(
        counts=totals(db, tenant_id),
        hours=list_usage(db, tenant_id, _hours(now), quarter),
        ages=list_usage(db, tenant_id, begins, quarter)[::-1],
        oldest={status: oldest(db, tenant_id, status) for status in (Status.PENDING, Status.SOFTFAIL, Status.HELD)},
        hook_failures=hooks.count_failures(db, tenant_id, now - HOURS * HOUR_S),
    )


def _ages(read: _Read, status: Status) -> list[int]:
    """Return how many are how old, by the quarters in which they were accepted; the rest is older."""
    known = [counts[status] for counts in read.ages]
    return [*known, max(0, read.counts[status] - sum(known))]


def _attention(visit: Visit, read: _Read) -> Iterator[Attention]:
    snapshot, parts = visit.snapshot, visit.parts
    organisation = visit.caller.tenant_id is None
    if unready := parts.unready():
        said = f"Mail is not accepted or not delivered: {unready}."
        yield Attention(
            said if organisation else "Mail is delayed at the moment; the operator knows why.", grave=True
        )
    yield from _of_tenants(visit)
    yield from _of_doctor(visit)
    if read.counts[Status.HELD]:
        many = "1 recipient is" if read.counts[Status.HELD] == 1 else f"{read.counts[Status.HELD]} recipients are"
        yield Attention(f"{many} held until somebody decides.", url("messages", status="held"))
    if read.hook_failures:
        times = "once" if read.hook_failures == 1 else f"{read.hook_failures} times"
        yield Attention(f"A webhook could not be told of an event, {times} in the last 24 h.", url("webhooks"))
    if not organisation:
        return
    for source in parts.ways.sources.states.values():
        if fault := parts.ways.sources.fault(source):
            yield Attention(f"Nothing leaves from {source.source.address}: {fault}.")
    for warning in snapshot.warnings:
        yield Attention(f"Configuration: {warning}.".replace("..", "."))
    if not snapshot.tenants:
        yield Attention("There is no tenant yet: arkrelay tenant add NAME makes one.")


def _of_doctor(visit: Visit) -> Iterator[Attention]:
    grave = [one for one in findings(visit) if one.level is Level.FAIL]
    for one in grave[:FINDINGS]:
        yield Attention(f"{one.check} {one.subject}: {one.found}.".replace("..", "."), url("doctor"))
    if len(grave) > FINDINGS:
        yield Attention(f"The doctor found {len(grave) - FINDINGS} more that fail.", url("doctor"))


def _of_tenants(visit: Visit) -> Iterator[Attention]:
    for tenant in visit.tenants:
        if tenant.status != "active":
            yield Attention(f"Tenant {tenant.name} is {tenant.status}: what it sends is not delivered.")
        for domain in tenant.domains:
            state = visit.parts.domains.states.get((tenant.id, domain.name))
            if state is None or state.verified:
                continue
            fault = state.spf_error or state.dkim_error or state.return_path_error or "it is not checked yet"
            may = (
                "It may send all the same, because it is trusted."
                if domain.trusted
                else "Nothing from it is accepted."
            )
            yield Attention(
                f"{domain.name}: {fault}. {may}", url("domains", tenant.id, domain.name), grave=not domain.trusted
            )
