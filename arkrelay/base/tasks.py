"""Tasks that are kept alive and whose crash is logged: the event loop holds only weak references."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

log = structlog.get_logger()


class Tasks:
    """The tasks of one part of the daemon, so that it can wait for them or cancel them when it stops."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, name: str, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run ``coro`` until it ends; an exception that it raises is logged with its traceback."""
        task = asyncio.create_task(coro, name=name)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    async def cancel(self) -> None:
        """Cancel all that still run, and return when they have ended."""
        running = [task for task in self._running if task is not asyncio.current_task()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def wait(self, timeout_s: float) -> bool:
        """Return True when all have ended within ``timeout_s``; nothing is cancelled."""
        if not self._running:
            return True
        _, pending = await asyncio.wait(set(self._running), timeout=timeout_s)
        return not pending

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task_crashed", task=task.get_name(), exc_info=error)


_shared = Tasks()


def spawn(name: str, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Run ``coro`` as a task of nobody in particular; see ``Tasks.spawn``."""
    return _shared.spawn(name, coro)
