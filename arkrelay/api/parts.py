"""The parts of the daemon that handlers use, and who is asking."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from arkrelay.api.idempotency import Idempotency
from arkrelay.api.requestlog import RequestLog
from arkrelay.base.metrics import Metrics
from arkrelay.config.live import Changes, Live
from arkrelay.policy.classify import Rules
from arkrelay.relay.callers import Caller, Guesses
from arkrelay.relay.doctor import Doctor
from arkrelay.relay.domains import DomainChecker
from arkrelay.relay.hookqueue import HookQueue
from arkrelay.relay.hooks import Hooks
from arkrelay.relay.hooksettings import HookSettings
from arkrelay.relay.leaks import LeakGuard
from arkrelay.relay.meter import Meter
from arkrelay.relay.operate import Operator
from arkrelay.relay.queue import Queue
from arkrelay.relay.rates import Rate, RateLimits
from arkrelay.relay.settings import Editor
from arkrelay.relay.submit import Submitter
from arkrelay.relay.upkeep import Upkeep
from arkrelay.relay.watch import EventWatch
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
    hook_settings: HookSettings
    leaks: LeakGuard
    upkeep: Upkeep
    metrics: Metrics
    started_at: float
    listeners: Callable[[], list[tuple[str, str]]]  # (service, address) of everything that is bound
    unready: Callable[[], str]  # why the daemon does not accept and deliver; empty: it does
    reload: Callable[[], Awaitable[Changes]]  # takes the files over; raises ConfigErrors
    idempotency: Idempotency
    rates: RateLimits
    guesses: Guesses  # wrong keys, of all listeners
    requests: RequestLog
    events: EventWatch
    editor: Editor  # changes configuration files, one change at a time
    composing: asyncio.Lock  # held while a thread writes a large message: the event loop shares one core with one


PARTS = web.AppKey("parts", Parts)
CONTROL = web.AppKey("control", bool)  # the control socket: local peers need no key
CALLER = web.RequestKey("caller", Caller)
BODY = web.RequestKey("body", bytes)  # as it came, once it was read,
PARSED = web.RequestKey("parsed", bool)  # and found to be sound
SENT = web.RequestKey("sent", tuple[str | None, int | None])  # the email that it is about, and its recipients
RATE = web.RequestKey("rate", Rate)  # what the key has left
REQUEST_ID = web.RequestKey("request_id", str)


def parts_of(request: web.Request) -> Parts:
    """Return the daemon's parts."""
    return request.app[PARTS]
