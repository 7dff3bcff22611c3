"""A job in the writer's line, and how its result gets back to whoever waits for it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog

from arkrelay.store.connection import Connection

log = structlog.get_logger()

Job = Callable[..., Any]  # of a connection, or of a connection and a list of items
Done = Callable[[Any], None]  # of what the job returned, or of ``Failed``


class Waiting:
    """One job with the place where its result goes: a future of ``loop``, a callback, or nowhere.

    With an ``item``, the job is called with the items of all in the batch that have the same job, and returns a
    result for each.
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
    """Return the results of the batch, in its order.

    Jobs with items go first, those of one job together: what they write is new, and nobody knows of it before the
    commit, so their place among the others means nothing.
    """
    results: list[Any] = [None] * len(batch)
    together: dict[Job, list[int]] = {}
    for place, waiting in enumerate(batch):
        if waiting.item is not None:
            together.setdefault(waiting.job, []).append(place)
    for job, places in together.items():
        for place, result in zip(places, job(db, [batch[one].item for one in places]), strict=True):
            results[place] = result
    for place, waiting in enumerate(batch):
        if waiting.item is None:
            results[place] = waiting.job(db)
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
        if isinstance(settle, asyncio.Future):
            if settle.done():  # its coroutine was cancelled
                continue
            if type(result) is Failed:
                settle.set_exception(result.error)
            else:
                settle.set_result(result)
        else:
            try:
                settle(result)
            except Exception:
                log.exception("write_callback_failed")
