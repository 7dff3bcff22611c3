"""Tasks: kept alive, their crash logged, waited for and cancelled together."""

import asyncio
import gc
import weakref

import pytest
from structlog.testing import capture_logs

from arkrelay.base import tasks
from arkrelay.base.tasks import Tasks


async def turns(count: int = 3) -> None:
    """Let the loop run callbacks of callbacks."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_task_is_kept_alive_though_nobody_holds_it() -> None:
    ended = asyncio.Event()

    async def wait_for_a_future_that_only_the_task_holds() -> None:
        future = asyncio.get_running_loop().create_future()
        futures.append(weakref.ref(future))
        await future
        ended.set()

    futures: list[weakref.ref[asyncio.Future[None]]] = []
    group = Tasks()
    group.spawn("x", wait_for_a_future_that_only_the_task_holds())
    await turns()
    gc.collect()
    future = futures[0]()
    assert future is not None, "the event loop holds only weak references"
    future.set_result(None)
    async with asyncio.timeout(5):
        await ended.wait()
    await turns()
    assert len(group) == 0


async def test_a_crash_is_logged_by_the_name_of_the_task() -> None:
    async def crash() -> None:
        raise LookupError("nothing there")

    group = Tasks()
    with capture_logs() as lines:
        task = group.spawn("files", crash())
        await turns()
    assert task.done()
    (line,) = lines
    assert (line["event"], line["log_level"], line["task"]) == ("task_crashed", "error", "files")
    assert isinstance(line["exc_info"], LookupError)
    assert len(group) == 0


async def test_an_end_and_a_cancellation_are_no_news() -> None:
    group = Tasks()
    with capture_logs() as lines:
        done = group.spawn("done", asyncio.sleep(0, "result"))
        await turns()
        group.spawn("cancelled", asyncio.Event().wait())
        await group.cancel()
    assert done.result() == "result"
    assert lines == []
    assert len(group) == 0


async def test_cancel_returns_when_all_have_ended_even_slowly() -> None:
    cleaned = asyncio.Event()

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await turns(10)
            cleaned.set()

    group = Tasks()
    group.spawn("slow", slow())
    await turns()
    async with asyncio.timeout(5):
        await group.cancel()
    assert cleaned.is_set()


async def test_a_task_may_cancel_the_group_it_is_in() -> None:
    group = Tasks()

    async def stop_all() -> str:
        await group.cancel()
        return "still here"

    other = group.spawn("other", asyncio.Event().wait())
    task = group.spawn("stop", stop_all())
    async with asyncio.timeout(5):
        assert await task == "still here"
    assert other.cancelled()


async def test_wait_tells_whether_all_ended_and_cancels_nothing() -> None:
    group = Tasks()
    assert await group.wait(0)
    gate = asyncio.Event()
    task = group.spawn("x", gate.wait())
    assert not await group.wait(0)
    assert not task.done()
    gate.set()
    assert await group.wait(5)


async def test_a_crash_of_one_is_not_raised_by_wait_or_cancel() -> None:
    async def crash() -> None:
        raise RuntimeError("x")

    group = Tasks()
    with capture_logs() as lines:
        group.spawn("crash", crash())
        assert await group.wait(5)
        await turns()
        await group.cancel()
    assert [line["task"] for line in lines] == ["crash"]


async def test_groups_do_not_know_each_other() -> None:
    mine, other = Tasks(), Tasks()
    task = other.spawn("x", asyncio.Event().wait())
    await mine.cancel()
    await turns()
    assert not task.done()
    await other.cancel()


async def test_spawn_without_a_group_logs_a_crash_too() -> None:
    async def crash() -> None:
        raise LookupError("nothing there")

    with capture_logs() as lines:
        task = tasks.spawn("lonely", crash())
        with pytest.raises(LookupError):
            await task
        await turns()
    assert [line["task"] for line in lines] == ["lonely"]
