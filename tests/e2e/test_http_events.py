"""The event log by REST: pages, filters, an answer that waits, and the stream of Server-Sent Events."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
import pytest_asyncio
from peers.restdoor import ACME_KEY, OTHER_KEY, RestDoor, open_rest_door

from arkrelay.config import tenants

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAIT_S = 20.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RestDoor]:
    async with open_rest_door(tmp_path_factory.mktemp("events")) as opened:
        yield opened
        assert opened.relay.lines("request_crashed") == []
        assert opened.relay.lines("task_crashed") == []


async def suppress(door: RestDoor, address: str, tenant: str = "acme", reason: str = "asked") -> None:
    """Make something happen."""
    body = {"address": address, "reason": reason}
    answer = await door.ask("POST", f"/v1/tenants/{tenant}/suppressions", body)
    assert answer.status == 201


async def end(door: RestDoor) -> int:
    """Return the number of the newest event."""
    return int((await door.ask("GET", "/v1/events?limit=1")).data["last"])


def addresses(events: list[dict[str, Any]]) -> list[str]:
    return [event["data"].get("address", "") for event in events]


async def test_events_come_oldest_first_each_once(door: RestDoor) -> None:
    after = await end(door)
    names = [f"page{number}@x.test" for number in range(5)]
    for name in names:
        await suppress(door, name)
    seen: list[dict[str, Any]] = []
    while True:
        data = (await door.ask("GET", f"/v1/events?after={after}&limit=2")).data
        assert len(data["events"]) <= 2
        assert data["next"] == (data["events"][-1]["seq"] if data["events"] else after)
        after = data["next"]
        seen += data["events"]
        if data["next"] == data["last"]:
            break
    assert addresses(seen) == names
    assert [event["seq"] for event in seen] == sorted(event["seq"] for event in seen)
    assert {event["event"] for event in seen} == {"SuppressionAdded"}
    assert set(seen[0]) == {"seq", "event", "at", "atIso", "tenantId", "messageId", "emailId", "to", "data"}


async def test_an_event_names_its_email(door: RestDoor) -> None:
    after = await end(door)
    id_ = await door.held("named")
    data = (await door.ask("GET", f"/v1/events?after={after}&type=MessageHeld,MessageAccepted")).data
    (event,) = data["events"]
    assert (event["event"], event["emailId"], event["to"]) == ("MessageHeld", id_, "named@held.test")


async def test_filters_hide_the_rest(door: RestDoor) -> None:
    after = await end(door)
    await suppress(door, "filter@x.test")
    await suppress(door, "filter@y.test", "other")
    await door.ask("DELETE", "/v1/tenants/acme/suppressions/filter@x.test")

    async def found(query: str, key: str = "") -> list[tuple[str, str]]:
        data = (await door.ask("GET", f"/v1/events?after={after}&{query}", key=key)).data
        return [(event["tenantId"], event["event"]) for event in data["events"]]

    acme = [("acme", "SuppressionAdded"), ("acme", "SuppressionRemoved")]
    other = [("other", "SuppressionAdded")]
    assert await found("") == [acme[0], *other, acme[1]]
    assert await found("tenantId=acme") == await found("", ACME_KEY) == acme
    assert await found("tenantId=other") == await found("", OTHER_KEY) == other
    assert await found("type=SuppressionRemoved") == acme[1:]
    assert await found("type=SuppressionRemoved", OTHER_KEY) == []
    assert await found("tenantId=nobody") == []


async def test_an_answer_waits_for_the_first_event_and_no_longer(door: RestDoor) -> None:
    after = await end(door)
    began = time.monotonic()
    assert (await door.ask("GET", f"/v1/events?after={after}&wait=1")).data["events"] == []
    assert 0.9 < time.monotonic() - began < 10
    waiting = asyncio.create_task(door.ask("GET", f"/v1/events?after={after}&wait=30"))
    foreign = asyncio.create_task(door.ask("GET", f"/v1/events?after={after}&wait=3", key=OTHER_KEY))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    await suppress(door, "awaited@x.test")
    began = time.monotonic()
    assert addresses((await waiting).data["events"]) == ["awaited@x.test"]
    assert time.monotonic() - began < 10
    assert (await foreign).data["events"] == []  # though the log has grown


# -- the stream ----------------------------------------------------------------------------------------------------


@dataclass
class Told:
    """One event of a stream."""

    id: int
    event: str
    data: dict[str, Any]


class Stream:
    """A client that reads the stream field by field, as browsers do."""

    def __init__(self, door: RestDoor, query: str = "", *, key: str = "", **headers: str) -> None:
        self._url = f"{door.plain}/v1/events?{query}"
        self._headers = {"Authorization": f"Bearer {key or door.key}", **headers}
        self._session = aiohttp.ClientSession()
        self.comments: list[str] = []
        self.response: aiohttp.ClientResponse

    async def __aenter__(self) -> Self:
        self.response = await self._session.get(self._url, headers=self._headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.response.close()
        await self._session.close()

    async def next(self) -> Told | None:
        """Return the next event, or None when the stream has ended."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(WAIT_S):
            while line := (await self.response.content.readline()).decode().removesuffix("\n"):
                name, _, value = line.partition(": ")
                if name:
                    assert name not in fields
                    fields[name] = value
                else:
                    self.comments.append(value)
        if not fields:
            return None
        assert set(fields) == {"id", "event", "data"}
        return Told(int(fields["id"]), fields["event"], json.loads(fields["data"]))

    async def read(self, count: int) -> list[Told]:
        """Return so many events."""
        found = []
        for _ in range(count):
            told = await self.next()
            assert told is not None
            found.append(told)
        return found


