"""The request log's way to the disk: gathered in memory, packed in a thread, written with what others write.

A request pays for the log what it costs to append to a list. Twenty times a second, or earlier when much has come,
a thread makes the entries harmless, packs and seals them, and the writer takes them along. A crash loses the last
moment of the log, and never mail. While the database is locked or full entries wait here, within bounds; beyond
them the oldest go, which a metric counts and one line tells.
"""

import asyncio
import itertools
import secrets
import zlib
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import msgspec
import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from prometheus_client import Counter

from arkrelay.api.entry import Described, Entry, describe
from arkrelay.base.metrics import Metrics
from arkrelay.config.live import Live
from arkrelay.model.errors import StoreError
from arkrelay.store import requests
from arkrelay.store.database import Store
from arkrelay.store.requests import Batch, StoredRequest

log = structlog.get_logger()

GATHER_S: Final = 0.05
CHUNK: Final = 500  # entries packed and written at once: the writer is held for some 4 ms
BATCH_BYTES: Final = 256_000  # of bodies in one batch; who reads one opens all of them
HURRY_BYTES: Final = 1_000_000  # so much is packed at once
MAX_ENTRIES: Final = 20_000
MAX_BYTES: Final = 64_000_000
ENTRY_BYTES: Final = 2_000  # what an entry takes beside its bodies: headers, mostly
RETRY_S: Final = 1.0  # between tries while the database is in trouble
TRIES: Final = 3  # for entries that it does not take though it is well
FLUSH_S: Final = 1.0  # how long a reader waits for what is on its way
STOP_S: Final = 5.0
NONCE_BYTES: Final = 12  # NIST SP 800-38D §8.2.2: random, good for 2**32 batches under one key: seven years of these
SEQUENCE: Final = 1 << requests.ID_SHIFT


