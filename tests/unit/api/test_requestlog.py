"""What is kept of a request, and how it comes to the disk: soon, sealed, and never at the price of anything else."""

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict
from peers.configuration import Folder
from structlog.testing import capture_logs
from unit.store.build import Faults

from arkrelay.api import requestlog
from arkrelay.api.entry import Entry, describe
from arkrelay.api.requestlog import BodySeal, RequestLog
from arkrelay.base.metrics import Metrics
from arkrelay.base.tasks import Tasks
from arkrelay.config.live import Live
from arkrelay.model.request import LoggedRequest
from arkrelay.relay.rates import Rate
from arkrelay.store import requests
from arkrelay.store.database import Store
from arkrelay.store.requests import RequestFilters

OWN = "chosen-by-hand-7"
LIVE = "ark_live_0123456789abcdef"
KEY = b"k" * 32
_numbers = count(1)


def entry(**more: Any) -> Entry:
    headers = CIMultiDict({"Authorization": f"Bearer {OWN}", **more.pop("headers", {})})
    base = Entry(
        request_id=f"req_{next(_numbers):016d}",
        began_at=1_800_000_000.123,
        duration_s=0.0123,
        method="GET",
        target="/v1/emails",
        headers=headers,
        address="192.0.2.1",
        endpoint="emails.list",
        status=200,
        tenant_id="acme",
        credential_id="7",
        key_prefix="chosen-b",
        rate=None,
        email_id=None,
        recipients=None,
        body=None,
        body_bytes=0,
        parsed=False,
        answer=b'{"data":[]}',
        answer_bytes=11,
    )
    return base._replace(**more)


# -- what is kept ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({}, {"path": "/v1/emails", "query": None, "at_ms": 1_800_000_000_123}, id="plain"),
        pytest.param({"duration_s": 0.0126}, {"duration_ms": 13}, id="duration"),
        pytest.param({"method": "HEAD"}, {"method": "GET"}, id="head-is-a-get"),
        pytest.param(
            {"target": "/v1/x?page=2&to=a%2Bb%40c.test&empty="},
            {"path": "/v1/x", "query": {"page": "2", "to": "a+b@c.test", "empty": ""}},
            id="query",
        ),
        pytest.param(
            {"target": f"/v1/{LIVE}/x?key=1&q={OWN}"},
            {"path": "/v1/[redacted]/x", "query": {"key": "[redacted]", "q": "[redacted]"}},
            id="keys-in-the-url",
        ),
        pytest.param({"target": "/v1/%61rk_live_abc"}, {"path": "/v1/[redacted]"}, id="a-key-behind-percents"),
        pytest.param({"target": "/v1/a%2Fb"}, {"path": "/v1/a%2Fb"}, id="percents-stay"),
        pytest.param({"target": "/" + "x" * 5000}, {"path": "/" + "x" * 1999}, id="long-path"),
        pytest.param({"target": "/\udcff?\udcff=\udcfe"}, {"path": "/?", "query": {"?": "?"}}, id="not-utf-8"),
        pytest.param(
            {
                "headers": {
                    "User-Agent": "AsyncArk/Python 0.18.1",
                    "X-Stainless-Lang": "python",
                    "X-Stainless-Package-Version": "0.18.1",
                }
            },
            {"user_agent": "AsyncArk/Python 0.18.1", "sdk": "python", "sdk_version": "0.18.1"},
            id="sdk",
        ),
        pytest.param(
            {"headers": {"User-Agent": "Ark/Go 0.18.1"}}, {"sdk": "go", "sdk_version": "0.18.1"}, id="agent"
        ),
        pytest.param({"headers": {"User-Agent": "curl/8"}}, {"user_agent": "curl/8", "sdk": None}, id="no-sdk"),
        pytest.param(
            {"headers": {"X-Stainless-Lang": "ruby"}}, {"sdk": "ruby", "sdk_version": None}, id="no-version"
        ),
        pytest.param({"headers": {"User-Agent": f"x{OWN}\udcff"}}, {"user_agent": "x[redacted]?"}, id="odd-agent"),
        pytest.param({"headers": {"Idempotency-Key": "order-1"}}, {"idempotency_key": "order-1"}, id="idempotency"),
        pytest.param(
            {"rate": Rate(10, 9, 1_800_000_001, None)},
            {"rate_limit": 10, "rate_remaining": 9, "rate_reset_at": 1_800_000_001, "limited": False},
            id="rate",
        ),
        pytest.param({"rate": Rate(10, 0, 1_800_000_001, 0.5)}, {"limited": True}, id="limited"),
        pytest.param({}, {"rate_limit": None, "limited": False}, id="no-rate"),
        pytest.param(
            {"status": 404, "answer": b'{"error":{"code":"not_found","message":"no ark_live_x"},"success":false}'},
            {"error_code": "not_found", "error": "no [redacted]"},
            id="error",
        ),
        pytest.param({"status": 500, "answer": b"oops"}, {"error_code": None, "error": None}, id="strange-error"),
        pytest.param({"status": 400, "answer": b'{"error":["x"]}'}, {"error_code": None}, id="stranger-error"),
        pytest.param(
            {"endpoint": "emails.send", "email_id": "e1", "recipients": 2},
            {"email_id": "e1", "recipients": 2},
            id="send",
        ),
        pytest.param(
            {"endpoint": "emails.send", "answer": b'{"success":true,"data":{"id":"e9"}}'},
            {"email_id": "e9", "recipients": None},
            id="the-answer-of-before-again",
        ),
        pytest.param({"address": "", "answer": None, "answer_bytes": None}, {"response_bytes": None}, id="a-stream"),
    ],
)
def test_an_entry_says_what_was_asked_and_how_it_ended(given: dict[str, Any], expected: dict[str, Any]) -> None:
    found = describe(entry(**given)).request._asdict()
    assert {name: found[name] for name in expected} == expected
    assert OWN not in repr(found)