SSE = {"Accept": "text/event-stream"}


@pytest.mark.parametrize(("query", "headers"), [("follow=true&", {}), ("", SSE)], ids=["query", "accept"])
async def test_a_stream_begins_where_it_is_told_and_goes_on(
    door: RestDoor, query: str, headers: dict[str, str]
) -> None:
    after = await end(door)
    await suppress(door, "before@x.test")
    async with Stream(door, f"{query}after={after}", **headers) as stream:
        assert stream.response.status == 200
        assert stream.response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert stream.response.headers["Cache-Control"] == "no-store"
        (told,) = await stream.read(1)
        assert (told.event, told.data["data"]["address"]) == ("SuppressionAdded", "before@x.test")
        assert told.id == told.data["seq"] == after + 1
        shown = (await door.ask("GET", f"/v1/events?after={after}&limit=1")).data["events"]
        assert [told.data] == shown
        await suppress(door, "after@x.test")
        (told,) = await stream.read(1)
        assert told.data["data"]["address"] == "after@x.test"


async def test_a_text_of_somebody_else_stays_in_its_field(door: RestDoor) -> None:
    after = await end(door)
    await suppress(door, "text@x.test", reason="a\u00a0b id: 7 event: x é 💩")
    async with Stream(door, f"after={after}", **SSE) as stream:
        (told,) = await stream.read(1)
        assert told.data["data"]["reason"] == "a\u00a0b id: 7 event: x é 💩"
        assert told.id == after + 1


async def test_a_stream_resumes_behind_what_was_seen(door: RestDoor) -> None:
    after = await end(door)
    for number in range(250):  # more than one read's worth
        await suppress(door, f"resume{number}@x.test")
    async with Stream(door, f"after={after}", **SSE) as stream:
        first = await stream.read(120)
    async with Stream(door, f"after={after}", **SSE, **{"Last-Event-ID": str(first[-1].id)}) as stream:
        rest = await stream.read(130)
    assert addresses([told.data for told in (*first, *rest)]) == [f"resume{number}@x.test" for number in range(250)]
    for wrong in ("x", "-1", "1.5", "9" * 30):
        answer = await door.ask("GET", "/v1/events?follow=true", headers={"Last-Event-ID": wrong})
        assert (answer.status, answer.field) == (400, "Last-Event-ID")


