"""Credentials of a tenant: SMTP passwords and API keys (Ark contract §8.6).

A tenant's key may do here what the organisation's may, with what its own limits leave of it: one that is restricted
to some domains, or may not send, could give itself what it lacks by making or revealing another, so it does
neither. No key puts itself on hold or deletes itself: a client that does so has lost count of its keys, and nothing
that it holds could undo it. A test key makes, changes, deletes and reveals test keys only.
"""

import asyncio
import contextlib
from typing import Annotated, Any, Literal

from arkrelay.api.ask import Ask
from arkrelay.api.model import UNSET, Answer, Body, Meta, Nothing, Page, Paged, Query, UnsetType
from arkrelay.api.refusal import ApiError
from arkrelay.api.settings import change, newest_first, require_changer
from arkrelay.api.shapes import Iso, iso
from arkrelay.api.tenants import Deleted
from arkrelay.config import tenants
from arkrelay.model.errors import Conflict, StoreError
from arkrelay.model.tenant import Credential as Configured
from arkrelay.relay.callers import managing_refusal
from arkrelay.store import lists

Kind = Literal["smtp", "api"]
Name = Annotated[str, Meta(min_length=1, max_length=50, pattern=r"^[a-zA-Z0-9_-]+\Z")]
MAX_ID_DIGITS = 10  # a 31-bit number has no more


class NewCredential(Body):
    """A credential to be."""

    name: Name
    type: Kind


class CredentialChange(Body):
    """What is to become different; what is absent or null stays."""

    name: Name | None = None
    hold: bool | None = None


class CredentialList(Paged):
    """Which credentials."""

    type: Kind | None = None


class CredentialView(Query):
    """How much is shown: with ``reveal`` the key itself."""

    reveal: bool = False


class Credential(Answer):
    """A credential; ``key`` and ``smtpUsername`` only when it was made, or is revealed.

    ``holdReason`` (beyond the contract) is what the relay had against it, when it was the relay that put it on hold.
    """

    id: int
    name: str
    type: Kind
    hold: bool
    hold_reason: str | None
    last_used_at: Iso | None
    created_at: Iso
    updated_at: Iso
    key: str | UnsetType = UNSET
    smtp_username: str | UnsetType = UNSET


async def create(ask: Ask[Nothing, NewCredential]) -> Credential:
    """Make a credential; its key is in this answer."""
    tenant_id, body, test = ask.tenant.id, ask.body, ask.caller.test
    _require_unrestricted(ask)

    def edit() -> tuple[Configured, str]:
        return tenants.add_credential(ask.snapshot, tenant_id, body.name, kind=body.type, test=test)

    made, key = await change(ask, edit)
    # one of its name may have been removed by hand
    ask.parts.store.write_later(lambda db: lists.forget_last_used(db, tenant_id, made.name))
    return _shape(tenant_id, made, {}, key)


async def list_all(ask: Ask[CredentialList, Nothing]) -> Page[Credential]:
    """One page, newest first; keys are never in it."""
    tenant, page, per_page, kind = ask.tenant, ask.query.page, ask.query.per_page, ask.query.type
    found = newest_first(one for one in tenant.credentials if kind in {None, one.type})
    used = await ask.parts.store.read(lambda db: lists.last_used(db, tenant.id))
    start = (page - 1) * per_page
    rows = [_shape(tenant.id, one, used) for one in found[start : start + per_page]]
    return Page(rows, page, per_page, len(found))


async def retrieve(ask: Ask[CredentialView, Nothing]) -> Credential:
    """One credential, with its key if that is to be revealed."""
    tenant, found = ask.tenant, _find(ask)
    key = await _reveal(ask, found) if ask.query.reveal else None
    used = await ask.parts.store.read(lambda db: lists.last_used(db, tenant.id))
    return _shape(tenant.id, found, used, key)


