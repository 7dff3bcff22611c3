"""Sender domains: what a tenant may send from, and the DNS records that it takes (Ark contract §8.7, §13)."""

from typing import Any, Literal

from arkrelay.api.ask import Ask
from arkrelay.api.model import UNSET, Answer, Body, Line, Nothing, UnsetType, field
from arkrelay.api.refusal import ApiError
from arkrelay.api.settings import change, newest_first
from arkrelay.api.shapes import Iso, iso
from arkrelay.config import tenants
from arkrelay.config.domains import sender_domain
from arkrelay.model.address import AddressError
from arkrelay.model.domain import DomainState
from arkrelay.model.errors import Exists
from arkrelay.model.tenant import Domain as Configured
from arkrelay.policy.records import Record
from arkrelay.relay.domains import records_of


class NewDomain(Body):
    """A domain to send from."""

    name: Line


class DnsRecord(Answer):
    """A record to publish; ``name`` is relative to the zone, ``status`` null before the first check."""

    type: Literal["TXT", "CNAME"]
    name: str
    full_name: str
    value: str
    status: Literal["OK", "Missing", "Invalid"] | None


class DnsRecords(Answer):
    """The records of a domain; ``dkimKeys`` where it has several keys (beyond the contract)."""

    zone: str
    spf: DnsRecord
    dkim: DnsRecord | None
    return_path: DnsRecord
    dkim_keys: list[DnsRecord] | UnsetType = UNSET


class DnsErrors(Answer):
    """What is wrong with each, in words."""

    spf: str | UnsetType = UNSET
    dkim: str | UnsetType = UNSET
    return_path: str | UnsetType = UNSET


class Domain(Answer):
    """A sender domain; ``checkedAt``, ``trusted`` and ``errors`` are beyond the contract."""

    id: int
    uuid: str
    name: str
    verified: bool
    verified_at: Iso | None
    checked_at: Iso | None
    created_at: Iso
    trusted: bool
    tenant_id: str = field(name="tenant_id")
    tenant_name: str = field(name="tenant_name")
    dns_records: DnsRecords
    errors: DnsErrors


class DomainRow(Answer):
    """One of a list."""

    id: int
    name: str
    verified: bool
    tenant_id: str = field(name="tenant_id")
    tenant_name: str = field(name="tenant_name")


class Domains(Answer):
    """All of a tenant, newest first."""

    domains: list[DomainRow]


class Message(Answer):
    """What was done, in a sentence."""

    message: str


async def create(ask: Ask[Nothing, NewDomain]) -> Domain:
    """Add a domain with a new DKIM key; mail may come from it when its records are right."""
    tenant_id = ask.tenant.id
    try:
        name = sender_domain(ask.body.name)
    except AddressError as error:
        raise ApiError(400, "validation_error", f"name: {error}.", field="name") from None

    def edit() -> Configured:
        owner = ask.snapshot.owner_of(name)
        if owner is not None:
            whose = "this tenant" if owner[0].id == tenant_id else "another tenant"
            raise Exists(f"{name} is a domain of {whose} already.")
        return tenants.add_domain(ask.snapshot, tenant_id, name)

    return _shape(ask, await change(ask, edit), None)


async def list_all(ask: Ask[Nothing, Nothing]) -> Domains:
    """All domains of the tenant, newest first."""
    tenant, states = ask.tenant, ask.parts.domains.states
    return Domains(
        domains=[
            DomainRow(
                id=one.id,
                name=one.name,
                verified=(state := states.get((tenant.id, one.name))) is not None and state.verified,
                tenant_id=tenant.id,
                tenant_name=tenant.name,
            )
            for one in newest_first(tenant.domains)
        ]
    )


async def retrieve(ask: Ask[Nothing, Nothing]) -> Domain:
    """The domain with its records and their last known state."""
    tenant_id, domain = ask.tenant.id, _find(ask)
    return _shape(ask, domain, ask.parts.domains.states.get((tenant_id, domain.name)))


async def verify(ask: Ask[Nothing, Nothing]) -> Domain:
    """Look the domain's records up now; 200 whether or not they are right: see ``verified``."""
    domain = _find(ask)
    return _shape(ask, domain, await ask.parts.domains.check(ask.tenant.id, domain.name))


async def delete(ask: Ask[Nothing, Nothing]) -> Message:
    """Remove a domain, its DKIM keys and its track domain: mail from it is refused from now on."""
    tenant_id, domain = ask.tenant.id, _find(ask)
    await change(ask, lambda: tenants.remove_domain(ask.snapshot, tenant_id, domain.name))
    return Message(message=f"{domain.name} is removed.")


def _find(ask: Ask[Any, Any]) -> Configured:
    """Return the domain that the path names, by its number or by its name."""
    wanted = ask.path("domainId")
    for domain in ask.tenant.domains:
        if wanted in {domain.name, str(domain.id)}:
            return domain
    raise ApiError(404, "not_found", "There is no such domain.")


def _shape(ask: Ask[Any, Any], domain: Configured, state: DomainState | None) -> Domain:
    tenant = ask.tenant
    state = state or DomainState(tenant.id, domain.name)
    records = records_of(ask.snapshot, tenant.id, domain.name)
    # of several keys it is known only that all are right, or that one is not
    keys = [_record(record, state.dkim if state.dkim == "OK" else None) for record in records.dkim]
    shown = DnsRecords(
        zone=records.zone,
        spf=_record(records.spf, state.spf),
        dkim=_record(records.dkim[0], state.dkim) if records.dkim else None,
        return_path=_record(records.return_path, state.return_path),
        dkim_keys=keys if len(keys) > 1 else UNSET,
    )
    return Domain(
        id=domain.id,
        uuid=domain.uuid,
        name=domain.name,
        verified=state.verified,
        verified_at=iso(state.verified_at),
        checked_at=iso(state.checked_at),
        created_at=domain.created_at,
        trusted=domain.trusted,
        tenant_id=tenant.id,
        tenant_name=tenant.name,
        dns_records=shown,
        errors=DnsErrors(
            spf=state.spf_error or UNSET, dkim=state.dkim_error or UNSET, return_path=state.return_path_error or UNSET
        ),
    )


def _record(record: Record, status: str | None) -> DnsRecord:
    return DnsRecord(
        type=record.type,  # type: ignore[arg-type]  # policy.records makes no other
        name=record.name,
        full_name=record.full_name,
        value=record.value,
        status=status,  # type: ignore[arg-type]  # of model.domain
    )
