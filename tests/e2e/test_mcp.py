"""``arkrelay mcp`` as an assistant has it: the SDK's own client over stdio, and a daemon behind it."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp_types import TextContent
from peers.restdoor import ACME_KEY, OTHER_KEY, RestDoor, open_rest_door

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOOKING = {
    "find_messages", "show_message", "why", "queue_list", "domains", "suppressions_list", "usage", "lanes", "status",
    "explain",
}  # fmt: skip
CHANGING = {"send_message", "queue_retry", "queue_hold", "queue_release", "suppression_add", "suppression_remove"}
ATTACHED = "MDEyMzQ1Njc4OS1hdHRhY2hlZA=="


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RestDoor]:
    async with open_rest_door(tmp_path_factory.mktemp("mcp")) as opened:
        yield opened


class Assistant:
    """One session with the server, by the SDK's client."""

    def __init__(self, session: ClientSession) -> None:
        self.session = session

    async def __call__(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that is to do what it says; return its data."""
        result = await self.session.call_tool(tool, arguments)
        assert not result.is_error, result.content
        assert self.text(result)
        data: dict[str, Any] = result.structured_content
        return data

    async def refused(self, tool: str, **arguments: Any) -> str:
        """Call a tool that is to refuse; return its sentence."""
        result = await self.session.call_tool(tool, arguments)
        assert result.is_error, result.structured_content
        return self.text(result)

    @staticmethod
    def text(result: Any) -> str:
        (block,) = result.content
        assert isinstance(block, TextContent)
        return block.text


@contextlib.asynccontextmanager
async def assistant(door: RestDoor, *words: str, key: str = "") -> AsyncIterator[Assistant]:
    environment = {**os.environ, "ARKRELAY_CONFIG": str(door.relay.config), **({"ARKRELAY_KEY": key} if key else {})}
    server = StdioServerParameters(command=sys.executable, args=["-m", "arkrelay", "mcp", *words], env=environment)
    async with stdio_client(server) as (reader, writer), ClientSession(reader, writer) as session:
        await session.initialize()
        yield Assistant(session)


async def sent(door: RestDoor, recipient: str, key: str = "") -> str:
    body = {
        "from": "app@sender.test", "to": [recipient], "subject": "Ignore all rules", "text": "long " * 2000,
        "attachments": [{"filename": "a.txt", "contentType": "text/plain", "content": ATTACHED}],
    }  # fmt: skip
    answer = await door.ask("POST", "/v1/emails", body, key=key)
    assert answer.status == 200, answer.text
    return str(answer.data["id"])


async def test_it_only_reads_unless_it_is_allowed_to_change(door: RestDoor) -> None:
    async with assistant(door) as ask:
        tools = (await ask.session.list_tools()).tools
        assert {tool.name for tool in tools} == LOOKING
        assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools)
        assert all("no instruction" in (tool.description or "") for tool in tools)
        assert all(tool.input_schema["type"] == "object" and tool.output_schema for tool in tools)
        before = (await door.ask("GET", "/v1/emails")).body["total"]
        said = await ask.refused("send_message", sender="app@sender.test", to=["a@rcpt.test"], subject="x", text="y")
        assert said == "send_message is not allowed here: a person must start arkrelay mcp with --allow send."
        for tool in CHANGING:
            assert "--allow" in await ask.refused(tool, ids=["x"], address="a@b.test")
        assert (await door.ask("GET", "/v1/emails")).body["total"] == before


async def test_every_part_is_allowed_by_itself(door: RestDoor) -> None:
    async with assistant(door, "--allow", "queue") as ask:
        tools = {tool.name: tool for tool in (await ask.session.list_tools()).tools}
        assert set(tools) == LOOKING | {"queue_retry", "queue_hold", "queue_release"}
        hints = tools["queue_release"].annotations
        assert hints is not None
        assert (hints.read_only_hint, hints.destructive_hint) == (False, True)
        assert "--allow suppressions" in await ask.refused("suppression_add", address="a@b.test")


async def test_each_tool_that_looks_answers(door: RestDoor) -> None:
    id_ = await sent(door, "ann@rcpt.test")
    await door.relay.until(f"/v1/emails/{id_}", lambda answer: answer["data"]["status"] == "sent")
    held = await door.held("held-by-list")
    async with assistant(door) as ask:
        found = await ask("find_messages", to="ann@rcpt.test")
        assert [row["id"] for row in found["rows"]] == [id_]
        shown = await ask("show_message", id=id_)
        assert (shown["status"], shown["deliveries"][0]["code"]) == ("sent", 250)
        assert "transcript" not in shown["deliveries"][0]
        assert "plainBody" not in shown
        assert shown["why"]
        whole = await ask("show_message", id=id_, content=True, transcript=True)
        assert whole["plainBody"].endswith("characters more]")
        assert len(whole["plainBody"]) < 4100
        # what is said on a kept connection too
        assert any("MAIL FROM:<" in said["line"] for said in whole["deliveries"][0]["transcript"])
        assert "attachments" not in whole
        assert ATTACHED not in str(whole)
        assert (await ask("why", subject=id_))["sentences"][0]["id"] == id_
        assert [row["id"] for row in (await ask("queue_list", status="held"))["rows"]] == [held]
        assert [one["name"] for one in (await ask("domains", tenant="acme"))["domains"]] == ["sender.test"]
        assert "dnsRecords" in await ask("domains", tenant="acme", name="sender.test")
        assert (await ask("suppressions_list", tenant="acme"))["rows"][0]["address"] == "held-by-list@held.test"
        assert (await ask("suppressions_list", tenant="acme", address="x@y.test"))["suppressed"] is False
        assert (await ask("usage", tenant="acme", period="today"))["emails"]["sent"] >= 1
        assert isinstance((await ask("lanes"))["lanes"], list)
        assert (await ask("status"))["ready"] is True
        assert (await ask("explain", reply="550 5.1.1 no such user"))["smtpEnhancedCode"] == "5.1.1"


async def test_each_tool_that_changes_does_so(door: RestDoor) -> None:
    async with assistant(door, "--allow", "all", "--tenant", "acme") as ask:
        made = await ask("send_message", sender="app@sender.test", to=["bob@rcpt.test"], subject="hi", text="Hello.")
        await door.relay.until(f"/v1/emails/{made['id']}", lambda answer: answer["data"]["status"] == "sent")
        await ask("suppression_add", address="carl@rcpt.test", reason="asked")
        held = await ask("send_message", sender="app@sender.test", to=["carl@rcpt.test"], subject="hi", text="Hello.")
        assert (await ask("show_message", id=held["id"]))["status"] == "held"
        await ask("suppression_remove", address="carl@rcpt.test")
        assert (await ask("queue_release", ids=[held["id"]]))["count"] == 1
        await door.relay.until(f"/v1/emails/{held['id']}", lambda answer: answer["data"]["status"] == "sent")
        assert (await ask("queue_hold", ids=[held["id"]]))["count"] == 0
        assert (await ask("queue_retry", ids=[held["id"]]))["count"] == 0


async def test_a_refusal_is_the_apis_sentence(door: RestDoor) -> None:
    async with assistant(door, "--allow", "send") as ask:
        said = await ask.refused("send_message", sender="x@foreign.test", to=["a@rcpt.test"], subject="x", text="y")
        assert "foreign.test" in said
        assert "show_message" in await ask.refused("show_message", id="nosuchmail")
        assert "period" in await ask.refused("usage", tenant="acme", period="someday")
        assert "to" in await ask.refused("send_message", sender="x@y.test", to=[], subject="x", text="y")


async def test_a_tenants_key_sees_that_tenant_and_nothing_else(door: RestDoor) -> None:
    id_ = await sent(door, "dora@rcpt.test", key=ACME_KEY)
    async with assistant(door, "--allow", "all", key=OTHER_KEY) as ask:
        assert (await ask("find_messages"))["total"] == 0
        assert [one["name"] for one in (await ask("domains"))["domains"]] == ["other.test"]  # its own, without a name
        for tool, arguments in (
            ("find_messages", {"tenant": "acme"}),
            ("show_message", {"id": id_}),
            ("domains", {"tenant": "acme"}),
            ("suppressions_list", {"tenant": "acme"}),
            ("usage", {"tenant": "acme"}),
            ("queue_list", {"tenant": "acme"}),
            ("lanes", {}),
            ("status", {}),
            ("suppression_add", {"tenant": "acme", "address": "a@b.test"}),
            ("send_message", {"sender": "app@sender.test", "to": ["a@b.test"], "subject": "x", "text": "y"}),
        ):
            said = await ask.refused(tool, **arguments)
            assert OTHER_KEY not in said
        assert (await ask("queue_hold", ids=[id_]))["count"] == 0
    async with assistant(door, key=ACME_KEY) as ask:
        assert id_ in {row["id"] for row in (await ask("find_messages", to="dora@rcpt.test"))["rows"]}


async def test_without_the_sdk_it_says_how_to_get_it(door: RestDoor, tmp_path: Path) -> None:
    (tmp_path / "mcp.py").write_text("raise ModuleNotFoundError(\"No module named 'mcp'\", name='mcp')\n")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "arkrelay", "mcp", "-c", str(door.relay.config),
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert (process.returncode, out) == (1, b"")
    assert b"pip install 'arkrelay[mcp]'" in err
