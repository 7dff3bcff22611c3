"""The queue for people: what waits and why, and the verbs on it; beyond Ark's contract, used by the command line."""

import asyncio
import contextlib
import time

from aiohttp import web

from arkrelay.api.auth import caller_of, own_tenant
from arkrelay.api.body import body_of, field_of, flag, line, lines
from arkrelay.api.errors import ApiError
from arkrelay.api.parts import STOPPING, parts_of
from arkrelay.api.query import address, canonical_address, integer, page_of, statuses_of, tenant_filter
from arkrelay.api.shapes import iso, paginated, queue_row, single
from arkrelay.model.message import QUEUED, Recipient, Status
from arkrelay.relay.operate import APPLIES, Selection, Verb
from arkrelay.relay.why import why
from arkrelay.store.find import Filters, by_ids
from arkrelay.store.history import StoredEvent, list_events, list_recipients

WAITING = (*sorted(QUEUED), Status.HELD)
MAX_WAIT_S = 30
POLL_S = 0.25  # how often a waiting reader of events looks
MAX_IDS = 1000


async def list_queue(request: web.Request) -> web.Response:
    """One page of what waits or is held, newest first; ``tenantId``, ``domain``, ``address``, ``status``."""
    page, per_page = page_of(request)
    filters = Filters(
        tenant_id=tenant_filter(request),
        statuses=statuses_of(request) or WAITING,
        domain=(request.query.get("domain") or "").lower() or None,
        address=address(request, "address"),
    )
    found = await parts_of(request).store.read(lambda db: list_recipients(db, filters, page, per_page))
    return paginated(request, [queue_row(one) for one in found.recipients], page, per_page, found.total)


async def operate(request: web.Request) -> web.Response:
    """Do a verb to ``ids``, or with ``all`` to everything that matches tenant, domain and status."""
    name = request.match_info["verb"]
    verb = Verb.RETRY if name == "flush" else Verb(name)
    body = await body_of(request)
    ids = field_of(body, "ids", lines, "a list of ids", [])
    everything = name == "flush" or field_of(body, "all", flag, "true or false", False)  # noqa: FBT003 -- a default
    if len(ids) > MAX_IDS:
        raise ApiError(400, "validation_error", f"At most {MAX_IDS} ids at once.", field="ids")
    if not ids and not everything:
        raise ApiError(400, "missing_required_field", 'Name the mail by "ids", or say "all": true.', field="ids")
    wanted = field_of(body, "status", line, "a status", None)
    try:
        statuses = frozenset({Status(wanted)}) if wanted else QUEUED if name == "flush" else frozenset()
    except ValueError:
        raise ApiError(400, "validation_error", f"There is no status {wanted!r}.", field="status") from None
    if verb is Verb.RETRY and not ids and not statuses:
        statuses = QUEUED  # a retry of everything is not meant for what has failed for good
    if statuses and not statuses & APPLIES[verb]:
        raise ApiError(422, "validation_error", f"{name} does not apply to mail that is {wanted}.", field="status")
    wanted_address = field_of(body, "address", line, "an address", None)
    selection = Selection(
        tokens=tuple(ids),
        tenant_id=own_tenant(request, field_of(body, "tenantId", line, "a tenant's id", None)),
        statuses=statuses,
        domain=field_of(body, "domain", line, "a domain", "").lower() or None,
        address=None if wanted_address is None else canonical_address(wanted_address),
    )
    return single(request, {"count": await parts_of(request).operator.many(verb, selection)})


async def explain(request: web.Request) -> web.Response:
    """The sentences about ``q``: a public id, an address or a domain."""
    question = request.query.get("q", "").strip()
    if not question:
        raise ApiError(400, "missing_required_field", "q is required: an id, an address or a domain.", field="q")
    parts = parts_of(request)
    answers = await why(question, parts.store, parts.queue, caller_of(request).tenant_id)
    data = [{"id": one.id, "subject": one.subject, "sentence": one.sentence} for one in answers]
    return single(request, {"sentences": data})


async def events(request: web.Request) -> web.Response:
    """Events after a number, oldest first; with ``wait`` (seconds) the answer waits for the first one.

    It ends early when the daemon stops or the client goes.
    """
    after = integer(request, "after", 0, 0, 2**62)
    limit = integer(request, "limit", 100, 1, 1000)
    wait_s = integer(request, "wait", 0, 0, MAX_WAIT_S)
    tenant_id = tenant_filter(request)
    parts = parts_of(request)
    stopping = request.config_dict[STOPPING]
    ends = time.monotonic() + wait_s
    while True:
        found = await parts.store.read(lambda db: list_events(db, after, limit, tenant_id=tenant_id))
        if found or time.monotonic() >= ends or stopping.is_set() or request.transport is None:
            break
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(POLL_S, max(0.0, ends - time.monotonic()))):
                await stopping.wait()
    ids = sorted({one.event.recipient_id for one in found if one.event.recipient_id is not None})
    recipients = {one.id: one for one in await parts.store.read(lambda db: by_ids(db, ids))}
    rows = [_event(one, recipients.get(one.event.recipient_id or 0)) for one in found]
    return single(request, {"events": rows, "next": found[-1].seq if found else after})


def _event(stored: StoredEvent, recipient: Recipient | None) -> dict[str, object]:
    event = stored.event
    return {
        "seq": stored.seq,
        "event": str(event.kind),
        "at": event.at,
        "atIso": iso(event.at),
        "tenantId": event.tenant_id,
        "messageId": event.message_id,
        "emailId": recipient.token if recipient else None,
        "to": recipient.address if recipient else None,
        "data": dict(event.data),
    }
