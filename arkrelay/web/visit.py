"""One request to the dashboard as a page sees it: who is signed in, what is asked, and the daemon's parts."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from arkrelay.config.live import Live
from arkrelay.config.snapshot import Snapshot
from arkrelay.model.errors import Conflict, NotFound
from arkrelay.model.tenant import Tenant
from arkrelay.relay.callers import Caller, Guesses, changing_refusal, sending_refusal
from arkrelay.relay.doctor import Doctor
from arkrelay.relay.domains import DomainChecker
from arkrelay.relay.hooks import Hooks
from arkrelay.relay.hooksettings import HookSettings
from arkrelay.relay.operate import Operator
from arkrelay.relay.queue import Queue
from arkrelay.relay.settings import Editor
from arkrelay.relay.upkeep import Upkeep
from arkrelay.relay.watch import EventWatch
from arkrelay.relay.ways import Ways
from arkrelay.store.browse import Mark
from arkrelay.store.database import Store
from arkrelay.store.requests import StoredRequest
from arkrelay.web.render import url
from arkrelay.web.sessions import Session

_TIME = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
_NUMBER = re.compile(r"[0-9]{1,18}")  # what 63 bits hold


@dataclass(frozen=True, slots=True)
class Parts:
    """What the daemon is made of, as far as pages need it."""

    store: Store
    live: Live
    queue: Queue
    ways: Ways
    operator: Operator
    domains: DomainChecker
    doctor: Doctor
    hooks: Hooks
    hook_settings: HookSettings
    upkeep: Upkeep
    watch: EventWatch
    editor: Editor
    guesses: Guesses
    # held while a thread takes a large message apart: the event loop shares one core with one
    composing: asyncio.Lock
    unready: Callable[[], str]  # why the daemon does not accept and deliver; empty: it does
    requests_flushed: Callable[[], Awaitable[Any]]  # returns when what was asked before is in the store
    open_request: Callable[[StoredRequest], tuple[str | None, str | None]]  # the bodies of a request to the API


@dataclass(frozen=True, slots=True)
class Page:
    """What a handler answers: a template and its data."""

    template: str
    title: str
    data: Mapping[str, Any]
    status: int = 200


@dataclass(slots=True)
class Visit:
    """A request of somebody who is signed in; ``form`` is what was posted, its token checked."""

    request: web.Request
    parts: Parts
    session: Session
    path: Mapping[str, str]
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def caller(self) -> Caller:
        """Who is signed in."""
        return self.session.caller

    @property
    def snapshot(self) -> Snapshot:
        """The configuration in force."""
        return self.parts.live.snapshot

    def is_signed_in(self) -> bool:
        """Return whether the session of a request that lasts is still good: a reload may have taken its key away."""
        return self.session.holds(self.snapshot)

    def asked(self, name: str) -> str:
        """Return a parameter of the query, without blanks around it; empty when it is absent."""
        return self.request.query.get(name, "").strip()

    def given(self, name: str) -> str:
        """Return a field of the form, likewise."""
        return self.form.get(name, "").strip()

    @property
    def tenants(self) -> list[Tenant]:
        """The tenants that this key may see, by name."""
        own = self.caller.tenant_id
        found = [one for one in self.snapshot.tenants.values() if own in {None, one.id}]
        return sorted(found, key=lambda one: (one.name.casefold(), one.id))

    @property
    def wanted_tenant(self) -> str | None:
        """The tenant that is asked for; None: all. A tenant's key sees its own, whatever it asks for."""
        return self.caller.tenant_id or self.asked("tenant") or None

    def tenant(self, tenant_id: str) -> Tenant:
        """Return a tenant; one that is unknown and one that is another's raise NotFound alike."""
        found = self.snapshot.tenants.get(tenant_id)
        if found is None or self.caller.tenant_id not in {None, tenant_id}:
            raise NotFound("There is no such tenant.")
        return found

    def chosen_tenant(self) -> Tenant | None:
        """Return the tenant that a page about one is for: the one asked for, else the default, else the first."""
        wanted = self.wanted_tenant or self.snapshot.settings.default_tenant
        if self.wanted_tenant is not None:
            return self.tenant(self.wanted_tenant)
        found = self.tenants
        return next((one for one in found if one.id == wanted), found[0] if found else None)

    def require_organisation(self) -> None:
        """Raise NotFound for a tenant's key: what is not its own does not exist for it."""
        if self.caller.tenant_id is not None:
            raise NotFound("There is no such page.")

    def require_sender(self, *, test: bool = False) -> None:
        """Raise Conflict for a key that may not cause mail to leave."""
        refusal = sending_refusal(self.caller, test=test)
        if refusal is not None:
            raise Conflict(refusal[1])

    def require_changer(self, *, test: bool = False) -> None:
        """Raise Conflict for a key that may change nothing; ``test``: what it would change serves tests alone."""
        refusal = changing_refusal(self.caller, test=test)
        if refusal is not None:
            raise Conflict(refusal[1])

    @property
    def older(self) -> Mark | None:
        """Where the page that is asked for begins; what is no place is none."""
        at, _, id_ = self.asked("older").partition("_")
        if not (_TIME.fullmatch(at) and _NUMBER.fullmatch(id_)):
            return None
        return Mark(float(at), int(id_))

    def say(self, sentence: str, *, good: bool = True) -> None:
        """Show a sentence on the next page."""
        self.session.notices.append(("good" if good else "bad", sentence))

    def go(self, *parts: str, **query: object) -> web.Response:
        """Return the answer that leads to another page, which is fetched by GET (RFC 9110 §15.4.4)."""
        return web.Response(status=303, headers={"Location": url(*parts, **query)})


def place(mark: Mark | None) -> str | None:
    """Return a place as a query has it."""
    return None if mark is None else f"{mark.at!r}_{mark.id}"


Handler = Callable[[Visit], Awaitable[Page | web.StreamResponse]]
