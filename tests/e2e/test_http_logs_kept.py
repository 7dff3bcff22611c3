"""What the request log never holds, what it costs, and what it outlives."""

import asyncio
import base64
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from peers.daemon import Relay
from peers.restdoor import ACME_KEY, RestDoor, open_rest_door, raw

pytestmark = pytest.mark.asyncio(loop_scope="module")

MAIL = {"from": "app@sender.test", "to": ["ann@held.test"], "subject": "s", "text": "t"}
CREDENTIALS = "/v1/tenants/acme/credentials"
SECRET = base64.b64encode(bytes(range(256)) * 2).decode()  # longer than a line of base64 in a message


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RestDoor]:
    async with open_rest_door(tmp_path_factory.mktemp("logs")) as opened:
        await opened.ask("POST", "/v1/tenants/acme/suppressions", {"address": "ann@held.test"})
        yield opened


def on_disk(door: RestDoor) -> bytes:
    """Return all bytes of the database, with what is still in its write-ahead log."""
    return b"".join(path.read_bytes() for path in door.relay.state.glob("arkrelay.db*"))


async def test_no_secret_is_in_an_entry_nor_anywhere_in_the_file(door: RestDoor) -> None:
    made = await door.ask("POST", CREDENTIALS, {"name": "log-api", "type": "api"})
    smtp = await door.ask("POST", CREDENTIALS, {"name": "log-smtp", "type": "smtp"}, headers={"Idempotency-Key": "c"})
    key, password = made.data["key"], smtp.data["key"]
    refused = base64.b64encode(b"From: a@not-ours.test\r\n\r\nThe text of a raw message that is refused.\r\n" * 9)
    answers = [
        made,
        smtp,
        await door.ask("POST", CREDENTIALS, {"name": "log-smtp", "type": "smtp"}, headers={"Idempotency-Key": "c"}),
        await door.ask("GET", f"{CREDENTIALS}/{made.data['id']}?reveal=true"),
        await door.ask("GET", f"{CREDENTIALS}/{smtp.data['id']}?reveal=true"),
        await door.ask("GET", f"/v1/emails?key={password}&tag={key}", headers={"User-Agent": f"tool {key}"}),
        await door.ask("GET", f"/v1/emails/{key}", key=key),
        await door.ask("POST", "/v1/emails", {**MAIL, "from": "a@not-ours.test", "metadata": {"a": key}}, key=key),
        await door.ask("POST", "/v1/emails", data=b'{"password": "' + password.encode()),
        await door.ask(
            "POST",
            "/v1/emails",
            {**MAIL, "attachments": [{"filename": "a.bin", "contentType": "a/b", "content": SECRET}]},
        ),
        await door.ask("POST", "/v1/emails", {**MAIL, "attachments": [{"Content": SECRET}]}),
        await door.ask(
            "POST", "/v1/emails/raw", {"from": "a@not-ours.test", "to": ["x"], "rawMessage": refused.decode()}
        ),
        await door.ask("POST", "/v1/emails/raw", data=b"rawMessage=" + refused),
        await door.ask("POST", "/v1/emails", {**MAIL, "from": "a@not-ours.test", "html": "<p>PRIVATE TEXT</p>"}),
    ]
    sent = await door.send("ann@held.test", rawMessage=raw("ann@held.test", body="quite private\r\n" * 30))
    shown = await door.ask("GET", f"/v1/emails/{sent.data['id']}?expand=raw,attachments")
    assert len(shown.data["rawMessage"]) > 500
    entries = [await door.logged(answer) for answer in [*answers, sent, shown]]
    text = json.dumps(entries)
    secrets = [key, password, SECRET[:90], refused[:90].decode(), shown.data["rawMessage"][:90]]
    for secret in [*secrets, "The text of a raw message", ACME_KEY, door.key]:
        assert secret not in text
    assert entries[0]["response"]["body"]["data"]["key"] == "[redacted]"
    assert entries[2]["response"]["body"]["data"]["smtpUsername"] == "[redacted]"
    assert entries[9]["request"]["body"]["attachments"][0]["content"] == "[512 bytes]"
    assert entries[11]["request"]["body"]["rawMessage"] == f"[{len(base64.b64decode(refused))} bytes]"
    assert entries[13]["request"]["body"]["html"] == "<p>PRIVATE TEXT</p>"
    found = on_disk(door)
    assert sent.data["id"].encode() in found  # it is looked at where something is
    for secret in [*secrets, "The text of a raw message", "PRIVATE TEXT", ACME_KEY, door.key]:
        assert secret.encode() not in found
    assert "PRIVATE TEXT" not in (door.relay.log.read_text())


