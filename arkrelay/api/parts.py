"""The parts of the daemon that handlers use, and who is asking."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from arkrelay.base.metrics import Metrics
from arkrelay.config.live import Changes, Live
from arkrelay.policy.limits import SlidingWindow
from arkrelay.relay.domains import DomainChecker
from arkrelay.relay.operate import Operator
from arkrelay.relay.queue import Queue
from arkrelay.relay.submit import Submitter
from arkrelay.relay.upkeep import Upkeep
from arkrelay.store.database import Store


@dataclass(frozen=True, slots=True)
class Parts:
    """What the daemon is made of, handed to every handler."""

    store: Store
    live: Live
    queue: Queue
    submitter: Submitter
    operator: Operator
    domains: DomainChecker
    upkeep: Upkeep
    metrics: Metrics
    started_at: float
    listeners: Callable[[], list[tuple[str, str]]]  # (service, address) of everything that is bound
    unready: Callable[[], str]  # why the daemon does not accept and deliver; empty: it does
    reload: Callable[[], Awaitable[Changes]]  # takes the files over; raises ConfigErrors


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: an organisation key or a local peer (``tenant_id`` None sees everything), or a tenant's key."""

    tenant_id: str | None
    name: str
    test: bool = False  # a test key: nothing that it does may reach anybody
    hold: bool = False  # its credential may not send


PARTS = web.AppKey("parts", Parts)
CONTROL = web.AppKey("control", bool)  # the control socket: local peers need no key
GUESSES = web.AppKey("guesses", SlidingWindow)  # wrong keys per client
STOPPING = web.AppKey("stopping", asyncio.Event)  # set when the doors close: whoever waits answers now
CALLER = web.RequestKey("caller", Caller)
REQUEST_ID = web.RequestKey("request_id", str)


def parts_of(request: web.Request) -> Parts:
    """Return the daemon's parts."""
    return request.config_dict[PARTS]
