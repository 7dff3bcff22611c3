"""Sender domains: what each needs in DNS, and what is there."""

from aiohttp import web

from arkrelay.config import tenants
from arkrelay.config.domains import sender_domain
from arkrelay.model.address import AddressError
from arkrelay.model.domain import DomainState
from arkrelay.model.errors import Conflict, Exists, NotFound
from arkrelay.model.tenant import Domain, Tenant, TrackDomain
from arkrelay.policy import zoneforms
from arkrelay.policy.records import Record
from arkrelay.relay.domains import records_of
from arkrelay.relay.track_domains import alias_of
from arkrelay.web.visit import Page, Visit


async def show_all(visit: Visit) -> Page:
    """Return the list of all domains."""
    states = visit.parts.domains.states
    found = [
        (tenant, domain, states.get((tenant.id, domain.name)) or DomainState(tenant.id, domain.name))
        for tenant in visit.tenants
        for domain in sorted(tenant.domains, key=lambda one: one.name)
        if visit.wanted_tenant in {None, tenant.id}
    ]
    return Page("domains.html", "Domains", {"found": found, "tenants": visit.tenants})


async def show(visit: Visit) -> Page:
    """Return one domain with its records, wanted and found."""
    tenant = visit.tenant(visit.path["tenant"])
    domain = _find(visit)
    state = visit.parts.domains.states.get((tenant.id, domain.name)) or DomainState(tenant.id, domain.name)
    records = records_of(visit.snapshot, tenant.id, domain.name)
    # of several keys it is known only that all are right, or that one is not
    alone = len(records.dkim) == 1
    dkim = [
        _row(f"DKIM, selector {record.full_name.partition('.')[0]}", record,
             state.dkim if alone or state.dkim == "OK" else None, state.dkim_error if alone else None)
        for record in records.dkim
    ]  # fmt: skip
    rows = [
        _row("SPF", records.spf, state.spf, state.spf_error),
        *dkim,
        _row("Return path", records.return_path, state.return_path, state.return_path_error),
        *(_tracking(visit, tenant, one) for one in tenant.track_domains if one.domain == domain.name),
    ]
    return Page(
        "domain.html",
        domain.name,
        {
            "tenant": tenant,
            "domain": domain,
            "state": state,
            "records": records,
            "rows": rows,
            "dkim_error": None if alone else state.dkim_error,
            "zone": zoneforms.bind(zoneforms.sheet_of(records)),
        },
    )


async def add(visit: Visit) -> web.StreamResponse:
    """Add a domain with a new DKIM key."""
    visit.require_changer()
    tenant = visit.tenant(visit.given("tenant") or visit.caller.tenant_id or "")
    try:
        name = sender_domain(visit.given("name"))
    except AddressError as error:
        raise Conflict(f"This is not the name of a domain: {error}") from None

    def edit() -> Domain:
        owner = visit.snapshot.owner_of(name)
        if owner is not None:
            whose = "this tenant" if owner[0].id == tenant.id else "another tenant"
            raise Exists(f"{name} is a domain of {whose} already")
        return tenants.add_domain(visit.snapshot, tenant.id, name)

    await visit.parts.editor.change(visit.caller.tenant_id, edit)
    visit.say(f"{name} is added. Publish its records, and it may send once they are found.")
    return visit.go("domains", tenant.id, name)


async def verify(visit: Visit) -> web.StreamResponse:
    """Look the records up now."""
    tenant, domain = visit.tenant(visit.path["tenant"]), _find(visit)
    state = await visit.parts.domains.check(tenant.id, domain.name)
    await visit.parts.domains.tracks.check_under(tenant.id, domain.name)
    known = visit.parts.domains.tracks.states
    tracks = [known.get((tenant.id, one.full_name)) for one in tenant.track_domains if one.domain == domain.name]
    if state.verified and all(one is not None and one.ok for one in tracks):
        visit.say(f"All records of {domain.name} are right.")
    else:
        visit.say(f"The records of {domain.name} are not all right yet.", good=False)
    return visit.go("domains", tenant.id, domain.name)


async def remove(visit: Visit) -> web.StreamResponse:
    """Remove a domain and its keys."""
    visit.require_changer()
    tenant, domain = visit.tenant(visit.path["tenant"]), _find(visit)
    await visit.parts.editor.change(
        visit.caller.tenant_id, lambda: tenants.remove_domain(visit.snapshot, tenant.id, domain.name)
    )
    visit.say(f"{domain.name} is removed: mail from it is refused from now on.")
    return visit.go("domains")


def _find(visit: Visit) -> Domain:
    found = visit.tenant(visit.path["tenant"]).domain(visit.path["name"])
    if found is None:
        raise NotFound("There is no such domain.")
    return found


def _tracking(visit: Visit, tenant: Tenant, track: TrackDomain) -> dict[str, object]:
    """Return the record of a track domain, with what it is for."""
    state = visit.parts.domains.tracks.states.get((tenant.id, track.full_name))
    status, error = (None, None) if state is None else (state.status, state.error)
    seen = " and ".join(name for name, wanted in (("clicks", track.clicks), ("opens", track.opens)) if wanted)
    note = f"It sees {seen}, while this record is right." if seen else "It is switched off: it sees nothing."
    return _row("Track domain", alias_of(visit.snapshot, track), status, error, note)


def _row(what: str, record: Record, status: str | None, error: str | None, note: str = "") -> dict[str, object]:
    return {"what": what, "record": record, "status": status, "error": error, "note": note}