async def test_a_locked_database_slows_no_request_that_does_not_write(door: RestDoor) -> None:
    other = sqlite3.connect(door.relay.state / "arkrelay.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.perf_counter()
    answers = [await door.ask("GET", "/v1/limits", key=ACME_KEY) for _ in range(40)]
    took_s = time.perf_counter() - began
    waited = time.perf_counter()
    await door.ask("GET", "/v1/logs", key=ACME_KEY)  # waits a moment for what is on its way, and answers without
    waited_s = time.perf_counter() - waited
    other.execute("ROLLBACK")
    other.close()
    assert took_s < 2.0
    assert waited_s < 3.0
    for answer in (answers[0], answers[-1]):
        assert (await door.logged(answer))["endpoint"] == "limits.retrieve"


async def test_requests_are_counted_by_endpoint_and_status(door: RestDoor) -> None:
    def count(page: str, labels: str) -> float:
        return sum(
            float(line.rpartition(" ")[2])
            for line in page.splitlines()
            if line.startswith(f"arkrelay_api_requests_total{{{labels}}}")
        )

    before = (await door.ask("GET", "/metrics", key=None, base=door.metrics)).text
    await door.ask("GET", "/v1/why?id=nobody")
    await door.ask("GET", "/v1/limits")
    after = (await door.ask("GET", "/metrics", key=None, base=door.metrics)).text
    for labels in ('endpoint="why.retrieve",status="4xx"', 'endpoint="limits.retrieve",status="2xx"'):
        assert count(after, labels) == count(before, labels) + 1
    assert "arkrelay_requests_unlogged_total 0.0" in after


async def test_a_crash_of_ours_is_in_the_log_as_the_500_that_it_was(door: RestDoor) -> None:
    first = await door.ask("GET", "/v1/limits")
    await door.logged(first)
    other = sqlite3.connect(door.relay.state / "arkrelay.db", isolation_level=None)
    (batch, described), *_ = other.execute("SELECT id, described FROM request_batches ORDER BY id DESC LIMIT 1")
    ((id_,),) = other.execute("SELECT request_id FROM requests WHERE batch_id = ?", (batch,)).fetchmany(1)
    other.execute("UPDATE request_batches SET described = x'00' WHERE id = ?", (batch,))
    crashed = await door.ask("GET", f"/v1/logs/{id_}")
    assert (crashed.status, crashed.code) == (500, "internal_error")
    other.execute("UPDATE request_batches SET described = ? WHERE id = ?", (described, batch))
    other.close()
    entry = await door.logged(crashed)
    assert (entry["statusCode"], entry["error"]["code"]) == (500, "internal_error")
    assert entry["response"]["body"] == crashed.body
    assert "zlib" not in crashed.text


async def restarted(door: RestDoor, key: str) -> RestDoor:
    """Return the door of the relay that is started again, on other ports."""
    await door.relay.start()
    return RestDoor(door.relay, key, door.mx)


async def test_it_outlives_a_stop_a_kill_and_the_loss_of_the_host_key(tmp_path: Path) -> None:
    async with open_rest_door(tmp_path) as opened:
        relay, key = opened.relay, opened.key
        stopped = await opened.ask("POST", "/v1/tenants/acme/suppressions", {"address": "bob@held.test"})
        await relay.stop()  # at once: what is in memory is written
        door = await restarted(opened, key)
        assert (await door.logged(stopped))["request"]["body"] == {"address": "bob@held.test"}
        settled = await door.ask("GET", "/v1/limits")
        await asyncio.sleep(0.5)
        flood = [door.ask("GET", "/v1/emails", key=ACME_KEY) for _ in range(40)]
        sent = await door.send("bob@held.test")
        await asyncio.gather(*flood)
        await relay.kill()
        door = await restarted(door, key)
        assert (await door.logged(settled))["endpoint"] == "limits.retrieve"
        assert (await door.ask("GET", f"/v1/emails/{sent.data['id']}")).data["status"] == "held"
        assert len(await door.log("endpoint=emails.list")) <= 40
        await relay.stop()
        (relay.state / "keys" / "host.key").unlink()
        (relay.folder / "platform.toml").unlink()  # its sealed key went with the host key
        await relay.start()
        entry = (await relay.get(f"/v1/logs/{stopped.headers['X-Request-Id']}"))["data"]
        assert (entry["endpoint"], entry["statusCode"]) == ("tenants.suppressions.create", 201)
        assert entry["request"] == {"body": None, "bodySize": 28}
        assert (await relay.get("/v1/logs"))["total"] > 0


async def test_a_retention_of_0_records_nothing_and_forgets_what_was(tmp_path: Path) -> None:
    relay = Relay(tmp_path, tenant=f'[[credentials]]\nname = "rest"\ntype = "api"\nsecret = "{ACME_KEY}"\n')
    async with relay:
        headers = {"Authorization": f"Bearer {ACME_KEY}"}
        async with aiohttp.ClientSession(f"http://127.0.0.1:{relay.port('http')}", headers=headers) as session:
            for _ in range(3):
                await (await session.get("/v1/limits")).read()
            await relay.until("/v1/logs", lambda page: page["total"] == 3)
            before = relay.config.read_text()
            relay.config.write_text(before + '\n[retention]\nrequest_log = "0s"\n')
            await relay.call("POST", "/v1/control/reload")
            for _ in range(3):
                await (await session.get("/v1/limits")).read()
            await relay.call("POST", "/v1/control/db/prune")
            assert (await relay.get("/v1/logs"))["total"] == 0
            relay.config.write_text(before)
            await relay.call("POST", "/v1/control/reload")
            await (await session.get("/v1/limits")).read()
            assert (await relay.until("/v1/logs", lambda page: page["total"] > 0))["total"] == 1
