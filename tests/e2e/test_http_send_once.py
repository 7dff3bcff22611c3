"""A send with an Idempotency-Key happens once, whatever the client, the network or the kernel does meanwhile."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from peers.daemon import Relay
from peers.dns import DnsServer
from peers.mx import HANG, Mx, Script
from peers.restdoor import ACME_KEY, CREDENTIALS, OTHER_KEY, Answer, RestDoor, open_rest_door

module = pytest.mark.asyncio(loop_scope="module")
EMAIL = {"from": "app@sender.test", "subject": "Hello", "text": "Hello."}
SINGLE = ("/v1/emails", {**EMAIL, "to": ["single@held.test"]})
BATCH = (
    "/v1/emails/batch",
    {
        "from": "app@sender.test",
        "emails": [
            {"to": ["one@held.test"], "subject": "Hello", "text": "Hello."},
            {"to": ["nobody"], "subject": "Hello", "text": "Hello."},
        ],
    },
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RestDoor]:
    async with open_rest_door(tmp_path_factory.mktemp("once")) as opened:
        yield opened


async def post(door: RestDoor, path: str, body: Any, key: str, *, api_key: str = ACME_KEY) -> Answer:
    return await door.ask("POST", path, body, key=api_key, headers={"Idempotency-Key": key})


async def total(door: RestDoor) -> int:
    return int((await door.ask("GET", "/v1/emails")).body["total"])


@module
@pytest.mark.parametrize(("path", "body"), [SINGLE, BATCH], ids=["single", "batch"])
async def test_a_repeated_request_gets_the_same_answer_and_sends_nothing(
    door: RestDoor, path: str, body: Any
) -> None:
    before = await total(door)
    first = await post(door, path, body, f"again{len(path)}")
    assert first.status in {200, 207}
    for bare in (path, path.removeprefix("/v1")):
        again = await post(door, bare, body, f"again{len(path)}")
        assert (again.status, again.text) == (first.status, first.text)
        told = [{name for name in one.headers if name.startswith("X-SendLimit")} for one in (first, again)]
        assert told[1] == told[0] >= {"X-SendLimit-Used", "X-SendLimit-Reset"}
    assert await total(door) == before + 1


@module
async def test_mail_arrives_once_however_often_it_is_asked_for(door: RestDoor) -> None:
    body = {**EMAIL, "to": ["ann@rcpt.test"]}
    ids = {(await post(door, "/v1/emails", body, "once")).data["id"] for _ in range(5)}
    assert len(ids) == 1
    await door.relay.until(f"/v1/emails/{ids.pop()}", lambda shown: shown["data"]["status"] == "sent")
    assert len([one for one in door.mx.messages if "ann@rcpt.test" in one.recipients]) == 1


@module
async def test_a_key_is_for_one_body_one_path_and_one_credential(door: RestDoor) -> None:
    path, body = SINGLE
    first = await post(door, path, body, "mine")
    other = await post(door, path, {**body, "subject": "Other"}, "mine")
    assert (other.status, other.code, other.field) == (409, "idempotency_conflict", "Idempotency-Key")
    assert other.headers["x-should-retry"] == "false"
    assert (await post(door, *BATCH, "mine")).status == 207
    foreign = await post(door, path, {**body, "from": "app@other.test"}, "mine", api_key=OTHER_KEY)
    assert foreign.status == 200
    assert foreign.data["id"] != first.data["id"]


@module
async def test_a_refused_request_may_be_corrected_under_its_key(door: RestDoor) -> None:
    path, body = SINGLE
    for wrong in ({**body, "to": ["nobody"]}, {**body, "from": "app@other.test"}):
        assert (await post(door, path, wrong, "corrected")).status in {400, 422}
    assert (await post(door, path, body, "corrected")).status == 200


@module
@pytest.mark.parametrize("key", ["", " ", "a b", "ü", "x" * 256, "a/b"])
async def test_a_key_of_another_form_is_refused(door: RestDoor, key: str) -> None:
    answer = await post(door, *SINGLE, key)
    assert (answer.status, answer.field) == (400, "Idempotency-Key")


@module
async def test_of_many_at_once_one_sends_and_the_others_are_told_to_wait(door: RestDoor) -> None:
    before = await total(door)
    slow = {**EMAIL, "to": ["slow@held.test"], "text": None, "html": "<p>some <b>words</b></p>" * 6000}
    answers = await asyncio.gather(*(post(door, "/v1/emails", slow, "at-once") for _ in range(8)))
    waiting = [one for one in answers if one.status == 409]
    done = [one for one in answers if one.status == 200]
    assert len(waiting) + len(done) == 8
    assert {one.code for one in waiting} == {"idempotency_in_progress"}
    assert {one.headers["Retry-After"] for one in waiting} == {"1"}
    assert "x-should-retry" not in waiting[0].headers
    assert len({one.data["id"] for one in done}) == 1
    assert await total(door) == before + 1
    assert (await post(door, "/v1/emails", slow, "at-once")).data == done[0].data


@pytest.mark.asyncio
@pytest.mark.parametrize("batch", [False, True], ids=["single", "batch"])
async def test_an_answer_lost_with_the_process_is_given_by_the_next_one(tmp_path: Path, batch: bool) -> None:
    """Kill -9 as soon as the commit is seen on disk; nobody has read the answer."""
    one = {"to": ["ann@rcpt.test"], "subject": "Hello", "text": "Hello."}
    path = "/v1/emails/batch" if batch else "/v1/emails"
    body: dict[str, Any] = {"from": "app@sender.test", **({"emails": [one]} if batch else one)}
    async with DnsServer() as dns, Mx(Script(banner=HANG)) as mx:
        dns.set("rcpt.test", "MX", "10 mx.rcpt.test.")
        dns.set("mx.rcpt.test", "A", "127.0.0.1")
        relay = Relay(tmp_path, dns=dns.address, mx_port=mx.port, tenant=CREDENTIALS)
        await relay.start()
        _, writer = await asyncio.open_connection("127.0.0.1", relay.port("http"))
        content = json.dumps(body).encode()
        head = (  # the body is the one that aiohttp writes
            f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ACME_KEY}\r\nIdempotency-Key: lost\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        writer.write(head.encode() + content)
        token = await committed(relay)
        await relay.kill()
        writer.close()
        mx.script = Script()
        await relay.start()
        answers = [await repeated(relay, path, body) for _ in range(3)]
        assert answers == answers[:1] * 3
        data = answers[0]["data"]
        assert (data["messages"]["ann@rcpt.test"]["id"] if batch else data["id"]) == token
        assert (await relay.get("/v1/emails"))["total"] == 1
        await relay.until(f"/v1/emails/{token}", lambda shown: shown["data"]["status"] == "sent")
        await relay.stop()
        assert len(mx.messages) == 1


async def repeated(relay: Relay, path: str, body: Any) -> dict[str, Any]:
    """Return the answer to the request whose answer was lost."""
    headers = {"Authorization": f"Bearer {ACME_KEY}", "Idempotency-Key": "lost"}
    url = f"http://127.0.0.1:{relay.port('http')}{path}"
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as response:
        assert response.status == 200
        answer: dict[str, Any] = await response.json()
        return answer


async def committed(relay: Relay) -> str:
    """Return the id of the one email that is in the database, as soon as it is."""
    with contextlib.closing(sqlite3.connect(f"file:{relay.state / 'arkrelay.db'}?mode=ro", uri=True)) as db:
        async with asyncio.timeout(10):
            while True:
                for (token,) in db.execute("SELECT token FROM recipients"):
                    return str(token)
                await asyncio.sleep(0)
