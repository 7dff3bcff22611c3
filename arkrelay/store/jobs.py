"""A job in the writer's line, and how its result gets back to whoever waits for it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from typing import Any

import structlog

from arkrelay.store.connection import Connection

log = structlog.get_logger()

Job = Callable[..., Any]  # of a connection, or of a connection and a list of items
_JOB = attrgetter("job")
Done = Callable[[Exception | None], None]


class Waiting:
    """One job with the place where its result goes: a future of ``loop``, a callback, or nowhere.

    With an ``item``, the job is called with the items of all its neighbours in line that have the same job, and
    returns a result for each.
    """

    __slots__ = ("essential", "item", "job", "loop", "settle")

    def __init__(
        self,
        job: Job,
        loop: asyncio.AbstractEventLoop | None,
        settle: "asyncio.Future[Any] | Done | None",
        *,
        essential: bool,
        item: object = None,
    ) -> None:
        self.job = job
        self.loop = loop
        self.settle = settle
        self.essential = essential
        self.item = item


def run(db: Connection, batch: list[Waiting]) -> list[Any]:
    """Return the results of the batch, in its order."""
    results: list[Any] = []
    for job, group in groupby(batch, _JOB):
        some = list(group)
        if some[0].item is None:
            results += [job(db) for _ in some]
        else:
            results += job(db, [waiting.item for waiting in some])
    return results


class Failed:
    """In the place of a job's result: what it raised."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


def settle(batch: list[Waiting], results: list[Any]) -> None:
    """Hand the results over, with one wake-up per event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Any, Any]]] = {}
    for waiting, result in zip(batch, results, strict=True):
        if waiting.settle is None:
            if type(result) is Failed:
                log.error("write_failed", error=str(result.error))
        elif waiting.loop is None:
            _deliver([(waiting.settle, result)])
        else:
            by_loop.setdefault(waiting.loop, []).append((waiting.settle, result))
    for loop, settled in by_loop.items():
        with suppress(RuntimeError):  # that caller's loop is closed
            loop.call_soon_threadsafe(_deliver, settled)


def _deliver(settled: list[tuple[Any, Any]]) -> None:
    for settle, result in settled:
        failed = result.error if type(result) is Failed else None
        if isinstance(settle, asyncio.Future):
            if settle.done():  # its coroutine was cancelled
                continue
            if failed is None:
                settle.set_result(result)
            else:
                settle.set_exception(failed)
        else:
            try:
                settle(failed)
            except Exception:
                log.exception("write_callback_failed")
