"""Sender domains as DNS sees them: the contract's ``verify`` and what it answers (Ark contract §8.7, §13)."""

from typing import Any

from aiohttp import web

from arkrelay.api.auth import require_tenant
from arkrelay.api.errors import ApiError
from arkrelay.api.parts import parts_of
from arkrelay.api.shapes import iso, single
from arkrelay.config.live import Snapshot
from arkrelay.model.domain import DomainState
from arkrelay.model.tenant import Domain
from arkrelay.policy.records import render_json
from arkrelay.relay.domains import records_of


async def verify(request: web.Request) -> web.Response:
    """Look the domain's records up now; 200 whether or not they are right: see ``verified``."""
    tenant_id = require_tenant(request, request.match_info["tenant"])
    parts = parts_of(request)
    domain = _domain(request, tenant_id)
    state = await parts.domains.check(tenant_id, domain.name)
    return single(request, shape(parts.live.snapshot, tenant_id, domain, state))


async def retrieve(request: web.Request) -> web.Response:
    """The domain with its records and their last known state."""
    tenant_id = require_tenant(request, request.match_info["tenant"])
    parts = parts_of(request)
    domain = _domain(request, tenant_id)
    state = parts.domains.states.get((tenant_id, domain.name))
    return single(request, shape(parts.live.snapshot, tenant_id, domain, state))


def shape(snapshot: Snapshot, tenant_id: str, domain: Domain, state: DomainState | None) -> dict[str, Any]:
    """Return Domain (Ark contract §8.7); ``errors`` says in words what is wrong, beyond the contract."""
    state = state or DomainState(tenant_id, domain.name)
    records = render_json(records_of(snapshot, tenant_id, domain.name))
    for name, status in (("spf", state.spf), ("dkim", state.dkim), ("returnPath", state.return_path)):
        if records.get(name):
            records[name]["status"] = status
    errors = {"spf": state.spf_error, "dkim": state.dkim_error, "returnPath": state.return_path_error}
    return {
        "id": domain.id,
        "uuid": domain.uuid,
        "name": domain.name,
        "verified": state.verified,
        "verifiedAt": iso(state.verified_at),
        "checkedAt": iso(state.checked_at),
        "createdAt": domain.created_at or None,
        "trusted": domain.trusted,
        "tenant_id": tenant_id,
        "tenant_name": snapshot.tenants[tenant_id].name,
        "dnsRecords": records,
        "errors": {name: error for name, error in errors.items() if error},
    }


def _domain(request: web.Request, tenant_id: str) -> Domain:
    """Return the domain that the path names, by its number or by its name."""
    wanted = request.match_info["domain"]
    for domain in parts_of(request).live.snapshot.tenants[tenant_id].domains:
        if wanted in {domain.name, str(domain.id)}:
            return domain
    raise ApiError(404, "not_found", f"no domain {wanted}")