class BodySeal:
    """Encrypts the bodies of a batch (AES-256-GCM), bound to its id; without the host key they are unreadable."""

    def __init__(self, key: bytes) -> None:
        """``key`` has 32 bytes and is for this alone."""
        self._cipher = AESGCM(key)

    def seal(self, batch_id: int, bodies: Sequence[tuple[str | None, str | None]]) -> bytes:
        """Return the bodies of requests and answers, packed and encrypted."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        packed = zlib.compress(msgspec.msgpack.encode(bodies), requests.FAST)
        return nonce + self._cipher.encrypt(nonce, packed, _bound(batch_id))

    def open(self, stored: StoredRequest) -> tuple[str | None, str | None]:
        """Return the bodies of a request and its answer; None for none, and when this key did not seal them."""
        sealed = stored.sealed
        if sealed is None:
            return None, None
        try:
            packed = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _bound(stored.batch_id))
        except (InvalidTag, ValueError):
            return None, None
        bodies = msgspec.msgpack.decode(zlib.decompress(packed), type=list[tuple[str | None, str | None]])
        return bodies[stored.place]


class RequestLog:
    """Takes entries from the event loop's thread and brings them to the disk; one per daemon."""

    def __init__(self, store: Store, live: Live, key: bytes, metrics: Metrics) -> None:
        self.seal = BodySeal(key)
        self._store = store
        self._live = live
        self._metrics = metrics
        self._counters: dict[tuple[str, int], Counter] = {}  # by endpoint and first digit of the status
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="arkrelay-requests")
        self._sequence = itertools.count(secrets.randbelow(SEQUENCE))
        self._waiting: deque[Entry] = deque()
        self._bytes = 0
        self._noted = 0
        self._settled = 0  # written or given up
        self._lost = 0  # since it was last told that all is well
        self._filled = asyncio.Event()
        self._hurry = asyncio.Event()
        self._moved = asyncio.Event()  # replaced each time it is set
        self._stopping = False

    def note(self, entry: Entry) -> None:
        """Count the request, and remember it unless ``retention.request_log`` is 0."""
        kind = (entry.endpoint, entry.status // 100)
        counter = self._counters.get(kind)
        if counter is None:
            counter = self._counters[kind] = self._metrics.api_requests.labels(entry.endpoint, f"{kind[1]}xx")
        counter.inc()
        if self._stopping or not self._live.snapshot.settings.retention.request_log_s:
            return
        self._waiting.append(entry)
        self._noted += 1
        self._bytes += _size(entry)
        while self._bytes > MAX_BYTES or len(self._waiting) > MAX_ENTRIES:
            self._bytes -= _size(self._waiting.popleft())
            self._lose(1)
        if not self._filled.is_set():
            self._filled.set()
        if self._bytes > HURRY_BYTES or len(self._waiting) >= CHUNK:
            self._hurry.set()

    async def run(self) -> None:
        """Write what is noted, until cancelled."""
        while True:
            await self._filled.wait()
            try:
                async with asyncio.timeout(GATHER_S):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            entries = self._take()
            await self._write(entries)

    async def flushed(self, timeout_s: float = FLUSH_S) -> bool:
        """Return True when all that was noted before is on disk, or False after ``timeout_s``."""
        wanted = self._noted
        try:
            async with asyncio.timeout(timeout_s):
                while self._settled < wanted:
                    self._hurry.set()
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """Write what is left, for at most ``STOP_S``; call it while ``run`` runs. Nothing is noted any more."""
        self._stopping = True
        if not await self.flushed(STOP_S):
            log.warning("request_log_cut_off", lost=self._noted - self._settled)
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _take(self) -> list[Entry]:
        """Return the oldest entries, which are ours to settle now."""
        self._hurry.clear()
        entries = [self._waiting.popleft() for _ in range(min(CHUNK, len(self._waiting)))]
        self._bytes -= sum(_size(entry) for entry in entries)
        if not self._waiting:
            self._filled.clear()
        elif len(self._waiting) >= CHUNK:
            self._hurry.set()
        return entries

    async def _write(self, entries: list[Entry]) -> None:
        """Return when the entries are on disk, or lost because they cannot be written though others can."""
        batches, failed = await asyncio.get_running_loop().run_in_executor(self._worker, self._pack, entries)
        self._metrics.requests_unlogged.inc(failed)
        tries = 0
        while (error := await self._insert(batches)) is not None:
            tries = tries + 1 if self._store.healthy is None else 0
            if tries == TRIES:
                log.error("request_log_failed", lost=len(entries), error=str(error))
                self._metrics.requests_unlogged.inc(len(entries) - failed)
                break
            await asyncio.sleep(RETRY_S)
        else:
            self._tell_all_is_well()
        self._settle(len(entries))

    def _tell_all_is_well(self) -> None:
        if self._lost:
            log.info("request_log_goes_on", lost=self._lost)
            self._lost = 0

    async def _insert(self, batches: Sequence[Batch]) -> Exception | None:
        """Write with the next commit of others; return None, or why not."""
        done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

        def settle(error: Exception | None) -> None:
            if not done.done():
                done.set_result(error)

        try:
            self._store.write_later(partial(requests.insert, batches=batches), settle, essential=False)
        except StoreError as error:
            return error
        return await done

    def _lose(self, count: int) -> None:
        if not self._lost:
            log.warning("request_log_overflows", reason=self._store.healthy or "the writer is slower than requests")
        self._lost += count
        self._metrics.requests_unlogged.inc(count)
        self._settle(count)

    def _settle(self, count: int) -> None:
        self._settled += count
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    # -- in the thread -----------------------------------------------------------------------------------------

    def _pack(self, entries: Sequence[Entry]) -> tuple[list[Batch], int]:
        """Return the entries as they are stored, and how many could not be described, which is a fault of ours."""
        batches: list[Batch] = []
        failed = 0
        some: list[Described] = []
        size = 0
        for entry in entries:
            try:
                one = describe(entry)
            except Exception:
                log.exception("request_not_described", request_id=entry.request_id)
                failed += 1
                continue
            some.append(one)
            size += len(one.body or "") + len(one.answer or "")
            if size > BATCH_BYTES:
                batches.append(self._batch(some))
                some, size = [], 0
        if some:
            batches.append(self._batch(some))
        return batches, failed

    def _batch(self, some: Sequence[Described]) -> Batch:
        ids = [requests.first_id(one.request.at_ms) + next(self._sequence) % SEQUENCE for one in some]
        bodies = [(one.body, one.answer) for one in some]
        return Batch(ids, [one.request for one in some], self.seal.seal(max(ids), bodies))


def _size(entry: Entry) -> int:
    return ENTRY_BYTES + len(entry.body or b"") + len(entry.answer or b"")


def _bound(batch_id: int) -> bytes:
    """Return what a batch is sealed with beside its content: no batch passes for another."""
    return b"request log v1 " + batch_id.to_bytes(8)
