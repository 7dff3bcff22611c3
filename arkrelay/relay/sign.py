"""Signatures off the event loop: two threads, two messages a hop.

RSA-2048 costs about 0.23 ms a signature and SHA-256 of a large body more; OpenSSL releases the GIL for both,
so two threads use two cores. Submitters come in convoys, those of one commit together: a thread that takes more
than its share leaves the other, and then the writer and the event loop, with nothing to do. With 20 sessions two at a
time gave 1.10 x the messages/s of sixteen, eight and four less, one as much for more CPU. The threads read one plain
queue: an executor makes a second future for each hop.
"""

import asyncio
import queue
import threading
from collections.abc import Sequence
from typing import NamedTuple

from arkrelay.mail.dkim import Signer, sign

THREADS = 2
BATCH = 2


class _Waiting(NamedTuple):  # a third of the price of a frozen dataclass
    content: bytes
    signers: Sequence[Signer]
    at: float
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[bytes]


class Signing:
    """The queue in front of the signing threads; one per daemon."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"dkim_{number}", daemon=True) for number in range(THREADS)
        ]
        for thread in self._threads:
            thread.start()

    async def sign(self, content: bytes, signers: Sequence[Signer], at: float) -> bytes:
        """Return the DKIM-Signature fields to be put before ``content``; empty without ``signers``.

        An error of one message is raised here and leaves the others of its batch alone. Cancelling the caller
        does not recall the work.
        """
        if not signers:
            return b""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bytes] = loop.create_future()
        self._waiting.put(_Waiting(content, signers, at, loop, future))
        return await future

    def close(self) -> None:
        """Stop the threads when they have signed what waits."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch, ends = [first], False
            try:
                while len(batch) < BATCH and not ends:
                    item = self._waiting.get_nowait()
                    ends = item is None
                    if item is not None:
                        batch.append(item)
            except queue.Empty:
                pass
            self._work(batch)
            if ends:
                return

    def _work(self, batch: list[_Waiting]) -> None:
        results: list[bytes | Exception] = []
        for item in batch:
            try:
                results.append(sign(item.content, item.signers, item.at))
            except Exception as error:  # noqa: BLE001 -- raised again in the caller; the thread outlives it
                results.append(error)
        try:
            batch[0].loop.call_soon_threadsafe(_finish, batch, results)
        except RuntimeError:
            pass  # the loop has closed: nobody waits any more


def _finish(batch: list[_Waiting], results: list[bytes | Exception]) -> None:
    for item, result in zip(batch, results, strict=True):
        if item.future.cancelled():
            continue
        if isinstance(result, Exception):
            item.future.set_exception(result)
        else:
            item.future.set_result(result)