async def update(ask: Ask[Nothing, CredentialChange]) -> Credential:
    """Rename it, or put it on hold: from then on it opens no door, and what it sent and waits is held."""
    tenant_id, before, body = ask.tenant.id, _find(ask), ask.body
    changes = {key: value for key, value in (("name", body.name), ("hold", body.hold)) if value is not None}
    _require_unrestricted(ask)
    _require_own_kind(ask, before)
    if changes.get("hold"):
        _refuse_self(ask, before, "put itself on hold")
    if changes.get("hold") is False and before.suspicion:
        await _release(ask, before)
        if not before.hold:
            del changes["hold"]  # its file says so already
    after = before
    if changes:
        await change(ask, lambda: tenants.change_credential(ask.snapshot, tenant_id, before.id, changes))
    after = next((one for one in ask.tenant.credentials if one.id == before.id), before)
    if after.name != before.name:
        await ask.parts.store.write(lambda db: lists.rename_last_used(db, tenant_id, before.name, after.name))
    used = await ask.parts.store.read(lambda db: lists.last_used(db, tenant_id))
    return _shape(tenant_id, after, used)


async def delete(ask: Ask[Nothing, Nothing]) -> Deleted:
    """Remove a credential: its key is refused from now on."""
    tenant_id, found = ask.tenant.id, _find(ask)
    _require_unrestricted(ask)
    _require_own_kind(ask, found)
    _refuse_self(ask, found, "delete itself")
    gone = await change(ask, lambda: tenants.remove_credential(ask.snapshot, tenant_id, found.id))
    with contextlib.suppress(StoreError):  # it is gone all the same
        await ask.parts.store.write(lambda db: lists.forget_last_used(db, tenant_id, gone.name))
    return Deleted()


def _find(ask: Ask[Any, Any]) -> Configured:
    """Return the credential that the path names."""
    tenant, given = ask.tenant, ask.path("credentialId")
    if not (given.isascii() and given.isdecimal()):
        raise ApiError(400, "validation_error", "credentialId must be a whole number.", field="credentialId")
    found = next((one for one in tenant.credentials if str(one.id) == given), None)
    if found is None:
        raise ApiError(404, "not_found", f"There is no credential {given[:MAX_ID_DIGITS]}.")
    return found


async def _release(ask: Ask[Any, Any], credential: Configured) -> None:
    """Take back what the relay itself did to a credential."""
    require_changer(ask)
    await ask.parts.leaks.release(ask.tenant.id, credential.name, credential.id)


async def _reveal(ask: Ask[Any, Any], credential: Configured) -> str:
    _require_unrestricted(ask)
    require_changer(ask)
    if ask.caller.test and not ask.snapshot.is_test(ask.tenant.id, credential.name):
        raise ApiError(403, "permission_denied", "A test key reveals test keys only.")
    # off the loop: its file may be elsewhere
    key = await asyncio.to_thread(ask.snapshot.reveal, credential.secret)
    if key is None:
        digest = credential.secret.startswith("sha256:")
        why = "only its SHA-256 is kept" if digest else "its file cannot be read"
        raise Conflict(f"The key of {credential.name} cannot be revealed: {why}.")
    return key


def _require_unrestricted(ask: Ask[Any, Any]) -> None:
    refusal = managing_refusal(ask.snapshot, ask.caller)
    if refusal:
        raise ApiError(403, "permission_denied", refusal)


def _require_own_kind(ask: Ask[Any, Any], credential: Configured) -> None:
    """Refuse a test key what it would do to a live one."""
    require_changer(ask, test=ask.snapshot.is_test(ask.tenant.id, credential.name))


def _refuse_self(ask: Ask[Any, Any], credential: Configured, what: str) -> None:
    if ask.caller.tenant_id is not None and ask.caller.name == credential.name:
        raise Conflict(f"The key that asks cannot {what}: use another.")


def _shape(tenant_id: str, one: Configured, used: dict[str, float], key: str | None = None) -> Credential:
    shape = Credential(
        id=one.id,
        name=one.name,
        type=one.type,  # type: ignore[arg-type]  # the schema lets no other in
        hold=one.held,
        hold_reason=one.suspicion or None,
        last_used_at=iso(used.get(one.name)),
        created_at=one.created_at,
        updated_at=one.updated_at,
    )
    if key is not None:
        shape.key = key
        if one.type == "smtp":
            shape.smtp_username = f"{tenant_id}/{key}"
    return shape