def test_bodies_are_kept_without_their_secrets_and_their_size_as_it_was() -> None:
    body = json.dumps({"name": "x", "attachments": [{"content": "QUJD"}]}).encode()
    answer = json.dumps({"data": {"id": 1, "key": LIVE, "smtpUsername": f"acme/{LIVE}", "name": OWN}}).encode()
    found = describe(entry(body=body, body_bytes=len(body), parsed=True, answer=answer, answer_bytes=len(answer)))
    assert json.loads(found.body or "") == {"name": "x", "attachments": [{"content": "[3 bytes]"}]}
    assert json.loads(found.answer or "") == {
        "data": {"id": 1, "key": "[redacted]", "smtpUsername": "[redacted]", "name": "[redacted]"}
    }
    assert (found.request.request_bytes, found.request.response_bytes) == (len(body), len(answer))
    empty = describe(entry(body=b"", answer=b""))
    assert (empty.body, empty.answer) == (None, None)


# -- how it gets to the disk -----------------------------------------------------------------------------------------


class Rig:
    """A log on a real store, running."""

    def __init__(self, folder: Folder, faults: Faults, **settings: str) -> None:
        self.live = Live(folder.path)
        self.directory = self.live.snapshot.settings.state_dir
        self.faults = faults
        self.metrics = Metrics()
        self.tasks = Tasks()
        self.open()

    def open(self) -> None:
        self.store = Store.open(self.directory, factory=self.faults.factory())
        self.log = RequestLog(self.store, self.live, KEY, self.metrics)
        self.tasks.spawn("request log", self.log.run())

    async def close(self) -> None:
        await self.log.stop()
        await self.tasks.cancel()
        await asyncio.to_thread(self.store.close)

    async def rows(self) -> list[LoggedRequest]:
        found = await self.store.read(lambda db: requests.find(db, RequestFilters(), 1, 100_000))
        return found.requests

    async def bodies(self, one: Entry, seal: BodySeal | None = None) -> tuple[str | None, str | None]:
        stored = await self.store.read(lambda db: requests.get(db, one.request_id, None))
        assert stored is not None
        return (seal or self.log.seal).open(stored)

    def lost(self) -> float:
        found = self.metrics.registry.get_sample_value("arkrelay_requests_unlogged_total")
        assert found is not None
        return found


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr(requestlog, "RETRY_S", 0.02)
    folder = Folder(tmp_path)
    opened = Rig(folder, Faults())
    yield opened
    await opened.close()


async def test_what_is_noted_is_soon_on_the_disk_together(rig: Rig) -> None:
    some = [entry(body=b'{"n":%d}' % number) for number in range(1200)]
    for one in some:
        rig.log.note(one)
    assert await rig.log.flushed(20.0)
    assert [row.request_id for row in await rig.rows()] == [one.request_id for one in reversed(some)]
    batches = await rig.store.read(lambda db: db.execute("SELECT count(*) FROM request_batches").fetchone()[0])
    assert batches <= 5
    assert await rig.bodies(some[700]) == ('{"n":700}', '{"data":[]}')


async def test_without_a_reader_it_does_not_take_long_either(rig: Rig) -> None:
    rig.log.note(entry())
    async with asyncio.timeout(5.0):
        while not await rig.rows():
            await asyncio.sleep(0.01)


async def test_bodies_of_many_sizes_come_back_each_to_its_request(rig: Rig) -> None:
    some = [entry(body=json.dumps({"x": "é" * (number * 997)}).encode(), parsed=True) for number in range(60)]
    for one in some:
        rig.log.note(one)
    assert await rig.log.flushed(20.0)
    batches = await rig.store.read(lambda db: db.execute("SELECT count(*) FROM request_batches").fetchone()[0])
    assert batches > 2
    for one in some:
        body, _ = await rig.bodies(one)
        whole = json.dumps(json.loads(one.body or b""), ensure_ascii=False, separators=(",", ":"))
        fits = len(whole.encode()) <= 25_000
        assert body == (whole if fits else f"{whole[:12_503]}... [truncated]")


