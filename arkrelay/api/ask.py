"""One question to the API as its handler sees it: who asks, what about, and with what."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from aiohttp import web

from arkrelay.api.idempotency import Claim
from arkrelay.api.model import Answer
from arkrelay.api.parts import REQUEST_ID, Parts, parts_of
from arkrelay.api.refusal import ApiError
from arkrelay.config.snapshot import Snapshot
from arkrelay.model.receipt import Receipt
from arkrelay.model.tenant import Tenant
from arkrelay.relay.callers import Caller
from arkrelay.relay.submit import Outcome

Q = TypeVar("Q")
B = TypeVar("B")


@dataclass(slots=True)
class Ask(Generic[Q, B]):
    """A request that was let in and is well formed; ``Nothing`` stands for no query and for no body."""

    request: web.Request
    caller: Caller
    query: Q
    body: B
    status: int  # of a success; a handler may change it
    claim: Claim | None = None  # on the request's Idempotency-Key
    recipients: int | None = None  # for the request log: how many a send had,
    email_id: str | None = None  # and the id that it gave
    headers: dict[str, str] = field(default_factory=dict)  # of the answer
    heavy: bool = False  # the answer may be long: it is written in a thread

    @property
    def parts(self) -> Parts:
        """The daemon's parts."""
        return parts_of(self.request)

    @property
    def snapshot(self) -> Snapshot:
        """The configuration in force."""
        return self.parts.live.snapshot

    @property
    def request_id(self) -> str:
        """The id of this request."""
        return self.request[REQUEST_ID]

    def path(self, name: str) -> str:
        """Return a part of the path, percent-decoded; a + stays what it is (Ark contract §6)."""
        return self.request.match_info[name]

    @property
    def tenant(self) -> Tenant:
        """The tenant that the path names; one that is unknown and one that is another's are 404 alike."""
        tenant_id = self.path("tenantId")
        found = self.snapshot.tenants.get(tenant_id)
        if found is None or self.caller.tenant_id not in {None, tenant_id}:
            raise ApiError(404, "not_found", f"There is no tenant {tenant_id}.")
        return found

    def own_tenant(self, wanted: str | None) -> str | None:
        """Return the tenant that ``tenantId`` means; None: all. A tenant's key may name itself only (§8.1)."""
        own = self.caller.tenant_id
        if own is not None and wanted not in {None, own}:
            raise ApiError(403, "tenant_mismatch", "tenantId is not the tenant of this key.", field="tenantId")
        return own or wanted

    def receipt(self, answer: Callable[[Sequence[Outcome]], Answer]) -> Callable[[Sequence[Outcome]], Receipt] | None:
        """Return what makes the stored answer of a send, which is kept in the transaction that accepts the mail.

        None without an Idempotency-Key. ``answer`` may set ``status``; it is called once, before the commit.
        """
        claim = self.claim
        if claim is None:
            return None

        def made(outcomes: Sequence[Outcome]) -> Receipt:
            data = answer(outcomes)
            return claim.answered(data, self.status)

        return made