async def test_a_tenant_follows_its_own_events_only(door: RestDoor) -> None:
    after = await end(door)
    async with (
        Stream(door, f"after={after}", key=OTHER_KEY, **SSE) as other,
        Stream(door, f"after={after}&tenantId=acme&type=SuppressionRemoved", **SSE) as removed,
    ):
        await suppress(door, "mine@x.test")
        await suppress(door, "yours@x.test", "other")
        await door.ask("DELETE", "/v1/tenants/acme/suppressions/mine@x.test")
        assert [told.data["data"]["address"] for told in await other.read(1)] == ["yours@x.test"]
        assert [told.event for told in await removed.read(1)] == ["SuppressionRemoved"]
    answer = await door.ask("GET", "/v1/events?follow=true&tenantId=acme", key=OTHER_KEY)
    assert (answer.status, answer.code) == (403, "tenant_mismatch")


async def test_head_says_what_get_would_and_ends(door: RestDoor) -> None:
    answer = await door.ask("HEAD", "/v1/events?follow=true")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/event-stream")


async def test_a_key_that_is_taken_away_follows_no_longer(door: RestDoor) -> None:
    name, key = "leaving", "ark_live_leaving-0123456789"
    file = door.relay.folder / "tenants" / "other.toml"
    before = file.read_text()
    file.write_text(f'{before}\n[[credentials]]\nname = "{name}"\ntype = "api"\nsecret = "{key}"\n')
    await door.ask("POST", "/v1/control/reload")
    async with Stream(door, f"after={await end(door)}", key=key, **SSE) as stream:
        await suppress(door, "leaving1@x.test", "other")
        await stream.read(1)
        await asyncio.to_thread(tenants.remove_credential, door.relay.config, "other", name)
        await door.ask("POST", "/v1/control/reload")
        await suppress(door, "leaving2@x.test", "other")
        assert await stream.next() is None
        assert stream.response.content.at_eof()
    file.write_text(before)
    await door.ask("POST", "/v1/control/reload")


async def test_many_followers_and_some_that_read_nothing_cost_no_memory(door: RestDoor) -> None:
    process = door.relay.process
    assert process is not None
    first, reason = await end(door), "x" * 499
    for number in range(200):
        await suppress(door, f"bulk{number}@x.test", reason=reason)
    head = f"GET /v1/events?after=0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {door.key}\r\n"
    head += "Accept: text/event-stream\r\n\r\n"
    lazy = [_lazy(door.port, head) for _ in range(10)]
    before = _memory(process.pid)
    try:
        async with contextlib.AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(Stream(door, f"after={first}", **SSE)) for _ in range(30)]
            for _ in range(5):
                for number in range(200):
                    await suppress(door, f"bulk{number}@x.test", reason=reason)
            told = await asyncio.gather(*(stream.read(1200) for stream in streams))
            assert all([one.id for one in every] == [one.id for one in told[0]] for every in told)
        assert _memory(process.pid) - before < 30_000_000
    finally:
        for sock in lazy:
            sock.close()


def _lazy(port: int, head: str) -> socket.socket:
    """Return a connection that asks, and takes next to nothing of the answer."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    sock.sendall(head.encode())
    return sock


def _memory(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    (line,) = [one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


async def test_a_stream_ends_in_order_when_the_daemon_stops(tmp_path: Path) -> None:
    async with open_rest_door(tmp_path) as door:
        async with Stream(door, "follow=true") as stream, Stream(door, "follow=true", key=ACME_KEY) as silent:
            waiting = asyncio.create_task(door.ask("GET", f"/v1/events?after={2**40}&wait=30"))
            await suppress(door, "last@x.test")
            await stream.read(1)
            began = time.monotonic()
            assert await door.relay.stop() == 0
            assert time.monotonic() - began < 5.0  # not cut off after the five seconds that requests get
            assert await stream.next() is None
            assert stream.response.content.at_eof()
            assert await silent.next() is not None
            assert await silent.next() is None
            assert (await waiting).data["events"] == []
        assert door.relay.lines("request_crashed") == []
        assert door.relay.lines("task_crashed") == []
