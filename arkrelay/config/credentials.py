"""Credentials of tenants and keys of the organisation: made with a secret of 256 bits, kept sealed."""

from collections.abc import Mapping
from typing import Any

from arkrelay.config.dates import now_iso
from arkrelay.config.edit import Draft, Site, Source, new_number, unset_none
from arkrelay.config.secrets import LIVE_PREFIX, TEST_PREFIX, create_host_key, new_secret
from arkrelay.model.errors import Exists
from arkrelay.model.tenant import Credential, OrganisationKey, Tenant

Which = str | int  # a credential's name, or its number


def add_credential(
    source: Source,
    tenant_id: str,
    name: str,
    *,
    kind: str = "smtp",
    secret: str | None = None,
    test: bool = False,
    **settings: Any,
) -> tuple[Credential, str]:
    """Return a new credential and its secret, which is kept sealed and shown by nothing else but ``reveal``.

    ``kind`` is "smtp" or "api"; what is sent with a ``test`` key never leaves. ``settings`` are other keys of
    ``[[credentials]]``, those that are None left out.
    """
    site = Site(source)
    plain = secret or (new_secret(TEST_PREFIX) if test else _new(kind))
    with site.editing(tenant_id) as draft:
        _refuse_taken(draft.before, name)
        sealed = create_host_key(site.settings.state_dir).seal(plain)
        number = new_number(item.id for item in draft.before.credentials)
        entry = {"name": name, "type": kind, "secret": sealed, **unset_none(settings)}
        draft.add("credentials", {**entry, "id": number, "created_at": now_iso()})
    return draft.after.credentials[-1], plain


def change_credential(source: Source, tenant_id: str, which: Which, changes: Mapping[str, Any]) -> Credential:
    """Return the credential with ``changes`` applied: name, hold, permissions, domains, username; None unsets."""
    with Site(source).editing(tenant_id) as draft:
        index = _index(draft, which)
        if changes.get("name") not in {None, draft.before.credentials[index].name}:
            _refuse_taken(draft.before, changes["name"])
        draft.change("credentials", index, changes)
    return draft.after.credentials[index]


def renew_credential(source: Source, tenant_id: str, which: Which) -> tuple[Credential, str]:
    """Return the credential and its new secret; the old one is refused from the next reload on."""
    site = Site(source)
    with site.editing(tenant_id) as draft:
        index = _index(draft, which)
        plain = _new(draft.before.credentials[index].type)
        draft.change("credentials", index, {"secret": create_host_key(site.settings.state_dir).seal(plain)})
    return draft.after.credentials[index], plain


def remove_credential(source: Source, tenant_id: str, which: Which) -> Credential:
    """Remove a credential and return what it was: its secret is refused from the next reload on."""
    with Site(source).editing(tenant_id) as draft:
        index = _index(draft, which)
        draft.remove("credentials", index)
    return draft.before.credentials[index]


def add_key(source: Source, name: str, *, test: bool = False) -> tuple[OrganisationKey, str]:
    """Return a new organisation key and its secret, which is kept sealed."""
    site = Site(source)
    plain = new_secret(TEST_PREFIX if test else LIVE_PREFIX)
    with site.editing_platform() as draft:
        keys = draft.before.keys
        if any(item.name == name for item in keys):
            raise Exists(f'there is an organisation key "{name}" already')
        sealed = create_host_key(site.settings.state_dir).seal(plain)
        number = new_number(item.id for item in keys)
        draft.add("keys", {"name": name, "secret": sealed, "id": number, "created_at": now_iso()})
    return draft.after.keys[-1], plain


def remove_key(source: Source, name: str) -> None:
    """Remove an organisation key: it is refused from the next reload on."""
    with Site(source).editing_platform() as draft:
        index = draft.index("keys", lambda item: bool(item.name == name), f'organisation key "{name}"')
        draft.remove("keys", index)


def _new(kind: str) -> str:
    return new_secret(LIVE_PREFIX if kind == "api" else "")


def _index(draft: Draft[Tenant], which: Which) -> int:
    return draft.index("credentials", lambda item: which in {item.name, item.id}, f'credential "{which}"')


def _refuse_taken(tenant: Tenant, name: str) -> None:
    if tenant.credential(name) is not None:
        raise Exists(f'there is a credential "{name}" already')