async def test_bodies_cannot_be_read_without_the_key_or_under_another_id(rig: Rig) -> None:
    one = entry(body=b'{"subject":"quite private"}')
    rig.log.note(one)
    assert await rig.log.flushed(5.0)
    assert await rig.bodies(one) == ('{"subject":"quite private"}', '{"data":[]}')
    assert await rig.bodies(one, BodySeal(b"x" * 32)) == (None, None)
    assert [row.request_bytes for row in await rig.rows()] == [0]
    await rig.store.write(lambda db: db.execute("UPDATE request_batches SET id = id + 1"))
    await rig.store.write(lambda db: db.execute("UPDATE requests SET batch_id = batch_id + 1"))
    assert await rig.bodies(one) == (None, None)
    await rig.store.write(lambda db: db.execute("UPDATE request_batches SET bodies = x'00'"))
    assert await rig.bodies(one) == (None, None)
    await rig.store.write(lambda db: db.execute("UPDATE request_batches SET bodies = NULL"))
    assert await rig.bodies(one) == (None, None)


async def test_what_is_in_memory_when_it_stops_is_written(rig: Rig) -> None:
    some = [entry() for _ in range(700)]
    for one in some:
        rig.log.note(one)
    await rig.close()
    rig.open()
    assert len(await rig.rows()) == 700


async def test_a_retention_of_0_keeps_no_log(rig: Rig) -> None:
    path = rig.live.snapshot.path
    before = path.read_text()
    path.write_text(before + '\n[retention]\nrequest_log = "0s"\n')
    rig.live.reload()
    rig.log.note(entry())
    path.write_text(before)
    rig.live.reload()
    later = entry()
    rig.log.note(later)
    assert await rig.log.flushed(5.0)
    assert [row.request_id for row in await rig.rows()] == [later.request_id]
    counted = rig.metrics.registry.get_sample_value(
        "arkrelay_api_requests_total", {"endpoint": "emails.list", "status": "2xx"}
    )
    assert counted == 2  # a metric is no log


async def test_a_locked_database_keeps_nobody_waiting_and_loses_nothing(rig: Rig) -> None:
    other = sqlite3.connect(rig.store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    some = [entry() for _ in range(50)]
    began = time.perf_counter()
    for one in some:
        rig.log.note(one)
    assert not await rig.log.flushed(0.3)
    assert time.perf_counter() - began < 2.0
    other.execute("ROLLBACK")
    other.close()
    assert await rig.log.flushed(10.0)
    assert len(await rig.rows()) == 50
    assert rig.lost() == 0


async def test_while_the_writer_is_stuck_memory_is_bounded_and_the_oldest_go(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requestlog, "MAX_ENTRIES", 100)
    other = sqlite3.connect(rig.store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with capture_logs() as told:
        first = entry()
        rig.log.note(first)
        await asyncio.sleep(0.2)  # now it is in hand
        some = [entry() for _ in range(250)]
        for one in some:
            rig.log.note(one)
        other.execute("ROLLBACK")
        other.close()
        assert await rig.log.flushed(10.0)
    assert [row.request_id for row in await rig.rows()] == [one.request_id for one in [*reversed(some[150:]), first]]
    assert rig.lost() == 150
    assert [line["event"] for line in told if line["event"].startswith("request_log")] == [
        "request_log_overflows",
        "request_log_goes_on",
    ]


async def test_bodies_count_towards_the_bound(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requestlog, "MAX_BYTES", 50_000)
    for number in range(20):
        rig.log.note(entry(body=b"x" * 8000 if number % 2 else None))
    assert await rig.log.flushed(5.0)
    assert 5 <= len(await rig.rows()) < 12
    assert rig.lost() == 20 - len(await rig.rows())


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR])
async def test_it_is_written_when_the_trouble_is_over(rig: Rig, code: int) -> None:
    rig.faults.code, rig.faults.fail_on = code, "INSERT INTO request_batches"
    rig.log.note(entry())
    assert await rig.log.flushed(15.0)
    assert rig.faults.times == 0
    assert len(await rig.rows()) == 1
    assert rig.lost() == 0


async def test_what_can_never_be_written_is_given_up_and_what_comes_after_is_not(rig: Rig) -> None:
    rig.faults.code, rig.faults.fail_on, rig.faults.times = (
        sqlite3.SQLITE_CONSTRAINT,
        "INSERT INTO request_batches",
        10**6,
    )
    with capture_logs() as told:
        rig.log.note(entry())
        assert await rig.log.flushed(10.0)
    assert [line["lost"] for line in told if line["event"] == "request_log_failed"] == [1]
    assert rig.lost() == 1
    rig.faults.times = 0
    rig.log.note(entry())
    assert await rig.log.flushed(5.0)
    assert len(await rig.rows()) == 1


async def test_an_entry_that_cannot_be_described_takes_no_other_with_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(one: Entry) -> Any:
        if one.endpoint == "poison":
            raise RuntimeError("a fault of the test")
        return describe(one)

    monkeypatch.setattr(requestlog, "describe", poisoned)
    good = [entry() for _ in range(3)]
    for one in (good[0], entry(endpoint="poison"), *good[1:]):
        rig.log.note(one)
    with capture_logs() as told:
        assert await rig.log.flushed(5.0)
    assert {row.request_id for row in await rig.rows()} == {one.request_id for one in good}
    assert [line["event"] for line in told] == ["request_not_described"]
    assert rig.lost() == 1
