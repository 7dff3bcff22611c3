"""The list of messages: newest first, by what a person knows of the ones looked for, with verbs on all of them."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import web

from arkrelay.model.address import kept_address, kept_domain
from arkrelay.model.errors import Conflict, NotFound
from arkrelay.model.message import Status
from arkrelay.relay.operate import Verb
from arkrelay.store import browse
from arkrelay.store import queue as rows
from arkrelay.store.find import Filters
from arkrelay.store.usage import totals
from arkrelay.web import bulk
from arkrelay.web.visit import Page, Visit, place

PER_PAGE = 50
UNFILTERED = "Choose a state or a filter first: this would be for everything."
NAMES = ("status", "to", "from", "domain", "tag", "tenant", "since", "until")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{8,64}")


@dataclass(frozen=True, slots=True)
class _Wanted:
    filters: Filters
    problem: str = ""
    acts: bool = False  # a verb may be done to all that it finds: it says what these are, and all of it is understood


async def show(visit: Visit) -> Page:
    """Return one page of messages."""
    asked = _asked(visit)
    wanted = _filters(visit, asked)
    filters, below = wanted.filters, visit.older
    leaf = await visit.parts.store.read(lambda db: browse.recipients(db, filters, below, PER_PAGE))
    some = bool(leaf.recipients) or leaf.unfinished or below is not None
    offers = await visit.parts.store.read(lambda db: bulk.offers(db, filters)) if wanted.acts and some else []
    counts = await visit.parts.store.read(lambda db: totals(db, filters.tenant_id))
    narrowed = any(value for name, value in asked.items() if name != "tenant")
    return Page(
        "messages.html",
        "Messages",
        {
            "asked": asked,
            "problem": wanted.problem,
            "recipients": leaf.recipients,
            "older": place(leaf.older),
            "looked_to": leaf.older.at if leaf.unfinished and leaf.older else None,
            "first": below is None,
            "offers": offers,
            "query": _query(asked),
            "statuses": list(Status),
            "counts": counts,
            "total": sum(counts.values()),
            "narrowed": narrowed,
            "tenants": visit.tenants,
            "now_plain": not any(value for name, value in asked.items() if name not in {"status", "tenant"}),
        },
        400 if wanted.problem else 200,
    )


async def operate(visit: Visit) -> web.StreamResponse:
    """Do a verb to all that the filter finds."""
    asked = _asked(visit)
    wanted = _filters(visit, asked)
    try:
        verb = Verb(visit.given("verb"))
    except ValueError:
        raise NotFound("There is no such verb.") from None
    try:
        _require(visit, verb, wanted)
    except Conflict as error:
        visit.say(str(error), good=False)
    else:
        own = visit.caller.tenant_id
        sentence, done = await bulk.operate(visit.parts.operator, visit.parts.store, verb, wanted.filters, own)
        visit.say(sentence, good=done)
    return visit.go("messages", **_query(asked))


def _require(visit: Visit, verb: Verb, wanted: _Wanted) -> None:
    """Raise Conflict for a key that may not do this, and for a filter that does not say to what."""
    if verb in {Verb.RETRY, Verb.RELEASE}:
        visit.require_sender()
    visit.require_changer()
    if not wanted.acts:
        raise Conflict(wanted.problem or UNFILTERED)


async def search(visit: Visit) -> web.StreamResponse:
    """Lead to what one field means: an id, an address, or a domain."""
    asked = visit.asked("q")
    if "@" in asked:
        return visit.go("messages", to=asked)
    if _TOKEN.fullmatch(asked):
        try:
            found = await visit.parts.store.read(lambda db: rows.load_recipient(db, asked))
        except NotFound:
            found = None
        if found is not None and visit.caller.tenant_id in {None, found.message.tenant_id}:
            return visit.go("messages", found.token)
    if "." in asked:
        return visit.go("messages", domain=asked.lower())
    if asked:
        visit.say(f"Nothing is called {asked[:100]}: search for an id, an address or a domain.", good=False)
    return visit.go("messages")


def _asked(visit: Visit) -> dict[str, str]:
    return {name: visit.asked(name) for name in NAMES}


def _query(asked: dict[str, str]) -> dict[str, str]:
    return {name.replace("from", "from_"): value for name, value in asked.items()}


def _filters(visit: Visit, asked: dict[str, str]) -> _Wanted:
    problems = []
    statuses: tuple[Status, ...] = ()
    try:
        statuses = tuple(dict.fromkeys(Status(word) for word in asked["status"].split(",") if word))
    except ValueError:
        problems.append(f'There is no state "{asked["status"][:50]}".')
    times: dict[str, float | None] = {}
    for name in ("since", "until"):
        try:
            times[name] = moment(asked[name])
        except ValueError:
            times[name] = None
            problems.append(f"{name.title()} is a date like 2026-01-31, with or without a time like 12:30.")
    tenant_id = visit.wanted_tenant
    if tenant_id is not None and visit.caller.tenant_id is None and tenant_id not in visit.snapshot.tenants:
        problems.append("There is no such tenant; mail of one that was removed is shown.")
    filters = Filters(
        tenant_id=tenant_id,
        statuses=statuses,
        sender=kept_address(asked["from"]) if asked["from"] else None,
        address=kept_address(asked["to"]) if asked["to"] else None,
        domain=kept_domain(asked["domain"].removeprefix("@")) if asked["domain"] else None,
        tag=asked["tag"] or None,
        after=times["since"],
        before=times["until"],
    )
    return _Wanted(filters, " ".join(problems), acts=any(asked.values()) and not problems)


def moment(given: str) -> float | None:
    """Return a time (UTC) as browsers give it, in Unix seconds; None for none. Raises ValueError."""
    if not given:
        return None
    try:
        return datetime.fromisoformat(given).replace(tzinfo=UTC).timestamp()
    except OverflowError as error:
        raise ValueError(given) from error
