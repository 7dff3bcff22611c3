"""The parts of the daemon that handlers use, and who is asking."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass

from aiohttp import web

from arkrelay.api.idempotency import Idempotency
from arkrelay.api.requestlog import RequestLog
from arkrelay.api.watch import EventWatch
from arkrelay.base.metrics import Metrics
from arkrelay.config.live import Changes, Live
from arkrelay.policy.classify import Rules
from arkrelay.policy.limits import SlidingWindow
from arkrelay.relay.doctor import Doctor
from arkrelay.relay.domains import DomainChecker
from arkrelay.relay.hookqueue import HookQueue
from arkrelay.relay.hooks import Hooks
from arkrelay.relay.leaks import LeakGuard
from arkrelay.relay.meter import Meter
from arkrelay.relay.operate import Operator
from arkrelay.relay.queue import Queue
from arkrelay.relay.rates import Rate, RateLimits, shared_key
from arkrelay.relay.submit import Submitter
from arkrelay.relay.upkeep import Upkeep
from arkrelay.relay.ways import Ways
from arkrelay.store.database import Store


@dataclass(frozen=True, slots=True)
class Parts:
    """What the daemon is made of, handed to every handler."""

    store: Store
    live: Live
    rules: Rules  # what replies mean
    queue: Queue
    ways: Ways
    submitter: Submitter
    meter: Meter
    operator: Operator
    domains: DomainChecker
    doctor: Doctor
    hooks: Hooks
    hook_queue: HookQueue
    leaks: LeakGuard
    upkeep: Upkeep
    metrics: Metrics
    started_at: float
    listeners: Callable[[], list[tuple[str, str]]]  # (service, address) of everything that is bound
    unready: Callable[[], str]  # why the daemon does not accept and deliver; empty: it does
    reload: Callable[[], Awaitable[Changes]]  # takes the files over; raises ConfigErrors
    idempotency: Idempotency
    rates: RateLimits
    requests: RequestLog
    events: EventWatch
    editing: asyncio.Lock  # held while a request changes the configuration files
    composing: asyncio.Lock  # held while a thread writes a large message: the event loop shares one core with one


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: an organisation key or a local peer (``tenant_id`` None sees everything), or a tenant's key."""

    tenant_id: str | None
    name: str
    id: str = ""  # of the credential or key, for the request log
    prefix: str = ""  # the first 8 characters of the key
    test: bool = False  # a test key: nothing that it does may reach anybody
    hold: bool = False  # its credential may not send
    suspect: bool = False  # the relay put it on hold: it sends what is held, and changes and releases nothing
    may_send: bool = True  # its credential has the permission
    local: bool = False  # root or the service's user on the control socket
    suspended: str = ""  # the state of its tenant, when that may not ask
    shares_rate: bool = False  # with all requests and SMTP messages of its tenant

    @property
    def owner(self) -> str:
        """A name for the key that no other key has."""
        return f"{self.tenant_id or ''}/{self.name}"

    @property
    def rate_key(self) -> Hashable:
        """Under what its requests are counted."""
        return shared_key(self.tenant_id) if self.shares_rate and self.tenant_id is not None else self.owner


PARTS = web.AppKey("parts", Parts)
CONTROL = web.AppKey("control", bool)  # the control socket: local peers need no key
GUESSES = web.AppKey("guesses", SlidingWindow)  # wrong keys per client
CALLER = web.RequestKey("caller", Caller)
BODY = web.RequestKey("body", bytes)  # as it came, once it was read,
PARSED = web.RequestKey("parsed", bool)  # and found to be sound
SENT = web.RequestKey("sent", tuple[str | None, int | None])  # the email that it is about, and its recipients
RATE = web.RequestKey("rate", Rate)  # what the key has left
REQUEST_ID = web.RequestKey("request_id", str)


def parts_of(request: web.Request) -> Parts:
    """Return the daemon's parts."""
    return request.app[PARTS]
