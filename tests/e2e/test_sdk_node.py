"""The official Node client's requests, octet for octet as ``wire/node.toml`` has them, over one kept connection."""

import asyncio
import json
import re
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from peers.arkclient import OPERATIONS, template
from peers.arkdoor import ArkDoor, open_ark_door

pytestmark = pytest.mark.asyncio(loop_scope="module")

SESSION = tomllib.loads((Path(__file__).parent / "wire" / "node.toml").read_text())
REQUESTS: list[dict[str, Any]] = SESSION["request"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ArkDoor]:
    async with open_ark_door(tmp_path_factory.mktemp("node")) as opened:
        yield opened


class Node:
    """One connection that is kept, as fetch keeps it."""

    def __init__(self, door: ArkDoor) -> None:
        self.door = door
        self.known = {"hook": door.receiver.url("").partition("//204")[0]}
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def open(self) -> None:
        host, _, port = self.door.bare.removeprefix("http://").rpartition(":")
        self.reader, self.writer = await asyncio.open_connection(host, int(port))

    def fill(self, text: str) -> str:
        return re.sub(r"<(\w+)>", lambda found: self.known.get(found[1], found[0]), text)

    async def ask(self, request: dict[str, Any]) -> tuple[int, Any]:
        """Write the request and return status and decoded body of the answer."""
        body = self.fill(request.get("body", "")).encode()
        method = request["method"]
        head = [
            f"{method} /v1{self.fill(request['target'])} HTTP/1.1",
            f"host: {self.door.bare.removeprefix('http://')}",
            "connection: keep-alive",
            *request.get("fields", []),
            *SESSION["fields"],
            f"Authorization: Bearer {self.door.key}",
            *(SESSION["with_body"] if body else []),
            *SESSION["last"],
            *([f"content-length: {len(body)}"] if body or method in {"POST", "PATCH"} else []),
        ]
        self.writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        answer = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in answer[1:])}
        content = await self.reader.readexactly(int(fields["content-length"]))
        assert fields["content-type"].startswith("application/json"), fields
        return int(answer[0].split(" ")[1]), json.loads(content)

    async def settled(self, request: dict[str, Any]) -> tuple[int, Any]:
        """Ask, and for some seconds again while ``until`` does not hold: the relay posts and writes behind us."""
        wanted = request.get("until")
        for _ in range(300):
            status, answer = await self.ask(request)
            if wanted is None or part(answer, wanted) not in (0, "(absent)"):
                break
            await asyncio.sleep(0.05)
        return status, answer


def part(answer: Any, path: str) -> Any:
    """Return what stands at ``data.0.id``; "null" for null, "(absent)" for nothing."""
    for step in path.split("."):
        try:
            answer = answer[int(step)] if isinstance(answer, list) else answer[step]
        except (KeyError, IndexError):
            return "(absent)"
    return "null" if answer is None else answer


async def test_the_session_has_every_operation() -> None:
    asked = {
        (request["method"], template(request["method"], request["target"].partition("?")[0])) for request in REQUESTS
    }
    assert asked == set(OPERATIONS.values())
    for request in REQUESTS:
        method, path = OPERATIONS[request["sdk"]]
        assert (method, path) == (request["method"], template(method, request["target"].partition("?")[0]))


@pytest.mark.timeout(120)
async def test_the_node_client_does_all_of_it(door: ArkDoor) -> None:
    node = Node(door)
    await node.open()
    for request in REQUESTS:
        status, answer = await node.settled(request)
        assert status == request.get("status", 200), (request["sdk"], answer)
        found = {path: part(answer, path) for path in request.get("expect", {})}
        filled = json.loads(node.fill(json.dumps(request.get("expect", {}))))
        assert {path: str(value) for path, value in found.items()} == {
            path: str(value) for path, value in filled.items()
        }, request["sdk"]
        for name, path in request.get("keep", {}).items():
            node.known[name] = str(part(answer, path))
    node.writer.close()
    await node.writer.wait_closed()
